//! The queues, kept in memory and shared: the writer changes them, everyone reads them.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use redrive_shared::id::Name;
use redrive_shared::retry::RetryPolicy;
use rusqlite::{Connection, Row, params};

use super::rows::{required, to_json};
use crate::store::policies::StoredPolicy;

/// A queue as the writer needs it.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    pub number: i64,
    pub name: Name,
    pub paused: bool,
    pub policy: Arc<RetryPolicy>,
}

/// A policy of a column.
pub(super) fn policy(row: &Row<'_>, column: usize) -> rusqlite::Result<StoredPolicy> {
    let text = row.get_ref(column)?.as_str_or_null()?;
    Ok(text.map(StoredPolicy::read).unwrap_or_default())
}

/// Every queue, by name and by number.
#[derive(Debug, Clone, Default)]
pub(super) struct QueueBook {
    by_name: HashMap<Name, Queue>,
    by_number: HashMap<i64, Name>,
}

impl QueueBook {
    /// Reads the table.
    pub fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let mut book = Self::default();
        let mut statement = connection.prepare("SELECT queue, name, paused, policy FROM queues")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let name: Name = required(row, 1)?;
            let policy = Arc::new(policy(row, 3)?.tell(&name).policy);
            book.insert(Queue { number: row.get(0)?, name, paused: row.get(2)?, policy });
        }
        Ok(book)
    }

    fn insert(&mut self, queue: Queue) {
        self.by_number.insert(queue.number, queue.name.clone());
        self.by_name.insert(queue.name.clone(), queue);
    }

    /// The queue of that name.
    pub fn get(&self, name: &str) -> Option<&Queue> {
        self.by_name.get(name)
    }

    /// Every name.
    pub fn names(&self) -> Vec<Name> {
        self.by_name.keys().cloned().collect()
    }

    /// The queue of that number.
    pub fn by_number(&self, number: i64) -> Option<&Queue> {
        self.by_name.get(self.by_number.get(&number)?)
    }

    /// The numbers of those queues that exist and hand out work.
    pub fn open(&self, names: &[Name]) -> Vec<i64> {
        names
            .iter()
            .filter_map(|name| self.get(name))
            .filter(|queue| !queue.paused)
            .map(|queue| queue.number)
            .collect()
    }

    /// Makes a queue or replaces its policy, in the table and here; its number.
    pub fn put(
        &mut self,
        connection: &Connection,
        name: &Name,
        policy: RetryPolicy,
    ) -> rusqlite::Result<i64> {
        connection.execute(
            "INSERT INTO queues (name, policy) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET policy = excluded.policy",
            params![name.as_str(), to_json(&policy)?],
        )?;
        let (number, paused) = connection.query_row(
            "SELECT queue, paused FROM queues WHERE name = ?1",
            [name.as_str()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        self.insert(Queue { number, name: name.clone(), paused, policy: Arc::new(policy) });
        Ok(number)
    }

    /// Pauses or resumes a queue. False: no such queue.
    pub fn pause(&mut self, connection: &Connection, name: &Name, paused: bool) -> rusqlite::Result<bool> {
        let Some(queue) = self.by_name.get_mut(name) else { return Ok(false) };
        connection
            .execute("UPDATE queues SET paused = ?2 WHERE queue = ?1", params![queue.number, paused])?;
        queue.paused = paused;
        Ok(true)
    }
}

/// The book as readers see it: what was committed last.
#[derive(Debug, Clone, Default)]
pub(super) struct Published(Arc<RwLock<Arc<QueueBook>>>);

impl Published {
    /// What was committed last.
    pub fn get(&self) -> Arc<QueueBook> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A commit changed it.
    pub fn set(&self, book: QueueBook) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(book);
    }
}
