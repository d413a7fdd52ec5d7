//! Latency: the moment at which a consumer has the task, less the moment at which it was due.

use redrive_shared::clock::{Clock, SystemClock};

use super::Bench;
use super::line::Line;
use crate::bench::lateness::{self, Arrived, Lateness};

/// 200 tasks due every second, evenly spread.
pub(super) async fn measure(bench: &Bench<'_>, line: Line) -> anyhow::Result<Lateness> {
    let tasks = lateness::tasks(bench.options);
    let (clients, queue) = (bench.targets.clients(), line.queue.clone());
    let mut seen = Vec::with_capacity(tasks);
    let consuming = line.settle(false, tasks, |leases| {
        let now_us = SystemClock.now_us();
        seen.extend(leases.iter().map(|lease| Arrived {
            id: lease.id.clone(),
            due_at_ms: lease.due_at_ms,
            now_us,
        }));
    });
    // At the same time: should enqueueing take longer than expected, what is due by then is seen when it comes.
    tokio::try_join!(lateness::enqueue_steadily(clients, &queue, bench.options), consuming)?;
    Lateness::of(&seen, tasks)
}
