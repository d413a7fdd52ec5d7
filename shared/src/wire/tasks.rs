//! Enqueueing work, asking after it, and what operators do to it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::blob::BlobRef;
use crate::cost::Cost;
use crate::error::Problem;
use crate::failure::FailureSignal;
use crate::id::{Name, TaskId};
use crate::retry::Strategy;
use crate::task::{Priority, TaskState, TaskView};

/// One task to enqueue. With `failure`, it is work that has already failed at the caller: the normal case.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTask {
    /// The caller's own id, which makes the call safe to repeat; a UUIDv7 is made when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<TaskId>,
    /// Where it goes; `default` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<Name>,
    /// What to run; the queue's name when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_type: Option<Name>,
    /// Version of the payload's schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub type_version: Option<u32>,
    /// Any JSON, at most 256 KiB; handed to the worker byte for byte. `null` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub payload: Option<Box<RawValue>>,
    /// In its place: a blob that was uploaded for this id with `POST /v1/tasks/{id}/blobs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_ref: Option<BlobRef>,
    /// The upstream that it needs, as `provider/account/model` or `tool/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dependency: Option<Name>,
    /// Tenant or fairness key: claims rotate over groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Name>,
    /// `high`, `normal` or `low`.
    #[serde(default)]
    pub priority: Priority,
    /// Earliest start from now, in milliseconds. With a failure, the policy's delay is used when it is longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// Time from now until it is too late, in milliseconds; the queue's policy decides when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Failures until it is dead; the queue's policy decides when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// Its own backoff, in place of the queue's and of every failure class's that backs off: a strategy as in a policy, within
    /// the bounds that the queue sets (`task_base_min_ms`, `task_cap_max_ms`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Strategy>,
    /// What it may cost, in US dollars, more than 0 and at most 10,000: a failure that leaves it there, by what outcomes
    /// report, goes to a person instead of a retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cost_usd: Option<Cost>,
    /// Tokens that one attempt uses by the caller's estimate, 1 to 10,000,000: prompt and answer together, over all of its calls.
    /// Counted where a dependency has a limit of tokens a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u32>,
    /// Attempts that the caller has already made; counted against `max_attempts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts_made: Option<u32>,
    /// What the caller saw fail, raw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureSignal>,
    /// Where in the dependency's fallback chain it begins, and where it failed if it did: 0 = the dependency itself. Without a
    /// chain the number is handed through.
    #[serde(default)]
    pub route: u32,
    /// W3C trace context of the call that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Up to 16 labels, for people and filters; never used as metric labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Up to 1,000 tasks.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnqueueRequest {
    /// The tasks.
    pub tasks: Vec<NewTask>,
}

/// What became of one task of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EnqueueStatus {
    /// It is on the queue, durably.
    Created,
    /// That id with that payload was there already: nothing changed.
    Duplicate,
    /// It was refused; `error` says why.
    Refused,
}

/// The answer for one task, in the order of the request.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EnqueueResult {
    /// The id, the caller's or the one made. Missing when it was refused before it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<TaskId>,
    /// What became of it.
    pub status: EnqueueStatus,
    /// Its state now; a failure that no retry can mend goes straight to `dead` or `escalated`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<TaskState>,
    /// When it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at_ms: Option<i64>,
    /// What its handler returned, where it was there already and has succeeded. Results beyond 4 MiB in all are left out;
    /// `hint` says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub result: Option<Box<RawValue>>,
    /// Where that is, if it is a blob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_ref: Option<BlobRef>,
    /// What to ask for what is not here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
}

impl EnqueueResult {
    /// An answer that has nothing but its status, to be filled.
    pub const fn of(id: Option<TaskId>, status: EnqueueStatus) -> Self {
        Self {
            id,
            status,
            state: None,
            due_at_ms: None,
            result: None,
            result_ref: None,
            hint: None,
            error: None,
        }
    }
}

/// The answers, in the order of the request.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EnqueueReply {
    /// One a task.
    pub results: Vec<EnqueueResult>,
}

/// Ids to ask after.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StatusRequest {
    /// Up to 1,000 ids.
    pub ids: Vec<TaskId>,
}

/// Those tasks of the request that are known, without payload and history. Results beyond 4 MiB in all are left out: ask
/// for those tasks one by one.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StatusReply {
    /// The tasks found, in the order of the request.
    pub tasks: Vec<TaskView>,
    /// The ids that are not known, or no longer.
    pub unknown: Vec<TaskId>,
}

/// A page of a list.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Page {
    /// The tasks, newest first, without payload, history and result.
    pub tasks: Vec<TaskView>,
    /// Pass it as `cursor` for the next page; missing at the end. A page may be short, even empty, and still have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// What an operator can do to tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskAction {
    /// Call it off, whatever it is doing: a worker that holds it hears of it with its next heartbeat.
    Cancel,
    /// Run it again now: a dead, escalated, cancelled or handed-off task gets its attempts back, a waiting one becomes due.
    Retry,
}

/// Ids to act on.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskActionRequest {
    /// Up to 1,000 ids.
    pub ids: Vec<TaskId>,
    /// Why, for the task's history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What became of one task.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TaskActionResult {
    /// The task.
    pub id: TaskId,
    /// Its state now, unless it is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<TaskState>,
    /// Why nothing was changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
}

/// The answers, in the order of the request.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TaskActionReply {
    /// One an id.
    pub results: Vec<TaskActionResult>,
}
