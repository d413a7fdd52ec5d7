//! Dispatch lateness: the moment at which a worker has the task, less the moment at which it was due.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use redrive_shared::clock::{Clock, SystemClock};
use redrive_worker::client::Client;
use tokio::task::JoinSet;

use super::Options;
use super::fleet::{batch, claim, enqueue, make_queue, payload, settle};

/// Tasks due a second in the steady measurement.
const DUE_PER_SECOND: u64 = 200;
/// Time to get everything enqueued before the first is due, in milliseconds.
const HEAD_START_MS: u64 = 2_000;
/// Workers that wait for work.
const WORKERS: usize = 4;
/// Longest wait of one claim, in milliseconds.
const WAIT_MS: u64 = 3_000;
/// After this long beyond the last due time the run is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was measured, in milliseconds, sorted.
pub(super) struct Lateness {
    sorted_ms: Vec<f64>,
    /// From the first due moment until the last task was in a worker's hands.
    pub drained_ms: f64,
}

impl Lateness {
    /// The value that this share of tasks did not exceed (nearest rank).
    pub fn percentile_ms(&self, share: f64) -> f64 {
        let rank = (share * self.sorted_ms.len() as f64).ceil().max(1.0) as usize;
        self.sorted_ms.get(rank - 1).or(self.sorted_ms.last()).copied().unwrap_or(f64::NAN)
    }

    pub fn max_ms(&self) -> f64 {
        self.sorted_ms.last().copied().unwrap_or(f64::NAN)
    }

    pub fn tasks(&self) -> usize {
        self.sorted_ms.len()
    }
}

/// 200 tasks due every second, evenly spread.
pub(super) async fn steady(client: &Client, options: &Options) -> anyhow::Result<Lateness> {
    let queue = make_queue(client, "bench-lateness").await?;
    let body = payload(options.payload_bytes)?;
    let tasks = usize::try_from(DUE_PER_SECOND * options.seconds)?;
    let per_call = 500;
    let start_ms = SystemClock.now_ms().saturating_add_unsigned(HEAD_START_MS);
    for first in (0..tasks).step_by(per_call) {
        let count = per_call.min(tasks - first);
        let sent_ms = SystemClock.now_ms();
        let request = batch(&queue, &body, count, |place| {
            let due_ms = start_ms.saturating_add_unsigned((first + place) as u64 * 1_000 / DUE_PER_SECOND);
            u64::try_from(due_ms - sent_ms).unwrap_or(0)
        });
        enqueue(client, &request).await?;
    }
    collect(client, &queue, tasks, 20).await
}

/// Many tasks due at one instant.
pub(super) async fn storm(client: &Client, options: &Options) -> anyhow::Result<Lateness> {
    let queue = make_queue(client, "bench-storm").await?;
    let body = payload(options.payload_bytes)?;
    let due_ms =
        SystemClock.now_ms().saturating_add_unsigned(HEAD_START_MS + options.storm_tasks as u64 / 10);
    let mut calls = JoinSet::new();
    for first in (0..options.storm_tasks).step_by(options.batch) {
        let count = options.batch.min(options.storm_tasks - first);
        let (client, queue, body) = (client.clone(), queue.clone(), body.clone());
        calls.spawn(async move {
            let delay_ms = u64::try_from(due_ms - SystemClock.now_ms()).unwrap_or(0);
            enqueue(&client, &batch(&queue, &body, count, |_| delay_ms)).await
        });
    }
    while let Some(call) = calls.join_next().await {
        call.context("a producer")??;
    }
    collect(client, &queue, options.storm_tasks, options.batch).await
}

/// Lets workers take everything, and notes how late each task reached one.
async fn collect(
    client: &Client,
    queue: &redrive_shared::id::Name,
    tasks: usize,
    max: usize,
) -> anyhow::Result<Lateness> {
    let taken = Arc::new(AtomicUsize::new(0));
    let mut workers: JoinSet<anyhow::Result<Vec<(i64, i64)>>> = JoinSet::new();
    for worker in 0..WORKERS {
        let (client, queue, taken) = (client.clone(), queue.clone(), Arc::clone(&taken));
        workers.spawn(async move {
            let mut seen = Vec::new();
            while taken.load(Ordering::Relaxed) < tasks {
                let leases = claim(&client, worker, &queue, max, WAIT_MS).await?;
                let now_us = SystemClock.now_us();
                taken.fetch_add(leases.len(), Ordering::Relaxed);
                seen.extend(leases.iter().map(|lease| (lease.due_at_ms * 1_000, now_us)));
                if !leases.is_empty() {
                    settle(&client, leases, false).await?;
                }
            }
            Ok(seen)
        });
    }
    let gather = async {
        let mut seen = Vec::with_capacity(tasks);
        while let Some(worker) = workers.join_next().await {
            seen.extend(worker.context("a worker")??);
        }
        anyhow::Ok(seen)
    };
    let Ok(seen) = tokio::time::timeout(PATIENCE, gather).await else {
        bail!("{} of {tasks} tasks arrived after {PATIENCE:?}", taken.load(Ordering::Relaxed));
    };
    let seen = seen?;
    if seen.len() != tasks {
        bail!("{} tasks were handed out, {tasks} were enqueued", seen.len());
    }
    let first_us = seen.iter().map(|(due_us, _)| *due_us).min().unwrap_or_default();
    let last_us = seen.iter().map(|(_, now_us)| *now_us).max().unwrap_or_default();
    let mut sorted_ms: Vec<f64> =
        seen.iter().map(|(due_us, now_us)| (now_us - due_us) as f64 / 1_000.0).collect();
    sorted_ms.sort_by(f64::total_cmp);
    Ok(Lateness { sorted_ms, drained_ms: (last_us - first_us) as f64 / 1_000.0 })
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
