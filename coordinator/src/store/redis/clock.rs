//! The store's time: Redis's clock, as far as its replies tell it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use redrive_shared::clock::{Clock, SystemClock};

/// Longest single sleep: what Redis says of its time meanwhile may move the moment.
const SLEEP_SLICE: Duration = Duration::from_secs(5);

/// Redis's clock. Every reply of a script carries the time at which it ran, somewhere between the sending of the call and
/// the arrival of the reply: the estimate is kept within that. A coordinator whose own clock is off, or that was stopped
/// for a minute, is put right by its first quick reply; a slow one says little, and changes little.
#[derive(Debug)]
pub(super) struct RedisClock {
    base: Instant,
    /// What is added to the µs since `base`.
    offset_us: AtomicI64,
}

impl RedisClock {
    fn since_base_us(&self, at: Instant) -> i64 {
        i64::try_from(at.saturating_duration_since(self.base).as_micros()).unwrap_or(i64::MAX)
    }

    /// A script that was sent then, and whose reply came just now, ran at `now_us`.
    pub fn observe(&self, sent: Instant, now_us: i64) {
        let earliest = now_us.saturating_sub(self.since_base_us(Instant::now()));
        let latest = now_us.saturating_sub(self.since_base_us(sent));
        let within = |offset: i64| offset.clamp(earliest, latest.max(earliest));
        // Two at once: either is right.
        self.offset_us.store(within(self.offset_us.load(Ordering::Relaxed)), Ordering::Relaxed);
    }
}

impl Default for RedisClock {
    fn default() -> Self {
        Self { base: Instant::now(), offset_us: AtomicI64::new(SystemClock.now_us()) }
    }
}

impl Clock for RedisClock {
    fn now_us(&self) -> i64 {
        self.offset_us.load(Ordering::Relaxed).saturating_add(self.since_base_us(Instant::now()))
    }

    fn sleep_until(&self, at_ms: i64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let wait_us = at_ms.saturating_mul(1_000).saturating_sub(self.now_us()).max(0).unsigned_abs();
            tokio::time::sleep(Duration::from_micros(wait_us).min(SLEEP_SLICE)).await;
        })
    }
}

/// Where the store's time comes from.
#[derive(Clone)]
pub(super) enum Time {
    /// From Redis, inside the scripts.
    Redis(Arc<RedisClock>),
    /// From a clock that tests move: scripts are told what it shows.
    Given(Arc<dyn Clock>),
}

impl Time {
    /// What scripts are told: 0 lets them ask Redis.
    pub fn argument(&self) -> i64 {
        match self {
            Self::Redis(_) => 0,
            Self::Given(clock) => clock.now_us(),
        }
    }

    /// The time now, exact or estimated.
    pub fn now_us(&self) -> i64 {
        match self {
            Self::Redis(clock) => clock.now_us(),
            Self::Given(clock) => clock.now_us(),
        }
    }

    /// See [`RedisClock::observe`].
    pub fn observe(&self, sent: Instant, now_us: i64) {
        if let Self::Redis(clock) = self {
            clock.observe(sent, now_us);
        }
    }

    /// As a clock to sleep by.
    pub fn clock(&self) -> Arc<dyn Clock> {
        match self {
            Self::Redis(clock) => Arc::clone(clock) as Arc<dyn Clock>,
            Self::Given(clock) => Arc::clone(clock),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_stays_within_what_replies_allow() {
        let clock = RedisClock::default();
        let ahead_us = SystemClock.now_us() + 3_600_000_000;
        clock.observe(Instant::now(), ahead_us);
        let off_us = clock.now_us() - ahead_us;
        assert!((0..50_000).contains(&off_us), "{off_us}");
        // A reply that took an hour proves no more than that the call ran in that hour.
        let before_us = clock.now_us();
        let an_hour_ago = Instant::now().checked_sub(Duration::from_secs(3_600));
        if let Some(sent) = an_hour_ago {
            let clock = RedisClock { base: sent, offset_us: AtomicI64::new(before_us - 3_600_000_000) };
            clock.observe(sent, before_us - 1_800_000_000);
            assert!((clock.now_us() - before_us).abs() < 50_000);
        }
        // Redis's clock was set back by a second.
        clock.observe(Instant::now(), ahead_us - 1_000_000);
        assert!(clock.now_us() < ahead_us - 900_000);
    }
}
