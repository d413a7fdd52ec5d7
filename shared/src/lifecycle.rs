//! The task's state machine: pure, and the only place where a task changes state.
//!
//! ```text
//!  enqueue ─▶ scheduled ──claim──▶ leased ──done──▶ succeeded
//!     │         ▲    ▲               │ │
//!     │         │    └── retry, snooze, release, lease lost ◀─┘ │
//!     │         │                      ├──exhausted, unretryable, poison──▶ dead ───────┐
//!     │         │                      ├──needs a person, too late────────▶ escalated ──┤
//!     │         │                      └──back to where it came from──▶ handed_off ─────┤
//!     │         └───────────────────────────── retry_now ◀──────────────────────────────┘
//!     ├─▶ dead, escalated   (the failure it came with cannot be mended by a retry)
//!     ├─ handed_off ──settled once more, as if it were leased──▶ scheduled, succeeded, dead, escalated
//!     └─ scheduled, leased, dead, escalated, handed_off ──cancel──▶ cancelled ──retry_now──▶ scheduled
//! ```
//!
//! **Fencing.** Every lease has an epoch, `max(last + 1, store time in µs)`, and a random nonce; who holds neither changes
//! nothing. Every transition but a settlement raises the epoch, so *a task that is not leased and still carries the epoch
//! of a lease was settled by that lease*: that is how a repeated settlement is told from a stale one without keeping
//! anything more. One that handed its task off may settle it once more: the work went on elsewhere, and what is heard of it
//! is told under the fence that it left with.
//!
//! **Charging.** A failure charges `failed`; a lease that had started and was lost charges `lost`; one that never started
//! charges `undelivered`, also where the coordinator itself takes it back; snoozes and releases charge nothing that counts
//! against attempts. Three losses are poison, and what workers do has bounds of its own, at which a person is asked; what
//! reached nobody has none.
//!
//! **Routes.** A task goes on at the next dependency of its chain when the policy says so
//! ([`RetryPolicy::fallbacks`]), or where it would wait for a person at an isolated one; and never back, but for a person's
//! `retry_now`.

mod calls;
mod class_counts;
mod judge;

use rand::{Rng, RngExt};

pub use self::class_counts::ClassCounts;
pub use self::judge::STANDS_IN;

pub(crate) use self::judge::ISOLATED;
use self::judge::Loss;
use crate::cost::Cost;
use crate::gate::Standing;
use crate::id::Name;
use crate::limits::{RELEASE_SPREAD_MS, UNDELIVERED_DELAY_MS};
use crate::retry::{EndReason, RetryPolicy, Strategy};
use crate::task::{AttemptEnd, FailureRecord, Ledger, Nonce, TaskState};

/// The nonce of an epoch that is no lease's: a fence made up from what everyone can see of a task never fits.
const NO_LEASE: Nonce = Nonce(0);
/// Words by which a line of history is told from others of its ending: what it charged is not what it otherwise would.
pub(crate) const PUT_OFF_TOO_OFTEN: &str = "it was put off as often as it may";
pub(crate) const TOO_LATE: &str = "its deadline passed while it waited";

/// What transitions read and write: the hot part of a task, without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it is.
    pub state: TaskState,
    /// Epoch of the last lease or change.
    pub epoch: i64,
    /// Nonce of the lease that has this epoch; zero where none has.
    pub nonce: Nonce,
    /// When it runs next, or was due.
    pub due_ms: i64,
    /// When its lease ends; meaningless unless leased.
    pub lease_until_ms: i64,
    /// Whether a worker has said that it began.
    pub started: bool,
    /// When its last lease was given.
    pub leased_at_ms: i64,
    /// Leases so far.
    pub runs: u32,
    /// What it has been through.
    pub ledger: Ledger,
    /// Failures charged, by class.
    pub class_failures: ClassCounts,
    /// Whether a call was made for it, here or before it came, whatever became of its ledger since.
    pub called: bool,
    /// The delay chosen last: decorrelated jitter builds on it.
    pub previous_delay_ms: Option<u64>,
    /// The caller's own bound on attempts.
    pub max_attempts: Option<u32>,
    /// The caller's own backoff.
    pub strategy: Option<Box<Strategy>>,
    /// The caller's own bound on what it may cost.
    pub max_cost: Option<Cost>,
    /// Position on the fallback chain of its dependency: 0 = that dependency itself.
    pub route: u32,
    /// Failures charged since that route was taken.
    pub failed_on_route: u32,
    /// Whether its last failure was in the middle of a tool transaction: no other route must go on with it.
    pub in_transaction: bool,
    /// When it is too late.
    pub deadline_ms: i64,
    /// When its id may be forgotten; set in settled states.
    pub expires_ms: Option<i64>,
}

