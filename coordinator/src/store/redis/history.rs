//! A task's history: the last part of its value. A line is an attempt behind its length, the newest first.

use prost::Message;
use redrive_shared::cost::Cost;
use redrive_shared::id::Name;
use redrive_shared::task::{AttemptRecord, FailureRecord};

use super::value::Unreadable;
use crate::store::format::{ENDINGS, class_from, class_number};

#[derive(Clone, PartialEq, Message)]
struct StoredFailure {
    #[prost(uint32, tag = "1")]
    class: u32,
    #[prost(bool, tag = "2")]
    retryable: bool,
    #[prost(uint64, optional, tag = "3")]
    retry_after_ms: Option<u64>,
    #[prost(string, tag = "4")]
    message: String,
    #[prost(string, tag = "5")]
    fingerprint: String,
}

#[derive(Clone, PartialEq, Message)]
struct StoredAttempt {
    #[prost(uint32, tag = "1")]
    run: u32,
    #[prost(string, optional, tag = "2")]
    agent: Option<String>,
    #[prost(uint32, tag = "3")]
    route: u32,
    #[prost(int64, tag = "4")]
    started_at_ms: i64,
    #[prost(int64, tag = "5")]
    ended_at_ms: i64,
    #[prost(uint32, tag = "6")]
    end: u32,
    #[prost(message, optional, tag = "7")]
    failure: Option<StoredFailure>,
    #[prost(uint64, optional, tag = "8")]
    delay_ms: Option<u64>,
    #[prost(string, optional, tag = "9")]
    why: Option<String>,
    /// Missing: what the task was enqueued with.
    #[prost(string, optional, tag = "10")]
    dependency: Option<String>,
    #[prost(uint64, tag = "11")]
    cost_micros: u64,
}

/// A line of history behind its length. Its dependency is to be given only where it is not the task's own.
pub(super) fn write_line(attempt: AttemptRecord) -> Vec<u8> {
    let failure = attempt.failure.map(|failure| StoredFailure {
        class: class_number(failure.class).into(),
        retryable: failure.retryable,
        retry_after_ms: failure.retry_after_ms,
        message: failure.message,
        fingerprint: failure.fingerprint,
    });
    let end = ENDINGS.iter().position(|end| *end == attempt.end).unwrap_or(ENDINGS.len());
    StoredAttempt {
        run: attempt.run,
        agent: attempt.agent.map(Into::into),
        route: attempt.route,
        started_at_ms: attempt.started_at_ms,
        ended_at_ms: attempt.ended_at_ms,
        end: u32::try_from(end).unwrap_or(u32::MAX),
        failure,
        delay_ms: attempt.delay_ms,
        why: attempt.why,
        dependency: attempt.dependency.map(Into::into),
        cost_micros: attempt.cost_usd.micros(),
    }
    .encode_length_delimited_to_vec()
}

/// Lines of history, newest first; ends at the first that was cut off.
pub(super) fn lines(mut history: &[u8]) -> impl Iterator<Item = Result<AttemptRecord, Unreadable>> + '_ {
    std::iter::from_fn(move || {
        let bytes = prost::decode_length_delimiter(history).ok()?;
        let from = prost::length_delimiter_len(bytes);
        let line = history.get(from..from + bytes)?;
        history = &history[from + bytes..];
        Some(read_line(line))
    })
}

/// The newest `count` lines, as they lie there.
pub(super) fn newest(history: &[u8], count: usize) -> &[u8] {
    let mut at = 0;
    for _ in 0..count {
        let Ok(bytes) = prost::decode_length_delimiter(&history[at..]) else { break };
        let next = at + prost::length_delimiter_len(bytes) + bytes;
        if next > history.len() {
            break;
        }
        at = next;
    }
    &history[..at]
}

fn read_line(line: &[u8]) -> Result<AttemptRecord, Unreadable> {
    let stored = StoredAttempt::decode(line)?;
    let failure = stored.failure.map(|failure| {
        let class = u8::try_from(failure.class).ok().and_then(class_from);
        Ok::<_, Unreadable>(FailureRecord {
            class: class.ok_or(Unreadable::Field("class"))?,
            retryable: failure.retryable,
            retry_after_ms: failure.retry_after_ms,
            message: failure.message,
            fingerprint: failure.fingerprint,
        })
    });
    let agent = stored.agent.map(|agent| Name::new(agent).map_err(|_| Unreadable::Field("agent")));
    let dependency =
        stored.dependency.map(|name| Name::new(name).map_err(|_| Unreadable::Field("dependency")));
    let end = usize::try_from(stored.end).ok().and_then(|end| ENDINGS.get(end));
    Ok(AttemptRecord {
        run: stored.run,
        agent: agent.transpose()?,
        route: stored.route,
        dependency: dependency.transpose()?,
        started_at_ms: stored.started_at_ms,
        ended_at_ms: stored.ended_at_ms,
        end: *end.ok_or(Unreadable::Field("ending"))?,
        failure: failure.transpose()?,
        cost_usd: Cost::from_micros(stored.cost_micros),
        delay_ms: stored.delay_ms,
        why: stored.why,
    })
}
