//! Gates: a table of values, changed by compare and swap.

use redrive_shared::id::Name;
use redrive_shared::limits::{GATE_MAX_BYTES, GATES_MAX};
use rusqlite::{Connection, OptionalExtension, params};

use super::rows::required;
use super::tx::Tx;
use crate::store::{GateCell, GateSwap, GateSwapped, Gates};

/// The row that says which change of any gate was the last.
const LAST_CHANGE: &str = "";

pub(super) fn gates(connection: &Connection, seen: i64) -> rusqlite::Result<Option<Gates>> {
    let change = last_change(connection)?;
    if change == seen && seen != 0 {
        return Ok(None);
    }
    let mut statement =
        connection.prepare_cached("SELECT dependency, version, value FROM gates WHERE dependency <> ?1")?;
    let cells = statement.query_map([LAST_CHANGE], |row| {
        Ok(GateCell { dependency: required(row, 0)?, version: row.get(1)?, value: row.get(2)? })
    })?;
    Ok(Some(Gates { change, cells: cells.collect::<rusqlite::Result<_>>()? }))
}

pub(super) fn swap(tx: &Tx<'_>, batch: Vec<GateSwap>) -> rusqlite::Result<Vec<GateSwapped>> {
    // Counted once where it matters: it is a look at all of them.
    let mut there = None;
    batch.into_iter().map(|swap| swap_one(tx, swap, &mut there)).collect()
}

fn swap_one(tx: &Tx<'_>, swap: GateSwap, gates: &mut Option<usize>) -> rusqlite::Result<GateSwapped> {
    let there = cell(tx.connection, &swap.dependency)?;
    if there.as_ref().map_or(0, |cell| cell.version) != swap.seen {
        return Ok(GateSwapped::Changed(there));
    }
    let Some(value) = swap.value else {
        if there.is_some() {
            next_change(tx)?;
            *gates = gates.map(|gates| gates - 1);
            tx.connection
                .prepare_cached("DELETE FROM gates WHERE dependency = ?1")?
                .execute([swap.dependency.as_str()])?;
        }
        return Ok(GateSwapped::Now(0));
    };
    if value.len() > GATE_MAX_BYTES {
        return Ok(GateSwapped::NoRoom);
    }
    if there.is_none() {
        let count = match *gates {
            Some(count) => count,
            None => count(tx.connection)?,
        };
        if count >= GATES_MAX {
            *gates = Some(count);
            return Ok(GateSwapped::NoRoom);
        }
        *gates = Some(count + 1);
    }
    let version = next_change(tx)?;
    put(tx.connection, &swap.dependency, version, &value)?;
    Ok(GateSwapped::Now(version))
}

fn cell(connection: &Connection, dependency: &Name) -> rusqlite::Result<Option<GateCell>> {
    let mut statement =
        connection.prepare_cached("SELECT version, value FROM gates WHERE dependency = ?1")?;
    let cell = |row: &rusqlite::Row<'_>| {
        Ok(GateCell { dependency: dependency.clone(), version: row.get(0)?, value: row.get(1)? })
    };
    statement.query_row([dependency.as_str()], cell).optional()
}

fn last_change(connection: &Connection) -> rusqlite::Result<i64> {
    let mut statement = connection.prepare_cached("SELECT version FROM gates WHERE dependency = ?1")?;
    let change = statement.query_row([LAST_CHANGE], |row| row.get(0)).optional()?;
    Ok(change.unwrap_or(0))
}

/// The number of a change: a time, and not a count, so that one which a restored file has lost is not used again.
fn next_change(tx: &Tx<'_>) -> rusqlite::Result<i64> {
    let change = tx.now_us.max(last_change(tx.connection)?.saturating_add(1));
    put(tx.connection, LAST_CHANGE, change, "")?;
    Ok(change)
}

fn put(connection: &Connection, dependency: &str, version: i64, value: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO gates (dependency, version, value) VALUES (?1, ?2, ?3)")?
        .execute(params![dependency, version, value])?;
    Ok(())
}

fn count(connection: &Connection) -> rusqlite::Result<usize> {
    let mut statement = connection.prepare_cached("SELECT COUNT(*) FROM gates WHERE dependency <> ?1")?;
    let gates: i64 = statement.query_row([LAST_CHANGE], |row| row.get(0))?;
    Ok(usize::try_from(gates).unwrap_or(0))
}
