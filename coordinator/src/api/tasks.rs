//! Enqueueing, asking after tasks, acting on them.

use axum::extract::State;
use axum::response::Response;
use redrive_shared::error::Problem;
use redrive_shared::id::{Name, TaskId};
use redrive_shared::task::{TaskState, TaskView};
use redrive_shared::wire::{
    EnqueueReply, EnqueueRequest, EnqueueStatus, Page, StatusReply, StatusRequest, TaskAction,
    TaskActionReply, TaskActionRequest,
};
use serde::Deserialize;

use super::Api;
use super::body::{InPath, InQuery, Json};
use super::problem::{ApiProblem, with_body};

type Reply<T> = Result<axum::Json<T>, ApiProblem>;

/// Puts tasks on their queues, durably. Refused items do not hold up the others; when every item was refused, the reply
/// has the first one's status. Repeating the call with the same ids is safe.
#[utoipa::path(post, path = "/v1/tasks", tag = "tasks", request_body = EnqueueRequest, responses(
    (status = 200, description = "At least one task is on its queue", body = EnqueueReply),
    (status = "4XX", description = "Nothing was enqueued; `results` has each item's problem", body = Problem),
    (status = 503, description = "The outcome is unknown; repeat with the same ids", body = Problem),
))]
pub(super) async fn enqueue(
    State(api): State<Api>,
    Json(request, room): Json<EnqueueRequest>,
) -> Result<Response, ApiProblem> {
    let axum::Json(reply) = super::to_the_end(room, async move { api.engine.enqueue(request).await }).await?;
    let refused = reply.results.iter().all(|result| result.status == EnqueueStatus::Refused);
    match reply.results.first().and_then(|result| result.error.as_ref()).filter(|_| refused) {
        Some(first) => Ok(all_refused(first, &reply)),
        None => Ok(super::results(&reply, reply.results.len())),
    }
}

/// The first item's problem, with everyone's results beside it.
fn all_refused(first: &Problem, reply: &EnqueueReply) -> Response {
    let mut document = serde_json::to_value(first).unwrap_or_default();
    document["results"] = serde_json::to_value(&reply.results).unwrap_or_default();
    with_body(first, document.to_string().into_bytes())
}

/// Which tasks to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// Only of this queue.
    #[param(value_type = Option<String>)]
    queue: Option<Name>,
    /// Only in this state.
    state: Option<TaskState>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// 1 to 500; 50 when left out.
    limit: Option<usize>,
}

/// A page of tasks, newest first, without payload and history.
#[utoipa::path(get, path = "/v1/tasks", tag = "tasks", params(ListQuery), responses(
    (status = 200, description = "A page; go on while there is a `next_cursor`", body = Page),
    (status = 404, description = "No such queue", body = Problem),
))]
pub(super) async fn list(State(api): State<Api>, InQuery(query): InQuery<ListQuery>) -> Reply<Page> {
    Ok(axum::Json(api.engine.list(query.queue, query.state, query.cursor, query.limit).await?))
}

/// How long to wait for the answer.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitQuery {
    /// Milliseconds, up to 55,000; the reply comes as soon as the task has its answer.
    #[serde(default)]
    wait_ms: u64,
}

/// Everything about one task, its result included.
#[utoipa::path(get, path = "/v1/tasks/{id}", tag = "tasks",
    params(("id" = String, Path, description = "The task"), WaitQuery), responses(
    (status = 200, description = "The task as it is now", body = TaskView),
    (status = 404, description = "No such task, or no longer", body = Problem),
))]
pub(super) async fn get(
    State(api): State<Api>,
    InPath(id): InPath<TaskId>,
    InQuery(query): InQuery<WaitQuery>,
) -> Reply<TaskView> {
    Ok(axum::Json(api.engine.task(&id, query.wait_ms).await?))
}

/// Many tasks at once, without payload and history.
#[utoipa::path(post, path = "/v1/tasks/status", tag = "tasks", request_body = StatusRequest, responses(
    (status = 200, description = "Those that are known", body = StatusReply),
))]
pub(super) async fn status(
    State(api): State<Api>,
    Json(request, _room): Json<StatusRequest>,
) -> Reply<StatusReply> {
    Ok(axum::Json(api.engine.status(request).await?))
}

/// Calls tasks off, whatever they are doing.
#[utoipa::path(post, path = "/v1/tasks/cancel", tag = "tasks", request_body = TaskActionRequest, responses(
    (status = 200, description = "One result an id", body = TaskActionReply),
))]
pub(super) async fn cancel(
    State(api): State<Api>,
    Json(request, room): Json<TaskActionRequest>,
) -> Reply<TaskActionReply> {
    super::to_the_end(room, async move { api.engine.act(TaskAction::Cancel, request).await }).await
}

/// Runs tasks again now: dead, escalated, cancelled and handed-off ones get their attempts back.
#[utoipa::path(post, path = "/v1/tasks/retry", tag = "tasks", request_body = TaskActionRequest, responses(
    (status = 200, description = "One result an id", body = TaskActionReply),
))]
pub(super) async fn retry(
    State(api): State<Api>,
    Json(request, room): Json<TaskActionRequest>,
) -> Reply<TaskActionReply> {
    super::to_the_end(room, async move { api.engine.act(TaskAction::Retry, request).await }).await
}
