//! Messages that come in, taken in batches: the store first, then the acknowledgement. What cannot be used is kept elsewhere
//! first.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::{AMQPValue, DeliveryTag, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Consumer};
use redrive_link::amqp::{SessionError, message};
use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::id::TaskId;
use redrive_shared::limits::{BATCH_MAX_ITEMS, BODY_MAX_BYTES};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::publisher::{Message, PERSISTENT, Publisher, Sent};
use super::weight;
use crate::engine::is_traceparent;

/// Messages that RabbitMQ may hand over unacknowledged: one batch is worked on while the next arrives. They are held in
/// memory, and nobody bounds their size but RabbitMQ.
const PREFETCH: u16 = 500;
/// Reasons that are told of one message, of which many parts may be wrong.
const REASONS_MAX: usize = 5;
/// Longest text of a reason, in bytes: it may repeat what it is about.
const REASON_MAX_BYTES: usize = 1_000;
/// Tries to keep rejected messages before they go back to where they were read.
const KEEP_TRIES: u32 = 3;
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

    /// What is there, up to a batch: at least one message. None once it is over.
    pub async fn next(&mut self, over: &CancellationToken) -> Result<Option<Vec<Delivery>>, SessionError> {
        let first = match self.left.take() {
            Some(delivery) => delivery,
            None => match over.run_until_cancelled(self.consumer.clone().next()).await {
                Some(next) => self.deliver(next)?,
                None => return Ok(None),
            },
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
        Ok(Some(batch))
    }

    fn deliver(&self, next: Option<lapin::Result<Delivery>>) -> Result<Delivery, SessionError> {
        next.ok_or_else(|| SessionError::Cancelled(self.queue.clone()))?.map_err(SessionError::Lapin)
    }

    /// Ends a batch as [`Inbox::next`] gave it. What was refused is kept in the queue `rejected`, with the reasons; where it
    /// cannot be, it goes back to where it was read. All else is acknowledged.
    pub async fn finish(
        &self,
        batch: &[Delivery],
        refused: Vec<(&Delivery, Problem)>,
        publisher: &Publisher,
        rejected: &str,
    ) -> Result<(), SessionError> {
        let mut reasons: BTreeMap<DeliveryTag, Vec<Problem>> = BTreeMap::new();
        for (delivery, problem) in refused {
            metrics::counter!("redrive_amqp_rejected_total", "code" => problem.code.as_str()).increment(1);
            tracing::warn!(queue = self.queue, %problem, "a message cannot be used; it is to be kept in {rejected}");
            reasons.entry(delivery.delivery_tag).or_default().push(problem);
        }
        let of = |delivery: &Delivery| reasons.get(&delivery.delivery_tag);
        let kept = batch.iter().filter_map(|delivery| Some((delivery, of(delivery)?)));
        let (tags, messages): (Vec<_>, Vec<_>) = kept
            .map(|(delivery, why)| (delivery.delivery_tag, rejection(delivery, why, &self.queue, rejected)))
            .unzip();
        let unkept = keep(publisher, tags, messages).await;
        self.acknowledge(batch, &unkept).await?;
        if unkept.is_empty() {
            return Ok(());
        }
        // The queue may be gone: the next session makes it again.
        Err(SessionError::Broken(format!("what was refused cannot be kept in `{rejected}`")))
    }

    async fn acknowledge(&self, batch: &[Delivery], unkept: &[DeliveryTag]) -> Result<(), SessionError> {
        let mut usable = true;
        if unkept.is_empty() {
            // They came in this order on a channel of their own, and all before them are acknowledged already.
            if let Some(last) = batch.last() {
                usable = last.acker.ack(BasicAckOptions { multiple: true }).await?;
            }
        } else {
            for delivery in batch {
                usable &= if unkept.contains(&delivery.delivery_tag) {
                    delivery.acker.nack(BasicNackOptions { requeue: true, multiple: false }).await?
                } else {
                    delivery.acker.ack(BasicAckOptions::default()).await?
                };
            }
        }
        if usable {
            Ok(())
        } else {
            Err(SessionError::Broken(format!("the channel that reads `{}` is closed", self.queue)))
        }
    }
}

/// Publishes what is to be kept; returns what could not be, after some tries.
async fn keep(
    publisher: &Publisher,
    mut tags: Vec<DeliveryTag>,
    mut messages: Vec<Message>,
) -> Vec<DeliveryTag> {
    for attempt in 0..KEEP_TRIES {
        if messages.is_empty() {
            break;
        }
        if attempt > 0 {
            tokio::time::sleep(AGAIN.0 * 2_u32.pow(attempt)).await;
        }
        let sent = publisher.publish(&messages).await;
        let open = tags.into_iter().zip(messages).zip(sent);
        (tags, messages) =
            open.filter(|(_, sent)| *sent != Sent::Confirmed).map(|(message, _)| message).unzip();
    }
    if !tags.is_empty() {
        tracing::warn!(messages = tags.len(), "what was refused cannot be kept now; it is read again later");
        tokio::time::sleep(AGAIN.0 * 2_u32.pow(KEEP_TRIES)).await;
    }
    tags
}

