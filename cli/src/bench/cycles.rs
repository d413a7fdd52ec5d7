//! Full cycles: enqueue, claim, retry, claim, succeed, all at once, until every task has succeeded.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use redrive_worker::client::Client;
use tokio::task::JoinSet;

use super::Options;
use super::fleet::{batch, claim, enqueue, make_queue, payload, settle};

/// After this long the run is given up: something is stuck.
const DEADLINE: Duration = Duration::from_secs(120);
/// How long a worker waits for more.
const WAIT_MS: u64 = 1_000;

/// What was measured.
pub(super) struct Cycles {
    pub tasks: usize,
    pub elapsed: Duration,
}

impl Cycles {
    pub fn per_second(&self) -> f64 {
        self.tasks as f64 / self.elapsed.as_secs_f64()
    }
}

pub(super) async fn measure(client: &Client, options: &Options) -> anyhow::Result<Cycles> {
    let queue = make_queue(client, "bench-cycles").await?;
    let body = Arc::new(payload(options.payload_bytes)?);
    let calls = options.tasks.div_ceil(options.batch).max(1);
    let tasks = calls * options.batch;
    let (next_call, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let started = Instant::now();
    // Workers notice that all is done only after their last long poll: that wait is not part of the work.
    let last_done = Arc::new(Mutex::new(started));
    let mut callers: JoinSet<anyhow::Result<()>> = JoinSet::new();
    for caller in 0..options.callers {
        let size = options.batch;
        callers.spawn({
            let (client, queue, body) = (client.clone(), queue.clone(), Arc::clone(&body));
            let next_call = Arc::clone(&next_call);
            async move {
                while next_call.fetch_add(1, Ordering::Relaxed) < calls {
                    enqueue(&client, &batch(&queue, &body, size, |_| 0)).await.context("enqueueing")?;
                }
                Ok(())
            }
        });
        callers.spawn({
            let (client, queue, done) = (client.clone(), queue.clone(), Arc::clone(&done));
            let last_done = Arc::clone(&last_done);
            async move {
                while done.load(Ordering::Relaxed) < tasks {
                    let leases = claim(&client, caller, &queue, size, WAIT_MS).await.context("claiming")?;
                    if !leases.is_empty() {
                        done.fetch_add(
                            settle(&client, leases, true).await.context("settling")?,
                            Ordering::Relaxed,
                        );
                        *last_done.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                    }
                }
                Ok(())
            }
        });
    }
    let finished = async {
        while let Some(caller) = callers.join_next().await {
            caller.context("a caller")??;
        }
        anyhow::Ok(())
    };
    match tokio::time::timeout(DEADLINE, finished).await {
        Ok(outcome) => outcome?,
        Err(_) => bail!("{} of {tasks} tasks were done after {DEADLINE:?}", done.load(Ordering::Relaxed)),
    }
    let last = *last_done.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Cycles { tasks, elapsed: last.duration_since(started) })
}
