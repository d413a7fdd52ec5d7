//! Work that comes in.

use redrive_shared::blob::Content;
use redrive_shared::gate::Standing;
use redrive_shared::id::{Name, TaskId};
use redrive_shared::lifecycle::{Record, Start, Terms};
use redrive_shared::retry::RetryPolicy;
use redrive_shared::task::{FailureRecord, Lane, TaskState};
use redrive_shared::wire::NewTask;

use crate::blobs::BLOB_GRACE_MS;

/// How old the blob of a new task's payload may be when the store writes the task, in ms: later, the sweep may have begun to
/// look at it, whatever was found when it was looked for before. Whoever was held up in between learns it from the store.
const PAYLOAD_MAX_AGE_MS: u64 = BLOB_GRACE_MS / 4 * 3;

/// A task to put on the queue, checked and judged.
#[derive(Debug, Clone)]
pub struct Enqueue {
    /// Its id.
    pub id: TaskId,
    /// Its queue, which must exist.
    pub queue: Name,
    /// What to run.
    pub task_type: Name,
    /// Its payload.
    pub payload: Content,
    /// The failure that it came with.
    pub failure: Option<FailureRecord>,
    /// The rest, as the caller gave it. Its `id`, `queue`, `task_type`, `payload`, `payload_ref` and `failure` are not looked at.
    pub spec: NewTask,
    /// Which dependencies let nothing through, for the judgement of where it begins.
    pub standing: Standing,
    /// Whether it is not to be made, since its payload is not there, and is only compared with what is there already: a duplicate
    /// needs no payload any more.
    pub only_compared: bool,
}

impl Enqueue {
    /// Attempts that its producer made. A failure that is told without a number of them was one.
    pub fn attempts_made(&self) -> u32 {
        self.spec.attempts_made.unwrap_or(u32::from(self.failure.is_some()))
    }

    /// How many of them were calls.
    pub fn calls_made(&self) -> u32 {
        self.start().calls_made()
    }

    /// Until when it may be made, in ms by the store's clock, compared in the step that writes; `None`: at any time. What is there
    /// already is compared with it all the same.
    pub(super) fn made_by_ms(&self) -> Option<i64> {
        if self.only_compared {
            return Some(i64::MIN);
        }
        let blob = self.payload.blob()?;
        Some(blob.blob.made_at_ms().saturating_add_unsigned(PAYLOAD_MAX_AGE_MS))
    }

    /// As the lifecycle takes it.
    pub(super) fn start(&self) -> Start<'_> {
        Start {
            attempts_made: self.attempts_made(),
            failure: self.failure.as_ref(),
            max_attempts: self.spec.max_attempts,
            strategy: self.spec.retry.as_ref(),
            max_cost: self.spec.max_cost_usd,
            route: self.spec.route,
            delay_ms: self.spec.delay_ms.unwrap_or(0),
            deadline_ms: self.spec.deadline_ms,
        }
    }

    /// Where it waits with this record.
    pub(super) fn lane(&self, record: &Record, policy: &RetryPolicy) -> Lane {
        let dependency = policy.dependency_at(self.spec.dependency.as_ref(), record.route);
        let mut lane = Lane {
            queue: self.queue.clone(),
            priority: self.spec.priority,
            dependency: dependency.cloned(),
            group: self.spec.group.clone(),
            retry: false,
        };
        lane.follow(&record.ledger);
        lane
    }

    /// The dependency on which it failed before it came, where that is not its own.
    pub(super) fn failed_at(&self, policy: &RetryPolicy) -> Option<Name> {
        let primary = self.spec.dependency.as_ref();
        policy.dependency_at(primary, self.spec.route).filter(|name| Some(*name) != primary).cloned()
    }

    /// By what it is judged.
    pub(super) fn terms<'a>(&'a self, policy: &'a RetryPolicy) -> Terms<'a> {
        let primary = self.spec.dependency.as_ref();
        let called = policy.dependency_at(primary, self.spec.route);
        Terms { policy, primary, called, standing: &self.standing }
    }
}

/// What became of a task to enqueue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    /// It is there now.
    Created {
        /// Its state: a failure that no retry can mend settles it at once.
        state: TaskState,
        /// When it runs.
        due_ms: i64,
    },
    /// It was there before, with the same contents.
    Duplicate {
        /// Its state.
        state: TaskState,
        /// When it runs.
        due_ms: i64,
    },
    /// That id belongs to other contents.
    IdReused,
    /// That id belongs to a task that this release cannot read; nothing has changed.
    Unreadable,
    /// No such queue.
    UnknownQueue,
    /// That id is not known, and the task is not made: its payload is a blob that is too old to be referred to, or it was
    /// [only to be compared](Enqueue::only_compared).
    UnknownPayload,
}
