//! The backoff formulas.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{MAX_DELAY_MS, MINUTE_MS, SECOND_MS};

const DEFAULT_BASE_MS: u64 = SECOND_MS;
const DEFAULT_MIN_MS: u64 = 100;
const DEFAULT_MAX_MS: u64 = 300 * SECOND_MS;

/// How long to wait before the next attempt.
///
/// `a` is the number of failures so far, counted from 1, so the first retry doubles nothing: `2^(a−1)` = 1. Delays are
/// whole milliseconds; `U(x, y)` is uniform over the integers `x..=y`, and is `x` where `y < x`. No result exceeds
/// [`MAX_DELAY_MS`].
///
/// Sources:
/// * tenacity: `tenacity/wait.py` in <https://github.com/jd/tenacity> (read at commit `c650fb4`).
/// * AWS: "Exponential Backoff And Jitter", AWS Architecture Blog,
///   <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>, and its simulator,
///   <https://github.com/aws-samples/aws-arch-backoff-simulator>. The simulator raises its counter before it waits: its
///   first wait uses `base·2^1`, where ours uses `base·2^0`. To compare figures, give twice its base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "strategy", rename_all = "snake_case", deny_unknown_fields)]
pub enum Strategy {
    /// `delay`. Many tasks that fail together come back together: for tests and for work with its own spread.
    Fixed {
        /// The delay in milliseconds, 0 to 30 days; 0 is "at once". Default 1 s.
        #[serde(default = "default_base_ms")]
        delay_ms: u64,
    },
    /// tenacity's `wait_exponential`: `max(min, min(multiplier·2^(a−1), max))`. No jitter; see [`Strategy::Fixed`].
    Exponential {
        /// The delay after the first failure, in milliseconds, 1 ms to 30 days. Default 1 s.
        #[serde(default = "default_base_ms")]
        multiplier_ms: u64,
        /// The least delay in milliseconds, 0 to `max_ms`. Default 100 ms.
        #[serde(default = "default_min_ms")]
        min_ms: u64,
        /// The largest delay in milliseconds, 1 ms to 30 days. Default 300 s.
        #[serde(default = "default_max_ms")]
        max_ms: u64,
    },
    /// tenacity's `wait_exponential_jitter` without a minimum: `min(base·2^(a−1) + U(0, jitter), max)`.
    ///
    /// This is the `base·2^n + U(0, jitter_max)` that most people know, with `n` the number of the retry counted from 0
    /// (`n = a−1`). The cap covers the sum, as in tenacity, so the jitter is gone once the cap is reached.
    ExponentialJitter {
        /// The fixed part after the first failure, in milliseconds, 1 ms to 30 days. Default 1 s.
        #[serde(default = "default_base_ms")]
        base_ms: u64,
        /// The largest jitter in milliseconds, 0 to 30 days. Default 1 s.
        #[serde(default = "default_base_ms")]
        jitter_ms: u64,
        /// The largest delay in milliseconds, jitter included, 1 ms to 30 days. Default 300 s.
        #[serde(default = "default_max_ms")]
        max_ms: u64,
    },
    /// AWS's full jitter with a floor (tenacity's `wait_random_exponential`): `U(min, min(max, base·2^(a−1)))`.
    ///
    /// The default: of the jittered strategies in AWS's study, it makes the fewest calls.
    FullJitter {
        /// The ceiling after the first failure, in milliseconds, 1 ms to 30 days. Default 1 s.
        #[serde(default = "default_base_ms")]
        base_ms: u64,
        /// The least delay in milliseconds, 0 to `max_ms`. Default 100 ms.
        #[serde(default = "default_min_ms")]
        min_ms: u64,
        /// The largest delay in milliseconds, 1 ms to 30 days. Default 300 s.
        #[serde(default = "default_max_ms")]
        max_ms: u64,
    },
    /// AWS's equal jitter: with `t = min(max, base·2^(a−1))`, `t/2 + U(0, t/2)`.
    ///
    /// In integers: `U(max(min, ⌊t/2⌋), max(min, t))`. A floor above `t/2` narrows the draw instead of piling it up on
    /// the floor, where tasks would meet again.
    EqualJitter {
        /// The ceiling after the first failure, in milliseconds, 1 ms to 30 days. Default 1 s.
        #[serde(default = "default_base_ms")]
        base_ms: u64,
        /// The least delay in milliseconds, 0 to `max_ms`. Default 100 ms.
        #[serde(default = "default_min_ms")]
        min_ms: u64,
        /// The largest delay in milliseconds, 1 ms to 30 days. Default 300 s.
        #[serde(default = "default_max_ms")]
        max_ms: u64,
    },
    /// AWS's decorrelated jitter: `U(base, min(cap, 3·previous))`; the first time, `previous` is `base`.
    ///
    /// AWS writes `min(cap, U(base, 3·previous))`, which gives exactly `cap` more and more often as `previous` nears it.
    /// Here the cap bounds the range instead of the draw, so the spread stays even.
    Decorrelated {
        /// The least delay in milliseconds, 1 ms to `cap_ms`. Default 1 s.
        #[serde(default = "default_base_ms")]
        base_ms: u64,
        /// The largest delay in milliseconds, `base_ms` to 30 days. Default 300 s.
        #[serde(default = "default_max_ms")]
        cap_ms: u64,
    },
    /// The `a`-th entry of the list; the last one repeats. No jitter; see [`Strategy::Fixed`].
    Schedule {
        /// Delays in milliseconds, 1 to 64 of them, each 0 to 30 days. Default 5 s, 5 min, 30 min.
        #[serde(default = "default_schedule_ms")]
        delays_ms: Vec<u64>,
    },
}

