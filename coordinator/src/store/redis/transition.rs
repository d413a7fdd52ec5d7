//! Writing what the lifecycle decided: one script for settlements, losses, missed deadlines, cancellations, retries and
//! forgetting. A change says what the task must still be; where it is not, nothing of it is done.

use std::collections::HashMap;

use redis::cmd;
use redrive_shared::cost::Cost;
use redrive_shared::id::{Name, TaskId};
use redrive_shared::lifecycle::{Record, Verdict};
use redrive_shared::limits::HISTORY_MAX_ENTRIES;
use redrive_shared::task::{AttemptRecord, FailureRecord, Lane, Nonce, TaskState};

use super::Inner;
use super::batcher::Item;
use super::history::write_line;
use super::keys::{counter_name, lane_name};
use super::reply::{bytes, integer, items};
use super::scripts::TRANSITION;
use super::value::{Lease, Task, Unreadable, body_of};
use crate::store::{Result, StoreError};

/// Lines beyond the bound that may gather before the oldest are dropped: dropping them costs a read.
const HISTORY_SLACK: usize = 14;
/// Values that are smaller, on average of a batch, go through the script: to let them in past it, those that they replace must
/// be removed first, which costs Redis more than Lua's copies do. Measured with values of 250 bytes (12 % of a cycle's time
/// in Redis saved) and of 700 (no difference).
const PAST_BYTES_MIN: usize = 512;
/// How often a change is decided anew when somebody else was faster.
pub(super) const TRIES: usize = 8;

/// A change of one task.
pub(super) struct Change {
    id: TaskId,
    /// What must still be so, beside the lease: its extension, or the header. None: the fence suffices.
    guard: Option<Vec<u8>>,
    nonce: Nonce,
    /// Where nothing guards it: the run that took the lease over, as far as that is known. Its name is in the history.
    holder: Option<Box<str>>,
    /// Header and record after it, or the whole value.
    value: Vec<u8>,
    rest: Vec<u8>,
    from: Place,
    to: Place,
    score: i64,
    deadline_ms: i64,
    /// Bytes of the body that the script reads and writes again.
    body_bytes: usize,
    /// Its epoch after it, where that was raised.
    epoch: Option<i64>,
    before: String,
    /// Empty: the task is deleted.
    after: String,
    /// Where it becomes due, for those who wait.
    pub queue: Name,
    /// The upstream that its attempt went to.
    pub dependency: Option<Name>,
}

/// What became of a change.
#[derive(Debug)]
pub(super) enum Changed {
    Applied,
    /// The task is not what it was, but this.
    Otherwise(Box<Task>),
    /// The task is not what it was, and cannot be read.
    Unreadable,
    Unknown,
}

/// The sorted set that a task is in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Lane(String),
    /// Among the leases, by the epoch of its own.
    Lease(i64),
    Finished,
    Nowhere,
}

impl Item for Change {
    fn id(&self) -> &TaskId {
        &self.id
    }

    fn bytes(&self) -> usize {
        self.value.len() + self.rest.len() + self.body_bytes
    }
}

/// A transition that was decided, and how its line of history reads.
pub(super) struct Decided<'a> {
    /// What must still be so, beside the lease: its extension, or the header. None: the fence suffices.
    pub guard: Option<Vec<u8>>,
    pub before: Record,
    pub verdict: Verdict,
    pub failure: Option<&'a FailureRecord>,
    pub agent: Option<Name>,
    pub note: Option<&'a str>,
    /// The result of a task that is done.
    pub result: Option<&'a [u8]>,
    pub now_ms: i64,
}

/// What the rest of a change says whose value is the whole of it.
const WHOLE: &[u8] = b"w";

fn place(lane: &Lane, record: &Record) -> Place {
    match record.state {
        TaskState::Scheduled => Place::Lane(lane_name(lane)),
        TaskState::Leased => Place::Lease(record.epoch),
        TaskState::Succeeded | TaskState::Dead | TaskState::Cancelled | TaskState::HandedOff => {
            Place::Finished
        }
        TaskState::Escalated => Place::Nowhere,
    }
}

/// Where it stands there, if there is an order.
fn score(task: &Task) -> i64 {
    match task.record.state {
        TaskState::Scheduled => task.score(),
        _ => task.record.expires_ms.unwrap_or(0),
    }
}

pub(super) fn lane(task: &Task) -> Result<Lane> {
    task.lane().map_err(|error| StoreError::Corrupt(format!("a task's lane: {error}")))
}

