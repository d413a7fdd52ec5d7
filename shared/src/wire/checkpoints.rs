//! Checkpoints: how far a task's work came.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::blob::BlobRef;
use crate::id::Name;
use crate::task::Nonce;

/// Saves how far the work under a lease came. Whoever has the lease no more saves nothing.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckpointRequest {
    /// As the claim gave it.
    pub epoch: i64,
    /// As the claim gave it.
    pub nonce: Nonce,
    /// The checkpoint's number: higher than the last one's, which came with the claim (`checkpoint.seq`, 0 without one). The
    /// same request again, number and all, changes nothing.
    pub seq: u64,
    /// The step, by the handler's own name for it; up to 256 of a task.
    pub step: Name,
    /// Whether the step is done; `false` says how far it came. Default: `true`.
    #[serde(default = "yes")]
    pub completed: bool,
    /// What the rest of the work needs of it: any JSON, up to 256 KiB with those of the task's other steps together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub state: Option<Box<RawValue>>,
    /// In its place: a blob that was uploaded for the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_ref: Option<BlobRef>,
    /// The steps still to come, up to 256; left out, those said before stand. A step that is done is taken from them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Vec<Name>>,
}

const fn yes() -> bool {
    true
}

/// The checkpoint is saved: it outlives this coordinator, and comes with the task's next lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckpointReply {
    /// Its number.
    pub seq: u64,
    /// True when this very checkpoint was saved before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeated: bool,
}