/// What a caller must hold to change a leased task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// The lease's epoch.
    pub epoch: i64,
    /// The lease's nonce.
    pub nonce: Nonce,
}

/// How an attempt ended, after its failure was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended<'a> {
    /// The work is done.
    Done,
    /// It failed: the policy decides.
    Failed(&'a FailureRecord),
    /// It failed, and the handler rules out a retry.
    FailedForGood(&'a FailureRecord),
    /// It failed, and the handler asks for a person.
    NeedsPerson(&'a FailureRecord),
    /// Put off by the handler.
    Snoozed {
        /// From now.
        delay_ms: u64,
    },
    /// Handed back untouched.
    Released,
    /// Taken back by the coordinator, since it reached no worker.
    Undelivered,
    /// Given back to where it came from: nobody reports here unless it fails again.
    HandedOff,
}

/// One attempt, as its worker tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt<'a> {
    /// How it ended.
    pub ended: Ended<'a>,
    /// What it cost.
    pub cost: Cost,
    /// Whether it ended inside a tool transaction, which no other route must go on with.
    pub in_transaction: bool,
}

impl<'a> From<Ended<'a>> for Attempt<'a> {
    fn from(ended: Ended<'a>) -> Self {
        Self { ended, cost: Cost::default(), in_transaction: false }
    }
}

/// By what a task is judged.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// Its queue's policy.
    pub policy: &'a RetryPolicy,
    /// The dependency that it was enqueued with, whatever its route.
    pub primary: Option<&'a Name>,
    /// The dependency that the attempt at hand went to, or in whose lane it waits: what its route was when it was scheduled,
    /// whatever its chain says now.
    pub called: Option<&'a Name>,
    /// Which dependencies let nothing through.
    pub standing: &'a Standing,
}

impl<'a> From<&'a RetryPolicy> for Terms<'a> {
    /// Of a task without a dependency.
    fn from(policy: &'a RetryPolicy) -> Self {
        Self { policy, primary: None, called: None, standing: Standing::OPEN }
    }
}

/// What a transition did, for the task's history and the caller's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The state after it.
    pub state: TaskState,
    /// How the attempt counts.
    pub end: AttemptEnd,
    /// The delay chosen, where the task runs again.
    pub delay_ms: Option<u64>,
    /// Why, in words.
    pub why: &'static str,
}

/// Why a transition changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The lease is over or somebody else's.
    #[error("the lease is over: the task is {0} under a later epoch")]
    Stale(TaskState),
    /// This very lease was settled before; the first settlement stands.
    #[error("this lease was settled before: the task is {0}")]
    Repeated(TaskState),
    /// The state does not allow it.
    #[error("a task that is {0} cannot do that")]
    WrongState(TaskState),
}

/// What a new task starts from.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// Attempts that the caller has made.
    pub attempts_made: u32,
    /// The failure that it came with.
    pub failure: Option<&'a FailureRecord>,
    /// The caller's own bound on attempts.
    pub max_attempts: Option<u32>,
    /// The caller's own backoff.
    pub strategy: Option<&'a Strategy>,
    /// The caller's own bound on what it may cost.
    pub max_cost: Option<Cost>,
    /// Where on its dependency's fallback chain it begins, and failed.
    pub route: u32,
    /// Earliest start from now.
    pub delay_ms: u64,
    /// Time from now until it is too late; the policy's when missing.
    pub deadline_ms: Option<u64>,
}

