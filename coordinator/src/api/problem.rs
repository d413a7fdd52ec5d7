//! Problems as HTTP responses.

use std::any::Any;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use redrive_shared::error::{ErrorCode, Problem};

/// A problem on its way out.
#[derive(Debug)]
pub(super) struct ApiProblem(pub Problem);

impl From<Problem> for ApiProblem {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for ApiProblem {
    fn into_response(self) -> Response {
        with_body(&self.0, serde_json::to_vec(&self.0).unwrap_or_default())
    }
}

/// A response with a problem's status and headers, and this body.
pub(super) fn with_body(problem: &Problem, body: Vec<u8>) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Body::from(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Some(after_ms) = problem.retry_after_ms {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(after_ms.div_ceil(1_000)));
    }
    response
}

/// What callers hear of a defect.
pub(super) const DEFECT: &str = "a defect; the log has its trace, and nothing was acknowledged";

/// A handler panicked: a defect, which must not take others with it.
pub(super) fn panicked(_panic: Box<dyn Any + Send + 'static>) -> Response {
    ApiProblem(Problem::new(
        ErrorCode::Internal,
        "a defect; the log has its trace, and nothing was acknowledged",
    ))
    .into_response()
}
