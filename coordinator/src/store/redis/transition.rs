//! Writing what the lifecycle decided: one script for settlements, losses, missed deadlines, cancellations, retries and
//! forgetting. A change says what the task must still be; where it is not, nothing of it is done.

use std::collections::HashMap;

use redis::cmd;
use redrive_shared::id::{Name, TaskId};
use redrive_shared::lifecycle::{Record, Verdict};
use redrive_shared::limits::HISTORY_MAX_ENTRIES;
use redrive_shared::task::{AttemptRecord, FailureRecord, TaskState};

use super::Inner;
use super::batcher::Item;
use super::keys::{RunId, lane_name};
use super::reply::{bytes, integer, items};
use super::scripts::TRANSITION;
use super::value::{Task, newest, write_line};
use crate::store::format::state_number;
use crate::store::{Result, StoreError};

/// Lines beyond the bound that may gather before the oldest are dropped: dropping them costs a read.
const HISTORY_SLACK: usize = 14;
/// How often a change is decided anew when somebody else was faster.
pub(super) const TRIES: usize = 8;

/// A change of one task.
pub(super) struct Change {
    id: TaskId,
    /// What the task's value must begin with.
    guard: Vec<u8>,
    /// Header and record after it; none: the task is deleted.
    head: Vec<u8>,
    body: Vec<u8>,
    line: Vec<u8>,
    from: Place,
    to: Place,
    score: i64,
    deadline_ms: i64,
    before: String,
    after: String,
    /// Where it becomes due, for those who wait.
    queue: Name,
}

/// What became of a change.
#[derive(Debug)]
pub(super) enum Changed {
    Applied,
    /// The task is not what it was; this is its head.
    Otherwise(Vec<u8>),
    Unknown,
}

/// The sorted set that a task is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Lane(String),
    Run(RunId),
    Finished,
    Nowhere,
}

impl Item for Change {
    fn id(&self) -> &TaskId {
        &self.id
    }

    fn bytes(&self) -> usize {
        self.head.len() + self.body.len() + self.line.len()
    }
}

/// A transition that was decided, and how its line of history reads.
pub(super) struct Decided<'a> {
    /// What the task's value must begin with.
    pub guard: Vec<u8>,
    pub before: Record,
    pub verdict: Verdict,
    pub failure: Option<&'a FailureRecord>,
    pub agent: Option<Name>,
    pub note: Option<&'a str>,
    /// The result of a task that is done.
    pub result: Option<&'a [u8]>,
    pub now_ms: i64,
}

fn place(task: &Task, record: &Record) -> Result<Place> {
    Ok(match record.state {
        TaskState::Scheduled => Place::Lane(lane_name(&lane(task)?)),
        TaskState::Leased => Place::Run(task.run),
        TaskState::Succeeded | TaskState::Dead | TaskState::Cancelled => Place::Finished,
        TaskState::Escalated => Place::Nowhere,
    })
}

pub(super) fn lane(task: &Task) -> Result<redrive_shared::task::Lane> {
    task.meta.lane().map_err(|error| StoreError::Corrupt(format!("a task's lane: {error}")))
}

fn counter(task: &Task, state: TaskState) -> String {
    format!("{}|{}", task.meta.queue(), state_number(state))
}

impl Inner {
    /// The change that a decision makes. `task` has the record after it.
    pub async fn change(&self, id: &TaskId, mut task: Task, decided: Decided<'_>) -> Result<Change> {
        let Decided { guard, before, verdict, failure, agent, note, result, now_ms } = decided;
        let line = write_line(&AttemptRecord {
            run: before.runs,
            agent,
            route: task.meta.route,
            started_at_ms: if before.state == TaskState::Leased { before.leased_at_ms } else { now_ms },
            ended_at_ms: now_ms,
            end: verdict.end,
            failure: failure.cloned(),
            delay_ms: verdict.delay_ms,
            why: Some(note.unwrap_or(verdict.why).to_owned()),
        });
        task.entries += 1;
        let (mut body, mut written) = (vec![b'='], line);
        if task.record.state == TaskState::Succeeded && before.state != TaskState::Succeeded {
            let result = result.unwrap_or_default();
            task.slot_bytes = result.len();
            body = [b"!", result].concat();
        }
        if usize::try_from(task.entries).unwrap_or(usize::MAX) > HISTORY_MAX_ENTRIES + HISTORY_SLACK {
            if let Some(whole) = self.trimmed(id, &task, result, &written).await? {
                task.entries = u32::try_from(HISTORY_MAX_ENTRIES).unwrap_or(u32::MAX);
                (body, written) = (whole, Vec::new());
            }
        }
        let score = match task.record.state {
            TaskState::Scheduled => task.score(),
            _ => task.record.expires_ms.unwrap_or(0),
        };
        Ok(Change {
            id: id.clone(),
            guard,
            head: task.head(),
            body,
            line: written,
            from: place(&task, &before)?,
            to: place(&task, &task.record)?,
            score,
            deadline_ms: task.record.deadline_ms,
            before: counter(&task, before.state),
            after: counter(&task, task.record.state),
            queue: lane(&task)?.queue,
        })
    }

