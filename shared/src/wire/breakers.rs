//! Breakers as operators see them, and what operators do to them.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::AgentStatus;
use crate::breaker::BreakerSnapshot;
use crate::id::Name;

/// The key of an agent's own breaker among those by dependency. No dependency can have it: `*` is not in a name.
pub const OWN_BREAKER: &str = "*";

/// What a person does to a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BreakerAction {
    /// Shuts it until a person closes or resets it.
    Isolate,
    /// Lets calls through again; its openings are remembered, so that it waits longer if that was wrong.
    Close,
    /// Makes it as new.
    Reset,
}

impl BreakerAction {
    /// The name used on the wire and in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Isolate => "isolate",
            Self::Close => "close",
            Self::Reset => "reset",
        }
    }
}

impl fmt::Display for BreakerAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A command that stands for a breaker: the last one that it was given. Every run of the agent gets it with the replies to
/// its heartbeats until it has carried it out, and so does one that starts later: an isolation outlives a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BreakerCommand {
    /// Higher than that of every command that stands for the agent. A breaker that has carried it out reports it as its
    /// `command`.
    pub number: i64,
    /// `*` for the agent's own, else the dependency.
    pub breaker: String,
    /// What to do.
    pub action: BreakerAction,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was given.
    pub given_at_ms: i64,
}

impl BreakerCommand {
    /// Whether that breaker has carried it out, by its own report.
    pub fn is_done(&self, breaker: Option<&BreakerSnapshot>) -> bool {
        breaker.is_some_and(|breaker| breaker.command == Some(self.number))
    }
}

/// A run of an agent vanished in the middle of work: each other run of the agent is told for a minute, and counts it once. One
/// vanished run counts at most three times at each breaker, however much it had under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerLost {
    /// Higher than that of every earlier one of the agent: who has heard of it passes it over.
    pub number: i64,
    /// `*` for the agent's own, else the dependency.
    pub breaker: String,
    /// How often it counts there, as a failure of the class `worker_lost`.
    pub count: u32,
    /// How long ago it was noticed, in ms.
    pub age_ms: u64,
}

/// Isolates, closes or resets a breaker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BreakerCommandRequest {
    /// Whose.
    pub agent: Name,
    /// Its breaker of this dependency; the agent's own when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dependency: Option<Name>,
    /// What to do.
    pub action: BreakerAction,
    /// Why, up to 2 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One breaker of one run of an agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BreakerView {
    /// Whose.
    pub agent: Name,
    /// Which run of it.
    pub boot_id: Name,
    /// How the run is. One that is gone is shown as it last was.
    pub status: AgentStatus,
    /// `*` for the agent's own, else the dependency.
    pub breaker: String,
    /// How it was at the last heartbeat; absent while a command for it was not carried out, and it was not reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<BreakerSnapshot>,
    /// When the run was last heard from.
    pub seen_at_ms: i64,
    /// The last command that it was given, as long as the agent is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<BreakerCommand>,
    /// Whether the run has not carried that command out yet.
    pub pending: bool,
}

/// Every breaker that agents report, and those that commands stand for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BreakersReply {
    /// By agent; of one agent the run heard from last first, and its own breaker before those by dependency.
    pub breakers: Vec<BreakerView>,
}
