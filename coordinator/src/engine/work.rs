//! Work goes out and comes back: claims, extensions, settlements, heartbeats, reports.

use redrive_shared::blob::Content;
use redrive_shared::cost::Cost;
use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::failure::FailureClass;
use redrive_shared::gate::{Signal, Standing};
use redrive_shared::id::TaskId;
use redrive_shared::lifecycle::Fence;
use redrive_shared::limits::{AGENT_DEAD_AFTER_MS, HEARTBEAT_INTERVAL_MS};
use redrive_shared::task::TaskState;
use redrive_shared::wire::{
    ClaimReply, ClaimRequest, ExtendReply, ExtendRequest, Heartbeat, HeartbeatReply, LeaseRef, LeaseResult,
    Outcome, Report, ReportsRequest, SettleReply, SettleRequest, SettleResult, Settlement,
};

use super::judge;
use super::references::Reference;
use super::told::{Calls, Told};
use super::{Engine, Result, check, gates, unavailable};
use crate::metrics::{StaleVerb, record_claimed, record_reported, record_stale};
use crate::store::{Claim, Ending, Extend, Extended, Settle, Settled};

impl Engine {
    /// Leases what is due; waits for it if the caller wants to.
    pub async fn claim(&self, request: ClaimRequest) -> Result<ClaimReply> {
        check::claim(&request)?;
        self.require_queues(request.queues.iter()).await?;
        let wait_ms = request.wait_ms;
        let claim = Claim {
            agent: request.agent,
            boot_id: request.boot_id,
            request_id: request.request_id,
            queues: request.queues,
            max: request.max as usize,
            lease_ms: request.lease_ms,
            avoid: request.avoid,
        };
        let leases = self.dispatcher.claim(claim, wait_ms).await?;
        record_claimed(&leases, self.clock.now_ms());
        Ok(ClaimReply { leases })
    }

    /// Starts leases or makes them longer.
    pub async fn extend(&self, request: ExtendRequest) -> Result<ExtendReply> {
        check::batch("leases", request.leases.len())?;
        check::lease(request.lease_ms)?;
        let run = check::run(request.agent, request.boot_id)?;
        let ids: Vec<TaskId> = request.leases.iter().map(|lease| lease.id.clone()).collect();
        let batch = request
            .leases
            .into_iter()
            .map(|lease| Extend {
                id: lease.id,
                fence: Fence { epoch: lease.epoch, nonce: lease.nonce },
                lease_ms: request.lease_ms,
                run: run.clone(),
            })
            .collect();
        let outcomes = self.store.extend(batch).await.map_err(unavailable)?;
        Ok(ExtendReply {
            results: ids
                .into_iter()
                .zip(outcomes)
                .map(|(id, one)| extended(StaleVerb::Extend, id, one))
                .collect(),
        })
    }

    /// Ends attempts. What is wrong with one settlement does not hold up the others.
    pub async fn settle(&self, request: SettleRequest) -> Result<SettleReply> {
        check::batch("settlements", request.settlements.len())?;
        let now_ms = self.clock.now_ms();
        let mut results: Vec<Option<SettleResult>> = vec![None; request.settlements.len()];
        let count = request.settlements.len();
        let (mut batch, mut places) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let references = request.settlements.iter().enumerate().filter_map(reference).collect();
        let mut wrong = self.refused_references(references).await;
        let (mut judge, standing) = (judge::Batch::at(now_ms), self.standing());
        for (place, settlement) in request.settlements.into_iter().enumerate() {
            let wrong = wrong.remove(&place).map(|problem| problem.at("outcome.done.result_ref"));
            match check::outcome(&settlement.outcome).and_then(|()| wrong.map_or(Ok(()), Err)) {
                Ok(()) => {
                    batch.push(judged(settlement, &mut judge, standing.clone()));
                    places.push(place);
                }
                Err(problem) => {
                    let at = format!("settlements[{place}].{}", problem.at.clone().unwrap_or_default());
                    results[place] = Some(refused(settlement.id, problem.at(at)));
                }
            }
        }
        if !batch.is_empty() {
            for (place, result) in places.into_iter().zip(self.settle_judged(batch).await?) {
                results[place] = Some(result);
            }
        }
        Ok(SettleReply { results: results.into_iter().flatten().collect() })
    }

    /// Notes that tasks were given back to where they came from.
    pub(crate) async fn hand_off(&self, leases: &[LeaseRef]) -> Result<Vec<SettleResult>> {
        self.end(leases, &Ending::HandedOff).await
    }

    /// Takes leases back that reached no worker.
    pub(crate) async fn take_back(&self, leases: &[LeaseRef]) -> Result<Vec<SettleResult>> {
        self.end(leases, &Ending::Undelivered).await
    }

