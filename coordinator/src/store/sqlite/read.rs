//! What is only looked at: views, lists, queues, agents. Each reads one snapshot, briefly, on a connection of its own.

use redrive_shared::blob::Content;
use redrive_shared::charges::charges;
use redrive_shared::id::{Name, TaskId};
use redrive_shared::limits::{BODY_MAX_BYTES, PAGE_SCAN_MAX_ROWS};
use redrive_shared::task::{AttemptRecord, StateCounts, TaskState, TaskView};
use redrive_shared::wire::{AgentView, QueueView};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::queues::policy;
use super::rows::{
    HOT_COLUMNS, content, corrupt, cost, hot, json, name, parse, priority_from, required, state_from,
    state_number,
};
use crate::store::commands::Commands;
use crate::store::policies::StoredPolicy;
use crate::store::{Filter, Listed, views};

/// How much of a task to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    Whole,
    /// Without payload and history.
    Line,
}

pub(super) fn view(connection: &Connection, id: &str, detail: Detail) -> rusqlite::Result<Option<TaskView>> {
    let mut statement = connection.prepare_cached(include_str!("sql/view_task.sql"))?;
    let found = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, task_view(row)?, policy(row, BODY + 4)?.policy));
    let Some((seq, mut task, policy)) = statement.query_row([id], found).optional()? else {
        return Ok(None);
    };
    match detail {
        Detail::Whole => {
            task.history = history(connection, seq, task.primary.as_ref().or(task.dependency.as_ref()))?;
            task.charges = charges(&task.ledger, &task.history, &policy, task.max_attempts);
        }
        Detail::Line => (task.payload, task.payload_ref) = (None, None),
    }
    Ok(Some(task))
}

/// Where a body's columns begin.
const BODY: usize = HOT_COLUMNS;

fn task_view(row: &Row<'_>) -> rusqlite::Result<TaskView> {
    let task = hot(row)?;
    let policy = policy(row, BODY + 4)?.policy;
    let leased = task.record.state == TaskState::Leased;
    let dependency = name(row, BODY + 6)?;
    let split = |column| content(row, column).map(|content| content.map_or((None, None), Content::split));
    let ((payload, payload_ref), (result, result_ref)) = (split(BODY + 1)?, split(BODY + 8)?);
    Ok(TaskView {
        id: TaskId::new(task.id).map_err(|error| corrupt(24, error))?,
        state: task.record.state,
        queue: required(row, BODY + 3)?,
        task_type: required(row, BODY)?,
        route: policy.route_at(task.primary.as_ref().or(dependency.as_ref()), task.record.route),
        dependency,
        primary: task.primary,
        group: name(row, BODY + 7)?,
        priority: priority_from(row.get(BODY + 5)?)?,
        enqueued_at_ms: task.enqueued_ms,
        due_at_ms: task.record.due_ms,
        deadline_at_ms: task.record.deadline_ms,
        epoch: task.record.epoch,
        agent: if leased { name(row, 22)? } else { None },
        lease_until_ms: leased.then_some(task.record.lease_until_ms),
        runs: task.record.runs,
        max_attempts: policy.attempts_allowed(task.record.max_attempts),
        ledger: task.record.ledger,
        retry: task.record.strategy.map(|strategy| *strategy),
        charges: Vec::new(),
        max_cost_usd: task.record.max_cost,
        tokens: row.get(BODY + 11)?,
        why: row.get(BODY + 10)?,
        result,
        result_ref,
        last_failure: json(row, BODY + 9)?,
        history: Vec::new(),
        payload,
        payload_ref,
        labels: json(row, BODY + 2)?.unwrap_or_default(),
        expires_at_ms: task.record.expires_ms,
    })
}

fn history(
    connection: &Connection,
    seq: i64,
    primary: Option<&Name>,
) -> rusqlite::Result<Vec<AttemptRecord>> {
    let mut statement = connection.prepare_cached(include_str!("sql/history.sql"))?;
    let rows = statement.query_map([seq], |row| {
        Ok(AttemptRecord {
            run: row.get(0)?,
            agent: name(row, 1)?,
            route: row.get(2)?,
            dependency: name(row, 9)?.or_else(|| primary.cloned()),
            started_at_ms: row.get(3)?,
            ended_at_ms: row.get(4)?,
            end: parse(&format!("\"{}\"", row.get_ref(5)?.as_str()?), 5)?,
            failure: json(row, 6)?,
            cost_usd: cost(row.get(10)?),
            delay_ms: row.get::<_, Option<i64>>(7)?.map(i64::cast_unsigned),
            why: row.get(8)?,
        })
    })?;
    rows.collect()
}

