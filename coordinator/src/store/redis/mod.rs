//! The shared store: tasks in Redis, one key each, and sorted sets by due time. Any number of coordinators work on it at
//! once; none of them leads.
//!
//! The keys are in `keys`, a task's value in `value`, the scripts in `lua/`. Who may change a task is decided where it
//! is written: [`crate::store::Store::claim`] is one script; everything else is decided by the pure
//! lifecycle from what was read (or handed out by this coordinator: `held`) and written by one script that first
//! compares the fence. The clock is Redis's.

pub mod address;
mod agents;
mod aside;
mod ask;
mod batcher;
mod beside;
mod bytes;
mod checkpoints;
mod claim;
mod clock;
mod commands;
pub mod doctor;
mod due;
mod enqueue;
mod fetch;
mod gates;
mod given;
mod held;
mod hints;
mod history;
mod keys;
mod lease;
pub mod link;
mod locks;
mod lost;
mod open;
mod operate;
mod pauses;
mod policies;
mod queues;
mod reach;
mod read;
mod reap;
mod reply;
mod room;
mod scripts;
mod transition;
mod value;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use redis::Value;
use redrive_shared::blob::BlobId;
use redrive_shared::checkpoint::Progress;
use redrive_shared::clock::Clock;
use redrive_shared::gate::Standing;
use redrive_shared::id::{Name, TaskId};
use redrive_shared::lock::{Answers, Resource, Verb};
use redrive_shared::retry::RetryPolicy;
use redrive_shared::task::TaskView;
use redrive_shared::wire::{AgentView, BreakerCommand, Heartbeat, PolicyVersion, QueueView};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

use self::agents::Gone;
use self::batcher::{Batcher, Item};
use self::checkpoints::Sizes;
use self::clock::Time;
use self::due::Due;
use self::enqueue::New;
use self::held::Held;
use self::keys::Keys;
use self::link::{Call, Link};
pub use self::open::RedisConfig;
use self::queues::Books;
use self::reach::{Part, Reach};
use self::room::Room;
use self::transition::{Change, Changed};
pub use self::value::STORED;
use super::{
    Acted, Arrival, Beaten, CheckpointSaved, Claim, Claimed, CommandBreaker, Enqueue, Enqueued, Extend,
    Extended, Filter, GateSwap, GateSwapped, Gates, Hint, Listed, Locks, LostAttempt, PolicyChange,
    PolicyPut, Reap, Restriction, Result, SaveCheckpoint, Settle, Settled, Store, StoreError,
};

/// A handle to the shared store.
pub struct RedisStore {
    inner: Arc<Inner>,
    /// What listens and looks, until the store is closed.
    looking: [JoinHandle<()>; 2],
}

/// What the verbs need.
struct Inner {
    link: Link,
    keys: Keys,
    time: Time,
    /// Which coordinator this is: its own hints tell it nothing.
    origin: String,
    books: Books,
    held: Held,
    due: Due,
    gone: Gone,
    /// Bytes that a task's value is taken to have: how many to read at once.
    value_bytes: AtomicUsize,
    /// The same of what tasks saved.
    checkpoint_bytes: Sizes,
    room: Room,
    /// Since when each part of the store could be reached: silence before that proves nothing.
    reach: Reach,
    hints: broadcast::Sender<Hint>,
    shards: std::sync::OnceLock<Vec<Shard>>,
}

/// One shard's batches under way.
struct Shard {
    enqueue: Batcher<New, Enqueued>,
    extend: Batcher<Extend, Extended>,
    save: Batcher<SaveCheckpoint, CheckpointSaved>,
    transition: Batcher<Change, Changed>,
    ordinals: Ordinals,
}

/// The next ordinal of a shard, as far as this coordinator knows: where another was faster, the script takes later ones.
#[derive(Default)]
struct Ordinals(AtomicI64);

impl Ordinals {
    /// Takes `count` in a row; returns the first.
    fn take(&self, now_us: i64, count: usize) -> i64 {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let next = |last: i64| now_us.max(last).saturating_add(count);
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
        before.map_or(now_us, |last| now_us.max(last))
    }
}

