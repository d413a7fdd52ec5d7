//! Checkpoints: how far the work on a task came, saved under its lease, and shown.

use redrive_shared::blob::Content;
use redrive_shared::checkpoint::{Checkpoint, Progress, ProgressDocument, Refused};
use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::id::TaskId;
use redrive_shared::lifecycle::Fence;
use redrive_shared::wire::{CheckpointReply, CheckpointRequest};

use super::blobs::failed;
use super::work::{stale, unknown, unreadable};
use super::{Engine, Result, check, unavailable};
use crate::metrics::{StaleVerb, record_checkpoint_refused, record_checkpoint_saved};
use crate::store::{CheckpointSaved, SaveCheckpoint};

impl Engine {
    /// Saves a checkpoint under its lease; durable on return.
    pub async fn save_checkpoint(&self, id: TaskId, request: CheckpointRequest) -> Result<CheckpointReply> {
        let saved = self.save(id, request).await;
        // A store or a storage that failed refused nothing.
        if let Err(problem) = &saved
            && problem.status < 500
        {
            record_checkpoint_refused(problem.code);
        }
        saved
    }

    async fn save(&self, id: TaskId, request: CheckpointRequest) -> Result<CheckpointReply> {
        check::checkpoint(&request)?;
        let CheckpointRequest { epoch, nonce, seq, step, completed, state, state_ref, pending } = request;
        let state = match Content::of(state, state_ref) {
            Some(state) => Some(self.place_state(&id, state).await?),
            None => None,
        };
        let checkpoint = Checkpoint { seq, step, completed, state, pending };
        let save = SaveCheckpoint { id: id.clone(), fence: Fence { epoch, nonce }, checkpoint };
        let saved = self.store.save_checkpoints(vec![save]).await.map_err(unavailable)?;
        match saved.into_iter().next() {
            Some(CheckpointSaved::Saved { queue }) => {
                record_checkpoint_saved(&queue);
                Ok(CheckpointReply { seq, repeated: false })
            }
            Some(CheckpointSaved::Repeated) => Ok(CheckpointReply { seq, repeated: true }),
            Some(CheckpointSaved::Refused(refused)) => Err(refusal(&id, refused)),
            Some(CheckpointSaved::Stale(state)) => Err(stale(StaleVerb::Checkpoint, &id, state)),
            Some(CheckpointSaved::Unreadable) => Err(unreadable(&id)),
            Some(CheckpointSaved::Unknown) => Err(unknown(&id)),
            None => Err(Problem::new(ErrorCode::Internal, "the store gave no answer for the checkpoint")),
        }
    }

    /// A state as it is to be saved: what is too large for the store is kept as a blob first.
    async fn place_state(&self, id: &TaskId, state: Content) -> Result<Content> {
        match (state, self.depot()) {
            (Content::Inline(json), Some(depot)) if depot.takes_state(json.get().len()) => {
                let kept = depot.keep_json(id, &json).await;
                kept.map(Content::Blob).map_err(|error| failed(depot, error).at("state"))
            }
            (Content::Blob(blob), _) => match self.check_reference(id, &blob).await {
                Ok(()) => Ok(Content::Blob(blob)),
                Err(problem) => Err(problem.at("state_ref")),
            },
            (state, _) => Ok(state),
        }
    }

    /// How far a task came, as people read it.
    pub async fn progress_document(&self, id: &TaskId) -> Result<ProgressDocument> {
        // In this order: a task that was over has all of its steps.
        let task = self.store.get(id).await.map_err(unavailable)?.ok_or_else(|| unknown(id))?;
        Ok(ProgressDocument::new(&task, &self.progress(id).await?))
    }

    /// How far a task came: what was saved of each step.
    pub async fn progress(&self, id: &TaskId) -> Result<Progress> {
        self.store.progress(id).await.map_err(unavailable)?.ok_or_else(|| unknown(id))
    }
}

/// Why a checkpoint was not saved, as the API says it.
fn refusal(id: &TaskId, refused: Refused) -> Problem {
    match refused {
        Refused::Behind { .. } => Problem::new(ErrorCode::StaleCheckpoint, refused.to_string()).at("seq"),
        Refused::TooManySteps => Problem::new(ErrorCode::InvalidValue, refused.to_string()).at("step"),
        Refused::TooLarge { .. } => {
            let detail = format!("{refused} (POST /v1/tasks/{id}/blobs)");
            Problem::new(ErrorCode::PayloadTooLarge, detail).at("state")
        }
    }
}
