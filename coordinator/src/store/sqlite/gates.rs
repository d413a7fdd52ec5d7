//! Gates: tables of values, changed by compare and swap.

use redrive_shared::gate::Scope;
use redrive_shared::limits::{GATE_MAX_BYTES, GATES_MAX};
use rusqlite::{Connection, OptionalExtension, params};

use super::tx::Tx;
use crate::store::{GateCell, GateSwap, GateSwapped, Gates};

/// The row that says which change of any gate was the last.
const LAST_CHANGE: &str = "";

pub(super) fn gates(connection: &Connection, seen: i64) -> rusqlite::Result<Option<Gates>> {
    let change = last_change(connection)?;
    if change == seen && seen != 0 {
        return Ok(None);
    }
    let mut statement = connection.prepare_cached(
        "SELECT dependency, version, value FROM gates WHERE dependency <> ?1
         UNION ALL SELECT scope, version, value FROM scoped_gates",
    )?;
    let mut gates = Gates { change, cells: Vec::new() };
    let mut rows = statement.query([LAST_CHANGE])?;
    while let Some(row) = rows.next()? {
        let key = row.get_ref(0)?.as_str()?;
        match Scope::of_key(key) {
            Some(scope) => {
                gates.cells.push(GateCell { scope, version: row.get(1)?, value: row.get(2)? });
            }
            // It does not hide the others.
            None => tracing::warn!(
                key,
                "the gate in the store is of a kind that a newer release knows, and passed over"
            ),
        }
    }
    Ok(Some(gates))
}

pub(super) fn swap(tx: &Tx<'_>, batch: Vec<GateSwap>) -> rusqlite::Result<Vec<GateSwapped>> {
    // Counted once where it matters: it is a look at all of them.
    let mut there = None;
    batch.into_iter().map(|swap| swap_one(tx, swap, &mut there)).collect()
}

fn swap_one(tx: &Tx<'_>, swap: GateSwap, gates: &mut Option<usize>) -> rusqlite::Result<GateSwapped> {
    let there = cell(tx.connection, &swap.scope)?;
    if there.as_ref().map_or(0, |cell| cell.version) != swap.seen {
        return Ok(GateSwapped::Changed(there));
    }
    let Some(value) = swap.value else {
        if there.is_some() {
            next_change(tx)?;
            *gates = gates.map(|gates| gates - 1);
            tx.connection.prepare_cached(Table::of(&swap.scope).forget)?.execute([swap.scope.key()])?;
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
    put(tx.connection, Table::of(&swap.scope), &swap.scope.key(), version, &value)?;
    Ok(GateSwapped::Now(version))
}

/// The statements of a table: a scope's key, a version, a value.
struct Table {
    load: &'static str,
    put: &'static str,
    forget: &'static str,
}

impl Table {
    const OF_DEPENDENCIES: &'static Self = &Self {
        load: "SELECT version, value FROM gates WHERE dependency = ?1",
        put: "INSERT OR REPLACE INTO gates (dependency, version, value) VALUES (?1, ?2, ?3)",
        forget: "DELETE FROM gates WHERE dependency = ?1",
    };
    const OF_OTHERS: &'static Self = &Self {
        load: "SELECT version, value FROM scoped_gates WHERE scope = ?1",
        put: "INSERT OR REPLACE INTO scoped_gates (scope, version, value) VALUES (?1, ?2, ?3)",
        forget: "DELETE FROM scoped_gates WHERE scope = ?1",
    };

    const fn of(scope: &Scope) -> &'static Self {
        match scope {
            Scope::Dependency(_) => Self::OF_DEPENDENCIES,
            Scope::Queue(_) | Scope::Group { .. } => Self::OF_OTHERS,
        }
    }
}

fn cell(connection: &Connection, scope: &Scope) -> rusqlite::Result<Option<GateCell>> {
    let mut statement = connection.prepare_cached(Table::of(scope).load)?;
    let cell = |row: &rusqlite::Row<'_>| {
        Ok(GateCell { scope: scope.clone(), version: row.get(0)?, value: row.get(1)? })
    };
    statement.query_row([scope.key()], cell).optional()
}

fn last_change(connection: &Connection) -> rusqlite::Result<i64> {
    let mut statement = connection.prepare_cached("SELECT version FROM gates WHERE dependency = ?1")?;
    let change = statement.query_row([LAST_CHANGE], |row| row.get(0)).optional()?;
    Ok(change.unwrap_or(0))
}

/// The number of a change: a time, and not a count, so that one which a restored file has lost is not used again.
fn next_change(tx: &Tx<'_>) -> rusqlite::Result<i64> {
    let change = tx.now_us.max(last_change(tx.connection)?.saturating_add(1));
    put(tx.connection, Table::OF_DEPENDENCIES, LAST_CHANGE, change, "")?;
    Ok(change)
}

fn put(connection: &Connection, table: &Table, key: &str, version: i64, value: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(table.put)?.execute(params![key, version, value])?;
    Ok(())
}

fn count(connection: &Connection) -> rusqlite::Result<usize> {
    let mut statement = connection.prepare_cached(
        "SELECT (SELECT COUNT(*) FROM gates WHERE dependency <> ?1) + (SELECT COUNT(*) FROM scoped_gates)",
    )?;
    let gates: i64 = statement.query_row([LAST_CHANGE], |row| row.get(0))?;
    Ok(usize::try_from(gates).unwrap_or(0))
}
