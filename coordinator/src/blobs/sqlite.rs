//! Blobs in an SQLite file of their own.
//!
//! A blob is a row, and a row for each MiB of it. Each is a transaction, so that no upload holds up another, and the last one
//! says how long the blob is: before it, the blob is not there for anybody.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Bytes;
use futures_util::TryStreamExt;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use super::pieces::{blocking, cut, read};
use super::{BlobError, BlobKey, BlobStream, Blobs, Result, Stored};

/// Bytes of one chunk; part of the format.
const CHUNK_BYTES: usize = 1024 * 1024;
/// Marks the file as ours: "rdbl".
const APPLICATION_ID: i64 = 0x7264_626c;
/// Of the tables.
const FORMAT: i64 = 1;
/// How long another process that writes to the file is waited for.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Pages that are given back to the disk at once: 64 MiB.
const VACUUM_PAGES: u32 = 16 * 1024;

/// An SQLite file that keeps blobs.
pub(super) struct SqliteBlobs {
    file: PathBuf,
    writer: Arc<Mutex<Connection>>,
    reader: Arc<Mutex<Connection>>,
}

impl SqliteBlobs {
    /// Opens the file, and makes it if it is not there.
    pub(super) async fn open(file: &Path) -> Result<Self> {
        let path = file.to_owned();
        let (writer, reader) = blocking(move || {
            if let Some(directory) = path.parent() {
                std::fs::create_dir_all(directory)
                    .map_err(|error| BlobError::Unavailable(error.to_string()))?;
            }
            let writer = connect(&path).map_err(failed)?;
            prepare(&writer)?;
            Ok((writer, connect(&path).map_err(failed)?))
        })
        .await?;
        let shared = |connection| Arc::new(Mutex::new(connection));
        Ok(Self { file: file.to_owned(), writer: shared(writer), reader: shared(reader) })
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        on(Arc::clone(&self.writer), work).await
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        on(Arc::clone(&self.reader), work).await
    }

    /// All but the beginning, which is taken back when this fails.
    async fn put_chunks(&self, id: i64, body: BlobStream) -> Result<()> {
        let (mut chunks, mut part, mut bytes) = (cut(body, CHUNK_BYTES), 0_i64, 0_i64);
        while let Some(chunk) = chunks.try_next().await? {
            bytes = bytes.saturating_add_unsigned(chunk.len() as u64);
            self.write(move |connection| {
                let mut insert =
                    connection.prepare_cached("INSERT INTO chunks (of, part, bytes) VALUES (?1, ?2, ?3)")?;
                insert.execute(params![id, part, &chunk[..]])
            })
            .await?;
            part += 1;
        }
        let whole = self
            .write(move |connection| {
                connection.execute("UPDATE blobs SET bytes = ?2 WHERE id = ?1 AND bytes IS NULL", [id, bytes])
            })
            .await?;
        if whole == 1 {
            Ok(())
        } else {
            Err(BlobError::Unavailable("the upload was removed meanwhile".into()))
        }
    }

    /// Where a whole blob is, and its length.
    async fn find(&self, key: &BlobKey) -> Result<Option<(i64, u64)>> {
        let (task, blob) = (key.task.to_string(), key.blob.to_string());
        self.read(move |connection| {
            connection
                .prepare_cached(
                    "SELECT id, bytes FROM blobs WHERE task = ?1 AND blob = ?2 AND bytes IS NOT NULL",
                )?
                .query_row([task, blob], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))
                .optional()
        })
        .await
    }
}

#[async_trait]
impl Blobs for SqliteBlobs {
    async fn put(&self, key: &BlobKey, body: BlobStream) -> Result<()> {
        let (task, blob) = (key.task.to_string(), key.blob.to_string());
        let id = self
            .write(move |connection| {
                connection.execute("INSERT INTO blobs (task, blob) VALUES (?1, ?2)", [task, blob])?;
                Ok(connection.last_insert_rowid())
            })
            .await?;
        let put = self.put_chunks(id, body).await;
        if put.is_err() {
            // What is left where this fails, or is not come to, is found by the next sweep.
            let _left = self
                .write(move |connection| connection.execute("DELETE FROM blobs WHERE id = ?1", [id]))
                .await;
        }
        put
    }

