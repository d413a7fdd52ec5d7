//! How far tasks came, and the blobs that they refer to.

use redrive_shared::blob::BlobId;
use redrive_shared::checkpoint::{Progress, Saved};
use redrive_shared::id::TaskId;
use redrive_shared::lifecycle::Refused;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows::{content, corrupt, is_unreadable};
use super::tx::Tx;
use crate::store::format::{progress_from, progress_text};
use crate::store::{CheckpointSaved, SaveCheckpoint};

/// What is kept of a task, and how many bytes it has.
pub(super) struct Kept {
    pub progress: Progress,
    pub bytes: usize,
}

/// Saves checkpoints, each under its lease.
pub(super) fn save(tx: &Tx<'_>, batch: Vec<SaveCheckpoint>) -> rusqlite::Result<Vec<CheckpointSaved>> {
    batch.into_iter().map(|item| save_one(tx, item)).collect()
}

fn save_one(tx: &Tx<'_>, item: SaveCheckpoint) -> rusqlite::Result<CheckpointSaved> {
    let Some(found) = readable(tx.load(&item.id))? else { return Ok(CheckpointSaved::Unreadable) };
    let Some(task) = found else { return Ok(CheckpointSaved::Unknown) };
    match task.record.check(item.fence) {
        Ok(()) => {}
        Err(Refused::Stale(state) | Refused::Repeated(state) | Refused::WrongState(state)) => {
            return Ok(CheckpointSaved::Stale(state));
        }
    }
    let Some(kept) = readable(kept(tx.connection, task.seq))? else {
        return Ok(CheckpointSaved::Unreadable);
    };
    let mut progress = kept.map(|kept| kept.progress).unwrap_or_default();
    match progress.save(item.checkpoint, tx.now_ms()) {
        Ok(Saved::Now) => {
            let Ok(text) = progress_text(&progress) else { return Ok(CheckpointSaved::Unreadable) };
            tx.connection
                .prepare_cached("INSERT OR REPLACE INTO checkpoints (seq, progress) VALUES (?1, ?2)")?
                .execute(params![task.seq, text])?;
            Ok(CheckpointSaved::Saved { queue: tx.lane(task.lane)?.queue.clone() })
        }
        Ok(Saved::Before) => Ok(CheckpointSaved::Repeated),
        Err(refused) => Ok(CheckpointSaved::Refused(refused)),
    }
}

/// What a task has saved, if anything.
pub(super) fn kept(connection: &Connection, seq: i64) -> rusqlite::Result<Option<Kept>> {
    let mut statement = connection.prepare_cached("SELECT progress FROM checkpoints WHERE seq = ?1")?;
    Ok(statement.query_row([seq], |row| read(row, 0)).optional()?.flatten())
}

/// How far a task came. `None`: no such task.
pub(super) fn progress(connection: &Connection, id: &TaskId) -> rusqlite::Result<Option<Progress>> {
    let mut statement = connection.prepare_cached(
        "SELECT c.progress FROM tasks t LEFT JOIN checkpoints c ON c.seq = t.seq WHERE t.id = ?1",
    )?;
    let found = statement.query_row([id.as_str()], |row| read(row, 0)).optional()?;
    Ok(found.map(|kept| kept.map(|kept| kept.progress).unwrap_or_default()))
}

/// The blobs that each of the tasks refers to. None: it cannot be read.
pub(super) fn blobs(connection: &Connection, ids: &[TaskId]) -> rusqlite::Result<Vec<Option<Vec<BlobId>>>> {
    let mut statement = connection.prepare_cached(include_str!("sql/blobs.sql"))?;
    let mut blobs_of = |id: &TaskId| {
        let found = statement.query_row([id.as_str()], |row| {
            let (payload, result) = (content(row, 0)?, content(row, 1)?);
            let named = payload.iter().chain(&result).filter_map(|content| Some(content.blob()?.blob));
            Ok(named.chain(read(row, 2)?.iter().flat_map(|kept| kept.progress.blobs())).collect())
        });
        Ok(readable(found.optional())?.map(Option::unwrap_or_default))
    };
    ids.iter().map(&mut blobs_of).collect()
}

fn read(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Kept>> {
    let Some(text) = row.get_ref(column)?.as_str_or_null()? else { return Ok(None) };
    let progress = progress_from(text).map_err(|error| corrupt(column, error))?;
    Ok(Some(Kept { progress, bytes: text.len() }))
}

/// Tells what cannot be read (`None`) from a database that does not work.
pub(super) fn readable<T>(tried: rusqlite::Result<T>) -> rusqlite::Result<Option<T>> {
    match tried {
        Err(error) if is_unreadable(&error) => Ok(None),
        tried => tried.map(Some),
    }
}
