//! What a coordinator costs that has nothing to do: tasks are parked, workers wait.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::task::JoinSet;

use super::Options;
use super::fleet::{batch, claim, enqueue, make_queue, payload};
use super::target::Targets;

/// Tasks that are not due for an hour.
const PARKED: usize = 10_000;
const PARKED_DELAY_MS: u64 = 60 * 60 * 1_000;
/// Workers that wait in a long poll.
const WAITING: usize = 8;
/// Let the last measurement's dust settle.
const SETTLE: Duration = Duration::from_secs(2);

/// The share of one core that the idle coordinator used, in percent. None where the system does not tell.
pub(super) async fn measure(targets: &Targets, options: &Options) -> anyhow::Result<Option<f64>> {
    let client = &targets.clients()[0];
    let queue = make_queue(client, "bench-idle").await?;
    let body = payload(options.payload_bytes)?;
    for _ in 0..PARKED / options.batch {
        enqueue(client, &batch(&queue, &body, options.batch, |_| PARKED_DELAY_MS)).await?;
    }
    let wait_ms = (SETTLE.as_secs() + options.seconds + 5) * 1_000;
    let mut waiting = JoinSet::new();
    for worker in 0..WAITING {
        let (client, queue) = (client.clone(), queue.clone());
        waiting.spawn(async move { claim(&client, worker, &queue, 1, wait_ms.min(55_000)).await });
    }
    tokio::time::sleep(SETTLE).await;
    let Some(before) = targets.cpu_time() else { return Ok(None) };
    let started = Instant::now();
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    let elapsed = started.elapsed();
    let after = targets.cpu_time().context("the coordinator is gone")?;
    waiting.abort_all();
    if after < before {
        bail!("processor time went backwards");
    }
    Ok(Some((after - before).as_secs_f64() / elapsed.as_secs_f64() * 100.0))
}
