//! What the measurements share: queues, tasks, and callers that work at once.

use std::time::Duration;

use anyhow::{Context, bail};
use redrive_shared::failure::FailureClass;
use redrive_shared::failure::FailureSignal;
use redrive_shared::id::{Name, TaskId};
use redrive_shared::retry::{ClassPolicy, RetryPolicy, Strategy};
use redrive_shared::task::Lease;
use redrive_shared::wire::{
    ClaimRequest, EnqueueRequest, EnqueueStatus, NewTask, Outcome, QueueCreate, SettleRequest, Settlement,
};
use redrive_worker::client::Client;
use serde_json::value::RawValue;
use tokio::task::JoinSet;

/// After this long, and as much more for each task, callers are given up: something is stuck.
const DEADLINE: Duration = Duration::from_secs(120);
const DEADLINE_PER_TASK: Duration = Duration::from_millis(1);

/// Waits until all callers are through; the first that fails ends the others.
pub(super) async fn finish<T: 'static>(
    mut callers: JoinSet<anyhow::Result<T>>,
    tasks: usize,
) -> anyhow::Result<Vec<T>> {
    let deadline = DEADLINE + DEADLINE_PER_TASK * u32::try_from(tasks).unwrap_or(u32::MAX);
    let all = async {
        let mut ended = Vec::with_capacity(callers.len());
        while let Some(caller) = callers.join_next().await {
            ended.push(caller.context("a caller")??);
        }
        Ok(ended)
    };
    tokio::time::timeout(deadline, all).await.with_context(|| format!("given up after {deadline:?}"))?
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
    client.put_queue(&queue, &QueueCreate { policy: at_once() }).await?;
    Ok(queue)
}

/// A JSON string of that many bytes.
pub(super) fn payload(bytes: usize) -> anyhow::Result<Box<RawValue>> {
    RawValue::from_string(format!("\"{}\"", "x".repeat(bytes.saturating_sub(2)))).context("a payload")
}

/// A batch of new tasks. `delay_ms` gives each its delay.
pub(super) fn batch(
    queue: &Name,
    payload: &RawValue,
    count: usize,
    delay_ms: impl Fn(usize) -> u64,
) -> EnqueueRequest {
    let tasks = (0..count).map(|place| NewTask {
        id: Some(TaskId::generate()),
        queue: Some(queue.clone()),
        payload: Some(payload.to_owned()),
        delay_ms: Some(delay_ms(place)),
        ..NewTask::default()
    });
    EnqueueRequest { tasks: tasks.collect() }
}

/// Enqueues a batch and checks that every task was taken; returns when each is due.
pub(super) async fn enqueue(client: &Client, request: &EnqueueRequest) -> anyhow::Result<Vec<i64>> {
    let reply = client.enqueue(request).await?;
    if let Some(refused) = reply.results.iter().find(|result| result.status != EnqueueStatus::Created) {
        bail!("a task was not taken: {refused:?}");
    }
    Ok(reply.results.iter().filter_map(|result| result.due_at_ms).collect())
}

pub(super) async fn claim(
    client: &Client,
    caller: usize,
    queue: &Name,
    max: usize,
    wait_ms: u64,
) -> anyhow::Result<Vec<Lease>> {
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
    Ok(client.claim(&request).await?.leases)
}

/// Settles leases: a first attempt fails, a later one succeeds. Returns how many succeeded.
pub(super) async fn settle(client: &Client, leases: Vec<Lease>, first_fails: bool) -> anyhow::Result<usize> {
    let mut done = 0;
    let settlements = leases
        .into_iter()
        .map(|lease| {
            let outcome = if first_fails && lease.attempt == 1 {
                Outcome::Retry { failure: failure() }
            } else {
                done += 1;
                Outcome::Done { result: None }
            };
            Settlement { id: lease.id, epoch: lease.epoch, nonce: lease.nonce, outcome }
        })
        .collect();
    let reply = client.settle(&SettleRequest { settlements }).await?;
    if let Some(refused) = reply.results.iter().find(|result| result.error.is_some()) {
        bail!("a settlement was refused: {refused:?}");
    }
    Ok(done)
}
