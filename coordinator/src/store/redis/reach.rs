//! Which parts of the store answer, and since when: a shard, or what there is once. In a cluster each is on a master of
//! its own, and one that is down must not stop the others.
//!
//! While a part cannot be reached, nobody can report to it. What ended there meanwhile (a lease, an agent's silence) proves
//! nothing: it counts from the moment on when the part answered again, as it does after a start.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redrive_shared::limits::AGENT_DEAD_AFTER_MS;

use crate::store::{Result, StoreError};

/// Failures that last no longer make no worker look lost: it reports again in time.
const SHORTEST_MS: i64 = (AGENT_DEAD_AFTER_MS / 4).cast_signed();
/// How long after its last failure nobody claims from a shard or looks there for what is over: it would be waited for in
/// vain, and a call that is lost holds up the cluster's client for a moment. Whatever else is answered there ends this.
const LEFT_OUT: Duration = Duration::from_secs(5);

/// A shard's error that the caller is not told, since other shards had answers. That one cannot be reached was logged when
/// it was noticed.
pub(super) fn pass_over(shard: u16, error: &StoreError) {
    if !matches!(error, StoreError::Unavailable(_)) {
        tracing::error!(shard, %error, "a shard is passed over");
    }
}

/// A part of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Shard(u16),
    /// What there is once: queues, agents.
    Once,
}

/// One part.
#[derive(Debug, Default)]
struct Side {
    /// The store's ms when the first call was sent of those that failed since the last that did not. 0: it answers.
    failed_ms: AtomicI64,
    /// Its last failure, in ms since the beginning; at least 1.
    last_failure: AtomicU64,
    /// When the reaper tried it last though it failed, in ms since the beginning.
    tried: AtomicU64,
    /// The store's ms since when it has answered.
    reached_ms: AtomicI64,
}

/// All parts.
#[derive(Debug)]
pub(super) struct Reach {
    base: Instant,
    shards: Vec<Side>,
    once: Side,
}

impl Reach {
    /// Nothing is known of any.
    pub fn new(shards: u16) -> Self {
        let shards = (0..shards).map(|_| Side::default()).collect();
        Self { base: Instant::now(), shards, once: Side::default() }
    }

    /// The store was opened: nobody could reach this coordinator before.
    pub fn opened(&self, now_ms: i64) {
        for side in self.shards.iter().chain([&self.once]) {
            side.reached_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    /// What became of a call that was sent at `sent_ms`.
    pub fn note<T>(&self, part: Part, sent_ms: i64, now_ms: i64, outcome: &Result<T>) {
        let side = self.side(part);
        if let Err(StoreError::Unavailable(error)) = outcome {
            side.last_failure.store(self.elapsed_ms().max(1), Ordering::Relaxed);
            let first = side.failed_ms.compare_exchange(0, sent_ms, Ordering::Relaxed, Ordering::Relaxed);
            if first.is_ok() {
                tracing::warn!(?part, error, "a part of the store cannot be reached; the others go on");
            }
            return;
        }
        let failed_ms = side.failed_ms.swap(0, Ordering::Relaxed);
        if failed_ms == 0 {
            return;
        }
        let lasted_ms = now_ms.saturating_sub(failed_ms);
        tracing::info!(?part, lasted_ms, "a part of the store is reached again");
        if lasted_ms >= SHORTEST_MS {
            side.reached_ms.fetch_max(now_ms, Ordering::Relaxed);
        }
    }

    /// The store's ms since when a part could be reached.
    pub fn since_ms(&self, part: Part) -> i64 {
        self.side(part).reached_ms.load(Ordering::Relaxed)
    }

    /// Whether the last call failed.
    pub fn is_failing(&self, part: Part) -> bool {
        self.side(part).failed_ms.load(Ordering::Relaxed) != 0
    }

    /// Shards that are not worth asking now. None when that would be all: then only asking can tell.
    pub fn left_out(&self) -> Vec<u16> {
        let (now_ms, patience_ms) = (self.elapsed_ms(), LEFT_OUT.as_millis());
        let fresh = |side: &Side| {
            let since_ms = now_ms.saturating_sub(side.last_failure.load(Ordering::Relaxed));
            side.failed_ms.load(Ordering::Relaxed) != 0 && u128::from(since_ms) < patience_ms
        };
        let out: Vec<u16> = (0..).zip(&self.shards).filter(|(_, side)| fresh(side)).map(|(n, _)| n).collect();
        if out.len() == self.shards.len() { Vec::new() } else { out }
    }

    /// Whether the reaper should try a shard that fails: now and then also where calls of others go on failing, which may
    /// have reasons of their own.
    pub fn is_to_be_tried(&self, shard: u16) -> bool {
        let (now_ms, side) = (self.elapsed_ms(), self.side(Part::Shard(shard)));
        let since_ms = now_ms.saturating_sub(side.tried.load(Ordering::Relaxed));
        let now = u128::from(since_ms) >= LEFT_OUT.as_millis() || !self.left_out().contains(&shard);
        if now {
            side.tried.store(now_ms, Ordering::Relaxed);
        }
        now
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn side(&self, part: Part) -> &Side {
        match part {
            Part::Shard(shard) => self.shards.get(usize::from(shard)).unwrap_or(&self.once),
            Part::Once => &self.once,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone() -> Result<()> {
        Err(StoreError::Unavailable("gone".into()))
    }

    #[test]
    fn time_counts_anew_after_an_outage_and_not_after_a_moment() {
        let (reach, one) = (Reach::new(2), Part::Shard(1));
        reach.opened(1_000);
        reach.note(one, 10_000, 12_000, &gone());
        assert!(reach.is_failing(one) && !reach.is_failing(Part::Shard(0)) && !reach.is_failing(Part::Once));
        reach.note(one, 12_000, 12_500, &Ok(()));
        assert_eq!((reach.is_failing(one), reach.since_ms(one)), (false, 1_000), "a moment");
        reach.note(one, 20_000, 22_000, &gone());
        reach.note(one, 30_000, 32_000, &gone());
        reach.note(one, 34_000, 34_001, &Ok(()));
        assert_eq!((reach.since_ms(one), reach.since_ms(Part::Shard(0))), (34_001, 1_000));
        // An answer that is no good is an answer.
        reach.note::<()>(one, 50_000, 50_001, &Err(StoreError::Corrupt("odd".into())));
        assert!(!reach.is_failing(one));
    }

    #[test]
    fn a_shard_that_failed_is_left_out_unless_all_did() {
        let reach = Reach::new(2);
        reach.note(Part::Shard(1), 1, 2, &gone());
        assert_eq!(reach.left_out(), [1]);
        assert!(!reach.is_to_be_tried(1), "it has just failed");
        reach.note(Part::Shard(0), 1, 2, &gone());
        assert!(reach.left_out().is_empty());
        assert!(reach.is_to_be_tried(1));
        reach.note(Part::Shard(1), 1, 2, &Ok(()));
        assert_eq!(reach.left_out(), [0]);
    }
}
