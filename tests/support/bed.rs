//! A store under test, its clock, and a way to open it again.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use redrive_coordinator::store::redis::link::LinkOptions;
use redrive_coordinator::store::redis::{RedisConfig, RedisStore};
use redrive_coordinator::store::sqlite::SqliteStore;
use redrive_coordinator::store::{
    Acted, Claim, Claimed, Ending, Enqueue, Enqueued, Extend, Extended, Filter, Run, Settled, Store,
};
use redrive_shared::clock::{Clock, ManualClock};
use redrive_shared::gate::Standing;
use redrive_shared::task::{Lease, StateCounts, TaskState, TaskView};
use redrive_shared::wire::QueueView;
use tempfile::TempDir;

use super::build::{START_MS, claim_of, fence, fixed_policy, id, name, settle_of};
use super::redis::RedisServer;

/// Where a store keeps its data. Opening twice gives the same tasks.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Opens it, anew or again.
    async fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Store>;

    /// Parts of the store that know nothing of each other. What is said of order and turns holds within each of them.
    fn shards(&self) -> u16 {
        1
    }
}

/// The embedded store in a directory that ends with the test.
pub struct SqliteBackend {
    data: PathBuf,
    _scratch: TempDir,
}

impl SqliteBackend {
    pub fn new() -> Self {
        Self::below(fast_directory(), "data")
    }

    /// The store in a directory of that name, there already or not.
    pub fn below(scratch: TempDir, name: &str) -> Self {
        Self { data: scratch.path().join(name), _scratch: scratch }
    }

    pub fn path(&self) -> &Path {
        &self.data
    }
}

#[async_trait]
impl Backend for SqliteBackend {
    async fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Store> {
        Arc::new(SqliteStore::open(&self.data, clock).expect("the store opens"))
    }
}

/// The shared store in a namespace of its own.
pub struct RedisBackend {
    config: RedisConfig,
    /// Its own, unless it is given one.
    _server: Option<RedisServer>,
}

impl RedisBackend {
    /// On a Redis that ends with the test.
    pub async fn new() -> Self {
        let server = RedisServer::start().await;
        Self { config: redis_config(&server.url()), _server: Some(server) }
    }

    /// On servers that are there.
    pub fn at(url: &str, prefix: &str, shards: u16) -> Self {
        let config = RedisConfig { prefix: prefix.to_owned(), shards: Some(shards), ..redis_config(url) };
        Self { config, _server: None }
    }
}

/// A store at that address, with everything else as it is by default.
pub fn redis_config(url: &str) -> RedisConfig {
    let address = url.parse().expect("an address");
    RedisConfig {
        address,
        prefix: "rd".into(),
        shards: None,
        link: LinkOptions::default(),
        memory_limit_percent: 85,
    }
}

#[async_trait]
impl Backend for RedisBackend {
    async fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Store> {
        Arc::new(RedisStore::open(&self.config, Some(clock)).await.expect("the store opens"))
    }

    fn shards(&self) -> u16 {
        self.config.shards.unwrap_or(1)
    }
}

/// A directory where flushing costs nothing, if there is one: what flushes are for is tested in `durability`.
pub fn fast_directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = tempfile::Builder::new().prefix("redrive-test-").tempdir_in(memory);
    made.or_else(|_| tempfile::tempdir()).expect("a temporary directory")
}

/// A store to play with. Derefs to it.
pub struct Bed {
    pub clock: Arc<ManualClock>,
    backend: Box<dyn Backend>,
    store: Option<Arc<dyn Store>>,
}

impl Deref for Bed {
    type Target = dyn Store;

    fn deref(&self) -> &Self::Target {
        self.store.as_deref().expect("open")
    }
}

impl Bed {
    /// Opens the store as it is.
    pub async fn open(backend: impl Backend + 'static) -> Self {
        let clock = Arc::new(ManualClock::new(START_MS));
        let mut bed = Self { clock, backend: Box::new(backend), store: None };
        bed.reopen().await;
        bed
    }

    /// Opens the store, and makes the queue `default` wait exactly 10 s after a failure.
    pub async fn new(backend: impl Backend + 'static) -> Self {
        let bed = Self::open(backend).await;
        bed.put_queue(&name("default"), fixed_policy(10_000)).await.unwrap();
        bed
    }

    /// Closes the store and opens it again, as a coordinator that was stopped and started.
    pub async fn reopen(&mut self) {
        // First closed, then opened: the store lets nobody else in while it is open.
        self.store = None;
        self.store = Some(self.backend.open(Arc::clone(&self.clock) as Arc<dyn Clock>).await);
    }

    /// The store, for who keeps it.
    pub fn shared(&self) -> Arc<dyn Store> {
        Arc::clone(self.store.as_ref().expect("open"))
    }

    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// See [`Backend::shards`].
    pub fn shards(&self) -> u16 {
        self.backend.shards()
    }

    /// Whether the order of tasks holds across the whole store: a claim takes from several shards in no order.
    pub fn order_is_exact(&self) -> bool {
        self.shards() == 1
    }

    /// Compares ids, with their order where that is exact.
    pub fn assert_order(&self, mut given: Vec<String>, expected: &[&str]) {
        let mut expected = expected.to_vec();
        if !self.order_is_exact() {
            given.sort_unstable();
            expected.sort_unstable();
        }
        assert_eq!(given, expected);
    }

