//! Two small customers beside the load: one that measures when the queue works again, and one that ignores the end of its
//! lease.

use std::time::Duration;

use redrive_shared::error::ErrorCode;
use redrive_shared::failure::FailureSignal;
use redrive_shared::id::{Name, TaskId};
use redrive_shared::task::{Lease, TaskState};
use redrive_shared::wire::{
    ClaimRequest, EnqueueRequest, ExtendRequest, LeaseRef, NewTask, Outcome, SettleRequest, SettleResult,
    Settlement,
};
use redrive_worker::client::{Client, ClientError};

use crate::support::wait::eventually;
use crate::support::{id, name};

/// Far longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(60);
/// For one round of the probe: what hangs is tried again.
const ROUND: Duration = Duration::from_secs(3);
/// Between two tries of what failed.
const PAUSE: Duration = Duration::from_millis(20);
/// In one enqueue, so that every shard has some.
const TASKS: usize = 48;
/// Lease of those who ignore its end.
const RUDE_LEASE_MS: u64 = 1_000;

fn claim_of(queue: &Name, agent: &str, lease_ms: u64) -> ClaimRequest {
    ClaimRequest {
        agent: name(agent),
        boot_id: None,
        request_id: None,
        queues: vec![queue.clone()],
        max: 100,
        wait_ms: 500,
        lease_ms: Some(lease_ms),
        avoid: Vec::new(),
    }
}

fn new_task(id: TaskId, queue: &Name) -> NewTask {
    NewTask { id: Some(id), queue: Some(queue.clone()), ..NewTask::default() }
}

pub fn settlement(lease: &Lease, outcome: Outcome) -> Settlement {
    Settlement { id: lease.id.clone(), epoch: lease.epoch, nonce: lease.nonce, outcome }
}

fn done(leases: &[Lease]) -> SettleRequest {
    let settlements = leases.iter().map(|lease| settlement(lease, Outcome::done(None)));
    SettleRequest { settlements: settlements.collect() }
}

/// Goes on until tasks were enqueued on every shard, and some were claimed and settled.
pub async fn until_it_works(client: &Client, number: usize) {
    let mut round = 0;
    eventually("an enqueue, a claim and a settlement succeed", PATIENCE, async || {
        round += 1;
        let prefix = format!("probe-{number}-{round}");
        let asked = tokio::time::timeout(ROUND, work_once(client, &prefix)).await;
        matches!(asked, Ok(Ok(true))).then_some(())
    })
    .await;
}

async fn work_once(client: &Client, prefix: &str) -> Result<bool, ClientError> {
    let queue = name("probe");
    let tasks = (0..TASKS).map(|n| new_task(id(&format!("{prefix}-{n}")), &queue)).collect();
    client.enqueue(&EnqueueRequest { tasks }).await?;
    let leases = client.claim(&claim_of(&queue, "probe", 10_000)).await?.leases;
    if leases.is_empty() {
        return Ok(false);
    }
    let settled = client.settle(&done(&leases)).await?;
    Ok(settled.results.iter().all(|result| result.error.is_none()))
}

/// A lease that was taken and begun before a fault, and is settled long after its end.
pub struct Rude {
    queue: Name,
    lease: Lease,
}

impl Rude {
    /// Takes a lease, whatever it takes.
    pub async fn take(client: &Client, number: usize) -> Self {
        let (queue, id) = (name(&format!("rude-{number}")), id(&format!("rude-{number}")));
        let (lease, _) = eventually("a lease is taken and begun", PATIENCE, async || {
            let tasks = vec![new_task(id.clone(), &queue)];
            client.enqueue(&EnqueueRequest { tasks }).await.ok()?;
            let claim = claim_of(&queue, "rude", RUDE_LEASE_MS);
            let lease = client.claim(&claim).await.ok()?.leases.pop()?;
            let reference = LeaseRef { id: lease.id.clone(), epoch: lease.epoch, nonce: lease.nonce };
            let leases = vec![reference];
            let start = ExtendRequest { leases, lease_ms: Some(RUDE_LEASE_MS), agent: None, boot_id: None };
            client.extend(&start).await.ok()?.results[0].error.is_none().then_some(lease)
        })
        .await;
        Self { queue, lease }
    }

    /// Lets somebody else do its task, then settles it all the same. An error says what went wrong.
    pub async fn come_late(self, client: Client) -> Result<(), String> {
        let Self { queue, lease } = self;
        let outlived = async {
            while !matches!(do_by_another(&client, &queue, &lease.id).await, Ok(true)) {
                tokio::time::sleep(PAUSE).await;
            }
        };
        if tokio::time::timeout(PATIENCE, outlived).await.is_err() {
            return Err(format!("{} is not done by another, {PATIENCE:?} after its lease", lease.id));
        }
        let late = settlement(&lease, Outcome::dead(FailureSignal::default()));
        let result = settle_until_answered(&client, late).await;
        match &result.error {
            Some(problem) if problem.code == ErrorCode::StaleEpoch => Ok(()),
            _ => Err(format!("a settlement under a lease that was over was not refused: {result:?}")),
        }
    }
}

/// Whether the task is done now.
async fn do_by_another(client: &Client, queue: &Name, id: &TaskId) -> Result<bool, ClientError> {
    let leases = client.claim(&claim_of(queue, "heir", 10_000)).await?.leases;
    if !leases.is_empty() {
        client.settle(&done(&leases)).await?;
    }
    Ok(client.task(id, None).await?.state == TaskState::Succeeded)
}

/// Says it again until there is an answer.
pub async fn settle_until_answered(client: &Client, settlement: Settlement) -> SettleResult {
    let request = SettleRequest { settlements: vec![settlement] };
    let asking = async {
        loop {
            if let Some(result) = client.settle(&request).await.ok().and_then(|mut reply| reply.results.pop())
            {
                return result;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("a settlement is answered")
}

/// A lease of ten seconds and more on a task of its own.
pub async fn take_long_lease(client: &Client, number: usize) -> Lease {
    let (queue, id) = (name(&format!("settled-{number}")), id(&format!("settled-{number}")));
    let (lease, _) = eventually("a lease is taken", PATIENCE, async || {
        client.enqueue(&EnqueueRequest { tasks: vec![new_task(id.clone(), &queue)] }).await.ok()?;
        client.claim(&claim_of(&queue, "settler", 30_000)).await.ok()?.leases.pop()
    })
    .await;
    lease
}
