//! What is checked before the store is asked: bounds and contradictions, each with what to do instead.

use std::fmt::Display;

use redrive_shared::checkpoint::{STATES_MAX_BYTES, STEPS_MAX};
use redrive_shared::cost::Cost;
use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::failure::FailureSignal;
use redrive_shared::id::Name;
use redrive_shared::limits::{
    ATTEMPTS_MAX, BATCH_MAX_ITEMS, CHECKPOINT_SEQ_MAX, CLAIM_AVOID_MAX, CLAIM_QUEUES_MAX, COST_MAX_USD,
    DELAY_MAX_MS, HEARTBEAT_BREAKERS_MAX, LABEL_VALUE_MAX_BYTES, LABELS_MAX, LEASE_MAX_MS, LEASE_MIN_MS,
    MESSAGE_MAX_BYTES, NAME_MAX_BYTES, PAYLOAD_MAX_BYTES, REASON_MAX_BYTES, RESULT_MAX_BYTES, ROUTE_MAX,
    SIGNAL_HEADERS_MAX, SIGNAL_TEXT_MAX_BYTES, TASK_TOKENS_MAX, WAIT_MAX_MS,
};
use redrive_shared::wire::{CheckpointRequest, ClaimRequest, Heartbeat, NewTask, Outcome};
use serde_json::value::RawValue;

use super::Result;
use crate::store::Run;

fn invalid(place: impl Into<String>, detail: String) -> Problem {
    Problem::new(ErrorCode::InvalidValue, detail).at(place)
}

/// A number within its bounds.
fn within(place: impl Display, value: u64, least: u64, most: u64, unit: &str) -> Result<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let detail = format!("`{place}` is {value}{unit}; it must be from {least} to {most}{unit}");
    Err(invalid(place.to_string(), detail))
}

/// Why somebody does something.
pub(super) fn reason(reason: Option<&str>) -> Result<()> {
    if reason.is_some_and(|reason| reason.len() > MESSAGE_MAX_BYTES) {
        return Err(invalid("reason", format!("`reason` may have up to {MESSAGE_MAX_BYTES} bytes")));
    }
    Ok(())
}

/// A batch that has items, and not too many.
pub(super) fn batch(place: &str, items: usize) -> Result<()> {
    if (1..=BATCH_MAX_ITEMS).contains(&items) {
        return Ok(());
    }
    let detail = format!("`{place}` has {items} items; send 1 to {BATCH_MAX_ITEMS} at a time");
    Err(Problem::new(ErrorCode::BatchSize, detail).at(place))
}

fn payload(task: &NewTask) -> Result<()> {
    if let Some(payload) = &task.payload {
        let bytes = payload.get().len();
        if bytes > PAYLOAD_MAX_BYTES {
            let detail = format!(
                "the payload has {bytes} bytes and at most {PAYLOAD_MAX_BYTES} are taken; upload it as a blob \
                 (POST /v1/tasks/ID/blobs) and enqueue a reference to it (`payload_ref`)"
            );
            return Err(Problem::new(ErrorCode::PayloadTooLarge, detail).at("payload"));
        }
        whole_text("payload", payload)?;
    }
    if task.payload_ref.is_some() {
        one_of(("payload", task.payload.is_some()), "payload_ref")?;
        if task.id.is_none() {
            let detail = "`id` is missing; a blob belongs to one task's id, the one that it was uploaded for";
            return Err(invalid("id", detail.to_owned()));
        }
    }
    Ok(())
}

