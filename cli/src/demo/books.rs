//! The books: what the coordinator and the upstream say at the end, added up and held against each other.
//!
//! Pure. Three witnesses are compared: what the coordinator acknowledged when the work was enqueued, its queues' counters,
//! and its tasks one by one. The upstream is the fourth: it knows which work was really done, and how often.

use std::collections::BTreeMap;

use redrive_shared::failure::FailureClass;
use redrive_shared::id::TaskId;
use redrive_shared::task::{AttemptEnd, AttemptRecord, StateCounts, TaskState, TaskView};
use serde::Serialize;

/// What everyone says.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// Ids that the coordinator acknowledged as created.
    pub enqueued: &'a [TaskId],
    /// The tasks at the end, with their history.
    pub tasks: &'a [TaskView],
    /// The queues' counters at the end, less those at the start, added up.
    pub counters: StateCounts,
    /// How often the upstream did each task's work.
    pub effects: &'a BTreeMap<String, u64>,
    /// When the upstream was asked for each task's work, in order (ms since the epoch).
    pub calls_ms: &'a BTreeMap<String, Vec<i64>>,
    /// Pairs of calls for one task that the upstream served at the same time.
    pub overlapping_calls: usize,
    /// From when to when some breaker was not closed (ms since the epoch).
    pub breakers_open_ms: &'a [(i64, i64)],
    /// When the worker was killed (ms since the epoch).
    pub killed_at_ms: Option<i64>,
}

/// All of it, added up.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Books {
    /// Tasks acknowledged.
    pub enqueued: usize,
    /// Done.
    pub succeeded: usize,
    /// Given up.
    pub dead: usize,
    /// With a person.
    pub escalated: usize,
    /// Called off.
    pub cancelled: usize,
    /// Not due yet, or still running.
    pub waiting: usize,
    /// Attempts that were made, at the callers and by workers.
    pub attempts: usize,
    /// Done without a failure, ever.
    pub first_try: usize,
    /// Done after at least one failure.
    pub recovered: usize,
    /// Times that a task was handed back untouched, because a breaker was open.
    pub handed_back: usize,
    /// By class of failure, the most frequent first.
    pub classes: Vec<ClassRow>,
    /// Lease less due, for leases that no open breaker held up.
    pub lateness_ms: Lateness,
    /// Lease less due, for work that was due while a breaker was open: waiting is what breakers are for.
    pub lateness_breaker_open_ms: Lateness,
    /// First call less due, for leases that no open breaker held up: when the work really began. A lease that was pushed may
    /// have waited in RabbitMQ, and at its worker.
    pub work_lateness_ms: Lateness,
    /// What became of the killed worker's tasks.
    pub crash: Crash,
    /// Tasks whose work the upstream did more than once.
    pub done_twice: usize,
    /// Pairs of leases of one task that were valid at the same time.
    pub overlapping_leases: usize,
    /// Pairs of calls for one task that the upstream served at the same time.
    pub overlapping_calls: usize,
    /// What does not add up; empty when the books balance.
    pub problems: Vec<String>,
}

/// One class of failure.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct ClassRow {
    /// The class.
    pub class: FailureClass,
    /// Failed attempts of this class.
    pub failures: usize,
    /// Tasks that had at least one.
    pub tasks: usize,
    /// Those of them that are done.
    pub recovered: usize,
    /// Tasks that ended dead on it.
    pub dead: usize,
    /// Tasks that ended with a person on it.
    pub escalated: usize,
    /// Tasks that wait after it.
    pub waiting: usize,
}

/// A distribution, in milliseconds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Lateness {
    /// How many.
    pub claims: usize,
    /// Half are at most this late.
    pub p50: i64,
    /// 99 of 100 are at most this late.
    pub p99: i64,
    /// The latest.
    pub max: i64,
}

/// The crash.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Crash {
    /// Tasks that the worker took with it.
    pub tasks: usize,
    /// Of these, how many the upstream was asked for again.
    pub again: usize,
    /// From the kill to the first of them that was, in milliseconds.
    pub first_ms: Option<i64>,
    /// … and to the last.
    pub last_ms: Option<i64>,
}

