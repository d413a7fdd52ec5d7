//! The model's tasks, and what each event does to them.

use std::collections::BTreeMap;

use redrive_shared::failure::FailureClass;
use redrive_shared::lifecycle::Fence;
use redrive_shared::task::{Ledger, Priority, TaskState};

use super::command::{Ending, Failure, NewTask};
use super::judge::{Allowed, Counted, RULES, Rules, judge};

#[derive(Debug, Clone)]
pub struct Task {
    pub queue: usize,
    pub payload: u8,
    pub lane: (Priority, Option<u8>, Option<u8>),
    /// Order of arrival.
    pub seq: u64,
    /// When it arrived.
    pub came_ms: i64,
    pub state: TaskState,
    pub epoch: i64,
    pub due_ms: i64,
    pub deadline_ms: i64,
    pub max_attempts: u32,
    pub ledger: Ledger,
    pub of_class: BTreeMap<FailureClass, u32>,
    /// Whether a call was made for it.
    pub called: bool,
    pub runs: u32,
    pub lease: Option<Lease>,
    /// The lease that settled it, until anything else happens.
    pub settled_by: Option<Fence>,
    pub expires_ms: Option<i64>,
    pub has_result: bool,
    pub history: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    pub fence: Fence,
    pub agent: usize,
    pub given_ms: i64,
    pub until_ms: i64,
    pub started: bool,
}

/// What a fence is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Holds,
    SettledIt,
    Stale,
}

impl Task {
    /// A new task, and what may become of it at once.
    pub fn new(spec: &NewTask, seq: u64, now_us: i64) -> (Self, Allowed) {
        let (now_ms, rules) = (now_us / 1_000, RULES[spec.queue]);
        let made = spec.attempts_made.unwrap_or(u32::from(spec.failure.is_some()));
        let due_ms = now_ms.saturating_add_unsigned(spec.delay_ms.unwrap_or(0));
        let mut task = Self {
            queue: spec.queue,
            payload: spec.payload,
            lane: (spec.priority, spec.group, spec.dependency),
            seq,
            came_ms: now_ms,
            state: TaskState::Scheduled,
            epoch: now_us,
            due_ms,
            deadline_ms: spec.deadline_ms.map_or(due_ms + rules.deadline_ms, |ms| now_ms + ms.cast_signed()),
            max_attempts: spec.max_attempts.unwrap_or(rules.max_attempts),
            ledger: Ledger { failed: made, ..Ledger::default() },
            of_class: BTreeMap::new(),
            called: match spec.failure {
                Some(seen) => made > 1 || seen.class != FailureClass::LockTimeout,
                None => made > 0,
            },
            runs: 0,
            lease: None,
            settled_by: None,
            expires_ms: None,
            has_result: false,
            history: 0,
        };
        let Some(failure) = spec.failure else {
            // Attempts that were made elsewhere count, whatever became of them.
            if made >= task.max_attempts {
                task.history = 1;
                return (task, Allowed::state(TaskState::Dead));
            }
            return (task, Allowed::between(due_ms, due_ms));
        };
        task.ledger.failed = made.saturating_sub(1);
        task.history = 1;
        let mut allowed = task.fail(failure, now_ms);
        allowed.scheduled =
            allowed.scheduled.map(|(from_ms, to_ms)| (from_ms.max(due_ms), to_ms.max(due_ms)));
        (task, allowed)
    }

    pub fn rules(&self) -> Rules {
        RULES[self.queue]
    }

    /// Whether it waits among those that were tried before.
    pub fn is_retry(&self) -> bool {
        self.lane.2.is_some() && self.was_tried()
    }

    pub fn was_tried(&self) -> bool {
        self.ledger.failed > 0 || self.ledger.lost > 0
    }

    pub fn standing(&self, fence: Fence) -> Standing {
        match self.lease {
            Some(lease) if lease.fence == fence => Standing::Holds,
            _ if self.settled_by == Some(fence) => Standing::SettledIt,
            _ => Standing::Stale,
        }
    }

