//! Asks for work while there is room for it, and begins what is given.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redrive_shared::breaker;
use redrive_shared::task::Lease;
use redrive_shared::wire::{ClaimRequest, ExtendRequest, LeaseRef, LeaseResult, Outcome, Settlement};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::held::Key;
use super::settler::Item;
use super::{Worker, executor, fresh_name};
use crate::backoff::Backoff;
use crate::breakers::{Room, Ticket};
use crate::context::Stop;
use crate::link::LinkError;
use crate::telemetry;

/// Delays between claims that fail.
const CLAIM_BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Delays between starts that fail: quick at first, for the lease is running out.
const START_BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// On shutdown: how long to ask for leases that were given while the claim was called off.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(2);

/// A lease that may begin.
pub(super) struct Admitted {
    pub(super) lease: Lease,
    pub(super) key: Key,
    pub(super) stop: Stop,
    pub(super) ticket: Ticket,
}

/// Claims until the worker is told to stop. Each batch runs as one task of `batches`.
pub(super) async fn run(
    worker: &Arc<Worker>,
    batches: &mut JoinSet<()>,
    settlements: &UnboundedSender<Item>,
) {
    let mut backoff = Backoff::new(CLAIM_BACKOFF.0, CLAIM_BACKOFF.1);
    // A claim whose reply may have been lost: it is repeated as it was, so that the leases it gave come to light.
    let mut unanswered: Option<ClaimRequest> = None;
    // An agent that was isolated before this start must take nothing.
    tokio::select! {
        () = worker.introduced.notified() => {}
        () = worker.shutdown.cancelled() => return,
    }
    while !worker.shutdown.is_cancelled() {
        while batches.try_join_next().is_some() {}
        let request = match unanswered.take() {
            Some(request) => request,
            None => tokio::select! {
                request = next_request(worker) => request,
                () = worker.shutdown.cancelled() => return,
            },
        };
        let reply = tokio::select! {
            biased;
            reply = worker.link.claim(&request) => reply,
            () = worker.shutdown.cancelled() => return recover(worker, request, settlements).await,
            // A person has isolated a breaker, or lets one take work again: the claim that waits knows nothing of it. What it
            // was given meanwhile comes to light as after a reply that was lost, and is handed back where it must not begin.
            () = worker.commanded.notified() => {
                unanswered = Some(ClaimRequest { wait_ms: 0, ..request });
                continue;
            }
        };
        match reply {
            Ok(reply) => {
                backoff.reset();
                begin(worker, &request, reply.leases, batches, settlements);
            }
            Err(error) => {
                let delay = backoff.next(error.retry_after());
                report_trouble(&error, delay);
                // The repeat finds what was given; it need not wait for more.
                unanswered = error.is_outcome_unknown().then_some(ClaimRequest { wait_ms: 0, ..request });
                tokio::select! {
                    () = tokio::time::sleep(delay) => {}
                    () = worker.shutdown.cancelled() => {}
                }
            }
        }
    }
    if let Some(request) = unanswered {
        recover(worker, request, settlements).await;
    }
}

fn report_trouble(error: &LinkError, delay: Duration) {
    telemetry::link_error("claim");
    let retry_in_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    tracing::warn!(%error, retry_in_ms, "no work could be claimed");
}

/// Waits until there is room, and makes the claim that fills it.
async fn next_request(worker: &Worker) -> ClaimRequest {
    loop {
        worker.publish_transitions();
        let now_ms = worker.clock.now_ms();
        let free = worker.held.free(worker.config.concurrency as usize);
        let room = worker.breakers().room(now_ms);
        match room {
            Room::Free if free > 0 => return claim_request(worker, free, now_ms),
            Room::Probe if free > 0 => return claim_request(worker, 1, now_ms),
            Room::Free | Room::Probe | Room::Shut { until_ms: None } => {
                tokio::select! {
                    () = worker.held.freed() => {}
                    () = worker.commanded.notified() => {}
                }
            }
            Room::Shut { until_ms: Some(until_ms) } => {
                tokio::select! {
                    () = worker.clock.sleep_until(until_ms) => {}
                    () = worker.held.freed() => {}
                    () = worker.commanded.notified() => {}
                }
            }
        }
    }
}

