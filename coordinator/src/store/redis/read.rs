//! What is only looked at: tasks, lists, queues.

use std::collections::HashMap;

use redis::{Value, cmd};
use redrive_shared::charges::charges;
use redrive_shared::id::{Name, TaskId};
use redrive_shared::limits::{BODY_MAX_BYTES, HISTORY_MAX_ENTRIES, PAGE_SCAN_MAX_ROWS};
use redrive_shared::task::{AttemptRecord, StateCounts, TaskState, TaskView};
use redrive_shared::wire::QueueView;

use super::Inner;
use super::aside::Aside;
use super::history::lines;
use super::reply::{at, bytes, integer, items, maybe_integer, pairs, task_id, text};
use super::scripts::{NEXT_DUE, VIEWS, WHOLE};
use super::transition::{lane, read};
use super::value::Task;
use crate::store::format::{content_from, state_from, state_number};
use crate::store::{Filter, Listed, Result, StoreError};

/// Entries of the log read at once from each shard; each names up to 100 tasks.
const ENTRIES: usize = 16;
/// A page's cursor is an ordinal and below it the shard: more shards than that there cannot be.
const SHARDS_IN_CURSOR: i64 = 4_096;

/// A part of the log.
#[derive(Default)]
struct Stretch {
    /// The tasks that it names, newest first, with their cursors.
    tasks: Vec<(i64, TaskId)>,
    /// Places that it has, those included that name nobody: tasks that were there before.
    looked: usize,
    /// Where to go on, if there is more: what was read may name nobody at all.
    next: Option<i64>,
}

fn corrupt(id: &TaskId, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("task {id} cannot be read: {error}"))
}

impl Inner {
    /// Everything about one task.
    pub async fn get(&self, id: &TaskId) -> Result<Option<TaskView>> {
        let mut call = WHOLE.on(self.keys.shard(self.keys.shard_of(id)));
        call.arg(self.time.argument()).arg(id.as_str());
        let reply = self.link.run(call).await?;
        let [value, lease] = items(&reply)? else { return Ok(None) };
        let value = bytes(value)?;
        let task = read(id, value, bytes(lease)?)?;
        let (slot, history) = task.rest(value).map_err(|error| corrupt(id, &error))?;
        let slot = std::str::from_utf8(slot).map_err(|error| corrupt(id, &error))?;
        let content = |text: &str| content_from(text).map_err(|error| corrupt(id, &error));
        let mut view = self.view(id, &task, history)?;
        match task.record.state {
            TaskState::Succeeded if slot.is_empty() => {}
            TaskState::Succeeded => (view.result, view.result_ref) = content(slot)?.split(),
            _ => (view.payload, view.payload_ref) = content(slot)?.split(),
        }
        let history: Vec<AttemptRecord> = lines(history)
            .take(HISTORY_MAX_ENTRIES)
            .collect::<std::result::Result<_, _>>()
            .map_err(|error| corrupt(id, &error))?;
        let own = view.primary.as_ref().or(view.dependency.as_ref());
        let at = |line: AttemptRecord| AttemptRecord { dependency: line.dependency.or(own.cloned()), ..line };
        view.history = history.into_iter().rev().map(at).collect();
        let policy = self.books.get().policy(&view.queue);
        view.charges = charges(&view.ledger, &view.history, &policy, view.max_attempts);
        Ok(Some(view))
    }

    /// A task as its head and the newest lines of its history say.
    fn view(&self, id: &TaskId, task: &Task, history: &[u8]) -> Result<TaskView> {
        let (lane, record) = (lane(task)?, &task.record);
        let policy = self.books.get().policy(&lane.queue);
        let primary = task.meta.primary().map_err(|error| corrupt(id, &error))?;
        let mut newest = lines(history).filter_map(std::result::Result::ok).peekable();
        let why = newest.peek().and_then(|line| line.why.clone());
        Ok(TaskView {
            id: id.clone(),
            state: record.state,
            queue: lane.queue,
            task_type: task.meta.task_type().map_err(|error| corrupt(id, &error))?,
            dependency: lane.dependency,
            route: policy.route_at(primary.as_ref(), record.route),
            primary: task.stand_in.as_ref().and(primary),
            group: lane.group,
            priority: lane.priority,
            enqueued_at_ms: task.ordinal.div_euclid(1_000),
            due_at_ms: record.due_ms,
            deadline_at_ms: record.deadline_ms,
            epoch: record.epoch,
            agent: task.lease.as_ref().and_then(|lease| lease.agent.clone()),
            lease_until_ms: (record.state == TaskState::Leased).then_some(record.lease_until_ms),
            runs: record.runs,
            max_attempts: policy.attempts_allowed(record.max_attempts),
            ledger: record.ledger,
            retry: record.strategy.as_deref().cloned(),
            charges: Vec::new(),
            max_cost_usd: record.max_cost,
            tokens: task.meta.tokens,
            why,
            result: None,
            result_ref: None,
            last_failure: newest.find_map(|line| line.failure),
            history: Vec::new(),
            payload: None,
            payload_ref: None,
            labels: task.meta.labels.clone(),
            expires_at_ms: record.expires_ms,
        })
    }

