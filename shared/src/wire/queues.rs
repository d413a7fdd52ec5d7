//! Queues: where work waits, and under which policy.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::Name;
use crate::retry::RetryPolicy;
use crate::task::StateCounts;

/// The header that says who changes a policy: a name, such as `ada@laptop`.
pub const ACTOR_HEADER: &str = "x-redrive-actor";

/// Makes a queue or changes its policy.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QueueCreate {
    /// How its tasks are retried; fields left out take their defaults.
    #[serde(default)]
    pub policy: RetryPolicy,
    /// The version that the change was made from, as a reply told it; 0 for a queue that is not there yet. Where another
    /// one is in force by now, nothing is changed. Left out: whatever is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Why, for the policy's history; up to 512 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl From<RetryPolicy> for QueueCreate {
    fn from(policy: RetryPolicy) -> Self {
        Self { policy, ..Self::default() }
    }
}

/// Makes queues or changes their policies: all of them or none.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QueuesPut {
    /// 1 to 1,000 queues, each once.
    pub queues: Vec<QueuePut>,
    /// Why, for the policies' history; up to 512 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One queue of a batch.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QueuePut {
    /// The queue.
    pub name: Name,
    /// How its tasks are retried; fields left out take their defaults.
    #[serde(default)]
    pub policy: RetryPolicy,
    /// As in [`QueueCreate`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
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
    /// Calls made for each task in the last 10 minutes, as far as this coordinator heard: calls, those included that agents had
    /// made before they enqueued the task, by the tasks that were called for the first time. Missing where none was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amplification: Option<f64>,
    /// How often the policy was changed; 0: it is as it was when the queue was first named.
    #[serde(default)]
    pub version: u64,
    /// Settings of the policy in the store that this coordinator's release cannot read, by their place. It goes on without
    /// them. `*`: it can read nothing of it, and the defaults are in force there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
}

/// The place in [`QueueView::unread`] that stands for a whole policy.
pub const UNREAD_ALL: &str = "*";

/// Every queue.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct QueuesReply {
    /// By name.
    pub queues: Vec<QueueView>,
}

/// A policy that is or was in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyVersion {
    /// Its number, counted from 1. Version 0 is what was there before the first change that was recorded.
    pub version: u64,
    /// When it was recorded.
    pub at_ms: i64,
    /// Who put it in force. Missing where nobody said so, and for what a release changed that keeps no versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Name>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The policy.
    pub policy: RetryPolicy,
}

/// How a queue's policy came about.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct QueueVersionsReply {
    /// The queue.
    pub name: Name,
    /// The last 50 versions, newest first; the first of them is in force. Empty where it was never changed.
    pub versions: Vec<PolicyVersion>,
}
