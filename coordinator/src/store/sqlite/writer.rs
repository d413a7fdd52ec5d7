//! The one writer: a thread that takes what came in since its last commit and commits it as one transaction.
//!
//! Group commit with no added delay: while one batch is being flushed to disk, the next gathers. A commit that fails
//! fails every caller of its batch, and the connection is opened anew: after a failed flush nothing that it holds can be
//! believed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use redrive_shared::clock::Clock;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::lanes::LaneIndex;
use super::open::{Location, open_writer};
use super::queues::{Published, QueueBook};
use super::rows::{name, priority_from, required};
use super::tx::{Memory, Tx};
use crate::store::StoreError;

/// Most verbs in one transaction: bounds how long the first of them waits for the last.
const GROUP_MAX: usize = 64;
/// Verbs that may wait for the writer; beyond it callers wait to get in.
const INBOX: usize = 1_024;

/// One verb on its way through a transaction.
trait Job: Send {
    /// Does the work within the transaction.
    fn run(&mut self, tx: &mut Tx<'_>) -> rusqlite::Result<()>;
    /// Its work was undone, its neighbours' was not.
    fn undone(&mut self, error: &rusqlite::Error);
    /// The transaction is durable, or it failed.
    fn finish(self: Box<Self>, failure: Option<&rusqlite::Error>);
}

struct Verb<F, T> {
    work: Option<F>,
    value: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T> Job for Verb<F, T>
where
    F: FnOnce(&mut Tx<'_>) -> rusqlite::Result<T> + Send,
    T: Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> rusqlite::Result<()> {
        if let Some(work) = self.work.take() {
            self.value = Some(Ok(work(tx)?));
        }
        Ok(())
    }

    fn undone(&mut self, error: &rusqlite::Error) {
        self.value = Some(Err(store_error(error)));
    }

    fn finish(self: Box<Self>, failure: Option<&rusqlite::Error>) {
        let answer = match (failure, self.value) {
            (None, Some(value)) => value,
            (Some(error), _) => Err(store_error(error)),
            (None, None) => Err(StoreError::Unavailable("the writer stopped".into())),
        };
        // A caller that has gone away needs no answer.
        let _ = self.reply.send(answer);
    }
}

/// Hands verbs to the writer thread.
#[derive(Clone)]
pub(super) struct WriterHandle(mpsc::Sender<Box<dyn Job>>);

impl WriterHandle {
    /// Runs `work` in the next transaction; returns when that is durable.
    pub async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let stopped = || StoreError::Unavailable("the writer stopped".into());
        self.0.send(Box::new(Verb { work: Some(work), value: None, reply })).await.map_err(|_| stopped())?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }
}

/// The thread's state.
pub(super) struct Writer {
    location: Location,
    connection: Option<Connection>,
    memory: Memory,
    published: Published,
    clock: Arc<dyn Clock>,
    rng: SmallRng,
    opened_ms: i64,
}

impl Writer {
    /// Starts the thread; it ends when the last handle is dropped.
    pub fn start(
        location: Location,
        connection: Connection,
        clock: Arc<dyn Clock>,
        published: Published,
    ) -> Result<(WriterHandle, std::thread::JoinHandle<()>), StoreError> {
        let memory = load_memory(&connection).map_err(|error| store_error(&error))?;
        published.set(memory.queues.clone());
        let opened_ms = clock.now_ms();
        let rng = SmallRng::from_rng(&mut rand::rng());
        let writer =
            Self { location, connection: Some(connection), memory, published, clock, rng, opened_ms };
        let (sender, inbox) = mpsc::channel(INBOX);
        let thread = std::thread::Builder::new()
            .name("redrive-writer".into())
            .spawn(move || writer.run(inbox))
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok((WriterHandle(sender), thread))
    }

    fn run(mut self, mut inbox: mpsc::Receiver<Box<dyn Job>>) {
        let mut group = Vec::with_capacity(GROUP_MAX);
        while inbox.blocking_recv_many(&mut group, GROUP_MAX) > 0 {
            let outcome = self.commit(&mut group);
            if let Err(error) = &outcome {
                tracing::error!(%error, verbs = group.len(), "a transaction failed; opening the store anew");
                self.connection = None;
            }
            for job in group.drain(..) {
                job.finish(outcome.as_ref().err());
            }
        }
    }

