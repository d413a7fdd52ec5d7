//! `claim`: due tasks go to a worker.

use std::collections::BTreeSet;

use rand::RngExt;
use redrive_shared::id::TaskId;
use redrive_shared::limits::{BATCH_MAX_ITEMS, BODY_MAX_BYTES, CLAIM_REPLAY_MS};
use redrive_shared::task::{Lease, Nonce};
use rusqlite::{OptionalExtension, Row, params};

use super::checkpoints::{Kept, kept};
use super::leases::miss_deadline;
use super::rows::{
    HOT_COLUMNS, Hot, content, corrupt, hot, is_unreadable, json, optional, required, to_json,
};
use super::tx::{Before, Tx};
use crate::store::checkpoints::may_have_saved;
use crate::store::format::content_text;
use crate::store::gates::Allowance;
use crate::store::views::{self, Contents};
use crate::store::{Claim, Claimed, Restriction};

/// Bytes of payloads and checkpoints after which a claim is full: its reply must fit into what a worker will read.
const REPLY_MAX_BYTES: usize = BODY_MAX_BYTES;

pub(super) fn claim(
    tx: &mut Tx<'_>,
    batch: &[Claim],
    gates: &[Restriction],
) -> rusqlite::Result<Vec<Claimed>> {
    let mut allowance = Allowance::new(gates);
    batch.iter().map(|claim| claim_one(tx, claim, &mut allowance)).collect()
}

fn claim_one(tx: &mut Tx<'_>, claim: &Claim, allowance: &mut Allowance) -> rusqlite::Result<Claimed> {
    if let Some(answer) = replay(tx, claim)? {
        return Ok(answer);
    }
    if let Some(boot_id) = &claim.boot_id
        && tx.memory.gone.contains(&(claim.agent.clone(), boot_id.clone()))
    {
        // Its long poll may have outlived it: what it got would wait for the end of a lease.
        return Ok(Claimed::default());
    }
    let queues = tx.memory.queues.open(&claim.queues);
    let mut filling = Filling { claimed: Claimed::default(), given: Vec::new(), room: REPLY_MAX_BYTES };
    let mut held_back = BTreeSet::new();
    while filling.goes_on(claim.max) {
        let now_ms = tx.now_ms();
        let candidates = tx.memory.lanes.due(&queues, &claim.avoid, allowance, now_ms, &mut held_back);
        let Some(first) = candidates.first() else { break };
        let level = candidates.iter().take_while(|candidate| candidate.rank == first.rank).count();
        // Lanes of one priority share what is wanted; what some cannot fill, the next round gives to the others.
        let share = (claim.max - filling.given.len()).div_ceil(level);
        for candidate in &candidates[..level] {
            if !filling.goes_on(claim.max) {
                break;
            }
            // A lane before it may have used up what there was for both.
            let most = allowance.most(tx.lane(candidate.lane)?);
            let wanted = share.min(claim.max - filling.given.len()).min(most);
            if wanted > 0 {
                let before = filling.given.len();
                visit(tx, claim, candidate.lane, wanted, &mut filling)?;
                allowance.count(&filling.claimed.leases[before..]);
            }
        }
    }
    remember(tx, claim, &filling.given)?;
    let mut claimed = filling.claimed;
    claimed.held_back = allowance.scopes(&held_back);
    if claimed.leases.len() < claim.max {
        claimed.next_due_ms = tx.memory.lanes.next_due(&queues, &claim.avoid, allowance, tx.now_ms());
    }
    Ok(claimed)
}

/// A claim while it is being filled.
struct Filling {
    claimed: Claimed,
    /// Sequence number and epoch of each lease.
    given: Vec<(i64, i64)>,
    /// Bytes of payloads and checkpoints that still fit.
    room: usize,
}

impl Filling {
    fn goes_on(&self, max: usize) -> bool {
        self.given.len() < max && self.room > 0 && self.claimed.too_late.len() < BATCH_MAX_ITEMS
    }