    /// Ends leases of the coordinator's own, all alike.
    async fn end(&self, leases: &[LeaseRef], ending: &Ending) -> Result<Vec<SettleResult>> {
        let standing = self.standing();
        let batch = leases.iter().map(|lease| {
            let fence = Fence { epoch: lease.epoch, nonce: lease.nonce };
            Settle { standing: standing.clone(), ..Settle::new(lease.id.clone(), fence, ending.clone()) }
        });
        self.settle_judged(batch.collect()).await
    }

    /// Settles, and tells everyone what that changed.
    async fn settle_judged(&self, batch: Vec<Settle>) -> Result<Vec<SettleResult>> {
        let sent: Vec<Sent> = batch.iter().map(Sent::of).collect();
        let outcomes = self.store.settle(batch).await.map_err(unavailable)?;
        let (mut told, mut gates) = (Told::default(), self.gates.told());
        let mut results = Vec::with_capacity(sent.len());
        for (sent, outcome) in sent.into_iter().zip(outcomes) {
            gates::tell(&mut gates, sent.signal, sent.epoch, &outcome);
            self.tell_gates_of_cost(&mut gates, sent.cost, &outcome);
            called(&sent, &outcome, &mut told);
            results.push(settled(sent.id, sent.labels, outcome, &mut told));
        }
        // Before anyone is woken to claim more.
        self.gates.hear(gates);
        self.tell(&told);
        Ok(results)
    }

    /// An agent is alive: its leases are extended, and it hears which of them are over.
    pub async fn heartbeat(&self, beat: Heartbeat) -> Result<HeartbeatReply> {
        check::heartbeat(&beat)?;
        let ids: Vec<TaskId> = beat.leases.iter().map(|lease| lease.id.clone()).collect();
        let pushed = beat.pushed;
        let beaten = self.store.heartbeat(beat).await.map_err(unavailable)?;
        if pushed {
            self.taker_heard.notify_waiters();
        }
        let silent_at_ms = self.clock.now_ms().saturating_add_unsigned(AGENT_DEAD_AFTER_MS) + 1;
        self.reaper.set_earlier(silent_at_ms);
        let cancelled = ids
            .iter()
            .zip(&beaten.leases)
            .filter(|(_, one)| **one == Extended::Stale(TaskState::Cancelled))
            .map(|(id, _)| id.clone())
            .collect();
        let leases = ids.into_iter().zip(beaten.leases);
        let leases = leases.map(|(id, one)| extended(StaleVerb::Heartbeat, id, one)).collect();
        Ok(HeartbeatReply {
            leases,
            cancelled,
            next_ms: HEARTBEAT_INTERVAL_MS,
            breaker_commands: beaten.commands,
            lost: beaten.lost,
        })
    }

    /// Counts the first attempts that a client made itself.
    pub fn report(&self, request: &ReportsRequest) -> Result<()> {
        check::batch("reports", request.reports.len())?;
        for (place, report) in request.reports.iter().enumerate() {
            if report.failures > report.attempts {
                let detail = format!("{} failures among {} attempts", report.failures, report.attempts);
                let at = format!("reports[{place}].failures");
                return Err(Problem::new(ErrorCode::InvalidValue, detail).at(at));
            }
        }
        for report in &request.reports {
            record_reported(self.labels.label(&report.dependency), report);
            let Report { dependency, attempts, failures } = report;
            self.gates.count_firsts(dependency, &request.agent, *attempts, *failures);
        }
        Ok(())
    }
}

/// The blob that a settlement makes the task's result.
fn reference((place, settlement): (usize, &Settlement)) -> Option<Reference> {
    match &settlement.outcome {
        Outcome::Done { result_ref: Some(blob), .. } => {
            Some(Reference { place, id: settlement.id.clone(), blob: *blob })
        }
        Outcome::Done { .. }
        | Outcome::Retry { .. }
        | Outcome::Snooze { .. }
        | Outcome::Dead { .. }
        | Outcome::Escalate { .. }
        | Outcome::Release { .. } => None,
    }
}

/// What is remembered of a settlement while the store has it.
struct Sent {
    id: TaskId,
    epoch: i64,
    labels: Labels,
    signal: Option<Signal>,
    /// Whether it was a call, and what that cost.
    called: bool,
    cost: Cost,
}

impl Sent {
    fn of(settle: &Settle) -> Self {
        let ending = &settle.ending;
        Self {
            id: settle.id.clone(),
            epoch: settle.fence.epoch,
            labels: Labels::of(ending),
            signal: gates::signal(ending),
            called: ending.ended().is_call(),
            cost: settle.cost,
        }
    }
}

/// An ending as metrics name it.
#[derive(Clone, Copy)]
struct Labels {
    outcome: &'static str,
    class: Option<FailureClass>,
}

impl Labels {
    fn of(ending: &Ending) -> Self {
        Self { outcome: outcome_name(ending), class: ending.failure().map(|failure| failure.class) }
    }
}

