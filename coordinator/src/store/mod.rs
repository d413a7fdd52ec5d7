//! The store: the truth about every task, behind domain verbs over batches.
//!
//! Each verb is one atomic step: all or nothing, fenced, durable when it returns. Time is the store's own, so a
//! coordinator whose clock is off cannot end a live lease. What a caller got wrong, a stale lease included, is an outcome
//! of its item; [`StoreError`] is for a store that cannot do its work, and after it the outcome is unknown: every verb
//! can be repeated safely.

mod arriving;
mod checkpoints;
mod commands;
pub mod doctor;
mod error;
mod format;
mod gates;
mod locks;
mod lost;
mod policies;
pub mod redis;
pub mod sqlite;
mod views;

use std::sync::Arc;

use async_trait::async_trait;
use redrive_shared::blob::{BlobId, Content};
use redrive_shared::checkpoint::Progress;
use redrive_shared::classify::at_dependency;
use redrive_shared::clock::Clock;
use redrive_shared::cost::Cost;
use redrive_shared::gate::{Scope, Standing};
use redrive_shared::id::{Name, TaskId};
use redrive_shared::lifecycle::{Attempt, Ended, Fence};
use redrive_shared::lock::{Answers, Resource, Verb, WaitId};
use redrive_shared::retry::RetryPolicy;
use redrive_shared::task::{FailureRecord, Lease, TaskState, TaskView};
use redrive_shared::wire::{AgentView, BreakerCommand, Heartbeat, PolicyVersion, QueueView, WorkerLost};
use tokio::sync::broadcast;

pub use self::arriving::{Enqueue, Enqueued};
pub use self::checkpoints::{CheckpointSaved, SaveCheckpoint};
pub use self::commands::CommandBreaker;
pub use self::error::{Result, StoreError};
pub use self::gates::{GateCell, GateSwap, GateSwapped, Gates, Restriction};
pub use self::locks::{LockCounts, Locks};
pub use self::lost::{LOST_KEPT_MS, LostAttempt};
pub use self::policies::{NewPolicy, PolicyChange, PolicyPut};

/// The queue that is always there.
pub const DEFAULT_QUEUE: &str = "default";

/// What another coordinator did. Hints may be lost: who waits looks again at a low rate all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// Something of the queue is due then.
    Due {
        /// The queue.
        queue: Name,
        /// When.
        due_ms: i64,
    },
    /// Gates changed of which everybody should know at once: [`Store::gates`].
    Gates,
    /// Places in line for locks that were granted.
    Offered(Vec<WaitId>),
    /// Anything may have changed.
    Look,
}

/// The opening of a run's presence connection, as the store knows it: no two of a run are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival(i64);

/// A worker's wish for work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Who.
    pub agent: Name,
    /// Which run of it.
    pub boot_id: Option<Name>,
    /// Makes the claim repeatable.
    pub request_id: Option<Name>,
    /// From where. Queues that do not exist have nothing due.
    pub queues: Vec<Name>,
    /// At most so many.
    pub max: usize,
    /// Length of the lease; the queue's policy decides when missing.
    pub lease_ms: Option<u64>,
    /// Lanes not to visit.
    pub avoid: Vec<Name>,
}

/// What a claim got.
#[derive(Debug, Clone, Default)]
pub struct Claimed {
    /// The leases, in order.
    pub leases: Vec<Lease>,
    /// When the next task of its eligible lanes is due, if one waits. Missing when the claim was filled. A lane that a
    /// restriction holds back counts while nothing in it is due: then somebody has to notice, and from then on
    /// `held_back` tells of it.
    pub next_due_ms: Option<i64>,
    /// Of what something that is due was passed over because of a restriction, in the order of the restrictions: the first
    /// that let nothing of it through, on its queue, its group there, or its dependency. Of a claim that was filled, as far
    /// as that was noticed on the way.
    pub held_back: Vec<Scope>,
    /// Tasks that were found past their deadline and escalated.
    pub too_late: Vec<TaskId>,
    /// This is the answer that the same request was given before, as far as it still holds: without what is over by now, and
    /// without what nobody started before its deadline, which is among those too late.
    pub replayed: bool,
}

/// One run of an agent: a process, from its start to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The agent.
    pub agent: Name,
    /// Which run of it.
    pub boot_id: Name,
}

/// A lease to start or to make longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extend {
    /// The task.
    pub id: TaskId,
    /// Its lease.
    pub fence: Fence,
    /// From now; the queue's policy decides when missing.
    pub lease_ms: Option<u64>,
    /// Whose the lease is from now on, whoever claimed it: shown with the task, and its silence or broken presence ends it.
    /// A lease that another run has started is not its to take: stale. Nothing changes hands when missing. It says nothing
    /// of that run being alive: if it counts as silent, the lease ends at its time unless it is heard from.
    pub run: Option<Run>,
}

