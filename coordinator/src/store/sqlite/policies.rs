//! Policies put in force, and their versions.

use redrive_shared::id::Name;
use redrive_shared::limits::POLICY_VERSIONS_KEPT;
use redrive_shared::wire::PolicyVersion;
use rusqlite::{Connection, OptionalExtension, params};

use super::queues::policy;
use super::rows::{name, to_json};
use super::tx::Tx;
use crate::store::policies::FOUND;
use crate::store::{NewPolicy, PolicyChange, PolicyPut};

/// The number of a queue's last version, 0 where it has none.
pub(super) const LAST_VERSION: &str =
    "SELECT COALESCE(MAX(version), 0) FROM policy_versions WHERE queue = ?1";

/// What is in force before a change.
struct Before {
    number: i64,
    policy: String,
    version: i64,
}

/// Puts policies in force: all of them, or none where one was changed since.
pub(super) fn put(tx: &mut Tx<'_>, change: PolicyChange) -> rusqlite::Result<PolicyPut> {
    let (mut conflicts, mut changes) = (Vec::new(), Vec::new());
    for new in change.queues {
        let (before, policy) = (in_force(tx.connection, &new.queue)?, to_json(&new.policy)?);
        if before.as_ref().is_some_and(|before| before.policy == policy) {
            continue;
        }
        let version = before.as_ref().map_or(0, |before| before.version.unsigned_abs());
        if new.version.is_some_and(|expected| expected != version) {
            conflicts.push((new.queue.clone(), version));
        }
        changes.push((before, new, policy));
    }
    if !conflicts.is_empty() {
        return Ok(PolicyPut::Conflict(conflicts));
    }
    for (before, new, policy) in changes {
        tx.memory.queues_changed = true;
        let NewPolicy { queue, policy: parsed, .. } = new;
        let mut version = before.as_ref().map_or(0, |before| before.version);
        if let Some(before) = &before
            && !is_recorded(tx.connection, before)?
        {
            // Its number follows that of the last one, if there is one: another policy was in force then.
            version += i64::from(has_versions(tx.connection, before.number)?);
            record(tx, before.number, version, None, Some(FOUND), &before.policy)?;
        }
        let number = tx.memory.queues.put(tx.connection, &queue, parsed)?;
        record(tx, number, version + 1, change.actor.as_deref(), change.reason.as_deref(), &policy)?;
    }
    Ok(PolicyPut::Done)
}

fn in_force(connection: &Connection, queue: &Name) -> rusqlite::Result<Option<Before>> {
    let mut statement = connection.prepare_cached("SELECT queue, policy FROM queues WHERE name = ?1")?;
    let found = statement.query_row([queue.as_str()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((number, policy)) = found else { return Ok(None) };
    let version = connection.prepare_cached(LAST_VERSION)?.query_row([number], |row| row.get(0))?;
    Ok(Some(Before { number, policy, version }))
}

/// Whether the policy in force is the last version. A release that keeps none may have put it there.
fn is_recorded(connection: &Connection, before: &Before) -> rusqlite::Result<bool> {
    let sql = "SELECT policy = ?3 FROM policy_versions WHERE queue = ?1 AND version = ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let same = statement.query_row(params![before.number, before.version, before.policy], |row| row.get(0));
    Ok(same.optional()?.unwrap_or(false))
}

fn has_versions(connection: &Connection, number: i64) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM policy_versions WHERE queue = ?1")?.exists([number])
}

fn record(
    tx: &Tx<'_>,
    number: i64,
    version: i64,
    actor: Option<&str>,
    reason: Option<&str>,
    policy: &str,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO policy_versions (queue, version, at_ms, actor, reason, policy) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    tx.connection.prepare_cached(sql)?.execute(params![
        number,
        version,
        tx.now_ms(),
        actor,
        reason,
        policy
    ])?;
    let kept = i64::try_from(POLICY_VERSIONS_KEPT).unwrap_or(i64::MAX);
    tx.connection
        .prepare_cached("DELETE FROM policy_versions WHERE queue = ?1 AND version <= ?2")?
        .execute(params![number, version.saturating_sub(kept)])?;
    Ok(())
}

/// The versions that are kept, newest first.
pub(super) fn versions(connection: &Connection, queue: &Name) -> rusqlite::Result<Vec<PolicyVersion>> {
    let sql = "SELECT version, at_ms, actor, reason, policy FROM policy_versions
               WHERE queue = (SELECT queue FROM queues WHERE name = ?1) ORDER BY version DESC";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([queue.as_str()], |row| {
        Ok(PolicyVersion {
            version: row.get::<_, i64>(0)?.unsigned_abs(),
            at_ms: row.get(1)?,
            actor: name(row, 2)?,
            reason: row.get(3)?,
            policy: policy(row, 4)?.policy,
        })
    })?;
    rows.collect()
}
