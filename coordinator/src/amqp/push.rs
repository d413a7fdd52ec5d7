//! Push: leased tasks go to RabbitMQ as soon as there is somebody with room for them, and not before. Until then they stay
//! in the store, where they can be ordered, paused and called off.
//!
//! One coordinator at a time pushes a queue: the one that holds the message of its turn queue, which RabbitMQ gives to
//! another as soon as that one's connection is gone. So nobody else claims for the same consumers meanwhile, and what is
//! leased is never more than they have room for. It is no leader: should two push at once, for a moment, more tasks than
//! there is room for wait in RabbitMQ, and nothing else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, Consumer};
use redrive_link::amqp::{SessionError, message};
use redrive_shared::id::Name;
use redrive_shared::task::Lease;
use redrive_shared::wire::LeaseRef;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::claims::{self, Unconfirmed, What};
use super::config::PushConfig;
use super::publisher::{Message, Sent};
use super::republish::lease_ref;
use super::takers::Takers;
use super::{Amqp, topology};
use crate::store::StoreError;

/// Tasks claimed and published at once.
const BATCH: usize = 500;
/// How often it is looked who takes how much.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether there is room again, where there was none: other coordinators hear of outcomes too.
const ROOM_EVERY: Duration = Duration::from_millis(100);
/// A worker that is heard of is looked at with those that are heard of at the same time.
const HEARD_TOGETHER: Duration = Duration::from_millis(50);
/// After the store failed, or RabbitMQ did not want what was published.
const AGAIN: Duration = Duration::from_millis(500);
/// How long the message of a turn is held. RabbitMQ closes the channel of who holds one for half an hour.
const TURN_RENEWED_EVERY: Duration = Duration::from_secs(10 * 60);

/// A queue that is pushed, at this coordinator.
pub(super) struct Pusher<'a> {
    amqp: &'a Amqp,
    channel: Channel,
    queue: &'a Name,
    config: PushConfig,
    /// RabbitMQ did not want what was published.
    refused: AtomicBool,
}

/// The metrics of whose turn it is, for as long as it is ours.
struct Turn<'a>(&'a Name);

impl<'a> Turn<'a> {
    fn begin(queue: &'a Name) -> Self {
        tracing::debug!(%queue, "this coordinator pushes");
        metrics::gauge!("redrive_push_turn", "queue" => queue.to_string()).set(1.0);
        Self(queue)
    }

    fn has_room(&self, room: usize) {
        metrics::gauge!("redrive_push_room", "queue" => self.0.to_string()).set(room as f64);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.has_room(0);
        metrics::gauge!("redrive_push_turn", "queue" => self.0.to_string()).set(0.0);
    }
}

impl<'a> Pusher<'a> {
    /// A pusher of a queue, on a channel of its own.
    pub async fn open(
        amqp: &'a Amqp,
        connection: &Connection,
        queue: &'a Name,
        config: PushConfig,
    ) -> Result<Self, SessionError> {
        let channel = connection.create_channel().await?;
        Ok(Self { amqp, channel, queue, config, refused: AtomicBool::new(false) })
    }

    /// Waits for the turn, and pushes, until the session is over. A turn that is taken away is waited for again.
    pub async fn run(&self, over: &CancellationToken) -> Result<(), SessionError> {
        self.channel.basic_qos(1, BasicQosOptions::default()).await?;
        let turn = self.amqp.names.turn(self.queue);
        while !over.is_cancelled() {
            let (options, tag) = (BasicConsumeOptions::default(), "".into());
            let consuming =
                self.channel.basic_consume(turn.as_str().into(), tag, options, FieldTable::default());
            let mut turns = consuming.await?;
            let Some(held) = over.run_until_cancelled(next_turn(&mut turns, &turn)).await else { break };
            let lost = over.child_token();
            let holding = async {
                let ended = self.hold(turns, held?, &turn).await;
                // What is being published is seen to its end first.
                lost.cancel();
                ended
            };
            let pushing = async {
                let mut unconfirmed = Unconfirmed::new();
                let ended = self.push(&mut unconfirmed, &lost).await;
                while unconfirmed.next().await.is_some() {}
                lost.cancel();
                ended
            };
            // It holds the turn for as long as it pushes, and no longer.
            let (held, pushed) = tokio::join!(lost.run_until_cancelled(holding), pushing);
            pushed?;
            match held {
                Some(Err(SessionError::Cancelled(queue))) => {
                    tracing::warn!(queue, "the turn to push was taken away; waiting for it again");
                    tokio::time::sleep(AGAIN).await;
                }
                Some(Err(error)) => return Err(error),
                Some(Ok(())) | None => {}
            }
        }
        Ok(())
    }

