//! What a breaker says about itself: its state, its transitions, and a snapshot for heartbeats.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a breaker does with the next call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Lets every call through, and watches how they end.
    Closed,
    /// Lets nothing through until its wait is over.
    Open,
    /// Lets one probe through at a time.
    HalfOpen,
    /// Lets nothing through until a person closes or resets it.
    Isolated,
}

impl BreakerState {
    /// The name used on the wire, in logs and as a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::Isolated => "isolated",
        }
    }
}

impl BreakerState {
    /// As metrics tell it: 0 closed, 1 half-open, 2 open, 3 isolated.
    pub const fn level(self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
            Self::Isolated => 3,
        }
    }
}

impl fmt::Display for BreakerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a breaker changed its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TransitionReason {
    /// closed → open: too many failures.
    FailureRate,
    /// closed → open: too many slow calls.
    SlowCallRate,
    /// open → half_open: the wait is over.
    WaitOver,
    /// half_open → closed: enough probes in a row succeeded.
    ProbeSucceeded,
    /// half_open → open: the probe failed.
    ProbeFailed,
    /// half_open → open: the probe did not report before its deadline.
    ProbeLost,
    /// any → isolated: a person said so.
    Isolated,
    /// any → closed: a person said so.
    Closed,
    /// any → closed, and the trips forgotten: a person said so.
    Reset,
}

impl TransitionReason {
    /// The name used on the wire, in logs and as a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FailureRate => "failure_rate",
            Self::SlowCallRate => "slow_call_rate",
            Self::WaitOver => "wait_over",
            Self::ProbeSucceeded => "probe_succeeded",
            Self::ProbeFailed => "probe_failed",
            Self::ProbeLost => "probe_lost",
            Self::Isolated => "isolated",
            Self::Closed => "closed",
            Self::Reset => "reset",
        }
    }
}

impl fmt::Display for TransitionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = BreakerTransition)]
pub struct Transition {
    /// The state before.
    pub from: BreakerState,
    /// The state after.
    pub to: BreakerState,
    /// When (ms). A change that time alone makes is dated to when it was due, however late somebody looked.
    pub at_ms: i64,
    /// Why.
    pub reason: TransitionReason,
}

/// How a breaker is, as heartbeats carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BreakerSnapshot {
    /// The state now.
    pub state: BreakerState,
    /// Since when it has been in that state (ms); absent: since it was made.
    #[serde(default)]
    pub since_ms: Option<i64>,
    /// Since when it has not been closed (ms), through every open and half-open phase; absent while it is closed.
    #[serde(default)]
    pub not_closed_since_ms: Option<i64>,
    /// Openings in a row: how often the wait has grown.
    pub trips: u32,
    /// Openings since it was made. The difference of two snapshots shows flapping that fell between heartbeats.
    pub openings: u64,
    /// When its wait ends (ms); absent unless it is open.
    #[serde(default)]
    pub open_until_ms: Option<i64>,
    /// Failures in the sample.
    pub failures: u32,
    /// Slow calls in the sample.
    pub slow_calls: u32,
    /// Successes and failures in the sample. Once open, these are the outcomes that tripped it, until they age out.
    pub outcomes: u32,
    /// The number of the last command of a person that was carried out on it. The breaker knows no commands: who reports
    /// it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<i64>,
}
