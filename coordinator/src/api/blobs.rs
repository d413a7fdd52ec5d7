//! Blobs, up and down: streamed both ways, never whole in memory.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use redrive_shared::blob::{BlobId, BlobRef};
use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::id::TaskId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;

use super::Api;
use super::body::{InPath, require_json};
use super::problem::{ApiProblem, DEFECT};
use crate::blobs::{BlobError, BlobStream};

/// Uploads at once: each takes some MiB of memory, whatever its length.
pub(super) const UPLOADS_MAX: usize = 16;
/// Downloads at once, likewise.
pub(super) const DOWNLOADS_MAX: usize = 32;
/// How long an upload may take in all: well below what [`BLOB_GRACE_MS`](crate::blobs::BLOB_GRACE_MS) leaves until something must
/// refer to it.
const UPLOAD_MAX: Duration = Duration::from_secs(15 * 60);
/// How long whoever downloads may take nothing.
const READER_PATIENCE: Duration = Duration::from_secs(60);
/// When to come back when there are too many at once, in milliseconds.
const RETRY_AFTER_MS: u64 = 1_000;

/// Keeps a blob for a task, which need not be there yet: a payload, a result or a state that is too large to be sent inline. It
/// is there when the answer says so, and to be referred to within half an hour; what breaks off leaves nothing. The coordinator
/// does not look into it.
#[utoipa::path(post, path = "/v1/tasks/{id}/blobs", tag = "blobs",
    params(("id" = String, Path, description = "The task that it is for")),
    request_body(content = serde_json::Value, content_type = "application/json", description = "The JSON, of any length up to `blobs.max_bytes`"),
    responses(
    (status = 201, description = "It is kept; refer to it by this", body = BlobRef),
    (status = 408, description = "It stopped coming; nothing was kept", body = Problem),
    (status = 413, description = "It is too large; nothing was kept", body = Problem),
    (status = 422, description = "No blobs are kept here", body = Problem),
    (status = 429, description = "Too many at once; come back", body = Problem),
    (status = 503, description = "The storage does not answer; nothing was kept", body = Problem),
))]
pub(super) async fn upload(
    State(api): State<Api>,
    InPath(id): InPath<TaskId>,
    request: Request,
) -> Result<(StatusCode, axum::Json<BlobRef>), ApiProblem> {
    require_json(request.headers())?;
    let limit = api.engine.blob_max_bytes()?;
    let declared = request.headers().get(header::CONTENT_LENGTH);
    let declared = declared.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > limit) {
        let detail = format!(
            "a blob may have up to {limit} bytes; cut it into several, or let `coordinator.blobs.max_bytes` be higher"
        );
        return Err(Problem::new(ErrorCode::BodyTooLarge, detail).into());
    }
    let place = place(&api.uploads, "uploads")?;
    let body = in_time(request.into_body(), api.body_timeout);
    // To its end, or to where its bytes end: so that what is left of it is taken away when the caller hangs up.
    let keeping = tokio::spawn(async move {
        let _place = place;
        api.engine.keep_blob(&id, body).await
    });
    match keeping.await {
        Ok(kept) => Ok((StatusCode::CREATED, axum::Json(kept?))),
        Err(_) => Err(Problem::new(ErrorCode::Internal, DEFECT).into()),
    }
}

/// A blob of a task, as it was uploaded.
#[utoipa::path(get, path = "/v1/tasks/{id}/blobs/{blob}", tag = "blobs",
    params(("id" = String, Path, description = "The task"), ("blob" = String, Path, description = "Which of its blobs")),
    responses(
    (status = 200, description = "The JSON; a connection that breaks before `content-length` bytes is an error", body = serde_json::Value),
    (status = 404, description = "No such blob, or no longer", body = Problem),
    (status = 429, description = "Too many at once; come back", body = Problem),
    (status = 503, description = "The storage does not answer", body = Problem),
))]
pub(super) async fn download(
    State(api): State<Api>,
    InPath((id, blob)): InPath<(TaskId, String)>,
) -> Result<Response, ApiProblem> {
    let blob: BlobId = blob.parse().map_err(|error| {
        Problem::new(ErrorCode::InvalidValue, format!("{blob:?}: {error}")).at("path.blob")
    })?;
    let place = place(&api.downloads, "downloads")?;
    let (bytes, body) = api.engine.fetch_blob(&id, blob).await?;
    let mut response = Body::from_stream(handed_over(body, place)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // Where fewer come, the connection is broken: whoever reads sees that it is not whole.
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    Ok(response)
}

/// A place among those at once.
fn place(room: &Arc<Semaphore>, what: &str) -> Result<OwnedSemaphorePermit, Problem> {
    Arc::clone(room).try_acquire_owned().map_err(|_| {
        let detail = format!("too many {what} of blobs at once; come back in a moment");
        Problem::new(ErrorCode::Overloaded, detail).retry_after_ms(RETRY_AFTER_MS)
    })
}

/// A body whose bytes go on coming, and end at all.
fn in_time(body: Body, patience: Duration) -> BlobStream {
    let until = Instant::now() + UPLOAD_MAX;
    let reading = stream::unfold(Some(body.into_data_stream()), move |reading| async move {
        let mut reading = reading?;
        let by = until.min(Instant::now() + patience);
        let interrupted = |why: String| Some((Err(BlobError::Interrupted(why)), None));
        match timeout_at(by, reading.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(chunk))) => Some((Ok(chunk), Some(reading))),
            Ok(Some(Err(error))) => interrupted(error.to_string()),
            Err(_) if by == until => interrupted(format!("it took more than {} s", UPLOAD_MAX.as_secs())),
            Err(_) => interrupted(format!("no byte came for {} s", patience.as_secs())),
        }
    });
    reading.boxed()
}

/// The same bytes, for a reader that may fall asleep: then its place goes to another.
fn handed_over(
    mut body: BlobStream,
    place: OwnedSemaphorePermit,
) -> ReceiverStream<Result<Bytes, BlobError>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let _place = place;
        while let Some(chunk) = body.next().await {
            if let Err(error) = &chunk {
                tracing::warn!(%error, "a download of a blob broke off");
            }
            match timeout(READER_PATIENCE, sender.send(chunk)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return,
            }
        }
    });
    ReceiverStream::new(receiver)
}