    /// Tasks without payload and history, as far as they are known (and in that state), with results as far as these have
    /// room: their places among the ids, in order, and their ordinals.
    async fn views(
        &self,
        ids: &[TaskId],
        state: Option<TaskState>,
        mut room: usize,
    ) -> Result<Vec<(usize, i64, TaskView)>> {
        let mut shards: HashMap<u16, Vec<(usize, &TaskId)>> = HashMap::new();
        for (place, id) in ids.iter().enumerate() {
            shards.entry(self.keys.shard_of(id)).or_default().push((place, id));
        }
        let calls = shards.into_iter().map(|(shard, ids)| async move {
            let mut call = VIEWS.on(self.keys.shard(shard));
            call.arg(self.time.argument());
            call.arg(state.map_or_else(String::new, |state| state_number(state).to_string())).arg(room);
            for (_, id) in &ids {
                call.arg(id.as_str());
            }
            Ok::<_, StoreError>((ids, self.link.run(call).await?))
        });
        let (mut found, mut aside) = (Vec::with_capacity(ids.len()), Aside::default());
        for (ids, reply) in futures_util::future::try_join_all(calls).await? {
            for ((place, id), parts) in ids.into_iter().zip(items(&reply)?.chunks_exact(4)) {
                if !bytes(&parts[0])?.is_empty()
                    && let Some((ordinal, view)) = aside.pass_over(id, || None, self.line(id, parts))?
                {
                    found.push((place, ordinal, view));
                }
            }
        }
        aside.tell();
        found.sort_by_key(|(place, ..)| *place);
        // Each shard had the whole room.
        for (_, _, view) in &mut found {
            let size = view.result.as_ref().map_or(0, |result| result.get().len());
            match room.checked_sub(size) {
                Some(left) => room = left,
                None => view.result = None,
            }
        }
        Ok(found)
    }

    /// A task as a list shows it, from what the script answered, and its ordinal.
    fn line(&self, id: &TaskId, parts: &[Value]) -> Result<(i64, TaskView)> {
        let task = read(id, bytes(at(parts, 0)?)?, bytes(at(parts, 1)?)?)?;
        let mut view = self.view(id, &task, bytes(at(parts, 3)?)?)?;
        let result = text(at(parts, 2)?)?;
        if !result.is_empty() {
            let content = content_from(result).map_err(|error| corrupt(id, &error))?;
            (view.result, view.result_ref) = content.split();
        }
        Ok((task.ordinal, view))
    }

    /// Those of the tasks that are known.
    pub async fn status(&self, ids: &[TaskId]) -> Result<Vec<TaskView>> {
        Ok(self.views(ids, None, BODY_MAX_BYTES).await?.into_iter().map(|(_, _, view)| view).collect())
    }

    /// A page, newest first. It looks at a bounded number of tasks; a page that found little says where to go on.
    pub async fn list(&self, filter: &Filter) -> Result<Listed> {
        if filter.queue.as_ref().is_some_and(|queue| !self.books.get().queues.contains_key(queue)) {
            return Ok(Listed::default());
        }
        let (mut listed, mut below, mut looked) = (Listed::default(), filter.cursor.unwrap_or(i64::MAX), 0);
        loop {
            let stretch = self.stretch(below).await?;
            looked += stretch.looked;
            let ids: Vec<TaskId> = stretch.tasks.iter().map(|(_, id)| id.clone()).collect();
            for (place, ordinal, view) in self.views(&ids, filter.state, 0).await? {
                let cursor = stretch.tasks[place].0;
                // An id that was forgotten and came again has two places in the log: it is listed at its own.
                let elsewhere = ordinal != cursor.div_euclid(SHARDS_IN_CURSOR);
                if elsewhere || filter.queue.as_ref().is_some_and(|queue| *queue != view.queue) {
                    continue;
                }
                listed.tasks.push(view);
                if listed.tasks.len() >= filter.limit {
                    listed.next_cursor = Some(cursor);
                    return Ok(listed);
                }
            }
            let Some(next) = stretch.next else { return Ok(listed) };
            if looked >= PAGE_SCAN_MAX_ROWS {
                listed.next_cursor = Some(next);
                return Ok(listed);
            }
            below = next;
        }
    }

