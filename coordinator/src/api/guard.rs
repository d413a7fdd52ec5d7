//! What stands before every handler.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use redrive_shared::error::{ErrorCode, Problem};

use super::Api;
use super::problem::ApiProblem;

/// Without keys, only this machine's own names are taken as Host and Origin: a page of a foreign site whose name was
/// made to point here (DNS rebinding) would send its own.
pub(super) async fn same_machine(request: Request, next: Next) -> Response {
    for name in [header::HOST, header::ORIGIN] {
        if let Some(problem) = foreign(request.headers(), &name) {
            return ApiProblem(problem).into_response();
        }
    }
    next.run(request).await
}

fn foreign(headers: &HeaderMap, name: &header::HeaderName) -> Option<Problem> {
    let value = headers.get(name)?;
    let text = value.to_str().unwrap_or("");
    let host = text.split_once("://").map_or(text, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or(bracketed),
        None => host.split(':').next().unwrap_or(host),
    };
    let local = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if local {
        return None;
    }
    let detail = format!(
        "`{name}: {text}` is not this machine; without API keys only localhost and 127.0.0.1 are answered"
    );
    Some(Problem::new(ErrorCode::ForbiddenHost, detail))
}

/// Counts requests and how long they took, by route, never by path.
pub(super) async fn measured(State(_api): State<Api>, request: Request, next: Next) -> Response {
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("(none)".to_owned(), |path| path.as_str().to_owned());
    // The caller's own inventions must not become labels.
    let known = [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::HEAD, Method::OPTIONS];
    let method =
        known.iter().find(|known| *known == request.method()).map_or("(other)", Method::as_str).to_owned();
    let started = Instant::now();
    let response = next.run(request).await;
    let status = response.status().as_u16().to_string();
    metrics::counter!("redrive_http_requests_total", "route" => route.clone(), "method" => method, "status" => status)
        .increment(1);
    metrics::histogram!("redrive_http_seconds", "route" => route).record(started.elapsed().as_secs_f64());
    response
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn only_this_machine_is_answered() {
        let asked = |host: &'static str| {
            let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(host))]);
            foreign(&headers, &header::HOST).is_none()
        };
        assert!(asked("localhost:7878") && asked("127.0.0.1") && asked("[::1]:7878") && asked("127.0.0.1:1"));
        assert!(
            !asked("evil.example:7878")
                && !asked("localhost.evil.example")
                && !asked("")
                && !asked("10.0.0.1")
        );
        let headers =
            HeaderMap::from_iter([(header::ORIGIN, HeaderValue::from_static("https://evil.example"))]);
        assert!(foreign(&headers, &header::ORIGIN).is_some());
    }
}
