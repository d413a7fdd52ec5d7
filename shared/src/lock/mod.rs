//! Locks: who may touch a resource just now, who waits for it, and the token that keeps a late writer out.
//!
//! A lock is granted for a time, and its holder may sleep past that. So mutual exclusion is never certain, and every grant
//! comes with a *fencing token* that only rises: who guards the resource refuses a token lower than one that it has seen
//! (Kleppmann, "How to do distributed locking", 2016). The lock spares work, the token saves the file.
//!
//! [`Space`] is the whole of the rules: pure, with time passed in. The embedded store keeps one in memory beside its rows, and
//! the shared store's script does the same in Redis; one suite and a model hold both to it.
//!
//! - **First come, first served.** A waiter keeps its place in the line of each of its resources, and is granted all of them in
//!   one step or none. It is passed only by those whose modes go together with its own, so nobody starves and no two waiters
//!   can block one another.
//! - **An offer has to be picked up.** Who waits may have died: a grant that nobody picks up within [`PICK_UP_MS`] goes to the
//!   next.
//! - **After an expiry, a pause.** Who was late may be writing still: what it held exclusively is given to nobody else for the
//!   lock delay ([`LOCK_DELAY_MS`]; the idea is Chubby's, section 2.4). A release needs none.
//! - **One owner, one hold.** Who asks again for what it holds is given the same token; so every request can be repeated.

mod hold;
mod line;
mod owner;
mod resource;
mod space;
mod verb;

pub use self::hold::{
    Acquired, Blocker, Granted, Hold, Lost, Phase, PickedUp, Refused, Request, Token, Wait, WaitId,
};
pub use self::owner::Owner;
pub use self::resource::{RESOURCE_MAX_BYTES, Resource, ResourceError};
pub use self::space::Space;
pub use self::verb::{Answer, Answers, Verb};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Shortest time for which a lock is granted, in ms: below it, an ordinary delay of the network loses it.
pub const TTL_MIN_MS: u64 = 1_000;
/// Longest, in ms: longer work renews, so that a holder that died is noticed.
pub const TTL_MAX_MS: u64 = 60 * 60 * 1_000;
/// Where the caller does not say, in ms. Renewed at a third of it, two renewals may be lost.
pub const TTL_DEFAULT_MS: u64 = 30_000;
/// Pause after an expiry where the caller does not say, in ms, and the longest.
pub const LOCK_DELAY_MS: u64 = 5_000;
/// See [`LOCK_DELAY_MS`].
pub const LOCK_DELAY_MAX_MS: u64 = 60_000;
/// How long a grant waits to be picked up, in ms: three times as long as it is between two signs of life.
pub const PICK_UP_MS: u64 = 6_000;
/// How long a waiter counts as alive after it was last heard of, in ms.
pub const WAITER_ALIVE_MS: u64 = 15_000;
/// Longest wait that is queued for, in ms.
pub const LOCK_WAIT_MAX_MS: u64 = 60 * 60 * 1_000;
/// Most resources of one lock.
pub const LOCK_RESOURCES_MAX: usize = 64;
/// Most waiters in one namespace.
pub const LOCK_WAITERS_MAX: usize = 10_000;
/// Most locks held in one namespace.
pub const LOCKS_MAX: usize = 100_000;

/// How a resource is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = LockMode)]
pub enum Mode {
    /// Beside others that share it.
    Shared,
    /// Alone.
    Exclusive,
}

impl Mode {
    /// Whether two owners may hold it so at once.
    pub const fn goes_with(self, other: Self) -> bool {
        matches!((self, other), (Self::Shared, Self::Shared))
    }

    /// Whether who holds it so needs nothing more for the other.
    pub const fn covers(self, other: Self) -> bool {
        matches!((self, other), (Self::Exclusive, _) | (Self::Shared, Self::Shared))
    }
}

#[cfg(test)]
mod tests;
