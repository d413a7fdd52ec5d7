//! Removes blobs that no task refers to: uploads that nothing came of, and what tasks left that are forgotten.
//!
//! A blob is removed only when it is older than anything that could still come to be referred to, and the store, asked after
//! that, knows of no reference. Of a task that cannot be read everything is kept, and the others are swept. Where the store or the
//! storage fails, or the store is not the one whose storage it is, nothing more is removed until the next time.

use std::sync::Arc;

use redrive_shared::blob::BlobId;
use redrive_shared::id::{Name, TaskId};
use redrive_shared::lock::{Owner, Resource};
use tokio_util::sync::CancellationToken;

use crate::blobs::{BLOB_GRACE_MS, BlobError, BlobKey, owner};
use crate::engine::Engine;
use crate::metrics::record_sweep;
use crate::store::StoreError;

/// Blobs that are listed at once.
const PAGE: usize = 1_000;
/// Most tasks that the store is asked about in one call, so that claims are not held up.
const TASKS: usize = 100;
/// What is locked while one coordinator sweeps for all.
const TURN: &str = "redrive/sweep-of-blobs";

/// What a sweep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Blobs removed.
    pub removed: u64,
    /// Blobs that are old enough, and referred to, or of a task that cannot be read.
    pub kept: u64,
}

/// Why a sweep ended early.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The store could not say what is referred to.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The storage could not list, or remove.
    #[error(transparent)]
    Blobs(#[from] BlobError),
}

/// The duty.
pub struct Sweeper {
    engine: Arc<Engine>,
    every_ms: u64,
    /// As what this coordinator takes its turn, where there are several.
    me: Option<(Resource, Owner)>,
}

impl Sweeper {
    /// A sweeper of this engine's blobs, once in so many milliseconds. None: it keeps none.
    pub fn new(engine: Arc<Engine>, every_ms: u64) -> Option<Self> {
        engine.depot()?;
        let name = Name::new(format!("coordinator-{:016x}", rand::random::<u64>())).ok();
        let me = Resource::new(TURN).ok().zip(name.map(|name| Owner::Named { name }));
        Some(Self { engine, every_ms, me })
    }

    /// Works until shutdown.
    pub async fn run(&self, shutdown: CancellationToken) {
        let clock = self.engine.clock();
        // Coordinators that start together do not come together, and one that is restarted again and again gets to it.
        let first_ms = rand::random_range(0..=self.every_ms / 2);
        let mut next_ms = clock.now_ms().saturating_add_unsigned(first_ms);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = clock.sleep_until(next_ms) => {}
            }
            if clock.now_ms() < next_ms {
                continue;
            }
            let sweeping = self.run_in_turn();
            match shutdown.run_until_cancelled(sweeping).await {
                None => return,
                Some(Ok(Some(swept))) => tracing::debug!(?swept, "blobs were swept"),
                Some(Ok(None)) => tracing::debug!("another coordinator sweeps the blobs"),
                Some(Err(error)) => tracing::warn!(%error, "cannot sweep the blobs; trying again next time"),
            }
            next_ms = clock.now_ms().saturating_add_unsigned(self.every_ms);
        }
    }

    /// Sweeps, unless another coordinator does, or did within the time between two sweeps: a list of everything costs.
    pub async fn run_in_turn(&self) -> Result<Option<Swept>, SweepError> {
        if let Some((resource, owner)) = &self.me
            && !self.engine.take_turn(resource.clone(), owner.clone(), self.every_ms).await?
        {
            return Ok(None);
        }
        self.run_once().await.map(Some)
    }

    /// Sweeps once, from the first blob to the last.
    pub async fn run_once(&self) -> Result<Swept, SweepError> {
        let mut swept = Swept::default();
        let Some(depot) = self.engine.depot() else { return Ok(swept) };
        // A store that was emptied knows of no reference, and has another name.
        owner::check(depot.blobs(), &self.engine.store().identity().await?).await?;
        let (mut after, mark) = (None, owner::mark());
        loop {
            let listed = depot.blobs().list(after.as_ref(), PAGE).await?;
            let old_ms = depot.now_ms().saturating_sub_unsigned(BLOB_GRACE_MS);
            let (more, last) = (listed.len() == PAGE, listed.last().cloned());
            let is_old = |key: &BlobKey| key.blob.made_at_ms() < old_ms && *key != mark;
            let old: Vec<BlobKey> = listed.into_iter().filter(is_old).collect();
            // In the order of the list, all of a task's together.
            for batch in by_task(&old).chunks(TASKS) {
                self.sweep(batch, &mut swept).await?;
            }
            match last {
                Some(last) if more => after = Some(last),
                _ => return Ok(swept),
            }
        }
    }

    async fn sweep(&self, tasks: &[&[BlobKey]], swept: &mut Swept) -> Result<(), SweepError> {
        let Some(depot) = self.engine.depot() else { return Ok(()) };
        let ids: Vec<TaskId> =
            tasks.iter().filter_map(|keys| keys.first()).map(|key| key.task.clone()).collect();
        let referred: Vec<Option<Vec<BlobId>>> = self.engine.store().blobs(&ids).await?;
        if referred.len() != ids.len() {
            return Err(StoreError::Corrupt("it did not say of each task what it refers to".into()).into());
        }
        let mut unused = Vec::new();
        let mut kept = 0;
        for (keys, referred) in tasks.iter().zip(&referred) {
            for key in *keys {
                // Nobody knows what a task refers to that cannot be read: all that is there of it stays.
                let is_needed = referred.as_ref().is_none_or(|referred| referred.contains(&key.blob));
                if is_needed { kept += 1 } else { unused.push(key.clone()) }
            }
        }
        let unread = referred.iter().filter(|referred| referred.is_none()).count();
        if unread > 0 {
            tracing::warn!(
                unread,
                "the blobs of tasks that cannot be read are kept; was a newer release here?"
            );
        }
        if !unused.is_empty() {
            depot.blobs().remove(&unused).await?;
        }
        let removed = unused.len() as u64;
        record_sweep(removed, kept);
        swept.removed += removed;
        swept.kept += kept;
        Ok(())
    }
}

/// The blobs of each task.
fn by_task(keys: &[BlobKey]) -> Vec<&[BlobKey]> {
    keys.chunk_by(|one, next| one.task == next.task).collect()
}
