//! Reading requests: bodies with limits and time-outs, JSON with errors that say what, where and what to do instead.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header;
use axum::http::request::Parts;
use futures_util::StreamExt;
use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::limits::BODY_MAX_BYTES;
use serde::de::DeserializeOwned;
use tokio::sync::OwnedSemaphorePermit;

use super::Api;
use super::problem::ApiProblem;
use crate::json::{parse, unknown_field};

/// A JSON body, and the room that it takes: held until its handler is done with it.
pub(super) struct Json<T>(pub T, pub OwnedSemaphorePermit);

impl<T: DeserializeOwned> FromRequest<Api> for Json<T> {
    type Rejection = ApiProblem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiProblem> {
        require_json(request.headers())?;
        let declared = request
            .headers()
            .get(header::CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if declared.is_some_and(|length| length > BODY_MAX_BYTES as u64) {
            return Err(too_large().into());
        }
        let wanted =
            declared.map_or(BODY_MAX_BYTES, |length| usize::try_from(length).unwrap_or(BODY_MAX_BYTES));
        // Producers that flood must not keep workers from reporting.
        let pool = if request.uri().path() == "/v1/tasks" { &api.enqueue_bodies } else { &api.bodies };
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        let Ok(room) = Arc::clone(pool).try_acquire_many_owned(wanted) else {
            return Err(crowded().into());
        };
        let length = declared.and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        let bytes = match tokio::time::timeout(api.body_timeout, read(request, length)).await {
            Ok(read) => read?,
            Err(_) => return Err(slow(api.body_timeout).into()),
        };
        Ok(Self(parse(&bytes)?, room))
    }
}

/// Reads a body of about that length.
async fn read(request: Request, length: usize) -> Result<Bytes, Problem> {
    let mut stream = request.into_body().into_data_stream();
    let Some(first) = stream.next().await else { return Ok(Bytes::new()) };
    let broken = |_| Problem::new(ErrorCode::MalformedJson, "the body ended before it was complete");
    let first = first.map_err(broken)?;
    let mut whole: Option<Vec<u8>> = None;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(broken)?;
        let whole = whole.get_or_insert_with(|| {
            let mut whole = Vec::with_capacity(length.max(first.len()));
            whole.extend_from_slice(&first);
            whole
        });
        if whole.len() + chunk.len() > BODY_MAX_BYTES {
            return Err(too_large());
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.map_or(first, Bytes::from))
}

/// A page of a foreign site can make a browser send forms to this machine, but not `application/json`.
pub(super) fn require_json(headers: &axum::http::HeaderMap) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("none");
    let kind = given.split(';').next().unwrap_or(given).trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let detail = format!(
        "the content type is `{given}`; send the header `content-type: application/json` (curl --json does)"
    );
    Err(Problem::new(ErrorCode::UnsupportedMediaType, detail))
}

fn too_large() -> Problem {
    let detail = format!(
        "a body may have up to {BODY_MAX_BYTES} bytes; send smaller batches, and upload what is large in itself as a blob \
         (POST /v1/tasks/ID/blobs) to refer to it"
    );
    Problem::new(ErrorCode::BodyTooLarge, detail)
}

fn crowded() -> Problem {
    const RETRY_AFTER_MS: u64 = 1_000;
    Problem::new(ErrorCode::Overloaded, "too many request bodies are on their way in; come back in a moment")
        .retry_after_ms(RETRY_AFTER_MS)
}

fn slow(limit: std::time::Duration) -> Problem {
    let detail = format!("the body did not arrive within {} s; send smaller batches", limit.as_secs());
    Problem::new(ErrorCode::RequestTimeout, detail)
}

/// A value in the path.
pub(super) struct InPath<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Api> for InPath<T> {
    type Rejection = ApiProblem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiProblem> {
        match Path::<T>::from_request_parts(parts, api).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(error) => Err(Problem::new(ErrorCode::InvalidValue, error.body_text()).at("path").into()),
        }
    }
}

/// Values in the query.
pub(super) struct InQuery<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Api> for InQuery<T> {
    type Rejection = ApiProblem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiProblem> {
        match Query::<T>::from_request_parts(parts, api).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(error) => Err(in_query(&error.body_text()).into()),
        }
    }
}

fn in_query(said: &str) -> Problem {
    let said = said.strip_prefix("Failed to deserialize query string: ").unwrap_or(said);
    // serde_path_to_error puts the parameter before it.
    let said = said.find("unknown field").map_or(said, |start| &said[start..]);
    match unknown_field(said) {
        Some((field, known)) => {
            let detail = format!("there is no parameter `{field}` here; known: {}", known.join(", "));
            Problem::new(ErrorCode::UnknownField, detail).at("query")
        }
        None => Problem::new(ErrorCode::InvalidValue, said).at("query"),
    }
}
