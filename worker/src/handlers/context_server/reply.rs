//! Answers, and problems in the shape that the API gives them.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use redrive_shared::error::{ErrorCode, Problem};
use serde::Serialize;

use crate::context::ContextError;

/// Why a request is not answered otherwise.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) Problem);

impl Refusal {
    pub(super) fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self(Problem::new(code, detail))
    }

    pub(super) fn at(self, place: &str) -> Self {
        Self(self.0.at(place))
    }
}

impl From<ContextError> for Refusal {
    fn from(error: ContextError) -> Self {
        Self(error.problem())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        let mut response = with_type("application/problem+json", body.into());
        *response.status_mut() = status;
        if let Some(after_ms) = self.0.retry_after_ms {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(after_ms.div_ceil(1_000)));
        }
        response
    }
}

/// A value as JSON.
pub(super) fn json(value: &impl Serialize) -> Response {
    // Our own types, and JSON that is valid already, can be written.
    with_type("application/json", serde_json::to_vec(value).unwrap_or_default().into())
}

pub(super) fn with_type(kind: &'static str, body: Body) -> Response {
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
