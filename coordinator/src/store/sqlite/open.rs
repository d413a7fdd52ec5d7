//! Opening the database: files, locks, settings, schema.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redrive_shared::id::Name;
use redrive_shared::limits::STORE_FREE_MIN_BYTES;
use redrive_shared::retry::RetryPolicy;
use rusqlite::{Connection, OpenFlags};

use super::queues::QueueBook;
use super::writer::store_error;
use crate::store::{DEFAULT_QUEUE, StoreError};

/// Version of the tables that this release reads and writes.
pub(super) const SCHEMA_VERSION: i64 = 1;
/// The database's file in the data directory, and the file that is locked.
pub(super) const DATABASE: &str = "redrive.sqlite";
pub(super) const LOCK: &str = "lock";
/// Tables that version 1 did not have from the beginning, made where they are missing: the version says what a release must
/// know to work with the tasks, and one that does not know these works with them all the same.
const LATER_TABLES: [&str; 7] = [
    include_str!("sql/breaker_commands.sql"),
    include_str!("sql/policy_versions.sql"),
    include_str!("sql/workers_lost.sql"),
    include_str!("sql/scoped_gates.sql"),
    include_str!("sql/locks.sql"),
    include_str!("sql/checkpoints.sql"),
    include_str!("sql/identity.sql"),
];
/// How long to wait for another process's transaction (a backup, a shell) before callers are told.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// Statements kept prepared.
const STATEMENTS: usize = 64;

/// Where the database is, and how careful to be with it.
#[derive(Debug, Clone)]
pub(super) struct Location {
    pub file: PathBuf,
    /// Flush every commit to the disk. Off only where nothing is to survive anyway.
    pub durable: bool,
}

/// Opens the writer's connection and brings the tables up to date.
pub(super) fn open_writer(location: &Location) -> rusqlite::Result<Connection> {
    let connection = Connection::open(&location.file)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // FULL: with WAL, NORMAL may lose the last commits when the power goes.
    connection.pragma_update(None, "synchronous", if location.durable { "FULL" } else { "OFF" })?;
    connection.pragma_update(None, "cache_size", -64_000)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    migrate(&connection)?;
    Ok(connection)
}

/// Opens a reader's connection.
pub(super) fn open_reader(location: &Location) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&location.file, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

fn migrate(connection: &Connection) -> rusqlite::Result<()> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match version {
        SCHEMA_VERSION => {}
        0 => {
            connection.execute_batch("BEGIN IMMEDIATE")?;
            connection.execute_batch(include_str!("sql/schema.sql"))?;
            let default = Name::new(DEFAULT_QUEUE).map_err(|error| super::rows::corrupt(0, error))?;
            QueueBook::default().put(connection, &default, RetryPolicy::default())?;
            connection.pragma_update(None, "user_version", SCHEMA_VERSION)?;
            connection.execute_batch("COMMIT")?;
        }
        newer => return Err(rusqlite::Error::IntegralValueOutOfRange(0, newer)),
    }
    for table in LATER_TABLES {
        connection.execute_batch(table)?;
    }
    let gates = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'gates')";
    add(connection, gates, include_str!("sql/add_gates.sql"))?;
    let routes = "SELECT EXISTS (SELECT 1 FROM pragma_table_info('tasks') WHERE name = 'primary_dependency')";
    add(connection, routes, include_str!("sql/add_routes.sql"))?;
    let transactions =
        "SELECT EXISTS (SELECT 1 FROM pragma_table_info('tasks') WHERE name = 'in_transaction')";
    add(connection, transactions, include_str!("sql/add_transactions.sql"))?;
    let strategies = "SELECT EXISTS (SELECT 1 FROM pragma_table_info('tasks') WHERE name = 'strategy')";
    add(connection, strategies, include_str!("sql/add_strategies.sql"))?;
    let tokens = "SELECT EXISTS (SELECT 1 FROM pragma_table_info('bodies') WHERE name = 'tokens')";
    add(connection, tokens, include_str!("sql/add_tokens.sql"))
}

