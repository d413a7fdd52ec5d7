//! Locks.

use axum::extract::State;
use redrive_shared::error::Problem;
use redrive_shared::lock::Resource;
use redrive_shared::wire::{LockBreak, LockRefs, LockReply, LockRequest, LockResults, LockView, LocksReply};
use serde::Deserialize;

use super::Api;
use super::actor::Actor;
use super::body::{InQuery, Json};
use super::problem::ApiProblem;

type Reply<T> = Result<axum::Json<T>, ApiProblem>;

/// Which locks to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct LocksQuery {
    /// Only of this resource.
    #[param(value_type = Option<String>)]
    resource: Option<Resource>,
}

/// Locks, and who waits for one: the first 1,000 of each.
#[utoipa::path(get, path = "/v1/locks", tag = "locks", params(LocksQuery), responses(
    (status = 200, description = "In order", body = LocksReply),
    (status = 422, description = "No resource has that name", body = Problem),
))]
pub(super) async fn list(State(api): State<Api>, InQuery(query): InQuery<LocksQuery>) -> Reply<LocksReply> {
    Ok(axum::Json(api.engine.list_locks(query.resource.as_ref()).await?))
}

/// Asks for a lock on one resource or several, all in one step. First come, first served. Who hangs up while it waits gives up
/// its place.
#[utoipa::path(post, path = "/v1/locks", tag = "locks", request_body = LockRequest, responses(
    (status = 200, description = "The lock; without one, it is still waited for: ask again at once", body = LockReply),
    (status = 404, description = "The task that is to own it is not known", body = Problem),
    (status = 409, description = "Somebody has it (`lock_busy`); the owner has a part of it already (`lock_overlap`); the \
        owner's lease is over (`stale_epoch`)", body = Problem),
    (status = 422, description = "A value is not allowed", body = Problem),
    (status = 429, description = "There are too many locks, or too many wait", body = Problem),
))]
pub(super) async fn acquire(
    State(api): State<Api>,
    Json(request, room): Json<LockRequest>,
) -> Reply<LockReply> {
    // It may wait for long; whoever hangs up ends the waiting.
    drop(room);
    Ok(axum::Json(api.engine.acquire_lock(request).await?))
}

/// Makes locks last their time from now on. One that is lost is an outcome of its own, not an error of the whole.
#[utoipa::path(post, path = "/v1/locks/renew", tag = "locks", request_body = LockRefs, responses(
    (status = 200, description = "In order", body = LockResults),
    (status = 422, description = "None, or too many", body = Problem),
))]
pub(super) async fn renew(State(api): State<Api>, Json(request, room): Json<LockRefs>) -> Reply<LockResults> {
    super::to_the_end(room, async move { api.engine.renew_locks(request).await }).await
}

/// Gives locks back. One that was lost before says so.
#[utoipa::path(post, path = "/v1/locks/release", tag = "locks", request_body = LockRefs, responses(
    (status = 200, description = "In order", body = LockResults),
    (status = 422, description = "None, or too many", body = Problem),
))]
pub(super) async fn release(
    State(api): State<Api>,
    Json(request, room): Json<LockRefs>,
) -> Reply<LockResults> {
    super::to_the_end(room, async move { api.engine.release_locks(request).await }).await
}

/// Ends somebody's lock, as if it had expired: what was held alone rests for its pause, since its holder does not know.
#[utoipa::path(post, path = "/v1/locks/break", tag = "locks", params(Actor), request_body = LockBreak, responses(
    (status = 200, description = "What it was", body = LockView),
    (status = 404, description = "There is no such lock", body = Problem),
))]
pub(super) async fn break_lock(
    State(api): State<Api>,
    Actor(actor): Actor,
    Json(request, room): Json<LockBreak>,
) -> Reply<LockView> {
    super::to_the_end(room, async move { api.engine.break_lock(request, actor).await }).await
}
