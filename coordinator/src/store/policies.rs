//! Changes of policies, and what is kept of them.

use redrive_shared::id::Name;
use redrive_shared::retry::RetryPolicy;

/// Policies to put in force, all of them or none.
#[derive(Debug, Clone, Default)]
pub struct PolicyChange {
    /// One a queue, each queue once.
    pub queues: Vec<NewPolicy>,
    /// Who says so.
    pub actor: Option<Name>,
    /// Why.
    pub reason: Option<String>,
}

/// A policy for one queue.
#[derive(Debug, Clone)]
pub struct NewPolicy {
    /// The queue, which is made if need be.
    pub queue: Name,
    /// Its policy.
    pub policy: RetryPolicy,
    /// The version that the change was made from; 0 for a queue that was never changed or is not there. `None`: whatever is
    /// in force.
    pub version: Option<u64>,
}

impl PolicyChange {
    /// One queue, whatever is in force, by nobody in particular.
    pub fn of(queue: Name, policy: RetryPolicy) -> Self {
        Self { queues: vec![NewPolicy { queue, policy, version: None }], ..Self::default() }
    }
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyPut {
    /// All of it is in force. What was in force already has no new version.
    Done,
    /// Nothing was changed: these queues are at other versions than the change was made from. A queue that has the wanted
    /// policy already is none of them, so that a change can be repeated.
    Conflict(Vec<(Name, u64)>),
}

/// What the history says of a policy that it finds in force and has not seen put there.
pub(super) const FOUND: &str = "found in force when it was changed next";
