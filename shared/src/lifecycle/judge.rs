//! What a failure does to a task: it is charged, judged by the policy, and held against the task's own bounds.

use rand::{Rng, RngExt};

use super::{ClassCounts, Record, Terms, Verdict, end_words};
use crate::cost::Cost;
use crate::failure::FailureClass;
use crate::limits::RELEASE_SPREAD_MS;
use crate::retry::{Decision, DelayReason, EndReason, Failure, Fallback, OnRoute, RetryPolicy};
use crate::task::{AttemptEnd, FailureRecord, TaskState};

/// Why a task is on another route than it was sent to, in words.
pub const STANDS_IN: &str = "its dependency is isolated: another stands in";
/// Why a failure is not charged.
pub(crate) const ISOLATED: &str = "its dependency is isolated: it waits behind the gate, uncharged";

/// One failure or loss, as far as a decision needs it.
pub(super) struct Loss {
    class: FailureClass,
    retryable: bool,
    hint_ms: Option<u64>,
    in_transaction: bool,
}

impl Loss {
    /// What was seen, and whether it was in the middle of a tool transaction.
    pub fn of(failure: &FailureRecord, in_transaction: bool) -> Self {
        Self {
            class: failure.class,
            retryable: failure.retryable,
            hint_ms: failure.retry_after_ms,
            in_transaction,
        }
    }

    /// Its worker vanished.
    pub const WORKER: Self =
        Self { class: FailureClass::WorkerLost, retryable: true, hint_ms: None, in_transaction: false };
}

impl Record {
    /// Charges a failure, and sends the task where the policy says.
    pub(super) fn fail(
        &mut self,
        loss: &Loss,
        end: AttemptEnd,
        terms: Terms<'_>,
        now_ms: i64,
        rng: &mut impl Rng,
    ) -> Verdict {
        let policy = terms.policy;
        // What a worker had begun when it vanished, nobody knows.
        let unknown = loss.class == FailureClass::WorkerLost && self.in_transaction;
        self.in_transaction = loss.in_transaction || unknown;
        let charged = u32::from(!policy.rule(loss.class).own_counter);
        let seen = match loss.class {
            FailureClass::WorkerLost => self.ledger.lost,
            class => self.class_failures.of(class),
        };
        let input = Failure {
            class: loss.class,
            retryable: loss.retryable,
            failed: self.ledger.failed.saturating_add(charged),
            failed_in_class: seen.saturating_add(1),
            max_attempts: self.max_attempts,
            strategy: self.strategy.as_deref(),
            previous_delay_ms: self.previous_delay_ms,
            hint_ms: loss.hint_ms,
            now_ms,
            deadline_ms: self.deadline_ms,
            on: OnRoute {
                primary: terms.primary,
                called: terms.called,
                route: self.route,
                failed: self.failed_on_route.saturating_add(charged),
                in_transaction: self.in_transaction,
                kept: self.keeps_route(policy),
                standing: terms.standing,
            },
        };
        let decision = policy.decide(&input, rng);
        match decision {
            Decision::Retry { reason: DelayReason::Gate, .. } => {
                self.ledger.deferred = self.ledger.deferred.saturating_add(1);
            }
            Decision::Retry { .. } | Decision::Dead { .. } | Decision::Escalate { .. } => {
                self.charge(loss.class, policy);
            }
        }
        let decision = self.bounded(decision, policy);
        self.follow(decision, end, policy, now_ms)
    }

    /// Counts a failure. Classes with a counter of their own (a lock that was not had in time) charge no attempt. A vanished
    /// worker is one kind of loss, whether its lease ran out or it said itself that its process was killed: both count
    /// towards poison.
    pub(super) fn charge(&mut self, class: FailureClass, policy: &RetryPolicy) {
        if class == FailureClass::WorkerLost {
            self.ledger.lost = self.ledger.lost.saturating_add(1);
            return;
        }
        if class == FailureClass::LockTimeout {
            self.ledger.lock_waits = self.ledger.lock_waits.saturating_add(1);
        }
        if !policy.rule(class).own_counter {
            self.ledger.failed = self.ledger.failed.saturating_add(1);
            self.failed_on_route = self.failed_on_route.saturating_add(1);
        }
        self.class_failures.add(class);
    }

    /// Its handler put it off.
    pub(super) fn snooze(&mut self, delay_ms: u64, cost: Cost, policy: &RetryPolicy, now_ms: i64) -> Verdict {
        self.ledger.deferred = self.ledger.deferred.saturating_add(1);
        let reason = if now_ms.saturating_add_unsigned(delay_ms) > self.deadline_ms {
            Some(EndReason::PastDeadline)
        } else if self.ledger.deferred >= policy.deferrals_allowed() {
            Some(EndReason::Deferrals)
        } else {
            self.too_dear(cost)
        };
        if let Some(reason) = reason {
            self.settle_in(TaskState::Escalated, policy, now_ms);
            return self.verdict(AttemptEnd::Snoozed, None, end_words(reason));
        }
        self.schedule(delay_ms, now_ms);
        self.verdict(AttemptEnd::Snoozed, Some(delay_ms), "put off by its handler")
    }