impl Books {
    /// Adds up and compares.
    pub fn close(evidence: &Evidence<'_>) -> Self {
        let mut books = Self { enqueued: evidence.enqueued.len(), ..Self::default() };
        let mut classes: BTreeMap<FailureClass, ClassRow> = BTreeMap::new();
        let (mut prompt, mut held_up, mut work) = (Vec::new(), Vec::new(), Vec::new());
        for task in evidence.tasks {
            books.count(task);
            count_classes(task, &mut classes);
            for (due_ms, attempt) in leases(task) {
                let late_ms = |at_ms: i64| at_ms.saturating_sub(due_ms).max(0);
                if evidence.breakers_open_ms.iter().any(|(from, to)| (*from..=*to).contains(&due_ms)) {
                    held_up.push(late_ms(attempt.started_at_ms));
                } else {
                    prompt.push(late_ms(attempt.started_at_ms));
                    work.extend(evidence.call_under(task, attempt).map(late_ms));
                }
            }
            books.overlapping_leases += overlaps(&task.history);
        }
        books.classes = classes.into_values().collect();
        books.classes.sort_by_key(|row| (std::cmp::Reverse(row.failures), row.class));
        books.lateness_ms = Lateness::of(prompt);
        books.lateness_breaker_open_ms = Lateness::of(held_up);
        books.work_lateness_ms = Lateness::of(work);
        books.crash = crash(evidence);
        books.done_twice = evidence.effects.values().filter(|times| **times > 1).count();
        books.overlapping_calls = evidence.overlapping_calls;
        books.problems = books.compare(evidence);
        books
    }

    /// Whether everything adds up.
    pub fn balance(&self) -> bool {
        self.problems.is_empty()
    }

    fn count(&mut self, task: &TaskView) {
        let failed_before = task.ledger.failed > 0 || task.ledger.lost > 0;
        match task.state {
            TaskState::Succeeded => {
                self.succeeded += 1;
                if failed_before { self.recovered += 1 } else { self.first_try += 1 }
            }
            TaskState::Dead => self.dead += 1,
            TaskState::Escalated => self.escalated += 1,
            TaskState::Cancelled => self.cancelled += 1,
            TaskState::Scheduled | TaskState::Leased => self.waiting += 1,
            // The demo hands nothing off: one that is would be missing in the sum.
            TaskState::HandedOff => {}
        }
        self.attempts += task.history.iter().filter(|attempt| was_made(attempt.end)).count();
        self.handed_back += task.history.iter().filter(|attempt| attempt.end == AttemptEnd::Released).count();
    }

    /// What the witnesses do not agree on.
    fn compare(&self, evidence: &Evidence<'_>) -> Vec<String> {
        let mut problems = Vec::new();
        let ended = self.succeeded + self.dead + self.escalated + self.cancelled + self.waiting;
        if self.enqueued != ended {
            problems.push(format!("{} tasks were acknowledged, and {ended} are known", self.enqueued));
        }
        let counted = evidence.counters;
        let pairs = [
            ("succeeded", self.succeeded, counted.succeeded),
            ("dead", self.dead, counted.dead),
            ("escalated", self.escalated, counted.escalated),
            ("cancelled", self.cancelled, counted.cancelled),
            ("waiting", self.waiting, counted.scheduled + counted.leased),
        ];
        for (state, tasks, counter) in pairs {
            if i64::try_from(tasks) != Ok(counter) {
                problems.push(format!("{tasks} tasks are {state}, and the queues count {counter}"));
            }
        }
        let running = evidence.tasks.iter().filter(|task| task.state == TaskState::Leased).count();
        if running > 0 {
            problems.push(format!("{running} tasks were still running at the end"));
        }
        let unbacked = evidence.tasks.iter().filter(|task| {
            task.state == TaskState::Succeeded && !evidence.effects.contains_key(task.id.as_str())
        });
        problems.extend(
            unbacked.map(|task| format!("{} succeeded, and the upstream never did its work", task.id)),
        );
        if self.overlapping_leases > 0 {
            problems.push(format!("{} pairs of leases on one task overlapped", self.overlapping_leases));
        }
        problems
    }
}

/// Whether somebody tried: a lease that was handed back or never started is no attempt.
fn was_made(end: AttemptEnd) -> bool {
    match end {
        AttemptEnd::Succeeded | AttemptEnd::Failed | AttemptEnd::Lost | AttemptEnd::Reported => true,
        AttemptEnd::Snoozed
        | AttemptEnd::Released
        | AttemptEnd::Undelivered
        | AttemptEnd::Cancelled
        | AttemptEnd::Redriven
        | AttemptEnd::HandedOff => false,
    }
}

