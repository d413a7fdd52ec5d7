//! Circuit breakers of the agents.

use axum::extract::State;
use redrive_shared::error::Problem;
use redrive_shared::wire::{BreakerCommand, BreakerCommandRequest, BreakersReply};

use super::Api;
use super::body::Json;
use super::problem::ApiProblem;

type Reply<T> = Result<axum::Json<T>, ApiProblem>;

/// Every breaker that agents reported with their last heartbeat, and the commands that stand for them.
#[utoipa::path(get, path = "/v1/breakers", tag = "breakers", responses(
    (status = 200, description = "By agent; its own first, then those by dependency", body = BreakersReply),
))]
pub(super) async fn list(State(api): State<Api>) -> Reply<BreakersReply> {
    Ok(axum::Json(BreakersReply { breakers: api.engine.breakers().await? }))
}

/// Isolates, closes or resets a breaker. The agent hears of it with its next heartbeat, within 5 s; `pending` turns false
/// when it has carried it out. The same command again is the one that stands.
#[utoipa::path(post, path = "/v1/breakers/commands", tag = "breakers", request_body = BreakerCommandRequest, responses(
    (status = 200, description = "The command that stands now", body = BreakerCommand),
    (status = 404, description = "No such agent, or no such breaker of it", body = Problem),
    (status = 429, description = "Too many breakers of the agent are isolated", body = Problem),
))]
pub(super) async fn command(
    State(api): State<Api>,
    Json(request, room): Json<BreakerCommandRequest>,
) -> Reply<BreakerCommand> {
    super::to_the_end(room, async move { api.engine.command_breaker(request).await }).await
}
