//! The embedded store: SQLite in WAL mode with full synchronisation, one writer with group commit, readers beside it.
//!
//! A production choice for one machine. The tables are described in `sql/schema.sql`; every statement that more than one
//! line is needed for is a file beside it. What the writer keeps in memory (lanes, queues) is built from the tables.

mod checkpoints;
mod claim;
mod commands;
pub mod doctor;
mod enqueue;
mod gates;
mod lanes;
mod leases;
mod locks;
mod lost;
mod open;
mod operate;
mod policies;
mod queues;
mod read;
mod rows;
mod tx;
mod writer;

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use redrive_shared::blob::BlobId;
use redrive_shared::checkpoint::Progress;
use redrive_shared::clock::Clock;
use redrive_shared::gate::Standing;
use redrive_shared::id::{Name, TaskId};
use redrive_shared::lock::{Answers, Resource, Verb};
use redrive_shared::retry::RetryPolicy;
use redrive_shared::task::TaskView;
use redrive_shared::wire::{AgentView, BreakerCommand, Heartbeat, PolicyVersion, QueueView};
use rusqlite::Connection;
use tempfile::TempDir;

use self::open::{DATABASE, Location, cannot_open, lock_directory, open_reader, open_writer, room_left};
use self::queues::Published;
use self::read::Detail;
use self::writer::{Writer, WriterHandle, store_error};
use super::{
    Acted, Arrival, Beaten, CheckpointSaved, Claim, Claimed, CommandBreaker, Enqueue, Enqueued, Extend,
    Extended, Filter, GateSwap, GateSwapped, Gates, Listed, Locks, LostAttempt, PolicyChange, PolicyPut,
    Reap, Restriction, Result, SaveCheckpoint, Settle, Settled, Store, StoreError,
};

/// Connections kept open for readers; more readers at once open their own for the moment.
const READERS_KEPT: usize = 4;

/// A handle to the embedded store.
pub struct SqliteStore {
    writer: Option<WriterHandle>,
    thread: Option<std::thread::JoinHandle<()>>,
    location: Location,
    published: Published,
    readers: Arc<Mutex<Vec<Connection>>>,
    /// Held for as long as the store is open.
    _lock: File,
    _scratch: Option<TempDir>,
}

impl SqliteStore {
    /// Opens the store in a directory, and makes it if need be. Fails when another process has it open.
    pub fn open(directory: &Path, clock: Arc<dyn Clock>) -> Result<Self> {
        Self::open_at(directory, clock, true, None)
    }

    /// Opens a store that ends with its handle.
    pub fn in_memory(clock: Arc<dyn Clock>) -> Result<Self> {
        let scratch = tempfile::Builder::new().prefix("redrive-").tempdir();
        let scratch =
            scratch.map_err(|error| StoreError::Unavailable(format!("no temporary directory: {error}")))?;
        let directory = scratch.path().to_owned();
        Self::open_at(&directory, clock, false, Some(scratch))
    }