impl Inner {
    /// Runs a shard's script that writes, and learns the time from it.
    async fn write(&self, shard: u16, call: Call) -> Result<Value> {
        let sent = Instant::now();
        let reply = self.noted(Part::Shard(shard), self.link.write(call)).await?;
        self.learn_time(sent, &reply);
        Ok(reply)
    }

    /// The same, with values that go past the script. None: nothing was done.
    async fn write_past(&self, shard: u16, call: &Call, values: &[(String, &[u8])]) -> Result<Option<Value>> {
        let (sent, sent_ms) = (Instant::now(), self.now_ms());
        let outcome =
            self.link.gated(call, &self.keys.of_shard(shard, &format!("gate:{}", self.origin)), values).await;
        // One that was refused says nothing of whether the shard can be reached; what comes after it does.
        if !matches!(outcome, Ok(None)) {
            self.reach.note(Part::Shard(shard), sent_ms, self.now_ms(), &outcome);
        }
        let reply = outcome?;
        if let Some(reply) = &reply {
            self.learn_time(sent, reply);
        }
        Ok(reply)
    }

    /// Makes a call, and notes whether the part of the store could be reached.
    async fn noted<T>(&self, part: Part, call: impl Future<Output = Result<T>>) -> Result<T> {
        let sent_ms = self.now_ms();
        let outcome = call.await;
        self.reach.note(part, sent_ms, self.now_ms(), &outcome);
        outcome
    }

    fn learn_time(&self, sent: Instant, reply: &Value) {
        if let Some(now_us) = enqueue::time_of(reply) {
            self.time.observe(sent, now_us);
        }
    }

    fn now_ms(&self) -> i64 {
        self.time.now_us().div_euclid(1_000)
    }

    fn shard(&self, shard: u16) -> &Shard {
        let shards = self.shards.get().map(Vec::as_slice).unwrap_or_default();
        &shards[usize::from(shard) % shards.len().max(1)]
    }