fn called(sent: &Sent, outcome: &Settled, told: &mut Told) {
    let Settled::Applied { queue, dependency, retried, .. } = outcome else { return };
    // What was no call, or was not brought to its end, may have cost something all the same.
    if sent.called || !sent.cost.is_zero() {
        let tasks = u32::from(sent.called && !retried);
        let calls = Calls { attempts: u32::from(sent.called), tasks, cost: sent.cost };
        told.called(queue, dependency.clone(), calls);
    }
}

fn settled(id: TaskId, labels: Labels, outcome: Settled, told: &mut Told) -> SettleResult {
    match outcome {
        Settled::Applied { state, due_ms, queue, .. } => {
            told.count("redrive_settled_total", &queue, "outcome", labels.outcome);
            if let Some(class) = labels.class {
                told.count("redrive_failures_total", &queue, "class", class.as_str());
            }
            told.moved(&id, &queue, state, due_ms);
            accepted(id, state, due_ms, false)
        }
        Settled::Repeated { state, due_ms } => accepted(id, state, due_ms, true),
        Settled::Stale(state) => {
            let problem = stale(StaleVerb::Settle, &id, state);
            refused(id, problem)
        }
        Settled::Unreadable => {
            let problem = unreadable(&id);
            refused(id, problem)
        }
        Settled::Unknown => {
            let problem = unknown(&id);
            refused(id, problem)
        }
    }
}

const fn outcome_name(ending: &Ending) -> &'static str {
    match ending {
        Ending::Done(_) => "done",
        Ending::Failed(_) => "failed",
        Ending::FailedForGood(_) => "dead",
        Ending::NeedsPerson(_) => "escalated",
        Ending::Snoozed { .. } => "snoozed",
        Ending::Released => "released",
        Ending::Undelivered => "undelivered",
        Ending::HandedOff => "handed_off",
    }
}

fn judged(settlement: Settlement, judge: &mut judge::Batch, standing: Standing) -> Settle {
    let cost = settlement.outcome.cost();
    let in_transaction = matches!(settlement.outcome, Outcome::Retry { in_transaction: true, .. });
    let ending = match settlement.outcome {
        Outcome::Done { result, result_ref, .. } => Ending::Done(Content::of(result, result_ref)),
        Outcome::Retry { failure, .. } => Ending::Failed(judge.judge(failure)),
        Outcome::Dead { failure, .. } => Ending::FailedForGood(judge.judge(failure)),
        Outcome::Escalate { failure, .. } => Ending::NeedsPerson(judge.judge(failure)),
        Outcome::Snooze { delay_ms } => Ending::Snoozed { delay_ms },
        Outcome::Release { .. } => Ending::Released,
    };
    let fence = Fence { epoch: settlement.epoch, nonce: settlement.nonce };
    Settle { cost, in_transaction, standing, ..Settle::new(settlement.id, fence, ending) }
}

fn extended(verb: StaleVerb, id: TaskId, outcome: Extended) -> LeaseResult {
    match outcome {
        Extended::Until(until_ms) => LeaseResult { id, lease_until_ms: Some(until_ms), error: None },
        Extended::Stale(state) => {
            let error = Some(stale(verb, &id, state));
            LeaseResult { id, lease_until_ms: None, error }
        }
        Extended::Unknown => {
            let error = Some(unknown(&id));
            LeaseResult { id, lease_until_ms: None, error }
        }
    }
}

fn accepted(id: TaskId, state: TaskState, due_ms: i64, repeated: bool) -> SettleResult {
    let due_at_ms = (state == TaskState::Scheduled).then_some(due_ms);
    SettleResult { id, state: Some(state), due_at_ms, repeated, error: None }
}

fn refused(id: TaskId, problem: Problem) -> SettleResult {
    SettleResult { id, state: None, due_at_ms: None, repeated: false, error: Some(problem) }
}

/// The lease is over.
pub(super) fn stale(verb: StaleVerb, id: &TaskId, state: TaskState) -> Problem {
    record_stale(verb);
    Problem::new(
        ErrorCode::StaleEpoch,
        format!("the lease on `{id}` is over (the task is {state}); stop its work, nothing was changed"),
    )
}

/// The store has a value that this release cannot read.
pub(super) fn unreadable(id: &TaskId) -> Problem {
    Problem::new(
        ErrorCode::Internal,
        format!(
            "task `{id}` cannot be read: a newer release wrote it, or its value is damaged; nothing was changed; \
             GET /v1/tasks/{id} says more"
        ),
    )
}

pub(super) fn unknown(id: &TaskId) -> Problem {
    Problem::new(
        ErrorCode::UnknownTask,
        format!("no task `{id}` is known, or no longer; nothing was changed"),
    )
}
