//! What a batch changed, gathered so that dispatcher, producers and metrics are told once a batch and not once a task.

use std::collections::BTreeMap;

use redrive_shared::cost::Cost;
use redrive_shared::id::{Name, TaskId};
use redrive_shared::task::TaskState;

use super::amplification::Amplification;
use crate::metrics::{BoundedLabels, record_calls};

/// What is to be told when a batch is done.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The earliest due time by queue.
    pub due: BTreeMap<Name, i64>,
    /// Tasks that have their answer.
    pub answered: Vec<TaskId>,
    counts: BTreeMap<(&'static str, Name, &'static str, &'static str), u64>,
    /// By the queue of their task, and the dependency that they went to.
    calls: BTreeMap<(Name, Option<Name>), Calls>,
}

/// Calls that were made, as far as somebody told of them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Calls {
    /// How many.
    pub attempts: u32,
    /// How many of them were the first of their task.
    pub tasks: u32,
    /// What they cost.
    pub cost: Cost,
}

impl Told {
    /// A task came into a state.
    pub fn moved(&mut self, id: &TaskId, queue: &Name, state: TaskState, due_ms: i64) {
        if state == TaskState::Scheduled {
            match self.due.get_mut(queue) {
                Some(earliest) => *earliest = due_ms.min(*earliest),
                None => drop(self.due.insert(queue.clone(), due_ms)),
            }
        }
        if state.is_settled() {
            self.answered.push(id.clone());
        }
    }

    /// One more of a counter with the labels `queue` and another.
    pub fn count(&mut self, counter: &'static str, queue: &Name, label: &'static str, value: &'static str) {
        *self.counts.entry((counter, queue.clone(), label, value)).or_default() += 1;
    }

    /// Calls were made.
    pub fn called(&mut self, queue: &Name, dependency: Option<Name>, calls: Calls) {
        let all = self.calls.entry((queue.clone(), dependency)).or_default();
        all.attempts = all.attempts.saturating_add(calls.attempts);
        all.tasks = all.tasks.saturating_add(calls.tasks);
        all.cost = all.cost.plus(calls.cost);
    }

    /// Adds what was counted to the metrics.
    pub fn record(&self, labels: &BoundedLabels, amplification: &Amplification, now_ms: i64) {
        for ((queue, dependency), calls) in &self.calls {
            amplification.count(queue, *calls, now_ms);
            record_calls(labels, dependency.as_deref(), *calls);
        }
        for ((counter, queue, label, value), count) in &self.counts {
            metrics::counter!(*counter, "queue" => queue.to_string(), *label => *value).increment(*count);
        }
    }
}
