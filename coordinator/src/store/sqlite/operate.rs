//! What operators and time do: cancel, retry, forget; and what agents say of themselves.

use redrive_shared::gate::Standing;
use redrive_shared::id::TaskId;
use redrive_shared::lifecycle::{Fence, Refused, Terms, Verdict};
use redrive_shared::limits::{AGENT_REMEMBERED_MS, CLAIM_REPLAY_MS};
use redrive_shared::task::{AttemptEnd, TaskState};
use redrive_shared::wire::Heartbeat;
use rusqlite::params;

use super::leases::extend;
use super::rows::{Hot, required, state_from, to_json};
use super::tx::{Before, Line, Tx};
use super::{commands, lost};
use crate::store::views::acted_why;
use crate::store::{Acted, Beaten, Extend};

pub(super) fn cancel(tx: &mut Tx<'_>, ids: &[TaskId], reason: Option<&str>) -> rusqlite::Result<Vec<Acted>> {
    let act = |id| {
        act(tx, id, AttemptEnd::Cancelled, reason.unwrap_or("called off"), |tx, task| {
            let policy = tx.policy(task.lane)?;
            Ok(task.record.cancel(&policy, tx.now_us).map(|()| false))
        })
    };
    ids.iter().map(act).collect()
}

pub(super) fn retry(
    tx: &mut Tx<'_>,
    ids: &[TaskId],
    reason: Option<&str>,
    standing: &Standing,
) -> rusqlite::Result<Vec<Acted>> {
    let act = |id| {
        act(tx, id, AttemptEnd::Redriven, reason.unwrap_or("sent round again"), |tx, task| {
            let (policy, called) = (tx.policy(task.lane)?, tx.lane(task.lane)?.dependency.as_ref());
            let primary = task.primary.as_ref().or(called);
            let terms = Terms { policy: &policy, primary, called, standing };
            Ok(task.record.retry_now(terms, tx.now_us))
        })
    };
    ids.iter().map(act).collect()
}

fn act(
    tx: &mut Tx<'_>,
    id: &TaskId,
    end: AttemptEnd,
    why: &str,
    transition: impl FnOnce(&Tx<'_>, &mut Hot) -> rusqlite::Result<Result<bool, Refused>>,
) -> rusqlite::Result<Acted> {
    let Some(mut task) = tx.load(id)? else { return Ok(Acted::Unknown) };
    let before = Before::of(&task.record);
    let epoch = task.record.epoch;
    let moved = match transition(tx, &mut task)? {
        Ok(moved) => moved,
        Err(Refused::WrongState(state) | Refused::Stale(state) | Refused::Repeated(state)) => {
            return Ok(Acted::WrongState(state));
        }
    };
    let (state, due_ms) = (task.record.state, task.record.due_ms);
    if task.record.epoch != epoch {
        let verdict = Verdict { state, end, delay_ms: None, why: "" };
        let started_ms = before.started_ms(tx.now_ms());
        if before.state != TaskState::Leased {
            // Whoever held it last has no part in this.
            task.agent = None;
        }
        let line = tx.line(&task, &verdict, &before, started_ms)?;
        let why = acted_why(why, moved);
        tx.write_history(&mut task, &Line { note: Some(&why), ..line })?;
        tx.save(&mut task, &before)?;
    }
    let ended = (before.state == TaskState::Leased && task.record.epoch != epoch).then_some(epoch);
    Ok(Acted::Now { state, due_ms, ended })
}

pub(super) fn forget(tx: &mut Tx<'_>, limit: usize) -> rusqlite::Result<usize> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let forgettable: Vec<(i64, i64, TaskState)> = tx
        .connection
        .prepare_cached(include_str!("sql/forgettable.sql"))?
        .query_map([tx.now_ms(), limit], |row| Ok((row.get(0)?, row.get(1)?, state_from(row.get(2)?)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (seq, lane, state) in &forgettable {
        for sql in [
            "DELETE FROM attempts WHERE seq = ?1",
            "DELETE FROM results WHERE seq = ?1",
            "DELETE FROM bodies WHERE seq = ?1",
            "DELETE FROM tasks WHERE seq = ?1",
        ] {
            tx.connection.prepare_cached(sql)?.execute([seq])?;
        }
        let queue = tx.queue(*lane)?;
        tx.count(queue, *state, -1);
        tx.count_lane(*lane, -1);
    }
    forget_agents(tx)?;
    // Twice as long as they are asked for: a clock that steps back must not find them gone.
    tx.connection
        .prepare_cached("DELETE FROM claims WHERE at_ms < ?1")?
        .execute([tx.now_ms().saturating_sub_unsigned(2 * CLAIM_REPLAY_MS)])?;
    Ok(forgettable.len())
}

fn forget_agents(tx: &mut Tx<'_>) -> rusqlite::Result<()> {
    let before_ms = tx.now_ms().saturating_sub_unsigned(AGENT_REMEMBERED_MS);
    let mut statement = tx
        .connection
        .prepare_cached("DELETE FROM agents WHERE gone = 1 AND seen_ms < ?1 RETURNING agent, boot_id")?;
    let forgotten = statement.query_map([before_ms], |row| Ok((required(row, 0)?, required(row, 1)?)))?;
    for run in forgotten {
        tx.memory.gone.remove(&run?);
    }
    tx.connection
        .prepare_cached("DELETE FROM breaker_commands WHERE agent NOT IN (SELECT agent FROM agents)")?
        .execute([])?;
    tx.connection
        .prepare_cached("DELETE FROM workers_lost WHERE agent NOT IN (SELECT agent FROM agents)")?
        .execute([])?;
    tx.memory.arrivals.retain(|_, at_us| *at_us >= before_ms.saturating_mul(1_000));
    Ok(())
}

pub(super) fn heartbeat(tx: &mut Tx<'_>, beat: &Heartbeat) -> rusqlite::Result<Beaten> {
    let extends: Vec<Extend> = beat
        .leases
        .iter()
        .map(|lease| Extend {
            id: lease.id.clone(),
            fence: Fence { epoch: lease.epoch, nonce: lease.nonce },
            lease_ms: beat.lease_ms,
            run: None,
        })
        .collect();
    let leases = extend(tx, &extends)?;
    let farewell = beat.draining && beat.in_flight == 0;
    let run = (beat.agent.clone(), beat.boot_id.clone());
    if farewell {
        tx.memory.gone.insert(run);
    } else {
        tx.memory.gone.remove(&run);
    }
    let summary = Heartbeat { leases: Vec::new(), ..beat.clone() };
    tx.connection.prepare_cached(include_str!("sql/put_agent.sql"))?.execute(params![
        beat.agent.as_str(),
        beat.boot_id.as_str(),
        tx.now_ms(),
        farewell,
        to_json(&summary)?,
    ])?;
    let commands = commands::of_agent(tx, &beat.agent)?.pending(&beat.breakers);
    let lost = lost::of_agent(tx, &beat.agent)?.told(&beat.boot_id, tx.now_ms());
    Ok(Beaten { leases, commands, lost })
}