/// The message as it came, with the reasons beside it.
fn rejection(delivery: &Delivery, problems: &[Problem], from: &str, rejected: &str) -> Message {
    let mut headers = kept_headers(&delivery.properties);
    // What is too heavy to be published goes without its headers: the body is what cannot be made again.
    if weight::table(&headers) + weight::ROOM_OF_OURS > weight::HEADERS_MAX_BYTES {
        headers = FieldTable::default();
    }
    let mut say = |name: &str, value: &str| {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    };
    let mut reasons: Vec<String> =
        problems.iter().take(REASONS_MAX).map(|problem| shortened(problem.to_string())).collect();
    if problems.len() > REASONS_MAX {
        reasons.push(format!("and {} more", problems.len() - REASONS_MAX));
    }
    say(message::REASON_CODE, problems.first().map_or("", |problem| problem.code.as_str()));
    say(message::REASON, &reasons.join("; "));
    say(message::READ_FROM, from);
    Message {
        exchange: "".into(),
        routing_key: rejected.into(),
        properties: kept_properties(&delivery.properties)
            .with_headers(headers)
            .with_delivery_mode(PERSISTENT),
        body: delivery.data.clone(),
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > REASON_MAX_BYTES {
        text.truncate(text.floor_char_boundary(REASON_MAX_BYTES));
        text.push('…');
    }
    text
}

/// Refuses a body that is over the limit of the HTTP API.
pub(super) fn check_size(body: &[u8]) -> Result<(), Problem> {
    if body.len() <= BODY_MAX_BYTES {
        return Ok(());
    }
    let detail = format!("{} bytes; a message has at most {BODY_MAX_BYTES}", body.len());
    Err(Problem::new(ErrorCode::BodyTooLarge, detail))
}

/// Whether the same may be taken later: it is no fault of what was said.
pub(super) fn passes(problem: &Problem) -> bool {
    problem.status >= 500 && problem.code != ErrorCode::Internal || matches!(problem.status, 408 | 429)
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
    ///
    /// # Errors
    /// It is over: what was not acknowledged is delivered again.
    pub async fn wait(
        &mut self,
        problem: &Problem,
        what: &str,
        over: &CancellationToken,
    ) -> Result<(), SessionError> {
        tracing::warn!(%problem, "{what} wait: the store cannot take them");
        let asked = Duration::from_millis(problem.retry_after_ms.unwrap_or(0));
        let waited = over.run_until_cancelled(tokio::time::sleep(self.0.max(asked.min(AGAIN.1)))).await;
        self.0 = (self.0 * 2).min(AGAIN.1);
        waited.ok_or_else(|| SessionError::Broken(format!("{what} were not taken before the end")))
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

/// The trace that a message belongs to, if it says so in the form of W3C: others trace otherwise, and are retried all the same.
pub(super) fn traceparent(properties: &BasicProperties) -> Option<String> {
    header(properties, message::TRACEPARENT).filter(|text| is_traceparent(text))
}

/// An id from what a message says of itself: the same for the same message, whenever it is delivered. As it stands where that
/// is an id, and its SHA-256 where it is not: too long, or with characters that ids have not.
pub(super) fn made_id(parts: &[&str]) -> TaskId {
    let text = parts.join("/");
    TaskId::new(text.as_str()).unwrap_or_else(|_| {
        let hex = base16(&Sha256::digest(text.as_bytes()));
        TaskId::new(hex).unwrap_or_else(|_| unreachable!("64 hexadecimal digits are an id"))
    })
}

/// Hexadecimal digits.
pub(super) fn base16(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_message_id_makes_a_task_id() {
        assert_eq!(&*made_id(&["orders", "7"]), "orders/7");
        let (long, odd) = ("x".repeat(200), "a b\u{0}é");
        for text in [long.as_str(), odd] {
            assert_eq!(made_id(&["orders", text]).len(), 64);
            assert_eq!(made_id(&["orders", text]), made_id(&["orders", text]));
            assert_ne!(made_id(&["orders", text]), made_id(&["others", text]));
        }
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        assert_eq!(shortened("short".to_owned()), "short");
        assert!(shortened("é".repeat(2_000)).len() <= REASON_MAX_BYTES + '…'.len_utf8());
    }
}
