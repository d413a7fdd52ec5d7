//! The only place that reads the wall clock.
//!
//! Times are `i64` milliseconds since the Unix epoch (`…_ms`); durations are `u64` milliseconds.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

/// Longest single sleep of [`SystemClock`]. The wall clock may jump while a timer runs; looking again now and then bounds
/// how late anything can be noticed.
const SLEEP_SLICE_MS: u64 = 5_000;

/// Reads time and waits for it.
pub trait Clock: Send + Sync + 'static {
    /// Microseconds since the Unix epoch: the base of lease epochs.
    fn now_us(&self) -> i64;

    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> i64 {
        self.now_us().div_euclid(1_000)
    }

    /// Returns at `at_ms` or later; it may return early, so callers look at the clock again.
    fn sleep_until(&self, at_ms: i64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// The system's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    fn now_us(&self) -> i64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }

    fn sleep_until(&self, at_ms: i64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let now_us = self.now_us();
            let wait_us = at_ms.saturating_mul(1_000).saturating_sub(now_us).max(0).unsigned_abs();
            tokio::time::sleep(Duration::from_micros(wait_us.min(SLEEP_SLICE_MS * 1_000))).await;
        })
    }
}

/// A clock that moves when it is told to.
#[derive(Debug)]
pub struct ManualClock {
    now_us: AtomicI64,
    moved: watch::Sender<()>,
}

impl ManualClock {
    /// A clock that stands at `now_ms`.
    pub fn new(now_ms: i64) -> Self {
        Self { now_us: AtomicI64::new(now_ms * 1_000), moved: watch::Sender::new(()) }
    }

    /// Moves the clock and wakes sleepers.
    pub fn advance_ms(&self, by_ms: i64) {
        self.now_us.fetch_add(by_ms * 1_000, Ordering::SeqCst);
        self.moved.send_replace(());
    }
}

impl Clock for ManualClock {
    fn now_us(&self) -> i64 {
        self.now_us.load(Ordering::SeqCst)
    }

    fn sleep_until(&self, at_ms: i64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let mut moved = self.moved.subscribe();
        Box::pin(async move {
            while self.now_ms() < at_ms {
                if moved.changed().await.is_err() {
                    return;
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_clock_wakes_sleepers_when_it_has_moved_far_enough() {
        let clock = ManualClock::new(1_000);
        let sleeper = clock.sleep_until(1_500);
        tokio::pin!(sleeper);
        clock.advance_ms(499);
        assert!(futures_poll(&mut sleeper).await.is_none());
        clock.advance_ms(1);
        sleeper.await;
        assert_eq!(clock.now_ms(), 1_500);
    }

    async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        tokio::select! { biased; out = future => Some(out), () = std::future::ready(()) => None }
    }
}
