//! The checks of a policy's values, done once, on the way in.

use std::ops::RangeInclusive;

use super::invalid::PolicyError;
use super::{
    MAX_ATTEMPTS, MAX_CHAIN_LEN, MAX_CHAINS, MAX_DEADLINE_MS, MAX_DEFERRALS, MAX_DELAY_MS, MAX_LEASE_MS,
    MAX_RETENTION_MS, MAX_SCHEDULE_LEN, MAX_TIMEOUT_MS, MIN_LEASE_MS, RetryPolicy, Risk, Strategy,
    class_default,
};
use crate::failure::FailureClass;

impl RetryPolicy {
    /// Checks every value of the policy.
    ///
    /// # Errors
    ///
    /// The first value found outside its bounds, or in contradiction to another.
    pub fn validate(&self) -> Result<(), PolicyError> {
        self.problems().into_iter().next().map_or(Ok(()), Err)
    }

    /// Everything for which [`RetryPolicy::validate`] refuses the policy.
    pub fn problems(&self) -> Vec<PolicyError> {
        let mut found = Vec::new();
        check_strategy("strategy", &self.strategy, &mut found);
        if check_attempts("max_attempts", self.max_attempts, &mut found)
            && let Some(risk) = self.risk
        {
            check_risk(risk, self.max_attempts, &mut found);
        }
        self.check_durations(&mut found);
        self.check_counts(&mut found);
        found.extend(self.group_cost_problem());
        self.check_chains(&mut found);
        self.check_task_bounds(&mut found);
        for (class, policy) in &self.overrides {
            if let Some(strategy) = &policy.strategy {
                check_strategy(&format!("overrides.{class}.strategy"), strategy, &mut found);
            }
            if let Some(max_attempts) = policy.max_attempts {
                check_attempts(&format!("overrides.{class}.max_attempts"), max_attempts, &mut found);
            }
            if let Some(failures) = policy.fallback_after {
                check_fallback(*class, failures, &mut found);
            }
        }
        found
    }

    fn check_counts(&self, found: &mut Vec<PolicyError>) {
        let rows = [
            ("max_deferrals", self.max_deferrals, "leave it out for 10,000"),
            ("max_releases", self.max_releases, "leave it out for 1,000"),
        ];
        for (field, value, instead) in rows {
            if let Some(value) = value {
                within(field, value as usize, 1..=MAX_DEFERRALS as usize, instead, found);
            }
        }
    }

    /// Chains do not nest, so that a member is a key of another chain, even of one that names this key, leads nowhere.
    fn check_chains(&self, found: &mut Vec<PolicyError>) {
        let instead = "split the work over several queues";
        within("fallbacks", self.fallbacks.len(), 0..=MAX_CHAINS, instead, found);
        for (primary, chain) in &self.fallbacks {
            let field = format!("fallbacks.{primary}");
            let instead = "name those that stand in for it, in order, or leave the chain out";
            within(&field, chain.len(), 1..=MAX_CHAIN_LEN, instead, found);
            for (place, dependency) in chain.iter().enumerate() {
                let (field, dependency) = (field.clone(), dependency.clone());
                if dependency == *primary {
                    found.push(PolicyError::ChainOfItself { field, dependency });
                } else if chain[..place].contains(&dependency) {
                    found.push(PolicyError::TwiceInChain { field, dependency });
                }
            }
        }
    }

    /// What is within all bounds, works, and can hardly be meant: a backoff that begins above its own ceiling, a lease
    /// that outlives the attempt that it covers, a class that may fail more often than the task. Programs may do so
    /// (a lease covers the queue of a consumer that cannot extend it; a task may raise its own total), and a file that a
    /// person wrote is asked what it means.
    pub fn contradictions(&self) -> Vec<PolicyError> {
        let mut found = Vec::new();
        begins_below_its_ceiling("strategy", &self.strategy, &mut found);
        // Short attempts under the lease that everybody has by default are no contradiction.
        if self.lease_ms != RetryPolicy::default().lease_ms {
            ordered(("lease_ms", self.lease_ms), ("timeout_ms", self.timeout_ms), &mut found);
        }
        for (class, policy) in &self.overrides {
            if let Some(strategy) = &policy.strategy {
                begins_below_its_ceiling(&format!("overrides.{class}.strategy"), strategy, &mut found);
            }
            match policy.max_attempts {
                Some(value) if value > self.max_attempts && !self.rule(*class).own_counter => {
                    found.push(PolicyError::ClassAboveTotal {
                        field: format!("overrides.{class}.max_attempts"),
                        value,
                        total_field: "max_attempts".to_owned(),
                        total: self.max_attempts,
                    });
                }
                _ => {}
            }
        }
        found
    }

    fn check_durations(&self, found: &mut Vec<PolicyError>) {
        let rows = [
            (
                "deadline_ms",
                self.deadline_ms,
                1,
                MAX_DEADLINE_MS,
                "count it from the enqueue; leave it out for 24 h",
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
                found.push(PolicyError::DurationOutOfRange { field, value_ms, min_ms, max_ms, instead });
            }
        }
    }
}

fn within(
    field: &str,
    value: usize,
    bounds: RangeInclusive<usize>,
    instead: &'static str,
    found: &mut Vec<PolicyError>,
) {
    if !bounds.contains(&value) {
        let (field, min, max) = (field.to_owned(), *bounds.start(), *bounds.end());
        found.push(PolicyError::CountOutOfRange { field, value, min, max, instead });
    }
}

