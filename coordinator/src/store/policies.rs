//! Changes of policies, and what is kept of them.

use redrive_shared::id::Name;
use redrive_shared::retry::RetryPolicy;
use redrive_shared::stored::{self, LeftOut};
use redrive_shared::wire::UNREAD_ALL;

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

/// A policy as it lies in a store, as far as this release can read it.
#[derive(Debug, Clone, Default)]
pub(super) struct StoredPolicy {
    pub policy: RetryPolicy,
    /// The places of what it cannot read.
    pub unread: Vec<String>,
}

impl StoredPolicy {
    /// One queue's policy that a newer release wrote hides no other queue, and does not stop this one: what is not known of it
    /// is passed over, and stays where it is until somebody changes the policy.
    pub fn read(text: &str) -> Self {
        match stored::read(text) {
            Ok((policy, left_out)) => Self { policy, unread: left_out.iter().map(LeftOut::place).collect() },
            Err(_) => Self { policy: RetryPolicy::default(), unread: vec![UNREAD_ALL.to_owned()] },
        }
    }

    /// Says what could not be read.
    pub fn tell(self, queue: &Name) -> Self {
        if self.unread.iter().any(|place| place == UNREAD_ALL) {
            tracing::error!(
                %queue,
                "the queue's policy in the store cannot be read, and the defaults are in force here: a newer release wrote it, or \
                 it is damaged"
            );
        } else if !self.unread.is_empty() {
            tracing::error!(
                %queue,
                settings = self.unread.join(", "),
                "this release cannot read all settings of the queue's policy, and goes on without these: a newer one wrote them"
            );
        }
        self
    }
}

/// What the history says of a policy that it finds in force and has not seen put there.
pub(super) const FOUND: &str = "found in force when it was changed next";
