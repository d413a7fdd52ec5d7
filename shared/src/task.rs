//! What the queue holds, and how it looks to those who enqueue, claim and watch it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::blob::BlobRef;
use crate::charges::Charge;
use crate::checkpoint::Progress;
use crate::cost::Cost;
use crate::failure::FailureClass;
use crate::id::{Name, TaskId};
use crate::retry::Strategy;

/// Where a task is in its life. The transitions are in [`crate::lifecycle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Waits for its due time, or is due and waits for a worker.
    Scheduled,
    /// A worker holds it until the lease ends.
    Leased,
    /// Done. Its id and result are remembered for the retention time.
    Succeeded,
    /// Retries could not mend it; it waits for a bulk redrive or its retention's end.
    Dead,
    /// Only a person can mend it.
    Escalated,
    /// Someone called it off.
    Cancelled,
    /// Given back to where it came from. Nobody reports here unless it fails again: then it goes on as if it were leased.
    HandedOff,
}

impl TaskState {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Scheduled,
        Self::Leased,
        Self::Succeeded,
        Self::Dead,
        Self::Escalated,
        Self::Cancelled,
        Self::HandedOff,
    ];

    /// The name used on the wire and as a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Leased => "leased",
            Self::Succeeded => "succeeded",
            Self::Dead => "dead",
            Self::Escalated => "escalated",
            Self::Cancelled => "cancelled",
            Self::HandedOff => "handed_off",
        }
    }

    /// Whether the task has an answer: producers that wait for one are told now.
    pub const fn is_settled(self) -> bool {
        match self {
            Self::Scheduled | Self::Leased => false,
            Self::Succeeded | Self::Dead | Self::Escalated | Self::Cancelled | Self::HandedOff => true,
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which lanes are visited first. Order is by priority, then by due time.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Before everything else.
    High,
    /// The default.
    #[default]
    Normal,
    /// When nothing else is due.
    Low,
}

impl Priority {
    /// The name used on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}

/// A lane: tasks that are eligible together. Each waiting task sits in exactly one, so that a paused queue, an avoided
/// dependency or a shut gate is a lane that is not visited, and nothing is scanned, deferred or moved.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    /// The queue.
    pub queue: Name,
    /// The priority.
    pub priority: Priority,
    /// The upstream that its tasks need.
    pub dependency: Option<Name>,
    /// Tenant or fairness key.
    pub group: Option<Name>,
    /// Whether its tasks were tried before, so that a gate can let first attempts through and hold retries back. Never set
    /// without a dependency: nothing restricts such a lane.
    pub retry: bool,
}

impl Lane {
    /// Becomes the lane of a task with this ledger: what was tried before waits among the retries.
    pub fn follow(&mut self, ledger: &Ledger) {
        self.retry = self.dependency.is_some() && ledger.was_tried();
    }
}

/// A random number that every lease carries beside its epoch, as 16 hex digits on the wire. Two leases that a failover
/// gave the same epoch still differ in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "9f86d081884c7d65")]
pub struct Nonce(pub u64);

impl From<Nonce> for String {
    fn from(nonce: Nonce) -> Self {
        // By hand: each lease of each call has one, and a format costs several times as much.
        const DIGITS: [char; 16] =
            ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
        let mut text = Self::with_capacity(DIGITS.len());
        for byte in nonce.0.to_be_bytes() {
            text.push(DIGITS[usize::from(byte >> 4)]);
            text.push(DIGITS[usize::from(byte & 0xf)]);
        }
        text
    }
}

impl TryFrom<String> for Nonce {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match u64::from_str_radix(&text, 16) {
            Ok(number) if text.len() == 16 => Ok(Self(number)),
            _ => Err("a lease nonce has 16 hex digits: send it back as the claim gave it".into()),
        }
    }
}