fn claim_request(worker: &Worker, max: usize, now_ms: i64) -> ClaimRequest {
    let config = &worker.config;
    let (avoid, until_ms) = worker.breakers().avoid(now_ms);
    // When a dependency may be probed again, the claim has to be made anew without avoiding it.
    let until_change_ms =
        until_ms.map_or(u64::MAX, |until_ms| until_ms.saturating_sub(now_ms).max(0).unsigned_abs());
    ClaimRequest {
        agent: config.agent.clone(),
        boot_id: Some(worker.boot_id.clone()),
        request_id: Some(fresh_name()),
        queues: config.queues.clone(),
        max: u32::try_from(max).unwrap_or(u32::MAX),
        wait_ms: config.wait_ms.min(until_change_ms),
        lease_ms: config.lease_ms,
        avoid,
    }
}

/// The worker stops, and a claim was called off or never answered. Leases that it may have given all the same would be
/// held by nobody until they end: the same claim is made again, and what it gives is handed back.
async fn recover(worker: &Worker, request: ClaimRequest, settlements: &UnboundedSender<Item>) {
    let request = ClaimRequest { wait_ms: 0, ..request };
    match tokio::time::timeout(RECOVERY_TIMEOUT, worker.link.claim(&request)).await {
        Ok(Ok(reply)) => {
            worker.tally.claimed.fetch_add(reply.leases.len() as u64, Ordering::Relaxed);
            reply.leases.iter().for_each(|lease| release(worker, lease, None, settlements));
        }
        Ok(Err(error)) => tracing::debug!(%error, "the last claim stays unanswered"),
        Err(_) => tracing::debug!("the last claim stays unanswered"),
    }
}

/// Takes the slots and the breakers' leave at once, before the next claim counts what is free; the rest goes on beside
/// the claims.
fn begin(
    worker: &Arc<Worker>,
    request: &ClaimRequest,
    leases: Vec<Lease>,
    batches: &mut JoinSet<()>,
    settlements: &UnboundedSender<Item>,
) {
    if leases.is_empty() {
        return;
    }
    worker.tally.claimed.fetch_add(leases.len() as u64, Ordering::Relaxed);
    let (now_ms, received) = (worker.clock.now_ms(), Instant::now());
    let mut admitted = Vec::with_capacity(leases.len());
    for lease in leases {
        let fits = admitted.len() < request.max as usize;
        let ticket = if fits { worker.breakers().admit(lease.dependency.as_ref(), now_ms) } else { None };
        match ticket {
            Some(ticket) => {
                let (key, stop) = worker.held.add(&lease, received);
                admitted.push(Admitted { lease, key, stop, ticket });
            }
            None => release(worker, &lease, None, settlements),
        }
    }
    if !admitted.is_empty() {
        telemetry::in_flight(worker.held.busy());
        batches.spawn(run_batch(Arc::clone(worker), admitted, settlements.clone()));
    }
}

/// One batch from its start to its end. Dropping it ends its handlers.
async fn run_batch(worker: Arc<Worker>, admitted: Vec<Admitted>, settlements: UnboundedSender<Item>) {
    let (mut running, mut keys) = (JoinSet::new(), HashMap::new());
    for task in start(&worker, admitted, &settlements).await {
        // A breaker may have opened, or a stop been asked for, while the start was under way.
        if !worker.shutdown.is_cancelled() && worker.breakers().still_admits(&task.ticket) {
            let key = task.key;
            let execution = executor::execute(Arc::clone(&worker), task, settlements.clone());
            keys.insert(running.spawn(execution).id(), key);
        } else {
            hand_back(&worker, task, &settlements);
        }
    }
    while let Some(ended) = running.join_next_with_id().await {
        // Handlers' panics are caught further in, so this is a defect; the slot must not be lost to it.
        if let Err(error) = ended {
            tracing::error!(%error, "an executor ended unexpectedly: its lease will expire");
            keys.get(&error.id()).into_iter().for_each(|key| worker.held.remove(*key));
        }
    }
}

