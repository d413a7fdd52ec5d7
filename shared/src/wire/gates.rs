//! Gates: what holds the whole fleet back from one dependency, or from one queue.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::cost::Cost;
use crate::gate::{Alarm, Gate, Reason, Scope, Settings, Spent, State, Tally};
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
    /// Tokens that were handed out beyond `tokens_per_minute` and are not paid off, where that is set: nothing passes meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_owed: Option<u64>,
    /// What a person has to mend, while it is isolated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm: Option<Alarm>,
    /// Of a group: what its tasks cost today, where its queue bounds that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub costs: Option<GroupCosts>,
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
            tokens_owed: gate.tokens_owed(now_ms),
            alarm: gate.alarm().cloned(),
            costs: None,
            last_minute: gate.tally(now_ms),
            settings: gate.settings().clone(),
        }
    }
}

impl GateView {
    /// With what was spent, where that is bounded to so much within a day now.
    #[must_use]
    pub fn with_costs(self, gate: &Gate, most: Option<Cost>, now_ms: i64) -> Self {
        let Some(Spent { cost, lifted, until_ms }) = gate.spent(now_ms) else { return self };
        let costs = Some(GroupCosts { spent_usd: cost, max_usd: most, until_ms, lifted });
        match most.and_then(|most| gate.spent_until_ms(most, now_ms)) {
            Some(_) => {
                let (state, reason, until_ms) = (State::Shut, Some(Reason::Cost), Some(until_ms));
                Self { costs, state, reason, until_ms, ..self }
            }
            None => Self { costs, ..self },
        }
    }
}

/// What the tasks of a group cost within a day (UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupCosts {
    /// What they cost today, in US dollars.
    pub spent_usd: Cost,
    /// What they may cost; missing where the queue has no bound any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_usd: Option<Cost>,
    /// When the day is over, in ms since the Unix epoch.
    pub until_ms: i64,
    /// Whether a person lifted the bound until then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lifted: bool,
}

/// Every gate.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct GatesReply {
    /// Those of dependencies, by name.
    pub gates: Vec<GateView>,
    /// Those of queues that have limits, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queues: Vec<GateView>,
    /// The groups that cost something today, where their queues bound that, by queue and group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GateView>,
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

/// Changes the gate of a dependency, of a queue or of one of its groups.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GateRequest {
    /// Whose gate; one that nobody has called yet may be named too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dependency: Option<Name>,
    /// Whose gate. It has limits and no retry budget, and no action but `set`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<Name>,
    /// Of that queue: the group whose costs of today are meant, with `open` or `reset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Name>,
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
    /// An action on a dependency's gate that needs nothing else.
    pub const fn new(dependency: Name, action: GateAction) -> Self {
        Self { dependency: Some(dependency), queue: None, group: None, action, for_ms: None, settings: None }
    }

    /// The same of a group.
    pub const fn of_group(queue: Name, group: Name, action: GateAction) -> Self {
        Self {
            dependency: None,
            queue: Some(queue),
            group: Some(group),
            action,
            for_ms: None,
            settings: None,
        }
    }

    /// Sets a queue's limits.
    pub const fn of_queue(queue: Name, settings: Settings) -> Self {
        Self {
            dependency: None,
            queue: Some(queue),
            group: None,
            action: GateAction::Set,
            for_ms: None,
            settings: Some(settings),
        }
    }
}