    /// Whether so much of a task fits; a claim's first always does.
    fn takes(&mut self, bytes: usize) -> bool {
        match self.room.checked_sub(bytes) {
            Some(left) => {
                self.room = left;
                true
            }
            None => {
                self.room = 0;
                self.given.is_empty()
            }
        }
    }
}

/// Leases up to `wanted` due tasks of one lane.
fn visit(
    tx: &mut Tx<'_>,
    claim: &Claim,
    lane: i64,
    wanted: usize,
    filling: &mut Filling,
) -> rusqlite::Result<()> {
    let policy = tx.policy(lane)?;
    for (mut task, mut contents) in due(tx, lane, wanted)? {
        let saved = if may_have_saved(task.record.runs, task.entries) {
            add_checkpoint(tx, task.seq, &mut contents)?
        } else {
            Some(0)
        };
        let Some(saved_bytes) = saved else { continue };
        if !filling.takes(content_text(&contents.payload).len() + saved_bytes) {
            break;
        }
        let before = Before::of(&task.record);
        let nonce = Nonce(tx.rng.random());
        let lease_ms = claim.lease_ms.unwrap_or(policy.lease_ms);
        match task.record.claim(lease_ms, nonce, &policy, tx.now_us) {
            Ok(None) => {
                task.agent = Some(claim.agent.to_string());
                task.boot_id = claim.boot_id.as_ref().map(ToString::to_string);
                match lease(tx, &task, contents, lease_ms) {
                    Ok(lease) => {
                        tx.save_row(&task, before.state)?;
                        filling.given.push((task.seq, task.record.epoch));
                        filling.claimed.leases.push(lease);
                    }
                    Err(error) if is_unreadable(&error) => tx.set_aside(task.seq, &error)?,
                    Err(error) => return Err(error),
                }
            }
            Ok(Some(verdict)) => {
                task.agent = None;
                let now_ms = tx.now_ms();
                let line = tx.line(&task, &verdict, &before, now_ms)?;
                tx.write_history(&mut task, &line)?;
                tx.save_row(&task, before.state)?;
                filling.claimed.too_late.push(TaskId::new(task.id).map_err(|error| corrupt(24, error))?);
            }
            // Selected as scheduled and due within this transaction.
            Err(_) => return Err(rusqlite::Error::StatementChangedRows(0)),
        }
    }
    tx.refresh_lane(lane)?;
    tx.memory.lanes.visited(lane);
    Ok(())
}

/// Adds what the task saved, if anything; returns how many bytes that has. None: it cannot be read, and the task is put off.
fn add_checkpoint(tx: &Tx<'_>, seq: i64, contents: &mut Contents) -> rusqlite::Result<Option<usize>> {
    match kept(tx.connection, seq) {
        Ok(Some(Kept { progress, bytes })) => {
            contents.checkpoint = Some(progress);
            Ok(Some(bytes))
        }
        Ok(None) => Ok(Some(0)),
        Err(error) if is_unreadable(&error) => tx.set_aside(seq, &error).map(|()| None),
        Err(error) => Err(error),
    }
}

/// The cold row of a claimed task.
fn contents(row: &Row<'_>) -> rusqlite::Result<Contents> {
    Ok(Contents {
        task_type: required(row, HOT_COLUMNS)?,
        type_version: optional(row, HOT_COLUMNS + 1)?,
        payload: content(row, HOT_COLUMNS + 2)?.ok_or(rusqlite::types::FromSqlError::InvalidType)?,
        checkpoint: None,
        route: row.get(25)?,
        traceparent: row.get(HOT_COLUMNS + 3)?,
        labels: json(row, HOT_COLUMNS + 4)?.unwrap_or_default(),
        tokens: row.get(HOT_COLUMNS + 5)?,
    })
}

/// A lane's due tasks.
fn due(tx: &Tx<'_>, lane: i64, wanted: usize) -> rusqlite::Result<Vec<(Hot, Contents)>> {
    let limit = i64::try_from(wanted).unwrap_or(i64::MAX);
    tx.read_all(include_str!("sql/load_due.sql"), params![lane, tx.now_ms(), limit], |row| {
        Ok((hot(row)?, contents(row)?))
    })
}

