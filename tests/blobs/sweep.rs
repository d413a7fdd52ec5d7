//! The sweep: what nothing refers to is removed, and nothing else is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use redrive_coordinator::blobs::{BLOB_GRACE_MS, BlobKey, BlobStream, Blobs, Depot, Result, Stored, owner};
use redrive_coordinator::duties::{Sweeper, Swept};
use redrive_coordinator::engine::Engine;
use redrive_coordinator::store::{Ending, Enqueue};
use redrive_shared::blob::{BlobId, BlobRef, Content};
use redrive_shared::clock::Clock;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::bed::{MIB, Place, body, body_that_stops, bytes};
use crate::support::redis::RedisServer;
use crate::support::wait::eventually;
use crate::support::{Bed, RedisBackend, SqliteBackend, checkpoint, id, raw, save_of, task};

const GRACE_MS: i64 = BLOB_GRACE_MS as i64;
const HOUR_MS: i64 = 3_600_000;
const PATIENCE: Duration = Duration::from_secs(10);

/// Storage that counts how often it is listed.
struct Counted {
    blobs: Arc<dyn Blobs>,
    lists: AtomicUsize,
}

#[async_trait]
impl Blobs for Counted {
    async fn put(&self, key: &BlobKey, body: BlobStream) -> Result<()> {
        self.blobs.put(key, body).await
    }

    async fn get(&self, key: &BlobKey) -> Result<Option<Stored>> {
        self.blobs.get(key).await
    }

    async fn length(&self, key: &BlobKey) -> Result<Option<u64>> {
        self.blobs.length(key).await
    }

    async fn remove(&self, keys: &[BlobKey]) -> Result<()> {
        self.blobs.remove(keys).await
    }

    async fn list(&self, after: Option<&BlobKey>, most: usize) -> Result<Vec<BlobKey>> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        self.blobs.list(after, most).await
    }

    async fn check(&self) -> Result<()> {
        self.blobs.check().await
    }

    fn describe(&self) -> String {
        self.blobs.describe()
    }
}

/// A store, and storage of blobs beside it, under one clock.
struct Fleet {
    bed: Bed,
    storage: Arc<Counted>,
    depot: Arc<Depot>,
    stop: CancellationToken,
    _stop: DropGuard,
    _place: Place,
}

impl Fleet {
    async fn over(bed: Bed) -> Self {
        let place = Place::files();
        let storage =
            Arc::new(Counted { blobs: place.open("one").await.unwrap(), lists: AtomicUsize::new(0) });
        let clock = Arc::clone(&bed.clock) as Arc<dyn Clock>;
        let depot = Depot::new(Arc::clone(&storage) as Arc<dyn Blobs>, clock, 64 * MIB as u64, 0).into();
        owner::take_for(&*storage, &bed.shared().identity().await.unwrap()).await.unwrap();
        let stop = CancellationToken::new();
        let _stop = stop.clone().drop_guard();
        Self { bed, storage, depot, stop, _stop, _place: place }
    }

    async fn new() -> Self {
        Self::over(Bed::new(SqliteBackend::new()).await).await
    }

    /// The sweeper of another coordinator.
    fn sweeper(&self, every_ms: i64) -> Sweeper {
        let clock = Arc::clone(&self.bed.clock) as Arc<dyn Clock>;
        let depot = Some(Arc::clone(&self.depot));
        let engine = Engine::new(self.bed.shared(), depot, clock, false, true, self.stop.clone());
        Sweeper::new(engine, every_ms.unsigned_abs()).expect("there are blobs")
    }

    async fn sweep(&self) -> Swept {
        self.sweeper(HOUR_MS).run_once().await.unwrap()
    }

    /// What is there, but for what says whose it is.
    async fn left(&self) -> Vec<BlobKey> {
        let all = self.storage.list(None, 2_000).await.unwrap();
        all.into_iter().filter(|key| *key != owner::mark()).collect()
    }

    async fn keep(&self, task: &str, json: &str) -> BlobRef {
        self.depot.keep_json(&id(task), &raw(json)).await.unwrap()
    }

    async fn is_there(&self, task: &str, blob: &BlobRef) -> bool {
        self.depot.fetch(&id(task), blob.blob).await.unwrap().is_some()
    }
}

fn referring(text: &str, blob: BlobRef) -> Enqueue {
    Enqueue { payload: Content::Blob(blob), ..task(text) }
}

