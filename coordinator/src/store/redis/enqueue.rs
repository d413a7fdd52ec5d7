//! `enqueue`: tasks come onto their queues.

use redis::Value;
use redrive_shared::cost::Cost;
use redrive_shared::id::{Name, TaskId};
use redrive_shared::lifecycle::Record;
use redrive_shared::task::{AttemptRecord, TaskState};

use super::Inner;
use super::batcher::Item;
use super::history::write_line;
use super::keys::{counter_name, lane_name};
use super::reply::{at, bytes, integer, items};
use super::scripts::ENQUEUE;
use super::transition::read;
use super::value::{Meta, Task, score, write_ordinal};
use crate::store::format::{HASH_BYTES, content_text, contents_hash};
use crate::store::{Enqueue, Enqueued, Result, StoreError};

/// A new task, ready to be written.
pub(super) struct New {
    id: TaskId,
    hash: [u8; HASH_BYTES],
    queue: Name,
    state: TaskState,
    due_ms: i64,
    deadline_ms: i64,
    epoch: i64,
    expires_ms: Option<i64>,
    /// Until when it may be made.
    made_by_ms: Option<i64>,
    /// Where it waits, if it does.
    lane: Option<String>,
    /// Its value, whose ordinal is to be written.
    value: Vec<u8>,
}

impl Item for New {
    fn id(&self) -> &TaskId {
        &self.id
    }

    fn bytes(&self) -> usize {
        self.value.len()
    }
}

impl Inner {
    /// Puts tasks on their queues.
    pub async fn enqueue(&self, batch: Vec<Enqueue>) -> Result<Vec<Enqueued>> {
        if batch.iter().any(|task| !self.books.get().queues.contains_key(&task.queue)) {
            // Another coordinator may just have made it.
            self.refresh_book().await?;
        }
        let mut answers = vec![Enqueued::UnknownQueue; batch.len()];
        let (mut places, mut tasks) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        let book = self.books.get();
        let now_us = self.time.now_us();
        for (place, task) in batch.into_iter().enumerate() {
            let Some(queue) = book.queues.get(&task.queue) else { continue };
            places.push(place);
            tasks.push(new_task(task, &queue.policy, now_us));
        }
        let outcomes = self.submit(tasks, |shard| &shard.enqueue).await?;
        for (place, outcome) in places.into_iter().zip(outcomes) {
            answers[place] = outcome;
        }
        Ok(answers)
    }

    /// Writes one batch of a shard.
    pub async fn write_new(&self, shard: u16, mut tasks: Vec<New>) -> Result<Vec<Enqueued>> {
        // Above every epoch that is written: the script lets leases begin above it.
        let above = tasks.iter().map(|task| task.epoch).max().unwrap_or(0).max(self.time.now_us());
        let first = self.shard(shard).ordinals.take(above, tasks.len());
        for (task, ordinal) in tasks.iter_mut().zip(first..) {
            write_ordinal(&mut task.value, ordinal);
        }
        let keys = self.keys.tasks(shard);
        let values: Vec<(String, &[u8])> =
            tasks.iter().map(|task| (keys.of(&task.id), task.value.as_slice())).collect();
        let gated = self.enqueuing(shard, first, &tasks, true);
        let reply = match self.write_past(shard, &gated, &values).await? {
            Some(reply) => reply,
            // Some are known, or another coordinator took the ordinals.
            None => self.write(shard, self.enqueuing(shard, first, &tasks, false)).await?,
        };
        let mut answers: Vec<Enqueued> =
            tasks.iter().map(|task| Enqueued::Created { state: task.state, due_ms: task.due_ms }).collect();
        for known in items(&reply)?.get(1..).unwrap_or_default().chunks_exact(3) {
            let place = usize::try_from(integer(&known[0])?).unwrap_or(0).wrapping_sub(1);
            let (Some(answer), Some(task)) = (answers.get_mut(place), tasks.get(place)) else {
                return Err(StoreError::Corrupt(
                    "a script answered for a task that it was not asked about".into(),
                ));
            };
            *answer = match bytes(&known[1])? {
                [] => Enqueued::UnknownPayload,
                head => match read(&task.id, head, bytes(&known[2])?) {
                    Ok(known) => compare(task, &known),
                    Err(_) => Enqueued::Unreadable,
                },
            };
        }
        for task in tasks.iter().filter(|task| task.lane.is_some()) {
            self.due.announce(shard, &task.queue, task.due_ms);
        }
        Ok(answers)
    }