    /// Keeps the turn until it is lost: why.
    async fn hold(&self, mut turns: Consumer, mut held: Delivery, turn: &str) -> Result<(), SessionError> {
        loop {
            tokio::select! {
                // Only one is out at a time: what comes now says that the consumer is gone.
                other = turns.next() => {
                    other.transpose()?;
                    return Err(SessionError::Cancelled(turn.to_owned()));
                }
                () = tokio::time::sleep(TURN_RENEWED_EVERY) => {}
            }
            if let Err(error) = self.put_turn().await {
                tracing::warn!(%error, queue = %self.queue, "the turn could not be renewed; trying again later");
                continue;
            }
            // RabbitMQ goes on giving turns to the consumer that has it.
            held.ack(BasicAckOptions::default()).await?;
            held = next_turn(&mut turns, turn).await?;
        }
    }

    async fn put_turn(&self) -> Result<(), SessionError> {
        let Some(address) = &self.amqp.config.url else { return Ok(()) };
        topology::put_turns(address, &self.amqp.config, std::iter::once(self.queue)).await
    }

    async fn push<'s>(
        &'s self,
        unconfirmed: &mut Unconfirmed<'s>,
        lost: &CancellationToken,
    ) -> Result<(), SessionError> {
        let turn = Turn::begin(self.queue);
        let (mut takers, mut looked) = (Takers::default(), None::<Instant>);
        while claims::until_ready(self.amqp, unconfirmed, lost).await {
            if self.refused.swap(false, Ordering::Relaxed) {
                tokio::time::sleep(AGAIN).await;
                looked = None;
            }
            if looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
                takers = self.takers().await?;
                looked = Some(Instant::now());
            }
            // From before it is looked how much there is.
            let freed = self.amqp.engine.freed();
            let room = match self.room(&takers).await {
                Ok(room) => room,
                Err(error) => {
                    tracing::warn!(%error, queue = %self.queue, "nothing is pushed: the store does not say what is leased");
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            };
            turn.has_room(room);
            if room == 0 {
                let none = takers.capacity == 0;
                tokio::select! {
                    Some(()) = unconfirmed.next() => {}
                    () = freed, if !none => {}
                    () = tokio::time::sleep(ROOM_EVERY), if !none => {}
                    () = self.until_other_takers(&takers) => looked = None,
                    () = lost.cancelled() => {}
                }
                continue;
            }
            // Who has room may go while nothing is due.
            let changed = async {
                lost.run_until_cancelled(self.until_other_takers(&takers)).await;
            };
            let what = What { max: room.min(BATCH), lease_ms: self.config.lease_ms, avoid: &takers.avoid };
            let leases = claims::next(self.amqp, self.queue, what, unconfirmed, changed).await;
            if leases.is_empty() {
                looked = None;
            } else {
                unconfirmed.push(self.publish(leases).boxed());
            }
        }
        Ok(())
    }

    /// Who consumes: what Redrive's workers say of themselves, and what the configuration says of others, if anybody consumes.
    async fn takers(&self) -> Result<Takers, SessionError> {
        // An error also where the queue is gone: the next connection makes it again.
        let queue = self.amqp.names.pushed(self.queue);
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared = self.channel.queue_declare(queue.into(), passive, FieldTable::default()).await?;
        let mut takers = match self.amqp.workers.of(self.queue).await {
            Ok(takers) => takers,
            Err(error) => {
                tracing::warn!(%error, queue = %self.queue, "the store does not say which workers there are");
                return Ok(Takers::default());
            }
        };
        // Redrive's own consume only while they have room, and say how much they take whether or not.
        if self.config.max_outstanding > 0 {
            // What others would begin nobody knows.
            takers.avoid.clear();
            if declared.consumer_count() > 0 {
                takers.capacity += u64::from(self.config.max_outstanding);
            }
        }
        Ok(takers)
    }

    async fn until_other_takers(&self, known: &Takers) {
        loop {
            let heard = self.amqp.engine.taker_heard();
            if tokio::time::timeout(LOOK_EVERY, heard).await.is_ok() {
                tokio::time::sleep(HEARD_TOGETHER).await;
            }
            // An error is met again by whoever looks next.
            if !self.takers().await.is_ok_and(|takers| takers == *known) {
                return;
            }
        }
    }

    /// What is left of what they take. Workers that share queues share their room, so what all these queues have out counts
    /// against what all these workers take; and leases count that workers claimed for themselves: a queue is pushed or
    /// pulled.
    async fn room(&self, takers: &Takers) -> Result<usize, StoreError> {
        if takers.capacity == 0 {
            return Ok(0);
        }
        let (mut shared, mut leased) = (takers.shared, 0);
        for queue in &takers.queues {
            leased += self.amqp.engine.leased(queue).await?;
            shared += self.amqp.config.push.get(queue).map_or(0, |push| u64::from(push.max_outstanding));
        }
        let room = takers.capacity.min(shared.saturating_sub(leased));
        Ok(usize::try_from(room).unwrap_or(usize::MAX))
    }

    /// Publishes leases; those that RabbitMQ does not have are handed back.
    async fn publish(&self, leases: Vec<Lease>) {
        let now_ms = self.amqp.engine.clock().now_ms();
        let batch: Vec<Message> = leases.iter().map(|lease| self.message(lease, now_ms)).collect();
        let sent = self.amqp.publisher.publish(&batch).await;
        let (mut confirmed, mut left, mut back) = (0, 0, Vec::new());
        for (lease, sent) in leases.into_iter().zip(sent) {
            match sent {
                Sent::Confirmed => confirmed += 1,
                // It may arrive later. A worker of Redrive's would be told that its lease is over; others do not ask, so the
                // task is theirs until its end.
                Sent::Unknown(why) if self.config.max_outstanding > 0 => {
                    tracing::debug!(task = %lease.id, why, "perhaps pushed");
                    left += 1;
                }
                Sent::Unsent(why) | Sent::Unknown(why) => {
                    tracing::debug!(task = %lease.id, why, "not pushed");
                    back.push(lease);
                }
                Sent::Refused(why) => {
                    tracing::debug!(task = %lease.id, why, "not pushed");
                    self.refused.store(true, Ordering::Relaxed);
                    back.push(lease);
                }
            }
        }
        for (result, count) in
            [("confirmed", confirmed), ("unknown", left), ("handed_back", back.len() as u64)]
        {
            metrics::counter!("redrive_pushed_total", "queue" => self.queue.to_string(), "result" => result)
                .increment(count);
        }
        if !back.is_empty() {
            self.hand_back(back).await;
        }
    }

    async fn hand_back(&self, leases: Vec<Lease>) {
        tracing::warn!(queue = %self.queue, tasks = leases.len(), "tasks could not be pushed; they are handed back");
        let leases: Vec<LeaseRef> = leases.iter().map(lease_ref).collect();
        if let Err(problem) = self.amqp.engine.take_back(&leases).await {
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
            exchange: "".into(),
            routing_key: self.amqp.names.pushed(self.queue).into(),
            properties,
            body: serde_json::to_vec(lease).unwrap_or_default(),
        }
    }
}

async fn next_turn(turns: &mut Consumer, turn: &str) -> Result<Delivery, SessionError> {
    Ok(turns.next().await.ok_or_else(|| SessionError::Cancelled(turn.to_owned()))??)
}
