//! References to blobs, checked before the store is asked: no task comes to refer to what is not there.

use std::collections::BTreeMap;
use std::slice;

use futures_util::{StreamExt, stream};
use redrive_shared::blob::BlobRef;
use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::id::TaskId;

use super::{Engine, Result, unavailable};
use crate::blobs::{BlobError, BlobKey, Depot};

/// References of one batch that are looked at in the storage at once: enough that a batch does not take as long as its items in a
/// row, and few enough for storage that bounds its connections.
const CHECKS_AT_ONCE: usize = 32;
/// When to repeat what the storage did not do, in milliseconds.
const RETRY_AFTER_MS: u64 = 1_000;

/// What an item of a batch wants its task to refer to.
#[derive(Debug, Clone)]
pub(super) struct Reference {
    /// The item's place.
    pub place: usize,
    /// The task.
    pub id: TaskId,
    /// The blob.
    pub blob: BlobRef,
}

impl Engine {
    /// What is wrong with those of a batch that no task may have, by their items' places.
    pub(super) async fn refused_references(&self, references: Vec<Reference>) -> BTreeMap<usize, Problem> {
        let checks = references.into_iter().map(|Reference { place, id, blob }| async move {
            Some((place, self.check_reference(&id, &blob).await.err()?))
        });
        stream::iter(checks)
            .buffer_unordered(CHECKS_AT_ONCE)
            .filter_map(async |refused| refused)
            .collect()
            .await
    }

    /// Whether a task may refer to that blob: it was uploaded for it lately, or the task refers to it already, as a request
    /// that is repeated after a long time finds.
    pub(super) async fn check_reference(&self, id: &TaskId, blob: &BlobRef) -> Result<()> {
        let depot = self.depot().ok_or_else(no_blobs)?;
        if depot.may_be_referred_to(id, blob).await.map_err(|error| failed(depot, error))? {
            return Ok(());
        }
        let known = self.store.blobs(slice::from_ref(id)).await.map_err(unavailable)?;
        if known.iter().flatten().any(|known| *known == blob.blob) {
            let key = BlobKey { task: id.clone(), blob: blob.blob };
            let bytes = depot.blobs().length(&key).await.map_err(|error| failed(depot, error))?;
            if bytes == Some(blob.bytes) {
                return Ok(());
            }
        }
        let detail = format!(
            "task `{id}` has no blob {} of {} bytes, or it is too old to be referred to: upload it again",
            blob.blob, blob.bytes
        );
        Err(Problem::new(ErrorCode::UnknownBlob, detail))
    }
}

/// There is no depot.
pub(super) fn no_blobs() -> Problem {
    let detail = "this coordinator keeps no blobs: set `coordinator.blobs.url`, such as s3://bucket/prefix";
    Problem::new(ErrorCode::NoBlobs, detail)
}

/// Storage that did not do its work, as the API says it.
pub(super) fn failed(depot: &Depot, error: BlobError) -> Problem {
    let place = depot.blobs().describe();
    match error {
        BlobError::Unavailable(said) => {
            tracing::warn!(%place, %said, "the storage of blobs failed");
            let detail = format!("the storage of blobs does not answer: {place}: {said}; repeat it");
            Problem::new(ErrorCode::BlobsUnavailable, detail).retry_after_ms(RETRY_AFTER_MS)
        }
        BlobError::Full(said) => {
            tracing::warn!(%place, %said, "the storage of blobs has no room");
            let detail = format!("the storage of blobs has no room: {place}: {said}; repeat it when it has");
            Problem::new(ErrorCode::BlobsUnavailable, detail).retry_after_ms(RETRY_AFTER_MS)
        }
        error @ BlobError::TooLarge { .. } => {
            let detail = format!("{error}; split it, or let `coordinator.blobs.max_bytes` be higher");
            Problem::new(ErrorCode::PayloadTooLarge, detail)
        }
        error @ BlobError::Interrupted(_) => {
            Problem::new(ErrorCode::MalformedJson, format!("{error}; nothing was kept, send it again"))
        }
    }
}
