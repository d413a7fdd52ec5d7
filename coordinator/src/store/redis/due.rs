//! Which shards may have something due, as far as this coordinator has heard: a claim need not ask the others.
//!
//! A lower bound for each queue and shard, learnt from claims that were not filled, and lowered by every enqueue and every
//! hint. Hints can be lost, so a bound holds for a second only; then the shard is asked again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use redrive_shared::id::Name;

/// How long a bound is believed.
const BELIEVED: Duration = Duration::from_secs(1);

/// The bounds of all shards.
#[derive(Debug)]
pub(super) struct Due(Vec<Mutex<HashMap<Name, Bound>>>);

#[derive(Debug, Clone, Copy)]
struct Bound {
    due_ms: i64,
    until: Instant,
}

impl Due {
    pub fn new(shards: u16) -> Self {
        Self((0..shards).map(|_| Mutex::default()).collect())
    }

    /// Something of the queue is due then.
    pub fn announce(&self, shard: u16, queue: &Name, due_ms: i64) {
        self.with(shard, |bounds| {
            if let Some(bound) = bounds.get_mut(queue) {
                bound.due_ms = bound.due_ms.min(due_ms);
            }
        });
    }

    /// Something of the queue is due then, in a shard that is not known.
    pub fn announce_anywhere(&self, queue: &Name, due_ms: i64) {
        for shard in 0..self.0.len() {
            self.announce(u16::try_from(shard).unwrap_or(0), queue, due_ms);
        }
    }

    /// Nothing of these queues is due before that; asked at `asked`, so that what was announced since is not overwritten
    /// by an older answer: the bound only falls until it is forgotten.
    pub fn learn(&self, shard: u16, queues: &[Name], due_ms: Option<i64>, asked: Instant) {
        let due_ms = due_ms.unwrap_or(i64::MAX);
        self.with(shard, |bounds| {
            for queue in queues {
                bounds.insert(queue.clone(), Bound { due_ms, until: asked + BELIEVED });
            }
        });
    }

    /// Before a claim asks a shard: what is announced from now on is not to be lost under its answer.
    pub fn ask(&self, shard: u16, queues: &[Name]) {
        self.with(shard, |bounds| {
            for queue in queues {
                bounds.remove(queue);
            }
        });
    }

    /// When a shard may have something of these queues; `None`: ask it.
    pub fn next(&self, shard: u16, queues: &[Name]) -> Option<i64> {
        let now = Instant::now();
        self.with(shard, |bounds| {
            let known = queues.iter().map(|queue| bounds.get(queue).filter(|bound| bound.until > now));
            known.map(|bound| bound.map(|bound| bound.due_ms)).collect::<Option<Vec<_>>>()?.into_iter().min()
        })
    }

    /// Nothing is known any more.
    pub fn clear(&self) {
        for bounds in &self.0 {
            bounds.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    fn with<T: Default>(&self, shard: u16, work: impl FnOnce(&mut HashMap<Name, Bound>) -> T) -> T {
        let bounds = self.0.get(usize::from(shard));
        bounds
            .map(|bounds| work(&mut bounds.lock().unwrap_or_else(PoisonError::into_inner)))
            .unwrap_or_default()
    }
}
