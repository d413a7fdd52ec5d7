//! What the tasks of a group cost within a day (UTC), where their queue bounds that. The bound is the queue's, and is handed in:
//! it may change while the day lasts.

use serde::{Deserialize, Serialize};

use super::Gate;
use crate::cost::Cost;

const DAY_MS: i64 = 86_400_000;

/// The last day on which something was spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spend {
    /// Days since the Unix epoch.
    day: i64,
    micros: u64,
    /// A person lifted the bound for that day.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    lifted: bool,
}

/// What was spent today.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// How much.
    pub cost: Cost,
    /// Whether a person lifted the bound until the day is over.
    pub lifted: bool,
    /// When the day is over, in ms since the Unix epoch.
    pub until_ms: i64,
}

impl Gate {
    /// A task cost so much. Sums do not depend on the order in which they are told.
    pub fn spend(&mut self, cost: Cost, at_ms: i64) {
        let day = day_of(at_ms);
        match &mut self.spend {
            Some(spend) if spend.day == day => spend.micros = spend.micros.saturating_add(cost.micros()),
            // That day is over already by another coordinator's clock.
            Some(spend) if spend.day == day.saturating_add(1) => {}
            // The next day; or a clock was set back, and what it had counted is of no day that anybody waits for.
            _ => self.spend = Some(Spend { day, micros: cost.micros(), lifted: false }),
        }
    }

    /// What was spent today, if something was.
    pub fn spent(&self, now_ms: i64) -> Option<Spent> {
        let Spend { day, micros, lifted } = self.spend?;
        // Today may be tomorrow by the clock of whoever told of it.
        let is_today = (0..=1).contains(&day.saturating_sub(day_of(now_ms)));
        let until_ms = day.saturating_add(1).saturating_mul(DAY_MS);
        is_today.then_some(Spent { cost: Cost::from_micros(micros), lifted, until_ms })
    }

    /// Until when nothing passes, where that reached the bound.
    pub fn spent_until_ms(&self, most: Cost, now_ms: i64) -> Option<i64> {
        let spent = self.spent(now_ms)?;
        (!spent.lifted && spent.cost >= most).then_some(spent.until_ms)
    }

    /// A person lifts the bound for the day.
    pub(super) fn lift(&mut self, now_ms: i64) {
        if self.spent(now_ms).is_some()
            && let Some(spend) = &mut self.spend
        {
            spend.lifted = true;
        }
    }
}

/// Whether two moments are of one day.
pub fn is_same_day(one_ms: i64, other_ms: i64) -> bool {
    day_of(one_ms) == day_of(other_ms)
}

fn day_of(at_ms: i64) -> i64 {
    at_ms.div_euclid(DAY_MS)
}
