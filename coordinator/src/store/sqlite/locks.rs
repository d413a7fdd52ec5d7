//! Locks: the rules themselves, in the writer's memory, and a row for each that is granted.
//!
//! Those that wait are not kept: whoever waits is connected to this process, and gone with it.

use redrive_shared::lock::{Answers, Space, Verb};
use rusqlite::{Connection, params};

use super::tx::Tx;
use crate::store::locks::{Locks, read_hold, write_hold};

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

pub(super) fn locks(tx: &mut Tx<'_>, most: usize) -> Locks {
    let locks = &tx.memory.locks;
    let more = locks.holds().nth(most).is_some() || locks.waits().nth(most).is_some();
    Locks {
        holds: locks.holds().take(most).cloned().collect(),
        waits: locks.waits().take(most).cloned().collect(),
        more,
    }
}