/// What became of an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extended {
    /// It ends then.
    Until(i64),
    /// It is over or somebody else's.
    Stale(TaskState),
    /// No such task.
    Unknown,
}

/// The end of an attempt, judged.
#[derive(Debug, Clone)]
pub enum Ending {
    /// The work is done.
    Done(Option<Content>),
    /// It failed: the policy decides.
    Failed(FailureRecord),
    /// It failed and the handler rules out a retry.
    FailedForGood(FailureRecord),
    /// It failed and the handler asks for a person.
    NeedsPerson(FailureRecord),
    /// Put off.
    Snoozed {
        /// From now.
        delay_ms: u64,
    },
    /// Handed back untouched.
    Released,
    /// Taken back, since it reached no worker; for the coordinator itself.
    Undelivered,
    /// Given back to where it came from; for the coordinator itself, no worker says so. The same lease may settle it once
    /// more, by any other ending: a failure that comes back is judged as if the task were still leased.
    HandedOff,
}

impl Ending {
    /// As the lifecycle takes it.
    pub fn ended(&self) -> Ended<'_> {
        match self {
            Self::Done(_) => Ended::Done,
            Self::Failed(failure) => Ended::Failed(failure),
            Self::FailedForGood(failure) => Ended::FailedForGood(failure),
            Self::NeedsPerson(failure) => Ended::NeedsPerson(failure),
            Self::Snoozed { delay_ms } => Ended::Snoozed { delay_ms: *delay_ms },
            Self::Released => Ended::Released,
            Self::Undelivered => Ended::Undelivered,
            Self::HandedOff => Ended::HandedOff,
        }
    }

    /// Makes the failure's fingerprint that of its task's dependency, which only the store knows.
    pub fn at_dependency(&mut self, dependency: &str) {
        if let Self::Failed(failure) | Self::FailedForGood(failure) | Self::NeedsPerson(failure) = self {
            failure.fingerprint = at_dependency(&failure.fingerprint, dependency);
        }
    }

    /// What failed, if something did.
    pub fn failure(&self) -> Option<&FailureRecord> {
        match self {
            Self::Failed(failure) | Self::FailedForGood(failure) | Self::NeedsPerson(failure) => {
                Some(failure)
            }
            Self::Done(_) | Self::Snoozed { .. } | Self::Released | Self::Undelivered | Self::HandedOff => {
                None
            }
        }
    }
}

/// A lease to settle.
#[derive(Debug, Clone)]
pub struct Settle {
    /// The task.
    pub id: TaskId,
    /// Its lease.
    pub fence: Fence,
    /// How the attempt ended.
    pub ending: Ending,
    /// What it cost.
    pub cost: Cost,
    /// Whether a failure was in the middle of a tool transaction, which no other route must go on with.
    pub in_transaction: bool,
    /// Which dependencies let nothing through, for the judgement of where it goes on.
    pub standing: Standing,
}

impl Settle {
    /// An attempt that cost nothing and was in no transaction, while every dependency lets work through.
    pub fn new(id: TaskId, fence: Fence, ending: Ending) -> Self {
        let (cost, in_transaction, standing) = (Cost::default(), false, Standing::default());
        Self { id, fence, ending, cost, in_transaction, standing }
    }

    /// As the lifecycle takes it, with its ending as the store sees it.
    fn attempt<'a>(&self, ending: &'a Ending) -> Attempt<'a> {
        Attempt { ended: ending.ended(), cost: self.cost, in_transaction: self.in_transaction }
    }
}

/// What became of a settlement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// It holds.
    Applied {
        /// The state after it.
        state: TaskState,
        /// When it runs again, if it does.
        due_ms: i64,
        /// The queue, for metrics.
        queue: Name,
        /// The upstream that the attempt went to.
        dependency: Option<Name>,
        /// The group of the task.
        group: Option<Name>,
        /// Who held the lease; of what was handed off before, nobody is known.
        agent: Option<Name>,
        /// Whether the attempt that ended was a retry: a call had been made for the task before it.
        retried: bool,
    },
    /// This lease was settled before, and that holds.
    Repeated {
        /// The state now.
        state: TaskState,
        /// When it runs again, if it does.
        due_ms: i64,
    },
    /// The lease is over or somebody else's.
    Stale(TaskState),
    /// This release cannot read the task; nothing has changed.
    Unreadable,
    /// No such task.
    Unknown,
}