pub(super) fn new_task(task: &NewTask) -> Result<()> {
    payload(task)?;
    if let Some(delay_ms) = task.delay_ms {
        within("delay_ms", delay_ms, 0, DELAY_MAX_MS, " ms")?;
    }
    if let Some(deadline_ms) = task.deadline_ms {
        within("deadline_ms", deadline_ms, 1, DELAY_MAX_MS, " ms")?;
        if task.delay_ms.is_some_and(|delay_ms| delay_ms > deadline_ms) {
            return Err(invalid(
                "delay_ms",
                "`delay_ms` is longer than `deadline_ms`: it could never run".into(),
            ));
        }
    }
    if let Some(max_attempts) = task.max_attempts {
        within("max_attempts", max_attempts.into(), 1, ATTEMPTS_MAX.into(), "")?;
    }
    if task.max_cost_usd.is_some_and(|most| most.is_zero() || most > Cost::MAX) {
        let detail = format!(
            "`max_cost_usd` must be more than 0 and at most {COST_MAX_USD}, in US dollars; leave it out for no bound"
        );
        return Err(invalid("max_cost_usd", detail));
    }
    if let Some(tokens) = task.tokens {
        within("tokens", tokens.into(), 1, TASK_TOKENS_MAX.into(), " tokens")?;
    }
    if let Some(attempts_made) = task.attempts_made {
        within("attempts_made", attempts_made.into(), 0, ATTEMPTS_MAX.into(), "")?;
        if attempts_made == 0 && task.failure.is_some() {
            return Err(invalid(
                "attempts_made",
                "there is a `failure`, so at least one attempt was made".into(),
            ));
        }
    }
    within("route", task.route.into(), 0, ROUTE_MAX.into(), "")?;
    within("labels", task.labels.len() as u64, 0, LABELS_MAX as u64, " labels")?;
    for (key, value) in &task.labels {
        if key.is_empty() || key.len() > LABEL_VALUE_MAX_BYTES || value.len() > LABEL_VALUE_MAX_BYTES {
            let detail = format!("label names and values may have up to {LABEL_VALUE_MAX_BYTES} bytes");
            return Err(invalid("labels", detail));
        }
    }
    if let Some(signal) = &task.failure {
        failure("failure", signal)?;
    }
    if task.traceparent.as_ref().is_some_and(|text| !is_traceparent(text)) {
        let detail = "a W3C traceparent has 55 characters, as in 00-<32 hex>-<16 hex>-01".to_owned();
        return Err(invalid("traceparent", detail));
    }
    Ok(())
}

