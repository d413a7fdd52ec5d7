//! What a handler's program asks of its context, at the address that its worker gave it.

use std::time::Duration;

use redrive_shared::error::ErrorCode;
use redrive_shared::id::Name;
use redrive_shared::limits::LEASE_MAX_MS;
use redrive_shared::wire::CheckpointReply;
use reqwest::{Method, header};

use super::{Client, ClientError, unreachable};

/// The environment variable with the address.
pub const CONTEXT_URL: &str = "REDRIVE_CONTEXT_URL";

/// How long an answer may take: while the coordinator is away the worker waits, and ends its handler when the lease ends.
const PATIENCE: Duration = Duration::from_millis(LEASE_MAX_MS);

/// The context of the attempt that this process works for.
#[derive(Debug, Clone)]
pub struct ContextClient {
    client: Client,
}

impl ContextClient {
    /// At that address.
    ///
    /// # Errors
    /// It is no address.
    pub fn new(url: &str) -> Result<Self, ClientError> {
        Ok(Self { client: Client::new(url)? })
    }

    /// The state of a step that is done, as JSON. `None`: it is not done.
    ///
    /// # Errors
    /// The attempt is over, or its worker.
    pub async fn completed(&self, step: &Name) -> Result<Option<Vec<u8>>, ClientError> {
        let url = self.client.endpoint(&["steps", step])?;
        let call = self.client.request(Method::GET, &url).timeout(PATIENCE);
        let response = match self.client.send(call, &url).await {
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
    ) -> Result<CheckpointReply, ClientError> {
        let mut url = self.client.endpoint(&["steps", step])?;
        url.query_pairs_mut().append_pair("completed", if completed { "true" } else { "false" });
        if let Some(pending) = pending {
            let names: Vec<&str> = pending.iter().map(|step| &**step).collect();
            url.query_pairs_mut().append_pair("pending", &names.join(","));
        }
        let call = self.client.request(Method::PUT, &url).timeout(PATIENCE);
        let call = call.header(header::CONTENT_TYPE, "application/json").body(state);
        self.client.call(call, &url).await
    }
}
