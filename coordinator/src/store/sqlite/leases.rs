//! `extend`, `settle`, `reap`, and letting leases run out.

use redrive_shared::id::{Name, TaskId};
use redrive_shared::lifecycle::{Refused, Terms};
use redrive_shared::limits::{AGENT_DEAD_AFTER_MS, RESTART_GRACE_MS};
use redrive_shared::task::{Lane, TaskState};
use rusqlite::{OptionalExtension, params};

use super::rows::{Hot, corrupt, hot};
use super::tx::{Before, Line, Tx};
use crate::store::format::content_text;
use crate::store::{Arrival, Ending, Extend, Extended, Reap, Reaped, Run, Settle, Settled};

pub(super) fn extend(tx: &mut Tx<'_>, batch: &[Extend]) -> rusqlite::Result<Vec<Extended>> {
    batch.iter().map(|item| extend_one(tx, item)).collect()
}

fn extend_one(tx: &Tx<'_>, item: &Extend) -> rusqlite::Result<Extended> {
    let Some(mut task) = tx.load(&item.id)? else { return Ok(Extended::Unknown) };
    let lease_ms = match item.lease_ms {
        Some(lease_ms) => lease_ms,
        None => tx.policy(task.lane)?.lease_ms,
    };
    if item.run.as_ref().is_some_and(|run| is_others(&task, run)) {
        return Ok(Extended::Stale(task.record.state));
    }
    match task.record.extend(item.fence, lease_ms, tx.now_ms()) {
        Ok(()) => {
            let until_ms = task.record.lease_until_ms;
            let (agent, boot_id) = item.run.as_ref().map(|run| (&*run.agent, &*run.boot_id)).unzip();
            tx.connection
                .prepare_cached(include_str!("sql/extend_lease.sql"))?
                .execute(params![task.seq, until_ms, agent, boot_id])?;
            Ok(Extended::Until(until_ms))
        }
        Err(Refused::Stale(state) | Refused::Repeated(state) | Refused::WrongState(state)) => {
            Ok(Extended::Stale(state))
        }
    }
}

/// Whether another run began with the lease: a message that came twice starts nothing twice.
fn is_others(task: &Hot, run: &Run) -> bool {
    let holder = (task.agent.as_deref(), task.boot_id.as_deref());
    task.record.started && holder != (Some(&*run.agent), Some(&*run.boot_id))
}

pub(super) fn settle(tx: &mut Tx<'_>, mut batch: Vec<Settle>) -> rusqlite::Result<Vec<Settled>> {
    batch.iter_mut().map(|item| settle_one(tx, item)).collect()
}

fn settle_one(tx: &mut Tx<'_>, item: &mut Settle) -> rusqlite::Result<Settled> {
    let Some(mut task) = tx.load(&item.id)? else { return Ok(Settled::Unknown) };
    let Lane { queue, dependency, group, .. } = tx.lane(task.lane)?.clone();
    if let Some(dependency) = &dependency {
        item.ending.at_dependency(dependency);
    }
    let before = Before::of(&task.record);
    let (policy, now_ms) = (tx.policy(task.lane)?, tx.now_ms());
    let primary = task.primary.as_ref().or(dependency.as_ref());
    let terms = Terms { policy: &policy, primary, called: dependency.as_ref(), standing: &item.standing };
    match task.record.settle(item.fence, item.attempt(&item.ending), terms, now_ms, tx.rng) {
        Ok(verdict) => {
            if before.state != TaskState::Leased {
                // It was handed off: whoever did it next is not known here.
                task.agent = None;
            }
            let line = tx.line(&task, &verdict, &before, before.started_ms(now_ms))?;
            tx.write_history(&mut task, &Line { failure: item.ending.failure(), ..line })?;
            if let Ending::Done(Some(result)) = &item.ending {
                tx.connection
                    .prepare_cached("INSERT OR REPLACE INTO results (seq, result) VALUES (?1, ?2)")?
                    .execute(params![task.seq, &*content_text(result)])?;
            }
            let agent =
                task.agent.as_deref().map(Name::new).transpose().map_err(|error| corrupt(22, error))?;
            tx.save(&mut task, &before)?;
            let (state, due_ms) = (task.record.state, task.record.due_ms);
            Ok(Settled::Applied {
                state,
                due_ms,
                queue,
                dependency,
                group,
                agent,
                retried: before.was_called,
            })
        }
        Err(Refused::Repeated(state)) => Ok(Settled::Repeated { state, due_ms: task.record.due_ms }),
        Err(Refused::Stale(state) | Refused::WrongState(state)) => Ok(Settled::Stale(state)),
    }
}

