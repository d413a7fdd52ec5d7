//! What each reply looks like on the wire. The shapes are those of real APIs and proxies; the words are our own.

use serde_json::{Value, json};

use super::http::{Refusal, Response};
use super::reply::{Reply, format_duration};

/// What an answer may say about its request.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    pub key: &'a str,
    /// How often this key has called, this call included.
    pub call: u64,
    /// This request's number on this server: makes request ids.
    pub seq: u64,
    pub model: &'a str,
    /// The request's `input`, if small enough to echo.
    pub input: Option<&'a Value>,
}

impl Subject<'_> {
    fn request_id(&self) -> String {
        format!("req_{:024x}", self.seq)
    }
}

/// What is done with the connection.
#[derive(Debug)]
pub(super) enum Answer {
    /// Sent whole.
    Whole(Response),
    /// The head and some chunks of a stream; then the connection is closed without the last chunk.
    Cut { head: Response, chunks: Vec<u8> },
    /// Nothing, for as long as the client waits.
    Hang,
    /// Nothing, and a reset.
    Reset,
}

/// Turns a reply into what is sent.
pub(super) fn answer(reply: Reply, subject: &Subject<'_>) -> Answer {
    let response = match reply {
        Reply::Ok => completion(subject, "stop"),
        Reply::Length => completion(subject, "length"),
        Reply::RateLimitedRetryAfter(seconds) => {
            let message = "Number of requests has exceeded your organization's rate limit for this model";
            anthropic(subject, 429, "rate_limit_error", message)
                .with("retry-after", seconds.to_string())
                .with("x-should-retry", "true")
        }
        Reply::RateLimitedReset(after) => {
            // The text names no time on purpose: the headers are the only hint.
            let message = format!("Rate limit reached for {} on requests per min (RPM)", subject.model);
            openai(subject, 429, &message, "requests", Some("rate_limit_exceeded"))
                .with("x-ratelimit-limit-requests", "500")
                .with("x-ratelimit-remaining-requests", "0")
                .with("x-ratelimit-reset-requests", format_duration(after))
        }
        Reply::QuotaAs429 => {
            let message = "Your current quota is used up; check your plan and billing details";
            openai(subject, 429, message, "insufficient_quota", Some("insufficient_quota"))
        }
        Reply::QuotaAs402 => {
            let message = "This account has no credits left; add credits to go on";
            openai(subject, 402, message, "insufficient_quota", Some("insufficient_quota"))
        }
        Reply::Overloaded => {
            anthropic(subject, 529, "overloaded_error", "Overloaded").with("x-should-retry", "true")
        }
        Reply::ServerError => {
            openai(subject, 500, "The server failed while processing your request", "server_error", None)
        }
        Reply::Unavailable => proxy_page(),
        Reply::Unauthorized => anthropic(subject, 401, "authentication_error", "invalid x-api-key")
            .with("x-should-retry", "false"),
        Reply::ContextLength => {
            let message = "This model's maximum context length is 128000 tokens, but the messages resulted in \
                 131402 tokens. Shorten the messages";
            openai(subject, 400, message, "invalid_request_error", Some("context_length_exceeded"))
        }
        Reply::ModelNotFound => {
            let message =
                format!("The model `{}` does not exist or this account has no access to it", subject.model);
            openai(subject, 404, &message, "invalid_request_error", Some("model_not_found"))
        }
        Reply::Invalid => {
            let problem = json!({
                "type": "missing", "loc": ["body", "messages", 0, "role"], "msg": "Field required", "input": {},
            });
            Response::json(422, &json!({ "detail": [problem] }))
        }
        Reply::Hang => return Answer::Hang,
        Reply::Reset => return Answer::Reset,
        Reply::Cut => return cut(subject),
    };
    Answer::Whole(response)
}

/// The answer to a request that is not served.
pub(super) fn refusal(refusal: &Refusal) -> Response {
    let kind = if refusal.status < 500 { "invalid_request_error" } else { "server_error" };
    let error = json!({ "type": kind, "message": refusal.message });
    Response::json(refusal.status, &json!({ "error": error }))
}

impl Response {
    pub(super) fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Response { status, headers: vec![("content-type", content_type.to_owned())], body: body.into() }
    }

    pub(super) fn json(status: u16, body: &Value) -> Self {
        Response::new(status, "application/json", body.to_string())
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

fn completion(subject: &Subject<'_>, finish_reason: &str) -> Response {
    let Subject { key, call, .. } = subject;
    let content = match finish_reason {
        "length" => format!("Handling {key} on call {call}: first of all, the"),
        _ => format!("Handled {key} on call {call}."),
    };
    let body = json!({
        "id": format!("chatcmpl-{:024x}", subject.seq),
        "object": "chat.completion",
        "model": subject.model,
        "choices": [{
            "index": 0,
            "message": { "role": "assistant", "content": content },
            "finish_reason": finish_reason,
        }],
        "usage": { "prompt_tokens": 24, "completion_tokens": 12, "total_tokens": 36 },
        "result": { "key": key, "call": call, "input": subject.input },
    });
    Response::json(200, &body).with("x-request-id", subject.request_id())
}

fn anthropic(subject: &Subject<'_>, status: u16, kind: &str, message: &str) -> Response {
    let request_id = subject.request_id();
    let error = json!({ "type": kind, "message": message });
    Response::json(status, &json!({ "type": "error", "error": error, "request_id": request_id }))
        .with("request-id", request_id)
}

fn openai(subject: &Subject<'_>, status: u16, message: &str, kind: &str, code: Option<&str>) -> Response {
    let error = json!({ "message": message, "type": kind, "param": null, "code": code });
    Response::json(status, &json!({ "error": error })).with("x-request-id", subject.request_id())
}

fn proxy_page() -> Response {
    let page = "<html>\r\n<head><title>503 Service Temporarily Unavailable</title></head>\r\n<body>\r\n\
         <center><h1>503 Service Temporarily Unavailable</h1></center>\r\n<hr><center>nginx</center>\r\n\
         </body>\r\n</html>\r\n";
    Response::new(503, "text/html", page).with("server", "nginx")
}

/// A stream in Anthropic's shape that has begun a sentence; `message_delta` and `message_stop` never come.
fn cut(subject: &Subject<'_>) -> Answer {
    let message = json!({
        "id": format!("msg_{:024x}", subject.seq), "type": "message", "role": "assistant",
        "model": subject.model, "content": [], "stop_reason": null, "stop_sequence": null,
        "usage": { "input_tokens": 24, "output_tokens": 1 },
    });
    let mut chunks = Vec::new();
    push_event(&mut chunks, "message_start", json!({ "message": message }));
    let block = json!({ "type": "text", "text": "" });
    push_event(&mut chunks, "content_block_start", json!({ "index": 0, "content_block": block }));
    for text in ["Handling ", subject.key, " and then"] {
        let delta = json!({ "type": "text_delta", "text": text });
        push_event(&mut chunks, "content_block_delta", json!({ "index": 0, "delta": delta }));
    }
    let head = Response::new(200, "text/event-stream; charset=utf-8", "")
        .with("cache-control", "no-cache")
        .with("request-id", subject.request_id());
    Answer::Cut { head, chunks }
}

/// Adds one server-sent event, as one chunk of a chunked body.
fn push_event(chunks: &mut Vec<u8>, kind: &str, mut data: Value) {
    data["type"] = kind.into();
    let event = format!("event: {kind}\ndata: {data}\n\n");
    chunks.extend_from_slice(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes());
}
