//! Checkpoints, as the store takes and answers them.

use redrive_shared::checkpoint::{Checkpoint, Refused};
use redrive_shared::id::{Name, TaskId};
use redrive_shared::lifecycle::Fence;
use redrive_shared::task::TaskState;

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