    /// Its worker handed it back.
    pub(super) fn release(
        &mut self,
        cost: Cost,
        terms: Terms<'_>,
        now_ms: i64,
        rng: &mut impl Rng,
    ) -> Verdict {
        let policy = terms.policy;
        self.ledger.released = self.ledger.released.saturating_add(1);
        let too_often = self.ledger.released >= policy.releases_allowed();
        let reason = too_often.then_some(EndReason::Releases).or_else(|| self.too_dear(cost));
        if let Some(reason) = reason {
            self.settle_in(TaskState::Escalated, policy, now_ms);
            return self.verdict(AttemptEnd::Released, None, end_words(reason));
        }
        let delay_ms = rng.random_range(0..=RELEASE_SPREAD_MS);
        self.schedule(delay_ms, now_ms);
        let why = match self.pass_isolated(terms) {
            true => "handed back untouched, and its dependency is isolated: another stands in",
            false => "handed back untouched",
        };
        self.verdict(AttemptEnd::Released, Some(delay_ms), why)
    }

    /// Whether what was not charged, and cost something all the same, leaves it at its bound. What cost nothing does not: a
    /// person may have let it try once more.
    fn too_dear(&self, cost: Cost) -> Option<EndReason> {
        let reached = self.max_cost.is_some_and(|most| self.ledger.cost_usd >= most);
        (reached && !cost.is_zero()).then_some(EndReason::Cost)
    }

    /// A retry that the task's own bounds rule out goes to a person.
    fn bounded(&self, decision: Decision, policy: &RetryPolicy) -> Decision {
        let Decision::Retry { reason, .. } = decision else { return decision };
        if self.max_cost.is_some_and(|most| self.ledger.cost_usd >= most) {
            return Decision::Escalate { reason: EndReason::Cost };
        }
        if reason == DelayReason::Gate && self.ledger.deferred >= policy.deferrals_allowed() {
            return Decision::Escalate { reason: EndReason::Deferrals };
        }
        decision
    }

    fn follow(&mut self, decision: Decision, end: AttemptEnd, policy: &RetryPolicy, now_ms: i64) -> Verdict {
        match decision {
            Decision::Retry { due_ms, delay_ms, reason } => {
                self.schedule(delay_ms, now_ms);
                self.due_ms = due_ms;
                match reason {
                    DelayReason::Policy | DelayReason::Hint => self.previous_delay_ms = Some(delay_ms),
                    DelayReason::Fallback { route } | DelayReason::StandIn { route } => {
                        self.take_route(route, policy);
                    }
                    DelayReason::Gate => {}
                }
                self.verdict(end, Some(delay_ms), retry_words(end, reason))
            }
            Decision::Dead { reason } => {
                self.settle_in(TaskState::Dead, policy, now_ms);
                self.verdict(end, None, end_words(reason))
            }
            Decision::Escalate { reason } => {
                self.settle_in(TaskState::Escalated, policy, now_ms);
                self.verdict(end, None, end_words(reason))
            }
        }
    }

    /// Takes the next route that no person has to open, where its own is isolated and it would wait there. Whether it did.
    pub(super) fn pass_isolated(&mut self, terms: Terms<'_>) -> bool {
        let Terms { policy, primary, standing, .. } = terms;
        // Nothing failed just now.
        let called = None;
        let (route, failed, in_transaction) = (self.route, self.failed_on_route, self.in_transaction);
        let kept = self.keeps_route(policy);
        let on = OnRoute { primary, called, route, failed, in_transaction, kept, standing };
        let taken = policy.past_isolated(&on);
        if let Some(route) = taken {
            self.take_route(route, policy);
        }
        taken.is_some()
    }

    /// Whether what it failed with on its route is not to be tried on another one.
    fn keeps_route(&self, policy: &RetryPolicy) -> bool {
        self.class_failures.iter().any(|(class, failures)| policy.keeps_route(class, failures))
    }

    /// Another dependency, which did nothing yet: backoff and the bounds of classes begin anew, the attempts of the task do
    /// not. What says nothing about a dependency, or may be tried on another one only once, stays counted.
    fn take_route(&mut self, route: u32, policy: &RetryPolicy) {
        self.route = route;
        self.failed_on_route = 0;
        self.previous_delay_ms = None;
        let stays = |class: FailureClass| {
            let rule = policy.rule(class);
            rule.own_counter || rule.fallback == Fallback::Once
        };
        let counts: ClassCounts = self.class_failures.iter().filter(|(class, _)| stays(*class)).collect();
        self.class_failures = counts;
    }
}

const fn retry_words(end: AttemptEnd, reason: DelayReason) -> &'static str {
    match (end, reason) {
        (AttemptEnd::Lost, _) => "its worker vanished",
        (_, DelayReason::Policy) => "backoff",
        (_, DelayReason::Hint) => "the server's hint",
        (_, DelayReason::Fallback { .. }) => "fallback: another dependency stands in",
        (_, DelayReason::StandIn { .. }) => STANDS_IN,
        (_, DelayReason::Gate) => ISOLATED,
    }
}
