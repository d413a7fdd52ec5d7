//! Push: work comes over RabbitMQ, as soon as there is room for it; everything else goes to the coordinator over HTTP.
//!
//! A message is a lease that was given already. It is acknowledged when the lease was started, and not before: until then a
//! worker that dies gives the message to another. From then on the lease is the truth, as it is with pull.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Acker, Channel, Connection};
use redrive_link::amqp::{AmqpAddress, Names, SessionError, State, keep};
use redrive_shared::id::{Name, TaskId};
use redrive_shared::task::Lease;
use redrive_shared::wire::{
    ClaimReply, ClaimRequest, ExtendReply, ExtendRequest, Heartbeat, HeartbeatReply, SettleReply,
    SettleRequest,
};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::link::{HttpLink, Link, LinkError};

/// What a worker consumes.
#[derive(Debug, Clone)]
pub struct Consuming {
    /// Where RabbitMQ is.
    pub address: AmqpAddress,
    /// What its queues are called.
    pub names: Names,
    /// The Redrive queues.
    pub queues: Vec<Name>,
    /// Messages held of each at once: what the worker runs at once.
    pub prefetch: u16,
}

/// Push: over RabbitMQ.
pub struct AmqpLink {
    http: HttpLink,
    inbox: tokio::sync::Mutex<mpsc::Receiver<Delivery>>,
    taken: Mutex<HashMap<(TaskId, i64), Taken>>,
    _keeper: AbortOnDropHandle<()>,
}

/// A lease that this worker was given and has not settled.
struct Taken {
    /// Of its message, until the lease is started.
    acker: Option<Acker>,
    /// From then on nothing has to be known of it.
    until: Instant,
}

impl AmqpLink {
    /// Begins to consume, and goes on however often the connection breaks. `http` is for the rest.
    pub fn new(consuming: Consuming, http: HttpLink, shutdown: CancellationToken) -> Self {
        let (deliveries, inbox) = mpsc::channel(usize::from(consuming.prefetch.max(1)));
        let keeper = tokio::spawn(async move {
            let state = watch::Sender::new(State::Down("not connected yet".to_owned()));
            keep(&consuming.address, "redrive-worker", &state, &shutdown, async |connection: Connection| {
                let consumers =
                    consuming.queues.iter().map(|queue| consume(&connection, &consuming, queue, &deliveries));
                let consumers = try_join_all(consumers);
                state.send_replace(State::Up);
                consumers.await.map(|_| ())
            })
            .await;
        });
        Self {
            http,
            inbox: tokio::sync::Mutex::new(inbox),
            taken: Mutex::default(),
            _keeper: AbortOnDropHandle::new(keeper),
        }
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<(TaskId, i64), Taken>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lease of a message, if it is one to work on.
    fn take(&self, delivery: &Delivery) -> Option<Lease> {
        let lease: Lease = match serde_json::from_slice(&delivery.data) {
            Ok(lease) => lease,
            Err(error) => {
                // The store has the task: its lease will end.
                tracing::warn!(%error, "a message is no lease, or a newer coordinator's; it is dropped");
                return None;
            }
        };
        let until = Instant::now() + Duration::from_millis(lease.lease_ms);
        let mut taken = self.taken();
        let key = (lease.id.clone(), lease.epoch);
        if let Some(known) = taken.get_mut(&key).filter(|known| known.acker.is_none()) {
            // RabbitMQ did not hear that it was started. It is being worked on.
            tracing::debug!(task = %lease.id, until = ?known.until, "a message came twice");
            return None;
        }
        taken.insert(key, Taken { acker: Some(delivery.acker.clone()), until });
        Some(lease)
    }

    /// Acknowledges messages of leases that are over, though nobody could tell so in time.
    fn over(&self) -> Vec<Acker> {
        let now = Instant::now();
        let mut over = Vec::new();
        self.taken().retain(|_, taken| {
            let keep = taken.until > now;
            if !keep {
                over.extend(taken.acker.take());
            }
            keep
        });
        over
    }
}

/// Passes a queue's messages on until the session ends.
async fn consume(
    connection: &Connection,
    consuming: &Consuming,
    queue: &Name,
    deliveries: &mpsc::Sender<Delivery>,
) -> Result<(), SessionError> {
    let channel: Channel = connection.create_channel().await?;
    channel.basic_qos(consuming.prefetch, BasicQosOptions::default()).await?;
    let name = consuming.names.pushed(queue);
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer = channel.basic_consume(name.as_str().into(), "".into(), options, arguments).await?;
    tracing::info!(%queue, "work is taken from RabbitMQ");
    while let Some(delivery) = consumer.next().await {
        if deliveries.send(delivery?).await.is_err() {
            // The worker is going.
            return Ok(());
        }
    }
    Err(SessionError::Cancelled(name))
}

/// What cannot be acknowledged comes again, and is known then.
async fn acknowledge(acker: &Acker) {
    if let Err(error) = acker.ack(BasicAckOptions::default()).await {
        tracing::debug!(%error, "a message could not be acknowledged");
    }
}

#[async_trait]
impl Link for AmqpLink {
    async fn claim(&self, request: &ClaimRequest) -> Result<ClaimReply, LinkError> {
        for acker in self.over() {
            acknowledge(&acker).await;
        }
        let mut inbox = self.inbox.lock().await;
        let deadline = Instant::now() + Duration::from_millis(request.wait_ms);
        let (mut leases, mut dropped) = (Vec::new(), Vec::new());
        while leases.len() < request.max as usize {
            let next = match inbox.try_recv() {
                Ok(delivery) => Some(delivery),
                Err(_) if !leases.is_empty() || !dropped.is_empty() => None,
                Err(_) => tokio::time::timeout_at(deadline, inbox.recv()).await.ok().flatten(),
            };
            let Some(delivery) = next else { break };
            // Those of a connection that is gone are somebody else's by now.
            if delivery.acker.usable() {
                match self.take(&delivery) {
                    Some(lease) => leases.push(lease),
                    None => dropped.push(delivery.acker),
                }
            }
        }
        for acker in dropped {
            acknowledge(&acker).await;
        }
        Ok(ClaimReply { leases })
    }