    fn open_at(
        directory: &Path,
        clock: Arc<dyn Clock>,
        durable: bool,
        scratch: Option<TempDir>,
    ) -> Result<Self> {
        let lock = lock_directory(directory)?;
        let location = Location { file: directory.join(DATABASE), durable };
        let connection = open_writer(&location).map_err(|error| cannot_open(&location, &error))?;
        let published = Published::default();
        let (writer, thread) = Writer::start(location.clone(), connection, clock, published.clone())?;
        Ok(Self {
            writer: Some(writer),
            thread: Some(thread),
            location,
            published,
            readers: Arc::default(),
            _lock: lock,
            _scratch: scratch,
        })
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut tx::Tx<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        match &self.writer {
            Some(writer) => writer.write(work).await,
            None => Err(StoreError::Unavailable("the store is closed".into())),
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (readers, location) = (Arc::clone(&self.readers), self.location.clone());
        let pool = move || {
            readers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop()
                .map_or_else(|| open_reader(&location), Ok)
        };
        let readers = Arc::clone(&self.readers);
        let task = tokio::task::spawn_blocking(move || {
            let connection = pool()?;
            let transaction = connection.unchecked_transaction()?;
            let value = work(&transaction)?;
            drop(transaction);
            let mut kept = readers.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() < READERS_KEPT {
                kept.push(connection);
            }
            Ok(value)
        });
        match task.await {
            Ok(outcome) => outcome.map_err(|error: rusqlite::Error| store_error(&error)),
            Err(error) => Err(StoreError::Unavailable(error.to_string())),
        }
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // The writer's connection closes last, and tidies up the log.
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        // The thread ends with the last sender; waiting for it means that the lock is given up after the last write.
        self.writer = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn enqueue(&self, batch: Vec<Enqueue>) -> Result<Vec<Enqueued>> {
        self.write(|tx| enqueue::enqueue(tx, batch)).await
    }

    async fn claim(&self, batch: Vec<Claim>, gates: &[Restriction]) -> Result<Vec<Claimed>> {
        let gates = gates.to_vec();
        self.write(move |tx| claim::claim(tx, &batch, &gates)).await
    }

    async fn extend(&self, batch: Vec<Extend>) -> Result<Vec<Extended>> {
        self.write(move |tx| leases::extend(tx, &batch)).await
    }

    async fn settle(&self, batch: Vec<Settle>) -> Result<Vec<Settled>> {
        self.write(move |tx| leases::settle(tx, batch)).await
    }

    async fn reap(&self, limit: usize) -> Result<Reap> {
        self.write(move |tx| leases::reap(tx, limit)).await
    }

    async fn arrive(&self, agent: &Name, boot_id: &Name) -> Result<Arrival> {
        let run = (agent.clone(), boot_id.clone());
        self.write(move |tx| Ok(leases::arrive(tx, run))).await
    }

    async fn expire_leases(&self, agent: &Name, boot_id: &Name, arrival: Arrival) -> Result<usize> {
        let run = (agent.clone(), boot_id.clone());
        self.write(move |tx| leases::expire_departed(tx, &run, arrival)).await
    }

    async fn forget(&self, limit: usize) -> Result<usize> {
        self.write(move |tx| operate::forget(tx, limit)).await
    }

    async fn cancel(&self, ids: Vec<TaskId>, reason: Option<String>) -> Result<Vec<Acted>> {
        self.write(move |tx| operate::cancel(tx, &ids, reason.as_deref())).await
    }

    async fn retry(
        &self,
        ids: Vec<TaskId>,
        reason: Option<String>,
        standing: &Standing,
    ) -> Result<Vec<Acted>> {
        let standing = standing.clone();
        self.write(move |tx| operate::retry(tx, &ids, reason.as_deref(), &standing)).await
    }

    async fn save_checkpoints(&self, batch: Vec<SaveCheckpoint>) -> Result<Vec<CheckpointSaved>> {
        self.write(move |tx| checkpoints::save(tx, batch)).await
    }

    async fn progress(&self, id: &TaskId) -> Result<Option<Progress>> {
        let id = id.clone();
        self.read(move |connection| checkpoints::progress(connection, &id)).await
    }

    async fn blobs(&self, ids: &[TaskId]) -> Result<Vec<Option<Vec<BlobId>>>> {
        let ids = ids.to_vec();
        self.read(move |connection| checkpoints::blobs(connection, &ids)).await
    }

    async fn get(&self, id: &TaskId) -> Result<Option<TaskView>> {
        let id = id.clone();
        self.read(move |connection| read::view(connection, &id, Detail::Whole)).await
    }

    async fn status(&self, ids: Vec<TaskId>) -> Result<Vec<TaskView>> {
        self.read(move |connection| read::status(connection, &ids)).await
    }

    async fn list(&self, filter: Filter) -> Result<Listed> {
        self.read(move |connection| read::list(connection, &filter)).await
    }

    async fn make_queue(&self, name: &Name) -> Result<()> {
        let name = name.clone();
        self.write(move |tx| {
            if tx.memory.queues.get(&name).is_some() {
                return Ok(());
            }
            tx.memory.queues_changed = true;
            tx.memory.queues.put(tx.connection, &name, RetryPolicy::default()).map(|_| ())
        })
        .await
    }

    async fn put_queues(&self, change: PolicyChange) -> Result<PolicyPut> {
        self.write(move |tx| policies::put(tx, change)).await
    }

    async fn policy_versions(&self, queue: &Name) -> Result<Vec<PolicyVersion>> {
        let queue = queue.clone();
        self.read(move |connection| policies::versions(connection, &queue)).await
    }

    async fn pause(&self, name: &Name, paused: bool) -> Result<bool> {
        let name = name.clone();
        self.write(move |tx| {
            tx.memory.queues_changed = true;
            tx.memory.queues.pause(tx.connection, &name, paused)
        })
        .await
    }

    fn has_queue(&self, name: &Name) -> bool {
        self.published.get().get(name).is_some()
    }

    fn policy(&self, name: &Name) -> Option<Arc<RetryPolicy>> {
        self.published.get().get(name).map(|queue| Arc::clone(&queue.policy))
    }

    fn queue_names(&self) -> Vec<Name> {
        self.published.get().names()
    }

    async fn queues(&self) -> Result<Vec<QueueView>> {
        self.read(read::queues).await
    }

    async fn leased(&self, queue: &Name) -> Result<u64> {
        let queue = queue.clone();
        self.read(move |connection| read::leased(connection, &queue)).await
    }

    async fn gates(&self, seen: i64) -> Result<Option<Gates>> {
        self.read(move |connection| gates::gates(connection, seen)).await
    }

    async fn swap_gates(&self, batch: Vec<GateSwap>) -> Result<Vec<GateSwapped>> {
        self.write(move |tx| gates::swap(tx, batch)).await
    }

    async fn lock(&self, verbs: Vec<Verb>) -> Result<Answers> {
        self.write(move |tx| locks::lock(tx, verbs)).await
    }

    async fn locks(&self, resource: Option<&Resource>, most: usize) -> Result<Locks> {
        let resource = resource.cloned();
        self.write(move |tx| Ok(locks::locks(tx, resource.as_ref(), most))).await
    }

    async fn heartbeat(&self, beat: Heartbeat) -> Result<Beaten> {
        self.write(move |tx| operate::heartbeat(tx, &beat)).await
    }

    async fn command_breaker(&self, wanted: CommandBreaker) -> Result<Option<BreakerCommand>> {
        self.write(move |tx| commands::give(tx, &wanted)).await
    }

    async fn count_lost(&self, lost: Vec<LostAttempt>) -> Result<()> {
        self.write(move |tx| lost::count(tx, &lost)).await
    }

    async fn agents(&self) -> Result<Vec<AgentView>> {
        self.read(read::agents).await
    }

    async fn identity(&self) -> Result<String> {
        self.read(|connection| connection.query_row("SELECT name FROM identity", [], |row| row.get(0))).await
    }

    async fn check(&self) -> Result<()> {
        // A write that changes nothing may still fit where a batch would not.
        room_left(&self.location)?;
        self.write(|tx| tx.connection.execute_batch("UPDATE queues SET paused = paused WHERE queue = 1"))
            .await
    }
}