fn swept(removed: u64, kept: u64) -> Swept {
    Swept { removed, kept }
}

#[tokio::test]
async fn what_nothing_refers_to_is_removed_after_its_time_and_the_rest_when_its_task_is_forgotten() {
    let fleet = Fleet::new().await;
    let orphan = fleet.keep("task", "1").await;
    let (payload, result) = (fleet.keep("task", "2").await, fleet.keep("task", "3").await);
    let nobodys = fleet.keep("nobody", "4").await;
    fleet.bed.put(referring("task", payload)).await;
    assert_eq!(fleet.sweep().await, swept(0, 0), "an upload takes a while to be referred to");
    let lease = fleet.bed.take(1).await.remove(0);
    fleet.bed.finish(&lease, Ending::Done(Some(Content::Blob(result)))).await;
    fleet.bed.advance(GRACE_MS);
    assert_eq!(fleet.sweep().await, swept(0, 0), "not before its time");
    fleet.bed.advance(1);
    assert_eq!(fleet.sweep().await, swept(2, 2));
    assert!(!fleet.is_there("task", &orphan).await && !fleet.is_there("nobody", &nobodys).await);
    assert!(fleet.is_there("task", &payload).await && fleet.is_there("task", &result).await);
    fleet.bed.advance(48 * HOUR_MS);
    assert_eq!(fleet.sweep().await, swept(0, 2), "as long as the task is known");
    assert_eq!(fleet.bed.forget(10).await.unwrap(), 1);
    assert_eq!(fleet.sweep().await, swept(2, 0));
    assert_eq!(fleet.left().await, []);
}

#[tokio::test]
async fn a_task_that_cannot_be_read_keeps_its_blobs_and_stops_nothing() {
    let backend = SqliteBackend::new();
    let file = backend.path().join("redrive.sqlite");
    let fleet = Fleet::over(Bed::new(backend).await).await;
    let mut kept = Vec::new();
    for task in ["damaged", "newer", "whole"] {
        kept.push((task, fleet.keep(task, "1").await, fleet.keep(task, "2").await));
    }
    let nobodys = fleet.keep("zzz", "3").await;
    fleet.bed.put_all(kept.iter().map(|(task, payload, _)| referring(task, *payload)).collect()).await;
    let leases = fleet.bed.take(3).await;
    let saves = leases.iter().map(|lease| save_of(lease, checkpoint(1, "s"))).collect();
    fleet.bed.save_checkpoints(saves).await.unwrap();
    let behind = rusqlite::Connection::open(&file).unwrap();
    let of = |table: &str, set: &str, task: &str| {
        let change =
            format!("UPDATE {table} SET {set} WHERE seq = (SELECT seq FROM tasks WHERE id = '{task}')");
        assert_eq!(behind.execute(&change, []).unwrap(), 1);
    };
    of("checkpoints", "progress = '{'", "damaged");
    of("bodies", "payload = '@2{}'", "newer");
    fleet.bed.advance(GRACE_MS + 1);
    assert_eq!(fleet.sweep().await, swept(2, 5), "all of the two, and of the third what it refers to");
    for (task, payload, unused) in &kept {
        assert!(fleet.is_there(task, payload).await, "{task}");
        assert_eq!(fleet.is_there(task, unused).await, *task != "whole", "{task}");
    }
    assert!(!fleet.is_there("zzz", &nobodys).await);
}

#[tokio::test]
async fn what_says_whose_the_storage_is_stays() {
    let fleet = Fleet::new().await;
    let mark = owner::mark();
    // A task of the same name has blobs like any other.
    let orphan = fleet.keep(&mark.task, "1").await;
    fleet.bed.advance(GRACE_MS + 1);
    assert_eq!(fleet.sweep().await, swept(1, 0));
    assert!(!fleet.is_there(&mark.task, &orphan).await);
    assert_eq!(fleet.storage.list(None, 10).await.unwrap(), [mark]);
}

#[tokio::test]
async fn a_store_that_was_emptied_takes_nothing_along() {
    let redis = RedisServer::start().await;
    let fleet = Fleet::over(Bed::new(RedisBackend::at(&redis.url(), "rd", 1)).await).await;
    let payload = fleet.keep("task", "1").await;
    fleet.bed.put(referring("task", payload)).await;
    fleet.bed.advance(GRACE_MS + 1);
    assert_eq!(fleet.sweep().await, swept(0, 1));
    redis.command(&["FLUSHALL"]).await;
    let ended = fleet.sweeper(HOUR_MS).run_once().await.unwrap_err().to_string();
    assert!(ended.contains("belong to the store"), "{ended}");
    assert!(fleet.is_there("task", &payload).await, "it may be restored");
}

