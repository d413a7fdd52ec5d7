//! A queue's retry settings.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    ClassPolicy, ClassRule, DAY_MS, DEFAULT_RETENTION_FLOOR_MS, MINUTE_MS, PolicyError, SECOND_MS, Strategy,
    class_default,
};
use crate::cost::Cost;
use crate::failure::FailureClass;
use crate::id::Name;
use crate::limits::{DEFERRALS_DEFAULT, RELEASES_DEFAULT};

const DEFAULT_MAX_ATTEMPTS: u32 = 5;
const DEFAULT_DEADLINE_MS: u64 = DAY_MS;
const DEFAULT_TIMEOUT_MS: u64 = 10 * MINUTE_MS;
const DEFAULT_LEASE_MS: u64 = 30 * SECOND_MS;

/// How much harm one attempt too many can do. It bounds the attempts, a task's own `max_attempts` included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Risk {
    /// Reads, drafts, idempotent calls: 3 to 5 attempts.
    Low,
    /// Payments, e-mails, deletions: 1 to 3 attempts.
    High,
}

impl Risk {
    /// The fewest attempts that a policy of this risk may set.
    pub const fn min_attempts(self) -> u32 {
        match self {
            Self::Low => 3,
            Self::High => 1,
        }
    }

    /// The most attempts at this risk; also what a policy gets that leaves `max_attempts` out.
    pub const fn max_attempts(self) -> u32 {
        match self {
            Self::Low => 5,
            Self::High => 3,
        }
    }
}

impl fmt::Display for Risk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Low => "low",
            Self::High => "high",
        })
    }
}

/// How a queue retries. Plain data: reading it checks names and types, [`RetryPolicy::validate`] checks the values.
///
/// Every field may be left out. Two defaults follow other fields when a policy is read: `max_attempts` follows `risk`,
/// and `retention_ms` follows `deadline_ms`. A value built in Rust with `..RetryPolicy::default()` gets the plain ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(from = "Given", default)]
pub struct RetryPolicy {
    /// How harmful one attempt too many is. Default: not stated, no bound beyond `max_attempts`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub risk: Option<Risk>,
    /// Attempts per task, the first one included, 1 to 100. Default 5; with `risk`, its upper bound (low 5, high 3).
    pub max_attempts: u32,
    /// Milliseconds from the enqueue after which no attempt starts, 1 ms to 365 days. Default 24 h.
    pub deadline_ms: u64,
    /// Milliseconds for which a finished task's id is remembered, 1 ms to 730 days. Default max(24 h, 2·`deadline_ms`).
    pub retention_ms: u64,
    /// Milliseconds that one attempt may run, 1 ms to 7 days; a hung handler must not extend its lease for ever.
    /// Default 10 min.
    pub timeout_ms: u64,
    /// Milliseconds that a lease lives without being extended, 1 s to 24 h. Default 30 s.
    pub lease_ms: u64,
    /// How often one task may be put off (snoozed, or held at an isolated dependency) before a person is asked, 1 to
    /// 1,000,000. Default 10,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_deferrals: Option<u32>,
    /// How often one task may be handed back untouched before a person is asked, 1 to 1,000,000. Default 1,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_releases: Option<u32>,
    /// The least base of a strategy that a task brings with it (`retry`), in milliseconds, 0 to 30 days. Default: the smallest
    /// base of this policy's own strategies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_base_min_ms: Option<u64>,
    /// The highest cap of such a strategy, in milliseconds, up to 30 days. Default 30 days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_cap_max_ms: Option<u64>,
    /// What the tasks of one group may cost within a day (UTC), in US dollars, more than 0 and up to 10,000: a group that reached
    /// it waits for midnight. Default: no bound. What has no group is not bounded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_group_cost_usd_per_day: Option<Cost>,
    /// The backoff for classes that have none of their own, neither in `overrides` nor by default.
    pub strategy: Strategy,
    /// What this policy does differently for single failure classes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub overrides: BTreeMap<FailureClass, ClassPolicy>,
    /// Who stands in for a dependency, in order: at most 31 each, and 256 chains. Chains do not nest: a task follows the one
    /// of the dependency that it was enqueued with.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, Vec<String>>)]
    pub fallbacks: BTreeMap<Name, Vec<Name>>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Given::default().into()
    }
}

impl RetryPolicy {
    /// The rule in force for a class: this policy's override, over the class's default.
    pub fn rule(&self, class: FailureClass) -> ClassRule {
        let default = class_default(class);
        match self.overrides.get(&class) {
            Some(policy) => default.overridden_by(policy),
            None => default,
        }
    }

    /// How often one task may be put off.
    pub fn deferrals_allowed(&self) -> u32 {
        self.max_deferrals.unwrap_or(DEFERRALS_DEFAULT)
    }

    /// How often one task may be handed back untouched.
    pub fn releases_allowed(&self) -> u32 {
        self.max_releases.unwrap_or(RELEASES_DEFAULT)
    }

    /// What is wrong with the bound on a group's costs.
    pub(super) fn group_cost_problem(&self) -> Option<PolicyError> {
        let value = self.max_group_cost_usd_per_day.filter(|most| most.is_zero() || *most > Cost::MAX)?;
        Some(PolicyError::AmountOutOfRange { field: "max_group_cost_usd_per_day".to_owned(), value })
    }
}

/// A policy as it was written: what was left out can still be told from what was set.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Given {
    risk: Option<Risk>,
    max_attempts: Option<u32>,
    deadline_ms: Option<u64>,
    retention_ms: Option<u64>,
    timeout_ms: Option<u64>,
    lease_ms: Option<u64>,
    strategy: Strategy,
    overrides: BTreeMap<FailureClass, ClassPolicy>,
    fallbacks: BTreeMap<Name, Vec<Name>>,
    max_deferrals: Option<u32>,
    max_releases: Option<u32>,
    task_base_min_ms: Option<u64>,
    task_cap_max_ms: Option<u64>,
    max_group_cost_usd_per_day: Option<Cost>,
}

impl From<Given> for RetryPolicy {
    fn from(given: Given) -> Self {
        let deadline_ms = given.deadline_ms.unwrap_or(DEFAULT_DEADLINE_MS);
        let default_retention_ms = deadline_ms.saturating_mul(2).max(DEFAULT_RETENTION_FLOOR_MS);
        let default_attempts = given.risk.map_or(DEFAULT_MAX_ATTEMPTS, Risk::max_attempts);
        Self {
            risk: given.risk,
            max_attempts: given.max_attempts.unwrap_or(default_attempts),
            deadline_ms,
            retention_ms: given.retention_ms.unwrap_or(default_retention_ms),
            timeout_ms: given.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS),
            lease_ms: given.lease_ms.unwrap_or(DEFAULT_LEASE_MS),
            strategy: given.strategy,
            overrides: given.overrides,
            fallbacks: given.fallbacks,
            max_deferrals: given.max_deferrals,
            max_releases: given.max_releases,
            task_base_min_ms: given.task_base_min_ms,
            task_cap_max_ms: given.task_cap_max_ms,
            max_group_cost_usd_per_day: given.max_group_cost_usd_per_day,
        }
    }
}
