//! What a gate does just now, why, and what changed.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::failure::FailureClass;
use crate::id::Name;

/// What a gate does just now.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub(super) enum Phase {
    /// Lets everything through, up to the limit that is set.
    Open,
    /// Lets nothing through until then.
    Shut { until_ms: i64 },
    /// Lets one through, and another one when that has not been heard of by then.
    Canary {
        another_ms: Option<i64>,
        /// Whether a hint shut it. Then it is a refusal that is waited for, and that comes soon or not at all.
        #[serde(default)]
        after_hint: bool,
    },
    /// Lets through a share of a rate, which grows.
    Ramp {
        /// Share of `full_per_s` at `from_ms`.
        share: f64,
        from_ms: i64,
        /// Calls a second that are the whole.
        full_per_s: f64,
        /// When it last let through less than was wanted.
        pressed_ms: i64,
    },
    /// Lets nothing through until a person opens it.
    Isolated,
}

/// What a gate does just now, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = GateState)]
pub enum State {
    /// Everything passes, up to the limit that is set.
    Open,
    /// Nothing passes until a known moment.
    Shut,
    /// One passes, to see whether the dependency is well again.
    Canary,
    /// A growing rate passes.
    Ramp,
    /// Nothing passes until a person opens it.
    Isolated,
}

impl State {
    /// Every state, in the order of its number as a metric.
    pub const ALL: [Self; 5] = [Self::Open, Self::Ramp, Self::Canary, Self::Shut, Self::Isolated];

    /// The name used on the wire, in logs and as a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Shut => "shut",
            Self::Canary => "canary",
            Self::Ramp => "ramp",
            Self::Isolated => "isolated",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Phase {
    pub const fn state(self) -> State {
        match self {
            Self::Open => State::Open,
            Self::Shut { .. } => State::Shut,
            Self::Canary { .. } => State::Canary,
            Self::Ramp { .. } => State::Ramp,
            Self::Isolated => State::Isolated,
        }
    }
}

/// Why a gate is as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = GateReason)]
pub enum Reason {
    /// The server said how long to stay away.
    Hint,
    /// The server said that there are too many calls, and not for how long.
    RateLimited,
    /// Too many calls failed, over the whole fleet.
    Failures,
    /// The canary failed.
    CanaryFailed,
    /// Its time was over: a canary may go.
    WaitOver,
    /// The canary came back well.
    CanaryPassed,
    /// It was up to its whole rate, and nobody wanted more.
    RampedUp,
    /// A credential is bad, or a quota is used up, for everyone.
    Blocked,
    /// A person said so.
    Operator,
    /// What a group may cost within a day was spent.
    Cost,
}

impl Reason {
    /// The name used on the wire, in logs and as a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hint => "hint",
            Self::RateLimited => "rate_limited",
            Self::Failures => "failures",
            Self::CanaryFailed => "canary_failed",
            Self::WaitOver => "wait_over",
            Self::CanaryPassed => "canary_passed",
            Self::RampedUp => "ramped_up",
            Self::Blocked => "blocked",
            Self::Operator => "operator",
            Self::Cost => "cost",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Before.
    pub from: State,
    /// After.
    pub to: State,
    /// Why.
    pub reason: Reason,
}

/// The one alarm of an isolated dependency: what a person has to mend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = GateAlarm)]
pub struct Alarm {
    /// `auth`, `quota_exhausted`, or missing where an operator isolated it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<FailureClass>,
    /// The agents that met it, in order, at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<Name>,
    /// When the first of them did, in ms since the Unix epoch.
    pub since_ms: i64,
}