/// Adds what came after the version, unless it is known, and what an older release passes over if it is put back: so the
/// version stays.
fn add(connection: &Connection, is_known: &str, sql: &str) -> rusqlite::Result<()> {
    if connection.query_row(is_known, [], |row| row.get(0))? {
        return Ok(());
    }
    connection.execute_batch("BEGIN IMMEDIATE")?;
    connection.execute_batch(sql)?;
    connection.execute_batch("COMMIT")
}

/// Takes the data directory for this process alone.
pub(super) fn lock_directory(directory: &Path) -> Result<File, StoreError> {
    let unavailable = |what: &str, error: std::io::Error| {
        StoreError::Unavailable(format!("{what} {}: {error}", directory.display()))
    };
    make_directory(directory).map_err(|error| unavailable("cannot make the directory", error))?;
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(directory.join(LOCK))
        .map_err(|error| unavailable("cannot write to the directory", error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::Unavailable(format!(
            "another coordinator uses {}; stop it, or choose another --data-dir",
            directory.display()
        ))),
        Err(TryLockError::Error(error)) => Err(unavailable("cannot lock the directory", error)),
    }
}

/// Makes a directory durably: its name is lost with the power unless the directory that it is in was flushed, and with
/// it everything that was flushed inside.
fn make_directory(directory: &Path) -> std::io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    make_directory(parent)?;
    match std::fs::create_dir(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => File::open(parent)?.sync_all(),
    }
}

/// Fails when the disk has less room than a few full batches and the log need.
pub(super) fn room_left(location: &Location) -> Result<(), StoreError> {
    let directory = location.file.parent().unwrap_or(Path::new("."));
    // A system that does not tell is not taken for a full one.
    let Ok(disk) = rustix::fs::statvfs(directory) else { return Ok(()) };
    let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free_bytes >= STORE_FREE_MIN_BYTES {
        return Ok(());
    }
    Err(StoreError::Full(format!(
        "{free_bytes} bytes are free at {} and {STORE_FREE_MIN_BYTES} are needed; free some space",
        directory.display()
    )))
}

/// Says what is wrong with a database that cannot be opened.
pub(super) fn cannot_open(location: &Location, error: &rusqlite::Error) -> StoreError {
    match error {
        rusqlite::Error::IntegralValueOutOfRange(_, version) => StoreError::Corrupt(format!(
            "{} has tables of version {version}; this release knows {SCHEMA_VERSION}: use a newer release",
            location.file.display()
        )),
        error => store_error(error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::hot;
    use super::*;

    #[test]
    fn tables_of_the_first_release_get_what_came_later_and_their_tasks_keep_their_route() {
        let directory = tempfile::tempdir().unwrap();
        let location = Location { file: directory.path().join(DATABASE), durable: false };
        let old = Connection::open(&location.file).unwrap();
        old.execute_batch(include_str!("sql/schema.sql")).unwrap();
        old.pragma_update(None, "user_version", SCHEMA_VERSION).unwrap();
        old.execute_batch(
            "INSERT INTO lanes (lane, queue, priority, dependency, tasks) VALUES (1, 1, 1, 'd', 1);
             INSERT INTO tasks (id, lane, state, epoch, nonce, due_ms, lease_until_ms, started, leased_at_ms, runs, failed,
               lost, undelivered, deferred, released, deadline_ms, entries, enqueued_ms)
             VALUES ('t', 1, 0, 5, 0, 7, 0, 0, 0, 1, 3, 0, 0, 0, 0, 99, 0, 7);
             INSERT INTO bodies (seq, task_type, payload_hash, route, payload) VALUES (1, 'q', x'00', 2, '{}');",
        )
        .unwrap();
        drop(old);
        for _ in 0..2 {
            let connection = open_writer(&location).unwrap();
            let task = connection.query_row(include_str!("sql/load_task.sql"), ["t"], hot).unwrap();
            assert_eq!((task.record.route, task.record.failed_on_route), (2, 3));
            assert!(task.primary.is_none() && task.record.ledger.cost_usd.is_zero());
            let tokens: Option<u32> =
                connection.query_row("SELECT tokens FROM bodies", [], |row| row.get(0)).unwrap();
            assert_eq!(tokens, None);
        }
    }
}
