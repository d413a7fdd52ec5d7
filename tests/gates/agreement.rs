//! The simulator against reality: the same storm of rate limits for real, on loopback, and in virtual time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redrive::upstream::{Entry, Options, RateLimit, Reply, Upstream};
use redrive_coordinator::CoordinatorConfig;
use redrive_shared::retry::RetryPolicy;
use redrive_shared::wire::{EnqueueRequest, NewTask, QueueCreate};
use redrive_simulate::{Figures, Scenario, simulate};
use redrive_worker::WorkerConfig;
use redrive_worker::client::Client;
use redrive_worker::handlers::HttpHandler;
use serde_json::value::RawValue;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::DEPENDENCY;
use crate::support::name;
use crate::support::server::Server;
use crate::support::wait::eventually;

const SCENARIO: &str = include_str!("agreement.toml");
/// As the scenario has them.
const TASKS: usize = 240;
const AGENTS: usize = 4;
const SLOTS: u32 = 4;
const PER_S: f64 = 20.0;
const BURST: u32 = 20;
const ATTEMPTS: u32 = 100;
/// Far longer than it takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a storm came to.
#[derive(Debug)]
struct Real {
    calls: usize,
    refused: usize,
    took: Duration,
}

impl Real {
    fn of(log: &[Entry], took: Duration) -> Self {
        let refused = log.iter().filter(|entry| entry.status == Some(429)).count();
        Self { calls: log.len(), refused, took }
    }
}

async fn storm(gates: bool) -> Real {
    let stop = CancellationToken::new();
    let _ends = stop.clone().drop_guard();
    let limit = RateLimit { per_s: PER_S, burst: BURST, reply: Reply::RateLimitedRetryAfter(1) };
    let options = Options { rate_limit: Some(limit), ..Options::default() };
    let upstream = Upstream::bind_with(SocketAddr::from(([127, 0, 0, 1], 0)), options).await.expect("a port");
    let (url, handle) = (upstream.url(), upstream.handle());
    tokio::spawn(upstream.run(stop.clone()));
    let server =
        Server::with(CoordinatorConfig { in_memory: true, gates, ..CoordinatorConfig::default() }).await;
    let client = Client::new(&server.url("")).expect("a client");
    let policy = RetryPolicy { max_attempts: ATTEMPTS, ..RetryPolicy::default() };
    client.put_queue(&name("default"), &QueueCreate::from(policy)).await.expect("made");
    let payload = RawValue::from_string(r#"{"script":["ok@50"]}"#.to_owned()).expect("JSON");
    let task = || NewTask {
        dependency: Some(name(DEPENDENCY)),
        payload: Some(payload.clone()),
        ..NewTask::default()
    };
    client.enqueue(&EnqueueRequest { tasks: (0..TASKS).map(|_| task()).collect() }).await.expect("taken");
    let started = Instant::now();
    let mut workers = JoinSet::new();
    for number in 0..AGENTS {
        let config = WorkerConfig {
            url: server.url(""),
            agent: name(&format!("w{number}")),
            queues: vec![name("default")],
            concurrency: SLOTS,
            ..WorkerConfig::default()
        };
        let link = config.connect(&stop).expect("a link");
        let handler = Arc::new(HttpHandler::new(&url).expect("a handler"));
        workers.spawn(redrive_worker::run(config, handler, link, stop.clone()));
    }
    eventually("all is done", PATIENCE, async || {
        let counts = client.queue(&name("default")).await.expect("there").counts;
        (counts.succeeded == TASKS as i64).then_some(())
    })
    .await;
    let took = started.elapsed();
    let real = Real::of(&handle.log(), took);
    stop.cancel();
    workers.join_all().await;
    real
}

/// Whether they are within so many percent of each other, or within so much.
fn agree(what: &str, real: f64, simulated: f64, percent: f64, or_within: f64) {
    let apart = (real - simulated).abs();
    let allowed = (simulated * percent / 100.0).max(or_within);
    assert!(apart <= allowed, "{what}: {real} for real, {simulated} simulated, {allowed} apart at most");
}

fn compare(what: &str, real: &Real, simulated: &Figures, percent: f64) {
    println!(
        "{what}: {real:?}; simulated: {} calls, {} refused, {} ms",
        simulated.calls, simulated.rate_limited, simulated.completed_ms
    );
    agree(&format!("{what}, calls"), real.calls as f64, simulated.calls, percent, 0.0);
    // Those that were under way when the first was refused: a matter of milliseconds.
    agree(&format!("{what}, refused"), real.refused as f64, simulated.rate_limited, percent, 20.0);
    agree(&format!("{what}, ms"), real.took.as_secs_f64() * 1e3, simulated.completed_ms, 30.0, 5_000.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_simulator_says_what_a_storm_comes_to() {
    let scenario: Scenario = Scenario::parse("agreement.toml", SCENARIO).expect("a scenario");
    let report = simulate(&scenario);
    let figures = |name: &str| &report.variants.iter().find(|one| one.name == name).expect("there").figures;
    let (with, without) = tokio::join!(storm(true), storm(false));
    compare("with gates", &with, figures("gates"), 15.0);
    compare("without", &without, figures("no gates"), 30.0);
    assert!(with.refused * 5 < without.refused, "gates are for this");
}
