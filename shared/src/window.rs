//! The sliding window under the breaker: how the last calls went.
//!
//! The sample that the breaker judges is the **longer** of two ends of the same sequence of outcomes:
//!
//! - **by time**: every outcome of the last `window_ms` (60 s), kept as counts in a ring of buckets;
//! - **by number**: the last `recent_outcomes` (8), however old, up to `recent_max_age_ms` (1 h).
//!
//! Time alone is blind to an agent that makes one call a minute: it could fail for ever and never show six outcomes
//! in one window. Number alone is blind to a busy agent: eight outcomes are a tenth of a second there, and one burst of
//! bad luck would trip it. Both are ends of one sequence, so their union is simply the longer one: a busy agent is
//! judged by its last minute, a quiet one by its last eight outcomes. The age limit keeps a failure of yesterday from
//! adding up with one of today. It is an hour because six attempts that each run into the ten-minute attempt time-out
//! end within fifty minutes, and exactly that agent must still trip.
//!
//! Buckets are aligned to the clock: an outcome at `t` lies in bucket `floor(t / bucket_ms)`, and the window at `now`
//! is the bucket of `now` and the `buckets − 1` before it. An outcome therefore leaves when its age is between
//! `window_ms − bucket_ms` (exclusive) and `window_ms` (inclusive). Memory is constant, whatever the traffic.
//!
//! The window never goes back: a time earlier than the latest counts as the latest. A clock that can step back is put
//! through [`Timeline`] first, so that a long step does not hold the window still.

use std::collections::VecDeque;

/// A step back of less than this (ms) is two callers who read the clock in one order and arrived in the other: time
/// stands still for it. A longer one is a clock that was set back: time goes on from where it was.
const STEP_BACK_MS: i64 = 1_000;

/// Readings are held within ±2^53 ms (285,000 years): one absurd reading must not park time at the end of an `i64`.
const READING_MAX_MS: i64 = 1 << 53;

/// Turns the readings of a clock that may step back into time that never does.
///
/// A reading becomes `reading + shift`, where the shift is 0 until the clock steps back and then grows by the step. So a
/// clock set back by an hour costs nothing: what was to happen in 20 s still happens in 20 s. A clock that jumps forward
/// is believed: it cannot be told from a machine that slept.
#[derive(Debug, Clone)]
pub struct Timeline {
    shift_ms: i64,
    latest_ms: i64,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { shift_ms: 0, latest_ms: i64::MIN }
    }
}

impl Timeline {
    /// Takes a reading of the clock (ms) and returns the time (ms), never less than before.
    pub fn advance(&mut self, reading_ms: i64) -> i64 {
        let reading_ms = reading_ms.clamp(-READING_MAX_MS, READING_MAX_MS);
        let time_ms = reading_ms.saturating_add(self.shift_ms);
        if time_ms >= self.latest_ms {
            self.latest_ms = time_ms;
        } else if self.latest_ms.saturating_sub(time_ms) >= STEP_BACK_MS {
            self.shift_ms = self.latest_ms.saturating_sub(reading_ms);
        }
        self.latest_ms
    }

    /// What the caller's clock shows at this time (ms), as far as is known now.
    pub fn reading_ms(&self, time_ms: i64) -> i64 {
        time_ms.saturating_sub(self.shift_ms)
    }
}

/// How one counted call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It worked.
    Success,
    /// It failed in a way that speaks against the dependency.
    Failure,
}

/// How many calls ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls that worked.
    pub successes: u32,
    /// Calls that failed.
    pub failures: u32,
    /// Calls that took too long, whether they worked or failed: at most `outcomes()`.
    pub slow: u32,
}

impl Counts {
    /// All calls counted.
    pub fn outcomes(self) -> u32 {
        self.successes.saturating_add(self.failures)
    }

    fn add(&mut self, mark: Mark, slow: bool) {
        let counter = match mark {
            Mark::Success => &mut self.successes,
            Mark::Failure => &mut self.failures,
        };
        *counter = counter.saturating_add(1);
        self.slow = self.slow.saturating_add(u32::from(slow));
    }

    fn merge(mut self, other: Self) -> Self {
        self.successes = self.successes.saturating_add(other.successes);
        self.failures = self.failures.saturating_add(other.failures);
        self.slow = self.slow.saturating_add(other.slow);
        self
    }
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Which stretch of time this holds; one that is not within the window is stale, and is overwritten when its turn
    /// comes. So nothing has to be swept while nobody calls.
    index: i64,
    counts: Counts,
}

#[derive(Debug, Clone, Copy)]
struct Recent {
    at_ms: i64,
    mark: Mark,
    slow: bool,
}