fn check_fallback(class: FailureClass, failures: u32, found: &mut Vec<PolicyError>) {
    let (max, instead) = match class_default(class).own_counter {
        true => (0, "a vanished worker or a lock says nothing about the dependency; leave it out"),
        false => (MAX_ATTEMPTS as usize, "0 takes no other route, 1 takes it at once"),
    };
    within(&format!("overrides.{class}.fallback_after"), failures as usize, 0..=max, instead, found);
}

/// What of a strategy is refused.
struct Checked<'a> {
    path: &'a str,
    found: &'a mut Vec<PolicyError>,
}

impl Checked<'_> {
    fn field(&self, name: &str) -> String {
        format!("{}.{name}", self.path)
    }

    fn at_most(&mut self, name: &str, value_ms: u64) {
        if value_ms > MAX_DELAY_MS {
            let field = self.field(name);
            self.found.push(PolicyError::DelayTooLong { field, value_ms, max_ms: MAX_DELAY_MS });
        }
    }

    fn positive(&mut self, name: &str, value_ms: u64) {
        match value_ms {
            0 => self.found.push(PolicyError::ZeroDelay { field: self.field(name) }),
            _ => self.at_most(name, value_ms),
        }
    }

    fn ordered(&mut self, (low, low_ms): (&str, u64), (high, high_ms): (&str, u64)) {
        let (low, high) = (self.field(low), self.field(high));
        ordered((&low, low_ms), (&high, high_ms), self.found);
    }
}

pub(super) fn ordered(
    (low, low_ms): (&str, u64),
    (high, high_ms): (&str, u64),
    found: &mut Vec<PolicyError>,
) {
    if low_ms > high_ms {
        let (low_field, high_field) = (low.to_owned(), high.to_owned());
        found.push(PolicyError::MinAboveMax { low_field, low_ms, high_field, high_ms });
    }
}

pub(super) fn check_strategy(path: &str, strategy: &Strategy, found: &mut Vec<PolicyError>) {
    let mut checked = Checked { path, found };
    match strategy {
        Strategy::Fixed { delay_ms } => checked.at_most("delay_ms", *delay_ms),
        Strategy::Exponential { multiplier_ms, min_ms, max_ms } => {
            checked.positive("multiplier_ms", *multiplier_ms);
            checked.positive("max_ms", *max_ms);
            checked.ordered(("min_ms", *min_ms), ("max_ms", *max_ms));
        }
        Strategy::ExponentialJitter { base_ms, jitter_ms, max_ms } => {
            checked.positive("base_ms", *base_ms);
            checked.at_most("jitter_ms", *jitter_ms);
            checked.positive("max_ms", *max_ms);
        }
        Strategy::FullJitter { base_ms, min_ms, max_ms }
        | Strategy::EqualJitter { base_ms, min_ms, max_ms } => {
            checked.positive("base_ms", *base_ms);
            checked.positive("max_ms", *max_ms);
            checked.ordered(("min_ms", *min_ms), ("max_ms", *max_ms));
        }
        Strategy::Decorrelated { base_ms, cap_ms } => {
            checked.positive("base_ms", *base_ms);
            checked.positive("cap_ms", *cap_ms);
            checked.ordered(("base_ms", *base_ms), ("cap_ms", *cap_ms));
        }
        Strategy::Schedule { delays_ms } => {
            let (len, max_len) = (delays_ms.len(), MAX_SCHEDULE_LEN);
            let field = checked.field("delays_ms");
            match len {
                0 => checked.found.push(PolicyError::EmptySchedule { field }),
                1..=MAX_SCHEDULE_LEN => {
                    for (index, delay_ms) in delays_ms.iter().enumerate() {
                        checked.at_most(&format!("delays_ms[{index}]"), *delay_ms);
                    }
                }
                _ => checked.found.push(PolicyError::ScheduleTooLong { field, len, max_len }),
            }
        }
    }
}

fn begins_below_its_ceiling(path: &str, strategy: &Strategy, found: &mut Vec<PolicyError>) {
    let mut checked = Checked { path, found };
    match strategy {
        Strategy::Exponential { multiplier_ms, max_ms, .. } => {
            checked.ordered(("multiplier_ms", *multiplier_ms), ("max_ms", *max_ms));
        }
        Strategy::ExponentialJitter { base_ms, max_ms, .. }
        | Strategy::FullJitter { base_ms, max_ms, .. }
        | Strategy::EqualJitter { base_ms, max_ms, .. } => {
            checked.ordered(("base_ms", *base_ms), ("max_ms", *max_ms));
        }
        // Decorrelated jitter is refused for it.
        Strategy::Decorrelated { .. } | Strategy::Fixed { .. } | Strategy::Schedule { .. } => {}
    }
}

/// Whether the number is within its bounds.
fn check_attempts(field: &str, value: u32, found: &mut Vec<PolicyError>) -> bool {
    let within = (1..=MAX_ATTEMPTS).contains(&value);
    if !within {
        found.push(PolicyError::AttemptsOutOfRange { field: field.to_owned(), value, max: MAX_ATTEMPTS });
    }
    within
}

fn check_risk(risk: Risk, value: u32, found: &mut Vec<PolicyError>) {
    let (min, max) = (risk.min_attempts(), risk.max_attempts());
    if !(min..=max).contains(&value) {
        let field = "max_attempts".to_owned();
        found.push(PolicyError::AttemptsAgainstRisk { field, value, risk, min, max });
    }
}
