//! What a gate has seen in the last minute, of all agents and all coordinators together.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Length of the sample in ms, and of each of its buckets.
pub(super) const SAMPLE_MS: i64 = 60_000;
const BUCKET_MS: i64 = 5_000;
const BUCKETS: i64 = SAMPLE_MS / BUCKET_MS;

/// What happened how often.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = GateTally)]
pub struct Tally {
    /// Calls that worked.
    #[serde(skip_serializing_if = "is_zero")]
    pub successes: u32,
    /// Calls that failed and speak against the dependency.
    #[serde(skip_serializing_if = "is_zero")]
    pub failures: u32,
    /// Calls that were refused because there were too many.
    #[serde(skip_serializing_if = "is_zero")]
    pub limited: u32,
    /// Calls for work that had not been tried before.
    #[serde(skip_serializing_if = "is_zero")]
    pub firsts: u32,
    /// Calls for work that had failed before.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.successes = self.successes.saturating_add(other.successes);
        self.failures = self.failures.saturating_add(other.failures);
        self.limited = self.limited.saturating_add(other.limited);
        self.firsts = self.firsts.saturating_add(other.firsts);
        self.retries = self.retries.saturating_add(other.retries);
    }
}

/// The last minute in buckets of 5 s, aligned to the clock, newest last: a tally leaves when it is 55 to 60 s old.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Sample {
    buckets: Vec<(i64, Tally)>,
}

impl Sample {
    /// Adds what happened now. A time before the latest counts as the latest.
    pub fn add(&mut self, tally: Tally, now_ms: i64) {
        let index = now_ms.div_euclid(BUCKET_MS);
        match self.buckets.last_mut() {
            Some((last, bucket)) if *last >= index => bucket.add(tally),
            _ => {
                self.buckets.retain(|(at, _)| *at > index - BUCKETS);
                self.buckets.push((index, tally));
            }
        }
    }

    /// The sum of what is in it.
    pub fn sum(&self, now_ms: i64) -> Tally {
        self.live(now_ms).fold(Tally::default(), |mut sum, (_, bucket)| {
            sum.add(*bucket);
            sum
        })
    }

    /// Calls a second that worked, over the time for which there are any; none where none did.
    pub fn success_rate(&self, now_ms: i64) -> Option<f64> {
        let mut first_ms = None;
        let mut successes = 0_u32;
        for (index, bucket) in self.live(now_ms).filter(|(_, bucket)| bucket.successes > 0) {
            first_ms.get_or_insert(index * BUCKET_MS);
            successes = successes.saturating_add(bucket.successes);
        }
        // Where the first one lies within its bucket is not known: at least a second has passed.
        let elapsed_ms = now_ms.saturating_sub(first_ms?).clamp(1_000, SAMPLE_MS);
        Some(f64::from(successes) * 1_000.0 / elapsed_ms as f64)
    }

    /// When the oldest tally leaves.
    pub fn next_ms(&self, now_ms: i64) -> Option<i64> {
        self.live(now_ms).next().map(|(index, _)| (index + BUCKETS) * BUCKET_MS)
    }

    /// Forgets how calls ended, and keeps how many were made.
    pub fn forget_outcomes(&mut self) {
        for (_, bucket) in &mut self.buckets {
            *bucket = Tally { firsts: bucket.firsts, retries: bucket.retries, ..Tally::default() };
        }
    }

    pub fn is_empty(&self, now_ms: i64) -> bool {
        self.live(now_ms).next().is_none()
    }

    fn live(&self, now_ms: i64) -> impl Iterator<Item = &(i64, Tally)> {
        let oldest = now_ms.div_euclid(BUCKET_MS) - BUCKETS;
        self.buckets.iter().filter(move |(index, _)| *index > oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn successes(successes: u32) -> Tally {
        Tally { successes, ..Tally::default() }
    }

    #[test]
    fn a_minute_is_remembered_and_no_more() {
        let mut sample = Sample::default();
        sample.add(successes(3), 1_000);
        sample.add(successes(4), 30_000);
        assert_eq!(sample.sum(59_999).successes, 7);
        assert_eq!(sample.next_ms(59_999), Some(60_000));
        assert_eq!(sample.sum(60_000).successes, 4);
        sample.add(successes(1), 500_000);
        assert_eq!((sample.buckets.len(), sample.sum(500_000).successes), (1, 1));
        sample.add(successes(1), 0);
        assert_eq!(sample.sum(500_000).successes, 2, "a clock that went back loses nothing");
    }

    #[test]
    fn the_success_rate_is_over_the_time_that_there_were_any() {
        let mut sample = Sample::default();
        assert_eq!(sample.success_rate(0), None);
        sample.add(successes(50), 100_000);
        assert_eq!(sample.success_rate(100_000), Some(50.0), "at least a second");
        sample.add(successes(50), 109_999);
        assert_eq!(sample.success_rate(110_000), Some(10.0));
    }
}
