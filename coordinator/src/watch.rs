//! Producers that wait for their answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redrive_shared::id::TaskId;
use tokio::sync::Notify;

type Waiting = HashMap<TaskId, Arc<Notify>>;

/// Who waits for which task.
#[derive(Debug, Default)]
pub struct Watchers(Mutex<Waiting>);

impl Watchers {
    /// Waits for one task until dropped. Ask for it before looking at the task, so that nothing is missed in between.
    pub fn watch(&self, id: &TaskId) -> Watch<'_> {
        let notify = Arc::clone(self.lock().entry(id.clone()).or_default());
        Watch { watchers: self, id: id.clone(), notify }
    }

    /// The task has its answer.
    pub fn settled(&self, id: &str) {
        if let Some(notify) = self.lock().get(id) {
            notify.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who waits.
pub struct Watch<'a> {
    watchers: &'a Watchers,
    id: TaskId,
    /// Rings when the task has its answer.
    pub notify: Arc<Notify>,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let mut waiting = self.watchers.lock();
        // The map's, ours: nobody else waits for this task.
        if waiting.get(&self.id).is_some_and(|notify| Arc::strong_count(notify) <= 2) {
            waiting.remove(&self.id);
        }
    }
}
