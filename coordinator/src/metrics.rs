//! What Prometheus sees. Labels are of low cardinality: queue, class, state; dependencies and agents up to a bound.

mod blobs;
mod breakers;
mod checkpoints;
mod locks;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use redrive_shared::gate::State;
use redrive_shared::task::Lease;
use redrive_shared::wire::{GateView, QueueView, Report};

pub(crate) use self::blobs::{Direction, record_blob_bytes, record_sweep};
pub use self::breakers::breakers_text;
pub use self::checkpoints::{
    StaleVerb, record_checkpoint_refused, record_checkpoint_saved, record_resumed, record_stale,
};
pub use self::locks::{record_lock_broken, record_lock_lost, record_lock_wait};
use crate::engine::Calls;

const SECONDS_BUCKETS: [f64; 14] =
    [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0];

/// Makes the process's recorder. Once a process: a second call returns an error.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS_BUCKETS)?
        .install_recorder()
}

/// Names that have become labels; those beyond the bound share one, so that a hostile caller cannot fill memory.
#[derive(Debug)]
pub struct BoundedLabels {
    known: Mutex<HashSet<Arc<str>>>,
    most: usize,
}

impl BoundedLabels {
    /// With so many labels at most, and one for the rest.
    pub fn new(most: usize) -> Self {
        Self { known: Mutex::default(), most }
    }

    /// Those that there are.
    fn known(&self) -> Vec<Arc<str>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// The label of a name.
    pub fn label(&self, name: &str) -> Arc<str> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(label) = known.get(name) {
            return Arc::clone(label);
        }
        if known.len() >= self.most {
            return Arc::from("(other)");
        }
        let label: Arc<str> = Arc::from(name);
        known.insert(Arc::clone(&label));
        label
    }
}

/// Leases went out: how many, and how late.
pub fn record_claimed(leases: &[Lease], now_ms: i64) {
    let by_queue = leases.chunk_by(|one, next| one.queue == next.queue);
    for same in by_queue {
        let Some(queue) = same.first().map(|lease| lease.queue.to_string()) else { continue };
        metrics::counter!("redrive_leases_granted_total", "queue" => queue.clone())
            .increment(same.len() as u64);
        let lateness = metrics::histogram!("redrive_dispatch_lateness_seconds", "queue" => queue);
        for lease in same {
            lateness.record(now_ms.saturating_sub(lease.due_at_ms).max(0) as f64 / 1_000.0);
        }
    }
}

/// First attempts that clients made themselves.
pub fn record_reported(dependency: Arc<str>, report: &Report) {
    let failures = u64::from(report.failures);
    let name = dependency.to_string();
    metrics::counter!("redrive_first_attempts_total", "dependency" => name.clone(), "outcome" => "failed")
        .increment(failures);
    metrics::counter!("redrive_first_attempts_total", "dependency" => name, "outcome" => "succeeded")
        .increment(u64::from(report.attempts) - failures);
}

/// Calls went to a dependency: attempts of which somebody told, those that were the first of their task, and what they cost.
/// The first by the second is the amplification: what retries make of each task.
pub(crate) fn record_calls(labels: &BoundedLabels, dependency: Option<&str>, calls: Calls) {
    let label =
        dependency.map_or_else(|| Arc::from("(none)"), |dependency| labels.label(dependency)).to_string();
    metrics::counter!("redrive_attempts_total", "dependency" => label.clone())
        .increment(calls.attempts.into());
    metrics::counter!("redrive_attempted_tasks_total", "dependency" => label.clone())
        .increment(calls.tasks.into());
    if !calls.cost.is_zero() {
        metrics::counter!("redrive_cost_microdollars_total", "dependency" => label)
            .increment(calls.cost.micros());
    }
}

/// How many tasks are out of queues where that is limited, read when someone looks: of those that share a label, together. Of
/// one that is not limited any more none are counted.
pub fn record_queue_gates(labels: &BoundedLabels, gates: &[GateView]) {
    let mut out: BTreeMap<Arc<str>, u32> = labels.known().into_iter().map(|label| (label, 0)).collect();
    for gate in gates {
        if let (Some(queue), Some(in_flight)) = (&gate.queue, gate.in_flight) {
            let shown = out.entry(labels.label(queue)).or_default();
            *shown = shown.saturating_add(in_flight);
        }
    }
    for (label, in_flight) in out {
        metrics::gauge!("redrive_gate_in_flight", "queue" => label.to_string()).set(f64::from(in_flight));
    }
    for (label, tokens) in tokens_owed(gates, |gate| gate.queue.as_ref().map(|name| labels.label(name))) {
        metrics::gauge!("redrive_gate_tokens_owed", "queue" => label.to_string()).set(tokens as f64);
    }
}

