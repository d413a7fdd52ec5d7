//! The numbers of a breaker, and what they may be.

use std::fmt::Display;
use std::ops::RangeBounds;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// Most outcomes that are kept one by one; more are counted by the window's buckets.
const RECENT_OUTCOMES_MAX: u32 = 1_000;

/// How one breaker behaves. Every number has a default; [`validate`](Self::validate) says what each may be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerConfig {
    /// Length of the window, in milliseconds: 1 s to 1 h. Default 60 s.
    pub window_ms: u64,
    /// Buckets in the window, 1 to 120, dividing it evenly; more make it slide more smoothly. Default 12.
    pub buckets: u32,
    /// The sample holds at least this many of the last outcomes, so that an agent with little traffic can trip too.
    /// 0 turns that off; otherwise at least `min_outcomes`, enough to trip it if all of them failed, and at most 1,000.
    /// Default 8.
    pub recent_outcomes: u32,
    /// Outcomes older than this never count, in milliseconds: `window_ms` to 24 h. Default 1 h.
    pub recent_max_age_ms: u64,
    /// It trips at this share of failures, above 0 up to 1. Default 0.5.
    pub failure_rate: f64,
    /// It never trips on fewer outcomes than this, 1 to 10,000. Default 5.
    pub min_outcomes: u32,
    /// It trips only if so many more calls failed (or were slow) than their share, 0 to 100: at
    /// `failure_rate · outcomes + trip_margin` failures. So a few failures by chance do not trip it; the module's page
    /// has the odds. 0 is the bare rate. Default 3.
    pub trip_margin: f64,
    /// A call that takes this long or longer is slow, in milliseconds. Default: no call is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_call_ms: Option<u64>,
    /// It trips at this share of slow calls, above 0 up to 1; only with `slow_call_ms`. Default 0.5.
    pub slow_call_rate: f64,
    /// How long it stays open the first time, in milliseconds, 1 to `open_max_ms`. Default 30 s.
    pub open_ms: u64,
    /// The longest that it stays open, before jitter, in milliseconds, up to 24 h. Default 300 s.
    pub open_max_ms: u64,
    /// Each opening in a row is this many times as long as the one before, 1 to 10. Default 2.
    pub open_factor: u32,
    /// Up to this share is added to the time open, at random, 0 to 1. Default 0.2.
    pub open_jitter: f64,
    /// A probe that has not reported after this long has failed, in milliseconds, up to 24 h. It must be longer than a
    /// call may take, or a slow but healthy dependency would never be let back. Default 630 s: the attempt time-out of
    /// 600 s and one lease.
    pub probe_deadline_ms: u64,
    /// It closes after this many probes in a row that succeeded, 1 to 100. Default 1.
    pub probe_successes: u32,
    /// After this long closed the next opening counts as the first again, in milliseconds, up to 24 h. Default 600 s.
    pub trips_reset_ms: u64,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            window_ms: 60_000,
            buckets: 12,
            recent_outcomes: 8,
            recent_max_age_ms: HOUR_MS,
            failure_rate: 0.5,
            min_outcomes: 5,
            trip_margin: 3.0,
            slow_call_ms: None,
            slow_call_rate: 0.5,
            open_ms: 30_000,
            open_max_ms: 300_000,
            open_factor: 2,
            open_jitter: 0.2,
            probe_deadline_ms: 630_000,
            probe_successes: 1,
            trips_reset_ms: 600_000,
        }
    }
}

/// A number that a breaker cannot work with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("breaker.{field} is {value}, but must be {must}")]
pub struct BreakerConfigError {
    /// The field of [`BreakerConfig`].
    pub field: &'static str,
    /// What it is.
    pub value: String,
    /// What it may be.
    pub must: String,
}

impl BreakerConfig {
    /// Checks every number by itself and against the others.
    ///
    /// # Errors
    /// The first number that is out of its bounds, in the order of the fields.
    pub fn validate(&self) -> Result<(), BreakerConfigError> {
        self.validate_window()?;
        self.validate_rates()?;
        self.validate_margin()?;
        self.validate_waits()
    }

