//! The queues as this coordinator knows them: read when somebody said that they changed, and looked after once a second.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use redis::{Value, cmd};
use redrive_shared::id::Name;
use redrive_shared::retry::RetryPolicy;
use tokio::sync::Mutex;

use super::Inner;
use super::reply::{bytes, integer, text, texts};
use super::scripts::QUEUES;
use crate::store::policies::StoredPolicy;
use crate::store::{Result, StoreError};

/// A queue.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    pub paused: bool,
    pub policy: Arc<RetryPolicy>,
    /// What of it this release cannot read.
    pub unread: Vec<String>,
    /// The last version of its policy.
    pub version: u64,
}

/// Every queue known, as of one moment.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub queues: HashMap<Name, Queue>,
    /// The last change of the store's that it shows. Another one is another state, also a lower one: a Redis that was
    /// restored, or replaced by a replica that lagged behind, is the truth all the same.
    pub change: i64,
}

impl Book {
    /// The policy in force: the default one for a queue that nobody knows any more.
    pub fn policy(&self, queue: &str) -> Arc<RetryPolicy> {
        self.queues.get(queue).map(|queue| Arc::clone(&queue.policy)).unwrap_or_default()
    }
}

/// The book, shared.
#[derive(Debug, Default)]
pub(super) struct Books {
    current: RwLock<Arc<Book>>,
    /// Calls that asked for it to be read again.
    asked: AtomicU64,
    /// One reads at a time: what was read first must not replace what was read last.
    reading: Mutex<Read>,
}

/// The last reading.
#[derive(Debug)]
struct Read {
    /// It began after so many had asked: it answers them all.
    answers: u64,
    outcome: Result<()>,
}

impl Default for Read {
    fn default() -> Self {
        Self { answers: 0, outcome: Ok(()) }
    }
}

impl Books {
    /// As it was read last.
    pub fn get(&self) -> Arc<Book> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, book: Book) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(book);
    }
}

impl Inner {
    /// Reads the queues again, if they changed since.
    pub async fn refresh_book(&self) -> Result<()> {
        let number = self.books.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let mut read = self.books.reading.lock().await;
        if read.answers < number {
            // All that have asked by now wait for this one, and none of them for a turn of its own.
            let answers = self.books.asked.load(Ordering::Acquire);
            let outcome = self.read_book().await;
            *read = Read { answers, outcome };
        }
        read.outcome.clone()
    }

    async fn read_book(&self) -> Result<()> {
        // Before the contents: what changes in between is read twice, and not missed.
        let change = self.link.query(cmd("GET").arg(self.keys.once("changes"))).await?;
        let change = match &change {
            Value::Nil => 0,
            value => text(value)?.parse().unwrap_or(0),
        };
        if change == self.books.get().change && change != 0 {
            return Ok(());
        }
        let paused = self.link.query(cmd("SMEMBERS").arg(self.keys.once("paused"))).await?;
        let paused: HashSet<String> = texts(&paused)?.into_iter().collect();
        // Before the policies: of one that changes in between, a change made from what is shown is refused. The other way
        // round it would be let in, and undo what nobody was shown.
        let versions = self.link.query(cmd("HGETALL").arg(self.keys.once("versions"))).await?;
        let mut numbers: HashMap<&str, u64> = HashMap::new();
        for (name, version) in super::reply::pairs(&versions)? {
            numbers.insert(text(name)?, integer(version)?.unsigned_abs());
        }
        let all = self.link.query(cmd("HGETALL").arg(self.keys.once("queues"))).await?;
        let mut book = Book { change, ..Book::default() };
        for (name, policy) in super::reply::pairs(&all)? {
            let name = Name::new(text(name)?)
                .map_err(|error| StoreError::Corrupt(format!("a queue's name {error}")))?;
            let policy = String::from_utf8_lossy(bytes(policy)?);
            let StoredPolicy { policy, unread } = StoredPolicy::read(&policy).tell(&name);
            let paused = paused.contains(name.as_str());
            let version = numbers.get(name.as_str()).copied().unwrap_or(0);
            book.queues.insert(name, Queue { paused, policy: Arc::new(policy), unread, version });
        }
        self.books.set(book);
        // What was learnt of queues that were paused or not known says nothing of them now.
        self.due.clear();
        Ok(())
    }

    /// Makes a queue with the default policy, unless it is there.
    pub async fn make_queue(&self, name: &Name) -> Result<()> {
        let policy = serde_json::to_string(&RetryPolicy::default())
            .map_err(|error| StoreError::Corrupt(format!("a policy: {error}")))?;
        self.change_queue("make", name, &policy).await.map(|_| ())
    }

    /// Stops or resumes handing out a queue's tasks; false: no such queue.
    pub async fn pause_queue(&self, name: &Name, paused: bool) -> Result<bool> {
        // The truth first: whoever is stopped in between leaves the rest to every coordinator's next look.
        if !self.change_queue(if paused { "pause" } else { "resume" }, name, "").await? {
            return Ok(false);
        }
        // Claims look at their own shard: every coordinator's are stopped when this returns.
        self.show_pauses().await?;
        Ok(true)
    }

    async fn change_queue(&self, verb: &str, name: &Name, policy: &str) -> Result<bool> {
        let mut call = QUEUES.on(self.keys.once(""));
        call.arg(self.time.argument())
            .arg(self.keys.channel())
            .arg(&self.origin)
            .arg(verb)
            .arg(name.as_str())
            .arg(policy);
        let done = integer(&self.link.write(call).await?)? == 1;
        self.refresh_book().await?;
        Ok(done)
    }
}
