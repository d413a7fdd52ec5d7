//! What RabbitMQ has handed over and no claim has taken yet.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lapin::message::Delivery;
use tokio::sync::{Notify, watch};

/// Messages on their way from consumers to claims.
#[derive(Default)]
pub(super) struct Inbox {
    messages: Mutex<VecDeque<Delivery>>,
    arrived: Notify,
    claims: watch::Sender<Claims>,
}

/// Who asks for messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Claims {
    /// How many wait.
    pub waiting: usize,
    /// How many ever did: one that is answered at once was there all the same.
    pub begun: u64,
}

/// A claim that waits, for as long as this is there.
pub(super) struct Waiting<'a>(&'a Inbox);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.claims.send_modify(|claims| claims.waiting -= 1);
    }
}

impl Inbox {
    /// From now on there is room for messages.
    pub fn wait(&self) -> Waiting<'_> {
        self.claims.send_modify(|claims| {
            claims.waiting += 1;
            claims.begun += 1;
        });
        Waiting(self)
    }

    /// Hears of claims.
    pub fn claims(&self) -> watch::Receiver<Claims> {
        self.claims.subscribe()
    }

    /// A message has come.
    pub fn put(&self, delivery: Delivery) {
        self.lock().push_back(delivery);
        self.arrived.notify_one();
    }

    /// The oldest one.
    pub fn take(&self) -> Option<Delivery> {
        self.lock().pop_front()
    }

    /// Waits until one has come since the last call.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// All that came by way of a queue.
    pub fn take_back(&self, queue: &str) -> Vec<Delivery> {
        let mut messages = self.lock();
        let (back, stay) = messages.drain(..).partition(|one| one.routing_key.as_str() == queue);
        *messages = stay;
        back.into()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Delivery>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
