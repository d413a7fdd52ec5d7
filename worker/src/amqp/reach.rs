//! Whether work can reach this worker: who cannot be reached has no room, whatever it runs at once.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redrive_shared::id::Name;
use tokio::sync::Notify;

/// What can be read.
pub(super) struct Reach {
    queues: usize,
    now: Mutex<Now>,
    changed: Notify,
}

#[derive(Default)]
struct Now {
    connected: bool,
    /// Queues that are not there, or may not be read.
    unread: BTreeSet<Name>,
}

/// A connection, for as long as this is there.
pub(super) struct Connected<'a>(&'a Reach);

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.change(|now| now.connected = false);
    }
}

impl Reach {
    /// Of so many queues. Nothing yet.
    pub fn new(queues: usize) -> Self {
        Self { queues, now: Mutex::default(), changed: Notify::new() }
    }

    /// There is a connection from now on.
    pub fn connect(&self) -> Connected<'_> {
        self.change(|now| now.connected = true);
        Connected(self)
    }

    /// A queue can be read.
    pub fn reads(&self, queue: &Name) {
        self.change(|now| {
            now.unread.remove(queue);
        });
    }

    /// A queue cannot be read.
    pub fn loses(&self, queue: &Name) {
        self.change(|now| {
            now.unread.insert(queue.clone());
        });
    }

    /// Whether anything comes in.
    pub fn is_there(&self) -> bool {
        self.of(&self.lock())
    }

    /// Waits until that is otherwise than it was.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn of(&self, now: &Now) -> bool {
        now.connected && now.unread.len() < self.queues
    }

    fn change(&self, change: impl FnOnce(&mut Now)) {
        let mut now = self.lock();
        let before = self.of(&now);
        change(&mut now);
        if self.of(&now) != before {
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_queue_that_can_be_read_is_enough() {
        let (a, b) = (Name::new("a").unwrap(), Name::new("b").unwrap());
        let reach = Reach::new(2);
        assert!(!reach.is_there());
        let connected = reach.connect();
        reach.loses(&a);
        reach.loses(&a);
        assert!(reach.is_there());
        reach.loses(&b);
        assert!(!reach.is_there());
        reach.reads(&b);
        assert!(reach.is_there());
        drop(connected);
        assert!(!reach.is_there());
    }
}
