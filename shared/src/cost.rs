//! Money, counted exactly.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::limits::COST_MAX_USD;

const MICROS_PER_USD: f64 = 1_000_000.0;

/// An amount in US dollars, kept in whole micro-dollars so that sums are exact; a plain number of dollars on the wire. Sums
/// saturate.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(try_from = "f64", into = "f64")]
#[schema(value_type = f64, example = 0.0125)]
pub struct Cost(u64);

/// Why a number is no amount.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{0} is no cost: give US dollars as a number from 0 on")]
pub struct CostError(f64);

impl Cost {
    /// Most that one attempt may cost, and that a task's own bound may be.
    pub const MAX: Self = Self(COST_MAX_USD as u64 * 1_000_000);

    /// So many millionths of a dollar.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// In millionths of a dollar.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// In dollars.
    pub fn usd(self) -> f64 {
        self.0 as f64 / MICROS_PER_USD
    }

    /// Whether it is nothing.
    pub const fn is_zero(&self) -> bool {
        self.0 == 0
    }

    /// Both together, at most the largest amount that there is.
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl TryFrom<f64> for Cost {
    type Error = CostError;

    /// Rounds to the nearest micro-dollar.
    fn try_from(usd: f64) -> Result<Self, CostError> {
        let micros = (usd * MICROS_PER_USD).round();
        if usd.is_finite() && usd >= 0.0 && micros <= u64::MAX as f64 {
            return Ok(Self(micros as u64));
        }
        Err(CostError(usd))
    }
}

impl From<Cost> for f64 {
    fn from(cost: Cost) -> Self {
        cost.usd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_exact_and_travel_as_dollars() {
        let dime: Cost = serde_json::from_str("0.1").unwrap();
        let sum = (0..10).fold(Cost::default(), |sum, _| sum.plus(dime));
        assert_eq!((sum, serde_json::to_string(&sum).unwrap()), (Cost::from_micros(1_000_000), "1.0".into()));
        assert_eq!(serde_json::from_str::<Cost>("2").unwrap().micros(), 2_000_000);
        assert_eq!(serde_json::from_str::<Cost>("0.0000004").unwrap().micros(), 0, "below half a millionth");
        assert_eq!(Cost::from_micros(u64::MAX).plus(dime), Cost::from_micros(u64::MAX));
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for wrong in ["-0.01", "1e300", "\"1\"", "null"] {
            assert!(serde_json::from_str::<Cost>(wrong).is_err(), "{wrong}");
        }
        for wrong in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(Cost::try_from(wrong).is_err());
        }
    }
}
