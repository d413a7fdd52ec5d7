//! A task's own backoff, in place of its queue's, within bounds that the queue sets.

use super::validate::{check_strategy, ordered};
use super::{MAX_DELAY_MS, PolicyError, RetryPolicy, Strategy};
use crate::failure::FailureClass;

const INSTEAD: &str =
    "these are the bounds of the queue (`task_base_min_ms` and `task_cap_max_ms` of its policy)";

impl RetryPolicy {
    /// The least base of a strategy that a task brings with it, in milliseconds: what the policy says, or else the smallest
    /// base of the policy's own strategies. Those that no failure of a dependency uses do not count, nor do those that a class
    /// has by default.
    pub fn task_base_min(&self) -> u64 {
        let own = |class: FailureClass| !self.rule(class).own_counter;
        let classes = self.overrides.iter().filter(|(class, _)| own(**class));
        let all = classes.filter_map(|(_, policy)| policy.strategy.as_ref()).chain([&self.strategy]);
        self.task_base_min_ms.unwrap_or_else(|| all.map(Strategy::base_ms).min().unwrap_or(0))
    }

    /// The highest cap of such a strategy, in milliseconds: what the policy says, or else [`MAX_DELAY_MS`].
    pub fn task_cap_max(&self) -> u64 {
        self.task_cap_max_ms.unwrap_or(MAX_DELAY_MS)
    }

    /// Checks a strategy that a task brings with it. Fields are named by their path, such as `retry.base_ms`.
    ///
    /// # Errors
    ///
    /// A value that no strategy may have, or that the queue does not let its tasks have.
    pub fn check_own(&self, strategy: &Strategy) -> Result<(), PolicyError> {
        let mut found = Vec::new();
        check_strategy("retry", strategy, &mut found);
        let (min_ms, max_ms) = (self.task_base_min(), self.task_cap_max());
        let (base, cap) = strategy.bounded_fields();
        let out = |field: &str, value_ms| PolicyError::DurationOutOfRange {
            field: format!("retry.{field}"),
            value_ms,
            min_ms,
            max_ms,
            instead: INSTEAD,
        };
        if strategy.base_ms() < min_ms {
            found.push(out(base, strategy.base_ms()));
        }
        if strategy.cap_ms() > max_ms {
            found.push(out(cap, strategy.cap_ms()));
        }
        found.into_iter().next().map_or(Ok(()), Err)
    }

    /// The task's own backoff, while the queue lets it have that: its owner's bounds hold for tasks that are there already.
    pub(super) fn own<'a>(&self, strategy: Option<&'a Strategy>) -> Option<&'a Strategy> {
        let within = |strategy: &&Strategy| {
            strategy.base_ms() >= self.task_base_min() && strategy.cap_ms() <= self.task_cap_max()
        };
        strategy.filter(within)
    }

    pub(super) fn check_task_bounds(&self, found: &mut Vec<PolicyError>) {
        for (field, value) in
            [("task_base_min_ms", self.task_base_min_ms), ("task_cap_max_ms", self.task_cap_max_ms)]
        {
            if let Some(value_ms) = value.filter(|value_ms| *value_ms > MAX_DELAY_MS) {
                found.push(PolicyError::DelayTooLong {
                    field: field.to_owned(),
                    value_ms,
                    max_ms: MAX_DELAY_MS,
                });
            }
        }
        match (self.task_base_min_ms, self.task_cap_max_ms) {
            (Some(least_ms), Some(most_ms)) => {
                ordered(("task_base_min_ms", least_ms), ("task_cap_max_ms", most_ms), found);
            }
            (None, Some(most_ms)) if most_ms < self.task_base_min() => {
                found.push(PolicyError::DurationOutOfRange {
                    field: "task_cap_max_ms".to_owned(),
                    value_ms: most_ms,
                    min_ms: self.task_base_min(),
                    max_ms: MAX_DELAY_MS,
                    instead: "below the smallest base of the queue's own strategies no task's backoff would pass; raise it, \
                              or set `task_base_min_ms` lower",
                });
            }
            (_, Some(_) | None) => {}
        }
    }
}

impl Strategy {
    /// The delay after the first failure, in milliseconds, or the highest that it may be where that is drawn: no higher than
    /// the cap. Of a schedule, its shortest.
    pub fn base_ms(&self) -> u64 {
        let base_ms = match self {
            Self::Fixed { delay_ms } => *delay_ms,
            Self::Exponential { multiplier_ms: base_ms, min_ms, max_ms }
            | Self::FullJitter { base_ms, min_ms, max_ms }
            | Self::EqualJitter { base_ms, min_ms, max_ms } => (*base_ms).min(*max_ms).max(*min_ms),
            Self::ExponentialJitter { base_ms, max_ms, .. } => (*base_ms).min(*max_ms),
            Self::Decorrelated { base_ms, cap_ms } => (*base_ms).min(*cap_ms),
            Self::Schedule { delays_ms } => delays_ms.iter().copied().min().unwrap_or(0),
        };
        base_ms.min(MAX_DELAY_MS)
    }

    /// The longest delay that it gives, in milliseconds.
    pub fn cap_ms(&self) -> u64 {
        match self {
            Self::Fixed { delay_ms } => *delay_ms,
            Self::Exponential { min_ms, max_ms, .. }
            | Self::FullJitter { min_ms, max_ms, .. }
            | Self::EqualJitter { min_ms, max_ms, .. } => (*max_ms).max(*min_ms),
            Self::ExponentialJitter { max_ms, .. } => *max_ms,
            Self::Decorrelated { cap_ms, .. } => *cap_ms,
            Self::Schedule { delays_ms } => delays_ms.iter().copied().max().unwrap_or(0),
        }
    }

    /// The fields to blame for too low a base and too high a cap.
    fn bounded_fields(&self) -> (&'static str, &'static str) {
        match self {
            Self::Fixed { .. } => ("delay_ms", "delay_ms"),
            Self::Exponential { .. } => ("multiplier_ms", "max_ms"),
            Self::ExponentialJitter { .. } | Self::FullJitter { .. } | Self::EqualJitter { .. } => {
                ("base_ms", "max_ms")
            }
            Self::Decorrelated { .. } => ("base_ms", "cap_ms"),
            Self::Schedule { .. } => ("delays_ms", "delays_ms"),
        }
    }
}