impl Inner {
    /// The change that a decision makes. `task` has the record after it, `body` is what came after the record before it,
    /// where that is at hand.
    pub async fn change(
        &self,
        id: &TaskId,
        task: &mut Task,
        body: Option<&[u8]>,
        decided: Decided<'_>,
    ) -> Result<Change> {
        let Decided { guard, before, verdict, failure, agent, note, result, now_ms } = decided;
        let mut lane = lane(task)?;
        let from = place(&lane, &before);
        let (at, stood_in) = (lane.dependency.clone(), task.stand_in.clone());
        let route = self.follow(&mut lane, task, &before)?;
        let spent = task.record.ledger.cost_usd.micros().saturating_sub(before.ledger.cost_usd.micros());
        let line = write_line(AttemptRecord {
            run: before.runs,
            agent,
            route,
            dependency: stood_in,
            started_at_ms: if before.state == TaskState::Leased { before.leased_at_ms } else { now_ms },
            ended_at_ms: now_ms,
            end: verdict.end,
            failure: failure.cloned(),
            cost_usd: Cost::from_micros(spent),
            delay_ms: verdict.delay_ms,
            why: Some(note.unwrap_or(verdict.why).to_owned()),
        });
        task.entries += 1;
        let kept = HISTORY_MAX_ENTRIES + if body.is_some() { 0 } else { HISTORY_SLACK };
        let fetched = if usize::try_from(task.entries).unwrap_or(usize::MAX) > kept && body.is_none() {
            // Somebody has to drop the oldest lines.
            self.body(id).await?
        } else {
            None
        };
        let done = task.record.state == TaskState::Succeeded && before.state != TaskState::Succeeded;
        let slot = done.then(|| result.unwrap_or_default());
        let mut body_bytes = 0;
        let (value, rest) = match body.or(fetched.as_deref()) {
            Some(body) => (task.rewritten(body, slot, &line).map_err(unreadable(id))?, WHOLE.to_vec()),
            None => {
                body_bytes = task.slot_bytes;
                let rest = match slot {
                    Some(slot) => [b"!".as_slice(), &length(slot), slot, &line].concat(),
                    None => [b"=".as_slice(), &line].concat(),
                };
                task.slot_bytes = slot.map_or(task.slot_bytes, <[u8]>::len);
                (task.head(0), rest)
            }
        };
        let known = task.lease.as_ref().filter(|_| guard.is_none());
        Ok(Change {
            id: id.clone(),
            holder: known.and_then(|lease| lease.taken_by.clone()),
            guard,
            nonce: before.nonce,
            value,
            rest,
            from,
            to: place(&lane, &task.record),
            score: score(task),
            deadline_ms: task.record.deadline_ms,
            body_bytes,
            epoch: (task.record.epoch != before.epoch).then_some(task.record.epoch),
            before: counter_name(&lane.queue, before.state),
            after: counter_name(&lane.queue, task.record.state),
            queue: lane.queue,
            dependency: at,
        })
    }

    /// Moves a task that is to wait into the lane of its route, and of retries where its ledger says so; returns the route
    /// that its attempt was on.
    fn follow(&self, lane: &mut Lane, task: &mut Task, before: &Record) -> Result<u32> {
        let primary = task.meta.primary();
        let primary = primary.map_err(|error| StoreError::Corrupt(format!("a task's lane: {error}")))?;
        let policy = self.books.get().policy(task.meta.queue());
        let waits = task.record.state == TaskState::Scheduled;
        if waits {
            lane.dependency = policy.dependency_at(primary.as_ref(), task.record.route).cloned();
            task.stand_in = lane.dependency.clone().filter(|name| Some(name) != primary.as_ref());
        }
        lane.follow(&task.record.ledger);
        // What does not wait has no need of it.
        task.among_retries = lane.retry && waits;
        Ok(policy.route_at(primary.as_ref(), before.route))
    }

    /// Everything after a task's record. None: it is not there any more, which the guard will find.
    async fn body(&self, id: &TaskId) -> Result<Option<Vec<u8>>> {
        let value = self.link.query(cmd("GET").arg(self.task_key(id))).await?;
        if value == redis::Value::Nil {
            return Ok(None);
        }
        body_of(bytes(&value)?).map(|body| Some(body.to_vec())).map_err(unreadable(id))
    }

    /// A change that forgets a task.
    pub fn forgetting(&self, id: &TaskId, task: &Task) -> Result<Change> {
        let lane = lane(task)?;
        Ok(Change {
            id: id.clone(),
            guard: Some(task.whole_header()),
            nonce: task.record.nonce,
            holder: None,
            value: Vec::new(),
            rest: Vec::new(),
            from: place(&lane, &task.record),
            to: Place::Nowhere,
            score: 0,
            deadline_ms: 0,
            body_bytes: 0,
            epoch: None,
            before: counter_name(&lane.queue, task.record.state),
            after: String::new(),
            queue: lane.queue,
            dependency: lane.dependency,
        })
    }

    /// Makes changes, each in its shard. Answers in order.
    pub async fn apply(&self, changes: Vec<Change>) -> Result<Vec<Changed>> {
        self.submit(changes, |shard| &shard.transition).await
    }

