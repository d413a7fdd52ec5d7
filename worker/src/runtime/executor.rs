//! One task, as a pipeline: fetch → run → resolve → classify → normalise → keep → settle. (It was started with its batch.)

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt as _;
use redrive_shared::breaker;
use redrive_shared::classify::classify;
use redrive_shared::failure::{FailureClass, FailureSignal};
use redrive_shared::task::Lease;
use redrive_shared::wire::{Outcome, Settlement};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::claims::Admitted;
use super::held::Key;
use super::normalise::normalise;
use super::settler::Item;
use super::{Worker, work};
use crate::context::{CancelReason, Stop, TaskContext};
use crate::handler::{CANCEL_GRACE, Handler};
use crate::telemetry;

/// Runs a started task to its end.
pub(super) async fn execute(worker: Arc<Worker>, task: Admitted, settlements: UnboundedSender<Item>) {
    let Admitted { lease, key, stop, ticket } = task;
    let began = Instant::now();
    let ctx = TaskContext::new(
        &lease,
        worker.surroundings.clone(),
        timeout_of(&lease, worker.clock.now_ms()),
        stop.clone(),
    );
    let returned = run(&worker, &lease, &ctx, key, &stop).await;
    let took = began.elapsed();
    if is_over(stop.reason(), returned.as_ref(), &*worker.handler) {
        ctx.release_locks().await;
    } else {
        ctx.leave_locks();
    }
    let end = resolve(stop.reason(), returned);
    worker
        .report(ticket, for_breaker(lease.dependency.as_deref(), end.as_ref(), took, worker.clock.now_ms()));
    let end = match end {
        Some(outcome) => work::keep(&worker, &ctx, key, normalise(outcome).await).await,
        None => None,
    };
    match end {
        Some(outcome) => {
            telemetry::task_ended(telemetry::outcome_label(&outcome), took);
            tracing::info!(
                task = %lease.id, attempt = lease.attempt, epoch = lease.epoch, took_ms = millis(took),
                outcome = telemetry::outcome_label(&outcome), "task ended"
            );
            let settlement = Settlement { id: lease.id, epoch: lease.epoch, nonce: lease.nonce, outcome };
            worker.held.settling(key);
            worker.settle(&settlements, Item::new(Some(key), settlement));
        }
        None => {
            worker.tally.stopped.fetch_add(1, Ordering::Relaxed);
            worker.held.remove(key);
        }
    }
    telemetry::in_flight(worker.held.busy());
}

/// What the handler returned; `None` if it did not return in time after it was told to stop.
async fn run(worker: &Worker, lease: &Lease, ctx: &TaskContext, key: Key, stop: &Stop) -> Option<Outcome> {
    let timeout = ctx.timeout();
    let work = AssertUnwindSafe(work::run(&*worker.handler, lease, ctx)).catch_unwind();
    tokio::pin!(work);
    let returned = tokio::select! {
        biased;
        returned = &mut work => returned,
        reason = watch(worker, key, timeout, stop) => {
            telemetry::stopped(reason.as_str());
            tracing::info!(task = %lease.id, epoch = lease.epoch, reason = reason.as_str(), "handler is told to stop");
            grace(worker, key, work.as_mut()).await?
        }
    };
    Some(returned.unwrap_or_else(|panic| {
        let message = panic_message(panic.as_ref());
        tracing::error!(task = %lease.id, message, "the handler panicked");
        let exception = Some(format!("the handler panicked: {message}"));
        Outcome::retry(FailureSignal { exception, ..FailureSignal::default() })
    }))
}

/// Whether nothing of the work goes on. Of a handler that was stopped something may: the endpoint that it had called, a thread.
fn is_over(stopped: Option<CancelReason>, returned: Option<&Outcome>, handler: &dyn Handler) -> bool {
    returned.is_some() && (stopped.is_none() || handler.ends_its_work())
}

/// What a handler that was told to stop still returns: it has [`CANCEL_GRACE`], but no longer than its lease lasts, whose
/// end may move while it goes on.
async fn grace<T>(worker: &Worker, key: Key, mut work: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    let patience_ends = Instant::now() + CANCEL_GRACE;
    let deadline = || worker.held.ends(key).map_or(patience_ends, |ends| ends.min(patience_ends));
    loop {
        let until = deadline();
        if let Ok(returned) = tokio::time::timeout_at(until, work.as_mut()).await {
            return Some(returned);
        }
        if deadline() <= until {
            tracing::warn!("a handler did not stop when it was told to: it is dropped");
            return None;
        }
    }
}

