//! Heartbeats, presence and reports.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{BreakerCommand, LeaseRef, LeaseResult, WorkerLost};
use crate::breaker::BreakerSnapshot;
use crate::id::{Name, TaskId};

/// An agent is alive; every 5 s, and every lease that it still works on is extended with it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// Who.
    pub agent: Name,
    /// Which run of it.
    pub boot_id: Name,
    /// The queues that it serves.
    #[serde(default)]
    pub queues: Vec<Name>,
    /// How many tasks it runs at once.
    pub capacity: u32,
    /// How many it runs now.
    pub in_flight: u32,
    /// Its breakers: `*` is the agent's own, others are by dependency.
    #[serde(default)]
    pub breakers: BTreeMap<String, BreakerSnapshot>,
    /// The leases to extend.
    #[serde(default)]
    pub leases: Vec<LeaseRef>,
    /// Length of the extensions from now, 1 s to 24 h; the queue's policy decides when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    /// True when it takes no more work and ends soon.
    #[serde(default)]
    pub draining: bool,
    /// True when it takes its work from RabbitMQ: a coordinator pushes as much as its capacity allows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pushed: bool,
}

/// What the coordinator says to it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct HeartbeatReply {
    /// One a lease, in the order of the request; one with an error is not the agent's any more: stop its work.
    pub leases: Vec<LeaseResult>,
    /// Those of them that someone called off.
    pub cancelled: Vec<TaskId>,
    /// Send the next one after this many milliseconds.
    pub next_ms: u64,
    /// What persons want of its breakers and it has not carried out yet. Who does not know them passes them over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub breaker_commands: Vec<BreakerCommand>,
    /// Other runs of it that vanished in the middle of work within the last minute, by number. Who does not know them passes
    /// them over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<WorkerLost>,
}

/// How an agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentStatus {
    /// Heard from within 15 s.
    Alive,
    /// Takes no more work.
    Draining,
    /// Not heard from for 15 s; its leases have expired.
    Gone,
}

/// An agent as operators see it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AgentView {
    /// Who.
    pub agent: Name,
    /// Which run of it.
    pub boot_id: Name,
    /// Alive, draining or gone.
    pub status: AgentStatus,
    /// The queues that it serves.
    pub queues: Vec<Name>,
    /// How many tasks it runs at once.
    pub capacity: u32,
    /// How many it ran at its last heartbeat.
    pub in_flight: u32,
    /// Whether its work is pushed to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pushed: bool,
    /// Its breakers at its last heartbeat.
    pub breakers: BTreeMap<String, BreakerSnapshot>,
    /// The commands that stand for the agent's breakers, in the order in which they were given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub breaker_commands: Vec<BreakerCommand>,
    /// When it was last heard from.
    pub seen_at_ms: i64,
}

/// Every run of an agent that is known; those gone are forgotten after an hour.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AgentsReply {
    /// By name; of one name, the run heard from last comes first.
    pub agents: Vec<AgentView>,
}

/// First attempts that a client made itself, added up.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The upstream called.
    pub dependency: Name,
    /// First attempts made since the last report.
    pub attempts: u32,
    /// How many of them failed.
    pub failures: u32,
}

/// Up to 1,000 reports.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportsRequest {
    /// Who reports.
    pub agent: Name,
    /// The reports.
    pub reports: Vec<Report>,
}
