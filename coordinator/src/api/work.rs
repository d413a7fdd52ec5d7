//! For workers.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::StreamExt;
use redrive_shared::error::Problem;
use redrive_shared::id::Name;
use redrive_shared::wire::{
    AgentsReply, ClaimReply, ClaimRequest, ExtendReply, ExtendRequest, Heartbeat, HeartbeatReply,
    ReportsRequest, SettleReply, SettleRequest,
};
use serde::Deserialize;

use super::Api;
use super::body::{InPath, InQuery, Json};
use super::problem::ApiProblem;

type Reply<T> = Result<axum::Json<T>, ApiProblem>;

/// How often a presence stream says something, so that a half-open connection is noticed.
const PRESENCE_EVERY: Duration = Duration::from_secs(5);

/// Leases what is due. With `wait_ms`, the call returns as soon as something is.
#[utoipa::path(post, path = "/v1/claims", tag = "work", request_body = ClaimRequest, responses(
    (status = 200, description = "Leases, or none when nothing became due in time", body = ClaimReply),
    (status = 404, description = "No such queue", body = Problem),
    (status = 429, description = "Too many claims wait; see Retry-After", body = Problem),
))]
pub(super) async fn claim(
    State(api): State<Api>,
    Json(request, room): Json<ClaimRequest>,
) -> Result<Response, ApiProblem> {
    // It may wait for long; what it takes is small by now. A caller that hangs up is noticed, and its leases handed back.
    drop(room);
    let reply = api.engine.claim(request).await?;
    Ok(super::written(super::leases::reply(&reply.leases)))
}

/// Starts leases (the first time) or makes them longer. A lease that is over is an item's error; stop its work.
#[utoipa::path(post, path = "/v1/leases/extend", tag = "work", request_body = ExtendRequest, responses(
    (status = 200, description = "One result a lease", body = ExtendReply),
))]
pub(super) async fn extend(
    State(api): State<Api>,
    Json(request, room): Json<ExtendRequest>,
) -> Reply<ExtendReply> {
    super::to_the_end(room, async move { api.engine.extend(request).await }).await
}

/// Ends attempts. Repeating it is safe: the first settlement of a lease stands.
#[utoipa::path(post, path = "/v1/settlements", tag = "work", request_body = SettleRequest, responses(
    (status = 200, description = "One result a settlement; stale ones changed nothing", body = SettleReply),
))]
pub(super) async fn settle(
    State(api): State<Api>,
    Json(request, room): Json<SettleRequest>,
) -> Result<Response, ApiProblem> {
    let axum::Json(reply) = super::to_the_end(room, async move { api.engine.settle(request).await }).await?;
    Ok(super::results(&reply, reply.results.len()))
}

/// An agent is alive: its leases are extended, and it hears which are over or called off.
#[utoipa::path(post, path = "/v1/heartbeats", tag = "work", request_body = Heartbeat, responses(
    (status = 200, description = "One result a lease", body = HeartbeatReply),
))]
pub(super) async fn heartbeat(
    State(api): State<Api>,
    Json(beat, room): Json<Heartbeat>,
) -> Reply<HeartbeatReply> {
    super::to_the_end(room, async move { api.engine.heartbeat(beat).await }).await
}

/// Counts first attempts that a client made itself, added up: what retries are measured against.
#[utoipa::path(post, path = "/v1/reports", tag = "work", request_body = ReportsRequest, responses(
    (status = 204, description = "Counted"),
))]
pub(super) async fn report(
    State(api): State<Api>,
    Json(request, _room): Json<ReportsRequest>,
) -> Result<StatusCode, ApiProblem> {
    api.engine.report(&request)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Every agent that was heard from.
#[utoipa::path(get, path = "/v1/agents", tag = "work", responses(
    (status = 200, description = "By name; of one name, the run heard from last comes first", body = AgentsReply),
))]
pub(super) async fn agents(State(api): State<Api>) -> Reply<AgentsReply> {
    Ok(axum::Json(AgentsReply { agents: api.engine.agents().await? }))
}

/// Which run of the agent.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct PresenceQuery {
    /// As in its claims and heartbeats.
    #[param(value_type = String)]
    boot_id: Name,
}

/// A stream to keep open for as long as the process lives. When it breaks and does not come back within 2 s, the leases
/// of that run of the agent end at once. It says a line every 5 s.
#[utoipa::path(get, path = "/v1/agents/{agent}/presence", tag = "work",
    params(("agent" = String, Path, description = "The agent"), PresenceQuery), responses(
    (status = 200, description = "A stream of lines that does not end by itself", body = String),
))]
pub(super) async fn presence(
    State(api): State<Api>,
    InPath(agent): InPath<Name>,
    InQuery(query): InQuery<PresenceQuery>,
) -> Response {
    let present = api.engine.arrive(agent, query.boot_id);
    let ticks = tokio_stream::wrappers::IntervalStream::new(tokio::time::interval(PRESENCE_EVERY));
    let lines = ticks.map(move |_| {
        // Moved in here: it lives as long as the connection does.
        let _here = &present;
        Ok::<_, Infallible>(Bytes::from_static(b"here\n"))
    });
    Response::new(Body::from_stream(lines.take_until(api.shutdown.cancelled_owned())))
}
