//! Dispatch lateness: the moment at which a worker has the task, less the moment at which it was due.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, bail};
use redrive_shared::clock::{Clock, SystemClock};
use redrive_shared::id::{Name, TaskId};
use redrive_worker::client::Client;
use tokio::task::JoinSet;

use super::Options;
use super::fleet::{batch, claim, enqueue, finish, make_queue, payload, settle};

/// Tasks due a second in the steady measurement.
const DUE_PER_SECOND: u64 = 200;
/// Time to get everything enqueued before the first is due, in milliseconds.
const HEAD_START_MS: u64 = 2_000;
/// Workers that wait for work.
const WORKERS: usize = 4;
/// Longest wait of one claim, in milliseconds.
const WAIT_MS: u64 = 3_000;

/// A task at its arrival: when it was due, and when it was there.
pub(super) struct Arrived {
    pub id: TaskId,
    pub due_at_ms: i64,
    pub now_us: i64,
}

/// What was measured, in milliseconds, sorted.
pub(super) struct Lateness {
    sorted_ms: Vec<f64>,
    /// From the first due moment until the last task was in a worker's hands.
    pub drained_ms: f64,
}

impl Lateness {
    /// Of so many tasks, each of which must have arrived once.
    pub fn of(arrived: &[Arrived], tasks: usize) -> anyhow::Result<Self> {
        let different: HashSet<&TaskId> = arrived.iter().map(|task| &task.id).collect();
        if arrived.len() != tasks || different.len() != tasks {
            bail!(
                "{} tasks were handed out, {} different ones; {tasks} were enqueued",
                arrived.len(),
                different.len()
            );
        }
        let first_us = arrived.iter().map(|task| task.due_at_ms * 1_000).min().unwrap_or_default();
        let last_us = arrived.iter().map(|task| task.now_us).max().unwrap_or_default();
        let late_us = arrived.iter().map(|task| task.now_us - task.due_at_ms * 1_000);
        let mut sorted_ms: Vec<f64> = late_us.map(|us| us as f64 / 1_000.0).collect();
        sorted_ms.sort_by(f64::total_cmp);
        Ok(Self { sorted_ms, drained_ms: (last_us - first_us) as f64 / 1_000.0 })
    }

    /// The value that this share of tasks did not exceed (nearest rank).
    pub fn percentile_ms(&self, share: f64) -> f64 {
        let rank = (share * self.sorted_ms.len() as f64).ceil().max(1.0) as usize;
        self.sorted_ms.get(rank - 1).or(self.sorted_ms.last()).copied().unwrap_or(f64::NAN)
    }

    pub fn max_ms(&self) -> f64 {
        self.sorted_ms.last().copied().unwrap_or(f64::NAN)
    }
}

/// Tasks of the steady measurement.
pub(super) fn tasks(options: &Options) -> usize {
    usize::try_from(DUE_PER_SECOND * options.seconds).unwrap_or(usize::MAX)
}

/// 200 tasks due every second, evenly spread.
pub(super) async fn steady(clients: &[Client], options: &Options) -> anyhow::Result<Lateness> {
    let queue = make_queue(&clients[0], "bench-lateness").await?;
    enqueue_steadily(clients, &queue, options).await?;
    collect(clients, &queue, tasks(options), 20).await
}

/// Enqueues the steady measurement's tasks; the first is due two seconds later.
pub(super) async fn enqueue_steadily(
    clients: &[Client],
    queue: &Name,
    options: &Options,
) -> anyhow::Result<()> {
    let body = payload(options.payload_bytes)?;
    let tasks = tasks(options);
    let per_call = 500;
    let start_ms = SystemClock.now_ms().saturating_add_unsigned(HEAD_START_MS);
    for first in (0..tasks).step_by(per_call) {
        let count = per_call.min(tasks - first);
        let sent_ms = SystemClock.now_ms();
        let request = batch(queue, &body, count, |place| {
            let due_ms = start_ms.saturating_add_unsigned((first + place) as u64 * 1_000 / DUE_PER_SECOND);
            u64::try_from(due_ms - sent_ms).unwrap_or(0)
        });
        enqueue(&clients[first / per_call % clients.len()], &request).await?;
    }
    Ok(())
}

/// Many tasks due at one instant.
pub(super) async fn storm(clients: &[Client], options: &Options) -> anyhow::Result<Lateness> {
    let queue = make_queue(&clients[0], "bench-storm").await?;
    let body = payload(options.payload_bytes)?;
    let due_ms =
        SystemClock.now_ms().saturating_add_unsigned(HEAD_START_MS + options.storm_tasks as u64 / 10);
    let mut calls = JoinSet::new();
    for first in (0..options.storm_tasks).step_by(options.batch) {
        let count = options.batch.min(options.storm_tasks - first);
        let client = clients[first / options.batch % clients.len()].clone();
        let (queue, body) = (queue.clone(), body.clone());
        calls.spawn(async move {
            let delay_ms = u64::try_from(due_ms - SystemClock.now_ms()).unwrap_or(0);
            enqueue(&client, &batch(&queue, &body, count, |_| delay_ms)).await
        });
    }
    finish(calls, options.storm_tasks).await?;
    collect(clients, &queue, options.storm_tasks, options.batch).await
}

/// Lets workers take everything, and notes how late each task reached one.
async fn collect(clients: &[Client], queue: &Name, tasks: usize, max: usize) -> anyhow::Result<Lateness> {
    let taken = Arc::new(AtomicUsize::new(0));
    let mut workers: JoinSet<anyhow::Result<Vec<Arrived>>> = JoinSet::new();
    for worker in 0..WORKERS {
        let (client, queue, taken) =
            (clients[worker % clients.len()].clone(), queue.clone(), Arc::clone(&taken));
        workers.spawn(async move {
            let mut seen = Vec::new();
            while taken.load(Ordering::Relaxed) < tasks {
                let leases = claim(&client, worker, &queue, max, WAIT_MS).await?;
                let now_us = SystemClock.now_us();
                taken.fetch_add(leases.len(), Ordering::Relaxed);
                if !leases.is_empty() {
                    settle(&client, &leases, false).await?;
                }
                let arrived = leases.into_iter().map(|lease| Arrived {
                    id: lease.id,
                    due_at_ms: lease.due_at_ms,
                    now_us,
                });
                seen.extend(arrived);
            }
            Ok(seen)
        });
    }
    let seen = finish(workers, tasks)
        .await
        .with_context(|| format!("{} of {tasks} tasks arrived", taken.load(Ordering::Relaxed)))?;
    let seen: Vec<_> = seen.into_iter().flatten().collect();
    Lateness::of(&seen, tasks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let lateness = Lateness { sorted_ms: (1..=200).map(f64::from).collect(), drained_ms: 0.0 };
        assert_eq!(lateness.percentile_ms(0.5), 100.0);
        assert_eq!(lateness.percentile_ms(0.99), 198.0);
        assert_eq!(lateness.max_ms(), 200.0);
    }
}
