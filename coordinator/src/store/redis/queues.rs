//! The queues as this coordinator knows them: read when somebody said that they changed, and looked after once a second.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use redis::{Value, cmd};
use redrive_shared::id::Name;
use redrive_shared::retry::RetryPolicy;

use super::Inner;
use super::reply::{bytes, integer, text, texts};
use super::scripts::QUEUES;
use crate::store::{Result, StoreError};

/// A queue.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    pub paused: bool,
    pub policy: Arc<RetryPolicy>,
}

/// Every queue known, as of one moment.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub queues: HashMap<Name, Queue>,
    /// Which change of the store's it shows.
    changes: i64,
}

impl Book {
    /// The policy in force: the default one for a queue that nobody knows any more.
    pub fn policy(&self, queue: &str) -> Arc<RetryPolicy> {
        self.queues.get(queue).map(|queue| Arc::clone(&queue.policy)).unwrap_or_default()
    }
}

/// The book, shared.
#[derive(Debug, Default)]
pub(super) struct Books(RwLock<Arc<Book>>);

impl Books {
    /// As it was read last.
    pub fn get(&self) -> Arc<Book> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, book: Book) {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // Two readers at once: the later state stays.
        if book.changes >= current.changes {
            *current = Arc::new(book);
        }
    }
}

impl Inner {
    /// Reads the queues again, if they changed since. True: they did.
    pub async fn refresh_book(&self) -> Result<bool> {
        let changes = self.link.query(cmd("GET").arg(self.keys.once("changes"))).await?;
        let changes = match &changes {
            Value::Nil => 0,
            value => text(value)?.parse().unwrap_or(0),
        };
        if changes == self.books.get().changes && changes != 0 {
            return Ok(false);
        }
        let paused = self.link.query(cmd("SMEMBERS").arg(self.keys.once("paused"))).await?;
        let paused: HashSet<String> = texts(&paused)?.into_iter().collect();
        let all = self.link.query(cmd("HGETALL").arg(self.keys.once("queues"))).await?;
        let mut book = Book { changes, ..Book::default() };
        for (name, policy) in super::reply::pairs(&all)? {
            let name = Name::new(text(name)?)
                .map_err(|error| StoreError::Corrupt(format!("a queue's name {error}")))?;
            let policy: RetryPolicy = serde_json::from_slice(bytes(policy)?)
                .map_err(|error| StoreError::Corrupt(format!("the policy of queue {name}: {error}")))?;
            let paused = paused.contains(name.as_str());
            book.queues.insert(name, Queue { paused, policy: Arc::new(policy) });
        }
        self.books.set(book);
        // What was learnt of queues that were paused or not known says nothing of them now.
        self.due.clear();
        Ok(true)
    }

    /// Makes a queue unless it is there, or replaces its policy.
    pub async fn write_queue(&self, name: &Name, policy: &RetryPolicy, replace: bool) -> Result<()> {
        let policy = serde_json::to_string(policy)
            .map_err(|error| StoreError::Corrupt(format!("a policy: {error}")))?;
        self.change_queue(if replace { "put" } else { "make" }, name, &policy).await.map(|_| ())
    }

    /// Stops or resumes handing out a queue's tasks; false: no such queue.
    pub async fn pause_queue(&self, name: &Name, paused: bool) -> Result<bool> {
        let known = self.link.query(cmd("HEXISTS").arg(self.keys.once("queues")).arg(name.as_str())).await?;
        if integer(&known)? == 0 {
            return Ok(false);
        }
        // Claims look at their own shard: every coordinator's are stopped when this returns.
        for shard in 0..self.keys.shards() {
            let key = self.keys.of_shard(shard, "p");
            self.link.query(cmd(if paused { "SADD" } else { "SREM" }).arg(key).arg(name.as_str())).await?;
        }
        // Those were writes that wait for no replica: this one waits for them.
        self.check().await?;
        self.change_queue(if paused { "pause" } else { "resume" }, name, "").await
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
