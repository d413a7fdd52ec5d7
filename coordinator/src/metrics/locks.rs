//! Locks, as numbers.

use std::time::Duration;

use redrive_shared::lock::Lost;

/// Somebody asked for a lock, and waited for the answer for so long.
pub fn record_lock_wait(outcome: &'static str, waited: Duration) {
    metrics::counter!("redrive_lock_requests_total", "outcome" => outcome).increment(1);
    metrics::histogram!("redrive_lock_wait_seconds", "outcome" => outcome).record(waited.as_secs_f64());
}

/// A holder learnt that it had lost its lock.
pub fn record_lock_lost(verb: &'static str, why: Lost) {
    let why = match why {
        Lost::Expired => "expired",
        Lost::Unknown => "unknown",
        Lost::NotYours => "not_yours",
    };
    metrics::counter!("redrive_locks_lost_total", "verb" => verb, "why" => why).increment(1);
}

/// A person broke a lock.
pub fn record_lock_broken() {
    metrics::counter!("redrive_locks_broken_total").increment(1);
}