/// Returns when the handler has to stop: it was told to, its time is up, or its lease may be over.
async fn watch(worker: &Worker, key: Key, timeout: Duration, stop: &Stop) -> CancelReason {
    let give_up_at = Instant::now() + timeout;
    loop {
        let Some(lease_stop_at) = worker.held.stop_at(key) else { return stop.wait().await };
        tokio::select! {
            biased;
            reason = stop.wait() => return reason,
            () = tokio::time::sleep_until(give_up_at) => stop.now(CancelReason::Timeout),
            () = tokio::time::sleep_until(lease_stop_at) => {
                // It may have been extended meanwhile.
                if worker.held.stop_at(key).is_none_or(|stop_at| stop_at <= Instant::now()) {
                    tracing::warn!("a lease could not be extended in time: its handler is stopped");
                    stop.now(CancelReason::LeaseLost);
                }
            }
        }
    }
}

/// The attempt's time-out, or what is left until the task's deadline.
fn timeout_of(lease: &Lease, now_ms: i64) -> Duration {
    let left_ms = lease.deadline_at_ms.saturating_sub(now_ms).max(0).unsigned_abs();
    Duration::from_millis(lease.timeout_ms.min(left_ms))
}

/// What the attempt came to, given why the handler was stopped, if it was. `None`: it is not ours to say.
fn resolve(stopped: Option<CancelReason>, returned: Option<Outcome>) -> Option<Outcome> {
    match stopped {
        None => returned,
        Some(CancelReason::LeaseLost | CancelReason::Cancelled) => None,
        Some(CancelReason::Timeout) => Some(failed_for(timed_out(), returned)),
        // It counts with the locks that were not had in time: up to 20 of those, then a person is asked. The attempt is as
        // little to blame as there, and work whose lock is always lost must not go round for ever.
        Some(CancelReason::LockLost) => Some(failed_for(lock_lost(), returned)),
        Some(CancelReason::Draining) => Some(match returned {
            // It failed because it was stopped: no attempt is charged for that, and what was paid is paid.
            Some(Outcome::Retry { cost_usd, .. } | Outcome::Release { cost_usd }) => {
                Outcome::Release { cost_usd }
            }
            None => Outcome::release(),
            Some(
                outcome @ (Outcome::Done { .. }
                | Outcome::Snooze { .. }
                | Outcome::Dead { .. }
                | Outcome::Escalate { .. }),
            ) => outcome,
        }),
    }
}

/// What an attempt came to that was stopped for such a reason.
fn failed_for(stopped: FailureSignal, returned: Option<Outcome>) -> Outcome {
    match returned {
        Some(Outcome::Retry { failure, in_transaction, cost_usd }) => {
            let class = failure.class.or(stopped.class);
            Outcome::Retry { failure: FailureSignal { class, ..failure }, in_transaction, cost_usd }
        }
        // Handing it back would repeat it for ever, at no charge.
        Some(Outcome::Release { cost_usd }) => Outcome::retry(stopped).costing(cost_usd),
        None => Outcome::retry(stopped),
        Some(
            outcome @ (Outcome::Done { .. }
            | Outcome::Snooze { .. }
            | Outcome::Dead { .. }
            | Outcome::Escalate { .. }),
        ) => outcome,
    }
}

fn lock_lost() -> FailureSignal {
    FailureSignal {
        class: Some(FailureClass::LockTimeout),
        exception: Some("a lock of the attempt was lost, and its handler was stopped".to_owned()),
        ..FailureSignal::default()
    }
}

fn timed_out() -> FailureSignal {
    FailureSignal {
        class: Some(FailureClass::Timeout),
        exception: Some("the handler did not end within its time-out".to_owned()),
        ..FailureSignal::default()
    }
}

