//! Which shards may have something due, as far as this coordinator has heard: a claim need not ask the others.
//!
//! A lower bound for each queue and shard, learnt from claims that were not filled, and lowered by every enqueue and every
//! hint. Hints can be lost, so a bound holds for a second only; then the shard is asked again.
//!
//! What is announced while a claim is under way may have come after the script looked, and be heard of before its answer:
//! so announcements are counted, and an answer teaches nothing about a queue of which something was announced since the
//! claim was sent.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use redrive_shared::id::Name;

/// How long a bound is believed.
const BELIEVED: Duration = Duration::from_secs(1);

/// The bounds of all shards.
#[derive(Debug)]
pub(super) struct Due(Vec<Mutex<HashMap<Name, Known>>>);

/// What is known of a queue in a shard.
#[derive(Debug, Default)]
struct Known {
    bound: Option<Bound>,
    /// How often something was announced.
    announced: u64,
}

#[derive(Debug, Clone, Copy)]
struct Bound {
    due_ms: i64,
    until: Instant,
}

/// A question on its way to a shard.
pub(super) struct Asked {
    shard: u16,
    at: Instant,
    /// Announcements before it, for each queue.
    announced: Vec<u64>,
}

impl Due {
    pub fn new(shards: u16) -> Self {
        Self((0..shards).map(|_| Mutex::default()).collect())
    }

    /// Something of the queue is due then.
    pub fn announce(&self, shard: u16, queue: &Name, due_ms: i64) {
        self.with(shard, |queues| {
            // A queue that nobody has asked for is not known, and will be asked for.
            if let Some(known) = queues.get_mut(queue) {
                known.announced += 1;
                if let Some(bound) = &mut known.bound {
                    bound.due_ms = bound.due_ms.min(due_ms);
                }
            }
        });
    }

    /// Something of the queue is due then, in a shard that is not known.
    pub fn announce_anywhere(&self, queue: &Name, due_ms: i64) {
        for shard in 0..self.0.len() {
            self.announce(u16::try_from(shard).unwrap_or(0), queue, due_ms);
        }
    }

    /// Before a claim asks a shard.
    pub fn ask(&self, shard: u16, queues: &[Name]) -> Asked {
        let announced = self.with(shard, |known| {
            queues.iter().map(|queue| known.entry(queue.clone()).or_default().announced).collect()
        });
        Asked { shard, at: Instant::now(), announced }
    }

    /// Nothing of these queues is due before that.
    pub fn learn(&self, asked: &Asked, queues: &[Name], due_ms: Option<i64>) {
        let bound = Bound { due_ms: due_ms.unwrap_or(i64::MAX), until: asked.at + BELIEVED };
        self.with(asked.shard, |known| {
            for (queue, announced) in queues.iter().zip(&asked.announced) {
                let known = known.entry(queue.clone()).or_default();
                if known.announced == *announced {
                    known.bound = Some(bound);
                }
            }
        });
    }

    /// When a shard may have something of these queues; `None`: ask it.
    pub fn next(&self, shard: u16, queues: &[Name]) -> Option<i64> {
        let now = Instant::now();
        let bound = |known: &Known| known.bound.filter(|bound| bound.until > now);
        self.with(shard, |known| {
            let bounds = queues.iter().map(|queue| Some(bound(known.get(queue)?)?.due_ms));
            bounds.collect::<Option<Vec<_>>>()?.into_iter().min()
        })
    }

    /// Nothing is known any more, nor from claims that are under way.
    pub fn clear(&self) {
        for shard in &self.0 {
            for known in shard.lock().unwrap_or_else(PoisonError::into_inner).values_mut() {
                *known = Known { bound: None, announced: known.announced + 1 };
            }
        }
    }

    fn with<T: Default>(&self, shard: u16, work: impl FnOnce(&mut HashMap<Name, Known>) -> T) -> T {
        let shard = self.0.get(usize::from(shard));
        shard.map(|known| work(&mut known.lock().unwrap_or_else(PoisonError::into_inner))).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues() -> Vec<Name> {
        Name::new("q").into_iter().collect()
    }

    #[test]
    fn a_bound_falls_with_what_is_announced() {
        let (due, queues) = (Due::new(2), queues());
        assert_eq!(due.next(1, &queues), None);
        let asked = due.ask(1, &queues);
        due.learn(&asked, &queues, Some(70));
        assert_eq!((due.next(0, &queues), due.next(1, &queues)), (None, Some(70)));
        due.announce_anywhere(&queues[0], 50);
        due.announce(1, &queues[0], 60);
        assert_eq!(due.next(1, &queues), Some(50));
        due.clear();
        assert_eq!(due.next(1, &queues), None);
    }

    #[test]
    fn an_answer_from_before_an_announcement_teaches_nothing() {
        let (due, queues) = (Due::new(1), queues());
        let asked = due.ask(0, &queues);
        due.announce(0, &queues[0], 50);
        due.learn(&asked, &queues, None);
        assert_eq!(due.next(0, &queues), None);
        let asked = due.ask(0, &queues);
        due.clear();
        due.learn(&asked, &queues, None);
        assert_eq!(due.next(0, &queues), None);
    }
}
