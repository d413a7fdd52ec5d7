//! Counts over time, in as many buckets as a picture can show.

use crate::limits::POINTS_MAX;
use crate::report::{Curve, Point};

const FIRST_BUCKET_US: u64 = 10_000;

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    calls: u32,
    retries: u32,
    recovered: u32,
    backlog: u32,
}

/// What is drawn. How long a run takes is not known before: buckets begin at 10 ms, and each time they become too many,
/// neighbours are merged.
#[derive(Debug)]
pub(crate) struct Recorder {
    bucket_us: u64,
    buckets: Vec<Bucket>,
    backlog: u32,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self { bucket_us: FIRST_BUCKET_US, buckets: Vec::new(), backlog: 0 }
    }

    pub(crate) fn call(&mut self, now_us: u64, retry: bool) {
        let bucket = self.bucket(now_us);
        bucket.calls += 1;
        bucket.retries += u32::from(retry);
    }

    pub(crate) fn begun(&mut self, now_us: u64) {
        self.backlog += 1;
        let backlog = self.backlog;
        let bucket = self.bucket(now_us);
        bucket.backlog = bucket.backlog.max(backlog);
    }

    pub(crate) fn ended(&mut self, now_us: u64, recovered: bool) {
        // The bucket keeps the most that there were within it: made before the number falls.
        self.bucket(now_us).recovered += u32::from(recovered);
        self.backlog -= 1;
    }

    fn bucket(&mut self, now_us: u64) -> &mut Bucket {
        while now_us / self.bucket_us >= POINTS_MAX as u64 {
            self.merge();
        }
        let index = (now_us / self.bucket_us) as usize;
        let since = Bucket { backlog: self.backlog, ..Bucket::default() };
        while self.buckets.len() <= index {
            self.buckets.push(since);
        }
        &mut self.buckets[index]
    }

    fn merge(&mut self) {
        let sum = |pair: &[Bucket]| {
            pair.iter().fold(Bucket::default(), |sum, next| Bucket {
                calls: sum.calls + next.calls,
                retries: sum.retries + next.retries,
                recovered: sum.recovered + next.recovered,
                backlog: sum.backlog.max(next.backlog),
            })
        };
        self.buckets = self.buckets.chunks(2).map(sum).collect();
        self.bucket_us *= 2;
    }

    pub(crate) fn finish(mut self, now_us: u64) -> Curve {
        self.bucket(now_us);
        let per_s = 1_000_000.0 / self.bucket_us as f64;
        let mut recovered = 0;
        let points = self.buckets.iter().enumerate().map(|(index, bucket)| {
            recovered += u64::from(bucket.recovered);
            Point {
                at_ms: index as u64 * self.bucket_us / 1_000,
                calls_per_s: f64::from(bucket.calls) * per_s,
                retries_per_s: f64::from(bucket.retries) * per_s,
                backlog: bucket.backlog,
                recovered,
            }
        });
        Curve { points: points.collect(), bucket_ms: self.bucket_us / 1_000 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_loses_nothing_and_keeps_the_number_of_points_down() {
        let mut recorder = Recorder::new();
        for second in 0..1_000 {
            recorder.begun(second * 1_000_000);
            recorder.call(second * 1_000_000, second % 2 == 0);
            recorder.ended(second * 1_000_000 + 500_000, second % 4 == 0);
        }
        let curve = recorder.finish(1_000_000_000);
        assert!(curve.points.len() <= POINTS_MAX);
        let bucket_s = curve.bucket_ms as f64 / 1_000.0;
        let total = |of: fn(&Point) -> f64| curve.points.iter().map(of).sum::<f64>() * bucket_s;
        assert!((total(|point| point.calls_per_s) - 1_000.0).abs() < 1e-6);
        assert!((total(|point| point.retries_per_s) - 500.0).abs() < 1e-6);
        assert_eq!(curve.points.last().unwrap().recovered, 250);
        assert!(curve.points.iter().all(|point| point.backlog <= 1));
    }

    #[test]
    fn a_backlog_lasts_until_it_is_worked_off() {
        let mut recorder = Recorder::new();
        recorder.begun(0);
        recorder.begun(0);
        recorder.ended(50_000, true);
        let curve = recorder.finish(100_000);
        let backlog: Vec<u32> = curve.points.iter().map(|point| point.backlog).collect();
        assert_eq!(backlog, [2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1]);
    }
}
