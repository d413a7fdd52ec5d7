//! Tasks that this coordinator handed out, as they were then: who settles one of them spares Redis a read, and a script
//! the handling of its body.
//!
//! A task cannot change under a lease except by the one who holds it (an extension changes only when it ends, and perhaps
//! whose it is), and the script that writes compares the fence. So what is decided from memory is right, or refused; what is forgotten costs a
//! read.

use std::collections::HashMap;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redrive_shared::id::{Name, TaskId};
use redrive_shared::lifecycle::Fence;

use super::keys::run_name;
use super::value::Task;
use crate::store::Run;

/// Tasks in each of two generations.
const TASKS_MAX: usize = 32_768;
/// Bytes of their bodies in each of two generations.
const BODIES_MAX_BYTES: usize = 64 * 1024 * 1024;

/// A task, and what is known beside it.
#[derive(Debug, Clone)]
pub(super) struct Handed {
    pub task: Box<Task>,
    /// Who holds it.
    pub agent: Option<Name>,
    /// Its value as it was read, where it is at hand.
    pub value: Option<Vec<u8>>,
}

#[derive(Default)]
struct Generations {
    young: HashMap<TaskId, Handed>,
    young_bytes: usize,
    old: HashMap<TaskId, Handed>,
}

impl Generations {
    fn take(&mut self, id: &TaskId, fence: Fence) -> Option<Handed> {
        if self.young.get(id).is_some_and(|handed| handed.is_under(fence)) {
            let handed = self.young.remove(id)?;
            self.young_bytes = self.young_bytes.saturating_sub(handed.bytes());
            return Some(handed);
        }
        if self.old.get(id)?.is_under(fence) { self.old.remove(id) } else { None }
    }
}

/// The tasks handed out.
#[derive(Default)]
pub(super) struct Held(Mutex<Generations>);

impl Held {
    /// Leases were given.
    pub fn put(&self, tasks: impl IntoIterator<Item = (TaskId, Handed)>) {
        let mut held = self.lock();
        for (id, handed) in tasks {
            if held.young.len() >= TASKS_MAX || held.young_bytes >= BODIES_MAX_BYTES {
                held.old = mem::take(&mut held.young);
                held.young_bytes = 0;
            }
            held.young_bytes += handed.bytes();
            held.young.insert(id, handed);
        }
    }

    /// Takes those of the tasks out that are remembered under the lease that is shown, in order.
    pub fn take<'a>(&self, shown: impl Iterator<Item = (&'a TaskId, Fence)>) -> Vec<Option<Handed>> {
        let mut held = self.lock();
        shown.map(|(id, fence)| held.take(id, fence)).collect()
    }

    /// The queue of a task that was handed out under this lease.
    pub fn queue_of(&self, id: &TaskId, fence: Fence) -> Option<String> {
        let held = self.lock();
        let handed = held.young.get(id).or_else(|| held.old.get(id))?;
        handed.is_under(fence).then(|| handed.task.meta.queue().to_owned())
    }

    /// A run took a lease over: the task's history is to name it. Where another coordinator was told, the script that writes
    /// finds out.
    pub fn take_over(&self, id: &TaskId, fence: Fence, run: &Run) {
        let mut held = self.lock();
        let Generations { young, old, .. } = &mut *held;
        let handed = young.get_mut(id).or_else(|| old.get_mut(id));
        if let Some(handed) = handed.filter(|handed| handed.is_under(fence)) {
            handed.agent = Some(run.agent.clone());
            if let Some(lease) = &mut handed.task.lease {
                lease.taken_by = Some(run_name(&run.agent, Some(&run.boot_id)).into());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handed {
    fn is_under(&self, fence: Fence) -> bool {
        self.task.fence() == fence
    }

    fn bytes(&self) -> usize {
        self.value.as_ref().map_or(0, Vec::len)
    }
}
