//! For orchestrators and scrapers.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use redrive_shared::error::{ErrorCode, Problem};

use super::Api;
use super::problem::ApiProblem;
use crate::metrics::{breakers_text, record_queues};

/// The process runs.
#[utoipa::path(get, path = "/livez", tag = "health", responses((status = 200, description = "It runs", body = String)))]
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// It can do its work: the store takes writes, and it is not stopping. Storage of blobs that does not answer is told in a line
/// that begins with `degraded:`, and does not count: tasks without blobs go on.
#[utoipa::path(get, path = "/readyz", tag = "health", responses(
    (status = 200, description = "It can work", body = String),
    (status = 503, description = "It cannot", body = Problem),
))]
pub(super) async fn readyz(State(api): State<Api>) -> Result<String, ApiProblem> {
    if api.shutdown.is_cancelled() {
        return Err(Problem::new(ErrorCode::ShuttingDown, "the coordinator is stopping").into());
    }
    api.engine.ready().await?;
    let mut said = "ok\n".to_owned();
    if let Some(depot) = api.engine.depot()
        && let Err(why) = depot.check().await
    {
        said.push_str(&format!("degraded: blobs: {}: {why}\n", depot.blobs().describe()));
    }
    Ok(said)
}

/// Metrics for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "health", responses(
    (status = 200, description = "Prometheus text format", body = String),
))]
pub(super) async fn metrics(State(api): State<Api>) -> Result<Response, ApiProblem> {
    let Some(recorder) = &api.metrics else {
        return Err(
            Problem::new(ErrorCode::UnknownPath, "this coordinator was started without metrics").into()
        );
    };
    api.engine.record_gates();
    api.engine.record_locks().await?;
    record_queues(&api.engine.queues().await?, api.engine.clock().now_ms());
    metrics::gauge!("redrive_claims_waiting").set(api.engine.dispatcher().waiting() as f64);
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    let breakers = breakers_text(&api.engine.agents().await?, api.engine.clock().now_ms());
    Ok((kind, recorder.render() + &breakers).into_response())
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "health", responses(
    (status = 200, description = "OpenAPI 3.1", body = String, content_type = "application/json"),
))]
pub(super) async fn openapi(State(api): State<Api>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], api.document.to_string()).into_response()
}
