//! What each failure class gets where a policy says nothing, and how a policy says otherwise.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Fallback, MINUTE_MS, SECOND_MS, Strategy};
use crate::failure::FailureClass;

/// Where a task goes that is not retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The dead letters, from where an operator can redrive it.
    Dead,
    /// A person, who is told and can answer.
    Escalate,
}

/// A policy's own rule for one failure class. What is left out keeps the class's default ([`class_default`]).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClassPolicy {
    /// The backoff after a failure of this class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// How many failures of this class one task may have on one route, 1 to 100: the one that reaches the number ends the
    /// task. "2 retries" is therefore 3, and 1 means no retry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// Whether a failure of this class is retried at all, whatever the classifier said of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retryable: Option<bool>,
    /// Where the task goes when the failure cannot be retried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when_unretryable: Option<Ending>,
    /// Where the task goes when its attempts, or those of this class, are used up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when_exhausted: Option<Ending>,
    /// After how many failures on one route the next one is taken, 0 to 100: 0 never, 1 at once. It only matters to tasks
    /// whose dependency has a chain in `fallbacks`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback_after: Option<u32>,
}

/// The rule in force for one failure class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassRule {
    /// The backoff; `None`: the policy's own.
    pub strategy: Option<Strategy>,
    /// How many failures of this class one task may have on one route; `None`: only the task's total counts.
    pub max_attempts: Option<u32>,
    /// Whether the class has a counter of its own: its failures use up none of the task's attempts, and its backoff
    /// counts only them. True for `worker_lost` (the ledger's `lost`) and `lock_timeout` (a kind of deferral).
    pub own_counter: bool,
    /// Whether to retry, against the classifier's verdict; `None`: as the classifier says.
    pub retryable: Option<bool>,
    /// Where the task goes when the failure cannot be retried.
    pub when_unretryable: Ending,
    /// Where the task goes when its attempts, or those of this class, are used up.
    pub when_exhausted: Ending,
    /// When a failure takes the next route.
    pub fallback: Fallback,
}

impl ClassRule {
    /// A class that retries by the policy's own strategy and total, and ends in the place given.
    fn ending(ending: Ending) -> Self {
        Self {
            strategy: None,
            max_attempts: None,
            own_counter: false,
            retryable: None,
            when_unretryable: ending,
            when_exhausted: ending,
            fallback: Fallback::Never,
        }
    }

    /// This rule with what a policy says about the class put over it.
    pub(super) fn overridden_by(self, policy: &ClassPolicy) -> Self {
        let ClassPolicy {
            strategy,
            max_attempts,
            retryable,
            when_unretryable,
            when_exhausted,
            fallback_after,
        } = policy;
        Self {
            strategy: strategy.clone().or(self.strategy),
            max_attempts: max_attempts.or(self.max_attempts),
            own_counter: self.own_counter,
            retryable: retryable.or(self.retryable),
            when_unretryable: when_unretryable.unwrap_or(self.when_unretryable),
            when_exhausted: when_exhausted.unwrap_or(self.when_exhausted),
            fallback: match fallback_after {
                None => self.fallback,
                Some(0) => Fallback::Never,
                Some(failures) => Fallback::AfterFailures(*failures),
            },
        }
    }
}