    async fn get(&self, key: &BlobKey) -> Result<Option<Stored>> {
        let Some((id, bytes)) = self.find(key).await? else { return Ok(None) };
        let reader = Arc::clone(&self.reader);
        Ok(Some(read(bytes, CHUNK_BYTES as u64, move |range| {
            let part = i64::try_from(range.start / CHUNK_BYTES as u64).unwrap_or(i64::MAX);
            on(Arc::clone(&reader), move |connection| {
                let chunk: Option<Vec<u8>> = connection
                    .prepare_cached("SELECT bytes FROM chunks WHERE of = ?1 AND part = ?2")?
                    .query_row([id, part], |row| row.get(0))
                    .optional()?;
                Ok(Bytes::from(chunk.unwrap_or_default()))
            })
        })))
    }

    async fn length(&self, key: &BlobKey) -> Result<Option<u64>> {
        Ok(self.find(key).await?.map(|(_, bytes)| bytes))
    }

    async fn remove(&self, keys: &[BlobKey]) -> Result<()> {
        for key in keys {
            let (task, blob) = (key.task.to_string(), key.blob.to_string());
            self.write(move |connection| {
                connection
                    .prepare_cached("DELETE FROM blobs WHERE task = ?1 AND blob = ?2")?
                    .execute([task, blob])
            })
            .await?;
        }
        // Uploads get between.
        while self.write(give_back).await? > 0 {}
        Ok(())
    }

    async fn list(&self, after: Option<&BlobKey>, most: usize) -> Result<Vec<BlobKey>> {
        let after = after.map(|key| (key.task.to_string(), key.blob.to_string())).unwrap_or_default();
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let rows: Vec<(String, String)> = self
            .read(move |connection| {
                let mut list = connection.prepare_cached(
                    "SELECT task, blob FROM blobs WHERE (task, blob) > (?1, ?2) ORDER BY task, blob LIMIT ?3",
                )?;
                let rows =
                    list.query_map(params![after.0, after.1, most], |row| Ok((row.get(0)?, row.get(1)?)))?;
                rows.collect()
            })
            .await?;
        rows.into_iter().map(|(task, blob)| BlobKey::read(task, &blob)).collect()
    }

    async fn check(&self) -> Result<()> {
        self.read(|connection| {
            connection.query_row("SELECT id FROM blobs LIMIT 1", [], |_| Ok(())).optional()
        })
        .await
        .map(|_| ())
    }

    fn describe(&self) -> String {
        format!("sqlite:{}", self.file.display())
    }
}

/// Gives some of the space that is free back to the disk; returns how many pages are left.
fn give_back(connection: &mut Connection) -> rusqlite::Result<i64> {
    let mut vacuum = connection.prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
    // A row a page: it goes on as long as it is asked.
    let (mut pages, mut given) = (vacuum.query([])?, 0);
    while pages.next()?.is_some() {
        given += 1;
    }
    let left: i64 = connection.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
    // Where none can be given back, it is not asked for again.
    Ok(if given == 0 { 0 } else { left })
}

/// Works with a connection, away from the runtime.
async fn on<T: Send + 'static>(
    connection: Arc<Mutex<Connection>>,
    work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
) -> Result<T> {
    blocking(move || work(&mut connection.lock().unwrap_or_else(PoisonError::into_inner)).map_err(failed))
        .await
}

fn connect(file: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Only a file that has no tables yet takes it.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

/// Makes the tables in a file that has none; refuses what is somebody else's, and leaves it as it is.
fn prepare(connection: &Connection) -> Result<()> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(failed);
    let tables: i64 =
        connection.query_row("SELECT COUNT(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    match (pragma("application_id")?, pragma("user_version")?, tables) {
        (APPLICATION_ID, FORMAT, _) => Ok(()),
        (APPLICATION_ID, newer, _) => Err(BlobError::Unavailable(format!(
            "the file is in format {newer}, and this release reads {FORMAT}: use a newer release"
        ))),
        (_, _, 0) => make(connection).map_err(failed),
        _ => Err(BlobError::Unavailable("it is another program's database; name a file of its own".into())),
    }?;
    // Only now: it writes into the file.
    connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)
}

fn make(connection: &Connection) -> rusqlite::Result<()> {
    let tables = include_str!("sql/make_sqlite.sql");
    // In one transaction: two coordinators that start at once make them once.
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; {tables} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}; COMMIT;"
    ))
}

fn failed(error: rusqlite::Error) -> BlobError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => BlobError::Full(error.to_string()),
        _ => BlobError::Unavailable(error.to_string()),
    }
}
