//! Group commit: while batches are under way, what comes in gathers, and is the next. Nobody waits for a timer.

use std::collections::HashSet;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redrive_shared::id::TaskId;
use redrive_shared::limits::{BATCH_MAX_ITEMS, BODY_MAX_BYTES};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::store::{Result, StoreError};

/// Calls that may wait; beyond it, callers wait to be let in.
const CALLS_MAX: usize = 1_024;
/// Batches of one kind under way in a shard: Redis has the next one when it is done with one.
const UNDER_WAY_MAX: usize = 2;

/// What can be gathered into batches: no batch holds two items of one task, so that a script can check all before it
/// writes any.
pub(super) trait Item: Send + 'static {
    /// The task.
    fn id(&self) -> &TaskId;
    /// About how many bytes it has.
    fn bytes(&self) -> usize;
}

struct Call<I, O> {
    items: Vec<I>,
    reply: oneshot::Sender<Result<Vec<O>>>,
}

/// Gathers calls of one kind.
pub(super) struct Batcher<I, O> {
    calls: mpsc::Sender<Call<I, O>>,
    task: JoinHandle<()>,
}

impl<I: Item, O: Send + 'static> Batcher<I, O> {
    /// `run` takes a batch and answers each item, in order.
    pub fn start<F>(run: impl Fn(Vec<I>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Vec<O>>> + Send,
    {
        let (calls, mut waiting) = mpsc::channel::<Call<I, O>>(CALLS_MAX);
        let task = tokio::spawn(async move {
            let mut held = None;
            let mut under_way = FuturesUnordered::new();
            loop {
                let first = match held.take() {
                    Some(call) if under_way.len() < UNDER_WAY_MAX => call,
                    Some(call) => {
                        held = Some(call);
                        under_way.next().await;
                        continue;
                    }
                    None => tokio::select! {
                        call = waiting.recv(), if under_way.len() < UNDER_WAY_MAX => match call {
                            Some(call) => call,
                            None => return,
                        },
                        Some(()) = under_way.next() => continue,
                    },
                };
                let mut batch = Gathered::default();
                batch.take(first);
                while let Ok(call) = waiting.try_recv() {
                    if !batch.fits(&call) {
                        held = Some(call);
                        break;
                    }
                    batch.take(call);
                }
                under_way.push(batch.answer(&run));
            }
        });
        Self { calls, task }
    }

    /// Answers each item, in order. Items of one task are done one after the other.
    pub async fn submit(&self, items: Vec<I>) -> Result<Vec<O>> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let bytes: usize = items.iter().map(Item::bytes).sum();
        if bytes <= BODY_MAX_BYTES && items.len() <= BATCH_MAX_ITEMS && distinct(&items) {
            return self.call(items).await;
        }
        let (count, rounds) = (items.len(), rounds(items));
        let mut answers: Vec<Option<O>> = (0..count).map(|_| None).collect();
        for part in rounds.into_iter().flat_map(parts) {
            let (places, items): (Vec<usize>, Vec<I>) = part.into_iter().unzip();
            for (place, outcome) in places.into_iter().zip(self.call(items).await?) {
                answers[place] = Some(outcome);
            }
        }
        answers.into_iter().collect::<Option<_>>().ok_or_else(short)
    }

    async fn call(&self, items: Vec<I>) -> Result<Vec<O>> {
        let (reply, answer) = oneshot::channel();
        let closed = || StoreError::Unavailable("the store is closed".into());
        self.calls.send(Call { items, reply }).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

impl<I, O> Drop for Batcher<I, O> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A script that answered too little: a defect, told as an error and not as a panic.
fn short() -> StoreError {
    StoreError::Corrupt("a script answered fewer items than it was asked".into())
}

struct Gathered<I, O> {
    items: Vec<I>,
    bytes: usize,
    /// Hashes of the tasks, once a second call comes: two that are alike by chance cost a batch of their own.
    ids: HashSet<u64>,
    /// Items whose tasks are among them.
    hashed: usize,
    hasher: RandomState,
    callers: Vec<(usize, oneshot::Sender<Result<Vec<O>>>)>,
}

impl<I, O> Default for Gathered<I, O> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            bytes: 0,
            ids: HashSet::new(),
            hashed: 0,
            hasher: RandomState::new(),
            callers: Vec::new(),
        }
    }
}

impl<I: Item, O> Gathered<I, O> {
    fn fits(&mut self, call: &Call<I, O>) -> bool {
        let bytes: usize = call.items.iter().map(Item::bytes).sum();
        if self.items.len() + call.items.len() > BATCH_MAX_ITEMS || self.bytes + bytes > BODY_MAX_BYTES {
            return false;
        }
        for item in &self.items[self.hashed..] {
            self.ids.insert(self.hasher.hash_one(item.id()));
        }
        self.hashed = self.items.len();
        !call.items.iter().any(|item| self.ids.contains(&self.hasher.hash_one(item.id())))
    }

    fn take(&mut self, call: Call<I, O>) {
        self.bytes += call.items.iter().map(Item::bytes).sum::<usize>();
        self.callers.push((call.items.len(), call.reply));
        if self.items.is_empty() {
            self.items = call.items;
        } else {
            self.items.extend(call.items);
        }
    }

    async fn answer<F: Future<Output = Result<Vec<O>>>>(self, run: &impl Fn(Vec<I>) -> F) {
        let outcome = run(self.items).await;
        // A caller that went away is not answered; its items are done all the same.
        match outcome {
            Ok(answers) => {
                let mut answers = answers.into_iter();
                for (count, caller) in self.callers {
                    let own: Vec<O> = answers.by_ref().take(count).collect();
                    let _ = caller.send(if own.len() == count { Ok(own) } else { Err(short()) });
                }
            }
            Err(error) => {
                for (_, caller) in self.callers {
                    let _ = caller.send(Err(error.clone()));
                }
            }
        }
    }
}

