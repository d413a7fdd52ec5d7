//! An HTTP endpoint: the document is posted, the response is the answer.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use redrive_shared::clock::{Clock as _, SystemClock};
use redrive_shared::failure::{FailureClass, FailureSignal};
use redrive_shared::limits::SIGNAL_TEXT_MAX_BYTES;
use redrive_shared::task::Lease;
use redrive_shared::wire::Outcome;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{RequestBuilder, Response, Url};

use super::answer::{self, Answer};
use super::context_server::ContextServer;
use super::document::document;
use crate::client::{error_chain, install_tls_provider, is_loopback};
use crate::context::{CancelReason, TaskContext};
use crate::handler::Handler;
use crate::heavy;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A body that is too large is shown by its beginning only.
const EXCERPT_MAX_BYTES: usize = 1_024;

/// An address that cannot be posted to.
#[derive(Debug, thiserror::Error)]
pub enum HttpHandlerError {
    /// Not an address.
    #[error("not an address: {0}")]
    Address(String),
    /// The HTTP client cannot be built.
    #[error("cannot build the HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

/// Posts each task to one address.
///
/// It never decides whether to retry: every failure goes to the coordinator as it was seen, and the queue's policy decides.
#[derive(Debug, Clone)]
pub struct HttpHandler {
    http: reqwest::Client,
    url: Url,
    /// Where the endpoint can reach it: on this machine.
    contexts: Option<ContextServer>,
}

impl HttpHandler {
    /// A handler that posts to that address, `http` or `https`.
    ///
    /// # Errors
    /// The address cannot be used.
    pub fn new(url: &str) -> Result<Self, HttpHandlerError> {
        install_tls_provider();
        let url = Url::parse(url).map_err(|error| HttpHandlerError::Address(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(HttpHandlerError::Address("it must begin with http:// or https://".to_owned()));
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("redrive/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(15))
            // A redirect could repeat the effect somewhere else, or turn the POST into a GET.
            .redirect(reqwest::redirect::Policy::none());
        let local = is_loopback(&url);
        if local {
            builder = builder.no_proxy();
        }
        let contexts = local.then(ContextServer::default);
        Ok(Self { http: builder.build()?, url, contexts })
    }

    async fn call(&self, task: &Lease, ctx: &TaskContext) -> Outcome {
        let opening = match &self.contexts {
            None => None,
            Some(contexts) => match contexts.open(task, ctx).await {
                Ok(opening) => Some(opening),
                Err(error) => {
                    let exception = Some(format!("the endpoint could not be given its context: {error}"));
                    return retry(FailureSignal { exception, ..FailureSignal::default() });
                }
            },
        };
        let context_url = opening.as_ref().map(|opening| opening.url.as_str());
        match self.request(task, ctx, context_url).send().await {
            Ok(response) => read(response, ctx).await,
            Err(error) => {
                // It may not know that nobody listens any more.
                ctx.leave_locks();
                retry(FailureSignal {
                    // The address is the worker's business, and would make every fingerprint differ.
                    exception: Some(error_chain(&error.without_url())),
                    ..FailureSignal::default()
                })
            }
        }
    }

    fn request(&self, task: &Lease, ctx: &TaskContext, context_url: Option<&str>) -> RequestBuilder {
        let mut request = self
            .http
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("x-redrive-attempt", task.attempt)
            .header("x-redrive-epoch", task.epoch)
            .header("x-redrive-nonce", String::from(task.nonce))
            .header("x-redrive-route", task.route)
            .body(document(task, ctx.agent(), context_url));
        // Ids may have letters beyond ASCII; as bytes, a header can carry them.
        request = request
            .header("idempotency-key", task.id.as_bytes())
            .header("x-redrive-task", task.id.as_bytes());
        if let Some(dependency) = &task.dependency {
            request = request.header("x-redrive-dependency", dependency.as_str());
        }
        if let Some(traceparent) = &task.traceparent {
            request = request.header("traceparent", traceparent.as_bytes());
        }
        if let Some(context_url) = context_url {
            request = request.header("x-redrive-context", context_url);
        }
        request
    }
}

#[async_trait]
impl Handler for HttpHandler {
    async fn run(&self, task: &Lease, ctx: &TaskContext) -> Outcome {
        let reason = tokio::select! {
            biased;
            outcome = self.call(task, ctx) => return outcome,
            // The connection is closed, which is all that can be said to the endpoint.
            reason = ctx.cancelled() => reason,
        };
        match reason {
            CancelReason::Timeout => retry(FailureSignal {
                class: Some(FailureClass::Timeout),
                exception: Some(format!(
                    "the endpoint did not answer within {} ms",
                    ctx.timeout().as_millis()
                )),
                ..FailureSignal::default()
            }),
            CancelReason::LockLost => retry(FailureSignal {
                class: Some(FailureClass::LockTimeout),
                exception: Some(
                    "a lock of the endpoint was lost, and its answer was not waited for".to_owned(),
                ),
                ..FailureSignal::default()
            }),
            CancelReason::LeaseLost | CancelReason::Cancelled | CancelReason::Draining => Outcome::release(),
        }
    }
}

/// A body as far as it was read.
enum Body {
    Complete(Vec<u8>),
    /// The connection broke in the middle.
    Cut(Vec<u8>, reqwest::Error),
    TooLarge(Vec<u8>),
}

async fn read(mut response: Response, ctx: &TaskContext) -> Outcome {
    let status = response.status();
    let headers = signal_headers(response.headers());
    // Of a failure only the beginning is looked at, and a longer body is no failure of its own.
    let max_bytes = usize::try_from(ctx.max_blob_bytes()).unwrap_or(usize::MAX);
    let cap = if status.is_success() { max_bytes } else { SIGNAL_TEXT_MAX_BYTES };
    let body = read_body(&mut response, cap).await;
    let seen = |bytes: &[u8], exception: Option<String>| FailureSignal {
        http_status: Some(status.as_u16()),
        headers: headers.clone(),
        body: (!bytes.is_empty()).then(|| answer::head(&String::from_utf8_lossy(bytes))),
        exception,
        ..FailureSignal::default()
    };
    match body {
        Body::Cut(part, error) => {
            ctx.leave_locks();
            retry(seen(&part, Some(error_chain(&error.without_url()))))
        }
        Body::Complete(bytes) if status.is_success() => {
            heavy::work_on(bytes.len(), move || complete(&bytes, status.as_u16())).await
        }
        Body::TooLarge(part) if status.is_success() => retry(FailureSignal {
            class: Some(FailureClass::BadOutput),
            ..seen(
                &part[..part.len().min(EXCERPT_MAX_BYTES)],
                Some(format!(
                    "the endpoint's answer has more than {max_bytes} bytes: return a reference instead"
                )),
            )
        }),
        Body::Complete(bytes) | Body::TooLarge(bytes) => {
            retry(seen(&bytes, None)).costing(answer::cost(&bytes))
        }
    }
}

/// A good status with a whole body: the answer, unless it is a failure in disguise.
fn complete(bytes: &[u8], status: u16) -> Outcome {
    match answer::read(bytes) {
        Answer::Told(outcome) => outcome,
        Answer::Plain(None) => Outcome::done(None),
        Answer::Plain(Some(result)) => match answer::hidden_failure(&result, status, SystemClock.now_ms()) {
            Some(failure) => retry(failure).costing(answer::cost(bytes)),
            None => Outcome::done(Some(result)),
        },
    }
}

async fn read_body(response: &mut Response, cap: usize) -> Body {
    let mut bytes = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                let room = cap - bytes.len();
                bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if chunk.len() > room {
                    return Body::TooLarge(bytes);
                }
            }
            Ok(None) => return Body::Complete(bytes),
            Err(error) => return Body::Cut(bytes, error),
        }
    }
}

/// Headers as a signal carries them; repeated ones are joined, as HTTP allows.
fn signal_headers(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut map: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        map.entry(name.as_str().to_owned())
            .and_modify(|all| {
                all.push_str(", ");
                all.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    map
}

fn retry(failure: FailureSignal) -> Outcome {
    Outcome::retry(failure)
}

#[cfg(test)]
mod tests;
