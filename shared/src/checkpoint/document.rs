//! Progress as people read it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Progress;
use crate::id::{Name, TaskId};
use crate::task::{TaskState, TaskView};

/// How far a task came. Every field is always there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProgressDocument {
    /// The task.
    pub task_id: TaskId,
    /// `in_progress` as long as it waits or is being worked on; otherwise its state.
    pub status: String,
    /// The steps that are done, in the order in which they were first saved.
    pub completed_steps: Vec<Name>,
    /// The steps to come, as its handler said.
    pub pending_steps: Vec<Name>,
    /// Attempts that failed, or were lost with their worker.
    pub retry_count: u32,
    /// What the last one that failed said.
    pub last_error: Option<String>,
    /// When the last checkpoint was saved (RFC 3339, UTC, milliseconds).
    pub last_checkpoint: Option<String>,
}

impl ProgressDocument {
    /// Of a task and what it saved.
    pub fn new(task: &TaskView, progress: &Progress) -> Self {
        let status = match task.state {
            TaskState::Scheduled | TaskState::Leased => "in_progress",
            settled => settled.as_str(),
        };
        let completed = progress.steps.iter().filter(|step| step.completed);
        Self {
            task_id: task.id.clone(),
            status: status.to_owned(),
            completed_steps: completed.map(|step| step.step.clone()).collect(),
            pending_steps: progress.pending.clone(),
            retry_count: task.ledger.failed.saturating_add(task.ledger.lost),
            last_error: task.last_failure.as_ref().map(|failure| failure.message.clone()),
            last_checkpoint: progress.saved_at_ms().and_then(rfc3339),
        }
    }
}

fn rfc3339(at_ms: i64) -> Option<String> {
    Some(format!("{:.3}", Timestamp::from_millisecond(at_ms).ok()?))
}
