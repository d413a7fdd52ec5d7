//! What a handler's program asks of its context, at the address that its worker gave it.

use std::error::Error;
use std::time::Duration;

use axum::body::Bytes;
use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::id::Name;
use redrive_shared::limits::LEASE_MAX_MS;
use redrive_shared::lock::Token;
use redrive_shared::wire::{CheckpointReply, LockGrant};
use reqwest::{Method, RequestBuilder, Response, Url, header};
use serde_json::json;

use super::{Client, ClientError, unreachable};
use crate::backoff::Backoff;
use crate::context::{CancelReason, Wanted};

/// The environment variable with the address.
pub const CONTEXT_URL: &str = "REDRIVE_CONTEXT_URL";

/// How long an answer may take: while the coordinator is away the worker waits, and ends its handler when the lease ends.
const PATIENCE: Duration = Duration::from_millis(LEASE_MAX_MS);
/// Delays between calls that the worker puts off, besides what it asks for.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// The context of the attempt that this process works for. While too many of the attempt's requests are under way, a call waits
/// its turn. The address is a secret, and in no error.
#[derive(Debug, Clone)]
pub struct ContextClient {
    client: Client,
}

/// Why a context did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It refuses, and says why; nothing was changed.
    #[error(transparent)]
    Refused(Box<Problem>),
    /// The attempt's worker did not answer, or not as a worker does: mostly, the attempt is over.
    #[error("no answer from the worker: {0}")]
    NoAnswer(String),
    /// The address is none.
    #[error("{CONTEXT_URL} is not the address of a context: {0}")]
    Address(String),
}

impl AskError {
    /// The stable code of a refusal.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(problem) => Some(problem.code),
            Self::NoAnswer(_) | Self::Address(_) => None,
        }
    }
}

impl From<ClientError> for AskError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Problem(problem) => Self::Refused(problem),
            ClientError::Unreachable { source, .. } => Self::NoAnswer(root(&source)),
            ClientError::Protocol { detail, .. } | ClientError::Garbled { detail, .. } => {
                Self::NoAnswer(detail)
            }
            ClientError::Address { detail, .. } => Self::Address(detail),
        }
    }
}

/// What the system said, without the HTTP client's layers.
fn root(mut error: &dyn Error) -> String {
    while let Some(inner) = error.source() {
        error = inner;
    }
    error.to_string()
}

impl ContextClient {
    /// At that address.
    ///
    /// # Errors
    /// It is no address.
    pub fn new(url: &str) -> Result<Self, AskError> {
        Ok(Self { client: Client::new(url)? })
    }

    /// The state of a step that is done, as JSON. `None`: it is not done.
    ///
    /// # Errors
    /// The attempt is over, or its worker.
    pub async fn completed(&self, step: &Name) -> Result<Option<Vec<u8>>, AskError> {
        let url = self.client.endpoint(&["steps", step])?;
        let response = match self.send(&url, || self.client.request(Method::GET, &url)).await {
            Ok(response) => response,
            Err(error) if error.code() == Some(ErrorCode::UnknownStep) => return Ok(None),
            Err(error) => return Err(error),
        };
        let state = response.bytes().await.map_err(|source| unreachable(&url, source))?;
        Ok(Some(state.into()))
    }

    /// Says that a step is done, or how far it came; durable on return. `state` is any JSON, or nothing at all.
    ///
    /// # Errors
    /// The lease is over, or the state is refused; nothing was saved.
    pub async fn save(
        &self,
        step: &Name,
        completed: bool,
        pending: Option<&[Name]>,
        state: Vec<u8>,
    ) -> Result<CheckpointReply, AskError> {
        let mut url = self.client.endpoint(&["steps", step])?;
        url.query_pairs_mut().append_pair("completed", if completed { "true" } else { "false" });
        if let Some(pending) = pending {
            let names: Vec<&str> = pending.iter().map(|step| &**step).collect();
            url.query_pairs_mut().append_pair("pending", &names.join(","));
        }
        let state = Bytes::from(state);
        let call = || {
            let call = self.client.request(Method::PUT, &url);
            call.header(header::CONTENT_TYPE, "application/json").body(state.clone())
        };
        let response = self.send(&url, call).await?;
        Ok(self.client.read(response, &url).await?)
    }

    /// Takes a lock for the attempt: its worker renews it, gives it back when the attempt ends, and stops the handler when it is
    /// lost.
    ///
    /// # Errors
    /// [`ErrorCode::LockBusy`] where somebody else has it, all the time that it was waited for.
    pub async fn lock(&self, wanted: &Wanted) -> Result<LockGrant, AskError> {
        let url = self.client.endpoint(&["locks"])?;
        let body = json!({
            "exclusive": wanted.exclusive,
            "shared": wanted.shared,
            "wait_ms": millis(wanted.wait),
            "ttl_ms": wanted.ttl.map(millis),
            "lock_delay_ms": wanted.lock_delay.map(millis),
        });
        let response = self.send(&url, || self.client.request(Method::POST, &url).json(&body)).await?;
        Ok(self.client.read(response, &url).await?)
    }

    /// Gives a lock back. False: it was lost before.
    ///
    /// # Errors
    /// The attempt is over, or its worker: the lock is given back or ends by itself.
    pub async fn unlock(&self, token: Token) -> Result<bool, AskError> {
        let url = self.client.endpoint(&["locks", &token.to_string()])?;
        match self.send(&url, || self.client.request(Method::DELETE, &url)).await {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Some(ErrorCode::UnknownLock) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns when the handler is to stop, with the reason; at once, once it is.
    ///
    /// # Errors
    /// The attempt is over, or its worker: who still works for it is to stop just as well.
    pub async fn stopped(&self) -> Result<CancelReason, AskError> {
        let url = self.client.endpoint(&["stop"])?;
        let response = self.send(&url, || self.client.request(Method::GET, &url)).await?;
        let stop: StopReply = self.client.read(response, &url).await?;
        Ok(stop.reason)
    }

    /// Sends a call until it has its turn. That ends: with the attempt its address does.
    async fn send(&self, url: &Url, call: impl Fn() -> RequestBuilder) -> Result<Response, AskError> {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        loop {
            match self.client.send(call().timeout(PATIENCE), url).await {
                Err(error) if error.code() == Some(ErrorCode::Overloaded) => {
                    tokio::time::sleep(backoff.next(error.retry_after())).await;
                }
                answer => return Ok(answer?),
            }
        }
    }
}

/// Why a handler is to stop.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct StopReply {
    pub(crate) reason: CancelReason,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