/// Items with their places among all.
type Round<I> = Vec<(usize, I)>;

/// Whether no two are of one task.
pub(super) fn distinct<I: Item>(items: &[I]) -> bool {
    let mut seen = HashSet::with_capacity(items.len());
    items.iter().all(|item| seen.insert(item.id()))
}

/// Splits items so that none holds two of one task, in order.
pub(super) fn rounds<I: Item>(items: Vec<I>) -> Vec<Round<I>> {
    let mut rounds: Vec<(HashSet<TaskId>, Round<I>)> = Vec::new();
    for (place, item) in items.into_iter().enumerate() {
        // After the last round that has the task.
        let after = rounds.iter().rposition(|(ids, _)| ids.contains(item.id())).map_or(0, |last| last + 1);
        if after == rounds.len() {
            rounds.push((HashSet::new(), Vec::new()));
        }
        rounds[after].0.insert(item.id().clone());
        rounds[after].1.push((place, item));
    }
    rounds.into_iter().map(|(_, round)| round).collect()
}

/// Splits a round into parts that each fit into one call of a script, in order. An item that is larger is one alone.
pub(super) fn parts<I: Item>(round: Round<I>) -> Vec<Round<I>> {
    let (mut parts, mut bytes): (Vec<Round<I>>, usize) = (Vec::new(), 0);
    for (place, item) in round {
        bytes += item.bytes();
        match parts.last_mut() {
            Some(part) if bytes <= BODY_MAX_BYTES && part.len() < BATCH_MAX_ITEMS => part.push((place, item)),
            _ => {
                bytes = item.bytes();
                parts.push(vec![(place, item)]);
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// An item and its answer; one above a thousand has so many bytes.
    struct Numbered(TaskId, u32);

    impl Item for Numbered {
        fn id(&self) -> &TaskId {
            &self.0
        }

        fn bytes(&self) -> usize {
            if self.1 > 1_000 { self.1 as usize } else { 8 }
        }
    }

    fn item(id: &str, number: u32) -> Numbered {
        Numbered(TaskId::new(id).unwrap(), number)
    }

    #[tokio::test]
    async fn what_comes_in_meanwhile_is_one_batch_and_each_gets_its_own_answers() {
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let (seen, opened) = (Arc::clone(&sizes), Arc::clone(&gate));
        let batcher = Arc::new(Batcher::start(move |items: Vec<Numbered>| {
            let (seen, opened) = (Arc::clone(&seen), Arc::clone(&opened));
            async move {
                seen.lock().unwrap().push(items.len());
                opened.acquire().await.unwrap().forget();
                Ok(items.iter().map(|item| item.1 * 10).collect::<Vec<_>>())
            }
        }));
        let call = |items: Vec<Numbered>| {
            let batcher = Arc::clone(&batcher);
            tokio::spawn(async move { batcher.submit(items).await.unwrap() })
        };
        let mut first = Vec::new();
        for number in 1..=UNDER_WAY_MAX {
            first.push(call(vec![item(&format!("a{number}"), 1)]));
            while sizes.lock().unwrap().len() < number {
                tokio::task::yield_now().await;
            }
        }
        let (second, third) = (call(vec![item("b", 2), item("c", 3)]), call(vec![item("d", 4)]));
        let clashing = call(vec![item("b", 5), item("b", 6)]);
        while batcher.calls.capacity() > CALLS_MAX - 3 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(10);
        for one in first {
            assert_eq!(one.await.unwrap(), [10]);
        }
        assert_eq!((second.await.unwrap(), third.await.unwrap()), (vec![20, 30], vec![40]));
        assert_eq!(clashing.await.unwrap(), [50, 60]);
        assert_eq!(*sizes.lock().unwrap(), [1, 1, 3, 1, 1]);
    }

    #[tokio::test]
    async fn one_submission_of_large_items_is_several_calls_and_is_answered_in_order() {
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&sizes);
        let batcher = Batcher::start(move |items: Vec<Numbered>| {
            seen.lock().unwrap().push(items.len());
            async move { Ok(items.iter().map(|item| item.1).collect::<Vec<_>>()) }
        });
        const MIB: u32 = 1024 * 1024;
        let numbers = [1, MIB, 2 * MIB, MIB, 3, 5 * MIB, 4, 4 * MIB, 5];
        let items = numbers.iter().enumerate().map(|(place, number)| item(&format!("t{place}"), *number));
        assert_eq!(batcher.submit(items.collect()).await.unwrap(), numbers);
        // A few bytes more than the bound, alone beyond it, and what follows.
        assert_eq!(*sizes.lock().unwrap(), [3, 2, 1, 1, 1, 1]);
        let many = (0..2_500).map(|number| item(&format!("t{number}"), 7)).collect();
        assert_eq!(batcher.submit(many).await.unwrap().len(), 2_500);
        assert_eq!(sizes.lock().unwrap()[6..], [1_000, 1_000, 500]);
    }

    #[tokio::test]
    async fn an_error_reaches_every_caller_of_the_batch() {
        let batcher: Batcher<Numbered, u32> =
            Batcher::start(|_| async { Err(StoreError::Unavailable("gone".into())) });
        assert!(batcher.submit(vec![item("a", 1)]).await.is_err());
    }
}