fn lease(tx: &Tx<'_>, task: &Hot, contents: Contents, lease_ms: u64) -> rusqlite::Result<Lease> {
    let (lane, policy) = (tx.lane(task.lane)?, tx.policy(task.lane)?);
    let last_failure = if task.entries > 0 {
        let mut statement = tx.connection.prepare_cached(include_str!("sql/last_failure.sql"))?;
        statement.query_row([task.seq], |row| json(row, 0)).optional()?.flatten()
    } else {
        None
    };
    let id = TaskId::new(task.id.as_str()).map_err(|error| corrupt(24, error))?;
    let contents = Contents { route: policy.route_at(tx.primary(task)?, contents.route), ..contents };
    Ok(views::lease(id, &task.record, lane.clone(), contents, last_failure, &policy, lease_ms))
}

/// The leases that this very request was given before, as far as they still hold. What nobody started before its deadline
/// must not start any more, as if it were new.
fn replay(tx: &mut Tx<'_>, claim: &Claim) -> rusqlite::Result<Option<Claimed>> {
    let Some(request_id) = &claim.request_id else { return Ok(None) };
    let since_ms = tx.now_ms().saturating_sub_unsigned(CLAIM_REPLAY_MS);
    let mut statement = tx
        .connection
        .prepare_cached("SELECT leases FROM claims WHERE agent = ?1 AND request_id = ?2 AND at_ms >= ?3")?;
    let given: Option<Vec<(i64, i64)>> = statement
        .query_row(params![claim.agent.as_str(), request_id.as_str(), since_ms], |row| json(row, 0))
        .optional()?
        .flatten();
    let Some(given) = given else { return Ok(None) };
    let (mut claimed, mut room) = (Claimed { replayed: true, ..Claimed::default() }, REPLY_MAX_BYTES);
    let mut statement = tx.connection.prepare_cached(include_str!("sql/load_leased.sql"))?;
    for (seq, epoch) in given {
        let found = statement.query_row([seq, epoch], |row| Ok((hot(row)?, contents(row)?))).optional()?;
        let Some((task, mut contents)) = found else { continue };
        if task.agent.as_deref() != Some(&claim.agent) {
            // Another took it over.
            continue;
        }
        if task.record.deadline_ms < tx.now_ms() && !task.record.started {
            claimed.too_late.push(miss_deadline(tx, task)?);
        } else {
            // Its worker may have saved something since, whichever attempt it is; what has no more room stays leased.
            let Some(saved_bytes) = add_checkpoint(tx, seq, &mut contents)? else { continue };
            let bytes = content_text(&contents.payload).len() + saved_bytes;
            if bytes > room && !claimed.leases.is_empty() {
                continue;
            }
            room = room.saturating_sub(bytes);
            let lease_ms = claim.lease_ms.unwrap_or(tx.policy(task.lane)?.lease_ms);
            claimed.leases.push(lease(tx, &task, contents, lease_ms)?);
        }
    }
    Ok(Some(claimed))
}

fn remember(tx: &Tx<'_>, claim: &Claim, given: &[(i64, i64)]) -> rusqlite::Result<()> {
    let Some(request_id) = claim.request_id.as_ref().filter(|_| !given.is_empty()) else { return Ok(()) };
    tx.connection
        .prepare_cached(
            "INSERT OR REPLACE INTO claims (agent, request_id, at_ms, leases) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![claim.agent.as_str(), request_id.as_str(), tx.now_ms(), to_json(given)?])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use redrive_shared::task::TaskState;

    use super::super::rows::state_number;

    #[test]
    fn the_indexes_name_the_states_they_mean() {
        assert_eq!(state_number(TaskState::Scheduled), 0);
        assert_eq!(state_number(TaskState::Leased), 1);
    }
}
