//! What the measurements share: queues, tasks, and callers that work at once.
//!
//! The load is there to keep coordinators busy, not the processors that it shares with them. So it sends what the API asks
//! for and no defaults, has what is the same in every call written once, and reads of replies only what it checks and needs.

use std::time::Duration;

use anyhow::{Context, ensure};
use redrive_shared::error::Problem;
use redrive_shared::failure::FailureClass;
use redrive_shared::failure::FailureSignal;
use redrive_shared::id::{Name, TaskId};
use redrive_shared::retry::{ClassPolicy, RetryPolicy, Strategy};
use redrive_shared::task::Nonce;
use redrive_shared::wire::{ClaimRequest, EnqueueStatus, Outcome, QueueCreate};
use redrive_worker::client::Client;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use tokio::task::JoinSet;

/// After this long, and as much more for each task, callers are given up: something is stuck.
const DEADLINE: Duration = Duration::from_secs(120);
const DEADLINE_PER_TASK: Duration = Duration::from_millis(1);

/// Waits until all callers are through; the first that fails ends the others.
pub(super) async fn finish<T: 'static>(
    mut callers: JoinSet<anyhow::Result<T>>,
    tasks: usize,
) -> anyhow::Result<Vec<T>> {
    let all = async {
        let mut ended = Vec::with_capacity(callers.len());
        while let Some(caller) = callers.join_next().await {
            ended.push(caller.context("a caller")??);
        }
        Ok(ended)
    };
    in_time(tasks, all).await
}

/// What takes longer than so many tasks may is given up.
pub(super) async fn in_time<T>(
    tasks: usize,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let deadline = DEADLINE + DEADLINE_PER_TASK * u32::try_from(tasks).unwrap_or(u32::MAX);
    tokio::time::timeout(deadline, work).await.with_context(|| format!("given up after {deadline:?}"))?
}

/// Retries are due at once: the cycle measures the machine, not the backoff.
pub(super) fn at_once() -> RetryPolicy {
    let at_once = Strategy::Fixed { delay_ms: 0 };
    let class = ClassPolicy { strategy: Some(at_once.clone()), ..ClassPolicy::default() };
    RetryPolicy {
        strategy: at_once,
        overrides: [(FailureClass::ServerError, class)].into(),
        ..RetryPolicy::default()
    }
}

/// What the first attempt fails with.
pub(super) fn failure() -> FailureSignal {
    FailureSignal {
        http_status: Some(500),
        body: Some(r#"{"error":{"message":"The server had an error","type":"server_error"}}"#.into()),
        ..FailureSignal::default()
    }
}

/// Makes a queue whose retries are due at once.
pub(super) async fn make_queue(client: &Client, name: &str) -> anyhow::Result<Name> {
    let queue = Name::new(name)?;
    client.put_queue(&queue, &QueueCreate::from(at_once())).await?;
    Ok(queue)
}

/// A JSON string of that many bytes.
pub(super) fn payload(bytes: usize) -> anyhow::Result<Box<RawValue>> {
    RawValue::from_string(format!("\"{}\"", "x".repeat(bytes.saturating_sub(2)))).context("a payload")
}

/// New tasks of one queue, all with the same payload.
#[derive(Serialize)]
pub(super) struct Batch<'a> {
    tasks: Vec<Fresh<'a>>,
}

#[derive(Serialize)]
struct Fresh<'a> {
    id: TaskId,
    queue: &'a Name,
    payload: &'a RawValue,
    delay_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dependency: Option<&'a Name>,
}

impl<'a> Batch<'a> {
    /// The same tasks, with a dependency.
    pub fn needing(mut self, dependency: Option<&'a Name>) -> Self {
        self.tasks.iter_mut().for_each(|task| task.dependency = dependency);
        self
    }
}

/// A batch of new tasks. `delay_ms` gives each its delay.
pub(super) fn batch<'a>(
    queue: &'a Name,
    payload: &'a RawValue,
    count: usize,
    delay_ms: impl Fn(usize) -> u64,
) -> Batch<'a> {
    let fresh = |place| {
        let (id, delay_ms) = (TaskId::generate(), delay_ms(place));
        Fresh { id, queue, payload, delay_ms, dependency: None }
    };
    Batch { tasks: (0..count).map(fresh).collect() }
}

