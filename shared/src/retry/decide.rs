//! The decision after one failure.

use rand::Rng;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::strategy::uniform;
use super::{
    ClassRule, Ending, Fallback, HINT_JITTER_BASE_MS, HINT_JITTER_DIVISOR, MAX_ATTEMPTS, MAX_HINT_JITTER_MS,
    OnRoute, RetryPolicy, Risk, Strategy,
};
use crate::failure::FailureClass;
use crate::limits::GATE_SPREAD_MS;

/// A failure that has been classified and counted: all that a decision depends on, besides the policy and chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure<'a> {
    /// What kind of failure it was.
    pub class: FailureClass,
    /// The classifier's verdict; a policy's `retryable` for the class wins over it.
    pub retryable: bool,
    /// Failures charged to the task, this one included unless its class has a counter of its own.
    pub failed: u32,
    /// Failures of this class on the task, this one included (for `worker_lost`: the losses).
    pub failed_in_class: u32,
    /// The task's own `max_attempts`, in place of the policy's; bounded by the policy's `risk`, and by 1 and 100.
    pub max_attempts: Option<u32>,
    /// The task's own backoff, in place of the class's and the policy's while the policy's bounds let it have that.
    pub strategy: Option<&'a Strategy>,
    /// The delay before the attempt that failed just now, in milliseconds ([`Decision::Retry`] gave it).
    pub previous_delay_ms: Option<u64>,
    /// The delay that the server asked for, in milliseconds from `now_ms`. 0 is no hint.
    pub hint_ms: Option<u64>,
    /// Now, in milliseconds since the Unix epoch, by the store's clock.
    pub now_ms: i64,
    /// The last instant at which a retry may be due, in milliseconds since the Unix epoch.
    pub deadline_ms: i64,
    /// Where the task is on its fallback chain.
    pub on: OnRoute<'a>,
}

/// What becomes of the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    /// It runs again.
    Retry {
        /// When, in milliseconds since the Unix epoch; never after the deadline.
        due_ms: i64,
        /// `due_ms` less now, in milliseconds, jitter on top of a hint included.
        delay_ms: u64,
        /// What the delay is made of.
        reason: DelayReason,
    },
    /// It goes to the dead letters.
    Dead {
        /// Why it is not retried.
        reason: EndReason,
    },
    /// It goes to a person.
    Escalate {
        /// Why it is not retried.
        reason: EndReason,
    },
}

/// What decided how long a retry waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DelayReason {
    /// The strategy's delay, which was longer than the server's hint if there was one.
    Policy,
    /// The server's hint, at least as long as the strategy's delay.
    Hint,
    /// Nothing: another dependency stands in, at once. What the one that failed asked for does not bind it.
    Fallback {
        /// The route that is taken.
        route: u32,
    },
    /// Nothing: its dependency is isolated, and another one stands in instead of a wait for a person.
    StandIn {
        /// The route that is taken.
        route: u32,
    },
    /// The dependency is isolated: it waits behind the gate for the person who mends it, and nothing is charged.
    Gate,
}

/// Why a task is not retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// Repeating it cannot help.
    Unretryable,
    /// The task's attempts are used up.
    Exhausted,
    /// The failures that this class may have on one task are used up.
    ClassExhausted,
    /// Too many workers vanished while running it.
    Poison,
    /// The retry would have been due after the deadline.
    PastDeadline,
    /// It waited for locks as often as it may.
    LockWaits,
    /// It was put off as often as it may.
    Deferrals,
    /// It was handed back as often as it may.
    Releases,
    /// What it cost reached its bound.
    Cost,
}

impl Decision {
    fn end(ending: Ending, reason: EndReason) -> Self {
        match ending {
            Ending::Dead => Self::Dead { reason },
            Ending::Escalate => Self::Escalate { reason },
        }
    }
}

