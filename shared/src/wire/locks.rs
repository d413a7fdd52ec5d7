//! Locks: who may touch a resource just now.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::lock::{Granted, Hold, Lost, Mode, Owner, Phase, Resource, Token, Wait};

/// Asks for a lock. What was asked before by the same owner, and is held or waited for, is the same lock: so the request can be
/// repeated, and who waits for longer than one request does repeats it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LockRequest {
    /// Who: `{"task": …, "epoch": …}` of a lease, or `{"name": …}`, a name that nobody else uses.
    #[serde(deserialize_with = "Owner::strict")]
    pub owner: Owner,
    /// What is wanted alone. Here and in `shared` up to 64 together, at least one; all are granted in one step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclusive: Vec<Resource>,
    /// What may be shared with others that share it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared: Vec<Resource>,
    /// For how long it is granted and renewed, in ms: 1,000 to 3,600,000. Default 30,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// How long what was held alone rests after it expired, in ms: 0 to 60,000. Default 5,000. A release needs no rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_delay_ms: Option<u64>,
    /// How long to stand in line, in ms: 0 (not at all, the default) to 3,600,000. One request is answered after at most 55 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

/// A lock, as its holder needs it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LockGrant {
    /// The fencing token: rises with every grant. Whoever guards the resource refuses a lower one than it has seen.
    pub token: Token,
    /// What is held alone.
    pub exclusive: Vec<Resource>,
    /// What is shared.
    pub shared: Vec<Resource>,
    /// For how long from when it was granted, in ms: count from when the request was *sent*, and stop before.
    pub ttl_ms: u64,
    /// Until when, by the store's clock, in ms since the Unix epoch.
    pub until_ms: i64,
}

/// What came of asking.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LockReply {
    /// The lock; missing while it is waited for: the same request again, within 15 s, keeps the place in line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<LockGrant>,
}

/// A lock of the caller's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LockRef {
    /// Its token.
    pub token: Token,
    /// Its owner.
    #[serde(deserialize_with = "Owner::strict")]
    pub owner: Owner,
}

/// Locks to renew, or to give back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LockRefs {
    /// Up to 1,000.
    pub locks: Vec<LockRef>,
}

/// What became of one of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LockResult {
    /// Its token.
    pub token: Token,
    /// Until when it lasts now, in ms since the Unix epoch; missing where it was given back, or is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<i64>,
    /// Why it is not the caller's any more. Guarded work has to stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
}

/// What became of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LockResults {
    /// In order.
    pub locks: Vec<LockResult>,
}

/// A lock, as operators see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LockView {
    /// Its token.
    pub token: Token,
    /// Whose it is.
    pub owner: Owner,
    /// What it is just now.
    pub phase: Phase,
    /// What is held alone.
    pub exclusive: Vec<Resource>,
    /// What is shared.
    pub shared: Vec<Resource>,
    /// Since when, in ms since the Unix epoch.
    pub since_ms: i64,
    /// Until when, unless it is renewed.
    pub until_ms: i64,
}

/// One that waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LockWaitView {
    /// Who.
    pub owner: Owner,
    /// What is wanted alone.
    pub exclusive: Vec<Resource>,
    /// What is to be shared.
    pub shared: Vec<Resource>,
    /// Since when, in ms since the Unix epoch.
    pub since_ms: i64,
    /// Until when at most.
    pub deadline_ms: i64,
}

/// Locks, and who waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LocksReply {
    /// By token: in the order in which they were granted.
    pub locks: Vec<LockView>,
    /// In order.
    pub waiting: Vec<LockWaitView>,
    /// Whether there are more than are shown.
    pub more: bool,
}

/// Ends somebody's lock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LockBreak {
    /// Its token.
    pub token: Token,
    /// Why, for the record: up to 512 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl LockGrant {
    /// A grant, as it travels.
    pub fn of(granted: &Granted, ttl_ms: u64) -> Self {
        let (exclusive, shared) = by_mode(&granted.resources);
        Self { token: granted.token, exclusive, shared, ttl_ms, until_ms: ms(granted.until_us) }
    }
}

impl From<&Hold> for LockView {
    fn from(hold: &Hold) -> Self {
        let (exclusive, shared) = by_mode(&hold.resources);
        let (since_ms, until_ms) = (ms(hold.since_us), ms(hold.until_us));
        Self {
            token: hold.token,
            owner: hold.owner.clone(),
            phase: hold.phase,
            exclusive,
            shared,
            since_ms,
            until_ms,
        }
    }
}

impl From<&Wait> for LockWaitView {
    fn from(wait: &Wait) -> Self {
        let (exclusive, shared) = by_mode(wait.request.wants());
        let (since_ms, deadline_ms) = (ms(wait.since_us), ms(wait.deadline_us));
        Self { owner: wait.request.owner.clone(), exclusive, shared, since_ms, deadline_ms }
    }
}

fn by_mode(resources: &[(Resource, Mode)]) -> (Vec<Resource>, Vec<Resource>) {
    let of = |wanted: Mode| {
        resources.iter().filter(move |(_, mode)| *mode == wanted).map(|(name, _)| name.clone()).collect()
    };
    (of(Mode::Exclusive), of(Mode::Shared))
}

fn ms(us: i64) -> i64 {
    us.div_euclid(1_000)
}
