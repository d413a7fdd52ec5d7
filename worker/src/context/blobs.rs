//! What is too large for the store: kept as a blob, and checked when it is fetched.

use axum::body::Bytes;
use redrive_shared::blob::{BlobRef, Sha256Sum};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::{ContextError, TaskContext};

/// How often a blob is fetched that does not come as it was kept: what was garbled on its way may come whole.
const TRIES: u32 = 3;

impl TaskContext {
    /// Keeps JSON as a blob of the task; durable on return. `what` is for errors.
    pub(crate) async fn keep(&self, what: &str, json: Box<RawValue>) -> Result<BlobRef, ContextError> {
        let contents = Bytes::from(String::from(Box::<str>::from(json)));
        self.check_length(what, contents.len() as u64)?;
        let (link, task) = (&self.inner.surroundings.link, &self.inner.task);
        let (length, expected) = (contents.len() as u64, sum_of(contents.clone()).await);
        for _ in 0..TRIES {
            let kept = self.patiently("upload", || link.upload_blob(task, contents.clone())).await?;
            if (kept.bytes, kept.sha256) == (length, expected) {
                return Ok(kept);
            }
        }
        let why = format!("{TRIES} times, what was kept was not what was sent");
        Err(ContextError::Unreadable { what: what.to_owned(), why })
    }

    /// A blob of the task, as it was kept. `what` is for errors.
    pub(crate) async fn fetch(&self, what: &str, blob: &BlobRef) -> Result<Box<RawValue>, ContextError> {
        self.check_length(what, blob.bytes)?;
        let (link, task) = (&self.inner.surroundings.link, &self.inner.task);
        let mut found = (0, Sha256Sum([0; 32]));
        for _ in 0..TRIES {
            // One byte more: what is longer than it should be is not taken for whole.
            let most = blob.bytes + 1;
            let contents = self.patiently("download", || link.download_blob(task, blob.blob, most)).await?;
            found = (contents.len() as u64, sum_of(contents.clone()).await);
            if found == (blob.bytes, blob.sha256) {
                return read(what, contents).await;
            }
        }
        let (bytes, sha256) = found;
        let why = format!(
            "the blob {} should have {} bytes of SHA-256 {}, and has {bytes} of {sha256}",
            blob.blob, blob.bytes, blob.sha256
        );
        Err(ContextError::Unreadable { what: what.to_owned(), why })
    }

    fn check_length(&self, what: &str, bytes: u64) -> Result<(), ContextError> {
        let max = self.max_blob_bytes();
        if bytes > max {
            return Err(ContextError::TooLarge { what: what.to_owned(), bytes, max });
        }
        Ok(())
    }
}

/// Beside the other tasks of this thread: it may take a second.
async fn sum_of(contents: Bytes) -> Sha256Sum {
    let sum = move || Sha256Sum(Sha256::digest(&contents).into());
    tokio::task::spawn_blocking(sum).await.unwrap_or(Sha256Sum([0; 32]))
}

async fn read(what: &str, contents: Bytes) -> Result<Box<RawValue>, ContextError> {
    let parsed = tokio::task::spawn_blocking(move || {
        let text = String::from_utf8(contents.into()).map_err(|error| error.to_string())?;
        RawValue::from_string(text).map_err(|error| error.to_string())
    });
    let parsed = parsed.await.unwrap_or_else(|error| Err(error.to_string()));
    parsed.map_err(|why| ContextError::Unreadable {
        what: what.to_owned(),
        why: format!("it is no JSON: {why}"),
    })
}
