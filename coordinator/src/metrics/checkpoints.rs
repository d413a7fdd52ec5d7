//! Checkpoints and leases, as numbers: what was saved and what was refused, who went on from what was saved, and who called
//! under a lease that was over.

use redrive_shared::error::ErrorCode;
use redrive_shared::id::Name;
use redrive_shared::task::Lease;

/// A checkpoint was saved.
pub fn record_checkpoint_saved(queue: &Name) {
    metrics::counter!("redrive_checkpoints_saved_total", "queue" => queue.to_string()).increment(1);
}

/// A checkpoint was refused; the reason is the code that its caller heard.
pub fn record_checkpoint_refused(reason: ErrorCode) {
    metrics::counter!("redrive_checkpoint_refusals_total", "reason" => reason.as_str()).increment(1);
}

/// Tasks that ran before were leased again: warm, with what earlier attempts saved, or cold, from the beginning. What nobody had
/// begun (leases that reached no worker, or were handed back untouched) is no restart.
pub fn record_resumed(leases: &[Lease]) {
    for lease in leases.iter().filter(|lease| lease.run > 1) {
        let untouched = lease.ledger.undelivered.saturating_add(lease.ledger.released);
        let kind = match &lease.checkpoint {
            Some(_) => "warm",
            None if lease.run - 1 > untouched => "cold",
            None => continue,
        };
        metrics::counter!("redrive_resumes_total", "queue" => lease.queue.to_string(), "kind" => kind)
            .increment(1);
    }
}

/// What is said under a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StaleVerb {
    /// It is started or made longer.
    Extend,
    /// It is ended.
    Settle,
    /// How far its work came.
    Checkpoint,
    /// It is made longer with a sign of life.
    Heartbeat,
}

/// Something was said under a lease that was over, or somebody else's, and changed nothing.
pub fn record_stale(verb: StaleVerb) {
    let verb = match verb {
        StaleVerb::Extend => "extend",
        StaleVerb::Settle => "settle",
        StaleVerb::Checkpoint => "checkpoint",
        StaleVerb::Heartbeat => "heartbeat",
    };
    metrics::counter!("redrive_stale_epochs_total", "verb" => verb).increment(1);
}
