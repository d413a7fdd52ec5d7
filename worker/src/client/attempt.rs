//! The API as an attempt's context asks for it.

use std::io::Cursor;

use async_trait::async_trait;
use axum::body::Bytes;
use redrive_shared::blob::BlobRef;
use redrive_shared::id::TaskId;
use redrive_shared::wire::{
    CheckpointReply, CheckpointRequest, LockGrant, LockRefs, LockRequest, LockResults,
};

use super::{Client, ClientError, Download};
use crate::link::AttemptLink;

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

    async fn download_blob(&self, task: &TaskId, blob: &BlobRef) -> Result<Download, ClientError> {
        self.download_blob(task, blob).await
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
