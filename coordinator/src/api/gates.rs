//! Gates of dependencies and queues.

use axum::extract::State;
use redrive_shared::error::Problem;
use redrive_shared::wire::{GateRequest, GateView, GatesReply};

use super::Api;
use super::body::Json;
use super::problem::ApiProblem;

type Reply<T> = Result<axum::Json<T>, ApiProblem>;

/// The gate of every dependency that was called in the last ten minutes or has limits, and of every queue that has limits.
#[utoipa::path(get, path = "/v1/gates", tag = "gates", responses(
    (status = 200, description = "By dependency, and by queue", body = GatesReply),
))]
pub(super) async fn list(State(api): State<Api>) -> Reply<GatesReply> {
    Ok(axum::Json(api.engine.gates()))
}

/// Opens, shuts, isolates or resets the gate of a dependency, or sets its limits or those of a queue.
#[utoipa::path(post, path = "/v1/gates", tag = "gates", request_body = GateRequest, responses(
    (status = 200, description = "The gate as it is now, for every coordinator", body = GateView),
    (status = 404, description = "No such queue; nothing was changed", body = Problem),
    (status = 409, description = "There are too many gates; nothing was changed", body = Problem),
    (status = 422, description = "A value is not allowed; nothing was changed", body = Problem),
))]
pub(super) async fn change(
    State(api): State<Api>,
    Json(request, room): Json<GateRequest>,
) -> Reply<GateView> {
    super::to_the_end(room, async move { api.engine.change_gate(request).await }).await
}