/// Those of the ids that are known, with their results as far as one reply has room for them.
pub(super) fn status(connection: &Connection, ids: &[TaskId]) -> rusqlite::Result<Vec<TaskView>> {
    let mut room = BODY_MAX_BYTES;
    let mut tasks = Vec::new();
    for id in ids {
        let Some(mut task) = view(connection, id, Detail::Line)? else { continue };
        let bytes = task.result.as_ref().map_or(0, |result| result.get().len());
        match room.checked_sub(bytes) {
            Some(left) => room = left,
            None => task.result = None,
        }
        tasks.push(task);
    }
    Ok(tasks)
}

/// A page, newest first. It looks at a bounded number of rows; a page that found little says where to go on.
pub(super) fn list(connection: &Connection, filter: &Filter) -> rusqlite::Result<Listed> {
    const STRETCH: usize = 1_000;
    let queue: Option<i64> = match &filter.queue {
        None => None,
        Some(queue) => {
            let mut statement = connection.prepare_cached("SELECT queue FROM queues WHERE name = ?1")?;
            match statement.query_row([queue.as_str()], |row| row.get(0)).optional()? {
                None => return Ok(Listed::default()),
                found => found,
            }
        }
    };
    let state = filter.state.map(state_number);
    let mut statement = connection.prepare_cached(include_str!("sql/list_tasks.sql"))?;
    let (mut listed, mut below, mut looked) = (Listed::default(), filter.cursor.unwrap_or(i64::MAX), 0);
    loop {
        let limit = STRETCH.min(PAGE_SCAN_MAX_ROWS - looked);
        let mut rows = statement.query(params![below, i64::try_from(limit).unwrap_or(0), state, queue])?;
        let mut seen = 0;
        while let Some(row) = rows.next()? {
            seen += 1;
            below = row.get(1)?;
            if row.get(2)? {
                let task = view(connection, row.get_ref(0)?.as_str()?, Detail::Line)?;
                listed.tasks.extend(task.map(|task| TaskView { result: None, result_ref: None, ..task }));
                if listed.tasks.len() >= filter.limit {
                    listed.next_cursor = Some(below);
                    return Ok(listed);
                }
            }
        }
        looked += seen;
        if seen < limit {
            return Ok(listed);
        }
        if looked >= PAGE_SCAN_MAX_ROWS {
            listed.next_cursor = Some(below);
            return Ok(listed);
        }
    }
}

/// Every queue, by name.
pub(super) fn queues(connection: &Connection) -> rusqlite::Result<Vec<QueueView>> {
    let mut statement =
        connection.prepare_cached("SELECT queue, name, paused, policy FROM queues ORDER BY name")?;
    let mut version = connection.prepare_cached(super::policies::LAST_VERSION)?;
    let mut counts = connection.prepare_cached("SELECT state, tasks FROM counts WHERE queue = ?1")?;
    let mut next = connection.prepare_cached(
        "SELECT MIN((SELECT t.due_ms FROM tasks t WHERE t.lane = l.lane AND t.state = 0 ORDER BY t.due_ms LIMIT 1))
         FROM lanes l WHERE l.queue = ?1",
    )?;
    let rows = statement.query_map([], |row| {
        let number: i64 = row.get(0)?;
        let mut states = StateCounts::default();
        let mut found = counts.query([number])?;
        while let Some(count) = found.next()? {
            *states.of(state_from(count.get(0)?)?) = count.get(1)?;
        }
        let StoredPolicy { policy, unread } = policy(row, 3)?;
        Ok(QueueView {
            name: required(row, 1)?,
            paused: row.get(2)?,
            counts: states,
            next_due_at_ms: next.query_row([number], |row| row.get(0))?,
            policy,
            amplification: None,
            version: version.query_row([number], |row| row.get::<_, i64>(0))?.unsigned_abs(),
            unread,
        })
    })?;
    rows.collect()
}

/// How many tasks of a queue are leased.
pub(super) fn leased(connection: &Connection, queue: &Name) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare_cached(
        "SELECT tasks FROM counts WHERE queue = (SELECT queue FROM queues WHERE name = ?1) AND state = ?2",
    )?;
    let tasks = statement
        .query_row(params![queue.as_str(), state_number(TaskState::Leased)], |row| row.get::<_, i64>(0))
        .optional()?;
    Ok(tasks.unwrap_or(0).max(0).unsigned_abs())
}

/// Every agent known, by name.
pub(super) fn agents(connection: &Connection) -> rusqlite::Result<Vec<AgentView>> {
    let mut statement = connection.prepare_cached(include_str!("sql/agents.sql"))?;
    let rows = statement.query_map([], |row| {
        let Some(beat) = views::beat(row.get_ref(2)?.as_str()?) else { return Ok(None) };
        let commands = Commands::read(row.get_ref(3)?.as_str()?).map_err(|error| corrupt(3, error))?;
        Ok(Some(views::agent(beat, row.get(1)?, row.get(0)?, commands)))
    })?;
    rows.filter_map(Result::transpose).collect()
}