/// Whether a text looks like a trace context of W3C.
pub(crate) fn is_traceparent(text: &str) -> bool {
    text.len() == 55 && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

/// Half of a surrogate pair is JSON that many readers refuse, and with it everything else in the same reply.
fn whole_text(place: &str, json: &RawValue) -> Result<()> {
    let text = json.get();
    let escapes = memchr::memchr(b'\\', text.as_bytes()).is_some();
    let suspect = escapes && (text.contains("\\ud") || text.contains("\\uD"));
    if suspect && serde_json::from_str::<serde_json::Value>(text).is_err() {
        let detail = "it holds half of a surrogate pair (a \\u escape from d800 to dfff alone), which many JSON readers refuse";
        return Err(invalid(place, format!("`{place}` is not text that everyone can read: {detail}")));
    }
    Ok(())
}

/// Contents are given themselves or as a reference to a blob, and never twice.
fn one_of((field, given): (&str, bool), reference: &str) -> Result<()> {
    if given {
        let detail =
            format!("there are both `{field}` and `{reference}`, which stands in its place; leave one out");
        return Err(invalid(reference, detail));
    }
    Ok(())
}

pub(super) fn checkpoint(request: &CheckpointRequest) -> Result<()> {
    within("seq", request.seq, 1, CHECKPOINT_SEQ_MAX, "")?;
    if request.state_ref.is_some() {
        one_of(("state", request.state.is_some()), "state_ref")?;
    }
    if let Some(state) = &request.state {
        let bytes = state.get().len();
        if bytes > STATES_MAX_BYTES {
            let detail = format!(
                "the state has {bytes} bytes and at most {STATES_MAX_BYTES} are taken; upload it as a blob \
                 (POST /v1/tasks/ID/blobs) and refer to it by `state_ref`"
            );
            return Err(Problem::new(ErrorCode::PayloadTooLarge, detail).at("state"));
        }
        whole_text("state", state)?;
    }
    let pending = request.pending.as_ref().map_or(0, Vec::len);
    within("pending", pending as u64, 0, STEPS_MAX as u64, " steps")
}

/// The classifier looks at the beginning only; far longer text is a mistake that costs everyone.
fn failure(place: &str, signal: &FailureSignal) -> Result<()> {
    let fields =
        [&signal.body, &signal.exception, &signal.provider, &signal.finish_reason, &signal.stop_reason];
    let fields: usize = fields.into_iter().flatten().map(String::len).sum();
    let headers: usize = signal.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if let Some(after_ms) = signal.retry_after_ms {
        within(format_args!("{place}.retry_after_ms"), after_ms, 0, DELAY_MAX_MS, " ms")?;
    }
    within(place, (fields + headers) as u64, 0, 4 * SIGNAL_TEXT_MAX_BYTES as u64, " bytes of text")?;
    let headers = format_args!("{place}.headers");
    within(headers, signal.headers.len() as u64, 0, SIGNAL_HEADERS_MAX as u64, " headers")
}

pub(super) fn claim(request: &ClaimRequest) -> Result<()> {
    within("max", request.max.into(), 1, BATCH_MAX_ITEMS as u64, "")?;
    within("wait_ms", request.wait_ms, 0, WAIT_MAX_MS, " ms")?;
    within("queues", request.queues.len() as u64, 1, CLAIM_QUEUES_MAX as u64, " queues")?;
    within("avoid", request.avoid.len() as u64, 0, CLAIM_AVOID_MAX as u64, " dependencies")?;
    lease(request.lease_ms)
}

pub(super) fn lease(lease_ms: Option<u64>) -> Result<()> {
    lease_ms.map_or(Ok(()), |lease_ms| within("lease_ms", lease_ms, LEASE_MIN_MS, LEASE_MAX_MS, " ms"))
}

/// A run of an agent, where one is named.
pub(super) fn run(agent: Option<Name>, boot_id: Option<Name>) -> Result<Option<Run>> {
    let missing = |missing: &str, given: &str| {
        invalid(missing, format!("there is `{given}` and no `{missing}`: a run of an agent has both"))
    };
    match (agent, boot_id) {
        (Some(agent), Some(boot_id)) => Ok(Some(Run { agent, boot_id })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(missing("boot_id", "agent")),
        (None, Some(_)) => Err(missing("agent", "boot_id")),
    }
}

/// Why a policy is changed.
pub(super) fn policy_reason(reason: Option<&str>) -> Result<()> {
    within("reason", reason.map_or(0, str::len) as u64, 0, REASON_MAX_BYTES as u64, " bytes")
}

pub(super) fn wait(wait_ms: u64) -> Result<()> {
    within("wait_ms", wait_ms, 0, WAIT_MAX_MS, " ms")
}

pub(super) fn heartbeat(beat: &Heartbeat) -> Result<()> {
    within("leases", beat.leases.len() as u64, 0, BATCH_MAX_ITEMS as u64, " leases")?;
    within("queues", beat.queues.len() as u64, 0, CLAIM_QUEUES_MAX as u64, " queues")?;
    within("breakers", beat.breakers.len() as u64, 0, HEARTBEAT_BREAKERS_MAX as u64, " breakers")?;
    for name in beat.breakers.keys() {
        within("breakers", name.len() as u64, 1, NAME_MAX_BYTES as u64, " bytes of a name")?;
    }
    lease(beat.lease_ms)
}

pub(super) fn outcome(outcome: &Outcome) -> Result<()> {
    if outcome.cost() > Cost::MAX {
        let detail = format!(
            "the attempt's `cost_usd` is {}; at most {COST_MAX_USD} is taken: give US dollars",
            outcome.cost().usd()
        );
        return Err(invalid("outcome.cost_usd", detail));
    }
    match outcome {
        Outcome::Done { result: Some(result), .. } if result.get().len() > RESULT_MAX_BYTES => {
            let bytes = result.get().len();
            let detail = format!(
                "the result has {bytes} bytes and at most {RESULT_MAX_BYTES} are taken; upload it as a blob \
                 (POST /v1/tasks/ID/blobs) and return a reference to it (`result_ref`)"
            );
            Err(Problem::new(ErrorCode::PayloadTooLarge, detail).at("outcome.done.result"))
        }
        Outcome::Snooze { delay_ms } => within("outcome.snooze.delay_ms", *delay_ms, 0, DELAY_MAX_MS, " ms"),
        Outcome::Retry { failure: signal, .. }
        | Outcome::Dead { failure: signal, .. }
        | Outcome::Escalate { failure: signal, .. } => failure("outcome.failure", signal),
        Outcome::Done { result: Some(result), result_ref, .. } => {
            one_of(("outcome.done.result", result_ref.is_some()), "outcome.done.result_ref")?;
            whole_text("outcome.done.result", result)
        }
        Outcome::Done { result: None, .. } | Outcome::Release { .. } => Ok(()),
    }
}
