//! The tasks of a claim: read after they were leased, and given back where there is no room for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use redis::{Value, cmd};
use redrive_shared::id::{Name, TaskId};
use redrive_shared::limits::BATCH_MAX_ITEMS;
use redrive_shared::retry::RetryPolicy;
use redrive_shared::task::{Lease, TaskState};

use super::Inner;
use super::claim::Given;
use super::reply::{bytes, items, maybe_integer};
use super::scripts::UNCLAIM;
use super::transition::lane;
use super::value::{self, Task, lines};
use crate::store::format::state_number;
use crate::store::{Hint, Result, StoreError};

/// Bytes of values read at once, about.
const READ_BYTES: usize = 1024 * 1024;

/// A task that a shard gave.
pub(super) struct Ticket {
    pub id: TaskId,
    pub lease: value::Lease,
    /// Its lane; an answer that is given again does not tell it.
    pub lane: Option<Arc<str>>,
}

/// A task with its value.
pub(super) type Fetched = (TaskId, Task, Vec<u8>);

/// What came of the tasks given.
#[derive(Default)]
pub(super) struct Sorted {
    pub leased: Vec<Fetched>,
    pub late: Vec<Fetched>,
    /// Those that found no room.
    pub back: Vec<Ticket>,
}

impl Inner {
    /// Reads the tasks that a shard gave, as many as there is room for.
    pub async fn fetch(&self, shard: u16, given: Given, mut room: usize) -> Result<Sorted> {
        let (mut sorted, mut tasks) = (Sorted::default(), given.tasks.into_iter().peekable());
        while tasks.peek().is_some() {
            let at_once =
                (READ_BYTES / self.value_bytes.load(Ordering::Relaxed).max(1)).clamp(1, BATCH_MAX_ITEMS);
            let part: Vec<Ticket> = tasks.by_ref().take(at_once).collect();
            let mut query = cmd("MGET");
            for ticket in &part {
                query.arg(self.keys.of_shard(shard, &format!("t:{}", ticket.id)));
            }
            let reply = self.link.query(&query).await?;
            let (mut read_bytes, count) = (0, part.len());
            for (ticket, value) in part.into_iter().zip(items(&reply)?) {
                if *value == Value::Nil {
                    continue;
                }
                let value = bytes(value)?.to_vec();
                read_bytes += value.len();
                let task = match Task::read(&value) {
                    // Whatever has become of it since it was leased left an epoch as high in it.
                    Ok(task) if task.record.epoch >= ticket.lease.fence.epoch => continue,
                    Ok(task) => task.leased(Some(ticket.lease.clone())),
                    // It must not hold up its neighbours: it stays leased until the reaper puts it off.
                    Err(error) => {
                        tracing::error!(%error, id = %ticket.id, "a task is passed over; was a newer release here?");
                        continue;
                    }
                };
                // What is given again may be at work already; otherwise it must not start any more, as if it were new.
                if task.record.deadline_ms < given.now_ms && !task.record.started {
                    sorted.late.push((ticket.id, task, value));
                } else if task.slot_bytes > room && !sorted.leased.is_empty() || !sorted.back.is_empty() {
                    sorted.back.push(ticket);
                } else {
                    room = room.saturating_sub(task.slot_bytes);
                    sorted.leased.push((ticket.id, task, value));
                }
            }
            self.value_bytes.store(read_bytes / count.max(1), Ordering::Relaxed);
            if !sorted.back.is_empty() {
                sorted.back.extend(tasks.by_ref());
            }
        }
        Ok(sorted)
    }

    /// Gives leases back that nobody has heard of.
    pub async fn unclaim(&self, shard: u16, tasks: Vec<Ticket>) -> Result<()> {
        let mut lanes: HashMap<(Arc<str>, i64), Vec<TaskId>> = HashMap::new();
        for Ticket { id, lease, lane } in tasks {
            // One that is given again was heard of: it stays leased.
            if let Some(lane) = lane {
                lanes.entry((lane, lease.fence.epoch)).or_default().push(id);
            }
        }
        for ((lane, epoch), tasks) in lanes {
            let queue = lane.split('|').nth(1).unwrap_or_default();
            let counter = |state| format!("{queue}|{}", state_number(state));
            let mut call = UNCLAIM.on(self.keys.shard(shard));
            call.arg(self.time.argument()).arg(self.keys.channel()).arg(&self.origin).arg(epoch);
            call.arg(counter(TaskState::Leased)).arg(counter(TaskState::Scheduled)).arg(&*lane);
            for id in &tasks {
                call.arg(id.as_str());
            }
            let due_ms = maybe_integer(&self.link.write(call).await?)?;
            if let (Ok(queue), Some(due_ms)) = (Name::new(queue), due_ms) {
                // After they are back: whoever asks for them from now on finds them. Others have been told by the script.
                self.due.announce(shard, &queue, due_ms);
                // Nobody listens: nobody waits.
                let _ = self.hints.send(Hint::Due { queue, due_ms });
            }
        }
        Ok(())
    }
}

/// A leased task as its worker gets it.
pub(super) fn lease(
    id: &TaskId,
    task: &Task,
    value: &[u8],
    policy: &RetryPolicy,
    lease_ms: u64,
) -> Result<Lease> {
    let corrupt = |what: &str| StoreError::Corrupt(format!("task {id}: its {what} cannot be read"));
    let (lane, record) = (lane(task)?, &task.record);
    let (payload, history) = task.rest(value).map_err(|_| corrupt("value"))?;
    let payload = std::str::from_utf8(payload).map_err(|_| corrupt("payload"))?;
    let last_failure = lines(history).filter_map(std::result::Result::ok).find_map(|line| line.failure);
    Ok(Lease {
        id: id.clone(),
        epoch: record.epoch,
        nonce: record.nonce,
        lease_until_ms: record.lease_until_ms,
        lease_ms,
        due_at_ms: record.due_ms,
        queue: lane.queue,
        task_type: task.meta.task_type().map_err(|_| corrupt("type"))?,
        type_version: task.meta.type_version,
        payload: serde_json::value::RawValue::from_string(payload.to_owned())
            .map_err(|_| corrupt("payload"))?,
        dependency: lane.dependency,
        group: lane.group,
        priority: lane.priority,
        route: task.meta.route,
        attempt: record.ledger.failed.saturating_add(1),
        run: record.runs,
        max_attempts: policy.attempts_allowed(record.max_attempts),
        timeout_ms: policy.timeout_ms,
        deadline_at_ms: record.deadline_ms,
        ledger: record.ledger,
        last_failure,
        traceparent: task.meta.traceparent.clone(),
        labels: task.meta.labels.clone(),
    })
}
