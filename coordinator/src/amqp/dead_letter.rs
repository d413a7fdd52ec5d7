//! Messages that another queue gave up on: what RabbitMQ's `x-death` header says, and the message itself, as a task.

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable};
use redrive_link::amqp::message;
use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::failure::{FailureClass, FailureSignal};
use redrive_shared::id::{Name, TaskId};
use redrive_shared::limits::ATTEMPTS_MAX;
use redrive_shared::task::{Nonce, Priority};
use redrive_shared::wire::{NewTask, Outcome, Settlement};
use serde_json::value::{RawValue, to_raw_value};

use super::envelope::Envelope;
use super::inbox::header;

/// How a message came to be dead: the newest entry of `x-death`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Death {
    /// The queue that it died in.
    pub queue: String,
    /// Why: `rejected`, `expired`, `maxlen` or `delivery_limit`.
    pub reason: String,
    /// How often it died there for that reason.
    pub count: u32,
    /// Where it had been published to.
    pub exchange: String,
    /// With which key.
    pub routing_key: String,
}

/// The newest death of a message, if it died.
pub(super) fn first_death(properties: &BasicProperties) -> Option<Death> {
    let AMQPValue::FieldArray(deaths) = properties.headers().as_ref()?.inner().get("x-death")? else {
        return None;
    };
    let AMQPValue::FieldTable(death) = deaths.as_slice().first()? else { return None };
    let text_of = |name: &str| death.inner().get(name).and_then(text).unwrap_or_default();
    let keys = match death.inner().get("routing-keys") {
        Some(AMQPValue::FieldArray(keys)) => keys.as_slice().first().and_then(text),
        _ => None,
    };
    Some(Death {
        queue: text_of("queue"),
        reason: text_of("reason"),
        count: count_of(death),
        exchange: text_of("exchange"),
        routing_key: keys.unwrap_or_default(),
    })
}

fn count_of(death: &FieldTable) -> u32 {
    let count = match death.inner().get("count") {
        Some(AMQPValue::LongLongInt(count)) => *count,
        Some(AMQPValue::LongInt(count)) => i64::from(*count),
        _ => 1,
    };
    u32::try_from(count.clamp(1, i64::from(ATTEMPTS_MAX))).unwrap_or(1)
}

fn text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

/// The message as a task. Headers say what it is; without them it goes to the queue that is called as the one that it died in.
pub(super) fn read(delivery: &Delivery, death: &Death) -> Result<NewTask, Problem> {
    let properties = &delivery.properties;
    let name = |header_name: &str| {
        let named = header(properties, header_name).map(|text| Name::new(text.as_str()));
        named.transpose().map_err(|error| refused(header_name, &error.to_string()))
    };
    let queue = match name(message::QUEUE)? {
        Some(queue) => queue,
        None => {
            Name::new(death.queue.as_str()).map_err(|error| refused("x-death.queue", &error.to_string()))?
        }
    };
    let id = header(properties, message::ID)
        .or_else(|| properties.message_id().as_ref().map(ToString::to_string))
        .map(|text| TaskId::new(text.as_str()));
    Ok(NewTask {
        id: id.transpose().map_err(|error| refused("message_id", &error.to_string()))?,
        queue: Some(queue),
        task_type: name(message::TASK_TYPE)?,
        dependency: name(message::DEPENDENCY)?,
        group: name(message::GROUP)?,
        priority: priority(properties),
        payload: Some(envelope(delivery, death)?),
        attempts_made: Some(attempts(properties).unwrap_or(death.count)),
        failure: Some(failure(death, header(properties, message::ERROR))),
        traceparent: header(properties, message::TRACEPARENT),
        ..NewTask::default()
    })
}

/// How often it failed, where Redrive gave it back before: RabbitMQ's own count ended with the life before.
fn attempts(properties: &BasicProperties) -> Option<u32> {
    match properties.headers().as_ref()?.inner().get(message::ATTEMPT)? {
        AMQPValue::LongLongInt(attempt) => u32::try_from((*attempt).clamp(1, ATTEMPTS_MAX.into())).ok(),
        _ => None,
    }
}

/// The lease under which a message was given back, if it was: its death is how that attempt ended.
pub(super) fn comes_back(delivery: &Delivery, death: &Death) -> Option<Settlement> {
    let properties = &delivery.properties;
    let id = TaskId::new(header(properties, message::ID)?.as_str()).ok()?;
    let epoch = header(properties, message::EPOCH)?.parse().ok()?;
    let nonce = Nonce::try_from(header(properties, message::NONCE)?).ok()?;
    let failure = failure(death, header(properties, message::ERROR));
    Some(Settlement { id, epoch, nonce, outcome: Outcome::Retry { failure } })
}

fn refused(place: &str, detail: &str) -> Problem {
    Problem::new(ErrorCode::InvalidValue, detail).at(place)
}

/// The broker's priorities are relative to what a queue allows; ours are three.
fn priority(properties: &BasicProperties) -> Priority {
    match properties.priority() {
        None | Some(0..=4) => Priority::Normal,
        Some(_) => Priority::High,
    }
}

/// What a consumer said wins; else the reason of the death tells what is known.
fn failure(death: &Death, said: Option<String>) -> FailureSignal {
    let (class, text) = match death.reason.as_str() {
        "expired" => (Some(FailureClass::Timeout), "expired in the queue"),
        "maxlen" => (Some(FailureClass::Overloaded), "dropped from the full queue"),
        "delivery_limit" => (Some(FailureClass::WorkerLost), "delivered too often by the queue"),
        _ => (None, "rejected by a consumer of the queue"),
    };
    let class = if said.is_some() { None } else { class };
    let exception = said.unwrap_or_else(|| format!("{text} `{}`", death.queue));
    FailureSignal { class, exception: Some(exception), ..FailureSignal::default() }
}

fn envelope(delivery: &Delivery, death: &Death) -> Result<Box<RawValue>, Problem> {
    let whole = Envelope::of(delivery, death).and_then(|envelope| to_raw_value(&envelope));
    whole.map_err(|error| refused("body", &error.to_string()))
}
