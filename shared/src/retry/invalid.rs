//! What may be wrong with a policy.

use super::Risk;
use crate::cost::Cost;
use crate::id::Name;
use crate::limits::COST_MAX_USD;

/// A value that a retry policy may not have. Fields are named by their path, such as
/// `overrides.timeout.strategy.base_ms`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A number that is doubled, or a ceiling, is zero: a loop without delays.
    #[error(
        "{field} is 0 ms, at least 1 ms is needed: doubled or capped, zero stays zero; \
         to retry at once on purpose, use strategy `fixed` with a delay of 0"
    )]
    ZeroDelay {
        /// The field's path.
        field: String,
    },
    /// A delay is longer than any strategy may give.
    #[error(
        "{field} is {value_ms} ms, at most {max_ms} ms (30 days) are allowed: lower it; \
         a task that is to rest for longer can be snoozed"
    )]
    DelayTooLong {
        /// The field's path.
        field: String,
        /// The value, in milliseconds.
        value_ms: u64,
        /// The bound, in milliseconds.
        max_ms: u64,
    },
    /// A lower bound is above its upper bound.
    #[error(
        "{low_field} is {low_ms} ms, at most {high_ms} ms ({high_field}) are allowed: \
         lower the one or raise the other"
    )]
    MinAboveMax {
        /// The path of the lower bound.
        low_field: String,
        /// The lower bound, in milliseconds.
        low_ms: u64,
        /// The path of the upper bound.
        high_field: String,
        /// The upper bound, in milliseconds.
        high_ms: u64,
    },
    /// A schedule without entries.
    #[error(
        "{field} has 0 entries, at least 1 is needed: give the delays, in order; \
         for no retries at all, set max_attempts = 1"
    )]
    EmptySchedule {
        /// The field's path.
        field: String,
    },
    /// A schedule with too many entries.
    #[error(
        "{field} has {len} entries, at most {max_len} are allowed: the last entry repeats, so cut the tail, \
         or use strategy `exponential`"
    )]
    ScheduleTooLong {
        /// The field's path.
        field: String,
        /// The number of entries.
        len: usize,
        /// The bound.
        max_len: usize,
    },
    /// A number of attempts that is zero or beyond the bound.
    #[error(
        "{field} is {value}, 1 to {max} are allowed: 1 means one attempt and no retry; \
         for work that waits long, raise the delays instead of the count"
    )]
    AttemptsOutOfRange {
        /// The field's path.
        field: String,
        /// The value.
        value: u32,
        /// The upper bound.
        max: u32,
    },
    /// A number of attempts that contradicts the policy's risk.
    #[error(
        "{field} is {value}, with risk = \"{risk}\" {min} to {max} are allowed: \
         leave max_attempts out to get {max}, or leave risk out"
    )]
    AttemptsAgainstRisk {
        /// The field's path.
        field: String,
        /// The value.
        value: u32,
        /// The policy's risk.
        risk: Risk,
        /// The fewest attempts at this risk.
        min: u32,
        /// The most attempts at this risk.
        max: u32,
    },
    /// One class may fail more often than all of them together.
    #[error(
        "{field} is {value}, and {total_field} is {total}: all failures together end the task before that one does; \
         lower the one or raise the other"
    )]
    ClassAboveTotal {
        /// The path of the class's number.
        field: String,
        /// The class's number.
        value: u32,
        /// The path of the total.
        total_field: String,
        /// The total.
        total: u32,
    },
    /// A duration outside its bounds.
    #[error("{field} is {value_ms} ms, {min_ms} to {max_ms} ms are allowed: {instead}")]
    DurationOutOfRange {
        /// The field's path.
        field: String,
        /// The value, in milliseconds.
        value_ms: u64,
        /// The lower bound, in milliseconds.
        min_ms: u64,
        /// The upper bound, in milliseconds.
        max_ms: u64,
        /// What to do instead.
        instead: &'static str,
    },
    /// A count outside its bounds.
    #[error("{field} is {value}, {min} to {max} are allowed: {instead}")]
    CountOutOfRange {
        /// The field's path.
        field: String,
        /// The value.
        value: usize,
        /// The lower bound.
        min: usize,
        /// The upper bound.
        max: usize,
        /// What to do instead.
        instead: &'static str,
    },
    /// An amount of money that is nothing, or beyond its bound.
    #[error(
        "{field} is {} US dollars, more than 0 and at most {COST_MAX_USD} are allowed: leave it out for no bound",
        value.usd()
    )]
    AmountOutOfRange {
        /// The field's path.
        field: String,
        /// The value.
        value: Cost,
    },
    /// A chain leads back to where it begins.
    #[error(
        "{field} names `{dependency}` itself, a cycle: a dependency cannot stand in for itself; take it out of its chain"
    )]
    ChainOfItself {
        /// The chain's path.
        field: String,
        /// The dependency.
        dependency: Name,
    },
    /// A chain has a dependency twice.
    #[error(
        "{field} names `{dependency}` twice: routes are taken forwards only, so the second time would never be better; \
         take one out"
    )]
    TwiceInChain {
        /// The chain's path.
        field: String,
        /// The dependency.
        dependency: Name,
    },
}

impl PolicyError {
    /// The path of the field to blame.
    pub fn field(&self) -> &str {
        let (field, _) = self.fields();
        field
    }

    /// The path of the field to blame, and of the one that it contradicts.
    pub fn fields(&self) -> (&str, Option<&str>) {
        match self {
            Self::ZeroDelay { field }
            | Self::DelayTooLong { field, .. }
            | Self::EmptySchedule { field }
            | Self::ScheduleTooLong { field, .. }
            | Self::AttemptsOutOfRange { field, .. }
            | Self::AttemptsAgainstRisk { field, .. }
            | Self::DurationOutOfRange { field, .. }
            | Self::CountOutOfRange { field, .. }
            | Self::AmountOutOfRange { field, .. }
            | Self::ChainOfItself { field, .. }
            | Self::TwiceInChain { field, .. } => (field, None),
            Self::MinAboveMax { low_field, high_field, .. } => (low_field, Some(high_field)),
            Self::ClassAboveTotal { field, total_field, .. } => (field, Some(total_field)),
        }
    }

    /// The same about fields that have other names where the policy was written.
    #[must_use]
    pub fn renamed(mut self, name: impl Fn(&str) -> String) -> Self {
        match &mut self {
            Self::ZeroDelay { field }
            | Self::DelayTooLong { field, .. }
            | Self::EmptySchedule { field }
            | Self::ScheduleTooLong { field, .. }
            | Self::AttemptsOutOfRange { field, .. }
            | Self::AttemptsAgainstRisk { field, .. }
            | Self::DurationOutOfRange { field, .. }
            | Self::CountOutOfRange { field, .. }
            | Self::AmountOutOfRange { field, .. }
            | Self::ChainOfItself { field, .. }
            | Self::TwiceInChain { field, .. } => *field = name(field),
            Self::MinAboveMax { low_field: field, high_field: other, .. }
            | Self::ClassAboveTotal { field, total_field: other, .. } => {
                (*field, *other) = (name(field), name(other));
            }
        }
        self
    }
}