/// The last calls, by time and by number. See the module's page for what exactly is in the sample.
#[derive(Debug, Clone)]
pub struct Window {
    bucket_ms: i64,
    buckets: Box<[Bucket]>,
    recent: VecDeque<Recent>,
    recent_outcomes: usize,
    recent_max_age_ms: i64,
    latest_ms: i64,
}

impl Window {
    /// A window of `window_ms` in `buckets` equal buckets, or of the last `recent_outcomes` (0 = by time only) that are
    /// at most `recent_max_age_ms` old, whichever is more. Numbers below 1 are taken as 1.
    pub fn new(window_ms: u64, buckets: u32, recent_outcomes: u32, recent_max_age_ms: u64) -> Self {
        let buckets = buckets.max(1);
        let empty = Bucket { index: i64::MIN, counts: Counts::default() };
        Self {
            bucket_ms: i64::try_from(window_ms / u64::from(buckets)).unwrap_or(i64::MAX).max(1),
            buckets: vec![empty; buckets as usize].into_boxed_slice(),
            recent: VecDeque::new(),
            recent_outcomes: recent_outcomes as usize,
            recent_max_age_ms: i64::try_from(recent_max_age_ms).unwrap_or(i64::MAX),
            latest_ms: i64::MIN,
        }
    }

    /// Counts one call that ended at `now_ms`.
    pub fn record(&mut self, now_ms: i64, mark: Mark, slow: bool) {
        let at_ms = now_ms.max(self.latest_ms);
        self.latest_ms = at_ms;

        let index = at_ms.div_euclid(self.bucket_ms);
        let slot = index.rem_euclid(self.buckets.len() as i64) as usize;
        let bucket = &mut self.buckets[slot];
        if bucket.index != index {
            *bucket = Bucket { index, counts: Counts::default() };
        }
        bucket.counts.add(mark, slow);

        self.recent.push_back(Recent { at_ms, mark, slow });
        if self.recent.len() > self.recent_outcomes {
            self.recent.pop_front();
        }
    }

    /// The sample at `now_ms`: the outcomes of the window, or the last few where those are more.
    pub fn counts(&self, now_ms: i64) -> Counts {
        let now_ms = now_ms.max(self.latest_ms);
        let by_time = self.counts_by_time(now_ms);
        let by_number = self.counts_by_number(now_ms);
        if by_number.outcomes() > by_time.outcomes() { by_number } else { by_time }
    }

    /// Forgets every outcome. Time stays where it is.
    pub fn clear(&mut self) {
        self.buckets.fill(Bucket { index: i64::MIN, counts: Counts::default() });
        self.recent.clear();
    }

    fn counts_by_time(&self, now_ms: i64) -> Counts {
        let newest = now_ms.div_euclid(self.bucket_ms);
        let oldest = newest.saturating_sub(self.buckets.len() as i64 - 1);
        let live = self.buckets.iter().filter(|bucket| bucket.index >= oldest);
        live.fold(Counts::default(), |sum, bucket| sum.merge(bucket.counts))
    }