/// What a task has been through, by kind, each with a bound of its own. Only `failed` counts against `max_attempts`, and only
/// `lost` leads to poison; a person is asked when one of the others reaches its bound. `undelivered` has none: it says
/// something about the way to the workers, not about the task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ledger {
    /// Failures charged to the task, those before it was enqueued included.
    pub failed: u32,
    /// Leases that had started and whose worker vanished, or said that its process was killed.
    pub lost: u32,
    /// Leases that nobody started: they ran out, or the coordinator took them back, since RabbitMQ did not take the message
    /// or whoever claimed it had gone.
    pub undelivered: u32,
    /// Times put off uncharged: by its handler (snooze), or since its dependency is isolated.
    pub deferred: u32,
    /// Times handed back by a worker that drained or whose breaker was open.
    pub released: u32,
    /// Times a lock was not had in time.
    #[serde(default)]
    pub lock_waits: u32,
    /// What its attempts cost, as far as workers said.
    #[serde(default, skip_serializing_if = "Cost::is_zero")]
    pub cost_usd: Cost,
}

impl Ledger {
    /// Whether the task failed before or a worker vanished with it: what runs next is a retry.
    pub const fn was_tried(&self) -> bool {
        self.failed > 0 || self.lost > 0
    }
}

/// A failure after it was judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FailureRecord {
    /// Its class.
    pub class: FailureClass,
    /// Whether the same request, unchanged, may succeed later.
    pub retryable: bool,
    /// The server's hint, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// What was said, cut to 2 KiB.
    pub message: String,
    /// One outage, one fingerprint: class, dependency and the message without its numbers and ids.
    pub fingerprint: String,
}

/// What became of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttemptEnd {
    /// The handler finished the work.
    Succeeded,
    /// It failed; `failure` says how.
    Failed,
    /// It was put off by the handler.
    Snoozed,
    /// It was handed back untouched.
    Released,
    /// Its worker vanished after the start.
    Lost,
    /// Nobody started it.
    Undelivered,
    /// It was called off while it ran.
    Cancelled,
    /// It happened before the task was enqueued: what the producer reported.
    Reported,
    /// A person sent it round again.
    Redriven,
    /// It was given back to where its task came from.
    HandedOff,
}