/// A lease that ended with no word from its worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaped {
    /// The task.
    pub id: TaskId,
    /// Its queue.
    pub queue: Name,
    /// The upstream that the attempt went to.
    pub dependency: Option<Name>,
    /// The epoch of the lease.
    pub epoch: i64,
    /// Whose it was.
    pub agent: Option<Name>,
    /// Of which run, where the claim said so.
    pub boot_id: Option<Name>,
    /// Whether the worker had started it.
    pub started: bool,
    /// Whether the attempt that ended was a retry: a call had been made for the task before it.
    pub retried: bool,
    /// The state after it.
    pub state: TaskState,
    /// When it runs again, if it does.
    pub due_ms: i64,
}

/// What a round of reaping found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reap {
    /// The leases ended.
    pub reaped: Vec<Reaped>,
    /// Waiting tasks whose deadline had passed, escalated.
    pub too_late: Vec<TaskId>,
    /// Agents found silent for too long; their leases were among those ended, or will be with the next round.
    pub gone: Vec<Name>,
    /// When to look again, at the latest.
    pub next_ms: Option<i64>,
}

impl Reap {
    /// There will be something then.
    pub fn look_again(&mut self, at_ms: i64) {
        self.next_ms = Some(self.next_ms.map_or(at_ms, |next_ms| next_ms.min(at_ms)));
    }
}

/// What an operator's action did to one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acted {
    /// It is in that state now.
    Now {
        /// The state.
        state: TaskState,
        /// When it runs, if it does.
        due_ms: i64,
        /// The epoch of the lease that this ended, if there was one.
        ended: Option<i64>,
    },
    /// Its state does not allow it.
    WrongState(TaskState),
    /// This release cannot read the task; nothing has changed.
    Unreadable,
    /// No such task.
    Unknown,
}

/// What a heartbeat changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Beaten {
    /// One a lease, in order.
    pub leases: Vec<Extended>,
    /// Commands to its breakers that it has not carried out yet.
    pub commands: Vec<BreakerCommand>,
    /// Other runs of the agent that vanished lately.
    pub lost: Vec<WorkerLost>,
}

/// Which tasks to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only of this queue.
    pub queue: Option<Name>,
    /// Only in this state.
    pub state: Option<TaskState>,
    /// Continue below this sequence number.
    pub cursor: Option<i64>,
    /// At most so many.
    pub limit: usize,
}

/// A page of tasks, newest first.
#[derive(Debug, Clone, Default)]
pub struct Listed {
    /// Without payload and history.
    pub tasks: Vec<TaskView>,
    /// Where to go on.
    pub next_cursor: Option<i64>,
}

