//! A link that records what it is told and fails on demand.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::id::Name;
use redrive_shared::task::{Lease, TaskState};
use redrive_shared::wire::{
    BreakerCommand, ClaimReply, ClaimRequest, ExtendReply, ExtendRequest, Heartbeat, HeartbeatReply,
    LeaseRef, LeaseResult, Outcome, SettleReply, SettleRequest, SettleResult, WorkerLost,
};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::Instant;

use crate::context::tests::fake::FakeAttempts;
use crate::link::{AttemptLink, Link, LinkError};

#[derive(Debug)]
pub(super) enum Event {
    Claim(ClaimRequest),
    Start(ExtendRequest),
    Heartbeat(Heartbeat),
    Settle(SettleRequest),
    Presence,
}

/// What happens to one call.
pub(super) enum Fault {
    /// It does not arrive.
    Unreachable,
    /// It is carried out and the answer is lost.
    ReplyLost,
    /// It is refused as a whole.
    Refused(ErrorCode),
    /// There is too much to do: to be asked again after so many milliseconds.
    Busy(u64),
}

#[derive(Default)]
struct State {
    work: VecDeque<Lease>,
    replays: HashMap<Name, Vec<Lease>>,
    claim_faults: VecDeque<Fault>,
    start_faults: VecDeque<Fault>,
    settle_faults: VecDeque<Fault>,
    deaf_to_heartbeats: bool,
    lease_ms: Option<i64>,
    lost: Vec<String>,
    cancelled: Vec<String>,
    refused_outcomes: HashMap<String, ErrorCode>,
    breaking_presence: u32,
    commands: Vec<BreakerCommand>,
    vanished: Vec<WorkerLost>,
}

pub(super) struct FakeLink {
    began: Instant,
    state: Mutex<State>,
    arrived: Notify,
    /// What attempts ask for.
    pub(super) attempts: Arc<FakeAttempts>,
    /// Permits for calls to `settle`.
    pub(super) settle_gate: Semaphore,
    events: mpsc::UnboundedSender<Event>,
}

impl FakeLink {
    pub(super) fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Event>) {
        let (events, receiver) = mpsc::unbounded_channel();
        let settle_gate = Semaphore::new(10_000);
        let link = Self {
            began: Instant::now(),
            state: Mutex::default(),
            arrived: Notify::new(),
            attempts: FakeAttempts::new(),
            settle_gate,
            events,
        };
        (Arc::new(link), receiver)
    }

    pub(super) fn give(&self, leases: impl IntoIterator<Item = Lease>) {
        self.state.lock().unwrap().work.extend(leases);
        self.arrived.notify_one();
    }

    pub(super) fn fail_claims(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state.lock().unwrap().claim_faults.extend(faults);
    }

    pub(super) fn fail_starts(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state.lock().unwrap().start_faults.extend(faults);
    }

    pub(super) fn fail_settlements(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state.lock().unwrap().settle_faults.extend(faults);
    }

    pub(super) fn ignore_heartbeats(&self) {
        self.state.lock().unwrap().deaf_to_heartbeats = true;
    }

    /// Starts and heartbeats extend by this much when they do not say: the queue's policy.
    pub(super) fn extend_by_ms(&self, lease_ms: i64) {
        self.state.lock().unwrap().lease_ms = Some(lease_ms);
    }

    /// From now on that task's lease is stale.
    pub(super) fn lose(&self, id: &str) {
        self.state.lock().unwrap().lost.push(id.to_owned());
    }

    pub(super) fn cancel(&self, id: &str) {
        self.state.lock().unwrap().cancelled.push(id.to_owned());
    }

    /// Refuses what is said of that task once.
    pub(super) fn refuse_outcome(&self, id: &str, code: ErrorCode) {
        self.state.lock().unwrap().refused_outcomes.insert(id.to_owned(), code);
    }

    /// Hands these out with the next heartbeat's reply, and with all after it.
    pub(super) fn command(&self, commands: impl IntoIterator<Item = BreakerCommand>) {
        self.state.lock().unwrap().commands = commands.into_iter().collect();
    }

    /// Tells of these with the next heartbeat's reply, and with all after it.
    pub(super) fn tell_of(&self, lost: impl IntoIterator<Item = WorkerLost>) {
        self.state.lock().unwrap().vanished = lost.into_iter().collect();
    }

    pub(super) fn break_presence(&self, times: u32) {
        self.state.lock().unwrap().breaking_presence = times;
    }

    fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }

    fn extend(&self, leases: &[LeaseRef], lease_ms: Option<i64>) -> Vec<LeaseResult> {
        let state = self.state.lock().unwrap();
        let until_ms =
            lease_ms.or(state.lease_ms).unwrap_or(30_000) + self.began.elapsed().as_millis() as i64;
        let one = |lease: &LeaseRef| {
            let over = state.lost.iter().chain(&state.cancelled);
            let stale = over.into_iter().any(|id| *id == *lease.id);
            let error = stale.then(|| Problem::new(ErrorCode::StaleEpoch, "somebody else has it"));
            LeaseResult { id: lease.id.clone(), lease_until_ms: Some(until_ms).filter(|_| !stale), error }
        };
        leases.iter().map(one).collect()
    }

    fn take_work(&self, max: u32) -> Vec<Lease> {
        let work = &mut self.state.lock().unwrap().work;
        let count = work.len().min(max as usize);
        work.drain(..count).collect()
    }
}