pub(super) fn reap(tx: &mut Tx<'_>, limit: usize) -> rusqlite::Result<Reap> {
    let gone = silence_agents(tx)?;
    let mut reaped = Vec::new();
    let (now_ms, spared_ms) = (tx.now_ms(), spared_before_ms(tx));
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    for task in tx.read_all(include_str!("sql/load_expired.sql"), [now_ms, limit, spared_ms], hot)? {
        reaped.push(lose(tx, task)?);
    }
    let mut too_late = Vec::new();
    for task in tx.read_all(include_str!("sql/load_overdue.sql"), [now_ms, limit], hot)? {
        too_late.push(miss_deadline(tx, task)?);
    }
    Ok(Reap { reaped, too_late, gone, next_ms: next_reap(tx)? })
}

/// Leases given before this moment are not reaped yet: the store was opened just now, and their workers may have had
/// nobody to report to.
fn spared_before_ms(tx: &Tx<'_>) -> i64 {
    if tx.now_ms() < grace_ends_ms(tx) { tx.opened_ms } else { i64::MIN }
}

fn grace_ends_ms(tx: &Tx<'_>) -> i64 {
    tx.opened_ms.saturating_add_unsigned(RESTART_GRACE_MS)
}

/// Escalates a task whose deadline passed before anybody started it, as if it had not been leased.
pub(super) fn miss_deadline(tx: &mut Tx<'_>, mut task: Hot) -> rusqlite::Result<TaskId> {
    let before = Before::of(&task.record);
    let missed = task.record.miss_deadline(&*tx.policy(task.lane)?, tx.now_us);
    // The caller has looked, within this transaction.
    let verdict = missed.map_err(|_| rusqlite::Error::StatementChangedRows(0))?;
    task.agent = None;
    let line = tx.line(&task, &verdict, &before, tx.now_ms())?;
    tx.write_history(&mut task, &line)?;
    tx.save(&mut task, &before)?;
    TaskId::new(task.id).map_err(|error| corrupt(24, error))
}

fn lose(tx: &mut Tx<'_>, mut task: Hot) -> rusqlite::Result<Reaped> {
    let before = Before::of(&task.record);
    let (started, holder, epoch) = (task.record.started, task.agent.clone(), task.record.epoch);
    let boot_id = task.boot_id.clone().and_then(|boot_id| Name::new(boot_id).ok());
    let policy = tx.policy(task.lane)?;
    let lost = task.record.lose(&policy, tx.now_us, tx.rng);
    // The query selects leased tasks only, within this transaction.
    let verdict = lost.map_err(|_| rusqlite::Error::StatementChangedRows(0))?;
    let line = tx.line(&task, &verdict, &before, before.started_ms(tx.now_ms()))?;
    tx.write_history(&mut task, &line)?;
    let Lane { queue, dependency, .. } = tx.lane(task.lane)?.clone();
    tx.save(&mut task, &before)?;
    Ok(Reaped {
        id: TaskId::new(task.id.as_str()).map_err(|error| corrupt(24, error))?,
        queue,
        dependency,
        epoch,
        agent: holder.and_then(|agent| Name::new(agent).ok()),
        boot_id,
        started,
        retried: before.was_called,
        state: task.record.state,
        due_ms: task.record.due_ms,
    })
}