impl Default for Strategy {
    /// Full jitter: base 1 s, floor 100 ms, cap 300 s.
    fn default() -> Self {
        Self::FullJitter { base_ms: DEFAULT_BASE_MS, min_ms: DEFAULT_MIN_MS, max_ms: DEFAULT_MAX_MS }
    }
}

impl Strategy {
    /// The name of every strategy, as it is written.
    pub const NAMES: [&str; 7] = [
        "fixed",
        "exponential",
        "exponential_jitter",
        "full_jitter",
        "equal_jitter",
        "decorrelated",
        "schedule",
    ];

    /// Draws the delay before the next attempt, in milliseconds, 0 to [`MAX_DELAY_MS`].
    ///
    /// `attempt` is the number of failures so far, this one included; 0 counts as 1. `previous_delay_ms` is the delay
    /// before the attempt that failed just now; only [`Strategy::Decorrelated`] looks at it. Never panics: settings that
    /// [`validate`](super::RetryPolicy::validate) would refuse give some delay within the bound.
    pub fn delay_ms<R: Rng + ?Sized>(
        &self,
        attempt: u32,
        previous_delay_ms: Option<u64>,
        rng: &mut R,
    ) -> u64 {
        let delay_ms = match self {
            Self::Fixed { delay_ms } => *delay_ms,
            Self::Exponential { multiplier_ms, min_ms, max_ms } => {
                // Not `Ord::clamp`, which panics where min > max; tenacity lets the minimum win there.
                doubled(*multiplier_ms, attempt).min(*max_ms).max(*min_ms)
            }
            Self::ExponentialJitter { base_ms, jitter_ms, max_ms } => {
                doubled(*base_ms, attempt).saturating_add(uniform(0, *jitter_ms, rng)).min(*max_ms)
            }
            Self::FullJitter { base_ms, min_ms, max_ms } => {
                uniform(*min_ms, doubled(*base_ms, attempt).min(*max_ms), rng)
            }
            Self::EqualJitter { base_ms, min_ms, max_ms } => {
                let ceiling_ms = doubled(*base_ms, attempt).min(*max_ms);
                uniform((*min_ms).max(ceiling_ms / 2), ceiling_ms, rng)
            }
            Self::Decorrelated { base_ms, cap_ms } => {
                let previous_ms = previous_delay_ms.unwrap_or(*base_ms);
                uniform((*base_ms).min(*cap_ms), previous_ms.saturating_mul(3).min(*cap_ms), rng)
            }
            Self::Schedule { delays_ms } => {
                let index = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
                // An empty list must not become a loop without delays.
                *delays_ms.get(index).or(delays_ms.last()).unwrap_or(&DEFAULT_BASE_MS)
            }
        };
        delay_ms.min(MAX_DELAY_MS)
    }
}

/// `base·2^(attempt−1)`, saturating. From 2^64 on, any base but zero saturates whatever the exponent.
fn doubled(base_ms: u64, attempt: u32) -> u64 {
    let factor = 1_u64.checked_shl(attempt.saturating_sub(1)).unwrap_or(u64::MAX);
    base_ms.saturating_mul(factor)
}

/// Uniform over the integers `low..=high`; `low` where the range is empty.
pub(super) fn uniform<R: Rng + ?Sized>(low: u64, high: u64, rng: &mut R) -> u64 {
    rng.random_range(low..=high.max(low))
}

fn default_base_ms() -> u64 {
    DEFAULT_BASE_MS
}

fn default_min_ms() -> u64 {
    DEFAULT_MIN_MS
}

fn default_max_ms() -> u64 {
    DEFAULT_MAX_MS
}

fn default_schedule_ms() -> Vec<u64> {
    vec![5 * SECOND_MS, 5 * MINUTE_MS, 30 * MINUTE_MS]
}
