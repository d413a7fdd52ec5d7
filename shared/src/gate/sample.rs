//! What a gate has seen in the last minute, of all agents and all coordinators together.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Length of the sample in ms, and of each of its buckets.
pub(super) const SAMPLE_MS: i64 = 60_000;
pub(super) const BUCKET_MS: i64 = 5_000;
/// A bucket that is younger than this is taken for as old, in ms: a rate of a few instants is none.
pub(super) const RATE_OVER_MS: i64 = 500;

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
    /// Of the first calls, those that agents made themselves and reported.
    #[serde(skip_serializing_if = "is_zero")]
    pub reported: u32,
    /// Failures of calls that agents made themselves and handed over. They speak against the dependency only beside the
    /// successes of such calls, so where those are reported.
    #[serde(skip_serializing_if = "is_zero")]
    pub handed_over: u32,
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
        self.reported = self.reported.saturating_add(other.reported);
        self.handed_over = self.handed_over.saturating_add(other.handed_over);
    }

    /// Calls that were handed out, and neither failed nor were refused so far.
    fn not_refused(&self) -> u32 {
        let made = self.firsts.saturating_add(self.retries).saturating_sub(self.reported);
        made.saturating_sub(self.failures.saturating_add(self.limited))
    }
}

/// The last minute in buckets of 5 s, each from when something happened, newest last: a tally leaves when it is 55 to 60 s old.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Sample {
    buckets: Vec<(i64, Tally)>,
}

impl Sample {
    /// Adds what happened now. A time before the latest counts as the latest.
    pub fn add(&mut self, tally: Tally, now_ms: i64) {
        match self.buckets.last_mut() {
            Some((from_ms, bucket)) if now_ms < *from_ms + BUCKET_MS => bucket.add(tally),
            _ => {
                self.buckets.retain(|(from_ms, _)| *from_ms > now_ms - SAMPLE_MS);
                self.buckets.push((now_ms, tally));
            }
        }
    }

    /// The sum of what is in it.
    pub fn sum(&self, now_ms: i64) -> Tally {
        total(self.live(now_ms))
    }

    /// The sum of the last 5 to 10 s.
    pub fn recent(&self, now_ms: i64) -> Tally {
        total(self.live(now_ms).filter(|(from_ms, _)| *from_ms > now_ms - 2 * BUCKET_MS))
    }

    /// The most calls a second that were taken, over the whole of one bucket: those that worked, or those that were handed
    /// out and neither failed nor were refused so far, since calls may take long. What agents report counts not: it is added
    /// up over a time that nobody knows. None where there were none.
    pub fn best_rate(&self, now_ms: i64) -> Option<f64> {
        let rates = self.live(now_ms).map(|(from_ms, bucket)| {
            let worked = bucket.successes.saturating_sub(bucket.reported);
            let taken = bucket.not_refused().max(worked);
            let elapsed_ms = now_ms.saturating_sub(*from_ms).clamp(RATE_OVER_MS, BUCKET_MS);
            f64::from(taken) * 1_000.0 / elapsed_ms as f64
        });
        rates.reduce(f64::max).filter(|per_s| *per_s > 0.0)
    }

    /// Since when the last bucket counts, and the calls in it that were handed out and neither failed nor were refused.
    pub fn last(&self, now_ms: i64) -> Option<(i64, u32)> {
        self.live(now_ms).last().map(|(from_ms, bucket)| (*from_ms, bucket.not_refused()))
    }

    /// When the oldest tally leaves.
    pub fn next_ms(&self, now_ms: i64) -> Option<i64> {
        self.live(now_ms).next().map(|(from_ms, _)| from_ms + SAMPLE_MS)
    }

    /// Forgets how calls ended, and keeps how many were made.
    pub fn forget_outcomes(&mut self) {
        for (_, bucket) in &mut self.buckets {
            let Tally { firsts, retries, reported, .. } = *bucket;
            *bucket = Tally { firsts, retries, reported, ..Tally::default() };
        }
    }

    /// The clock was set back by so much.
    pub fn set_back(&mut self, by_ms: i64) {
        self.buckets.iter_mut().for_each(|(from_ms, _)| *from_ms -= by_ms);
    }

    pub fn is_empty(&self, now_ms: i64) -> bool {
        self.live(now_ms).next().is_none()
    }

    fn live(&self, now_ms: i64) -> impl Iterator<Item = &(i64, Tally)> {
        self.buckets.iter().filter(move |(from_ms, _)| *from_ms > now_ms - SAMPLE_MS)
    }
}

fn total<'a>(buckets: impl Iterator<Item = &'a (i64, Tally)>) -> Tally {
    buckets.fold(Tally::default(), |mut sum, (_, bucket)| {
        sum.add(*bucket);
        sum
    })
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
        assert_eq!(sample.sum(60_999).successes, 7);
        assert_eq!(sample.next_ms(60_999), Some(61_000));
        assert_eq!(sample.sum(61_000).successes, 4);
        sample.add(successes(1), 500_000);
        assert_eq!((sample.buckets.len(), sample.sum(500_000).successes), (1, 1));
        sample.add(successes(1), 0);
        assert_eq!(sample.sum(500_000).successes, 2, "a clock that went back loses nothing");
    }

    #[test]
    fn the_best_rate_is_that_of_the_best_five_seconds() {
        let mut sample = Sample::default();
        assert_eq!(sample.best_rate(0), None);
        sample.add(successes(50), 103_000);
        assert_eq!(sample.best_rate(103_000), Some(100.0), "at least half a second");
        assert_eq!(sample.best_rate(109_000), Some(10.0));
        sample.add(successes(5), 110_000);
        assert_eq!(sample.best_rate(115_000), Some(10.0), "one a second since");
        sample.add(Tally { firsts: 100, retries: 20, failures: 5, limited: 15, ..Tally::default() }, 116_000);
        assert_eq!(sample.best_rate(118_000), Some(50.0), "what is under way counts, until it fails");
    }
}
