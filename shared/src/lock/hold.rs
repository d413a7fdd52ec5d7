//! What is asked for, what is held, and who waits.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{LOCK_RESOURCES_MAX, Mode, Owner, Resource};

/// The fencing token of a grant: rises with every grant of a namespace and never comes twice. Where nothing is wrong with
/// clocks, it is the time of the grant in µs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Token(pub i64);

/// A place in line: lower ones came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct WaitId(pub i64);

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A wish for a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who.
    pub owner: Owner,
    /// What, and how: sorted, each resource once.
    pub(super) wants: Vec<(Resource, Mode)>,
    /// For how long it is granted, in ms.
    pub ttl_ms: u64,
    /// The pause that an expiry of it is followed by, in ms.
    pub delay_ms: u64,
    /// How long to wait in line, in ms; 0: not at all.
    pub wait_ms: u64,
}

impl Request {
    /// A wish for these resources. What is named twice is wanted in the stronger way. None: nothing is wanted, or more than
    /// [`LOCK_RESOURCES_MAX`].
    pub fn new(owner: Owner, wants: impl IntoIterator<Item = (Resource, Mode)>) -> Option<Self> {
        let mut wants: Vec<_> = wants.into_iter().collect();
        // The exclusive one of two comes first, and stays.
        wants.sort_unstable_by(|(one, mode), (other, other_mode)| one.cmp(other).then(other_mode.cmp(mode)));
        wants.dedup_by(|(later, _), (first, _)| later == first);
        if !(1..=LOCK_RESOURCES_MAX).contains(&wants.len()) {
            return None;
        }
        let (ttl_ms, delay_ms) = (super::TTL_DEFAULT_MS, super::LOCK_DELAY_MS);
        Some(Self { owner, wants, ttl_ms, delay_ms, wait_ms: 0 })
    }

    /// With these times, in ms.
    #[must_use]
    pub fn timed(self, ttl_ms: u64, delay_ms: u64, wait_ms: u64) -> Self {
        Self { ttl_ms, delay_ms, wait_ms, ..self }
    }

    /// What is wanted: sorted, each resource once.
    pub fn wants(&self) -> &[(Resource, Mode)] {
        &self.wants
    }
}

/// What a hold is just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = LockPhase)]
pub enum Phase {
    /// Granted to one who waited, and not picked up yet.
    Offered,
    /// Held.
    Held,
    /// It expired or was broken, and its owner may not know: nobody else is given it until then.
    Lapsed,
}

/// A grant that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Its token, by which it is renewed and released.
    pub token: Token,
    /// Whose it is.
    pub owner: Owner,
    /// What is held, and how: sorted, each resource once.
    pub resources: Vec<(Resource, Mode)>,
    /// What it is just now.
    pub phase: Phase,
    /// For how long a renewal makes it last, in ms.
    pub ttl_ms: u64,
    /// The pause after its expiry, in ms.
    pub delay_ms: u64,
    /// Since when (µs).
    pub since_us: i64,
    /// Until when (µs).
    pub until_us: i64,
    /// The place in line that it was granted to, if it was waited for.
    pub wait: Option<WaitId>,
}

impl Hold {
    /// Whether it covers all of that.
    pub fn covers(&self, wants: &[(Resource, Mode)]) -> bool {
        self.phase != Phase::Lapsed
            && wants
                .iter()
                .all(|(resource, mode)| self.mode_of(resource).is_some_and(|held| held.covers(*mode)))
    }

    /// How it holds a resource, if it does.
    pub fn mode_of(&self, resource: &Resource) -> Option<Mode> {
        let place = self.resources.binary_search_by(|(held, _)| held.cmp(resource)).ok()?;
        Some(self.resources[place].1)
    }
}

/// One that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// Its place.
    pub id: WaitId,
    /// Its wish.
    pub request: Request,
    /// Since when (µs).
    pub since_us: i64,
    /// Until when at most (µs).
    pub deadline_us: i64,
    /// Until when it counts as alive (µs).
    pub alive_until_us: i64,
}

impl Wait {
    /// When it is over unless it is heard of (µs).
    pub fn ends_us(&self) -> i64 {
        self.deadline_us.min(self.alive_until_us)
    }
}

/// A lock, as its holder needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// Its token.
    pub token: Token,
    /// What is held, and how.
    pub resources: Vec<(Resource, Mode)>,
    /// Until when (µs).
    pub until_us: i64,
    /// Nobody was told of it before: where this answer is lost, it is lost ([`Space::take_back`](super::Space::take_back)).
    pub is_news: bool,
}

impl From<&Hold> for Granted {
    fn from(hold: &Hold) -> Self {
        let (token, until_us) = (hold.token, hold.until_us);
        Self { token, resources: hold.resources.clone(), until_us, is_news: false }
    }
}

/// What became of a wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acquired {
    /// It is granted, or was held already.
    Held(Granted),
    /// It stands in line; to be asked for by [`Space::pick_up`](super::Space::pick_up).
    Waits(WaitId),
    /// Somebody has it, and the wish was not to wait.
    Busy(Blocker),
}

/// What stands in the way of a wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// At which resource.
    pub resource: Resource,
    /// Who has it, or stands in line before.
    pub owner: Owner,
    /// Whether it has it, and until when (µs) at most unless it renews; none: it stands in line.
    pub until_us: Option<i64>,
}

/// Why a wish is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// A later attempt of the same task has locks or waits for one: this attempt's lease is over.
    Superseded,
    /// The owner has this resource, or stands in line for it, by another wish that does not cover this one: it would wait for
    /// itself.
    Overlap(Resource),
    /// There are as many waiters as may be.
    TooManyWaiters,
    /// There are as many locks as may be.
    TooManyLocks,
}

/// What became of a place in line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PickedUp {
    /// It is granted; from here on it lasts its time.
    Held(Granted),
    /// Not yet.
    Waits,
    /// It is not in line any more: its time is over, it was called off, or it was not heard of for too long.
    Gone,
}

/// Why a lock cannot be renewed or released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = LockLost)]
pub enum Lost {
    /// It expired or was broken a short while ago.
    Expired,
    /// There is no such lock: it expired, was released, or never was.
    Unknown,
    /// It is somebody else's.
    NotYours,
}
