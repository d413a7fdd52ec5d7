//! Says that the worker lives, what it holds and how its breakers are; hears what it has lost.

use std::sync::Arc;
use std::time::Duration;

use redrive_shared::wire::Heartbeat;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{LAST_HEARTBEAT, Worker};
use crate::backoff::Backoff;
use crate::link::LinkError;
use crate::telemetry;

/// Shortest time between heartbeats, whatever is asked for.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// Beats until `farewell`, then once more.
pub(super) async fn run(worker: Arc<Worker>, farewell: CancellationToken) {
    let usual = Duration::from_millis(worker.config.heartbeat_interval_ms());
    // A heartbeat that fails is repeated sooner than the next is due: the leases are running out.
    let mut backoff = Backoff::new(MIN_INTERVAL.max(usual / 20), usual);
    let mut told_draining = false;
    loop {
        told_draining |= worker.shutdown.is_cancelled();
        let pause = match beat(&worker).await {
            Ok(next) => {
                backoff.reset();
                next
            }
            Err(error) => {
                telemetry::link_error("heartbeat");
                let pause = backoff.next(error.retry_after()).min(longest(&worker));
                tracing::warn!(%error, ?pause, "the heartbeat did not arrive");
                pause
            }
        };
        worker.introduced.notify_one();
        tokio::select! {
            () = pass(&worker, pause) => {}
            // A change of a breaker is told at once.
            () = worker.breaker_changed.notified() => {}
            () = worker.link.reach_changed() => {}
            () = worker.shutdown.cancelled(), if !told_draining => {}
            () = farewell.cancelled() => break,
        }
    }
    if let Ok(Err(error)) = tokio::time::timeout(LAST_HEARTBEAT, beat(&worker)).await {
        tracing::debug!(%error, "the last heartbeat did not arrive");
    }
}

/// Waits until the next heartbeat. A queue's policy may give shorter leases than others have, and one may start meanwhile.
async fn pass(worker: &Worker, pause: Duration) {
    let begun = Instant::now();
    let mut due = begun + pause;
    loop {
        if let Some(left) = worker.held.shortest() {
            due = due.min(Instant::now() + left / 3);
        }
        due = due.max(begun + MIN_INTERVAL);
        tokio::select! {
            () = tokio::time::sleep_until(due) => return,
            () = worker.held.begun() => {}
        }
    }
}

/// Two heartbeats may be lost before a lease is.
fn longest(worker: &Worker) -> Duration {
    worker.held.shortest_length() / 3
}

/// One heartbeat; returns when the coordinator wants the next.
async fn beat(worker: &Worker) -> Result<Duration, LinkError> {
    worker.publish_transitions();
    let config = &worker.config;
    let (keys, leases): (Vec<_>, Vec<_>) = worker.held.to_extend().into_iter().unzip();
    let heartbeat = Heartbeat {
        agent: config.agent.clone(),
        boot_id: worker.boot_id.clone(),
        queues: config.queues.clone(),
        // Who cannot be reached has no room.
        capacity: if worker.link.is_in_reach() { config.concurrency } else { 0 },
        in_flight: u32::try_from(worker.held.busy()).unwrap_or(u32::MAX),
        breakers: worker.breakers().snapshots(worker.clock.now_ms()),
        leases,
        lease_ms: config.lease_ms,
        draining: worker.shutdown.is_cancelled(),
        pushed: worker.link.is_pushed(),
    };
    let sent = Instant::now();
    // One that hangs must not use up the time in which a second could still save the leases.
    let reply = tokio::time::timeout(longest(worker), worker.link.heartbeat(&heartbeat)).await;
    let reply = reply.unwrap_or_else(|_| Err(unanswered()))?;
    // What was called off is also answered as lost: the first reason stands, and this one says more.
    worker.held.cancel(&keys, &reply.leases, &reply.cancelled);
    worker.held.extended(sent, &keys, &reply.leases);
    worker.obey(&reply.breaker_commands);
    worker.count_lost(&reply.lost);
    // The coordinator may want them closer together or less often, but not so that leases run out; what was configured
    // here wins.
    let asked = Duration::from_millis(reply.next_ms).clamp(MIN_INTERVAL, longest(worker));
    Ok(config.heartbeat_ms.map_or(asked, Duration::from_millis))
}

fn unanswered() -> LinkError {
    let text = "the heartbeat was not answered in time".to_owned();
    LinkError::NoAnswer { text, retry_after: None, outcome_unknown: true }
}
