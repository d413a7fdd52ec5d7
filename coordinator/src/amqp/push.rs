//! Push: leased tasks go to RabbitMQ as soon as there is somebody with room for them, and not before. Until then they stay
//! in the store, where they can be ordered, paused and called off.
//!
//! One coordinator at a time pushes a queue: the one that holds the message of its turn queue, which RabbitMQ gives to
//! another as soon as that one's connection is gone. So nobody else claims for the same consumers meanwhile, and what is
//! leased is never more than they have room for. It is no leader: should two push at once, for a moment, more tasks than
//! there is room for wait in RabbitMQ, and nothing else.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel};
use redrive_link::amqp::{SessionError, message};
use redrive_shared::id::Name;
use redrive_shared::task::Lease;
use redrive_shared::wire::{Outcome, SettleRequest, Settlement};
use tokio::time::Instant;

use super::Amqp;
use super::claims::{self, Unconfirmed};
use super::config::PushConfig;
use super::publisher::{Message, Sent};
use crate::store::StoreError;

/// Tasks claimed and published at once.
const BATCH: usize = 500;
/// How often it is looked how much room consumers have.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether there is room again, where there was none: other coordinators hear of outcomes too.
const ROOM_EVERY: Duration = Duration::from_millis(100);
/// After the store failed.
const AGAIN: Duration = Duration::from_millis(500);

/// A queue that is pushed, at this coordinator.
pub(super) struct Pusher<'a> {
    amqp: &'a Amqp,
    channel: Channel,
    queue: &'a Name,
    config: PushConfig,
}

impl<'a> Pusher<'a> {
    /// A pusher of a queue, on a channel of its own.
    pub fn new(amqp: &'a Amqp, channel: Channel, queue: &'a Name, config: PushConfig) -> Self {
        Self { amqp, channel, queue, config }
    }

    /// Waits for the turn, and pushes until the session ends.
    pub async fn run(&self) -> Result<(), SessionError> {
        let turn = self.amqp.names.turn(self.queue);
        self.channel.basic_qos(1, BasicQosOptions::default()).await?;
        let (options, tag) = (BasicConsumeOptions::default(), "".into());
        let mut turns =
            self.channel.basic_consume(turn.as_str().into(), tag, options, FieldTable::default()).await?;
        // It is never acknowledged: it goes back when the channel does.
        let _held = turns.next().await.ok_or_else(|| SessionError::Cancelled(turn.clone()))??;
        tracing::debug!(queue = %self.queue, "this coordinator pushes");
        tokio::select! {
            ended = self.push() => ended,
            next = turns.next() => match next {
                Some(Err(error)) => Err(error.into()),
                Some(Ok(_)) | None => Err(SessionError::Cancelled(turn)),
            },
        }
    }

    async fn push(&self) -> Result<(), SessionError> {
        let mut unconfirmed = Unconfirmed::new();
        let (mut capacity, mut looked) = (0, None::<Instant>);
        loop {
            claims::until_ready(self.amqp, &mut unconfirmed).await;
            if looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
                capacity = self.capacity().await?;
                looked = Some(Instant::now());
            }
            // From before it is looked how much there is.
            let freed = self.amqp.engine.freed();
            let room = match self.room(capacity).await {
                Ok(room) => room,
                Err(error) => {
                    tracing::warn!(%error, queue = %self.queue, "nothing is pushed: the store does not say what is leased");
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            };
            metrics::gauge!("redrive_push_room", "queue" => self.queue.to_string()).set(room as f64);
            if room == 0 {
                let pause = if capacity == 0 { LOOK_EVERY } else { ROOM_EVERY };
                tokio::select! {
                    Some(()) = unconfirmed.next() => {}
                    () = freed, if capacity > 0 => {}
                    () = tokio::time::sleep(pause) => {}
                }
                continue;
            }
            // Who has room may go while nothing is due.
            let changed = self.until_other_capacity(capacity);
            let (max, lease_ms) = (room.min(BATCH), self.config.lease_ms);
            let leases = claims::next(self.amqp, self.queue, max, lease_ms, &mut unconfirmed, changed).await;
            if leases.is_empty() {
                looked = None;
            } else {
                unconfirmed.push(self.publish(leases));
            }
        }
    }

