//! Push: work comes over RabbitMQ, as soon as there is room for it; everything else goes to the coordinator over HTTP.
//!
//! A message is a lease that was given already. It is acknowledged when the lease was started, and not before: until then a
//! worker that dies gives the message to another. From then on the lease is the truth, as it is with pull.

mod consumer;
mod inbox;
mod reach;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use lapin::{Acker, Connection};
use redrive_link::amqp::{AmqpAddress, Names, State, keep};
use redrive_shared::id::{Name, TaskId};
use redrive_shared::task::Lease;
use redrive_shared::wire::{
    ClaimReply, ClaimRequest, ExtendReply, ExtendRequest, Heartbeat, HeartbeatReply, SettleReply,
    SettleRequest,
};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::inbox::Inbox;
use self::reach::Reach;
use crate::link::{AttemptLink, HttpLink, Link, LinkError};

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
    inbox: Arc<Inbox>,
    reach: Arc<Reach>,
    taken: Mutex<HashMap<(TaskId, i64), Taken>>,
    /// To be acknowledged with the next claim.
    late: Mutex<Vec<Acker>>,
    _keeper: AbortOnDropHandle<()>,
}

/// A lease that this worker was given and has not settled.
struct Taken {
    /// Of its message, until the lease is started.
    acker: Option<Acker>,
    /// From then on nothing has to be known of it.
    until: Instant,
}

/// What a message is to this worker.
enum Message {
    /// Work to begin.
    Lease(Box<Lease>),
    /// Of work that is about to begin: acknowledged then.
    Known,
    /// Nothing that is still to be done.
    Over,
}

impl AmqpLink {
    /// Begins to consume, and goes on however often the connection breaks. `http` is for the rest.
    pub fn new(consuming: Consuming, http: HttpLink, shutdown: CancellationToken) -> Self {
        let inbox = Arc::<Inbox>::default();
        let reach = Arc::new(Reach::new(consuming.queues.len()));
        let (messages, reached) = (Arc::clone(&inbox), Arc::clone(&reach));
        let keeper = tokio::spawn(async move {
            let state = watch::Sender::new(State::Down("not connected yet".to_owned()));
            keep(
                &consuming.address,
                "redrive-worker",
                &state,
                &shutdown,
                async |connection: Connection, over| {
                    let consume = |queue| consumer::run(&connection, &consuming, queue, &messages, &reached);
                    let consumers = try_join_all(consuming.queues.iter().map(consume));
                    let _connected = reached.connect();
                    state.send_replace(State::Up);
                    tracing::info!(address = %consuming.address, "work is taken from RabbitMQ");
                    // What nobody has taken goes back with the connection.
                    over.run_until_cancelled(consumers).await.unwrap_or(Ok(Vec::new())).map(|_| ())
                },
            )
            .await;
        });
        Self {
            http,
            inbox,
            reach,
            taken: Mutex::default(),
            late: Mutex::default(),
            _keeper: AbortOnDropHandle::new(keeper),
        }
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<(TaskId, i64), Taken>> {
        lock(&self.taken)
    }

    /// What a message is, which is noted.
    fn read(&self, delivery: &Delivery) -> Message {
        let lease: Lease = match serde_json::from_slice(&delivery.data) {
            Ok(lease) => lease,
            Err(error) => {
                // The store has the task: its lease will end.
                tracing::warn!(%error, "a message is no lease, or a newer coordinator's; it is dropped");
                return Message::Over;
            }
        };
        let until = Instant::now() + Duration::from_millis(lease.lease_ms);
        let mut taken = self.taken();
        let key = (lease.id.clone(), lease.epoch);
        if let Some(known) = taken.get_mut(&key) {
            // The connection broke before RabbitMQ heard of it.
            tracing::debug!(task = %lease.id, "a message came twice");
            return match &mut known.acker {
                Some(acker) => {
                    *acker = delivery.acker.clone();
                    Message::Known
                }
                None => Message::Over,
            };
        }
        taken.insert(key, Taken { acker: Some(delivery.acker.clone()), until });
        Message::Lease(Box::new(lease))
    }

    /// Messages to acknowledge: of leases that are over though nobody could tell so in time, among others.
    fn over(&self) -> Vec<Acker> {
        let now = Instant::now();
        let mut over = std::mem::take(&mut *lock(&self.late));
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
        let _waiting = self.inbox.wait();
        let deadline = Instant::now() + Duration::from_millis(request.wait_ms);
        let mut leases = Vec::new();
        loop {
            while leases.len() < request.max as usize
                && let Some(delivery) = self.inbox.take()
            {
                // Those of a connection that is gone are somebody else's by now.
                if !delivery.acker.usable() {
                    continue;
                }
                match self.read(&delivery) {
                    Message::Lease(lease) => leases.push(*lease),
                    Message::Known => {}
                    Message::Over if leases.is_empty() => acknowledge(&delivery.acker).await,
                    // Whoever calls this off while it waits must not find leases in its hands.
                    Message::Over => lock(&self.late).push(delivery.acker.clone()),
                }
            }
            if !leases.is_empty() || tokio::time::timeout_at(deadline, self.inbox.arrived()).await.is_err() {
                return Ok(ClaimReply { leases });
            }
        }
    }

    fn is_pushed(&self) -> bool {
        true
    }

    fn is_in_reach(&self) -> bool {
        self.reach.is_there()
    }

    async fn reach_changed(&self) {
        self.reach.changed().await;
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

    fn attempts(&self) -> Arc<dyn AttemptLink> {
        self.http.attempts()
    }
}

/// What a heartbeat adds where it does not say: at least this long a message is known.
const EXTENSION: Duration = Duration::from_secs(30);

impl std::fmt::Debug for AmqpLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AmqpLink").field("taken", &self.taken().len()).finish_non_exhaustive()
    }
}
