//! Tasks that this coordinator handed out, as they were then: who settles one of them spares Redis a read.
//!
//! A task cannot change under a lease except by the one who holds it (an extension changes only when it ends), and the
//! script that writes compares the fence. So what is decided from memory is right, or refused; what is forgotten costs a
//! read.

use std::collections::HashMap;
use std::mem;
use std::sync::{Mutex, PoisonError};

use redrive_shared::id::{Name, TaskId};
use redrive_shared::lifecycle::Fence;

use super::value::Task;

/// Tasks in each of two generations; about 400 bytes each.
const GENERATION: usize = 32_768;

/// A task and the agent that holds it.
pub(super) type Handed = (Task, Option<Name>);

#[derive(Default)]
struct Generations {
    young: HashMap<TaskId, Handed>,
    old: HashMap<TaskId, Handed>,
}

/// The tasks handed out.
#[derive(Default)]
pub(super) struct Held(Mutex<Generations>);

impl Held {
    /// A lease was given.
    pub fn put(&self, tasks: impl IntoIterator<Item = (TaskId, Handed)>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, task) in tasks {
            if held.young.len() >= GENERATION {
                held.old = mem::take(&mut held.young);
            }
            held.young.insert(id, task);
        }
    }

    /// Takes a task out, if this lease is the one that is remembered.
    pub fn take(&self, id: &TaskId, fence: Fence) -> Option<Handed> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |(task, _): &Handed| (task.record.epoch, task.record.nonce) == (fence.epoch, fence.nonce);
        if held.young.get(id).is_some_and(fits) {
            return held.young.remove(id);
        }
        held.old.remove(id).filter(fits)
    }

    /// The queue of a task that was handed out under this lease.
    pub fn queue_of(&self, id: &TaskId, fence: Fence) -> Option<String> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (task, _) = held.young.get(id).or_else(|| held.old.get(id))?;
        let fits = (task.record.epoch, task.record.nonce) == (fence.epoch, fence.nonce);
        fits.then(|| task.meta.queue().to_owned())
    }
}