/// One line of a task's history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AttemptRecord {
    /// Counts leases from 1; 0 is what happened before the task was enqueued.
    pub run: u32,
    /// Who held the lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Name>,
    /// Position in the fallback chain: 0 = primary.
    #[serde(default)]
    pub route: u32,
    /// The dependency of that route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dependency: Option<Name>,
    /// When the lease was given.
    pub started_at_ms: i64,
    /// When it ended.
    pub ended_at_ms: i64,
    /// How it ended.
    pub end: AttemptEnd,
    /// What failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureRecord>,
    /// What it cost, if its worker said so.
    #[serde(default, skip_serializing_if = "Cost::is_zero")]
    pub cost_usd: Cost,
    /// The delay chosen before the next attempt, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// Why that delay, or why there is no next attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A leased task as its worker gets it. `(id, epoch, nonce)` is what every later call about it must carry.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Lease {
    /// The task.
    pub id: TaskId,
    /// Fences every later call: rises with each lease, never repeats.
    pub epoch: i64,
    /// Compared with the epoch.
    pub nonce: Nonce,
    /// When the lease ends unless it is extended.
    pub lease_until_ms: i64,
    /// Its length, in milliseconds: what each start and each extension gives again, unless it says otherwise.
    pub lease_ms: u64,
    /// When the task was due; now − due is its lateness.
    pub due_at_ms: i64,
    /// The queue.
    pub queue: Name,
    /// What to run.
    pub task_type: Name,
    /// Version of the payload's schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub type_version: Option<u32>,
    /// The caller's JSON, byte for byte.
    #[schema(value_type = Object)]
    pub payload: Box<RawValue>,
    /// Where the payload is, if it is a blob; then `payload` is `null`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_ref: Option<BlobRef>,
    /// How far earlier attempts came, where they saved it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Progress>,
    /// The upstream that it needs on its route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dependency: Option<Name>,
    /// Tenant or fairness key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Name>,
    /// Its priority.
    pub priority: Priority,
    /// Position in the fallback chain: 0 = primary.
    pub route: u32,
    /// This is attempt number …, counted by failures charged: 1 + `ledger.failed`.
    pub attempt: u32,
    /// This is lease number …; differs from `attempt` by what was released, lost or put off.
    pub run: u32,
    /// Failures charged until it is dead.
    pub max_attempts: u32,
    /// How long the handler may take, in milliseconds.
    pub timeout_ms: u64,
    /// When it is too late for this task.
    pub deadline_at_ms: i64,
    /// What it has been through.
    pub ledger: Ledger,
    /// The last failure, so that a handler can adapt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<FailureRecord>,
    /// W3C trace context of the call that failed first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Tokens that the attempt uses, by the caller's estimate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u32>,
    /// The caller's labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Everything that can be shown of a task.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TaskView {
    /// The task.
    pub id: TaskId,
    /// Where it is in its life.
    pub state: TaskState,
    /// The queue.
    pub queue: Name,
    /// What to run.
    pub task_type: Name,
    /// The upstream that it needs on its route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dependency: Option<Name>,
    /// The upstream that it was enqueued with, where another stands in for it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<Name>,
    /// Position in the fallback chain: 0 = primary.
    #[serde(default)]
    pub route: u32,
    /// Tenant or fairness key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Name>,
    /// Its priority.
    pub priority: Priority,
    /// When it was enqueued.
    pub enqueued_at_ms: i64,
    /// When it runs next (scheduled) or was due (leased).
    pub due_at_ms: i64,
    /// When it is too late.
    pub deadline_at_ms: i64,
    /// Epoch of the last lease or change.
    pub epoch: i64,
    /// Who holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Name>,
    /// Until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_until_ms: Option<i64>,
    /// Leases so far.
    pub runs: u32,
    /// Failures charged until it is dead.
    pub max_attempts: u32,
    /// What it has been through.
    pub ledger: Ledger,
    /// Its own backoff, where it brought one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Strategy>,
    /// The ledger with the bound of each kind, and the reason of its last charge. Left out of lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub charges: Vec<Charge>,
    /// What it may cost before a failure sends it to a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cost_usd: Option<Cost>,
    /// Tokens that one attempt uses, by the caller's estimate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u32>,
    /// Why it is where it is, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What its handler returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub result: Option<Box<RawValue>>,
    /// Where that is, if it is a blob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_ref: Option<BlobRef>,
    /// The last failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<FailureRecord>,
    /// Its attempts, oldest first, the last 50. Left out of lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<AttemptRecord>,
    /// The caller's JSON. Left out of lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub payload: Option<Box<RawValue>>,
    /// Where that is, if it is a blob. Left out of lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_ref: Option<BlobRef>,
    /// The caller's labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// When its id is forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<i64>,
}

/// How many tasks are in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StateCounts {
    /// Waiting, due or not.
    pub scheduled: i64,
    /// Held by a worker.
    pub leased: i64,
    /// Finished and still remembered.
    pub succeeded: i64,
    /// Given up.
    pub dead: i64,
    /// With a person.
    pub escalated: i64,
    /// Called off.
    pub cancelled: i64,
    /// Given back to where they came from.
    #[serde(default)]
    pub handed_off: i64,
}

impl StateCounts {
    /// The counter of one state.
    pub fn of(&mut self, state: TaskState) -> &mut i64 {
        match state {
            TaskState::Scheduled => &mut self.scheduled,
            TaskState::Leased => &mut self.leased,
            TaskState::Succeeded => &mut self.succeeded,
            TaskState::Dead => &mut self.dead,
            TaskState::Escalated => &mut self.escalated,
            TaskState::Cancelled => &mut self.cancelled,
            TaskState::HandedOff => &mut self.handed_off,
        }
    }

    /// All tasks that are known.
    pub fn total(&self) -> i64 {
        let Self { scheduled, leased, succeeded, dead, escalated, cancelled, handed_off } = self;
        scheduled + leased + succeeded + dead + escalated + cancelled + handed_off
    }
}