impl Record {
    /// A new task. The failure that it came with is judged like any other, with the caller's attempts counted.
    pub fn enqueue<'a>(
        start: &Start<'_>,
        terms: impl Into<Terms<'a>>,
        now_us: i64,
        rng: &mut impl Rng,
    ) -> (Self, Option<Verdict>) {
        let terms = terms.into();
        let policy = terms.policy;
        let now_ms = now_us.div_euclid(1_000);
        let mut record = Self {
            state: TaskState::Scheduled,
            epoch: now_us,
            nonce: NO_LEASE,
            due_ms: now_ms.saturating_add_unsigned(start.delay_ms),
            lease_until_ms: 0,
            started: false,
            leased_at_ms: now_ms,
            runs: 0,
            ledger: Ledger { failed: start.attempts_made, ..Ledger::default() },
            class_failures: ClassCounts::default(),
            called: start.calls_made() > 0,
            previous_delay_ms: None,
            max_attempts: start.max_attempts,
            strategy: start.strategy.cloned().map(Box::new),
            max_cost: start.max_cost,
            route: start.route,
            failed_on_route: start.attempts_made,
            in_transaction: false,
            deadline_ms: now_ms.saturating_add_unsigned(
                // The policy's time begins when the task may first run: a long delay must not use it up.
                start.deadline_ms.unwrap_or(start.delay_ms.saturating_add(policy.deadline_ms)),
            ),
            expires_ms: None,
        };
        let Some(failure) = start.failure else {
            let used_up = record.ledger.failed >= policy.attempts_allowed(start.max_attempts);
            if !used_up {
                let moved = record.pass_isolated(terms);
                let why =
                    moved.then(|| record.verdict(AttemptEnd::Reported, Some(start.delay_ms), STANDS_IN));
                return (record, why);
            }
            record.settle_in(TaskState::Dead, policy, now_ms);
            let verdict = record.verdict(AttemptEnd::Reported, None, end_words(EndReason::Exhausted));
            return (record, Some(verdict));
        };
        // The failure at hand is one of the attempts made, not one more.
        record.ledger.failed = start.attempts_made.saturating_sub(1);
        record.failed_on_route = record.ledger.failed;
        let mut verdict = record.fail(&Loss::of(failure, false), AttemptEnd::Failed, terms, now_ms, rng);
        verdict.end = AttemptEnd::Reported;
        if record.state == TaskState::Scheduled {
            record.due_ms = record.due_ms.max(now_ms.saturating_add_unsigned(start.delay_ms));
        }
        (record, Some(verdict))
    }

    /// Leases a task that is due. A task whose deadline has passed is escalated instead: never run too late, never dropped.
    pub fn claim(
        &mut self,
        lease_ms: u64,
        nonce: Nonce,
        policy: &RetryPolicy,
        now_us: i64,
    ) -> Result<Option<Verdict>, Refused> {
        let now_ms = now_us.div_euclid(1_000);
        if self.state != TaskState::Scheduled || self.due_ms > now_ms {
            return Err(Refused::WrongState(self.state));
        }
        if now_ms > self.deadline_ms {
            return self.miss_deadline(policy, now_us).map(Some);
        }
        self.raise_epoch(now_us);
        self.state = TaskState::Leased;
        self.nonce = nonce;
        self.started = false;
        self.leased_at_ms = now_ms;
        self.lease_until_ms = now_ms.saturating_add_unsigned(lease_ms);
        self.runs = self.runs.saturating_add(1);
        Ok(None)
    }

    /// Escalates a task whose deadline has passed, if it waits, or was leased and nobody started it: that lease counts not.
    pub fn miss_deadline(&mut self, policy: &RetryPolicy, now_us: i64) -> Result<Verdict, Refused> {
        let now_ms = now_us.div_euclid(1_000);
        let unstarted = self.state == TaskState::Leased && !self.started;
        if !(unstarted || self.state == TaskState::Scheduled) || now_ms <= self.deadline_ms {
            return Err(Refused::WrongState(self.state));
        }
        self.runs = self.runs.saturating_sub(u32::from(unstarted));
        self.raise_epoch(now_us);
        self.settle_in(TaskState::Escalated, policy, now_ms);
        Ok(self.verdict(AttemptEnd::Undelivered, None, TOO_LATE))
    }

    /// Starts the lease (the first time) or makes it end later; never earlier.
    pub fn extend(&mut self, fence: Fence, lease_ms: u64, now_ms: i64) -> Result<(), Refused> {
        self.check(fence)?;
        self.started = true;
        self.lease_until_ms = self.lease_until_ms.max(now_ms.saturating_add_unsigned(lease_ms));
        Ok(())
    }

    /// Ends the attempt under a lease, or once more what that lease handed off.
    pub fn settle<'a>(
        &mut self,
        fence: Fence,
        attempt: impl Into<Attempt<'a>>,
        terms: impl Into<Terms<'a>>,
        now_ms: i64,
        rng: &mut impl Rng,
    ) -> Result<Verdict, Refused> {
        let (Attempt { ended, cost, in_transaction }, terms) = (attempt.into(), terms.into());
        let policy = terms.policy;
        match self.check(fence) {
            Err(Refused::Repeated(TaskState::HandedOff)) if ended != Ended::HandedOff => {}
            checked => checked?,
        }
        self.ledger.cost_usd = self.ledger.cost_usd.plus(cost);
        self.called |= ended.is_call();
        Ok(match ended {
            Ended::Done => {
                self.settle_in(TaskState::Succeeded, policy, now_ms);
                self.verdict(AttemptEnd::Succeeded, None, "done")
            }
            Ended::Failed(failure) => {
                self.fail(&Loss::of(failure, in_transaction), AttemptEnd::Failed, terms, now_ms, rng)
            }
            Ended::FailedForGood(failure) => {
                self.charge(failure.class, policy);
                self.settle_in(TaskState::Dead, policy, now_ms);
                self.verdict(AttemptEnd::Failed, None, "the handler ruled out a retry")
            }
            Ended::NeedsPerson(failure) => {
                self.charge(failure.class, policy);
                self.settle_in(TaskState::Escalated, policy, now_ms);
                self.verdict(AttemptEnd::Failed, None, "the handler asked for a person")
            }
            Ended::Snoozed { delay_ms } => self.snooze(delay_ms, cost, policy, now_ms),
            Ended::Released => self.release(cost, terms, now_ms, rng),
            Ended::Undelivered => {
                self.ledger.undelivered = self.ledger.undelivered.saturating_add(1);
                let delay_ms = rng.random_range(0..=RELEASE_SPREAD_MS);
                self.schedule(delay_ms, now_ms);
                let why = match self.pass_isolated(terms) {
                    true => {
                        "taken back: it reached no worker, and its dependency is isolated: another stands in"
                    }
                    false => "taken back: it reached no worker",
                };
                self.verdict(AttemptEnd::Undelivered, Some(delay_ms), why)
            }
            Ended::HandedOff => {
                self.settle_in(TaskState::HandedOff, policy, now_ms);
                self.verdict(AttemptEnd::HandedOff, None, "given back to where it came from")
            }
        })
    }

    /// The lease ended with no word from its worker.
    pub fn lose(
        &mut self,
        policy: &RetryPolicy,
        now_us: i64,
        rng: &mut impl Rng,
    ) -> Result<Verdict, Refused> {
        if self.state != TaskState::Leased {
            return Err(Refused::WrongState(self.state));
        }
        let now_ms = now_us.div_euclid(1_000);
        self.raise_epoch(now_us);
        if !self.started {
            self.ledger.undelivered = self.ledger.undelivered.saturating_add(1);
            let delay_ms = UNDELIVERED_DELAY_MS + rng.random_range(0..=RELEASE_SPREAD_MS);
            self.schedule(delay_ms, now_ms);
            let why = "leased, and nobody started it";
            return Ok(self.verdict(AttemptEnd::Undelivered, Some(delay_ms), why));
        }
        self.called = true;
        Ok(self.fail(&Loss::WORKER, AttemptEnd::Lost, policy.into(), now_ms, rng))
    }

    /// Calls it off. Repeating it changes nothing.
    pub fn cancel(&mut self, policy: &RetryPolicy, now_us: i64) -> Result<(), Refused> {
        match self.state {
            TaskState::Cancelled => Ok(()),
            TaskState::Succeeded => Err(Refused::WrongState(self.state)),
            TaskState::Scheduled
            | TaskState::Leased
            | TaskState::Dead
            | TaskState::Escalated
            | TaskState::HandedOff => {
                self.raise_epoch(now_us);
                self.settle_in(TaskState::Cancelled, policy, now_us.div_euclid(1_000));
                Ok(())
            }
        }
    }

    /// Runs it again now: a settled failure gets its attempts back and begins on its own dependency, a waiting task becomes
    /// due where it is. Either goes past an isolated one to what stands in, and then this says so. What it cost stays counted.
    pub fn retry_now<'a>(&mut self, terms: impl Into<Terms<'a>>, now_us: i64) -> Result<bool, Refused> {
        let (terms, now_ms) = (terms.into(), now_us.div_euclid(1_000));
        let policy = terms.policy;
        match self.state {
            TaskState::Scheduled => {
                self.due_ms = self.due_ms.min(now_ms);
            }
            TaskState::Dead | TaskState::Escalated | TaskState::Cancelled | TaskState::HandedOff => {
                let Ledger { undelivered, cost_usd, .. } = self.ledger;
                self.ledger = Ledger { undelivered, cost_usd, ..Ledger::default() };
                (self.route, self.failed_on_route, self.in_transaction) = (0, 0, false);
                self.class_failures = ClassCounts::default();
                self.previous_delay_ms = None;
                self.deadline_ms = self.deadline_ms.max(now_ms.saturating_add_unsigned(policy.deadline_ms));
                self.schedule(0, now_ms);
            }
            TaskState::Leased | TaskState::Succeeded => return Err(Refused::WrongState(self.state)),
        }
        self.raise_epoch(now_us);
        Ok(self.pass_isolated(terms))
    }

    /// Whether that is the lease under which it is being worked on.
    pub fn check(&self, fence: Fence) -> Result<(), Refused> {
        if self.nonce == NO_LEASE || (self.epoch, self.nonce) != (fence.epoch, fence.nonce) {
            return Err(Refused::Stale(self.state));
        }
        if self.state != TaskState::Leased {
            return Err(Refused::Repeated(self.state));
        }
        Ok(())
    }

    /// The new epoch is nobody's lease until a claim gives it a nonce.
    fn raise_epoch(&mut self, now_us: i64) {
        self.epoch = self.epoch.saturating_add(1).max(now_us);
        self.nonce = NO_LEASE;
    }

    fn schedule(&mut self, delay_ms: u64, now_ms: i64) {
        self.state = TaskState::Scheduled;
        self.due_ms = now_ms.saturating_add_unsigned(delay_ms);
        self.started = false;
        self.expires_ms = None;
    }

    fn settle_in(&mut self, state: TaskState, policy: &RetryPolicy, now_ms: i64) {
        self.state = state;
        self.started = false;
        self.expires_ms = match state {
            // A person has not answered yet: never forgotten by itself.
            TaskState::Escalated | TaskState::Scheduled | TaskState::Leased => None,
            TaskState::Succeeded | TaskState::Dead | TaskState::Cancelled | TaskState::HandedOff => {
                Some(now_ms.saturating_add_unsigned(policy.retention_ms))
            }
        };
    }

    fn verdict(&self, end: AttemptEnd, delay_ms: Option<u64>, why: &'static str) -> Verdict {
        Verdict { state: self.state, end, delay_ms, why }
    }
}

const fn end_words(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Unretryable => "no retry can mend it",
        EndReason::Exhausted => "its attempts are used up",
        EndReason::ClassExhausted => "failures of this class are used up",
        EndReason::Poison => "poison: whoever ran it vanished or was killed",
        EndReason::PastDeadline => "the retry would come after its deadline",
        EndReason::LockWaits => "it waited for locks as often as it may",
        EndReason::Deferrals => PUT_OFF_TOO_OFTEN,
        EndReason::Releases => "it was handed back as often as it may",
        EndReason::Cost => "what it cost reached its bound",
    }
}

#[cfg(test)]
mod tests;