#[tokio::test]
async fn what_an_upload_left_that_was_cut_off_is_removed() {
    let fleet = Fleet::new().await;
    let key = BlobKey { task: id("task"), blob: BlobId::new(fleet.bed.now_ms(), [1; 10]) };
    // It never ends and is never dropped, as after kill -9.
    let storage = Arc::clone(&fleet.storage);
    let cut_off = key.clone();
    let putting = tokio::spawn(async move { storage.put(&cut_off, body_that_stops(bytes(3 * MIB))).await });
    eventually("the upload has begun", PATIENCE, async || (!fleet.left().await.is_empty()).then_some(()))
        .await;
    fleet.bed.advance(GRACE_MS + 1);
    assert_eq!(fleet.sweep().await, swept(1, 0));
    assert_eq!(fleet.left().await, []);
    putting.abort();
}

#[tokio::test]
async fn one_coordinator_sweeps_for_all() {
    let fleet = Fleet::new().await;
    let (one, other) = (fleet.sweeper(HOUR_MS), fleet.sweeper(HOUR_MS));
    fleet.keep("nobody", "1").await;
    fleet.bed.advance(GRACE_MS + 1);
    assert_eq!(one.run_in_turn().await.unwrap(), Some(swept(1, 0)));
    let lists = fleet.storage.lists.load(Ordering::Relaxed);
    fleet.bed.advance(HOUR_MS - 1);
    assert_eq!(other.run_in_turn().await.unwrap(), None, "one did, within the hour");
    assert_eq!(fleet.storage.lists.load(Ordering::Relaxed), lists, "nothing was listed");
    // Whoever had it may be gone.
    fleet.bed.advance(1);
    assert_eq!(other.run_in_turn().await.unwrap(), Some(swept(0, 0)));
    assert_eq!(one.run_in_turn().await.unwrap(), None);
}

#[tokio::test]
async fn all_pages_are_swept() {
    let fleet = Fleet::new().await;
    // More tasks than names of a directory are read at once, and some with two.
    for number in 0..1_205_u32 {
        let blob = BlobId::new(fleet.bed.now_ms(), [(number / 1_150) as u8; 10]);
        let key = BlobKey { task: id(&format!("t{}", number % 1_150)), blob };
        fleet.storage.put(&key, body(b"{}".to_vec())).await.unwrap();
    }
    fleet.bed.advance(GRACE_MS + 1);
    assert_eq!(fleet.sweep().await, swept(1_205, 0));
    assert_eq!(fleet.left().await, []);
}

#[tokio::test]
async fn while_the_store_does_not_answer_nothing_is_removed() {
    let mut server = RedisServer::start().await;
    let fleet = Fleet::over(Bed::new(RedisBackend::at(&server.url(), "rd", 1)).await).await;
    let orphan = fleet.keep("task", "1").await;
    fleet.bed.advance(GRACE_MS + 1);
    let sweeper = fleet.sweeper(HOUR_MS);
    server.kill();
    let error = sweeper.run_once().await.unwrap_err();
    assert!(error.to_string().contains("does not answer"), "{error}");
    assert!(fleet.is_there("task", &orphan).await);
}

#[tokio::test]
async fn of_several_coordinators_one_sweeps() {
    const EVERY_MS: i64 = HOUR_MS / 2;
    let fleet = Fleet::new().await;
    let sweepers: Vec<Arc<Sweeper>> = (0..3).map(|_| Arc::new(fleet.sweeper(EVERY_MS))).collect();
    for sweeper in &sweepers {
        let (sweeper, stop) = (Arc::clone(sweeper), fleet.stop.clone());
        tokio::spawn(async move { sweeper.run(stop).await });
    }
    // Each comes at its own time within the first half; the others come when one has swept, and find that it did.
    let lists = || fleet.storage.lists.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(lists(), 0, "none comes at once");
    fleet.bed.advance(EVERY_MS / 2);
    eventually("one sweeps", PATIENCE, async || (lists() > 0).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(lists(), 1, "and no other");
    fleet.bed.advance(EVERY_MS);
    eventually("one sweeps again", PATIENCE, async || (lists() > 1).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(lists(), 2);
}
