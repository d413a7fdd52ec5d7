//! What an operator sets on a dependency or a queue.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Highest rate that can be set.
pub const REQUESTS_PER_MINUTE_MAX: u32 = 10_000_000;

/// Most tasks at once that can be set.
pub const MAX_IN_FLIGHT_MAX: u32 = 1_000_000;

/// Limits of one dependency or of one queue, over the whole fleet. Left out: no limit. A queue has the first two alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = GateSettings)]
pub struct Settings {
    /// Tasks that may be handed out in any minute, 1 to 10,000,000. At most a second's worth of them at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
    /// Tasks that may be leased at once, 1 to 1,000,000. Leases that were given before it was set do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u32>,
    /// The retry budget; left out: the default one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
}

/// How many retries a dependency has to bear, as a share of first attempts. An outage is made longer by what its callers
/// add to their ordinary load; the budget bounds that. The idea and the 20 % are those of Finagle's retry budget and of
/// Google's SRE book (chapter 22), which uses 10 %.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = RetryBudget)]
pub struct Budget {
    /// Retries for each first attempt of the last 60 s, 0 to 10. Default 0.2.
    pub ratio: f64,
    /// Retries a second that are always allowed, 0 to 10,000. Default 1.
    pub floor_per_s: f64,
    /// First attempts in the last 60 s below which the budget only watches, 0 to 1,000,000. Default 100.
    pub min_firsts: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { ratio: 0.2, floor_per_s: 1.0, min_firsts: 100 }
    }
}

/// A number that cannot be set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}, but must be {must}")]
pub struct SettingsError {
    /// The field of [`Settings`].
    pub field: &'static str,
    /// What it is.
    pub value: String,
    /// What it may be.
    pub must: &'static str,
}

impl Settings {
    /// Whether what passes has to be counted.
    pub(super) const fn is_counted(&self) -> bool {
        self.requests_per_minute.is_some() || self.max_in_flight.is_some()
    }

    /// Checks every number.
    ///
    /// # Errors
    /// The first that is out of its bounds.
    pub fn validate(&self) -> Result<(), SettingsError> {
        if let Some(per_minute) = self.requests_per_minute {
            let good = (1..=REQUESTS_PER_MINUTE_MAX).contains(&per_minute);
            check("requests_per_minute", per_minute, good, "1 to 10000000, or left out for no limit")?;
        }
        if let Some(most) = self.max_in_flight {
            let good = (1..=MAX_IN_FLIGHT_MAX).contains(&most);
            check("max_in_flight", most, good, "1 to 1000000, or left out for no limit")?;
        }
        let Some(budget) = self.budget else { return Ok(()) };
        check("budget.ratio", budget.ratio, (0.0..=10.0).contains(&budget.ratio), "0 to 10")?;
        let good = (0.0..=10_000.0).contains(&budget.floor_per_s);
        check("budget.floor_per_s", budget.floor_per_s, good, "0 to 10000")?;
        check("budget.min_firsts", budget.min_firsts, budget.min_firsts <= 1_000_000, "0 to 1000000")
    }
}

fn check(
    field: &'static str,
    value: impl ToString,
    good: bool,
    must: &'static str,
) -> Result<(), SettingsError> {
    if good { Ok(()) } else { Err(SettingsError { field, value: value.to_string(), must }) }
}
