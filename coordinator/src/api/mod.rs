//! The HTTP API: `/v1`, health, metrics, and the OpenAPI document that is made from this code.

mod actor;
mod blobs;
mod body;
mod breakers;
mod checkpoints;
mod gates;
mod guard;
mod health;
mod leases;
mod locks;
mod problem;
mod queues;
mod tasks;
mod work;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use metrics_exporter_prometheus::PrometheusHandle;
use redrive_shared::error::{ErrorCode, Problem};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::problem::ApiProblem;
use crate::engine::Engine;

/// Bytes of request bodies that may be on their way in at once, for enqueues and for everything else. Beyond it callers
/// are told to come back, before memory runs out.
const BODIES_MAX_BYTES: usize = 128 * 1024 * 1024;

#[derive(OpenApi)]
#[openapi(
    info(title = "Redrive", description = "The retry queue for fleets of AI agents."),
    tags(
        (name = "tasks", description = "Enqueue failed work, ask after it, act on it"),
        (name = "blobs", description = "Payloads, results and states that are too large for the store"),
        (name = "work", description = "For workers: claims, leases, settlements, heartbeats"),
        (name = "checkpoints", description = "How far the work on a task came, so that its next attempt goes on from there"),
        (name = "queues", description = "Policies, pausing"),
        (name = "breakers", description = "Circuit breakers of the agents"),
        (name = "gates", description = "What holds the whole fleet back from a dependency"),
        (name = "locks", description = "Who may touch a file, or anything else that is shared"),
        (name = "health", description = "For orchestrators and scrapers")
    )
)]
struct Document;

/// What every handler can reach.
#[derive(Clone)]
pub struct Api {
    engine: Arc<Engine>,
    metrics: Option<PrometheusHandle>,
    /// Ends streams that would hold up a shutdown.
    shutdown: CancellationToken,
    bodies: Arc<Semaphore>,
    enqueue_bodies: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
    downloads: Arc<Semaphore>,
    body_timeout: Duration,
    document: Arc<str>,
}

impl Api {
    /// The API of an engine. `shutdown` ends open streams.
    pub fn new(
        engine: Arc<Engine>,
        metrics: Option<PrometheusHandle>,
        body_timeout: Duration,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            engine,
            metrics,
            shutdown,
            bodies: Arc::new(Semaphore::new(BODIES_MAX_BYTES)),
            enqueue_bodies: Arc::new(Semaphore::new(BODIES_MAX_BYTES)),
            uploads: Arc::new(Semaphore::new(blobs::UPLOADS_MAX)),
            downloads: Arc::new(Semaphore::new(blobs::DOWNLOADS_MAX)),
            body_timeout,
            document: Arc::from(""),
        }
    }

    /// The routes, with everything that guards them.
    pub fn router(mut self) -> Router {
        let (routes, document) = Self::routes().split_for_parts();
        // The document is made of static descriptions; were it ever not to serialise, its test would fail.
        self.document = document.to_json().unwrap_or_default().into();
        routes
            .fallback(unknown_path)
            .method_not_allowed_fallback(method_not_allowed)
            // Bodies are read with the project's own limit and its own answers.
            .layer(DefaultBodyLimit::disable())
            .layer(from_fn(guard::same_machine))
            .layer(from_fn_with_state(self.clone(), guard::measured))
            .layer(CatchPanicLayer::custom(problem::panicked))
            .with_state(self)
    }

    fn routes() -> OpenApiRouter<Self> {
        OpenApiRouter::with_openapi(Document::openapi())
            .routes(routes!(tasks::enqueue, tasks::list))
            .routes(routes!(tasks::get))
            .routes(routes!(tasks::status))
            .routes(routes!(tasks::cancel))
            .routes(routes!(tasks::retry))
            .routes(routes!(blobs::upload))
            .routes(routes!(blobs::download))
            .routes(routes!(checkpoints::save, checkpoints::document))
            .routes(routes!(checkpoints::steps))
            .routes(routes!(work::claim))
            .routes(routes!(work::extend))
            .routes(routes!(work::settle))
            .routes(routes!(work::heartbeat))
            .routes(routes!(work::report))
            .routes(routes!(work::agents))
            .routes(routes!(work::presence))
            .routes(routes!(breakers::list))
            .routes(routes!(breakers::command))
            .routes(routes!(queues::list, queues::put_all))
            .routes(routes!(queues::versions))
            .routes(routes!(queues::get, queues::put))
            .routes(routes!(queues::pause))
            .routes(routes!(queues::resume))
            .routes(routes!(gates::list, gates::change))
            .routes(routes!(locks::list, locks::acquire))
            .routes(routes!(locks::renew))
            .routes(routes!(locks::release))
            .routes(routes!(locks::break_lock))
            .routes(routes!(health::livez))
            .routes(routes!(health::readyz))
            .routes(routes!(health::metrics))
            .routes(routes!(health::openapi))
    }
}

/// Does a verb to its end, even when the caller hangs up: what follows its commit (waking workers, telling producers)
/// must not be lost with the connection.
async fn to_the_end<T: Send + 'static>(
    room: OwnedSemaphorePermit,
    verb: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<axum::Json<T>, ApiProblem> {
    let done = tokio::spawn(async move {
        let _room = room;
        verb.await
    });
    match done.await {
        Ok(answer) => Ok(axum::Json(answer?)),
        Err(_) => Err(Problem::new(ErrorCode::Internal, problem::DEFECT).into()),
    }
}

/// An answer of so many results, written into room that is there from the beginning.
fn results(answer: &impl Serialize, count: usize) -> Response {
    /// About what one takes.
    const RESULT_BYTES: usize = 128;
    let mut body = Vec::with_capacity(count * RESULT_BYTES);
    written(serde_json::to_writer(&mut body, answer).map(|()| body))
}

/// An answer that is written already.
fn written(body: serde_json::Result<Vec<u8>>) -> Response {
    match body {
        Ok(body) => ([(CONTENT_TYPE, "application/json")], body).into_response(),
        Err(_) => ApiProblem::from(Problem::new(ErrorCode::Internal, problem::DEFECT)).into_response(),
    }
}

async fn unknown_path(uri: axum::http::Uri) -> ApiProblem {
    let detail = format!("there is nothing at {}; GET /openapi.json lists every path", uri.path());
    Problem::new(ErrorCode::UnknownPath, detail).into()
}

async fn method_not_allowed(method: axum::http::Method, uri: axum::http::Uri) -> ApiProblem {
    let detail = format!("{} does not take {method}; GET /openapi.json lists every path", uri.path());
    Problem::new(ErrorCode::MethodNotAllowed, detail).into()
}
