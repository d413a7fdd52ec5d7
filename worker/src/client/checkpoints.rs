//! Checkpoints: how far the work on a task came.

use redrive_shared::checkpoint::{Progress, ProgressDocument};
use redrive_shared::id::TaskId;
use redrive_shared::wire::{CheckpointReply, CheckpointRequest};
use reqwest::Method;

use super::{Client, ClientError};

impl Client {
    /// How far a task came, as people read it.
    pub async fn progress_document(&self, task: &TaskId) -> Result<ProgressDocument, ClientError> {
        self.get(&["v1", "tasks", task, "checkpoint"]).await
    }

    /// What was saved of a task's steps.
    pub async fn progress(&self, task: &TaskId) -> Result<Progress, ClientError> {
        self.get(&["v1", "tasks", task, "steps"]).await
    }

    /// Saves how far the work under a lease came; durable on return. The same request again is safe.
    pub async fn save_checkpoint(
        &self,
        task: &TaskId,
        request: &CheckpointRequest,
    ) -> Result<CheckpointReply, ClientError> {
        let url = self.endpoint(&["v1", "tasks", task, "checkpoint"])?;
        self.call(self.request(Method::PUT, &url).json(request), &url).await
    }
}
