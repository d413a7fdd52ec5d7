//! One task, told as a story.

use std::io;

use indicatif::HumanBytes;
use redrive_shared::blob::BlobRef;
use redrive_shared::charges::{Charge, ChargeKind};
use redrive_shared::checkpoint::Progress;
use redrive_shared::cost::Cost;
use redrive_shared::id::Name;
use redrive_shared::task::{AttemptEnd, AttemptRecord, FailureRecord, TaskState, TaskView};

use super::progress;
use crate::context::Context;
use crate::output::{Output, duration, excerpt, from_now, moment, printable};

const JSON_SHOWN_CHARS: usize = 400;
const MESSAGE_SHOWN_CHARS: usize = 160;

/// Prints it.
pub fn print(context: &Context, task: &TaskView, progress: Option<&Progress>) -> io::Result<()> {
    let output = &context.output;
    output.line(format!("{}  {}", output.strong(&task.id), output.state(task.state)))?;
    for (key, value) in facts(task, context.now_ms()) {
        output.line(format!("  {}  {value}", output.faint(&format!("{key:<10}"))))?;
    }
    if let Some(progress) = progress {
        let told = progress::summary(progress, context.now_ms());
        let more = format!("redrive tasks progress {}", task.id);
        output.line(format!("  {}  {told} ({more})", output.faint(&format!("{:<10}", "progress"))))?;
    }
    if task.history.is_empty() {
        return Ok(());
    }
    output.line(format!("\n{}", output.strong("History")))?;
    task.history.iter().try_for_each(|attempt| attempt_lines(output, attempt))
}

fn facts(task: &TaskView, now_ms: i64) -> Vec<(&'static str, String)> {
    let when = |at_ms| format!("{} ({})", moment(at_ms), from_now(at_ms, now_ms));
    let json = |raw: &serde_json::value::RawValue| excerpt(raw.get(), JSON_SHOWN_CHARS);
    let labels: Vec<String> = task.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let runs_next = match task.state {
        TaskState::Scheduled => Some(("due", when(task.due_at_ms))),
        TaskState::Leased => {
            let until = task
                .lease_until_ms
                .map_or_else(String::new, |at_ms| format!(", lease ends {}", from_now(at_ms, now_ms)));
            Some(("running", format!("at {}{until}", task.agent.as_deref().unwrap_or("an unnamed agent"))))
        }
        TaskState::Succeeded
        | TaskState::Dead
        | TaskState::Escalated
        | TaskState::Cancelled
        | TaskState::HandedOff => task.expires_at_ms.map(|at_ms| ("forgotten", when(at_ms))),
    };
    let rows = [
        task.why.as_deref().map(|why| ("why", printable(why))),
        Some(("queue", format!("{}, priority {}", task.queue, task.priority.as_str()))),
        Some(("type", task.task_type.to_string())),
        task.dependency
            .as_ref()
            .map(|name| ("dependency", dependency(name, task.primary.as_ref(), task.route))),
        task.tokens.map(|tokens| ("tokens", format!("{tokens} an attempt, as estimated"))),
        task.group.as_ref().map(|name| ("group", name.to_string())),
        Some(("enqueued", when(task.enqueued_at_ms))),
        runs_next,
        Some(("deadline", when(task.deadline_at_ms))),
        Some(("attempts", ledger(task))),
        task.retry.as_ref().map(|own| ("backoff", crate::queue_file::strategy_line(own))),
    ];
    let rows = rows.into_iter().flatten().chain(task.charges.iter().filter_map(|one| charge(one, now_ms)));
    let more = [
        task.last_failure.as_ref().map(|failure| ("failure", failure_line(failure))),
        (!labels.is_empty()).then(|| ("labels", printable(&labels.join(" ")))),
        task.payload.as_deref().map(|payload| ("payload", json(payload))),
        task.payload_ref.as_ref().map(|blob| ("payload", blob_line(blob))),
        task.result.as_deref().map(|result| ("result", json(result))),
        task.result_ref.as_ref().map(|blob| ("result", blob_line(blob))),
    ];
    rows.chain(more.into_iter().flatten()).collect()
}

/// Contents that are a blob.
fn blob_line(blob: &BlobRef) -> String {
    format!("blob {} of {}", blob.blob, HumanBytes(blob.bytes))
}

/// One kind of charge with its bound and its last reason; failures have a line of their own.
fn charge(charge: &Charge, now_ms: i64) -> Option<(&'static str, String)> {
    let name = match charge.kind {
        ChargeKind::Failed => return None,
        ChargeKind::Lost => "lost",
        ChargeKind::Undelivered => "no start",
        ChargeKind::Deferred => "put off",
        ChargeKind::Released => "given back",
        ChargeKind::LockWaits => "lock waits",
    };
    let most = charge.most.map_or_else(|| ", no bound".to_owned(), |most| format!(" of {most}"));
    let last = charge.last_at_ms.map_or_else(String::new, |at_ms| {
        let why = charge.last_why.as_deref().unwrap_or("no reason was told");
        format!(", last {}: {}", from_now(at_ms, now_ms), excerpt(why, MESSAGE_SHOWN_CHARS))
    });
    (charge.count > 0).then(|| (name, format!("{}{most}{last}", charge.count)))
}

fn dependency(name: &Name, primary: Option<&Name>, route: u32) -> String {
    primary
        .map_or_else(|| name.to_string(), |primary| format!("{name}, route {route}, in place of {primary}"))
}