impl RetryPolicy {
    /// Decides what becomes of a task after a failure. In this order:
    ///
    /// 1. The class's rule takes the next route, there is one whose gate lets work through, and an attempt is left: a retry
    ///    there, at once.
    /// 2. A credential or a quota failed, and the dependency is isolated for that: it waits behind the gate,
    ///    and not for less than its server asked for.
    /// 3. Unretryable: the class's `when_unretryable`.
    /// 4. Attempts used up, the class's or the task's: the class's `when_exhausted`.
    /// 5. Where it would wait is isolated, and there is a later route that is not: a retry there, at once. So, too, in place
    ///    of a wait behind the gate (2.), if an attempt is left and the class takes other routes at all.
    /// 6. Otherwise a retry, due at `now + delay`; with a hint, at
    ///    `now + max(hint, delay) + U(0, min(1 s + 0.1·hint, 30 s))`, so never before the hint. All who were told the
    ///    same instant would otherwise return in it. 0.1·hint is rounded down to whole milliseconds.
    /// 7. Due after the deadline: escalate. The task is neither dropped nor called back early to fit.
    pub fn decide<R: Rng + ?Sized>(&self, failure: &Failure<'_>, rng: &mut R) -> Decision {
        let rule = self.rule(failure.class);
        if let Some(route) = self.next_route(failure, &rule) {
            return retry_after(0, DelayReason::Fallback { route }, failure);
        }
        let stand_in = self.past_isolated(&failure.on);
        let stand_in = stand_in.filter(|_| !self.keeps_route(failure.class, failure.failed_in_class));
        let elsewhere = |route| retry_after(0, DelayReason::StandIn { route }, failure);
        if self.waits_for_person(failure) {
            let may_leave = rule.fallback != Fallback::Never && self.used_up(failure, &rule).is_none();
            return match stand_in.filter(|_| may_leave) {
                Some(route) => elsewhere(route),
                None => {
                    // A gate that opens early must not let it through before its server asked for it.
                    let (delay_ms, _) = with_hint(uniform(0, GATE_SPREAD_MS, rng), failure.hint_ms, rng);
                    retry_after(delay_ms, DelayReason::Gate, failure)
                }
            };
        }
        if !rule.retryable.unwrap_or(failure.retryable) {
            return Decision::end(rule.when_unretryable, EndReason::Unretryable);
        }
        if let Some(reason) = self.used_up(failure, &rule) {
            return Decision::end(rule.when_exhausted, reason);
        }
        if let Some(route) = stand_in {
            return elsewhere(route);
        }
        let attempt = match failure.on.route {
            _ if rule.own_counter => failure.failed_in_class,
            0 => failure.failed,
            // Another server: what the ones before it went through is not its own.
            _ => failure.on.failed,
        };
        // What says nothing about the dependency keeps its own pace.
        let own = self.own(failure.strategy.filter(|_| !rule.own_counter));
        let strategy = own.or(rule.strategy.as_ref()).unwrap_or(&self.strategy);
        let policy_ms = strategy.delay_ms(attempt, failure.previous_delay_ms, rng);
        let (delay_ms, reason) = with_hint(policy_ms, failure.hint_ms, rng);
        retry_after(delay_ms, reason, failure)
    }

    /// The attempts that a task has, given its own wish.
    ///
    /// A risk is the queue owner's statement about harm, so a producer cannot raise a task above it.
    pub fn attempts_allowed(&self, task_max_attempts: Option<u32>) -> u32 {
        let bound = self.risk.map_or(MAX_ATTEMPTS, Risk::max_attempts);
        task_max_attempts.unwrap_or(self.max_attempts).clamp(1, bound)
    }

    /// Why no attempt is left, if none is. The class's reason is the more telling one and comes first.
    fn used_up(&self, failure: &Failure<'_>, rule: &ClassRule) -> Option<EndReason> {
        if rule.max_attempts.is_some_and(|allowed| failure.failed_in_class >= allowed) {
            return Some(match failure.class {
                FailureClass::WorkerLost => EndReason::Poison,
                FailureClass::LockTimeout => EndReason::LockWaits,
                _ => EndReason::ClassExhausted,
            });
        }
        // A loss or a lock time-out charges no attempt, so it cannot use one up.
        let charged = !rule.own_counter;
        (charged && failure.failed >= self.attempts_allowed(failure.max_attempts))
            .then_some(EndReason::Exhausted)
    }
}

/// A retry after so long, if that is not too late.
fn retry_after(delay_ms: u64, reason: DelayReason, failure: &Failure<'_>) -> Decision {
    match failure.now_ms.checked_add_unsigned(delay_ms) {
        Some(due_ms) if due_ms <= failure.deadline_ms => Decision::Retry { due_ms, delay_ms, reason },
        Some(_) | None => Decision::Escalate { reason: EndReason::PastDeadline },
    }
}

/// Puts a server's hint under the strategy's delay, as a floor, and spreads those who were given the same one.
fn with_hint<R: Rng + ?Sized>(policy_ms: u64, hint_ms: Option<u64>, rng: &mut R) -> (u64, DelayReason) {
    let Some(hint_ms) = hint_ms.filter(|hint_ms| *hint_ms > 0) else {
        return (policy_ms, DelayReason::Policy);
    };
    let reason = if hint_ms >= policy_ms { DelayReason::Hint } else { DelayReason::Policy };
    let most_ms = (HINT_JITTER_BASE_MS + hint_ms / HINT_JITTER_DIVISOR).min(MAX_HINT_JITTER_MS);
    (hint_ms.max(policy_ms).saturating_add(uniform(0, most_ms, rng)), reason)
}
