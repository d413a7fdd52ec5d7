//! Payloads that are blobs, as the engine takes them: new tasks need theirs, and what is known already does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use async_trait::async_trait;
use redrive_coordinator::blobs::{
    BLOB_GRACE_MS, BlobError, BlobKey, BlobStream, Blobs, Depot, Result, Stored, owner,
};
use redrive_coordinator::duties::Sweeper;
use redrive_coordinator::engine::Engine;
use redrive_coordinator::store::Ending;
use redrive_shared::blob::{BlobRef, Content};
use redrive_shared::clock::{Clock, ManualClock};
use redrive_shared::error::ErrorCode;
use redrive_shared::task::TaskState;
use redrive_shared::wire::{EnqueueRequest, EnqueueResult, EnqueueStatus, NewTask};
use tokio_util::sync::CancellationToken;

use super::bed::{MIB, Place};
use crate::support::{Bed, RedisBackend, SqliteBackend, id, raw};

const GRACE_MS: i64 = BLOB_GRACE_MS as i64;

/// Storage that can be away, and can hold up who looks for a blob.
struct Moody {
    blobs: Arc<dyn Blobs>,
    clock: Arc<ManualClock>,
    is_away: AtomicBool,
    held_up_ms: AtomicI64,
}

#[async_trait]
impl Blobs for Moody {
    async fn put(&self, key: &BlobKey, body: BlobStream) -> Result<()> {
        self.blobs.put(key, body).await
    }

    async fn get(&self, key: &BlobKey) -> Result<Option<Stored>> {
        self.blobs.get(key).await
    }

    async fn length(&self, key: &BlobKey) -> Result<Option<u64>> {
        if self.is_away.load(Ordering::Relaxed) {
            return Err(BlobError::Unavailable("it is away".into()));
        }
        let length = self.blobs.length(key).await;
        self.clock.advance_ms(self.held_up_ms.swap(0, Ordering::Relaxed));
        length
    }

    async fn remove(&self, keys: &[BlobKey]) -> Result<()> {
        self.blobs.remove(keys).await
    }

    async fn list(&self, after: Option<&BlobKey>, most: usize) -> Result<Vec<BlobKey>> {
        self.blobs.list(after, most).await
    }

    async fn check(&self) -> Result<()> {
        self.blobs.check().await
    }

    fn describe(&self) -> String {
        self.blobs.describe()
    }
}

/// A coordinator without its sockets.
struct Coordinator {
    bed: Bed,
    storage: Arc<Moody>,
    depot: Arc<Depot>,
    engine: Arc<Engine>,
    _place: Place,
}

impl Coordinator {
    async fn over(bed: Bed) -> Self {
        let place = Place::files();
        let storage = Arc::new(Moody {
            blobs: place.open("one").await.unwrap(),
            clock: Arc::clone(&bed.clock),
            is_away: AtomicBool::new(false),
            held_up_ms: AtomicI64::new(0),
        });
        let clock = Arc::clone(&bed.clock) as Arc<dyn Clock>;
        let blobs = Arc::clone(&storage) as Arc<dyn Blobs>;
        let depot = Arc::new(Depot::new(blobs, Arc::clone(&clock), 64 * MIB as u64, 0));
        owner::take_for(&*storage, &bed.shared().identity().await.unwrap()).await.unwrap();
        let kept = Some(Arc::clone(&depot));
        let engine = Engine::new(bed.shared(), kept, clock, false, true, CancellationToken::new());
        Self { bed, storage, depot, engine, _place: place }
    }

    async fn on_each_store() -> [(&'static str, Self); 2] {
        let sqlite = Self::over(Bed::new(SqliteBackend::new()).await).await;
        let redis = Self::over(Bed::new(RedisBackend::new().await).await).await;
        [("sqlite", sqlite), ("redis", redis)]
    }

    async fn keep(&self, task: &str, json: &str) -> BlobRef {
        self.depot.keep_json(&id(task), &raw(json)).await.unwrap()
    }

    /// Enqueues a task with that payload over the engine.
    async fn enqueue(&self, task: &str, payload: BlobRef) -> EnqueueResult {
        let task = NewTask { id: Some(id(task)), payload_ref: Some(payload), ..NewTask::default() };
        self.engine.enqueue(EnqueueRequest { tasks: vec![task] }).await.unwrap().results.remove(0)
    }

    async fn is_refused(&self, task: &str, payload: BlobRef, code: ErrorCode) {
        let refused = self.enqueue(task, payload).await;
        let error = refused.error.unwrap_or_else(|| panic!("{task} is refused"));
        assert_eq!((refused.status, error.code), (EnqueueStatus::Refused, code));
        assert_eq!(error.at.as_deref(), Some("tasks[0].payload_ref"));
        assert!(self.bed.get(&id(task)).await.unwrap().is_none(), "{task} was made");
    }
}

#[tokio::test]
async fn a_duplicate_is_one_when_its_payload_is_gone_or_the_storage_is_away() {
    for (store, coordinator) in Coordinator::on_each_store().await {
        let (payload, result) = (coordinator.keep("t", "[1]").await, coordinator.keep("t", "[2]").await);
        assert_eq!(coordinator.enqueue("t", payload).await.status, EnqueueStatus::Created, "{store}");
        let lease = coordinator.bed.take_one().await;
        coordinator.bed.finish(&lease, Ending::Done(Some(Content::Blob(result)))).await;
        coordinator.bed.advance(GRACE_MS + 1);
        let sweeper = Sweeper::new(Arc::clone(&coordinator.engine), 1_000).unwrap();
        sweeper.run_once().await.unwrap();
        let unused = coordinator.keep("new", "[1]").await;
        for is_away in [false, true] {
            coordinator.storage.is_away.store(is_away, Ordering::Relaxed);
            let again = coordinator.enqueue("t", payload).await;
            let told = (again.status, again.state, again.result_ref);
            let expected = (EnqueueStatus::Duplicate, Some(TaskState::Succeeded), Some(result));
            assert_eq!(told, expected, "{store}, away: {is_away}: {:?}", again.error);
            let other = coordinator.enqueue("t", BlobRef { blob: unused.blob, ..payload }).await;
            assert_eq!(other.status, EnqueueStatus::Duplicate, "{store}: the same contents");
        }
        coordinator.is_refused("new", unused, ErrorCode::BlobsUnavailable).await;
        coordinator.storage.is_away.store(false, Ordering::Relaxed);
        coordinator.is_refused("new", payload, ErrorCode::UnknownBlob).await;
        assert_eq!(coordinator.enqueue("new", unused).await.status, EnqueueStatus::Created, "{store}");
        coordinator.bed.assert_counts_are_right().await;
    }
}

#[tokio::test]
async fn who_was_held_up_after_it_found_the_payload_makes_no_task_that_refers_to_it() {
    for (store, coordinator) in Coordinator::on_each_store().await {
        let payload = coordinator.keep("t", "[1]").await;
        coordinator.storage.held_up_ms.store(GRACE_MS + 1, Ordering::Relaxed);
        coordinator.is_refused("t", payload, ErrorCode::UnknownBlob).await;
        let sweeper = Sweeper::new(Arc::clone(&coordinator.engine), 1_000).unwrap();
        assert_eq!(sweeper.run_once().await.unwrap().removed, 1, "{store}");
        let payload = coordinator.keep("t", "[1]").await;
        assert_eq!(coordinator.enqueue("t", payload).await.status, EnqueueStatus::Created, "{store}");
    }
}
