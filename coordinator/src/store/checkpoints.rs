//! Checkpoints, as the store takes and answers them.

use redrive_shared::checkpoint::{Checkpoint, Refused};
use redrive_shared::id::{Name, TaskId};
use redrive_shared::lifecycle::Fence;
use redrive_shared::task::TaskState;

/// Whether a task that is claimed may have saved something before, after so many runs and with so many lines of history. First
/// attempts have not, and need not be asked. A lease that ended since nobody had started it counts as no run, but its worker may
/// have saved under it; that end is a line of history, as is what came after it, and a new task has one line at most.
pub(super) fn may_have_saved(runs: u32, entries: impl Into<i64>) -> bool {
    runs > 0 || entries.into() > 1
}

/// A checkpoint to save under a lease.
#[derive(Debug, Clone)]
pub struct SaveCheckpoint {
    /// The task.
    pub id: TaskId,
    /// Its lease.
    pub fence: Fence,
    /// What to save.
    pub checkpoint: Checkpoint,
}

/// What became of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckpointSaved {
    /// It is saved, and comes with the next lease.
    Saved {
        /// The queue, for metrics.
        queue: Name,
    },
    /// This very checkpoint was saved before.
    Repeated,
    /// It may not be saved; nothing has changed.
    Refused(Refused),
    /// The lease is over or somebody else's.
    Stale(TaskState),
    /// This release cannot read the task; nothing has changed.
    Unreadable,
    /// No such task.
    Unknown,
}
