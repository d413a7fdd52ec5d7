//! Amplification: how many calls retries make of one task. By queue, over the last ten minutes, as far as this coordinator
//! heard of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use redrive_shared::id::Name;

use super::told::Calls;

/// How far back it looks, in ms, and the length of its steps: what happened leaves when it is 9.5 to 10 min old. Shorter
/// than that, a policy's longer delays would put the calls of one task into different looks.
const WINDOW_MS: i64 = 600_000;
const STEP_MS: i64 = 30_000;

/// What was called, by queue.
#[derive(Debug, Default)]
pub(super) struct Amplification {
    queues: Mutex<BTreeMap<Name, Recent>>,
}

/// The steps of one queue, each from when something happened, oldest first.
#[derive(Debug, Default)]
struct Recent(VecDeque<Step>);

#[derive(Debug)]
struct Step {
    from_ms: i64,
    attempts: u64,
    tasks: u64,
}

impl Amplification {
    /// Calls were made for tasks of a queue.
    pub fn count(&self, queue: &Name, calls: Calls, now_ms: i64) {
        if calls.attempts == 0 {
            return;
        }
        let mut queues = self.lock();
        if !queues.contains_key(queue) {
            // Queues are few beside their tasks: whoever comes new makes room.
            queues.retain(|_, recent| recent.ratio(now_ms).is_some());
            queues.insert(queue.clone(), Recent::default());
        }
        if let Some(recent) = queues.get_mut(queue) {
            recent.count(calls, now_ms);
        }
    }

    /// Calls made for each task that was called for the first time; none where no call was made. While only retries are made,
    /// it is their number.
    pub fn of(&self, queue: &Name, now_ms: i64) -> Option<f64> {
        self.lock().get(queue)?.ratio(now_ms)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Recent>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recent {
    fn count(&mut self, calls: Calls, now_ms: i64) {
        let (attempts, tasks) = (u64::from(calls.attempts), u64::from(calls.tasks));
        match self.0.back_mut() {
            Some(step) if now_ms < step.from_ms.saturating_add(STEP_MS) => {
                step.attempts += attempts;
                step.tasks += tasks;
            }
            _ => {
                self.0.retain(|step| step.is_within(now_ms));
                self.0.push_back(Step { from_ms: now_ms, attempts, tasks });
            }
        }
    }

    fn ratio(&self, now_ms: i64) -> Option<f64> {
        let within = self.0.iter().filter(|step| step.is_within(now_ms));
        let (attempts, tasks) =
            within.fold((0, 0), |(attempts, tasks), step| (attempts + step.attempts, tasks + step.tasks));
        (attempts > 0).then(|| attempts as f64 / tasks.max(1) as f64)
    }
}

impl Step {
    fn is_within(&self, now_ms: i64) -> bool {
        self.from_ms > now_ms.saturating_sub(WINDOW_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn calls(attempts: u32, tasks: u32) -> Calls {
        Calls { attempts, tasks, ..Calls::default() }
    }

    #[test]
    fn it_is_the_calls_of_ten_minutes_by_the_tasks_called_first_in_them() {
        let amplification = Amplification::default();
        let (busy, quiet) = (name("busy"), name("quiet"));
        assert_eq!(amplification.of(&busy, 0), None);
        amplification.count(&busy, calls(3, 1), 0);
        amplification.count(&busy, calls(1, 1), 20_000);
        assert_eq!(amplification.of(&busy, 20_000), Some(2.0));
        assert_eq!(amplification.of(&quiet, 20_000), None);
        amplification.count(&busy, calls(5, 0), 400_000);
        assert_eq!(amplification.of(&busy, 599_999), Some(4.5));
        assert_eq!(amplification.of(&busy, 600_000), Some(5.0), "only retries are left");
        assert_eq!(amplification.of(&busy, 1_000_000), None);
    }

    #[test]
    fn a_clock_that_goes_back_loses_nothing_and_idle_queues_make_room() {
        let amplification = Amplification::default();
        amplification.count(&name("q"), calls(2, 1), 900_000);
        amplification.count(&name("q"), calls(2, 1), 100_000);
        assert_eq!(amplification.of(&name("q"), 100_000), Some(2.0));
        amplification.count(&name("other"), calls(1, 1), 2_000_000);
        assert_eq!(amplification.lock().len(), 1);
        amplification.count(&name("none"), calls(0, 0), 2_000_000);
        assert_eq!(amplification.of(&name("none"), 2_000_000), None);
    }
}