    /// Writes one batch of a shard.
    pub async fn write_changes(&self, shard: u16, changes: Vec<Change>) -> Result<Vec<Changed>> {
        let groups = groups(&changes);
        let order: Vec<usize> = groups.iter().flatten().copied().collect();
        let reply = match self.write_gated(shard, &changes, &groups).await? {
            Some(reply) => reply,
            None => self.write(shard, self.transition(shard, &changes, &groups, false)).await?,
        };
        let mut answers: Vec<Changed> = changes.iter().map(|_| Changed::Applied).collect();
        for other in items(&reply)?.get(1..).unwrap_or_default().chunks_exact(3) {
            let place = usize::try_from(integer(&other[0])?).unwrap_or(0).wrapping_sub(1);
            let place = *order.get(place).ok_or_else(|| {
                StoreError::Corrupt("a script answered for a task that it was not asked about".into())
            })?;
            answers[place] = match bytes(&other[1])? {
                [] => Changed::Unknown,
                head => match read(&changes[place].id, head, bytes(&other[2])?) {
                    Ok(task) => Changed::Otherwise(Box::new(task)),
                    Err(_) => Changed::Unreadable,
                },
            };
        }
        for change in changes.iter().filter(|change| matches!(change.to, Place::Lane(_))) {
            self.due.announce(shard, &change.queue, change.score.div_euclid(1_000));
        }
        Ok(answers)
    }

    /// Writes a batch of whole values past the script. None: one of the tasks changed, and nothing was done.
    async fn write_gated(
        &self,
        shard: u16,
        changes: &[Change],
        groups: &[Vec<usize>],
    ) -> Result<Option<redis::Value>> {
        let bytes: usize = changes.iter().map(|change| change.value.len()).sum();
        if bytes < PAST_BYTES_MIN * changes.len() || changes.iter().any(|change| change.rest != WHOLE) {
            return Ok(None);
        }
        let keys = self.keys.tasks(shard);
        let values: Vec<(String, &[u8])> =
            changes.iter().map(|change| (keys.of(&change.id), change.value.as_slice())).collect();
        self.write_past(shard, &self.transition(shard, changes, groups, true), &values).await
    }

    fn transition(&self, shard: u16, changes: &[Change], groups: &[Vec<usize>], gated: bool) -> super::Call {
        let mut call = TRANSITION.on(self.keys.shard(shard));
        let epoch = changes.iter().filter_map(|change| change.epoch).max();
        call.arg(self.time.argument()).arg(self.keys.channel()).arg(&self.origin);
        call.arg(epoch.map_or_else(String::new, |epoch| epoch.to_string())).arg(u8::from(gated));
        for group in groups {
            let tasks = || group.iter().map(|place| &changes[*place]);
            let Some(one) = tasks().next() else { continue };
            call.arg(one.from.name()).arg(one.to.name()).arg(&one.before).arg(&one.after);
            call.arg(tasks().map(|change| change.score).min())
                .arg(tasks().map(|change| change.deadline_ms).min());
            call.arg(&one.nonce.0.to_be_bytes()[..]).arg(one.holder.as_deref().unwrap_or_default());
            call.arg(u8::from(one.guard.is_some())).arg(group.len());
            for change in tasks() {
                call.arg(change.id.as_str()).arg(change.score);
                if let Some(guard) = &change.guard {
                    call.arg(guard);
                }
                if !gated {
                    call.arg(&change.value).arg(&change.rest);
                }
            }
        }
        call
    }

    pub fn task_key(&self, id: &TaskId) -> String {
        self.keys.tasks(self.keys.shard_of(id)).of(id)
    }
}

/// The places of those changes together that go the same way.
fn groups(changes: &[Change]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut known = HashMap::new();
    let mut last = None;
    for (place, change) in changes.iter().enumerate() {
        let (before, after) = (change.before.as_str(), change.after.as_str());
        // One nonce is compared for all of a lease; of what is not leased it does not matter.
        let nonce = if matches!(change.from, Place::Lease(_)) { change.nonce } else { Nonce(0) };
        let holder = change.holder.as_deref();
        let way = (&change.from, &change.to, before, after, change.guard.is_some(), nonce, holder);
        // Mostly the way of the one before.
        let group = match last {
            Some((same, group)) if same == way => group,
            _ => *known.entry(way).or_insert_with(|| {
                groups.push(Vec::new());
                groups.len() - 1
            }),
        };
        last = Some((way, group));
        groups[group].push(place);
    }
    groups
}

/// Reads what scripts say of a task: its head, or its whole value, and who holds it.
pub(super) fn read(id: &TaskId, head: &[u8], lease: &[u8]) -> Result<Task> {
    let task = Task::read(head).and_then(|task| Ok(task.leased(Lease::read(lease)?)));
    task.map_err(|error| StoreError::Corrupt(format!("task {id} cannot be read: {error}")))
}

impl Place {
    /// As scripts are told.
    pub fn name(&self) -> Vec<u8> {
        match self {
            Self::Lane(lane) => format!("l{lane}").into_bytes(),
            Self::Lease(epoch) => format!("r{epoch}").into_bytes(),
            Self::Finished => b"x".to_vec(),
            Self::Nowhere => b"-".to_vec(),
        }
    }
}

fn length(slot: &[u8]) -> [u8; 4] {
    u32::try_from(slot.len()).unwrap_or(u32::MAX).to_be_bytes()
}

fn unreadable(id: &TaskId) -> impl Fn(Unreadable) -> StoreError + '_ {
    move |error| StoreError::Corrupt(format!("task {id} cannot be read: {error}"))
}
