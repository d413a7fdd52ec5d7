//! Blobs as the engine uses them: bounded, hashed on their way in, and checked before a task refers to them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use futures_util::{StreamExt, stream};
use redrive_shared::blob::{BlobId, BlobRef, Sha256Sum};
use redrive_shared::clock::Clock;
use redrive_shared::id::TaskId;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{BlobError, BlobKey, BlobStream, Blobs, Result, Stored, owner};
use crate::config::{BlobsConfig, CoordinatorConfig};
use crate::metrics::{Direction, record_blob_bytes};
use crate::store::Store;

/// How old a blob is before the sweep removes it for not being referred to, in ms: an upload, and what refers to it, take
/// minutes.
pub const BLOB_GRACE_MS: u64 = 60 * 60 * 1_000;
/// How old one may be that a task is to refer to from now on, in ms: the sweep must not have begun to look at it.
const REFERRED_BY_MS: u64 = BLOB_GRACE_MS / 2;

/// How long storage may take to say that it works.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);

/// Storage, with what is asked of blobs.
pub struct Depot {
    blobs: Arc<dyn Blobs>,
    clock: Arc<dyn Clock>,
    /// Held by a look that has not come to its end.
    looking: Arc<tokio::sync::Mutex<()>>,
    /// Most bytes of a blob.
    max_bytes: u64,
    /// States of so many bytes and more go here, and shorter ones into the store.
    states_from_bytes: usize,
}

impl Depot {
    /// Over that storage. Names of blobs and their ages are by that clock.
    pub fn new(
        blobs: Arc<dyn Blobs>,
        clock: Arc<dyn Clock>,
        max_bytes: u64,
        states_from_bytes: usize,
    ) -> Self {
        Self { blobs, clock, looking: Arc::default(), max_bytes, states_from_bytes }
    }

    /// Over the storage that the configuration names, if it names any; opened, and tried.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`]: it cannot be opened, or it is another store's.
    pub async fn open(
        config: &CoordinatorConfig,
        store: &dyn Store,
        clock: Arc<dyn Clock>,
    ) -> Result<Option<Self>> {
        let Some(address) = config.blobs_at() else { return Ok(None) };
        let blobs = super::open(&address, &environment()).await?;
        let identity = store.identity().await.map_err(|error| BlobError::Unavailable(error.to_string()))?;
        owner::take_for(&*blobs, &identity).await?;
        tracing::info!(at = %blobs.describe(), "blobs are kept");
        let BlobsConfig { max_bytes, states_from_bytes, .. } = config.blobs;
        Ok(Some(Self::new(blobs, clock, max_bytes, states_from_bytes)))
    }

    /// The storage itself.
    pub fn blobs(&self) -> &dyn Blobs {
        &*self.blobs
    }

    /// Whether the storage can be written and read now. One look at a time: what hangs in a file system cannot be called off, and
    /// must not pile up.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`]: it fails, or it does not say within a second.
    pub async fn check(&self) -> Result<()> {
        let unavailable = |why: &str| BlobError::Unavailable(why.to_owned());
        let Ok(one) = Arc::clone(&self.looking).try_lock_owned() else {
            return Err(unavailable("it has not answered an earlier look yet"));
        };
        let blobs = Arc::clone(&self.blobs);
        let looking = tokio::spawn(async move {
            let _one = one;
            blobs.check().await
        });
        match tokio::time::timeout(LOOK_PATIENCE, looking).await {
            Ok(Ok(said)) => said,
            Ok(Err(error)) => Err(unavailable(&error.to_string())),
            Err(_) => Err(unavailable(&format!("no answer within {} s", LOOK_PATIENCE.as_secs()))),
        }
    }

    /// The clock that blobs are named and aged by.
    pub(crate) fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// Whether a state of so many bytes belongs here.
    pub fn takes_state(&self, bytes: usize) -> bool {
        bytes >= self.states_from_bytes
    }

    /// Most bytes of a blob.
    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Keeps a new blob of a task, which need not be there yet; durable on return.
    ///
    /// # Errors
    /// [`BlobError`]; then nobody sees anything of it.
    pub async fn keep(&self, task: &TaskId, body: BlobStream) -> Result<BlobRef> {
        let key = BlobKey { task: task.clone(), blob: BlobId::new(self.clock.now_ms(), rand::random()) };
        let seen = Arc::new(Mutex::new((Sha256::new(), 0_u64)));
        let (tally, limit) = (Arc::clone(&seen), self.max_bytes);
        let body = body.map(move |chunk| {
            let chunk = chunk?;
            let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            tally.1 = tally.1.saturating_add(chunk.len() as u64);
            if tally.1 > limit {
                return Err(BlobError::TooLarge { limit });
            }
            tally.0.update(&chunk);
            Ok(chunk)
        });
        // Storage may ask again after the end, which a request's body does not take.
        self.blobs.put(&key, body.fuse().boxed()).await?;
        let (hasher, bytes) = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        record_blob_bytes(Direction::In, bytes);
        Ok(BlobRef { blob: key.blob, bytes, sha256: Sha256Sum(hasher.finalize().into()) })
    }

    /// Keeps JSON that is here already.
    ///
    /// # Errors
    /// As [`Depot::keep`].
    pub async fn keep_json(&self, task: &TaskId, json: &RawValue) -> Result<BlobRef> {
        let bytes = Bytes::copy_from_slice(json.get().as_bytes());
        self.keep(task, stream::iter([Ok(bytes)]).boxed()).await
    }

    /// A blob's length and bytes. `None`: there is no such blob.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`], here or later in the stream.
    pub async fn fetch(&self, task: &TaskId, blob: BlobId) -> Result<Option<(u64, BlobStream)>> {
        let key = BlobKey { task: task.clone(), blob };
        let Some(Stored { bytes, body }) = self.blobs.get(&key).await? else { return Ok(None) };
        let body = body.inspect(|chunk| {
            if let Ok(chunk) = chunk {
                record_blob_bytes(Direction::Out, chunk.len() as u64);
            }
        });
        Ok(Some((bytes, body.boxed())))
    }

    /// Whether a task may refer to that blob from now on: it is there, whole, and so young that the sweep does not look at it
    /// before the task has come to refer to it.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`].
    pub async fn may_be_referred_to(&self, task: &TaskId, blob: &BlobRef) -> Result<bool> {
        if blob.blob.made_at_ms().saturating_add_unsigned(REFERRED_BY_MS) < self.clock.now_ms() {
            return Ok(false);
        }
        let key = BlobKey { task: task.clone(), blob: blob.blob };
        Ok(self.blobs.length(&key).await? == Some(blob.bytes))
    }
}

/// This process's environment; what is not UTF-8 in it is not for us.
pub(super) fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}