/// Tokens owed where that is limited: of those that share a label, together.
fn tokens_owed(gates: &[GateView], label: impl Fn(&GateView) -> Option<Arc<str>>) -> BTreeMap<Arc<str>, u64> {
    let mut owed: BTreeMap<Arc<str>, u64> = BTreeMap::new();
    for gate in gates {
        // Also where there is no limit any more: what was shown before must not stand for ever.
        if let (tokens, Some(label)) = (gate.tokens_owed.unwrap_or(0), label(gate)) {
            let shown = owed.entry(label).or_default();
            *shown = shown.saturating_add(tokens);
        }
    }
    owed
}

/// Gates by dependency, read when someone looks: their state as its place in [`State::ALL`], 0 open to 4 isolated. Of
/// dependencies that share a label the one that lets least through is shown. One that was forgotten lets everything through.
/// And how many of their tasks are out, and how many tokens are owed, where that is limited: of those that share a label,
/// together.
pub fn record_gates(labels: &BoundedLabels, gates: &[GateView]) {
    let mut worst: BTreeMap<Arc<str>, usize> = labels.known().into_iter().map(|label| (label, 0)).collect();
    for (dependency, gate) in gates.iter().filter_map(|gate| Some((gate.dependency.as_ref()?, gate))) {
        let number = State::ALL.iter().position(|state| *state == gate.state).unwrap_or(0);
        let shown = worst.entry(labels.label(dependency)).or_default();
        *shown = number.max(*shown);
    }
    let mut out: BTreeMap<Arc<str>, u32> = BTreeMap::new();
    for (dependency, gate) in gates.iter().filter_map(|gate| Some((gate.dependency.as_ref()?, gate))) {
        if let Some(in_flight) = gate.in_flight {
            let shown = out.entry(labels.label(dependency)).or_default();
            *shown = shown.saturating_add(in_flight);
        }
    }
    for (label, in_flight) in out {
        metrics::gauge!("redrive_gate_in_flight", "dependency" => label.to_string())
            .set(f64::from(in_flight));
    }
    for (label, tokens) in tokens_owed(gates, |gate| gate.dependency.as_ref().map(|name| labels.label(name)))
    {
        metrics::gauge!("redrive_gate_tokens_owed", "dependency" => label.to_string()).set(tokens as f64);
    }
    for (label, number) in worst {
        metrics::gauge!("redrive_gate_state", "dependency" => label.to_string()).set(number as f64);
    }
}

/// A worker vanished in the middle of a task. Its own breaker is gone with it: this is where the failure counts.
pub fn record_lost(agent: Arc<str>) {
    metrics::counter!("redrive_worker_lost_total", "agent" => agent).increment(1);
}

/// Tasks by queue and state, read when someone looks.
pub fn record_queues(queues: &[QueueView], now_ms: i64) {
    for queue in queues {
        let counts = queue.counts;
        for (state, tasks) in [
            ("scheduled", counts.scheduled),
            ("leased", counts.leased),
            ("succeeded", counts.succeeded),
            ("dead", counts.dead),
            ("escalated", counts.escalated),
            ("cancelled", counts.cancelled),
            ("handed_off", counts.handed_off),
        ] {
            metrics::gauge!("redrive_tasks", "queue" => queue.name.to_string(), "state" => state)
                .set(tasks as f64);
        }
        let overdue_ms = queue.next_due_at_ms.map_or(0, |due_ms| now_ms.saturating_sub(due_ms).max(0));
        metrics::gauge!("redrive_oldest_due_age_seconds", "queue" => queue.name.to_string())
            .set(overdue_ms as f64 / 1_000.0);
        metrics::gauge!("redrive_amplification", "queue" => queue.name.to_string())
            .set(queue.amplification.unwrap_or(0.0));
    }
}