    fn is_pushed(&self) -> bool {
        true
    }

    async fn start(&self, request: &ExtendRequest) -> Result<ExtendReply, LinkError> {
        let reply = self.http.start(request).await?;
        let ackers: Vec<Acker> = {
            let mut taken = self.taken();
            let named = request.leases.iter().zip(&reply.results);
            named
                .filter_map(|(lease, result)| {
                    let key = (lease.id.clone(), lease.epoch);
                    let acker = taken.get_mut(&key)?.acker.take();
                    if result.error.is_some() {
                        taken.remove(&key);
                    }
                    acker
                })
                .collect()
        };
        for acker in ackers {
            acknowledge(&acker).await;
        }
        Ok(reply)
    }

    async fn heartbeat(&self, request: &Heartbeat) -> Result<HeartbeatReply, LinkError> {
        let reply = self.http.heartbeat(request).await?;
        let mut taken = self.taken();
        for (lease, result) in request.leases.iter().zip(&reply.leases) {
            if let (None, Some(taken)) = (&result.error, taken.get_mut(&(lease.id.clone(), lease.epoch))) {
                let length = request.lease_ms.map(Duration::from_millis);
                taken.until = taken.until.max(Instant::now() + length.unwrap_or(EXTENSION));
            }
        }
        Ok(reply)
    }

    async fn settle(&self, request: &SettleRequest) -> Result<SettleReply, LinkError> {
        let reply = self.http.settle(request).await?;
        let ackers: Vec<Acker> = {
            let mut taken = self.taken();
            let keys = request.settlements.iter().map(|one| (one.id.clone(), one.epoch));
            keys.filter_map(|key| taken.remove(&key)?.acker).collect()
        };
        for acker in ackers {
            acknowledge(&acker).await;
        }
        Ok(reply)
    }

    async fn presence(&self, agent: &Name, boot_id: &Name) -> Result<(), LinkError> {
        self.http.presence(agent, boot_id).await
    }
}

/// What a heartbeat adds where it does not say: at least this long a message is known.
const EXTENSION: Duration = Duration::from_secs(30);

impl std::fmt::Debug for AmqpLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AmqpLink").field("taken", &self.taken().len()).finish_non_exhaustive()
    }
}
