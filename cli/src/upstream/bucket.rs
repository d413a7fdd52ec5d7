//! A token bucket: what a rate limit is counted with.

use std::time::Duration;

use super::RateLimit;

/// Full at first.
#[derive(Debug)]
pub(super) struct Bucket {
    limit: RateLimit,
    tokens: f64,
    filled: Duration,
}

impl Bucket {
    pub fn new(limit: RateLimit) -> Self {
        Bucket { limit, tokens: f64::from(limit.burst), filled: Duration::ZERO }
    }

    /// Takes one token, if there is one.
    pub fn take(&mut self, now: Duration) -> bool {
        let grown = now.saturating_sub(self.filled).as_secs_f64() * self.limit.per_s;
        self.tokens = (self.tokens + grown).min(f64::from(self.limit.burst));
        self.filled = self.filled.max(now);
        let passes = self.tokens >= 1.0;
        if passes {
            self.tokens -= 1.0;
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::super::Reply;
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let limit = RateLimit { per_s: 10.0, burst: 3, reply: Reply::RateLimitedRetryAfter(1) };
        let mut bucket = Bucket::new(limit);
        let mut passed = |ms: u64| (0..10).filter(|_| bucket.take(Duration::from_millis(ms))).count();
        assert_eq!([passed(0), passed(50), passed(250), passed(9_000)], [3, 0, 2, 3]);
    }
}