/// When a lease ends next, an agent will have been silent for too long, or a waiting task's deadline passes.
fn next_reap(tx: &Tx<'_>) -> rusqlite::Result<Option<i64>> {
    let next_lease: Option<i64> = tx
        .connection
        .prepare_cached("SELECT lease_until_ms FROM tasks WHERE state = 1 ORDER BY lease_until_ms LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    // What is over and still there is spared until the grace ends.
    let next_lease =
        next_lease.map(|until_ms| match until_ms <= tx.now_ms() && tx.now_ms() < grace_ends_ms(tx) {
            true => grace_ends_ms(tx),
            false => until_ms,
        });
    let oldest_seen: Option<i64> = tx
        .connection
        .prepare_cached("SELECT MIN(MAX(seen_ms, ?1)) FROM agents WHERE gone = 0")?
        .query_row([tx.opened_ms], |row| row.get(0))?;
    let next_silence = oldest_seen.map(|seen_ms| seen_ms.saturating_add_unsigned(AGENT_DEAD_AFTER_MS) + 1);
    let next_deadline: Option<i64> = tx
        .connection
        .prepare_cached("SELECT deadline_ms FROM tasks WHERE state = 0 ORDER BY deadline_ms LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let next_deadline = next_deadline.map(|deadline_ms| deadline_ms.saturating_add(1));
    Ok([next_lease, next_silence, next_deadline].into_iter().flatten().min())
}

/// Marks agents that were silent for too long, and lets their leases end. Silence from before the store was opened does
/// not count: they may have had nobody to talk to.
fn silence_agents(tx: &mut Tx<'_>) -> rusqlite::Result<Vec<Name>> {
    let silent_before_ms = tx.now_ms().saturating_sub_unsigned(AGENT_DEAD_AFTER_MS);
    if silent_before_ms <= tx.opened_ms {
        return Ok(Vec::new());
    }
    let silent: Vec<(String, String)> = tx
        .connection
        .prepare_cached("SELECT agent, boot_id FROM agents WHERE gone = 0 AND seen_ms < ?1")?
        .query_map([silent_before_ms], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut gone = Vec::new();
    for (agent, boot_id) in silent {
        expire(tx, &agent, &boot_id)?;
        tx.connection
            .prepare_cached("UPDATE agents SET gone = 1 WHERE agent = ?1 AND boot_id = ?2")?
            .execute([&agent, &boot_id])?;
        let agent = Name::new(agent).map_err(|error| corrupt(0, error))?;
        let boot_id = Name::new(boot_id).map_err(|error| corrupt(1, error))?;
        tx.memory.gone.insert((agent.clone(), boot_id));
        gone.push(agent);
    }
    Ok(gone)
}

/// A run of an agent opened a presence connection.
pub(super) fn arrive(tx: &mut Tx<'_>, run: (Name, Name)) -> Arrival {
    let now_us = tx.now_us;
    let last = tx.memory.arrivals.entry(run).or_insert(i64::MIN);
    *last = now_us.max(last.saturating_add(1));
    Arrival(*last)
}

/// Lets the leases of a run end, unless it arrived again since.
pub(super) fn expire_departed(tx: &Tx<'_>, run: &(Name, Name), arrival: Arrival) -> rusqlite::Result<usize> {
    if tx.memory.arrivals.get(run).is_some_and(|last| *last != arrival.0) {
        return Ok(0);
    }
    expire(tx, &run.0, &run.1)
}

/// Lets the leases of one run of an agent end now.
fn expire(tx: &Tx<'_>, agent: &str, boot_id: &str) -> rusqlite::Result<usize> {
    let mut statement = tx.connection.prepare_cached(include_str!("sql/expire_leases.sql"))?;
    statement.execute(params![agent, boot_id, tx.now_ms()])
}