    pub fn advance(&self, by_ms: i64) {
        self.clock.advance_ms(by_ms);
    }

    /// Enqueues one task.
    pub async fn put(&self, task: Enqueue) -> Enqueued {
        let answers = self.enqueue(vec![task]).await.unwrap();
        assert_eq!(answers.len(), 1);
        answers[0]
    }

    /// Enqueues tasks that must all be new.
    pub async fn put_all(&self, tasks: Vec<Enqueue>) {
        for batch in tasks.chunks(1_000) {
            let answers = self.enqueue(batch.to_vec()).await.unwrap();
            assert!(answers.iter().all(|answer| matches!(answer, Enqueued::Created { .. })), "{answers:?}");
        }
    }

    pub async fn claim_one(&self, claim: Claim) -> Claimed {
        let mut answers = self.claim(vec![claim], &[]).await.unwrap();
        assert_eq!(answers.len(), 1);
        answers.remove(0)
    }

    /// Claims up to `max` tasks of the queue `default`.
    pub async fn take(&self, max: usize) -> Vec<Lease> {
        self.claim_one(claim_of(max)).await.leases
    }

    /// Claims the one task that is due.
    pub async fn take_one(&self) -> Lease {
        let mut leases = self.take(2).await;
        assert_eq!(leases.len(), 1, "exactly one task is due");
        leases.remove(0)
    }

    /// Claims up to `max` tasks of the queue `default`; their leases in order of the ids.
    pub async fn take_by_id(&self, max: usize) -> Vec<Lease> {
        let mut leases = self.take(max).await;
        leases.sort_by(|one, other| one.id.cmp(&other.id));
        leases
    }

    /// Claims and returns ids, in the order given.
    pub async fn take_ids(&self, max: usize) -> Vec<String> {
        self.take(max).await.iter().map(|lease| lease.id.to_string()).collect()
    }

    /// Enqueues a task and claims it.
    pub async fn put_and_take(&self, task: Enqueue) -> Lease {
        self.put_all(vec![task]).await;
        self.take_one().await
    }

    pub async fn extend_one(&self, lease: &Lease, lease_ms: Option<u64>) -> Extended {
        let item = Extend { id: lease.id.clone(), fence: fence(lease), lease_ms, run: None };
        let answers = self.extend(vec![item]).await.unwrap();
        assert_eq!(answers.len(), 1);
        answers[0]
    }

    /// A run begins with the work on a lease that another claimed.
    pub async fn take_over(&self, lease: &Lease, agent: &str, boot_id: &str) -> Extended {
        let run = Some(Run { agent: name(agent), boot_id: name(boot_id) });
        let item = Extend { id: lease.id.clone(), fence: fence(lease), lease_ms: None, run };
        self.extend(vec![item]).await.unwrap()[0]
    }

    /// Says that the work on a lease has begun.
    pub async fn start(&self, lease: &Lease) {
        assert!(matches!(self.extend_one(lease, None).await, Extended::Until(_)));
    }

    pub async fn settle_one(&self, lease: &Lease, ending: Ending) -> Settled {
        let mut answers = self.settle(vec![settle_of(lease, ending)]).await.unwrap();
        assert_eq!(answers.len(), 1);
        answers.remove(0)
    }

    /// Settles a lease that must hold; returns the state after it and when the task runs again.
    pub async fn finish(&self, lease: &Lease, ending: Ending) -> (TaskState, i64) {
        match self.settle_one(lease, ending).await {
            Settled::Applied { state, due_ms, .. } => (state, due_ms),
            other => panic!("the lease holds, but: {other:?}"),
        }
    }

    pub async fn cancel_one(&self, task: &str) -> Acted {
        self.cancel(vec![id(task)], None).await.unwrap()[0]
    }

    pub async fn retry_one(&self, task: &str) -> Acted {
        self.retry(vec![id(task)], None, Standing::OPEN).await.unwrap()[0]
    }

    /// The task, which must be known.
    pub async fn view(&self, task: &str) -> TaskView {
        self.get(&id(task)).await.unwrap().unwrap_or_else(|| panic!("{task} is known"))
    }

    pub async fn state(&self, task: &str) -> TaskState {
        self.view(task).await.state
    }

    pub async fn queue(&self, queue: &str) -> QueueView {
        let queues = self.queues().await.unwrap();
        queues.into_iter().find(|view| &*view.name == queue).unwrap_or_else(|| panic!("{queue} is known"))
    }

    /// Every task, by pages.
    pub async fn everything(&self) -> Vec<TaskView> {
        let (mut tasks, mut cursor) = (Vec::new(), None);
        loop {
            let page = self.list(Filter { cursor, limit: 100, ..Filter::default() }).await.unwrap();
            tasks.extend(page.tasks);
            cursor = page.next_cursor;
            if cursor.is_none() {
                return tasks;
            }
        }
    }

    /// The counters that the store keeps must be what counting finds.
    pub async fn assert_counts_are_right(&self) {
        let tasks = self.everything().await;
        for queue in self.queues().await.unwrap() {
            let mut recount = StateCounts::default();
            for task in tasks.iter().filter(|task| task.queue == queue.name) {
                *recount.of(task.state) += 1;
            }
            assert_eq!(queue.counts, recount, "counters of {}", queue.name);
            let leased = self.leased(&queue.name).await.unwrap();
            assert_eq!(leased, recount.leased.unsigned_abs(), "leased of {}", queue.name);
        }
    }
}
