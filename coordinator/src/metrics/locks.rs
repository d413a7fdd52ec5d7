//! Locks, as numbers.

use std::time::Duration;

use redrive_shared::lock::Lost;

use crate::store::LockCounts;

/// Somebody asked for a lock, and waited for the answer for so long.
pub fn record_lock_wait(outcome: &'static str, waited: Duration) {
    metrics::counter!("redrive_lock_requests_total", "outcome" => outcome).increment(1);
    metrics::histogram!("redrive_lock_wait_seconds", "outcome" => outcome).record(waited.as_secs_f64());
}

/// A holder learnt that it had lost its lock.
pub fn record_lock_lost(verb: &'static str, why: Lost) {
    let label = match why {
        Lost::Expired => "expired",
        Lost::Unknown => "unknown",
        Lost::NotYours => "not_yours",
    };
    metrics::counter!("redrive_locks_lost_total", "verb" => verb, "why" => label).increment(1);
    // A release of what is gone is mostly one that is repeated, since its answer was lost.
    if verb != "release" || why != Lost::Unknown {
        record_fence_rejected(verb);
    }
}

/// Somebody went on under a lock or a lease that was over, and was refused.
pub fn record_fence_rejected(verb: &'static str) {
    metrics::counter!("redrive_fence_rejections_total", "verb" => verb).increment(1);
}

/// A person broke a lock.
pub fn record_lock_broken() {
    metrics::counter!("redrive_locks_broken_total").increment(1);
}

/// So many locks were held until their time was over.
pub fn record_locks_expired(locks: u64) {
    if locks > 0 {
        metrics::counter!("redrive_locks_expired_total").increment(locks);
    }
}

/// How many there are, read when someone looks: over all coordinators that share the store.
pub fn record_lock_counts(counts: LockCounts) {
    metrics::gauge!("redrive_locks_held").set(counts.holds as f64);
    metrics::gauge!("redrive_locks_waiting").set(counts.waits as f64);
}
