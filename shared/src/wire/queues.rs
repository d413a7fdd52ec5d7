//! Queues: where work waits, and under which policy.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::Name;
use crate::retry::RetryPolicy;
use crate::task::StateCounts;

/// Makes a queue or changes its policy.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QueueCreate {
    /// How its tasks are retried; fields left out take their defaults.
    #[serde(default)]
    pub policy: RetryPolicy,
}

/// A queue as operators see it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct QueueView {
    /// Its name.
    pub name: Name,
    /// Whether it hands out work.
    pub paused: bool,
    /// Tasks by state.
    pub counts: StateCounts,
    /// When its next task is due, if any waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_due_at_ms: Option<i64>,
    /// How its tasks are retried.
    pub policy: RetryPolicy,
}

/// Every queue.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct QueuesReply {
    /// By name.
    pub queues: Vec<QueueView>,
}
