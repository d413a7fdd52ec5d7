//! Messages that another queue gave up on: what RabbitMQ's `x-death` header says, and the message itself, as a task.

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use redrive_link::amqp::{Names, message};
use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::failure::{FailureClass, FailureSignal};
use redrive_shared::id::{Name, TaskId};
use redrive_shared::limits::{ATTEMPTS_MAX, TASK_TOKENS_MAX};
use redrive_shared::task::{Nonce, Priority, TaskState};
use redrive_shared::wire::{EnqueueResult, EnqueueStatus, NewTask, Outcome, Settlement};
use serde_json::value::{RawValue, to_raw_value};
use sha2::{Digest, Sha256};

use super::envelope::{self, Envelope, HEADERS_MAX_DEPTH};
use super::inbox::{base16, header, made_id, traceparent};

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
    /// When, in seconds since 1970.
    pub time_s: u64,
}

/// The queue that a message died in last, if it died.
pub(super) fn last_queue(properties: &BasicProperties) -> Option<String> {
    deaths(properties).next()?.inner().get("queue").and_then(text)
}

/// The newest death of a message, if it died. Deaths in Redrive's own queues, where some policy made dead letters there, are
/// none: the message is what it was before.
pub(super) fn death(properties: &BasicProperties, names: &Names) -> Option<Death> {
    deaths(properties).map(read_death).find(|death| !names.is_ours(&death.queue))
}

fn deaths(properties: &BasicProperties) -> impl Iterator<Item = &FieldTable> {
    let header = properties.headers().as_ref().and_then(|headers| headers.inner().get("x-death"));
    let deaths = match header {
        Some(AMQPValue::FieldArray(deaths)) => deaths.as_slice(),
        _ => &[],
    };
    deaths.iter().filter_map(|death| match death {
        AMQPValue::FieldTable(death) => Some(death),
        _ => None,
    })
}

fn read_death(death: &FieldTable) -> Death {
    let text_of = |name: &str| death.inner().get(name).and_then(text).unwrap_or_default();
    let keys = match death.inner().get("routing-keys") {
        Some(AMQPValue::FieldArray(keys)) => keys.as_slice().first().and_then(text),
        _ => None,
    };
    Death {
        queue: text_of("queue"),
        reason: text_of("reason"),
        count: count_of(death),
        exchange: text_of("exchange"),
        routing_key: keys.unwrap_or_default(),
        time_s: match death.inner().get("time") {
            Some(AMQPValue::Timestamp(seconds)) => *seconds,
            _ => 0,
        },
    }
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
    Ok(NewTask {
        id: id(properties, death)?,
        queue: Some(queue),
        task_type: name(message::TASK_TYPE)?,
        dependency: name(message::DEPENDENCY)?,
        group: name(message::GROUP)?,
        priority: priority(properties),
        payload: Some(envelope(delivery, death)?),
        attempts_made: Some(attempts(properties).unwrap_or(death.count)),
        failure: Some(failure(death, header(properties, message::ERROR))),
        traceparent: traceparent(properties),
        tokens: tokens(properties)?,
        ..NewTask::default()
    })
}

/// What it says of itself. Ids of messages are unique in their queue at best.
fn id(properties: &BasicProperties, death: &Death) -> Result<Option<TaskId>, Problem> {
    if let Some(text) = header(properties, message::ID) {
        let id = TaskId::new(text.as_str());
        return id.map(Some).map_err(|error| refused(message::ID, &error.to_string()));
    }
    let message_id = properties.message_id().as_ref().map(ShortString::as_str).filter(|id| !id.is_empty());
    Ok(message_id.map(|message_id| made_id(&[&death.queue, message_id])))
}

/// The same dead letter as another task, where its id belongs to one that has ended already, or that was another message:
/// ids of messages are used again, and nothing is lost for that. The same death makes the same id, however often it is
/// delivered.
pub(super) fn other_life(
    delivery: &Delivery,
    names: &Names,
    result: &EnqueueResult,
    task: &NewTask,
) -> Option<NewTask> {
    let ended = result.status == EnqueueStatus::Duplicate && result.state.is_some_and(TaskState::is_settled);
    let reused = result.error.as_ref().is_some_and(|problem| problem.code == ErrorCode::IdReused);
    let named = header(&delivery.properties, message::ID).is_some();
    if named || !(ended || reused) {
        return None;
    }
    let death = death(&delivery.properties, names)?;
    let mut life = Sha256::new();
    life.update(death.time_s.to_be_bytes());
    life.update(&delivery.data);
    let life = base16(&life.finalize()[..4]);
    Some(NewTask { id: Some(made_id(&[task.id.as_ref()?, &life])), ..task.clone() })
}

/// How often it failed, where Redrive gave it back before: RabbitMQ's own count ended with the life before.
fn attempts(properties: &BasicProperties) -> Option<u32> {
    match properties.headers().as_ref()?.inner().get(message::ATTEMPT)? {
        AMQPValue::LongLongInt(attempt) => u32::try_from((*attempt).clamp(1, ATTEMPTS_MAX.into())).ok(),
        _ => None,
    }
}

/// What it uses, where it says so; clients write numbers in all sizes.
fn tokens(properties: &BasicProperties) -> Result<Option<u32>, Problem> {
    let header = properties.headers().as_ref().and_then(|headers| headers.inner().get(message::TOKENS));
    let number = match header {
        None => return Ok(None),
        Some(AMQPValue::LongLongInt(number)) => u32::try_from(*number).ok(),
        Some(AMQPValue::LongInt(number)) => u32::try_from(*number).ok(),
        Some(AMQPValue::LongUInt(number)) => Some(*number),
        Some(AMQPValue::ShortInt(number)) => u32::try_from(*number).ok(),
        Some(value) => text(value).and_then(|text| text.parse().ok()),
    };
    let detail =
        format!("`{}` is no number; write a whole one, from 1 to {TASK_TOKENS_MAX}", message::TOKENS);
    number.map(Some).ok_or_else(|| refused(message::TOKENS, &detail))
}

/// The lease under which a message was given back, if it was: its death is how that attempt ended.
pub(super) fn comes_back(delivery: &Delivery, death: &Death) -> Option<Settlement> {
    let properties = &delivery.properties;
    let id = TaskId::new(header(properties, message::ID)?.as_str()).ok()?;
    let epoch = header(properties, message::EPOCH)?.parse().ok()?;
    let nonce = Nonce::try_from(header(properties, message::NONCE)?).ok()?;
    let failure = failure(death, header(properties, message::ERROR));
    Some(Settlement { id, epoch, nonce, outcome: Outcome::retry(failure) })
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
        // Why, nobody said: our own words for that say no more.
        _ => (Some(FailureClass::Unknown), "rejected by a consumer of the queue"),
    };
    let class = if said.is_some() { None } else { class };
    let exception = said.unwrap_or_else(|| format!("{text} `{}`", death.queue));
    FailureSignal { class, exception: Some(exception), ..FailureSignal::default() }
}

fn envelope(delivery: &Delivery, death: &Death) -> Result<Box<RawValue>, Problem> {
    let headers = delivery.properties.headers().as_ref();
    if headers.is_some_and(|headers| envelope::depth_of(headers) > HEADERS_MAX_DEPTH) {
        let detail = format!("lists and tables nested deeper than {HEADERS_MAX_DEPTH} levels");
        return Err(refused("headers", &detail));
    }
    let whole = Envelope::of(delivery, death).and_then(|envelope| to_raw_value(&envelope));
    whole.map_err(|error| refused("body", &error.to_string()))
}