    /// How many tasks consumers take together: what Redrive's workers say of themselves, and what the configuration says of
    /// others. Nobody who consumes, no room.
    async fn capacity(&self) -> Result<u64, SessionError> {
        let queue = self.amqp.names.pushed(self.queue);
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared = self.channel.queue_declare(queue.into(), passive, FieldTable::default()).await?;
        if declared.consumer_count() == 0 {
            return Ok(0);
        }
        let workers = match self.amqp.engine.push_capacity(self.queue).await {
            Ok(workers) => workers,
            Err(error) => {
                tracing::warn!(%error, queue = %self.queue, "the store does not say which workers there are");
                0
            }
        };
        Ok(workers + u64::from(self.config.max_outstanding))
    }

    async fn until_other_capacity(&self, known: u64) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            // An error is met again by whoever looks next.
            if !self.capacity().await.is_ok_and(|capacity| capacity == known) {
                return;
            }
        }
    }

    /// What is left of it. Leases that workers claimed for themselves count as well: a queue is pushed or pulled.
    async fn room(&self, capacity: u64) -> Result<usize, StoreError> {
        if capacity == 0 {
            return Ok(0);
        }
        let leased = self.amqp.engine.leased(self.queue).await?;
        Ok(usize::try_from(capacity.saturating_sub(leased)).unwrap_or(usize::MAX))
    }

    /// Publishes leases; those that RabbitMQ does not have, or may not have, are handed back. Should one of these arrive all
    /// the same, its lease is over, and whoever starts it is told so.
    async fn publish(&self, leases: Vec<Lease>) {
        let now_ms = self.amqp.engine.clock().now_ms();
        let batch: Vec<Message> = leases.iter().map(|lease| self.message(lease, now_ms)).collect();
        let sent = self.amqp.publisher.publish(&batch).await;
        let mut back = Vec::new();
        for (lease, sent) in leases.into_iter().zip(sent) {
            let result = match sent {
                Sent::Confirmed => "confirmed",
                Sent::Refused(why) | Sent::Unknown(why) => {
                    tracing::debug!(task = %lease.id, why, "not pushed");
                    back.push(lease);
                    "handed_back"
                }
            };
            metrics::counter!("redrive_pushed_total", "queue" => self.queue.to_string(), "result" => result)
                .increment(1);
        }
        if back.is_empty() {
            return;
        }
        tracing::warn!(queue = %self.queue, tasks = back.len(), "tasks could not be pushed; they are handed back");
        let settlements = back.into_iter().map(|lease| Settlement {
            id: lease.id,
            epoch: lease.epoch,
            nonce: lease.nonce,
            outcome: Outcome::Release {},
        });
        if let Err(problem) =
            self.amqp.engine.settle(SettleRequest { settlements: settlements.collect() }).await
        {
            tracing::warn!(%problem, "leases that were not pushed run until their end");
        }
    }

    fn message(&self, lease: &Lease, now_ms: i64) -> Message {
        let left_ms = lease.lease_until_ms.saturating_sub(now_ms).max(1);
        let mut headers = FieldTable::default();
        headers.insert(message::ATTEMPT.into(), AMQPValue::LongLongInt(lease.attempt.into()));
        if let Some(traceparent) = &lease.traceparent {
            headers.insert(message::TRACEPARENT.into(), AMQPValue::LongString(traceparent.as_str().into()));
        }
        let properties = BasicProperties::default()
            .with_content_type(message::JSON.into())
            .with_type(message::LEASE.into())
            .with_message_id(lease.id.as_str().into())
            .with_priority(message::priority(lease.priority))
            // When the lease is over, nobody may begin any more.
            .with_expiration(left_ms.to_string().into())
            .with_reply_to(self.amqp.names.outcomes().into())
            .with_headers(headers);
        Message {
            exchange: String::new(),
            routing_key: self.amqp.names.pushed(self.queue),
            properties,
            body: serde_json::to_vec(lease).unwrap_or_default(),
        }
    }
}