fn lost_on_the_way(outcome_unknown: bool) -> LinkError {
    LinkError::NoAnswer { text: "no answer".to_owned(), retry_after: None, outcome_unknown }
}

fn fault_error(fault: &Fault) -> LinkError {
    match fault {
        Fault::Unreachable => lost_on_the_way(false),
        Fault::ReplyLost => lost_on_the_way(true),
        Fault::Busy(after_ms) => {
            let problem = Problem::new(ErrorCode::Overloaded, "on demand").retry_after_ms(*after_ms);
            LinkError::Refused(Box::new(problem))
        }
        Fault::Refused(code) => LinkError::Refused(Box::new(Problem::new(*code, "on demand"))),
    }
}

#[async_trait]
impl Link for FakeLink {
    async fn claim(&self, request: &ClaimRequest) -> Result<ClaimReply, LinkError> {
        self.tell(Event::Claim(request.clone()));
        let fault = self.state.lock().unwrap().claim_faults.pop_front();
        let id = request.request_id.clone().unwrap();
        match fault {
            Some(Fault::ReplyLost) => {
                let leases = self.take_work(request.max);
                self.state.lock().unwrap().replays.insert(id, leases);
                return Err(lost_on_the_way(true));
            }
            Some(fault) => return Err(fault_error(&fault)),
            None => {}
        }
        if let Some(leases) = self.state.lock().unwrap().replays.remove(&id) {
            return Ok(ClaimReply { leases });
        }
        let give_up = tokio::time::sleep(Duration::from_millis(request.wait_ms));
        tokio::pin!(give_up);
        loop {
            let leases = self.take_work(request.max);
            if !leases.is_empty() {
                return Ok(ClaimReply { leases });
            }
            tokio::select! {
                () = self.arrived.notified() => {}
                () = &mut give_up => return Ok(ClaimReply { leases }),
            }
        }
    }

    async fn start(&self, request: &ExtendRequest) -> Result<ExtendReply, LinkError> {
        self.tell(Event::Start(request.clone()));
        if let Some(fault) = self.state.lock().unwrap().start_faults.pop_front() {
            return Err(fault_error(&fault));
        }
        Ok(ExtendReply { results: self.extend(&request.leases, request.lease_ms.map(|ms| ms as i64)) })
    }

    async fn heartbeat(&self, request: &Heartbeat) -> Result<HeartbeatReply, LinkError> {
        self.tell(Event::Heartbeat(request.clone()));
        let leases = self.extend(&request.leases, None);
        let state = self.state.lock().unwrap();
        if state.deaf_to_heartbeats {
            return Err(lost_on_the_way(true));
        }
        let known = request.leases.iter().map(|lease| lease.id.clone());
        let cancelled = known.filter(|id| state.cancelled.iter().any(|other| **other == **id)).collect();
        let breaker_commands = state.commands.clone();
        Ok(HeartbeatReply {
            leases,
            cancelled,
            next_ms: 5_000,
            breaker_commands,
            lost: state.vanished.clone(),
        })
    }

    async fn settle(&self, request: &SettleRequest) -> Result<SettleReply, LinkError> {
        self.tell(Event::Settle(request.clone()));
        self.settle_gate.acquire().await.unwrap().forget();
        let mut state = self.state.lock().unwrap();
        if let Some(fault) = state.settle_faults.pop_front() {
            return Err(fault_error(&fault));
        }
        let mut results = Vec::new();
        for settlement in &request.settlements {
            let id = settlement.id.clone();
            let stale = state.lost.iter().any(|lost| **lost == *id).then_some(ErrorCode::StaleEpoch);
            let no_blob = match &settlement.outcome {
                Outcome::Done { result_ref: Some(blob), .. } => {
                    (!self.attempts.state().blobs.contains_key(&blob.blob)).then_some(ErrorCode::UnknownBlob)
                }
                _ => None,
            };
            let code = stale.or_else(|| state.refused_outcomes.remove(id.as_str())).or(no_blob);
            let error = code.map(|code| Problem::new(code, "on demand"));
            let state = Some(TaskState::Succeeded).filter(|_| error.is_none());
            results.push(SettleResult { id, state, due_at_ms: None, repeated: false, error });
        }
        Ok(SettleReply { results })
    }

    async fn presence(&self, _agent: &Name, _boot_id: &Name) -> Result<(), LinkError> {
        self.tell(Event::Presence);
        let breaks = {
            let mut state = self.state.lock().unwrap();
            let breaks = state.breaking_presence > 0;
            state.breaking_presence = state.breaking_presence.saturating_sub(1);
            breaks
        };
        if breaks { Err(lost_on_the_way(false)) } else { std::future::pending().await }
    }

    fn attempts(&self) -> Arc<dyn AttemptLink> {
        Arc::clone(&self.attempts) as Arc<dyn AttemptLink>
    }
}
