//! Gates: what holds the whole fleet back from one dependency, or from one queue.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::gate::{Alarm, Gate, Reason, Scope, Settings, State, Tally};
use crate::id::Name;

/// A gate as operators see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GateView {
    /// The upstream that it guards; missing where it is a queue's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dependency: Option<Name>,
    /// The queue that it guards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<Name>,
    /// The group of the queue that it guards, where it does not guard the whole queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Name>,
    /// What it does just now.
    pub state: State,
    /// Since when, in ms since the Unix epoch; missing where it never changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<i64>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// When it lets something through again, while it is shut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<i64>,
    /// Tasks a second that pass, during a ramp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_per_s: Option<f64>,
    /// Retries that the budget has left for the last minute; missing while it only watches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries_left: Option<u32>,
    /// Tasks that are out, where `max_in_flight` is set: leased, or about to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u32>,
    /// What a person has to mend, while it is isolated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm: Option<Alarm>,
    /// What was seen in the last 60 s.
    pub last_minute: Tally,
    /// What is set on it.
    pub settings: Settings,
}

impl GateView {
    /// How it is now.
    pub fn of(scope: Scope, gate: &Gate, now_ms: i64) -> Self {
        let mut gate = gate.clone();
        gate.advance(now_ms);
        let shut = gate.state() == State::Shut;
        let (dependency, queue, group) = match scope {
            Scope::Dependency(dependency) => (Some(dependency), None, None),
            Scope::Queue(queue) => (None, Some(queue), None),
            Scope::Group { queue, group } => (None, Some(queue), Some(group)),
        };
        Self {
            dependency,
            queue,
            group,
            state: gate.state(),
            since_ms: gate.since().map(|(since_ms, _)| since_ms),
            reason: gate.since().map(|(_, reason)| reason),
            until_ms: gate.next_ms(now_ms).filter(|_| shut),
            rate_per_s: gate.rate_per_s(now_ms),
            retries_left: gate.retry_room(now_ms),
            in_flight: gate.in_flight(now_ms),
            alarm: gate.alarm().cloned(),
            last_minute: gate.tally(now_ms),
            settings: gate.settings().clone(),
        }
    }
}

/// Every gate.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct GatesReply {
    /// By dependency.
    pub gates: Vec<GateView>,
}

/// What to do with a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GateAction {
    /// Lets one task through to see, and then a rate that grows.
    Open,
    /// Lets nothing through for `for_ms`.
    Shut,
    /// Lets nothing through until it is opened.
    Isolate,
    /// Forgets everything but what is set: open, as if it were new.
    Reset,
    /// Sets its limits to `settings`; what is left out there is no limit.
    Set,
}

/// Changes the gate of a dependency.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GateRequest {
    /// Whose gate; one that nobody has called yet may be named too.
    pub dependency: Name,
    /// What to do with it.
    pub action: GateAction,
    /// With `shut`: for how long, in milliseconds, 1 to 86,400,000 (24 h).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
    /// With `set`: the limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Settings>,
}

impl GateRequest {
    /// An action that needs nothing else.
    pub const fn new(dependency: Name, action: GateAction) -> Self {
        Self { dependency, action, for_ms: None, settings: None }
    }
}
