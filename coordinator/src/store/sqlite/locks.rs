//! Locks: the rules themselves, in the writer's memory, and a row for each that is granted.
//!
//! Those that wait are not kept: whoever waits is connected to this process, and gone with it.

use redrive_shared::lock::{Answers, Hold, Resource, Space, Verb, Wait};
use rusqlite::{Connection, params};

use super::tx::Tx;
use crate::store::locks::{LockCounts, Locks, read_hold, write_hold};

/// The row whose value is the highest number given so far: no token is 0.
const MARK: i64 = 0;

/// The locks as they were committed last.
pub(super) fn load(connection: &Connection) -> rusqlite::Result<Space> {
    let mut statement = connection.prepare("SELECT token, value FROM locks")?;
    let mut rows = statement.query([])?;
    let (mut mark, mut holds) = (0, Vec::new());
    while let Some(row) = rows.next()? {
        let (token, value): (i64, String) = (row.get(0)?, row.get(1)?);
        if token == MARK {
            mark = value.parse().unwrap_or(0);
            continue;
        }
        match read_hold(token, &value) {
            Some(hold) => holds.push(hold),
            // Its token stays below those to come.
            None => {
                mark = mark.max(token);
                tracing::error!(token, "a lock cannot be read and is forgotten; was a newer release here?");
            }
        }
    }
    Ok(Space::restore(mark, holds))
}

pub(super) fn lock(tx: &mut Tx<'_>, verbs: Vec<Verb>) -> rusqlite::Result<Answers> {
    let before = tx.memory.locks.mark();
    let answers = tx.memory.locks.apply(verbs, tx.now_us);
    let changed = tx.memory.locks.take_changed();
    // A place in line is a number too, and none is given twice.
    if changed.is_empty() && tx.memory.locks.mark() == before {
        return Ok(answers);
    }
    let mut put =
        tx.connection.prepare_cached("INSERT OR REPLACE INTO locks (token, value) VALUES (?1, ?2)")?;
    let mut delete = tx.connection.prepare_cached("DELETE FROM locks WHERE token = ?1")?;
    for token in changed {
        match tx.memory.locks.hold(token) {
            Some(hold) => put.execute(params![token.0, write_hold(hold)])?,
            None => delete.execute([token.0])?,
        };
    }
    put.execute(params![MARK, tx.memory.locks.mark().to_string()])?;
    Ok(answers)
}

pub(super) fn locks(tx: &mut Tx<'_>, resource: Option<&Resource>, most: usize) -> Locks {
    let locks = &tx.memory.locks;
    let (holds, waits) = locks.counts();
    let counts = LockCounts { holds: holds as u64, waits: waits as u64 };
    match resource {
        Some(resource) => listed(locks.holds_at(resource), locks.waits_at(resource), most, counts),
        None => listed(locks.holds(), locks.waits(), most, counts),
    }
}

fn listed<'a>(
    mut holds: impl Iterator<Item = &'a Hold>,
    mut waits: impl Iterator<Item = &'a Wait>,
    most: usize,
    counts: LockCounts,
) -> Locks {
    let shown_holds = holds.by_ref().take(most).cloned().collect();
    let shown_waits = waits.by_ref().take(most).cloned().collect();
    let more = holds.next().is_some() || waits.next().is_some();
    Locks { holds: shown_holds, waits: shown_waits, more, counts }
}
