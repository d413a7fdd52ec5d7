//! When clients come.

use crate::chance::{Chance, exponential};
use crate::scenario::Stage;

/// The instants at which clients come, in order: a Poisson process whose rate changes in steps.
///
/// Each next client is one exponential draw of mean 1 away in *expected clients*; what remains is to find when the rates
/// have added up to that. So a change of the rate in the middle of a gap is respected.
#[derive(Debug)]
pub(crate) struct Arrivals<'a> {
    stages: &'a [Stage],
    now_us: f64,
}

impl<'a> Arrivals<'a> {
    /// `stages` in order; none: everybody comes at 0.
    pub(crate) fn new(stages: &'a [Stage]) -> Self {
        Self { stages, now_us: stages.first().map_or(0.0, |stage| stage.from_ms as f64 * 1_000.0) }
    }

    /// The next one, in microseconds; `None` where the rate is zero for ever after.
    pub(crate) fn next_us(&mut self, chance: &mut Chance) -> Option<u64> {
        if self.stages.is_empty() {
            return Some(0);
        }
        let mut missing = exponential(chance);
        loop {
            let begun = |stage: &Stage| stage.from_ms as f64 * 1_000.0 <= self.now_us;
            let index = self.stages.partition_point(begun).saturating_sub(1);
            let per_us = self.stages[index].per_s / 1_000_000.0;
            let end_us = self.stages.get(index + 1).map(|stage| stage.from_ms as f64 * 1_000.0);
            let due_us = self.now_us + missing / per_us;
            match end_us {
                Some(end_us) if due_us > end_us => {
                    missing -= (end_us - self.now_us) * per_us;
                    self.now_us = end_us;
                }
                _ if due_us.is_finite() => {
                    self.now_us = due_us;
                    return Some(due_us as u64);
                }
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::seeded;

    #[test]
    fn the_rate_of_each_stage_is_kept_and_a_pause_is_a_pause() {
        let stages = [(0, 100.0), (10_000, 0.0), (20_000, 1_000.0), (30_000, 0.0)]
            .map(|(from_ms, per_s)| Stage { from_ms, per_s });
        let (mut arrivals, mut chance) = (Arrivals::new(&stages), seeded(3));
        let all: Vec<u64> = std::iter::from_fn(|| arrivals.next_us(&mut chance)).collect();
        let within = |from_s: u64, to_s: u64| {
            all.iter().filter(|at_us| (from_s * 1_000_000..to_s * 1_000_000).contains(*at_us)).count()
        };
        assert!((900..1_100).contains(&within(0, 10)), "{}", within(0, 10));
        assert_eq!(within(10, 20), 0);
        assert!((9_700..10_300).contains(&within(20, 30)), "{}", within(20, 30));
        assert_eq!(within(30, 1_000_000), 0);
    }

    #[test]
    fn without_a_rate_everybody_comes_at_once() {
        assert_eq!(Arrivals::new(&[]).next_us(&mut seeded(1)), Some(0));
    }
}