    /// What a fence is worth to who ends an attempt with it: one that handed the task off may end it once more.
    pub fn standing_to_settle(&self, fence: Fence, ending: Ending) -> Standing {
        match self.standing(fence) {
            Standing::SettledIt
                if self.state == TaskState::HandedOff && !matches!(ending, Ending::HandedOff) =>
            {
                Standing::Holds
            }
            standing => standing,
        }
    }

    /// Any event but a settlement: the epoch rises, and no lease outlives it.
    fn turn(&mut self, now_us: i64) {
        self.epoch = (self.epoch + 1).max(now_us);
        self.lease = None;
        self.settled_by = None;
    }

    pub fn claim(&mut self, lease: Lease, now_us: i64) {
        self.turn(now_us);
        assert!(self.epoch <= lease.fence.epoch, "an epoch is at least the last one + 1, and the time");
        self.epoch = lease.fence.epoch;
        self.state = TaskState::Leased;
        self.runs += 1;
        self.lease = Some(lease);
    }

    /// Its deadline passed before anybody started it: as if it had not been leased.
    pub fn too_late(&mut self, now_us: i64) {
        self.runs -= u32::from(self.lease.is_some());
        self.turn(now_us);
        self.history += 1;
        self.end(TaskState::Escalated, now_us / 1_000);
    }

    /// The holder settles it; says what may come of it.
    pub fn settle(&mut self, ending: Ending, now_ms: i64) -> Allowed {
        // What was handed off is still settled by the lease that did so.
        self.settled_by = self.lease.take().map(|lease| lease.fence).or(self.settled_by);
        self.expires_ms = None;
        self.history += 1;
        self.called |= ending.is_call();
        match ending {
            Ending::Done(result) => {
                self.has_result = result;
                Allowed::state(TaskState::Succeeded)
            }
            Ending::Failed(failure) => self.fail(failure, now_ms),
            Ending::FailedForGood(failure) => {
                self.charge(failure.class);
                Allowed::state(TaskState::Dead)
            }
            Ending::NeedsPerson(failure) => {
                self.charge(failure.class);
                Allowed::state(TaskState::Escalated)
            }
            Ending::Snoozed(delay_ms) => {
                self.ledger.deferred += 1;
                let due_ms = now_ms.saturating_add_unsigned(delay_ms);
                if due_ms > self.deadline_ms {
                    return Allowed::state(TaskState::Escalated);
                }
                Allowed::between(due_ms, due_ms)
            }
            Ending::Released => {
                self.ledger.released += 1;
                Allowed::between(now_ms, now_ms + 1_000)
            }
            Ending::Undelivered => {
                self.ledger.undelivered += 1;
                Allowed::between(now_ms, now_ms + 1_000)
            }
            Ending::HandedOff => Allowed::state(TaskState::HandedOff),
        }
    }

    /// Nobody said anything until the lease ended.
    pub fn lose(&mut self, now_us: i64) -> Allowed {
        let started = self.lease.is_some_and(|lease| lease.started);
        self.turn(now_us);
        self.history += 1;
        if started {
            self.called = true;
            let lost = Failure { class: FailureClass::WorkerLost, retryable: true, hint_ms: None };
            return self.fail(lost, now_us / 1_000);
        }
        self.ledger.undelivered += 1;
        Allowed::between(now_us / 1_000 + 1_000, now_us / 1_000 + 2_000)
    }

    /// False: its state does not allow it.
    pub fn cancel(&mut self, now_us: i64) -> bool {
        match self.state {
            TaskState::Cancelled => true,
            TaskState::Succeeded => false,
            TaskState::Scheduled
            | TaskState::Leased
            | TaskState::Dead
            | TaskState::Escalated
            | TaskState::HandedOff => {
                self.turn(now_us);
                self.history += 1;
                self.end(TaskState::Cancelled, now_us / 1_000);
                true
            }
        }
    }

    /// False: its state does not allow it.
    pub fn retry(&mut self, now_us: i64) -> bool {
        let now_ms = now_us / 1_000;
        match self.state {
            TaskState::Leased | TaskState::Succeeded => return false,
            TaskState::Scheduled => self.due_ms = self.due_ms.min(now_ms),
            TaskState::Dead | TaskState::Escalated | TaskState::Cancelled | TaskState::HandedOff => {
                let undelivered = self.ledger.undelivered;
                self.ledger = Ledger { undelivered, ..Ledger::default() };
                self.of_class.clear();
                self.deadline_ms = self.deadline_ms.max(now_ms + self.rules().deadline_ms);
                self.due_ms = now_ms;
                self.expires_ms = None;
            }
        }
        self.state = TaskState::Scheduled;
        self.turn(now_us);
        self.history += 1;
        true
    }

