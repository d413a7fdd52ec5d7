//! The checks of a policy's values, done once, on the way in.

use super::{
    MAX_ATTEMPTS, MAX_CHAIN_LEN, MAX_CHAINS, MAX_DEADLINE_MS, MAX_DEFERRALS, MAX_DELAY_MS, MAX_LEASE_MS,
    MAX_RETENTION_MS, MAX_SCHEDULE_LEN, MAX_TIMEOUT_MS, MIN_LEASE_MS, RetryPolicy, Risk, Strategy,
    class_default,
};
use crate::failure::FailureClass;
use crate::id::Name;

/// A value that a retry policy may not have. Fields are named by their path, such as
/// `overrides.timeout.strategy.base_ms`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A number that is doubled, or a ceiling, is zero: a loop without delays.
    #[error(
        "{field} is 0 ms, at least 1 ms is needed: doubled or capped, zero stays zero; \
         to retry at once on purpose, use strategy `fixed` with delay_ms = 0"
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
        "{field} has 0 entries, at least 1 is needed: give the delays, such as [5000, 300000]; \
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

impl RetryPolicy {
    /// Checks every value of the policy.
    ///
    /// # Errors
    ///
    /// The first value found outside its bounds, or in contradiction to another.
    pub fn validate(&self) -> Result<(), PolicyError> {
        check_strategy("strategy", &self.strategy)?;
        check_attempts("max_attempts", self.max_attempts)?;
        if let Some(risk) = self.risk {
            check_risk(risk, self.max_attempts)?;
        }
        self.check_durations()?;
        self.check_counts()?;
        self.check_chains()?;
        for (class, policy) in &self.overrides {
            if let Some(strategy) = &policy.strategy {
                check_strategy(&format!("overrides.{class}.strategy"), strategy)?;
            }
            if let Some(max_attempts) = policy.max_attempts {
                check_attempts(&format!("overrides.{class}.max_attempts"), max_attempts)?;
            }
            if let Some(failures) = policy.fallback_after {
                check_fallback(*class, failures)?;
            }
        }
        Ok(())
    }

    fn check_counts(&self) -> Result<(), PolicyError> {
        let rows = [
            ("max_deferrals", self.max_deferrals, "leave it out for 10,000"),
            ("max_releases", self.max_releases, "leave it out for 1,000"),
        ];
        let mut given = rows.into_iter().filter_map(|(field, value, instead)| Some((field, value?, instead)));
        given.try_for_each(|(field, value, instead)| {
            within(|| field.to_owned(), value as usize, 1, MAX_DEFERRALS as usize, instead)
        })
    }

    /// Chains do not nest, so that a member is a key of another chain, even of one that names this key, leads nowhere.
    fn check_chains(&self) -> Result<(), PolicyError> {
        let chains = self.fallbacks.len();
        within(|| "fallbacks".to_owned(), chains, 0, MAX_CHAINS, "split the work over several queues")?;
        for (primary, chain) in &self.fallbacks {
            let field = || format!("fallbacks.{primary}");
            let instead = "name those that stand in for it, in order, or leave the chain out";
            within(|| format!("the length of {}", field()), chain.len(), 1, MAX_CHAIN_LEN, instead)?;
            for (place, dependency) in chain.iter().enumerate() {
                let dependency = dependency.clone();
                if dependency == *primary {
                    return Err(PolicyError::ChainOfItself { field: field(), dependency });
                }
                if chain[..place].contains(&dependency) {
                    return Err(PolicyError::TwiceInChain { field: field(), dependency });
                }
            }
        }
        Ok(())
    }

    fn check_durations(&self) -> Result<(), PolicyError> {
        let rows = [
            (
                "deadline_ms",
                self.deadline_ms,
                1,
                MAX_DEADLINE_MS,
                "count it in milliseconds from the enqueue; leave it out for 24 h",
            ),
            (
                "retention_ms",
                self.retention_ms,
                1,
                MAX_RETENTION_MS,
                "leave it out for max(24 h, twice the deadline)",
            ),
            ("timeout_ms", self.timeout_ms, 1, MAX_TIMEOUT_MS, "leave it out for 10 min; split longer work"),
            (
                "lease_ms",
                self.lease_ms,
                MIN_LEASE_MS,
                MAX_LEASE_MS,
                "leave it out for 30 s; workers extend their leases while they run, so it need not cover the work",
            ),
        ];
        for (field, value_ms, min_ms, max_ms, instead) in rows {
            if !(min_ms..=max_ms).contains(&value_ms) {
                let field = field.to_owned();
                return Err(PolicyError::DurationOutOfRange { field, value_ms, min_ms, max_ms, instead });
            }
        }
        Ok(())
    }
}