    fn counts_by_number(&self, now_ms: i64) -> Counts {
        let fresh = |recent: &&Recent| now_ms.saturating_sub(recent.at_ms) <= self.recent_max_age_ms;
        self.recent.iter().filter(fresh).fold(Counts::default(), |mut sum, recent| {
            sum.add(recent.mark, recent.slow);
            sum
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE_MS: i64 = 60_000;
    const HOUR_MS: i64 = 3_600_000;

    fn window() -> Window {
        Window::new(60_000, 12, 5, 3_600_000)
    }

    fn by_time_only() -> Window {
        Window::new(60_000, 12, 0, 3_600_000)
    }

    #[test]
    fn an_outcome_counts_for_a_minute_and_then_no_more() {
        let mut window = by_time_only();
        window.record(2_000, Mark::Failure, true);
        assert_eq!(window.counts(2_000), Counts { successes: 0, failures: 1, slow: 1 });
        assert_eq!(window.counts(59_999).failures, 1);
        assert_eq!(window.counts(60_000).failures, 0, "its bucket (0 to 5 s) has left the window");
    }

    #[test]
    fn a_slot_used_again_forgets_what_it_held() {
        let mut window = by_time_only();
        window.record(0, Mark::Failure, false);
        window.record(10 * MINUTE_MS, Mark::Success, false);
        assert_eq!(window.counts(10 * MINUTE_MS), Counts { successes: 1, failures: 0, slow: 0 });
    }

    #[test]
    fn a_quiet_agent_is_judged_by_its_last_outcomes() {
        let mut window = window();
        for minute in 0..7 {
            window.record(minute * 5 * MINUTE_MS, Mark::Failure, false);
        }
        assert_eq!(window.counts(30 * MINUTE_MS).failures, 5);
    }

    #[test]
    fn a_busy_agent_is_judged_by_its_last_minute() {
        let mut window = window();
        for second in 0..20 {
            window.record(second * 1_000, Mark::Success, false);
        }
        for second in 20..25 {
            window.record(second * 1_000, Mark::Failure, false);
        }
        assert_eq!(window.counts(25_000), Counts { successes: 20, failures: 5, slow: 0 });
    }

    #[test]
    fn outcomes_older_than_the_age_limit_do_not_add_up() {
        let mut window = window();
        window.record(0, Mark::Failure, false);
        window.record(HOUR_MS, Mark::Failure, false);
        assert_eq!(window.counts(HOUR_MS).failures, 2);
        assert_eq!(window.counts(HOUR_MS + 1).failures, 1);
    }

    #[test]
    fn a_time_before_the_latest_counts_as_the_latest() {
        let mut window = by_time_only();
        window.record(10 * MINUTE_MS, Mark::Success, false);
        window.record(MINUTE_MS, Mark::Failure, false);
        assert_eq!(window.counts(0), Counts { successes: 1, failures: 1, slow: 0 });
    }

    #[test]
    fn a_clock_set_back_loses_no_time_and_waits_for_none() {
        let mut timeline = Timeline::default();
        assert_eq!(timeline.advance(HOUR_MS), HOUR_MS);
        assert_eq!(timeline.advance(0), HOUR_MS);
        assert_eq!(timeline.advance(5_000), HOUR_MS + 5_000);
        assert_eq!(timeline.reading_ms(HOUR_MS + 6_000), 6_000);

        let mut timeline = Timeline::default();
        timeline.advance(5_000);
        timeline.advance(5_000 - STEP_BACK_MS);
        assert_eq!(timeline.reading_ms(5_000), 4_000, "a step of a second is a clock that was set back");
    }

    #[test]
    fn callers_who_overtake_each_other_do_not_make_time_run_faster() {
        let mut timeline = Timeline::default();
        for reading_ms in [1_000, 1_900, 1_200, 2_000, 1_500, 2_100] {
            timeline.advance(reading_ms);
        }
        assert_eq!(timeline.advance(2_100), 2_100);
    }

    #[test]
    fn one_absurd_reading_does_not_stop_the_clock() {
        let mut timeline = Timeline::default();
        timeline.advance(1_000);
        let absurd = timeline.advance(i64::MAX);
        timeline.advance(2_000);
        assert_eq!(timeline.advance(3_000), absurd + 1_000);
    }

    /// The rule of the module's page, word for word, over a plain list.
    fn expected(outcomes: &[(i64, Mark, bool)], now_ms: i64, recent: usize, max_age_ms: i64) -> Counts {
        let bucket = |at_ms: i64| at_ms.div_euclid(5_000);
        let by_time = outcomes.iter().filter(|o| bucket(now_ms) - bucket(o.0) < 12).count();
        let by_number = outcomes.iter().rev().take(recent).filter(|o| now_ms - o.0 <= max_age_ms).count();
        let mut counts = Counts::default();
        for (_, mark, slow) in outcomes.iter().rev().take(by_time.max(by_number)) {
            counts.add(*mark, *slow);
        }
        counts
    }

    proptest! {
        #[test]
        fn the_ring_counts_what_a_plain_list_counts(
            steps in prop::collection::vec((0_i64..90_000, any::<bool>(), any::<bool>()), 1..80),
            start_ms in -1_000_000_i64..1_000_000,
            recent in 0_usize..8,
        ) {
            let max_age_ms = 120_000;
            let mut window = Window::new(60_000, 12, recent as u32, max_age_ms as u64);
            let mut outcomes = Vec::new();
            let mut now_ms = start_ms;
            for (wait_ms, failed, slow) in steps {
                now_ms += wait_ms / 3;
                prop_assert_eq!(window.counts(now_ms), expected(&outcomes, now_ms, recent, max_age_ms));
                let mark = if failed { Mark::Failure } else { Mark::Success };
                window.record(now_ms, mark, slow);
                outcomes.push((now_ms, mark, slow));
                prop_assert_eq!(window.counts(now_ms), expected(&outcomes, now_ms, recent, max_age_ms));
            }
        }

        #[test]
        fn any_reading_is_survived(readings in prop::collection::vec(any::<i64>(), 1..50)) {
            let mut window = window();
            let mut timeline = Timeline::default();
            let mut before_ms = i64::MIN;
            for reading_ms in readings {
                let time_ms = timeline.advance(reading_ms);
                prop_assert!(time_ms >= before_ms);
                before_ms = time_ms;
                window.record(reading_ms, Mark::Failure, true);
                prop_assert!(window.counts(reading_ms).outcomes() >= 1);
            }
        }
    }
}
