//! Messages that come in, taken in batches: the store first, then the acknowledgement.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Consumer};
use redrive_link::amqp::{SessionError, message};
use redrive_shared::error::Problem;
use redrive_shared::limits::{BATCH_MAX_ITEMS, BODY_MAX_BYTES};

use super::publisher::{Message, PERSISTENT, Publisher};

/// Messages that RabbitMQ may hand over unacknowledged: one batch is worked on while the next arrives.
const PREFETCH: u16 = 2_000;
/// Between two tries of a batch that the store could not take: at first, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// A queue that is read.
pub(super) struct Inbox {
    consumer: Consumer,
    queue: String,
    /// Read with the batch before, and too much for it.
    left: Option<Delivery>,
}

impl Inbox {
    /// Begins to consume.
    pub async fn open(channel: &Channel, queue: String) -> Result<Self, SessionError> {
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        let consumer =
            channel.basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default()).await?;
        Ok(Self { consumer, queue, left: None })
    }

    /// What is there, up to a batch: at least one message.
    pub async fn next(&mut self) -> Result<Vec<Delivery>, SessionError> {
        let first = match self.left.take() {
            Some(delivery) => delivery,
            None => self.deliver(self.consumer.clone().next().await)?,
        };
        let (mut bytes, mut batch) = (first.data.len(), vec![first]);
        while batch.len() < BATCH_MAX_ITEMS {
            let Some(next) = self.consumer.next().now_or_never() else { break };
            let delivery = self.deliver(next)?;
            bytes += delivery.data.len();
            if bytes > BODY_MAX_BYTES {
                self.left = Some(delivery);
                break;
            }
            batch.push(delivery);
        }
        Ok(batch)
    }

    fn deliver(&self, next: Option<lapin::Result<Delivery>>) -> Result<Delivery, SessionError> {
        next.ok_or_else(|| SessionError::Cancelled(self.queue.clone()))?.map_err(SessionError::Lapin)
    }

    /// Acknowledges a batch as [`Inbox::next`] gave it.
    pub async fn acknowledge(&self, batch: &[Delivery]) -> Result<(), SessionError> {
        let Some(last) = batch.last() else { return Ok(()) };
        // They came in this order on a channel of their own, and all before them are acknowledged already.
        if last.acker.ack(BasicAckOptions { multiple: true }).await? {
            Ok(())
        } else {
            Err(SessionError::Broken(format!("the channel that reads `{}` is closed", self.queue)))
        }
    }

    /// Puts messages that cannot be used with the rejected ones: kept, with the reason, and out of the way.
    pub async fn reject(&self, publisher: &Publisher, rejected: &str, refused: Vec<(&Delivery, Problem)>) {
        for (delivery, problem) in refused {
            metrics::counter!("redrive_amqp_rejected_total", "code" => problem.code.as_str()).increment(1);
            tracing::warn!(queue = self.queue, %problem, "a message cannot be used; it is kept in {rejected}");
            publisher.publish_surely(rejection(delivery, &problem, &self.queue, rejected)).await;
        }
    }
}

/// The message as it came, with the reason beside it.
fn rejection(delivery: &Delivery, problem: &Problem, from: &str, rejected: &str) -> Message {
    let mut headers = kept_headers(&delivery.properties);
    let mut say = |name: &str, value: &str| {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    };
    say(message::REASON_CODE, problem.code.as_str());
    say(message::REASON, &problem.to_string());
    say(message::READ_FROM, from);
    Message {
        exchange: String::new(),
        routing_key: rejected.to_owned(),
        properties: kept_properties(&delivery.properties)
            .with_headers(headers)
            .with_delivery_mode(PERSISTENT),
        body: delivery.data.clone(),
    }
}

/// Headers without those that would send a copy elsewhere.
pub(super) fn kept_headers(properties: &BasicProperties) -> FieldTable {
    let all = properties.headers().as_ref().map(FieldTable::inner).cloned().unwrap_or_default();
    let copies = |name: &ShortString| matches!(name.as_str(), "CC" | "BCC");
    all.into_iter().filter(|(name, _)| !copies(name)).collect::<BTreeMap<_, _>>().into()
}

/// Properties without headers, and without those that mean something to RabbitMQ: when to throw the message away, and on
/// whose connection it came.
pub(super) fn kept_properties(properties: &BasicProperties) -> BasicProperties {
    let mut kept = BasicProperties::default();
    if let Some(value) = properties.content_type() {
        kept = kept.with_content_type(value.clone());
    }
    if let Some(value) = properties.content_encoding() {
        kept = kept.with_content_encoding(value.clone());
    }
    if let Some(value) = properties.delivery_mode() {
        kept = kept.with_delivery_mode(*value);
    }
    if let Some(value) = properties.priority() {
        kept = kept.with_priority(*value);
    }
    if let Some(value) = properties.correlation_id() {
        kept = kept.with_correlation_id(value.clone());
    }
    if let Some(value) = properties.reply_to() {
        kept = kept.with_reply_to(value.clone());
    }
    if let Some(value) = properties.message_id() {
        kept = kept.with_message_id(value.clone());
    }
    if let Some(value) = properties.timestamp() {
        kept = kept.with_timestamp(*value);
    }
    if let Some(value) = properties.kind() {
        kept = kept.with_type(value.clone());
    }
    if let Some(value) = properties.app_id() {
        kept = kept.with_app_id(value.clone());
    }
    kept
}

/// Delays between tries of a batch while the store cannot take it.
pub(super) struct Again(Duration);

impl Default for Again {
    fn default() -> Self {
        Self(AGAIN.0)
    }
}

impl Again {
    /// Waits for the next try.
    pub async fn wait(&mut self, problem: &Problem, what: &str) {
        tracing::warn!(%problem, "{what} wait: the store cannot take them");
        let asked = Duration::from_millis(problem.retry_after_ms.unwrap_or(0));
        tokio::time::sleep(self.0.max(asked.min(AGAIN.1))).await;
        self.0 = (self.0 * 2).min(AGAIN.1);
    }
}

/// A header that is text.
pub(super) fn header(properties: &BasicProperties, name: &str) -> Option<String> {
    match properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}
