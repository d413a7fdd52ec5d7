//! Full cycles over the API: enqueue, claim, retry, claim, succeed, all at once, until every task has succeeded.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use redrive_shared::id::Name;
use redrive_worker::client::Client;
use tokio::task::JoinSet;

use super::Options;
use super::fleet::{batch, claim, enqueue, finish, make_queue, payload, settle};

/// How long a worker waits for more.
const WAIT_MS: u64 = 1_000;

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cycles {
    pub tasks: usize,
    pub elapsed: Duration,
}

impl Cycles {
    pub fn per_second(&self) -> f64 {
        self.tasks as f64 / self.elapsed.as_secs_f64()
    }
}

/// Calls of a batch each that make up the options' tasks.
pub(super) fn calls(options: &Options) -> usize {
    options.tasks.div_ceil(options.batch).max(1)
}

/// Tasks in all these calls.
pub(super) fn tasks(options: &Options) -> usize {
    calls(options) * options.batch
}

/// What the tasks are.
#[derive(Debug, Clone)]
pub(super) struct Work {
    pub queue: &'static str,
    pub dependency: Option<Name>,
    /// Whether each is retried once.
    pub first_fails: bool,
}

/// Adds the callers that enqueue all the options' tasks, spread over the clients.
pub(super) fn produce(
    callers: &mut JoinSet<anyhow::Result<()>>,
    clients: &[Client],
    queue: &Name,
    dependency: Option<&Name>,
    options: &Options,
) -> anyhow::Result<()> {
    let body = Arc::new(payload(options.payload_bytes)?);
    let (calls, size) = (calls(options), options.batch);
    let next_call = Arc::new(AtomicUsize::new(0));
    for caller in 0..options.callers {
        let (client, queue) = (clients[caller % clients.len()].clone(), queue.clone());
        let (body, next_call) = (Arc::clone(&body), Arc::clone(&next_call));
        let dependency = dependency.cloned();
        callers.spawn(async move {
            while next_call.fetch_add(1, Ordering::Relaxed) < calls {
                let batch = batch(&queue, &body, size, |_| 0).needing(dependency.as_ref());
                enqueue(&client, &batch).await.context("enqueueing")?;
            }
            Ok(())
        });
    }
    Ok(())
}

/// Full cycles. Callers are spread over the clients.
pub(super) async fn measure(clients: &[Client], options: &Options) -> anyhow::Result<Cycles> {
    let work = Work { queue: "bench-cycles", dependency: None, first_fails: true };
    measure_work(clients, options, &work).await
}

/// Cycles of this work.
pub(super) async fn measure_work(
    clients: &[Client],
    options: &Options,
    work: &Work,
) -> anyhow::Result<Cycles> {
    let queue = make_queue(&clients[0], work.queue).await?;
    let first_fails = work.first_fails;
    let (tasks, size) = (tasks(options), options.batch);
    let done = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    // Workers notice that all is done only after their last long poll: that wait is not part of the work.
    let last_done = Arc::new(Mutex::new(started));
    let mut callers: JoinSet<anyhow::Result<()>> = JoinSet::new();
    produce(&mut callers, clients, &queue, work.dependency.as_ref(), options)?;
    for caller in 0..options.callers {
        let (client, queue) = (clients[caller % clients.len()].clone(), queue.clone());
        let (done, last_done) = (Arc::clone(&done), Arc::clone(&last_done));
        callers.spawn(async move {
            while done.load(Ordering::Relaxed) < tasks {
                let leases = claim(&client, caller, &queue, size, WAIT_MS).await.context("claiming")?;
                if !leases.is_empty() {
                    done.fetch_add(
                        settle(&client, &leases, first_fails).await.context("settling")?,
                        Ordering::Relaxed,
                    );
                    *last_done.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                }
            }
            Ok(())
        });
    }
    finish(callers, tasks)
        .await
        .with_context(|| format!("{} of {tasks} were done", done.load(Ordering::Relaxed)))?;
    let last = *last_done.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Cycles { tasks, elapsed: last.duration_since(started) })
}