/// What the attempt says about the agent and its dependency. The coordinator classifies for itself, with the same rules.
fn for_breaker(
    dependency: Option<&str>,
    end: Option<&Outcome>,
    took: Duration,
    now_ms: i64,
) -> breaker::Outcome {
    let duration_ms = millis(took);
    match end {
        Some(Outcome::Done { .. }) => breaker::Outcome::Success { duration_ms },
        Some(
            Outcome::Retry { failure, .. }
            | Outcome::Dead { failure, .. }
            | Outcome::Escalate { failure, .. },
        ) => {
            let class = classify(failure, dependency, now_ms).class;
            breaker::Outcome::Failure { class, duration_ms }
        }
        Some(Outcome::Snooze { .. } | Outcome::Release { .. }) | None => breaker::Outcome::Ignored,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let literal = panic.downcast_ref::<&str>().copied();
    literal.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use redrive_shared::cost::Cost;

    use super::*;

    fn failed() -> Option<Outcome> {
        Some(Outcome::retry(FailureSignal::default()))
    }

    fn label(end: Option<Outcome>) -> &'static str {
        end.as_ref().map_or("nothing", telemetry::outcome_label)
    }

    #[test]
    fn what_a_stopped_handler_returns_counts_as_far_as_it_may() {
        let done = || Some(Outcome::done(None));
        assert_eq!(label(resolve(None, done())), "done");
        for lost in [CancelReason::LeaseLost, CancelReason::Cancelled] {
            assert_eq!(label(resolve(Some(lost), done())), "nothing");
        }
        assert_eq!(label(resolve(Some(CancelReason::Draining), done())), "done");
        assert_eq!(label(resolve(Some(CancelReason::Draining), failed())), "release");
        assert_eq!(label(resolve(Some(CancelReason::Draining), None)), "release");
        assert_eq!(label(resolve(Some(CancelReason::Timeout), done())), "done");
        assert_eq!(label(resolve(Some(CancelReason::Timeout), Some(Outcome::release()))), "retry");
    }

    #[test]
    fn what_was_paid_counts_however_a_stopped_attempt_ends() {
        let paid = Cost::from_micros(250_000);
        let costs =
            |reason, returned: Outcome| resolve(Some(reason), Some(returned.costing(paid))).unwrap().cost();
        let failed = || Outcome::retry(FailureSignal::default());
        for reason in [CancelReason::Draining, CancelReason::Timeout] {
            for returned in [Outcome::done(None), failed(), Outcome::release()] {
                assert_eq!(costs(reason, returned), paid, "{reason:?}");
            }
        }
    }

    #[test]
    fn every_ending_tells_the_breakers_what_it_says_of_the_dependency() {
        let took = Duration::from_millis(7);
        let told = |end: Option<Outcome>| for_breaker(Some("llm/a"), end.as_ref(), took, 0);
        let of = |class| FailureSignal { class: Some(class), ..FailureSignal::default() };
        assert_eq!(told(Some(Outcome::done(None))), breaker::Outcome::Success { duration_ms: 7 });
        for class in FailureClass::ALL {
            let failure = breaker::Outcome::Failure { class, duration_ms: 7 };
            assert_eq!(told(Some(Outcome::retry(of(class)))), failure);
            assert_eq!(told(Some(Outcome::dead(of(class)))), failure);
            assert_eq!(told(Some(Outcome::escalate(of(class)))), failure);
        }
        // Put off, handed back, called off, or lost: nothing was learnt.
        assert_eq!(told(Some(Outcome::Snooze { delay_ms: 1 })), breaker::Outcome::Ignored);
        assert_eq!(told(Some(Outcome::release())), breaker::Outcome::Ignored);
        assert_eq!(told(resolve(Some(CancelReason::LeaseLost), failed())), breaker::Outcome::Ignored);
        assert_eq!(told(resolve(Some(CancelReason::Cancelled), failed())), breaker::Outcome::Ignored);
        assert_eq!(told(resolve(Some(CancelReason::Draining), failed())), breaker::Outcome::Ignored);
        let timeout = breaker::Outcome::Failure { class: FailureClass::Timeout, duration_ms: 7 };
        assert_eq!(told(resolve(Some(CancelReason::Timeout), None)), timeout);
    }

    #[test]
    fn a_time_out_is_called_one_unless_the_handler_knows_better() {
        let Some(Outcome::Retry { failure, .. }) = resolve(Some(CancelReason::Timeout), failed()) else {
            panic!("a retry")
        };
        assert_eq!(failure.class, Some(FailureClass::Timeout));
        assert_eq!(timed_out().class, Some(FailureClass::Timeout));
    }
}