    fn validate_window(&self) -> Result<(), BreakerConfigError> {
        check("window_ms", self.window_ms, 1_000..=HOUR_MS, "1000 to 3600000 (1 h)")?;
        check("buckets", self.buckets, 1..=120, "1 to 120")?;
        if !self.window_ms.is_multiple_of(u64::from(self.buckets)) {
            return refuse("buckets", self.buckets, &format!("a divisor of window_ms ({})", self.window_ms));
        }
        check("min_outcomes", self.min_outcomes, 1..=10_000, "1 to 10000")?;
        check("recent_outcomes", self.recent_outcomes, 0..=RECENT_OUTCOMES_MAX, "0 to 1000")?;
        if self.recent_outcomes != 0 && self.recent_outcomes < self.min_outcomes {
            let must = format!(
                "0 (off) or at least min_outcomes ({}): fewer could never trip it",
                self.min_outcomes
            );
            return refuse("recent_outcomes", self.recent_outcomes, &must);
        }
        let must = format!("window_ms ({}) to {DAY_MS} (24 h)", self.window_ms);
        check("recent_max_age_ms", self.recent_max_age_ms, self.window_ms..=DAY_MS, &must)
    }

    fn validate_rates(&self) -> Result<(), BreakerConfigError> {
        check_rate("failure_rate", self.failure_rate)?;
        if let Some(slow_call_ms) = self.slow_call_ms {
            check("slow_call_ms", slow_call_ms, 1..=DAY_MS, "1 to 86400000 (24 h), or left out")?;
        }
        check_rate("slow_call_rate", self.slow_call_rate)
    }

    /// A margin must be within reach: of a rate below 1, and of the sample of an agent with little traffic.
    fn validate_margin(&self) -> Result<(), BreakerConfigError> {
        check("trip_margin", self.trip_margin, 0.0..=100.0, "0 to 100")?;
        let slow_rate = self.slow_call_ms.map(|_| ("slow_call_rate", self.slow_call_rate));
        for (field, rate) in [("failure_rate", self.failure_rate)].into_iter().chain(slow_rate) {
            if self.trip_margin > 0.0 && rate == 1.0 {
                let must = format!("0 where {field} is 1: no call fails beyond that, so it could never trip");
                return refuse("trip_margin", self.trip_margin, &must);
            }
            let recent = self.recent_outcomes;
            if recent != 0 && !self.is_tripped_by(recent, recent, rate) {
                let enough = (1..=RECENT_OUTCOMES_MAX).find(|all| self.is_tripped_by(*all, *all, rate));
                let enough = enough.map_or(String::new(), |enough| format!(" or at least {enough}"));
                let must = format!(
                    "0 (off){enough}: with this trip_margin and {field} fewer could never trip it, all of them failed"
                );
                return refuse("recent_outcomes", recent, &must);
            }
        }
        Ok(())
    }

    fn validate_waits(&self) -> Result<(), BreakerConfigError> {
        check("open_max_ms", self.open_max_ms, 1..=DAY_MS, "1 to 86400000 (24 h)")?;
        let must = format!("1 to open_max_ms ({})", self.open_max_ms);
        check("open_ms", self.open_ms, 1..=self.open_max_ms, &must)?;
        check("open_factor", self.open_factor, 1..=10, "1 to 10")?;
        check("open_jitter", self.open_jitter, 0.0..=1.0, "0 to 1")?;
        check("probe_deadline_ms", self.probe_deadline_ms, 1..=DAY_MS, "1 to 86400000 (24 h)")?;
        check("probe_successes", self.probe_successes, 1..=100, "1 to 100")?;
        check("trips_reset_ms", self.trips_reset_ms, 1..=DAY_MS, "1 to 86400000 (24 h)")
    }
}

impl BreakerConfig {
    /// Whether so many bad calls among so many trip it at this rate. A quotient is compared, not a product: with no
    /// margin 3 of 5 are then exactly the `0.6` that somebody configured.
    pub(super) fn is_tripped_by(&self, bad: u32, outcomes: u32, rate: f64) -> bool {
        outcomes != 0 && (f64::from(bad) - self.trip_margin) / f64::from(outcomes) >= rate
    }
}

/// A number that is not a number lies in no range, and is refused with the rest.
fn check<T: PartialOrd + Display>(
    field: &'static str,
    value: T,
    allowed: impl RangeBounds<T>,
    must: &str,
) -> Result<(), BreakerConfigError> {
    if allowed.contains(&value) { Ok(()) } else { refuse(field, value, must) }
}

fn check_rate(field: &'static str, value: f64) -> Result<(), BreakerConfigError> {
    check(field, value, f64::MIN_POSITIVE..=1.0, "above 0 and at most 1")
}

fn refuse(field: &'static str, value: impl Display, must: &str) -> Result<(), BreakerConfigError> {
    Err(BreakerConfigError { field, value: value.to_string(), must: must.to_owned() })
}
