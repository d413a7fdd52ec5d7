//! The tasks of a claim: read after they were leased, and given back where there is no room for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use redis::{Value, cmd};
use redrive_shared::checkpoint::Progress;
use redrive_shared::id::{Name, TaskId};
use redrive_shared::retry::RetryPolicy;
use redrive_shared::task::{Lease, TaskState};

use super::Inner;
use super::aside::Aside;
use super::checkpoints::{Ahead, progress_of};
use super::given::{Given, Ticket};
use super::history::lines;
use super::keys::counter_name;
use super::reply::{into_bytes, into_items, maybe_integer};
use super::scripts::UNCLAIM;
use super::transition::{Place, lane, read};
use super::value::Task;
use crate::store::checkpoints::may_have_saved;
use crate::store::format::content_from;
use crate::store::views::{self, Contents};
use crate::store::{Hint, Result, StoreError};

/// Bytes of values read at once, about.
const READ_BYTES: usize = 1024 * 1024;
/// Most values read at once, however small those before were: a reply has 64 MiB of payloads at worst, and the histories of
/// the tasks.
const READ_VALUES_MAX: usize = 256;
/// What a value is taken to have before any was read, in bytes: the first reads are small.
pub(super) const VALUE_BYTES: usize = 64 * 1024;

/// How many values to read at once, if they have so many bytes each.
pub(super) fn values_at_once(value_bytes: usize) -> usize {
    (READ_BYTES / value_bytes.max(1)).clamp(1, READ_VALUES_MAX)
}

/// What to take a value to have after a read: at once what it was if that is more, and no less than half as much, so that the
/// next read has at most twice as many values.
pub(super) fn learn_value_bytes(known: usize, read_bytes: usize, count: usize) -> usize {
    let seen = read_bytes / count.max(1);
    if seen >= known { seen } else { known.midpoint(seen) }
}

/// A task with its value.
pub(super) type Fetched = (TaskId, Box<Task>, Vec<u8>);

/// A task for a worker.
pub(super) struct Leased {
    pub id: TaskId,
    pub task: Box<Task>,
    pub value: Vec<u8>,
    /// What its attempts saved before.
    pub checkpoint: Option<Progress>,
    /// Of payload and checkpoint.
    pub bytes: usize,
}

/// What came of the tasks given.
#[derive(Default)]
pub(super) struct Sorted {
    pub leased: Vec<Leased>,
    pub late: Vec<Fetched>,
    /// Those that found no room.
    pub back: Vec<Ticket>,
    /// Those that can be read, but not what they saved.
    pub unread: Vec<Ticket>,
    /// Those of which something cannot be read.
    pub aside: Aside,
}

impl Inner {
    /// Reads the tasks that a shard gave, as many as there is room for.
    pub async fn fetch(&self, shard: u16, given: Given, mut room: usize) -> Result<Sorted> {
        let (mut sorted, mut ahead) = (Sorted::default(), Ahead::default());
        let mut tasks = given.tasks.into_iter().peekable();
        while tasks.peek().is_some() {
            let known = self.value_bytes.load(Ordering::Relaxed);
            let part: Vec<Ticket> = tasks.by_ref().take(values_at_once(known)).collect();
            let part = self.values(shard, part, known, &mut sorted.aside).await?;
            // What is given again may be at work already; otherwise it must not start any more, as if it were new.
            let is_late = |task: &Task| task.record.deadline_ms < given.now_ms && !task.record.started;
            // This run is counted already. What is given again may have saved something by now.
            let may_have_saved = |task: &Task| {
                given.replayed || may_have_saved(task.record.runs.saturating_sub(1), task.entries)
            };
            let asked = part.iter().filter(|(_, task, _)| !is_late(task) && may_have_saved(task));
            ahead.asked.extend(asked.map(|(ticket, ..)| ticket.id.clone()));
            sorted.leased.reserve(part.len());
            for (ticket, task, value) in part {
                if is_late(&task) {
                    sorted.late.push((ticket.id, task, value));
                    continue;
                }
                if !sorted.back.is_empty() {
                    sorted.back.push(ticket);
                    continue;
                }
                let asked = may_have_saved(&task);
                let kept = if asked { self.next_kept(shard, &mut ahead).await? } else { Vec::new() };
                let bytes = task.slot_bytes + kept.len();
                if bytes > room && !sorted.leased.is_empty() {
                    sorted.back.push(ticket);
                    continue;
                }
                let progress = progress_of(&ticket.id, task.ordinal, &kept);
                let place = || ticket.lane.as_deref().map(|lane| Place::Lane(lane.to_owned()));
                if let Some(checkpoint) = sorted.aside.pass_over(&ticket.id, place, progress)? {
                    room = room.saturating_sub(bytes);
                    sorted.leased.push(Leased { id: ticket.id, task, value, checkpoint, bytes });
                } else {
                    sorted.unread.push(ticket);
                }
            }
            if !sorted.back.is_empty() {
                sorted.back.extend(tasks.by_ref());
            }
        }
        Ok(sorted)
    }

