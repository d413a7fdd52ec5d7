//! Blobs: what their verbs mean.

use redrive_shared::blob::{BlobId, BlobRef};
use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::id::TaskId;

use super::{Engine, Result};
use crate::blobs::{BlobError, BlobStream, Depot};

/// When to repeat what the storage did not do, in milliseconds.
const RETRY_AFTER_MS: u64 = 1_000;

impl Engine {
    /// Whether blobs are kept at all, and how long one may be.
    pub fn blob_max_bytes(&self) -> Result<u64> {
        Ok(self.depot().ok_or_else(no_blobs)?.max_bytes())
    }

    /// Keeps a blob for a task, which need not be there yet.
    pub async fn keep_blob(&self, task: &TaskId, body: BlobStream) -> Result<BlobRef> {
        let depot = self.depot().ok_or_else(no_blobs)?;
        depot.keep(task, body).await.map_err(|error| failed(depot, error))
    }

    /// A blob of a task: its length, and its bytes as they come.
    pub async fn fetch_blob(&self, task: &TaskId, blob: BlobId) -> Result<(u64, BlobStream)> {
        let depot = self.depot().ok_or_else(no_blobs)?;
        let fetched = depot.fetch(task, blob).await.map_err(|error| failed(depot, error))?;
        fetched.ok_or_else(|| {
            let detail = format!(
                "task `{task}` has no blob {blob}; ask for one that the task, or an upload's answer, names"
            );
            Problem::new(ErrorCode::UnknownBlob, detail)
        })
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
            let detail =
                format!("{error}; cut it into several, or let `coordinator.blobs.max_bytes` be higher");
            Problem::new(ErrorCode::BodyTooLarge, detail)
        }
        error @ BlobError::Interrupted(_) => {
            Problem::new(ErrorCode::RequestTimeout, format!("{error}; nothing was kept: send it again"))
        }
    }
}