    /// The call for a batch whose ordinals begin with `first`; gated: without values.
    fn enqueuing(&self, shard: u16, first: i64, tasks: &[New], gated: bool) -> super::Call {
        let mut call = ENQUEUE.on(self.keys.shard(shard));
        call.arg(self.time.argument()).arg(self.keys.channel()).arg(&self.origin);
        call.arg(first).arg(u8::from(gated));
        let mut numbered = tasks.iter().zip(first..);
        // What follows each other into the same lane is told together; the order of arrival stays. The few that must be made
        // before some moment are by themselves, mostly.
        let alike = |one: &New, next: &New| {
            (&one.lane, &one.queue, one.state, one.made_by_ms)
                == (&next.lane, &next.queue, next.state, next.made_by_ms)
        };
        for group in tasks.chunk_by(alike) {
            let Some(one) = group.first() else { continue };
            call.arg(one.lane.as_deref().unwrap_or_default());
            call.arg(counter_name(&one.queue, one.state));
            let due_ms = group.iter().map(|task| task.due_ms).min().unwrap_or(0);
            call.arg(due_ms.saturating_mul(1_000)).arg(group.iter().map(|task| task.deadline_ms).min());
            match one.made_by_ms {
                Some(by_ms) => call.arg(by_ms),
                None => call.arg(""),
            };
            call.arg(group.len());
            for (task, ordinal) in numbered.by_ref().take(group.len()) {
                call.arg(task.id.as_str());
                match (&task.lane, task.expires_ms) {
                    (Some(_), _) => call.arg(score(task.due_ms, ordinal)),
                    (None, Some(expires_ms)) => call.arg(expires_ms),
                    (None, None) => call.arg(""),
                };
                if !gated {
                    call.arg(&task.value);
                }
            }
        }
        call
    }
}

fn new_task(task: Enqueue, policy: &redrive_shared::retry::RetryPolicy, now_us: i64) -> New {
    let (record, verdict) = Record::enqueue(&task.start(), task.terms(policy), now_us, &mut rand::rng());
    let lane = task.lane(&record, policy);
    let hash = contents_hash(&task);
    let now_ms = now_us.div_euclid(1_000);
    let line = verdict.map(|verdict| {
        write_line(AttemptRecord {
            run: record.runs,
            agent: None,
            route: policy.route_at(task.spec.dependency.as_ref(), task.spec.route),
            dependency: task.failed_at(policy),
            started_at_ms: now_ms,
            ended_at_ms: now_ms,
            end: verdict.end,
            failure: task.failure.clone(),
            cost_usd: Cost::default(),
            delay_ms: verdict.delay_ms,
            why: Some(verdict.why.to_owned()),
        })
    });
    let meta = Meta::of(&task, &lane, &hash);
    let payload = content_text(&task.payload);
    let payload = payload.as_bytes();
    let waits = record.state == TaskState::Scheduled;
    let (state, due_ms, deadline_ms) = (record.state, record.due_ms, record.deadline_ms);
    let (expires_ms, epoch, made_by_ms) = (record.expires_ms, record.epoch, task.made_by_ms());
    let mut stored = Task::new(record, meta, u32::from(verdict.is_some()), payload.len());
    stored.among_retries = lane.retry && waits;
    stored.stand_in = lane.dependency.clone().filter(|name| Some(name) != task.spec.dependency.as_ref());
    let mut value = stored.head(stored.body_bytes());
    stored.write_meta(&mut value);
    value.extend_from_slice(payload);
    value.extend(line.unwrap_or_default());
    let lane = waits.then(|| lane_name(&lane));
    New {
        id: task.id,
        hash,
        queue: task.queue,
        state,
        due_ms,
        deadline_ms,
        epoch,
        expires_ms,
        made_by_ms,
        lane,
        value,
    }
}

/// What it means that the id is known.
fn compare(task: &New, known: &Task) -> Enqueued {
    let (state, due_ms) = (known.record.state, known.record.due_ms);
    if known.meta.hash == task.hash { Enqueued::Duplicate { state, due_ms } } else { Enqueued::IdReused }
}

/// The time that a script's reply begins with.
pub(super) fn time_of(reply: &Value) -> Option<i64> {
    match reply {
        Value::Array(parts) => at(parts, 0).and_then(integer).ok(),
        _ => None,
    }
}