    /// Reads the values of tasks that were leased, as far as they are still as they were then. `known`: what a value was taken
    /// to have.
    async fn values(
        &self,
        shard: u16,
        part: Vec<Ticket>,
        known: usize,
        aside: &mut Aside,
    ) -> Result<Vec<(Ticket, Box<Task>, Vec<u8>)>> {
        let (mut query, keys) = (cmd("MGET"), self.keys.tasks(shard));
        for ticket in &part {
            query.arg(keys.of(&ticket.id));
        }
        let reply = self.link.query(&query).await?;
        let (mut read_bytes, count, mut found) = (0, part.len(), Vec::with_capacity(part.len()));
        for (ticket, value) in part.into_iter().zip(into_items(reply)?) {
            if value == Value::Nil {
                continue;
            }
            let value = into_bytes(value)?;
            read_bytes += value.len();
            // It stays leased, until the reaper puts it off.
            let whole = read(&ticket.id, &value, b"").and_then(|task| whole(&ticket.id, task, &value));
            let Some(task) = aside.pass_over(&ticket.id, || None, whole)? else { continue };
            if task.record.epoch >= ticket.lease.fence.epoch {
                // Whatever has become of it since it was leased left an epoch as high in it.
                continue;
            }
            let task = Box::new(task.leased(Some(ticket.lease.clone())));
            found.push((ticket, task, value));
        }
        self.value_bytes.store(learn_value_bytes(known, read_bytes, count), Ordering::Relaxed);
        Ok(found)
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
            let mut call = UNCLAIM.on(self.keys.shard(shard));
            call.arg(self.time.argument()).arg(self.keys.channel()).arg(&self.origin).arg(epoch);
            call.arg(counter_name(queue, TaskState::Leased)).arg(counter_name(queue, TaskState::Scheduled));
            call.arg(&*lane);
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

/// The task, if its value has all that its header promises: lengths that make no sense must not use up a claim's room.
fn whole(id: &TaskId, task: Task, value: &[u8]) -> Result<Task> {
    match task.rest(value) {
        Ok(_) => Ok(task),
        Err(error) => Err(StoreError::Corrupt(format!("task {id} cannot be read: {error}"))),
    }
}

/// A leased task as its worker gets it.
pub(super) fn lease(
    id: &TaskId,
    task: &Task,
    value: &[u8],
    checkpoint: Option<Progress>,
    policy: &RetryPolicy,
    lease_ms: u64,
) -> Result<Lease> {
    let corrupt = |what: &str| StoreError::Corrupt(format!("task {id}: its {what} cannot be read"));
    let (payload, history) = task.rest(value).map_err(|_| corrupt("value"))?;
    let payload = std::str::from_utf8(payload).map_err(|_| corrupt("payload"))?;
    let last_failure = lines(history).filter_map(std::result::Result::ok).find_map(|line| line.failure);
    let primary = task.meta.primary().map_err(|_| corrupt("dependency"))?;
    let contents = Contents {
        route: policy.route_at(primary.as_ref(), task.record.route),
        task_type: task.meta.task_type().map_err(|_| corrupt("type"))?,
        type_version: task.meta.type_version,
        payload: content_from(payload).map_err(|_| corrupt("payload"))?,
        checkpoint,
        traceparent: task.meta.traceparent.clone(),
        tokens: task.meta.tokens,
        labels: task.meta.labels.clone(),
    };
    Ok(views::lease(id.clone(), &task.record, lane(task)?, contents, last_failure, policy, lease_ms))
}

#[cfg(test)]
mod tests {
    use redrive_shared::limits::PAYLOAD_MAX_BYTES;

    use super::*;

    #[test]
    fn a_reply_is_bounded_whatever_was_read_before() {
        let mut known = VALUE_BYTES;
        for _ in 0..20 {
            let at_once = values_at_once(known);
            known = learn_value_bytes(known, 100 * at_once, at_once);
            // Twice as many, and what the division had dropped.
            assert!(values_at_once(known) <= 2 * at_once + 1, "it grows by steps");
        }
        assert_eq!(values_at_once(known), READ_VALUES_MAX, "small values are read in large batches");
        assert!(values_at_once(known) * PAYLOAD_MAX_BYTES <= 64 * 1024 * 1024);
        known = learn_value_bytes(known, READ_VALUES_MAX * PAYLOAD_MAX_BYTES, READ_VALUES_MAX);
        assert_eq!(values_at_once(known) * PAYLOAD_MAX_BYTES, READ_BYTES, "it shrinks at once");
        known = learn_value_bytes(known, 0, 4);
        assert_eq!(values_at_once(known), 8, "nothing that is there, or one small value, does not undo it");
    }

    #[test]
    fn something_is_read_however_large_values_are() {
        assert_eq!(values_at_once(usize::MAX), 1);
        assert_eq!(values_at_once(0), READ_VALUES_MAX);
        assert_eq!(learn_value_bytes(10, 0, 0), 5);
    }
}