/// The answers for a batch, one an item.
#[derive(Deserialize)]
struct Results<R> {
    results: Vec<R>,
}

/// What became of a new task, as far as it matters here.
#[derive(Deserialize)]
struct Taken {
    status: EnqueueStatus,
    error: Option<Problem>,
}

/// Enqueues a batch and checks that every task was taken.
pub(super) async fn enqueue(client: &Client, batch: &Batch<'_>) -> anyhow::Result<()> {
    let reply: Results<Taken> = client.post(&["v1", "tasks"], batch, 0).await?;
    ensure!(reply.results.len() == batch.tasks.len(), "not every task was answered");
    for Taken { status, error } in &reply.results {
        ensure!(*status == EnqueueStatus::Created, "a task was not taken: {status:?} {error:?}");
    }
    Ok(())
}

/// What a lease must be settled with, and what is measured of it.
#[derive(Deserialize)]
pub(super) struct Held {
    pub id: TaskId,
    epoch: i64,
    nonce: Nonce,
    attempt: u32,
    pub due_at_ms: i64,
}

#[derive(Deserialize)]
struct Claimed {
    leases: Vec<Held>,
}

pub(super) async fn claim(
    client: &Client,
    caller: usize,
    queue: &Name,
    max: usize,
    wait_ms: u64,
) -> anyhow::Result<Vec<Held>> {
    let request = ClaimRequest {
        agent: Name::new(format!("bench-{caller}"))?,
        boot_id: None,
        request_id: None,
        queues: vec![queue.clone()],
        max: u32::try_from(max)?,
        wait_ms,
        lease_ms: None,
        avoid: Vec::new(),
    };
    let reply: Claimed = client.post(&["v1", "claims"], &request, wait_ms).await?;
    Ok(reply.leases)
}

/// How leases ended.
#[derive(Serialize)]
pub(super) struct Settlements<'a> {
    settlements: Vec<Ended<'a>>,
}

#[derive(Serialize)]
struct Ended<'a> {
    id: &'a TaskId,
    epoch: i64,
    nonce: Nonce,
    outcome: &'a RawValue,
}

/// What became of a settlement, as far as it matters here.
#[derive(Deserialize)]
struct Settled {
    error: Option<Problem>,
}

/// The ways in which attempts end: either all succeed, or a task's first one fails and its later ones succeed.
pub(super) struct Outcomes {
    first_fails: bool,
    failed: Box<RawValue>,
    succeeded: Box<RawValue>,
}

impl Outcomes {
    pub fn new(first_fails: bool) -> anyhow::Result<Self> {
        let failed = to_raw_value(&Outcome::retry(failure()))?;
        Ok(Self { first_fails, failed, succeeded: to_raw_value(&Outcome::done(None))? })
    }

    fn fails(&self, lease: &Held) -> bool {
        self.first_fails && lease.attempt == 1
    }

    /// What is said of these leases.
    pub fn of<'a>(&'a self, leases: &'a [Held]) -> Settlements<'a> {
        let ended = leases.iter().map(|lease| {
            let outcome = if self.fails(lease) { &self.failed } else { &self.succeeded };
            Ended { id: &lease.id, epoch: lease.epoch, nonce: lease.nonce, outcome }
        });
        Settlements { settlements: ended.collect() }
    }

    /// How many of them succeed.
    pub fn successes(&self, leases: &[Held]) -> usize {
        leases.iter().filter(|lease| !self.fails(lease)).count()
    }
}

/// Settles leases: a first attempt fails, a later one succeeds. Returns how many succeeded.
pub(super) async fn settle(client: &Client, leases: &[Held], first_fails: bool) -> anyhow::Result<usize> {
    let outcomes = Outcomes::new(first_fails)?;
    let request = outcomes.of(leases);
    let reply: Results<Settled> = client.post(&["v1", "settlements"], &request, 0).await?;
    ensure!(reply.results.len() == leases.len(), "not every settlement was answered");
    for Settled { error } in &reply.results {
        ensure!(error.is_none(), "a settlement was refused: {error:?}");
    }
    Ok(outcomes.successes(leases))
}
