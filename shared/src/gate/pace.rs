//! A rate with a burst: the generic cell rate algorithm (ITU-T I.371, annex A), which needs one number.

use serde::{Deserialize, Serialize};

const SECOND_US: f64 = 1_000_000.0;

/// How fast, and how many at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rate {
    /// Calls a second, above 0.
    pub per_s: f64,
    /// Calls at once after a pause, at least 1.
    pub burst: u32,
}

impl Rate {
    /// A rate that lets a tenth of a second's worth through at once, and at least one call: enough for who looks ten times a
    /// second, and little where it turns out to be too much.
    pub fn smooth(per_s: f64) -> Self {
        Self { per_s, burst: ((per_s / 10.0).min(1e6) as u32).max(1) }
    }

    fn step_us(self) -> i64 {
        (SECOND_US / self.per_s.max(1e-9)).ceil() as i64
    }

    fn slack_us(self) -> i64 {
        self.step_us().saturating_mul(i64::from(self.burst.max(1)))
    }
}

/// What was let through so far, as the moment (µs) at which the rate has caught up with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Pace {
    caught_up_us: i64,
}

impl Pace {
    /// Lets up to `wanted` through; returns how many.
    pub fn take(&mut self, wanted: u32, rate: Rate, now_us: i64) -> u32 {
        let step_us = rate.step_us().max(1);
        let from_us = self.caught_up_us.max(now_us);
        let room_us = now_us.saturating_add(rate.slack_us()).saturating_sub(from_us);
        let room = u32::try_from((room_us / step_us).max(0)).unwrap_or(u32::MAX);
        let granted = wanted.min(room);
        self.caught_up_us = from_us.saturating_add(step_us.saturating_mul(i64::from(granted)));
        granted
    }

    /// The clock was set back by so much.
    pub fn set_back(&mut self, by_ms: i64) {
        self.caught_up_us = self.caught_up_us.saturating_sub(by_ms.saturating_mul(1_000));
    }

    /// Takes back what was not used.
    pub fn give_back(&mut self, unused: u32, rate: Rate) {
        self.caught_up_us =
            self.caught_up_us.saturating_sub(rate.step_us().saturating_mul(i64::from(unused)));
    }

    /// When one more may pass (µs); that may be over.
    pub fn next_us(self, rate: Rate) -> i64 {
        self.caught_up_us.saturating_add(rate.step_us()).saturating_sub(rate.slack_us())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_passes_at_once_and_the_rest_at_the_rate() {
        let (mut pace, rate) = (Pace::default(), Rate { per_s: 10.0, burst: 3 });
        assert_eq!(pace.take(5, rate, 1_000_000), 3);
        assert_eq!(pace.take(1, rate, 1_099_999), 0);
        assert_eq!(pace.next_us(rate), 1_100_000);
        assert_eq!(pace.take(5, rate, 1_100_000), 1);
        assert_eq!(pace.take(5, rate, 9_000_000), 3, "a pause is worth a burst, not more");
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let (mut pace, rate) = (Pace::default(), Rate { per_s: 1.0, burst: 2 });
        assert_eq!(pace.take(2, rate, 0), 2);
        pace.give_back(1, rate);
        assert_eq!(pace.take(2, rate, 0), 1);
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_sees_more_than_its_rate_and_one_burst(
            per_s in 0.1_f64..500.0,
            burst in 1_u32..50,
            asks in prop::collection::vec((0_i64..400_000, 1_u32..20), 1..200),
        ) {
            let (mut pace, rate) = (Pace::default(), Rate { per_s, burst });
            let (mut now_us, mut granted) = (0, Vec::new());
            for (wait_us, wanted) in asks {
                now_us += wait_us;
                granted.push((now_us, pace.take(wanted, rate, now_us)));
            }
            for (from, (start_us, _)) in granted.iter().enumerate() {
                let mut sum = 0_u32;
                for (at_us, count) in &granted[from..] {
                    sum += count;
                    let allowed = (at_us - start_us) as f64 / SECOND_US * per_s + f64::from(burst);
                    // A step is whole microseconds, rounded down.
                    prop_assert!(f64::from(sum) <= allowed * 1.001 + 1e-6, "{sum} > {allowed}");
                }
            }
        }
    }
}
