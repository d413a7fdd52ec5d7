//! Waiting longer each time, and never all at once.

use std::time::Duration;

use rand::RngExt;

/// Delays between tries of one call: the n-th is U(min, min(max, min·2^n)), after "full jitter" (AWS, *Exponential
/// Backoff and Jitter*, 2015), with a floor so that a draw near zero does not become a busy loop.
#[derive(Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    tries: u32,
}

impl Backoff {
    pub(crate) const fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, tries: 0 }
    }

    /// The next delay, never shorter than what the other side asked for.
    pub(crate) fn next(&mut self, asked_for: Option<Duration>) -> Duration {
        self.tries = self.tries.saturating_add(1);
        let ceiling = self.min.saturating_mul(1_u32 << self.tries.min(16)).min(self.max).max(self.min);
        let drawn = rand::rng().random_range(self.min..=ceiling);
        match asked_for {
            // All who were told the same time must not come back at the same instant.
            Some(floor) => floor.saturating_add(drawn / 4),
            None => drawn,
        }
    }

    /// It worked: the next trouble starts from the shortest delay.
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(5);

    #[test]
    fn delays_stay_within_their_bounds_however_often() {
        let mut backoff = Backoff::new(MIN, MAX);
        assert!(backoff.next(None) <= 2 * MIN);
        for _ in 0..100 {
            let delay = backoff.next(None);
            assert!((MIN..=MAX).contains(&delay), "{delay:?}");
        }
        backoff.reset();
        assert!(backoff.next(None) <= 2 * MIN);
    }

    #[test]
    fn a_hint_is_a_floor() {
        let asked = Duration::from_secs(7);
        let delay = Backoff::new(MIN, MAX).next(Some(asked));
        assert!(delay >= asked && delay <= asked + MAX, "{delay:?}");
    }
}
