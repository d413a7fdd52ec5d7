//! What a worker measures. Names are base units with a `redrive_worker_` prefix, but for what other programs count too; labels
//! are few and bounded.

use std::time::Duration;

use redrive_shared::breaker::Transition;
use redrive_shared::wire::Outcome;

/// Tasks whose handler ended, by `outcome`.
const TASKS: &str = "redrive_worker_tasks_total";
/// Time in the handler, by `outcome`.
const HANDLER_SECONDS: &str = "redrive_worker_handler_seconds";
/// State of a breaker by `breaker` (`*` is the agent's own): 0 closed, 1 half-open, 2 open, 3 isolated.
const BREAKER_STATE: &str = "redrive_worker_breaker_state";
/// Changes of state, by `breaker`, `to` and `reason`.
const BREAKER_TRANSITIONS: &str = "redrive_worker_breaker_transitions_total";
/// Tasks being run.
const IN_FLIGHT: &str = "redrive_worker_in_flight";
/// Handlers stopped before their end, by `reason`.
const STOPPED: &str = "redrive_worker_handlers_stopped_total";
/// Calls to the coordinator that brought no answer or a refusal, by `call`.
const LINK_ERRORS: &str = "redrive_worker_link_errors_total";
/// Settlements in one call.
const SETTLE_BATCH: &str = "redrive_worker_settle_batch_items";
/// Settlements that changed nothing, by `reason`.
const SETTLE_DROPPED: &str = "redrive_worker_settlements_dropped_total";
/// Checkpoints that were saved, by `kind`: `step` (it is done) or `progress` (how far it came).
const CHECKPOINTS: &str = "redrive_worker_checkpoints_total";
/// Steps that an earlier attempt had done and this one did not do again.
const STEPS_SKIPPED: &str = "redrive_worker_steps_skipped_total";
/// Locks that were lost while they were held.
const LOCKS_LOST: &str = "redrive_worker_locks_lost_total";
/// Time until a lock was had or not, by `outcome`: `granted`, `busy`, `stopped` or `failed`.
const LOCK_WAIT_SECONDS: &str = "redrive_worker_lock_wait_seconds";
/// Files that were not replaced because a later lock's holder had replaced them.
const FENCE_REJECTIONS: &str = "redrive_fence_rejections_total";

/// Tells the metrics recorder what the names mean. Call it after the recorder is installed.
pub fn describe() {
    use metrics::Unit::{Count, Seconds};
    metrics::describe_counter!(TASKS, Count, "Tasks whose handler ended, by outcome");
    metrics::describe_histogram!(HANDLER_SECONDS, Seconds, "Time in the handler, by outcome");
    metrics::describe_gauge!(BREAKER_STATE, "State of a breaker: 0 closed, 1 half-open, 2 open, 3 isolated");
    metrics::describe_counter!(BREAKER_TRANSITIONS, Count, "Changes of state of breakers");
    metrics::describe_gauge!(IN_FLIGHT, Count, "Tasks being run");
    metrics::describe_counter!(STOPPED, Count, "Handlers stopped before their end, by reason");
    metrics::describe_counter!(LINK_ERRORS, Count, "Calls to the coordinator without a usable answer");
    metrics::describe_histogram!(SETTLE_BATCH, Count, "Settlements in one call");
    metrics::describe_counter!(SETTLE_DROPPED, Count, "Settlements that changed nothing, by reason");
    metrics::describe_counter!(CHECKPOINTS, Count, "Checkpoints that were saved, by kind");
    metrics::describe_counter!(STEPS_SKIPPED, Count, "Steps that an earlier attempt had done already");
    metrics::describe_counter!(LOCKS_LOST, Count, "Locks that were lost while they were held");
    metrics::describe_histogram!(LOCK_WAIT_SECONDS, Seconds, "Time until a lock was had or not, by outcome");
    metrics::describe_counter!(
        FENCE_REJECTIONS,
        Count,
        "Files not replaced: a later lock's holder had done so"
    );
}

/// The name of an outcome as a metric label.
pub(crate) fn outcome_label(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Done { .. } => "done",
        Outcome::Retry { .. } => "retry",
        Outcome::Snooze { .. } => "snooze",
        Outcome::Dead { .. } => "dead",
        Outcome::Escalate { .. } => "escalate",
        Outcome::Release { .. } => "release",
    }
}

pub(crate) fn task_ended(outcome: &'static str, took: Duration) {
    metrics::counter!(TASKS, "outcome" => outcome).increment(1);
    metrics::histogram!(HANDLER_SECONDS, "outcome" => outcome).record(took);
}

pub(crate) fn in_flight(tasks: usize) {
    metrics::gauge!(IN_FLIGHT).set(tasks as f64);
}

pub(crate) fn stopped(reason: &'static str) {
    metrics::counter!(STOPPED, "reason" => reason).increment(1);
}

pub(crate) fn link_error(call: &'static str) {
    metrics::counter!(LINK_ERRORS, "call" => call).increment(1);
}

pub(crate) fn settled(items: usize) {
    metrics::histogram!(SETTLE_BATCH).record(items as f64);
}

pub(crate) fn settlement_dropped(reason: &'static str) {
    metrics::counter!(SETTLE_DROPPED, "reason" => reason).increment(1);
}

pub(crate) fn checkpoint_saved(completed: bool) {
    metrics::counter!(CHECKPOINTS, "kind" => if completed { "step" } else { "progress" }).increment(1);
}

pub(crate) fn step_skipped() {
    metrics::counter!(STEPS_SKIPPED).increment(1);
}

pub(crate) fn lock_lost() {
    metrics::counter!(LOCKS_LOST).increment(1);
}

pub(crate) fn lock_waited(outcome: &'static str, took: Duration) {
    metrics::histogram!(LOCK_WAIT_SECONDS, "outcome" => outcome).record(took);
}

pub(crate) fn fence_rejected() {
    metrics::counter!(FENCE_REJECTIONS).increment(1);
}

pub(crate) fn breaker_changed(key: &str, transition: &Transition) {
    metrics::gauge!(BREAKER_STATE, "breaker" => key.to_owned()).set(transition.to.level());
    metrics::counter!(
        BREAKER_TRANSITIONS,
        "breaker" => key.to_owned(),
        "to" => transition.to.as_str(),
        "reason" => transition.reason.as_str(),
    )
    .increment(1);
    tracing::warn!(
        breaker = key,
        from = %transition.from,
        to = %transition.to,
        reason = %transition.reason,
        "a breaker changed its state"
    );
}