    /// Everything after the record, with the oldest lines of history dropped. None: it changed meanwhile, and the guard
    /// will say so.
    async fn trimmed(
        &self,
        id: &TaskId,
        after: &Task,
        result: Option<&[u8]>,
        line: &[u8],
    ) -> Result<Option<Vec<u8>>> {
        let value = self.link.query(cmd("GET").arg(self.task_key(id))).await?;
        if value == redis::Value::Nil {
            return Ok(None);
        }
        let value = bytes(&value)?;
        let Ok(task) = Task::read(value) else { return Ok(None) };
        let Ok((slot, history)) = task.rest(value) else { return Ok(None) };
        let slot = if after.record.state == TaskState::Succeeded { result.unwrap_or_default() } else { slot };
        let Ok(meta) = task.raw_meta(value) else { return Ok(None) };
        let mut body = vec![b'*'];
        body.extend_from_slice(meta);
        body.extend_from_slice(slot);
        body.extend_from_slice(line);
        body.extend_from_slice(newest(history, HISTORY_MAX_ENTRIES - 1));
        Ok(Some(body))
    }

    /// A change that forgets a task.
    pub fn forgetting(&self, id: &TaskId, task: &Task) -> Result<Change> {
        Ok(Change {
            id: id.clone(),
            guard: task.whole_header(),
            head: Vec::new(),
            body: Vec::new(),
            line: Vec::new(),
            from: place(task, &task.record)?,
            to: Place::Nowhere,
            score: 0,
            deadline_ms: 0,
            before: counter(task, task.record.state),
            after: String::new(),
            queue: lane(task)?.queue,
        })
    }

    /// Makes changes, each in its shard. Answers in order.
    pub async fn apply(&self, changes: Vec<Change>) -> Result<Vec<Changed>> {
        let count = changes.len();
        let mut shards: HashMap<u16, (Vec<usize>, Vec<Change>)> = HashMap::new();
        for (place, change) in changes.into_iter().enumerate() {
            let (places, list) = shards.entry(self.keys.shard_of(&change.id)).or_default();
            places.push(place);
            list.push(change);
        }
        let calls = shards.into_iter().map(|(shard, (places, changes))| async move {
            Ok::<_, StoreError>((places, self.shard(shard).transition.submit(changes).await?))
        });
        let mut answers: Vec<Option<Changed>> = (0..count).map(|_| None).collect();
        for (places, outcomes) in futures_util::future::try_join_all(calls).await? {
            for (place, outcome) in places.into_iter().zip(outcomes) {
                answers[place] = Some(outcome);
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// Writes one batch of a shard.
    pub async fn write_changes(&self, shard: u16, changes: Vec<Change>) -> Result<Vec<Changed>> {
        let mut table = Places::default();
        let places: Vec<(String, String)> =
            changes.iter().map(|change| (table.name(&change.from), table.name(&change.to))).collect();
        let mut call = TRANSITION.on(self.keys.shard(shard));
        call.arg(self.time.argument()).arg(self.keys.channel()).arg(&self.origin);
        call.arg(table.lanes.len()).arg(&table.lanes).arg(table.runs.len());
        for run in &table.runs {
            call.arg(&run.0[..]);
        }
        for (change, (from, to)) in changes.iter().zip(places) {
            call.arg(change.id.as_str())
                .arg(&change.guard)
                .arg(&change.head)
                .arg(&change.body)
                .arg(&change.line);
            call.arg(from).arg(to).arg(change.score).arg(change.deadline_ms);
            call.arg(&change.before).arg(&change.after);
        }
        let reply = self.write(call).await?;
        let mut answers: Vec<Changed> = changes.iter().map(|_| Changed::Applied).collect();
        for other in items(&reply)?.get(1..).unwrap_or_default().chunks_exact(2) {
            let place = usize::try_from(integer(&other[0])?).unwrap_or(0).wrapping_sub(1);
            let answer = answers.get_mut(place).ok_or_else(|| {
                StoreError::Corrupt("a script answered for a task that it was not asked about".into())
            })?;
            let head = bytes(&other[1])?;
            *answer = if head.is_empty() { Changed::Unknown } else { Changed::Otherwise(head.to_vec()) };
        }
        for change in changes.iter().filter(|change| matches!(change.to, Place::Lane(_))) {
            self.due.announce(shard, &change.queue, change.score.div_euclid(1_000));
        }
        Ok(answers)
    }

    pub fn task_key(&self, id: &TaskId) -> String {
        self.keys.of_shard(self.keys.shard_of(id), &format!("t:{id}"))
    }
}

/// Lanes and runs of a batch: each is named once, and referred to by its place.
#[derive(Default)]
struct Places {
    lanes: Vec<String>,
    lane_places: HashMap<String, usize>,
    runs: Vec<RunId>,
    run_places: HashMap<RunId, usize>,
}

impl Places {
    fn name(&mut self, place: &Place) -> String {
        match place {
            Place::Lane(lane) => {
                let place = match self.lane_places.get(lane) {
                    Some(place) => *place,
                    None => {
                        self.lanes.push(lane.clone());
                        self.lane_places.insert(lane.clone(), self.lanes.len());
                        self.lanes.len()
                    }
                };
                format!("l{place}")
            }
            Place::Run(run) => {
                let (runs, next) = (&mut self.runs, self.run_places.len() + 1);
                let place = self.run_places.entry(*run).or_insert_with(|| {
                    runs.push(*run);
                    next
                });
                format!("r{place}")
            }
            Place::Finished => "x".into(),
            Place::Nowhere => "-".into(),
        }
    }
}