fn class_of(attempt: &AttemptRecord) -> Option<FailureClass> {
    match attempt.end {
        AttemptEnd::Lost => Some(FailureClass::WorkerLost),
        _ => attempt.failure.as_ref().map(|failure| failure.class),
    }
}

fn count_classes(task: &TaskView, classes: &mut BTreeMap<FailureClass, ClassRow>) {
    let failures: Vec<FailureClass> = task.history.iter().filter_map(class_of).collect();
    let Some(last) = failures.last() else { return };
    for (place, class) in failures.iter().enumerate() {
        let row = classes.entry(*class).or_insert_with(|| ClassRow::new(*class));
        row.failures += 1;
        // Its first failure of this class counts the task.
        if failures[..place].contains(class) {
            continue;
        }
        row.tasks += 1;
        match task.state {
            TaskState::Succeeded => row.recovered += 1,
            TaskState::Dead => row.dead += usize::from(class == last),
            TaskState::Escalated => row.escalated += usize::from(class == last),
            TaskState::Scheduled | TaskState::Leased => row.waiting += usize::from(class == last),
            TaskState::Cancelled | TaskState::HandedOff => {}
        }
    }
}

impl ClassRow {
    fn new(class: FailureClass) -> Self {
        Self { class, failures: 0, tasks: 0, recovered: 0, dead: 0, escalated: 0, waiting: 0 }
    }
}

/// Leases and calls are written down in whole milliseconds, by two that each round down.
const ROUNDING_MS: i64 = 2;

/// Each of its leases, with when it was due.
fn leases(task: &TaskView) -> Vec<(i64, &AttemptRecord)> {
    let mut due_ms = task.enqueued_at_ms;
    let mut all = Vec::with_capacity(task.history.len());
    for attempt in &task.history {
        if attempt.run > 0 && attempt.end != AttemptEnd::Reported {
            all.push((due_ms, attempt));
        }
        due_ms = attempt.ended_at_ms.saturating_add_unsigned(attempt.delay_ms.unwrap_or(0));
    }
    all
}

impl Evidence<'_> {
    /// When the upstream was first asked for a task's work, from then on.
    fn call_from(&self, task: &TaskView, from_ms: i64) -> Option<i64> {
        self.calls_ms.get(task.id.as_str())?.iter().copied().find(|at_ms| *at_ms >= from_ms)
    }

    /// When the upstream was first asked for it under that lease, if it was.
    fn call_under(&self, task: &TaskView, lease: &AttemptRecord) -> Option<i64> {
        self.call_from(task, lease.started_at_ms - ROUNDING_MS).filter(|at_ms| *at_ms <= lease.ended_at_ms)
    }
}

/// Pairs of leases that follow each other, of which the second began before the first had ended.
fn overlaps(history: &[AttemptRecord]) -> usize {
    let leases: Vec<&AttemptRecord> =
        history.iter().filter(|attempt| attempt.end != AttemptEnd::Reported).collect();
    leases.windows(2).filter(|pair| pair[1].started_at_ms < pair[0].ended_at_ms).count()
}

fn crash(evidence: &Evidence<'_>) -> Crash {
    let Some(killed_at_ms) = evidence.killed_at_ms else { return Crash::default() };
    let mut crash = Crash::default();
    for task in evidence.tasks {
        let Some(lost) = task.history.iter().find(|attempt| attempt.end == AttemptEnd::Lost) else {
            continue;
        };
        crash.tasks += 1;
        if let Some(call_ms) = evidence.call_from(task, lost.ended_at_ms) {
            let after_ms = call_ms.saturating_sub(killed_at_ms);
            crash.again += 1;
            crash.first_ms = Some(crash.first_ms.map_or(after_ms, |first| first.min(after_ms)));
            crash.last_ms = Some(crash.last_ms.map_or(after_ms, |last| last.max(after_ms)));
        }
    }
    crash
}

impl Lateness {
    /// Of these, in any order.
    pub fn of(mut all: Vec<i64>) -> Self {
        all.sort_unstable();
        let Some(max) = all.last().copied() else { return Self::default() };
        // The nearest rank: the smallest value that at least this share does not exceed.
        let rank = |percent: usize| all[(all.len() * percent).div_ceil(100).saturating_sub(1)];
        Self { claims: all.len(), p50: rank(50), p99: rank(99), max }
    }
}

#[cfg(test)]
mod tests;