    /// Runs a group of verbs in one transaction.
    fn commit(&mut self, group: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let connection = open_writer(&self.location)?;
                self.memory = load_memory(&connection)?;
                connection
            }
        };
        self.transact(&connection, group)?;
        self.connection = Some(connection);
        if std::mem::take(&mut self.memory.queues_changed) {
            self.published.set(self.memory.queues.clone());
        }
        Ok(())
    }

    fn transact(&mut self, connection: &Connection, group: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let now_us = self.clock.now_us();
        let mut tx = Tx::new(connection, &mut self.memory, &mut self.rng, now_us, self.opened_ms);
        for job in group {
            connection.prepare_cached("SAVEPOINT verb")?.execute([])?;
            let kept = tx.counted();
            // A panic is a defect of one verb; its trace is in the log already.
            let ran = catch_unwind(AssertUnwindSafe(|| job.run(&mut tx)));
            let ran = ran.unwrap_or(Err(rusqlite::Error::UnwindingPanic));
            if let Err(error) = ran {
                if concerns_all(&error) {
                    return Err(error);
                }
                tracing::error!(%error, "a verb failed and is undone; its neighbours go on");
                connection.prepare_cached("ROLLBACK TO verb")?.execute([])?;
                tx.undo(kept, load_memory(connection)?);
                job.undone(&error);
            }
            connection.prepare_cached("RELEASE verb")?.execute([])?;
        }
        tx.finish()?;
        connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }
}

/// Whether an error is the store's and not one verb's: then the transaction fails with every verb in it.
fn concerns_all(error: &rusqlite::Error) -> bool {
    // A broken constraint is a defect of the verb; everything else that SQLite says is about the store.
    matches!(error, rusqlite::Error::SqliteFailure(cause, _) if cause.code != rusqlite::ErrorCode::ConstraintViolation)
}

/// Builds what the writer keeps in memory.
fn load_memory(connection: &Connection) -> rusqlite::Result<Memory> {
    let queues = QueueBook::load(connection)?;
    let mut lanes = LaneIndex::default();
    let mut statement = connection.prepare(include_str!("sql/lane_heads.sql"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let queue: i64 = row.get(1)?;
        let Some(owner) = queues.by_number(queue) else { continue };
        let lane = redrive_shared::task::Lane {
            queue: owner.name.clone(),
            priority: priority_from(row.get(2)?)?,
            dependency: name(row, 3)?,
            group: name(row, 4)?,
            retry: row.get(7)?,
        };
        lanes.insert(row.get(0)?, queue, lane, row.get(5)?, row.get(6)?);
    }
    let mut statement = connection.prepare("SELECT agent, boot_id FROM agents WHERE gone = 1")?;
    let gone = statement.query_map([], |row| Ok((required(row, 0)?, required(row, 1)?)))?;
    let gone = gone.collect::<rusqlite::Result<_>>()?;
    Ok(Memory { lanes, queues, gone, locks: super::locks::load(connection)?, ..Memory::default() })
}

/// What a SQLite error means to a caller.
pub(super) fn store_error(error: &rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode as Code;
    match error {
        rusqlite::Error::SqliteFailure(cause, _) => match cause.code {
            Code::DiskFull => {
                StoreError::Full(format!("{error}; free some space, the store goes on by itself"))
            }
            Code::DatabaseBusy | Code::DatabaseLocked => {
                StoreError::Unavailable(format!("{error}; another process holds the database"))
            }
            Code::DatabaseCorrupt | Code::NotADatabase | Code::SchemaChanged => {
                StoreError::Corrupt(error.to_string())
            }
            _ => StoreError::Unavailable(error.to_string()),
        },
        rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::InvalidColumnType(..) => {
            StoreError::Corrupt(error.to_string())
        }
        _ => StoreError::Unavailable(error.to_string()),
    }
}
