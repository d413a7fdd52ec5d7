//! Checkpoints: how far the work on a task came.

use axum::extract::State;
use redrive_shared::checkpoint::{Progress, ProgressDocument};
use redrive_shared::error::Problem;
use redrive_shared::id::TaskId;
use redrive_shared::wire::{CheckpointReply, CheckpointRequest};

use super::Api;
use super::body::{InPath, Json};
use super::problem::ApiProblem;

type Reply<T> = Result<axum::Json<T>, ApiProblem>;

/// Saves how far the work under a lease came: durable when it is answered, and handed to whoever gets the task next. Numbers
/// only rise; the same request again is safe.
#[utoipa::path(put, path = "/v1/tasks/{id}/checkpoint", tag = "checkpoints", request_body = CheckpointRequest,
    params(("id" = String, Path, description = "The task")), responses(
    (status = 200, description = "It is saved", body = CheckpointReply),
    (status = 404, description = "No such task, or no such blob of it", body = Problem),
    (status = 409, description = "The lease is over (`stale_epoch`), or a later checkpoint was saved (`stale_checkpoint`)",
     body = Problem),
    (status = 413, description = "Too large for the store: upload it as a blob", body = Problem),
    (status = 503, description = "Nothing is known to be saved; repeat it as it is", body = Problem),
))]
pub(super) async fn save(
    State(api): State<Api>,
    InPath(id): InPath<TaskId>,
    Json(request, room): Json<CheckpointRequest>,
) -> Reply<CheckpointReply> {
    super::to_the_end(room, async move { api.engine.save_checkpoint(id, request).await }).await
}

/// How far a task came, for people: always these seven fields.
#[utoipa::path(get, path = "/v1/tasks/{id}/checkpoint", tag = "checkpoints",
    params(("id" = String, Path, description = "The task")), responses(
    (status = 200, description = "Empty lists where nothing was saved", body = ProgressDocument),
    (status = 404, description = "No such task, or no longer", body = Problem),
))]
pub(super) async fn document(State(api): State<Api>, InPath(id): InPath<TaskId>) -> Reply<ProgressDocument> {
    Ok(axum::Json(api.engine.progress_document(&id).await?))
}

/// What was saved of each step of a task, states included: as the next lease brings it.
#[utoipa::path(get, path = "/v1/tasks/{id}/steps", tag = "checkpoints",
    params(("id" = String, Path, description = "The task")), responses(
    (status = 200, description = "`seq` is 0 where nothing was saved", body = Progress),
    (status = 404, description = "No such task, or no longer", body = Problem),
))]
pub(super) async fn steps(State(api): State<Api>, InPath(id): InPath<TaskId>) -> Reply<Progress> {
    Ok(axum::Json(api.engine.progress(&id).await?))
}
