//! The API as an attempt's context asks for it.

use std::io::Cursor;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Bytes;
use redrive_shared::blob::{BlobId, BlobRef};
use redrive_shared::id::TaskId;
use redrive_shared::wire::{
    CheckpointReply, CheckpointRequest, LockGrant, LockRefs, LockRequest, LockResults,
};
use reqwest::{Method, Response};

use super::{Client, ClientError, unreachable};
use crate::link::AttemptLink;

/// How long a blob may be on its way: 64 MiB at 220 kB/s.
const BLOB_TIMEOUT: Duration = Duration::from_secs(5 * 60);

#[async_trait]
impl AttemptLink for Client {
    async fn save_checkpoint(
        &self,
        task: &TaskId,
        request: &CheckpointRequest,
    ) -> Result<CheckpointReply, ClientError> {
        self.save_checkpoint(task, request).await
    }

    async fn upload_blob(&self, task: &TaskId, contents: Bytes) -> Result<BlobRef, ClientError> {
        self.upload_blob(task, Cursor::new(contents)).await
    }

    /// As it comes: the context knows what it should be, and says what is wrong with it better than "no answer".
    async fn download_blob(&self, task: &TaskId, blob: BlobId, max_bytes: u64) -> Result<Bytes, ClientError> {
        let url = self.endpoint(&["v1", "tasks", task, "blobs", &blob.to_string()])?;
        let response = self.send(self.request(Method::GET, &url).timeout(BLOB_TIMEOUT), &url).await?;
        read_up_to(response, max_bytes).await.map_err(|source| unreachable(&url, source))
    }

    async fn acquire_lock(
        &self,
        request: &LockRequest,
        wait_ms: u64,
    ) -> Result<Option<LockGrant>, ClientError> {
        self.acquire_lock(request, wait_ms).await
    }

    async fn renew_locks(&self, locks: &LockRefs) -> Result<LockResults, ClientError> {
        self.renew_locks(locks).await
    }

    async fn release_locks(&self, locks: &LockRefs) -> Result<LockResults, ClientError> {
        self.release_locks(locks).await
    }
}

/// A body's first bytes.
async fn read_up_to(mut response: Response, max_bytes: u64) -> Result<Bytes, reqwest::Error> {
    let most = usize::try_from(max_bytes).unwrap_or(usize::MAX);
    let told = response.content_length().and_then(|bytes| usize::try_from(bytes).ok());
    let mut bytes = Vec::with_capacity(told.unwrap_or(0).min(most));
    while let Some(chunk) = response.chunk().await? {
        let room = most - bytes.len();
        bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            break;
        }
    }
    Ok(bytes.into())
}
