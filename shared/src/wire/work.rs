//! What workers say: claims, extensions, settlements.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::blob::BlobRef;
use crate::cost::Cost;
use crate::error::Problem;
use crate::failure::FailureSignal;
use crate::id::{Name, TaskId};
use crate::task::{Lease, Nonce, TaskState};

/// A worker has room: give it what is due.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimRequest {
    /// Who asks.
    pub agent: Name,
    /// Which run of that agent: a fresh one for every process start. Ties leases to the process that holds them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<Name>,
    /// Repeating the call with the same id returns the same leases: for a reply that got lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<Name>,
    /// Which queues, 1 to 64.
    pub queues: Vec<Name>,
    /// At most this many leases, 1 to 1,000.
    pub max: u32,
    /// How long to wait when nothing is due, 0 to 55,000 ms.
    #[serde(default)]
    pub wait_ms: u64,
    /// Length of the lease, 1 s to 24 h; the queue's policy decides when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    /// Dependencies whose breaker is open at this agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub avoid: Vec<Name>,
}

/// Leases given; empty when nothing became due in time.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ClaimReply {
    /// The leases, in the order to run them.
    pub leases: Vec<Lease>,
}

/// Names one lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LeaseRef {
    /// The task.
    pub id: TaskId,
    /// As the claim gave it.
    pub epoch: i64,
    /// As the claim gave it.
    pub nonce: Nonce,
}

/// Starts leases (the first time) or makes them longer.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExtendRequest {
    /// Up to 1,000 leases.
    pub leases: Vec<LeaseRef>,
    /// Length from now, 1 s to 24 h; the queue's policy decides when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    /// Who starts leases that another claimed for it: they are its own from now on, and end when it vanishes. One that
    /// somebody else has started is stale. Goes with `boot_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Name>,
    /// Which run of that agent. Goes with `agent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<Name>,
}

/// The answer for one lease.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LeaseResult {
    /// The task.
    pub id: TaskId,
    /// When the lease ends now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_until_ms: Option<i64>,
    /// Why it was not extended: `stale_epoch`, or `unknown_task`. Stop the work: it is not yours any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
}

/// The answers, in the order of the request.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ExtendReply {
    /// One a lease.
    pub results: Vec<LeaseResult>,
}

/// How an attempt ended: a closed set.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// The work is done.
    Done {
        /// What to tell the producer, at most 256 KiB.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<Object>)]
        result: Option<Box<RawValue>>,
        /// In its place: a blob that was uploaded for the task.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        result_ref: Option<BlobRef>,
        /// What the attempt cost, in US dollars, 0 to 10,000.
        #[serde(default, skip_serializing_if = "Cost::is_zero")]
        cost_usd: Cost,
    },
    /// It failed: classify it, and the policy decides.
    Retry {
        /// What was seen.
        failure: FailureSignal,
        /// Whether it failed in the middle of a tool transaction: then the task stays on its route, since another model would
        /// not know what is half done.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        in_transaction: bool,
        /// What the attempt cost, in US dollars, 0 to 10,000.
        #[serde(default, skip_serializing_if = "Cost::is_zero")]
        cost_usd: Cost,
    },
    /// Not now; no attempt is charged.
    Snooze {
        /// From now, in milliseconds.
        delay_ms: u64,
    },
    /// It failed and the handler knows that no retry can help.
    Dead {
        /// What was seen.
        failure: FailureSignal,
        /// What the attempt cost, in US dollars, 0 to 10,000.
        #[serde(default, skip_serializing_if = "Cost::is_zero")]
        cost_usd: Cost,
    },
    /// It failed and a person must decide.
    Escalate {
        /// What was seen.
        failure: FailureSignal,
        /// What the attempt cost, in US dollars, 0 to 10,000.
        #[serde(default, skip_serializing_if = "Cost::is_zero")]
        cost_usd: Cost,
    },
    /// Handed back; no attempt is charged, and it is due again within a second.
    Release {
        /// What was paid until then, in US dollars, 0 to 10,000.
        #[serde(default, skip_serializing_if = "Cost::is_zero")]
        cost_usd: Cost,
    },
}

impl Outcome {
    /// The work is done, for nothing.
    pub fn done(result: Option<Box<RawValue>>) -> Self {
        Self::Done { result, result_ref: None, cost_usd: Cost::default() }
    }

    /// It failed, outside any transaction and for nothing; the policy decides.
    pub fn retry(failure: FailureSignal) -> Self {
        Self::Retry { failure, in_transaction: false, cost_usd: Cost::default() }
    }

    /// It failed for nothing, and no retry can help.
    pub fn dead(failure: FailureSignal) -> Self {
        Self::Dead { failure, cost_usd: Cost::default() }
    }

    /// It failed for nothing, and a person must decide.
    pub fn escalate(failure: FailureSignal) -> Self {
        Self::Escalate { failure, cost_usd: Cost::default() }
    }

    /// Handed back, for nothing.
    pub fn release() -> Self {
        Self::Release { cost_usd: Cost::default() }
    }

    /// What the attempt cost.
    pub fn cost(&self) -> Cost {
        match self {
            Self::Done { cost_usd, .. }
            | Self::Retry { cost_usd, .. }
            | Self::Dead { cost_usd, .. }
            | Self::Escalate { cost_usd, .. }
            | Self::Release { cost_usd } => *cost_usd,
            Self::Snooze { .. } => Cost::default(),
        }
    }

    /// The same with that cost, where it may have one.
    #[must_use]
    pub fn costing(mut self, cost: Cost) -> Self {
        match &mut self {
            Self::Done { cost_usd, .. }
            | Self::Retry { cost_usd, .. }
            | Self::Dead { cost_usd, .. }
            | Self::Escalate { cost_usd, .. }
            | Self::Release { cost_usd } => *cost_usd = cost,
            Self::Snooze { .. } => {}
        }
        self
    }
}

/// How the attempt under one lease ended.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Settlement {
    /// The task.
    pub id: TaskId,
    /// As the claim gave it.
    pub epoch: i64,
    /// As the claim gave it.
    pub nonce: Nonce,
    /// How it ended.
    pub outcome: Outcome,
}

/// Up to 1,000 settlements.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SettleRequest {
    /// The settlements.
    pub settlements: Vec<Settlement>,
}

/// The answer for one settlement.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SettleResult {
    /// The task.
    pub id: TaskId,
    /// Its state now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<TaskState>,
    /// When it runs again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at_ms: Option<i64>,
    /// True when this lease had been settled before: the first settlement stands.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeated: bool,
    /// Why nothing was changed: `stale_epoch`, `unknown_task` or what is wrong with the settlement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
}

/// The answers, in the order of the request.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SettleReply {
    /// One a settlement.
    pub results: Vec<SettleResult>,
}