/// The rule of a class where the policy says nothing.
///
/// The match has no catch-all arm: a new class does not build until someone has decided what becomes of it.
pub fn class_default(class: FailureClass) -> ClassRule {
    let dead = ClassRule::ending(Ending::Dead);
    let escalate = ClassRule::ending(Ending::Escalate);
    match class {
        FailureClass::RateLimited => {
            ClassRule { strategy: Some(from_five_seconds()), fallback: Fallback::LongHint, ..dead }
        }
        FailureClass::Overloaded => {
            ClassRule { strategy: Some(from_five_seconds()), fallback: Fallback::AfterFailures(2), ..dead }
        }
        FailureClass::ServerError => ClassRule { fallback: Fallback::AfterFailures(3), ..dead },
        FailureClass::Network => dead,
        FailureClass::Timeout => ClassRule {
            max_attempts: Some(after_retries(2)),
            fallback: Fallback::AfterFailures(after_retries(2)),
            ..dead
        },
        FailureClass::PartialResponse => ClassRule { max_attempts: Some(after_retries(2)), ..dead },
        // Waits until a credential, a payment or a new model: repeating the call brings none of them.
        FailureClass::QuotaExhausted | FailureClass::Auth | FailureClass::ModelUnavailable => {
            ClassRule { fallback: AT_ONCE, ..escalate }
        }
        // Another model may do it; a third one that declines as well says something about the request.
        FailureClass::Refusal => ClassRule { fallback: Fallback::Once, ..escalate },
        // What one filter refuses is not to be tried on the next one unasked.
        FailureClass::Permission | FailureClass::ContentPolicy | FailureClass::BusinessRule => escalate,
        // The reset normally comes as a hint. Without one, the window is minutes to days long and the task is fine.
        FailureClass::QuotaWindow => ClassRule {
            strategy: Some(slow_equal_jitter()),
            when_unretryable: Ending::Escalate,
            fallback: AT_ONCE,
            ..dead
        },
        // A larger window may do.
        FailureClass::ContextOverflow => ClassRule { fallback: AT_ONCE, ..dead },
        FailureClass::InvalidRequest => dead,
        FailureClass::BadOutput => ClassRule {
            max_attempts: Some(after_retries(1)),
            fallback: Fallback::AfterFailures(after_retries(1)),
            ..dead
        },
        FailureClass::Conflict => {
            ClassRule { strategy: Some(short_jitter()), max_attempts: Some(after_retries(3)), ..dead }
        }
        // A classifier cannot tell a tool's passing failure from a lasting one: three tries do.
        FailureClass::ToolError => {
            ClassRule { max_attempts: Some(after_retries(3)), retryable: Some(true), ..dead }
        }
        FailureClass::WorkerLost => {
            ClassRule { strategy: Some(soon()), max_attempts: Some(MAX_LOSSES), own_counter: true, ..dead }
        }
        FailureClass::LockTimeout => ClassRule {
            strategy: Some(short_jitter()),
            max_attempts: Some(MAX_LOCK_TIMEOUTS),
            own_counter: true,
            ..escalate
        },
        FailureClass::Unknown => ClassRule { max_attempts: Some(after_retries(2)), ..escalate },
    }
}

/// Repeating the call on this route is pointless.
const AT_ONCE: Fallback = Fallback::AfterFailures(1);

/// Losses after which a task is poison: it probably is what kills its workers.
const MAX_LOSSES: u32 = 3;

/// Lock time-outs after which a person is asked. Each one has already waited its turn in the lock's queue, so twenty mean a
/// holder that does not let go.
const MAX_LOCK_TIMEOUTS: u32 = 20;

/// The number of failures that lets a class have so many retries: the first failure is not a retry.
const fn after_retries(retries: u32) -> u32 {
    retries + 1
}

/// Full jitter from 5 s: whoever answers "too much" needs more than the default second.
fn from_five_seconds() -> Strategy {
    Strategy::FullJitter { base_ms: 5 * SECOND_MS, min_ms: 100, max_ms: 300 * SECOND_MS }
}

/// For conflicts: whoever won is done within milliseconds, so a spread is needed and a long wait is not.
fn short_jitter() -> Strategy {
    Strategy::FullJitter { base_ms: 200, min_ms: 20, max_ms: 5 * SECOND_MS }
}

/// For a vanished worker: the others are well, so the task runs again in seconds whatever the queue's strategy is.
fn soon() -> Strategy {
    Strategy::FullJitter { base_ms: SECOND_MS, min_ms: 100, max_ms: 30 * SECOND_MS }
}

/// For a used-up window without a known reset: 5 to 10 minutes at first, 30 to 60 at last.
fn slow_equal_jitter() -> Strategy {
    Strategy::EqualJitter { base_ms: 10 * MINUTE_MS, min_ms: MINUTE_MS, max_ms: 60 * MINUTE_MS }
}
