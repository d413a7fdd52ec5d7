//! Queues and their policies.

use axum::extract::State;
use redrive_shared::error::Problem;
use redrive_shared::id::Name;
use redrive_shared::wire::{QueueCreate, QueueVersionsReply, QueueView, QueuesPut, QueuesReply};

use super::Api;
use super::actor::Actor;
use super::body::{InPath, Json};
use super::problem::ApiProblem;

type Reply<T> = Result<axum::Json<T>, ApiProblem>;

/// Every queue, with its policy and its tasks by state.
#[utoipa::path(get, path = "/v1/queues", tag = "queues", responses(
    (status = 200, description = "By name", body = QueuesReply),
))]
pub(super) async fn list(State(api): State<Api>) -> Reply<QueuesReply> {
    Ok(axum::Json(QueuesReply { queues: api.engine.queues().await? }))
}

/// One queue.
#[utoipa::path(get, path = "/v1/queues/{name}", tag = "queues",
    params(("name" = String, Path, description = "The queue")), responses(
    (status = 200, description = "The queue as it is now", body = QueueView),
    (status = 404, description = "No such queue", body = Problem),
))]
pub(super) async fn get(State(api): State<Api>, InPath(name): InPath<Name>) -> Reply<QueueView> {
    Ok(axum::Json(api.engine.queue(&name).await?))
}

/// Makes a queue, or replaces its policy: later decisions follow the new one. A policy that is in force already has no new
/// version.
#[utoipa::path(put, path = "/v1/queues/{name}", tag = "queues", request_body = QueueCreate,
    params(("name" = String, Path, description = "The queue"), Actor), responses(
    (status = 200, description = "The queue as it is now", body = QueueView),
    (status = 409, description = "Another version is in force by now; nothing was changed", body = Problem),
    (status = 422, description = "The policy is not valid; nothing was changed", body = Problem),
))]
pub(super) async fn put(
    State(api): State<Api>,
    InPath(name): InPath<Name>,
    actor: Actor,
    Json(request, room): Json<QueueCreate>,
) -> Reply<QueueView> {
    super::to_the_end(room, async move { api.engine.put_queue(&name, request, actor.0).await }).await
}

/// Makes queues, or replaces their policies: all of them or none.
#[utoipa::path(put, path = "/v1/queues", tag = "queues", request_body = QueuesPut, params(Actor), responses(
    (status = 200, description = "Those queues as they are now, by name", body = QueuesReply),
    (status = 409, description = "Of one, another version is in force by now; nothing was changed", body = Problem),
    (status = 422, description = "A policy is not valid; nothing was changed", body = Problem),
))]
pub(super) async fn put_all(
    State(api): State<Api>,
    actor: Actor,
    Json(request, room): Json<QueuesPut>,
) -> Reply<QueuesReply> {
    super::to_the_end(room, async move {
        Ok(QueuesReply { queues: api.engine.put_queues(request, actor.0).await? })
    })
    .await
}

/// How a queue's policy came about: who put it in force, when and why.
#[utoipa::path(get, path = "/v1/queues/{name}/versions", tag = "queues",
    params(("name" = String, Path, description = "The queue")), responses(
    (status = 200, description = "The last versions, newest first", body = QueueVersionsReply),
    (status = 404, description = "No such queue", body = Problem),
))]
pub(super) async fn versions(
    State(api): State<Api>,
    InPath(name): InPath<Name>,
) -> Reply<QueueVersionsReply> {
    Ok(axum::Json(api.engine.queue_versions(&name).await?))
}

/// Stops handing out a queue's tasks. What is leased goes on; what is enqueued waits.
#[utoipa::path(post, path = "/v1/queues/{name}/pause", tag = "queues",
    params(("name" = String, Path, description = "The queue")), responses(
    (status = 200, description = "The queue as it is now", body = QueueView),
    (status = 404, description = "No such queue", body = Problem),
))]
pub(super) async fn pause(State(api): State<Api>, InPath(name): InPath<Name>) -> Reply<QueueView> {
    Ok(axum::Json(api.engine.pause(&name, true).await?))
}

/// Hands out a queue's tasks again.
#[utoipa::path(post, path = "/v1/queues/{name}/resume", tag = "queues",
    params(("name" = String, Path, description = "The queue")), responses(
    (status = 200, description = "The queue as it is now", body = QueueView),
    (status = 404, description = "No such queue", body = Problem),
))]
pub(super) async fn resume(State(api): State<Api>, InPath(name): InPath<Name>) -> Reply<QueueView> {
    Ok(axum::Json(api.engine.pause(&name, false).await?))
}
