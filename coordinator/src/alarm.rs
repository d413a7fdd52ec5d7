//! An alarm that can only be set earlier: how sleepers learn that something is due sooner than they thought.

use std::sync::atomic::{AtomicI64, Ordering};

use redrive_shared::clock::Clock;
use tokio::sync::Notify;

const NEVER: i64 = i64::MAX;

/// One sleeper waits for it; anyone sets it.
///
/// The sleeper first clears it, then does its work, then sets it to the next moment that it found: whoever announces an
/// earlier one in between is not overwritten.
#[derive(Debug)]
pub struct Alarm {
    at_ms: AtomicI64,
    earlier: Notify,
}

impl Default for Alarm {
    fn default() -> Self {
        Self { at_ms: AtomicI64::new(NEVER), earlier: Notify::new() }
    }
}

impl Alarm {
    /// Rings at `at_ms` or earlier.
    pub fn set_earlier(&self, at_ms: i64) {
        if self.at_ms.fetch_min(at_ms, Ordering::AcqRel) > at_ms {
            self.earlier.notify_one();
        }
    }

    /// Forgets when it was to ring.
    pub fn clear(&self) {
        self.at_ms.store(NEVER, Ordering::Release);
    }

    /// Returns when it rings.
    pub async fn wait(&self, clock: &dyn Clock) {
        loop {
            let at_ms = self.at_ms.load(Ordering::Acquire);
            if at_ms <= clock.now_ms() {
                return;
            }
            tokio::select! {
                () = self.earlier.notified() => {}
                () = clock.sleep_until(at_ms), if at_ms != NEVER => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use redrive_shared::clock::ManualClock;

    use super::*;

    #[tokio::test]
    async fn it_rings_at_the_earliest_moment_that_was_announced() {
        let clock = Arc::new(ManualClock::new(0));
        let alarm = Arc::new(Alarm::default());
        let waiting = tokio::spawn({
            let (clock, alarm) = (Arc::clone(&clock), Arc::clone(&alarm));
            async move { alarm.wait(&*clock).await }
        });
        alarm.set_earlier(1_000);
        alarm.set_earlier(50);
        alarm.set_earlier(2_000);
        clock.advance_ms(50);
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn a_moment_announced_while_the_sleeper_worked_is_not_lost() {
        let clock = ManualClock::new(100);
        let alarm = Alarm::default();
        alarm.clear();
        alarm.set_earlier(100);
        alarm.set_earlier(5_000);
        alarm.wait(&clock).await;
    }
}