/// What counts against attempts, money and runs; the other kinds have a line each, where they are not zero.
fn ledger(task: &TaskView) -> String {
    let (ledger, runs) = (&task.ledger, task.runs);
    let mut parts = vec![format!("{} of {} failed", ledger.failed, task.max_attempts)];
    match task.max_cost_usd {
        Some(most) => parts.push(format!("{} of {}", dollars(ledger.cost_usd), dollars(most))),
        None if ledger.cost_usd.is_zero() => {}
        None => parts.push(dollars(ledger.cost_usd)),
    }
    parts.push(format!("{runs} {}", if runs == 1 { "run" } else { "runs" }));
    parts.join(", ")
}

fn dollars(cost: Cost) -> String {
    format!("${}", cost.usd())
}

fn failure_line(failure: &FailureRecord) -> String {
    let hint =
        failure.retry_after_ms.map(|ms| format!(", asked to wait {}", duration(ms))).unwrap_or_default();
    let kind = if failure.retryable { "retryable" } else { "not retryable" };
    format!("{} ({kind}{hint}): {}", failure.class, excerpt(&failure.message, MESSAGE_SHOWN_CHARS))
}

fn attempt_lines(output: &Output, attempt: &AttemptRecord) -> io::Result<()> {
    let took = u64::try_from(attempt.ended_at_ms - attempt.started_at_ms).unwrap_or(0);
    let mut head = format!("  {}  ", output.faint(&moment(attempt.started_at_ms)));
    head.push_str(&match attempt.end {
        AttemptEnd::Reported => "before    failed at the caller".to_owned(),
        AttemptEnd::Redriven => "redriven  sent round again by a person".to_owned(),
        end => format!("run {:<5} {} after {}", attempt.run, end_name(end), duration(took)),
    });
    if let Some(agent) = &attempt.agent {
        head.push_str(&format!(" at {agent}"));
    }
    if attempt.route > 0 {
        head.push_str(&format!(", fallback route {}", attempt.route));
        attempt.dependency.iter().for_each(|name| head.push_str(&format!(" ({name})")));
    }
    if !attempt.cost_usd.is_zero() {
        head.push_str(&format!(", {}", dollars(attempt.cost_usd)));
    }
    output.line(head)?;
    if let Some(failure) = &attempt.failure {
        output.line(format!("{:>24}  {}", "", failure_line(failure)))?;
    }
    let next = match (attempt.delay_ms, attempt.why.as_deref().map(printable)) {
        (Some(ms), Some(why)) => format!("again in {}: {why}", duration(ms)),
        (Some(ms), None) => format!("again in {}", duration(ms)),
        (None, Some(why)) => why,
        (None, None) => return Ok(()),
    };
    output.line(format!("{:>24}  → {next}", ""))
}

fn end_name(end: AttemptEnd) -> &'static str {
    match end {
        AttemptEnd::Succeeded => "succeeded",
        AttemptEnd::Failed => "failed",
        AttemptEnd::Snoozed => "put off",
        AttemptEnd::Released => "handed back",
        AttemptEnd::Lost => "lost with its worker",
        AttemptEnd::Undelivered => "never started",
        AttemptEnd::Cancelled => "cancelled",
        AttemptEnd::Reported => "failed at the caller",
        AttemptEnd::Redriven => "sent round again",
        AttemptEnd::HandedOff => "given back to where it came from",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charges_that_are_zero_are_not_shown_and_others_with_bound_and_reason() {
        let view = |more: serde_json::Value| -> TaskView {
            let mut task = serde_json::json!({
                "id": "t", "state": "scheduled", "queue": "q", "task_type": "q", "priority": "normal",
                "enqueued_at_ms": 0, "due_at_ms": 0, "deadline_at_ms": 0, "epoch": 1, "runs": 1, "max_attempts": 5,
                "ledger": {"failed": 2, "lost": 0, "undelivered": 0, "deferred": 0, "released": 0},
            });
            task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            serde_json::from_value(task).unwrap()
        };
        assert_eq!(ledger(&view(serde_json::json!({}))), "2 of 5 failed, 1 run");
        let spent = serde_json::json!({"failed": 0, "lost": 0, "undelivered": 0, "deferred": 0, "released": 0, "cost_usd": 1.25});
        assert_eq!(
            ledger(&view(serde_json::json!({"ledger": spent, "runs": 6}))),
            "0 of 5 failed, $1.25, 6 runs"
        );
        assert_eq!(ledger(&view(serde_json::json!({"max_cost_usd": 2}))), "2 of 5 failed, $0 of $2, 1 run");
        let one = |kind, count, most, last: Option<&str>| Charge {
            kind,
            count,
            most,
            last_at_ms: last.map(|_| 0),
            last_why: last.map(str::to_owned),
        };
        assert_eq!(charge(&one(ChargeKind::Lost, 0, Some(3), None), 0), None);
        let (name, text) =
            charge(&one(ChargeKind::LockWaits, 2, Some(20), Some("lock_timeout: busy")), 0).unwrap();
        assert_eq!(name, "lock waits");
        assert!(text.starts_with("2 of 20, last ") && text.ends_with(": lock_timeout: busy"), "{text}");
        let (_, text) = charge(&one(ChargeKind::Undelivered, 7, None, None), 0).unwrap();
        assert_eq!(text, "7, no bound");
    }

    #[test]
    fn a_failure_is_one_line_whatever_was_said() {
        let failure = FailureRecord {
            class: redrive_shared::failure::FailureClass::RateLimited,
            retryable: true,
            retry_after_ms: Some(7_000),
            message: "slow\ndown".into(),
            fingerprint: "0".into(),
        };
        assert_eq!(failure_line(&failure), "rate_limited (retryable, asked to wait 7s): slow down");
    }
}