    /// Does items in batches, each in the shard of its task. Answers in order.
    async fn submit<I: Item, O: Send + 'static>(
        &self,
        items: Vec<I>,
        batcher: fn(&Shard) -> &Batcher<I, O>,
    ) -> Result<Vec<O>> {
        if self.keys.shards() == 1 {
            return batcher(self.shard(0)).submit(items).await;
        }
        let mut answers: Vec<Option<O>> = items.iter().map(|_| None).collect();
        let mut shards: HashMap<u16, (Vec<usize>, Vec<I>)> = HashMap::new();
        for (place, item) in items.into_iter().enumerate() {
            let (places, items) = shards.entry(self.keys.shard_of(item.id())).or_default();
            places.push(place);
            items.push(item);
        }
        let calls = shards.into_iter().map(|(shard, (places, items))| async move {
            Ok::<_, StoreError>((places, batcher(self.shard(shard)).submit(items).await?))
        });
        for (places, outcomes) in futures_util::future::try_join_all(calls).await? {
            for (place, outcome) in places.into_iter().zip(outcomes) {
                answers[place] = Some(outcome);
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.looking.iter().for_each(JoinHandle::abort);
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn enqueue(&self, batch: Vec<Enqueue>) -> Result<Vec<Enqueued>> {
        room::require(&self.inner, &batch).await?;
        self.inner.enqueue(batch).await
    }

    async fn claim(&self, batch: Vec<Claim>, gates: &[Restriction]) -> Result<Vec<Claimed>> {
        self.inner.claim(batch, gates).await
    }

    async fn extend(&self, batch: Vec<Extend>) -> Result<Vec<Extended>> {
        self.inner.extend(batch).await
    }

    async fn settle(&self, batch: Vec<Settle>) -> Result<Vec<Settled>> {
        self.inner.settle(batch).await
    }

    async fn reap(&self, limit: usize) -> Result<Reap> {
        self.inner.reap(limit).await
    }

    async fn arrive(&self, agent: &Name, boot_id: &Name) -> Result<Arrival> {
        self.inner.arrive(&keys::run_name(agent, Some(boot_id))).await
    }

    async fn expire_leases(&self, agent: &Name, boot_id: &Name, arrival: Arrival) -> Result<usize> {
        self.inner.expire_departed(&keys::run_name(agent, Some(boot_id)), arrival).await
    }

    async fn forget(&self, limit: usize) -> Result<usize> {
        self.inner.forget(limit).await
    }

    async fn cancel(&self, ids: Vec<TaskId>, reason: Option<String>) -> Result<Vec<Acted>> {
        self.inner.cancel(&ids, reason.as_deref()).await
    }

    async fn retry(
        &self,
        ids: Vec<TaskId>,
        reason: Option<String>,
        standing: &Standing,
    ) -> Result<Vec<Acted>> {
        self.inner.retry(&ids, reason.as_deref(), standing).await
    }

    async fn save_checkpoints(&self, batch: Vec<SaveCheckpoint>) -> Result<Vec<CheckpointSaved>> {
        self.inner.save_checkpoints(batch).await
    }

    async fn progress(&self, id: &TaskId) -> Result<Option<Progress>> {
        self.inner.progress(id).await
    }

    async fn blobs(&self, ids: &[TaskId]) -> Result<Vec<Option<Vec<BlobId>>>> {
        self.inner.blobs(ids).await
    }

    async fn get(&self, id: &TaskId) -> Result<Option<TaskView>> {
        self.inner.get(id).await
    }

    async fn status(&self, ids: Vec<TaskId>) -> Result<Vec<TaskView>> {
        self.inner.status(&ids).await
    }

    async fn list(&self, filter: Filter) -> Result<Listed> {
        self.inner.list(&filter).await
    }

    async fn make_queue(&self, name: &Name) -> Result<()> {
        self.inner.make_queue(name).await
    }

    async fn put_queues(&self, change: PolicyChange) -> Result<PolicyPut> {
        self.inner.put_queues(&change).await
    }

    async fn policy_versions(&self, queue: &Name) -> Result<Vec<PolicyVersion>> {
        self.inner.policy_versions(queue).await
    }

    async fn pause(&self, name: &Name, paused: bool) -> Result<bool> {
        self.inner.pause_queue(name, paused).await
    }

    fn has_queue(&self, name: &Name) -> bool {
        self.inner.books.get().queues.contains_key(name)
    }

    fn policy(&self, name: &Name) -> Option<Arc<RetryPolicy>> {
        self.inner.books.get().queues.get(name).map(|queue| Arc::clone(&queue.policy))
    }

    fn queue_names(&self) -> Vec<Name> {
        self.inner.books.get().queues.keys().cloned().collect()
    }

    async fn learn_queues(&self) -> Result<()> {
        self.inner.refresh_book().await
    }

    async fn queues(&self) -> Result<Vec<QueueView>> {
        self.inner.queue_views().await
    }

    async fn leased(&self, queue: &Name) -> Result<u64> {
        self.inner.leased(queue).await
    }

    async fn gates(&self, seen: i64) -> Result<Option<Gates>> {
        self.inner.gates(seen).await
    }

    async fn swap_gates(&self, batch: Vec<GateSwap>) -> Result<Vec<GateSwapped>> {
        self.inner.swap_gates(&batch).await
    }

    async fn lock(&self, verbs: Vec<Verb>) -> Result<Answers> {
        self.inner.lock(verbs).await
    }

    async fn locks(&self, resource: Option<&Resource>, most: usize) -> Result<Locks> {
        self.inner.locks(resource, most).await
    }

    async fn heartbeat(&self, beat: Heartbeat) -> Result<Beaten> {
        self.inner.heartbeat(beat).await
    }

    async fn command_breaker(&self, wanted: CommandBreaker) -> Result<Option<BreakerCommand>> {
        self.inner.command_breaker(&wanted).await
    }

    async fn count_lost(&self, lost: Vec<LostAttempt>) -> Result<()> {
        self.inner.count_lost(&lost).await
    }

    async fn agents(&self) -> Result<Vec<AgentView>> {
        self.inner.agents().await
    }

    async fn identity(&self) -> Result<String> {
        self.inner.identity().await
    }

    async fn check(&self) -> Result<()> {
        self.inner.check().await
    }

    fn clock(&self) -> Option<Arc<dyn Clock>> {
        Some(self.inner.time.clock())
    }

    fn hints(&self) -> Option<broadcast::Receiver<Hint>> {
        Some(self.inner.hints.subscribe())
    }
}