/// The store's contract. One conformance suite runs against every implementation (`tests/suite`).
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Puts tasks on their queues. Answers in order.
    async fn enqueue(&self, batch: Vec<Enqueue>) -> Result<Vec<Enqueued>>;
    /// Leases what is due, claim by claim in order; lanes by priority, then in rotation, each in order of due time; of each
    /// scope that is restricted no more than that, over all claims together.
    async fn claim(&self, batch: Vec<Claim>, gates: &[Restriction]) -> Result<Vec<Claimed>>;
    /// Starts leases or makes them longer.
    async fn extend(&self, batch: Vec<Extend>) -> Result<Vec<Extended>>;
    /// Ends attempts.
    async fn settle(&self, batch: Vec<Settle>) -> Result<Vec<Settled>>;
    /// Ends up to `limit` leases whose time is over, whatever is paused, and those of agents gone silent; and escalates up
    /// to `limit` waiting tasks whose deadline has passed.
    async fn reap(&self, limit: usize) -> Result<Reap>;
    /// A run of an agent opened a presence connection, at this coordinator or at another.
    async fn arrive(&self, agent: &Name, boot_id: &Name) -> Result<Arrival>;
    /// The presence that began with that arrival is over: lets the leases of the run end now, unless it arrived again
    /// since, anywhere; the next [`Store::reap`] ends them. Returns how many.
    async fn expire_leases(&self, agent: &Name, boot_id: &Name, arrival: Arrival) -> Result<usize>;
    /// Forgets up to `limit` finished tasks whose retention is over.
    async fn forget(&self, limit: usize) -> Result<usize>;
    /// Calls tasks off.
    async fn cancel(&self, ids: Vec<TaskId>, reason: Option<String>) -> Result<Vec<Acted>>;
    /// Runs tasks again now, past dependencies that are isolated where others stand in.
    async fn retry(
        &self,
        ids: Vec<TaskId>,
        reason: Option<String>,
        standing: &Standing,
    ) -> Result<Vec<Acted>>;
    /// Saves checkpoints, each under its lease. Answers in order.
    async fn save_checkpoints(&self, batch: Vec<SaveCheckpoint>) -> Result<Vec<CheckpointSaved>>;
    /// How far a task came. `None`: no such task.
    async fn progress(&self, id: &TaskId) -> Result<Option<Progress>>;
    /// The blobs that each of the tasks refers to, by payload, result and checkpoint, in order; none of a task that is not
    /// known. `None`: this release cannot read the task; what it refers to must not be taken for unused.
    async fn blobs(&self, ids: &[TaskId]) -> Result<Vec<Option<Vec<BlobId>>>>;
    /// Everything about one task.
    async fn get(&self, id: &TaskId) -> Result<Option<TaskView>>;
    /// Those of the tasks that are known, without payload and history. Results beyond 4 MiB in all are left out.
    async fn status(&self, ids: Vec<TaskId>) -> Result<Vec<TaskView>>;
    /// A page of tasks, without payload, history and result.
    async fn list(&self, filter: Filter) -> Result<Listed>;
    /// Makes a queue with the default policy, unless it is there.
    async fn make_queue(&self, name: &Name) -> Result<()>;
    /// Makes queues or replaces their policies, all of them or none, and keeps the last versions of each.
    async fn put_queues(&self, change: PolicyChange) -> Result<PolicyPut>;
    /// Makes a queue or replaces its policy, whatever is in force.
    async fn put_queue(&self, name: &Name, policy: RetryPolicy) -> Result<()> {
        self.put_queues(PolicyChange::of(name.clone(), policy)).await.map(|_| ())
    }
    /// The versions of a queue's policy that are kept, newest first. Empty where it was never changed, or is not there.
    async fn policy_versions(&self, queue: &Name) -> Result<Vec<PolicyVersion>>;
    /// Stops or resumes handing out a queue's tasks. False: no such queue.
    async fn pause(&self, name: &Name, paused: bool) -> Result<bool>;
    /// Whether there is such a queue, as far as this process knows. Cheap: it is asked with every request.
    fn has_queue(&self, name: &Name) -> bool;
    /// The policy of a queue, as far as this process knows it. As cheap.
    fn policy(&self, name: &Name) -> Option<Arc<RetryPolicy>>;
    /// Names of the queues, as far as this process knows.
    fn queue_names(&self) -> Vec<Name>;
    /// Learns of queues that others made: asked before a queue is called unknown.
    async fn learn_queues(&self) -> Result<()> {
        Ok(())
    }
    /// Every queue, by name.
    async fn queues(&self) -> Result<Vec<QueueView>>;
    /// How many tasks of a queue are leased.
    async fn leased(&self, queue: &Name) -> Result<u64>;
    /// All gates, unless their last change is still the one that was `seen` (0: none was).
    async fn gates(&self, seen: i64) -> Result<Option<Gates>>;
    /// Changes gates, each by itself. Answers in order.
    async fn swap_gates(&self, batch: Vec<GateSwap>) -> Result<Vec<GateSwapped>>;
    /// Does what is asked of locks, in order. Those that wait may be forgotten when the store failed.
    async fn lock(&self, verbs: Vec<Verb>) -> Result<Answers>;
    /// Locks and those that wait, of all resources or of one, up to so many of each.
    async fn locks(&self, resource: Option<&Resource>, most: usize) -> Result<Locks>;
    /// An agent is alive, and extends its leases.
    async fn heartbeat(&self, beat: Heartbeat) -> Result<Beaten>;
    /// Gives a command to a breaker, in place of the one that stood for it; the same again is the one that stands. It is
    /// handed to each run of the agent with its heartbeats until that has carried it out, and kept as long as the agent is
    /// known. `None`: so many of the agent's breakers are isolated that there is no place for it.
    async fn command_breaker(&self, wanted: CommandBreaker) -> Result<Option<BreakerCommand>>;
    /// Counts attempts that were lost with their workers, for the breakers of the agents' other runs: each is told with the
    /// replies to its heartbeats for [`LOST_KEPT_MS`]. To be called once for each lease that was lost: a call that failed may
    /// have counted, and is not repeated.
    async fn count_lost(&self, lost: Vec<LostAttempt>) -> Result<()>;
    /// Every agent known, by name.
    async fn agents(&self) -> Result<Vec<AgentView>>;
    /// Which store this is: a name that no other has, given at its first use and kept as long as it lives. A copy of it has the
    /// same.
    async fn identity(&self) -> Result<String>;
    /// Whether it can write now.
    async fn check(&self) -> Result<()>;
    /// The store's own clock, where it is not this machine's: due times are to be waited for by it.
    fn clock(&self) -> Option<Arc<dyn Clock>> {
        None
    }
    /// What other coordinators do, where there can be any. None: only this process changes the store.
    fn hints(&self) -> Option<broadcast::Receiver<Hint>> {
        None
    }
}