    /// The next stretch of the log below a cursor.
    async fn stretch(&self, below: i64) -> Result<Stretch> {
        let reads = (0..self.keys.shards()).map(|shard| self.log_of(shard, below));
        let shards = futures_util::future::try_join_all(reads).await?;
        // Below what was read of a shard that has more, what another shard has may not be next.
        let next = shards.iter().filter_map(|shard| shard.next).max();
        let looked = shards.iter().map(|shard| shard.looked).sum();
        let mut tasks: Vec<(i64, TaskId)> = shards.into_iter().flat_map(|shard| shard.tasks).collect();
        tasks.retain(|(place, _)| next.is_none_or(|next| *place >= next));
        tasks.sort_by_key(|(place, _)| std::cmp::Reverse(*place));
        Ok(Stretch { tasks, looked, next })
    }

    /// The next stretch of a shard's log below a cursor.
    async fn log_of(&self, shard: u16, below: i64) -> Result<Stretch> {
        let last = (below - 1 - i64::from(shard)).div_euclid(SHARDS_IN_CURSOR).max(0);
        let mut query = cmd("XREVRANGE");
        query.arg(self.keys.of_shard(shard, "log")).arg(last).arg("-").arg("COUNT").arg(ENTRIES);
        let reply = self.link.query(&query).await?;
        let entries = items(&reply)?;
        let mut stretch = Stretch::default();
        let place = |ordinal: i64| ordinal * SHARDS_IN_CURSOR + i64::from(shard);
        for entry in entries {
            let parts = items(entry)?;
            let first = text(at(parts, 0)?)?.split('-').next().and_then(|first| first.parse::<i64>().ok());
            let first = first.unwrap_or(0);
            stretch.next = (entries.len() == ENTRIES).then(|| place(first));
            let fields = pairs(at(parts, 1)?)?;
            let Some((_, ids)) = fields.first() else { continue };
            let ids: Vec<&str> = text(ids)?.split(' ').collect();
            stretch.looked += ids.len();
            let numbered = (first..).zip(ids).take_while(|(ordinal, _)| *ordinal <= last);
            let there = numbered.filter(|(_, id)| !id.is_empty());
            for (ordinal, id) in there.collect::<Vec<_>>().into_iter().rev() {
                stretch.tasks.push((place(ordinal), task_id(id)?));
            }
        }
        Ok(stretch)
    }

    /// Every queue, by name.
    pub async fn queue_views(&self) -> Result<Vec<QueueView>> {
        self.refresh_book().await?;
        let book = self.books.get();
        let mut names: Vec<_> = book.queues.keys().cloned().collect();
        names.sort();
        let mut counts: HashMap<String, StateCounts> = HashMap::new();
        let mut due: HashMap<&str, i64> = HashMap::new();
        for shard in 0..self.keys.shards() {
            let all = self.link.query(cmd("HGETALL").arg(self.keys.of_shard(shard, "n"))).await?;
            for (field, tasks) in pairs(&all)? {
                let Some((queue, state)) = text(field)?.split_once('|') else { continue };
                let Some(state) = state.parse().ok().and_then(state_from) else { continue };
                *counts.entry(queue.to_owned()).or_default().of(state) += integer(tasks)?;
            }
            let mut call = NEXT_DUE.on(self.keys.shard(shard));
            call.arg(self.time.argument());
            for name in &names {
                call.arg(name.as_str());
            }
            let reply = self.link.run(call).await?;
            for (name, next) in names.iter().zip(items(&reply)?) {
                if let Some(next) = maybe_integer(next)? {
                    due.entry(name).and_modify(|known| *known = next.min(*known)).or_insert(next);
                }
            }
        }
        Ok(names
            .iter()
            .filter_map(|name| {
                let queue = book.queues.get(name)?;
                Some(QueueView {
                    name: name.clone(),
                    paused: queue.paused,
                    counts: counts.get(name.as_str()).copied().unwrap_or_default(),
                    next_due_at_ms: due.get(name.as_str()).copied(),
                    policy: (*queue.policy).clone(),
                    amplification: None,
                    version: queue.version,
                    unread: queue.unread.clone(),
                })
            })
            .collect())
    }

    /// How many tasks of a queue are leased: the sum of the shards' counters.
    pub async fn leased(&self, queue: &Name) -> Result<u64> {
        let field = format!("{queue}|{}", state_number(TaskState::Leased));
        let reads = (0..self.keys.shards()).map(|shard| {
            let query = cmd("HGET").arg(self.keys.of_shard(shard, "n")).arg(&field).to_owned();
            async move { maybe_integer(&self.link.query(&query).await?) }
        });
        let counts = futures_util::future::try_join_all(reads).await?;
        // A counter that drifted below zero is none.
        Ok(counts.into_iter().flatten().sum::<i64>().max(0).unsigned_abs())
    }
}