/// Starts the leases in one call, repeated until it is answered, the leases run out, or the worker stops.
async fn start(
    worker: &Worker,
    admitted: Vec<Admitted>,
    settlements: &UnboundedSender<Item>,
) -> Vec<Admitted> {
    let leases = admitted.iter().map(|task| lease_ref(&task.lease)).collect();
    // What was pushed, the coordinator claimed: from here on it is this worker's.
    let me = worker.link.is_pushed().then(|| (worker.config.agent.clone(), worker.boot_id.clone()));
    let (agent, boot_id) = me.unzip();
    let request = ExtendRequest { leases, lease_ms: worker.config.lease_ms, agent, boot_id };
    let mut backoff = Backoff::new(START_BACKOFF.0, START_BACKOFF.1);
    loop {
        if worker.shutdown.is_cancelled() {
            admitted.into_iter().for_each(|task| hand_back(worker, task, settlements));
            return Vec::new();
        }
        let sent = Instant::now();
        match worker.link.start(&request).await {
            Ok(reply) => return started(worker, admitted, sent, reply.results),
            Err(error) => {
                telemetry::link_error("start");
                tracing::warn!(%error, leases = request.leases.len(), "leases could not be started");
                let may_retry =
                    error.is_retryable() && admitted.iter().any(|task| is_valid(worker, task.key));
                if !may_retry {
                    admitted.into_iter().for_each(|task| forget(worker, task));
                    return Vec::new();
                }
                tokio::select! {
                    () = tokio::time::sleep(backoff.next(error.retry_after())) => {}
                    () = worker.shutdown.cancelled() => {}
                }
            }
        }
    }
}

fn is_valid(worker: &Worker, key: Key) -> bool {
    worker.held.stop_at(key).is_some_and(|stop_at| stop_at > Instant::now())
}

/// Keeps what was started and forgets what was not.
fn started(
    worker: &Worker,
    admitted: Vec<Admitted>,
    sent: Instant,
    results: Vec<LeaseResult>,
) -> Vec<Admitted> {
    let mut results = results.into_iter();
    let mut running = Vec::with_capacity(admitted.len());
    for task in admitted {
        match results.next() {
            Some(LeaseResult { error: None, lease_until_ms, .. }) => {
                let length = Duration::from_millis(task.lease.lease_ms);
                worker.held.started(task.key, sent, length, lease_until_ms);
                running.push(task);
            }
            Some(LeaseResult { error: Some(problem), .. }) => {
                tracing::info!(task = %task.lease.id, %problem, "a lease was over before it began");
                forget(worker, task);
            }
            None => forget(worker, task),
        }
    }
    running
}

/// The lease is not ours: nothing is said about it.
fn forget(worker: &Worker, task: Admitted) {
    worker.report(task.ticket, breaker::Outcome::Ignored);
    worker.held.remove(task.key);
}

/// The lease is ours and its work was not begun.
fn hand_back(worker: &Worker, task: Admitted, settlements: &UnboundedSender<Item>) {
    worker.report(task.ticket, breaker::Outcome::Ignored);
    worker.held.settling(task.key);
    release(worker, &task.lease, Some(task.key), settlements);
}

fn release(worker: &Worker, lease: &Lease, key: Option<Key>, settlements: &UnboundedSender<Item>) {
    let LeaseRef { id, epoch, nonce } = lease_ref(lease);
    let settlement = Settlement { id, epoch, nonce, outcome: Outcome::release() };
    worker.settle(settlements, Item::new(key, settlement));
}

fn lease_ref(lease: &Lease) -> LeaseRef {
    LeaseRef { id: lease.id.clone(), epoch: lease.epoch, nonce: lease.nonce }
}