fn within(
    field: impl FnOnce() -> String,
    value: usize,
    min: usize,
    max: usize,
    instead: &'static str,
) -> Result<(), PolicyError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(PolicyError::CountOutOfRange { field: field(), value, min, max, instead })
}

fn check_fallback(class: FailureClass, failures: u32) -> Result<(), PolicyError> {
    let (max, instead) = match class_default(class).own_counter {
        true => (0, "a vanished worker or a lock says nothing about the dependency; leave it out"),
        false => (MAX_ATTEMPTS as usize, "0 takes no other route, 1 takes it at once"),
    };
    within(|| format!("overrides.{class}.fallback_after"), failures as usize, 0, max, instead)
}

fn check_strategy(path: &str, strategy: &Strategy) -> Result<(), PolicyError> {
    let field = |name: &str| format!("{path}.{name}");
    let at_most = |name: &str, value_ms: u64| match value_ms {
        0..=MAX_DELAY_MS => Ok(()),
        _ => Err(PolicyError::DelayTooLong { field: field(name), value_ms, max_ms: MAX_DELAY_MS }),
    };
    let positive = |name: &str, value_ms: u64| match value_ms {
        0 => Err(PolicyError::ZeroDelay { field: field(name) }),
        _ => at_most(name, value_ms),
    };
    let ordered = |(low, low_ms): (&str, u64), (high, high_ms): (&str, u64)| {
        if low_ms <= high_ms {
            return Ok(());
        }
        Err(PolicyError::MinAboveMax { low_field: field(low), low_ms, high_field: field(high), high_ms })
    };
    match strategy {
        Strategy::Fixed { delay_ms } => at_most("delay_ms", *delay_ms),
        Strategy::Exponential { multiplier_ms, min_ms, max_ms } => {
            positive("multiplier_ms", *multiplier_ms)?;
            positive("max_ms", *max_ms)?;
            ordered(("min_ms", *min_ms), ("max_ms", *max_ms))
        }
        Strategy::ExponentialJitter { base_ms, jitter_ms, max_ms } => {
            positive("base_ms", *base_ms)?;
            at_most("jitter_ms", *jitter_ms)?;
            positive("max_ms", *max_ms)
        }
        Strategy::FullJitter { base_ms, min_ms, max_ms }
        | Strategy::EqualJitter { base_ms, min_ms, max_ms } => {
            positive("base_ms", *base_ms)?;
            positive("max_ms", *max_ms)?;
            ordered(("min_ms", *min_ms), ("max_ms", *max_ms))
        }
        Strategy::Decorrelated { base_ms, cap_ms } => {
            positive("base_ms", *base_ms)?;
            positive("cap_ms", *cap_ms)?;
            ordered(("base_ms", *base_ms), ("cap_ms", *cap_ms))
        }
        Strategy::Schedule { delays_ms } => {
            let (len, max_len) = (delays_ms.len(), MAX_SCHEDULE_LEN);
            match len {
                0 => return Err(PolicyError::EmptySchedule { field: field("delays_ms") }),
                1..=MAX_SCHEDULE_LEN => {}
                _ => return Err(PolicyError::ScheduleTooLong { field: field("delays_ms"), len, max_len }),
            }
            let mut entries = delays_ms.iter().enumerate();
            entries.try_for_each(|(index, delay_ms)| at_most(&format!("delays_ms[{index}]"), *delay_ms))
        }
    }
}

fn check_attempts(field: &str, value: u32) -> Result<(), PolicyError> {
    match value {
        1..=MAX_ATTEMPTS => Ok(()),
        _ => Err(PolicyError::AttemptsOutOfRange { field: field.to_owned(), value, max: MAX_ATTEMPTS }),
    }
}

fn check_risk(risk: Risk, value: u32) -> Result<(), PolicyError> {
    let (min, max) = (risk.min_attempts(), risk.max_attempts());
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(PolicyError::AttemptsAgainstRisk { field: "max_attempts".to_owned(), value, risk, min, max })
}