    /// Takes over what the store chose among what was allowed.
    pub fn adopt(&mut self, allowed: Allowed, state: TaskState, due_ms: i64, now_ms: i64) {
        assert!(allowed.contains(state, due_ms), "{state}, due {due_ms}; allowed at {now_ms}: {allowed:?}");
        if state == TaskState::Scheduled {
            self.state = state;
            self.due_ms = due_ms;
        } else {
            // An end leaves alone when it was due.
            self.end(state, now_ms);
        }
    }

    fn end(&mut self, state: TaskState, now_ms: i64) {
        self.state = state;
        let remembered = matches!(
            state,
            TaskState::Succeeded | TaskState::Dead | TaskState::Cancelled | TaskState::HandedOff
        );
        self.expires_ms = remembered.then_some(now_ms + self.rules().retention_ms);
    }

    fn charge(&mut self, class: FailureClass) {
        *self.of_class.entry(class).or_default() += 1;
        match class {
            FailureClass::WorkerLost => self.ledger.lost += 1,
            FailureClass::LockTimeout => self.ledger.lock_waits += 1,
            _ => self.ledger.failed += 1,
        }
    }

    fn fail(&mut self, failure: Failure, now_ms: i64) -> Allowed {
        self.charge(failure.class);
        let counted = Counted {
            failed: self.ledger.failed,
            lost: self.ledger.lost,
            of_class: self.of_class[&failure.class],
            attempts_allowed: self.max_attempts,
            deadline_ms: self.deadline_ms,
        };
        judge(failure, counted, self.rules(), now_ms)
    }
}

/// An agent, as its last heartbeat left it.
#[derive(Debug, Clone, Copy)]
pub struct Agent {
    pub seen_ms: i64,
    pub gone: bool,
}

/// What a claim with a request id was given.
#[derive(Debug)]
pub struct Answer {
    pub at_ms: i64,
    pub leases: Vec<(usize, Fence)>,
}

/// Everything.
#[derive(Debug, Default)]
pub struct Model {
    pub tasks: BTreeMap<usize, Task>,
    pub paused: [bool; 2],
    pub agents: BTreeMap<usize, Agent>,
    /// Answers to claims, by agent and request id.
    pub answered: BTreeMap<(usize, u8), Answer>,
    pub opened_ms: i64,
    pub enqueued: u64,
}

impl Model {
    /// Ids of tasks that a claim may look at, due or not.
    pub fn eligible(&self, queues: &[usize], avoid: Option<u8>) -> Vec<usize> {
        let open = |task: &Task| queues.contains(&task.queue) && !self.paused[task.queue];
        let wanted = |task: &Task| task.lane.2.is_none() || task.lane.2 != avoid;
        let waiting = self.tasks.iter().filter(|(_, task)| task.state == TaskState::Scheduled);
        waiting.filter(|(_, task)| open(task) && wanted(task)).map(|(id, _)| *id).collect()
    }

    /// Marks agents that were silent for more than 15 s, since the store was opened and since they were heard from; their
    /// leases end.
    pub fn silence(&mut self, now_ms: i64) -> Vec<usize> {
        let mut gone = Vec::new();
        for (number, agent) in &mut self.agents {
            if !agent.gone && now_ms - agent.seen_ms.max(self.opened_ms) > 15_000 {
                agent.gone = true;
                gone.push(*number);
            }
        }
        for agent in &gone {
            self.expire(*agent, now_ms);
        }
        gone
    }

    /// Ends the leases of an agent; says how many had not ended yet.
    pub fn expire(&mut self, agent: usize, now_ms: i64) -> usize {
        let leases = self.tasks.values_mut().filter_map(|task| task.lease.as_mut());
        let live = leases.filter(|lease| lease.agent == agent && lease.until_ms > now_ms);
        live.map(|lease| lease.until_ms = now_ms).count()
    }
}
