//! A storm of rate limits, for real: an HTTP server on loopback that enforces a limit, four workers that call it, and far more
//! work than it takes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use redrive_shared::id::{Name, TaskId};
use redrive_shared::retry::RetryPolicy;
use redrive_shared::wire::{EnqueueRequest, NewTask, QueueCreate};
use redrive_worker::WorkerConfig;
use redrive_worker::client::Client;
use redrive_worker::handlers::HttpHandler;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::bench::Options;
use crate::bench::talk::Talk;
use crate::bench::target::{Data, Targets};
use crate::upstream::{Entry, Options as UpstreamOptions, RateLimit, Reply, Upstream};

/// Requests a second that the server takes, and at once after a pause.
const PER_S: u32 = 50;
const BURST: u32 = 50;
/// What it tells those beyond: to come back in a second.
const RETRY_AFTER_S: u32 = 1;
/// How long it takes to answer, in ms.
const SERVICE_MS: u32 = 50;
/// Work that comes at once.
const TASKS: usize = 3_000;
/// Workers, and the tasks that each runs at a time: without a limit they would do 1,280 a second.
const WORKERS: usize = 4;
const SLOTS: u32 = 16;
/// A run that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(600);
const LOOK_EVERY: Duration = Duration::from_millis(200);
const DEPENDENCY: &str = "bench/limited";

/// What a storm came to.
#[derive(Debug, Clone, Serialize)]
pub struct Storm {
    /// Whether gates held work back.
    pub gates: bool,
    /// Coordinators that the workers were spread over.
    pub coordinators: usize,
    /// Tasks; all were done in the end.
    pub tasks: usize,
    /// Requests that reached the server.
    pub calls: usize,
    /// Those of them that it refused (429).
    pub refused: usize,
    /// Refused requests among all, 0 to 1.
    pub refused_share: f64,
    /// Requests that were not a task's first, for each task.
    pub retries_per_task: f64,
    /// From the first request to the end of the last.
    pub drained_s: f64,
    /// The least that the server's limit allows.
    pub ideal_s: f64,
}

pub(super) async fn measure(
    data: Data<'_>,
    coordinators: usize,
    gates: bool,
    options: &Options,
    talk: &Talk<'_>,
) -> anyhow::Result<Storm> {
    let with = if gates { "with gates" } else { "without gates" };
    talk.step(&format!("a storm of rate limits {with}, coordinators: {coordinators}"));
    let stop = CancellationToken::new();
    // Whatever comes of it, what runs in this process ends with it.
    let _ends = stop.clone().drop_guard();
    let limit = RateLimit {
        per_s: f64::from(PER_S),
        burst: BURST,
        reply: Reply::RateLimitedRetryAfter(RETRY_AFTER_S),
    };
    let upstream = UpstreamOptions { rate_limit: Some(limit), ..UpstreamOptions::default() };
    let upstream = Upstream::bind_with(SocketAddr::from(([127, 0, 0, 1], 0)), upstream).await?;
    let (url, handle) = (upstream.url(), upstream.handle());
    tokio::spawn(upstream.run(stop.clone()));

    let targets = Targets::start_with_gates(data, coordinators, options.threads, gates).await?;
    let queue = Name::new("bench-gates")?;
    let client = &targets.clients()[0];
    // Without gates a task needs many attempts: how many is what is measured.
    let policy = RetryPolicy { max_attempts: redrive_shared::limits::ATTEMPTS_MAX, ..RetryPolicy::default() };
    client.put_queue(&queue, &QueueCreate { policy, ..QueueCreate::default() }).await?;
    enqueue(client, &queue).await.context("enqueueing")?;
    let workers = work(targets.clients(), &queue, &url, &stop)?;
    wait_for_all(client, &queue).await?;
    let log = handle.log();
    ensure!(handle.log_dropped() == 0, "the server's log was too short for so many requests");
    stop.cancel();
    workers.join_all().await;
    targets.stop().await;
    Ok(judge(&log, gates, coordinators))
}

async fn enqueue(client: &Client, queue: &Name) -> anyhow::Result<()> {
    const BATCH: usize = 500;
    let payload = RawValue::from_string(format!(r#"{{"script":["ok@{SERVICE_MS}"]}}"#))?;
    let dependency = Name::new(DEPENDENCY)?;
    for _ in 0..TASKS / BATCH {
        let task = || NewTask {
            id: Some(TaskId::generate()),
            queue: Some(queue.clone()),
            dependency: Some(dependency.clone()),
            payload: Some(payload.clone()),
            ..NewTask::default()
        };
        let tasks = (0..BATCH).map(|_| task()).collect();
        let reply = client.enqueue(&EnqueueRequest { tasks }).await?;
        ensure!(reply.results.iter().all(|one| one.error.is_none()), "a task was not taken");
    }
    Ok(())
}

fn work(
    clients: &[Client],
    queue: &Name,
    upstream: &str,
    stop: &CancellationToken,
) -> anyhow::Result<JoinSet<()>> {
    let mut workers = JoinSet::new();
    for number in 0..WORKERS {
        let config = WorkerConfig {
            url: clients[number % clients.len()].url().to_owned(),
            agent: Name::new(format!("bench-{number}"))?,
            queues: vec![queue.clone()],
            concurrency: SLOTS,
            drain_ms: 1_000,
            ..WorkerConfig::default()
        };
        let link = config.connect(stop)?;
        let handler = Arc::new(HttpHandler::new(upstream)?);
        let stop = stop.clone();
        workers.spawn(async move {
            if let Err(error) = redrive_worker::run(config, handler, link, stop).await {
                tracing::warn!(%error, "a worker of the benchmark ended");
            }
        });
    }
    Ok(workers)
}

async fn wait_for_all(client: &Client, queue: &Name) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let counts = client.queue(queue).await?.counts;
        let done = usize::try_from(counts.succeeded).unwrap_or(0);
        if done == TASKS {
            return Ok(());
        }
        ensure!(counts.dead + counts.escalated == 0, "tasks were given up: {counts:?}");
        ensure!(started.elapsed() < PATIENCE, "{done} of {TASKS} were done within {PATIENCE:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn judge(log: &[Entry], gates: bool, coordinators: usize) -> Storm {
    let refused = log.iter().filter(|entry| entry.status == Some(429)).count();
    let mut by_task: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in log {
        *by_task.entry(&entry.key).or_default() += 1;
    }
    let retries: usize = by_task.values().map(|calls| calls - 1).sum();
    let first_ms = log.iter().map(|entry| entry.started_ms).min().unwrap_or(0);
    let last_ms = log.iter().filter_map(|entry| entry.ended_ms).max().unwrap_or(first_ms);
    Storm {
        gates,
        coordinators,
        tasks: TASKS,
        calls: log.len(),
        refused,
        refused_share: refused as f64 / log.len().max(1) as f64,
        retries_per_task: retries as f64 / TASKS as f64,
        drained_s: last_ms.saturating_sub(first_ms) as f64 / 1_000.0,
        ideal_s: (TASKS - BURST as usize) as f64 / f64::from(PER_S),
    }
}
