//! How a worker reaches a coordinator. The runtime knows only these traits, so that work can also arrive another way.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Bytes;
use redrive_shared::blob::BlobRef;
use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::id::{Name, TaskId};
use redrive_shared::wire::{
    CheckpointReply, CheckpointRequest, ClaimReply, ClaimRequest, ExtendReply, ExtendRequest, Heartbeat,
    HeartbeatReply, LockGrant, LockRefs, LockRequest, LockResults, SettleReply, SettleRequest,
};

use crate::client::{Client, ClientError, Download};

/// What a worker says to a coordinator. No method retries: the runtime does, and may drop a call at any await.
#[async_trait]
pub trait Link: Send + Sync + 'static {
    /// Asks for work, for up to `request.wait_ms`.
    async fn claim(&self, request: &ClaimRequest) -> Result<ClaimReply, LinkError>;

    /// Whether work comes by itself as long as there is room for it, which heartbeats then tell.
    fn is_pushed(&self) -> bool {
        false
    }

    /// Whether work that comes by itself can reach this worker now.
    fn is_in_reach(&self) -> bool {
        true
    }

    /// Waits until that is otherwise than it was.
    async fn reach_changed(&self) {
        std::future::pending().await
    }

    /// Says that work on these leases begins.
    async fn start(&self, request: &ExtendRequest) -> Result<ExtendReply, LinkError>;

    /// Says that the worker lives, and extends its leases.
    async fn heartbeat(&self, request: &Heartbeat) -> Result<HeartbeatReply, LinkError>;

    /// Says how attempts ended.
    async fn settle(&self, request: &SettleRequest) -> Result<SettleReply, LinkError>;

    /// Shows that this boot of the agent lives, for as long as the future runs; returns when the connection has broken
    /// (`Ok`: it was closed in good order).
    async fn presence(&self, agent: &Name, boot_id: &Name) -> Result<(), LinkError>;

    /// The way to what attempts ask for while they run.
    fn attempts(&self) -> Arc<dyn AttemptLink>;
}

/// What an attempt asks of a coordinator while it runs. No method retries: the attempt's context does.
#[async_trait]
pub trait AttemptLink: Debug + Send + Sync + 'static {
    /// Saves how far the work came; durable on return.
    async fn save_checkpoint(
        &self,
        task: &TaskId,
        request: &CheckpointRequest,
    ) -> Result<CheckpointReply, ClientError>;

    /// Keeps a blob for the task; durable on return, and nothing refers to it yet.
    async fn upload_blob(&self, task: &TaskId, contents: Bytes) -> Result<BlobRef, ClientError>;

    /// One of the task's blobs, as it comes.
    async fn download_blob(&self, task: &TaskId, blob: &BlobRef) -> Result<Download, ClientError>;

    /// Asks for a lock, and waits for up to `wait_ms` for it. None: it is waited for still, ask again.
    async fn acquire_lock(
        &self,
        request: &LockRequest,
        wait_ms: u64,
    ) -> Result<Option<LockGrant>, ClientError>;

    /// Makes locks last.
    async fn renew_locks(&self, locks: &LockRefs) -> Result<LockResults, ClientError>;

    /// Gives locks back.
    async fn release_locks(&self, locks: &LockRefs) -> Result<LockResults, ClientError>;
}

/// Why a call brought no answer, or a refusal.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The coordinator refused.
    #[error(transparent)]
    Refused(Box<Problem>),
    /// No usable answer: nobody there, a broken connection, a proxy in between.
    #[error("{text}")]
    NoAnswer {
        /// What happened, with its causes.
        text: String,
        /// How long the other side asks to wait.
        retry_after: Option<Duration>,
        /// Whether the call may have been carried out all the same.
        outcome_unknown: bool,
    },
}

impl LinkError {
    /// Whether the same call may succeed later. Whoever gives no usable answer may give one later: only a refusal for
    /// what the call says is final.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(problem) => problem.status >= 500 || matches!(problem.status, 408 | 425 | 429),
            Self::NoAnswer { .. } => true,
        }
    }

    /// Whether the call may have been carried out although no answer came.
    pub fn is_outcome_unknown(&self) -> bool {
        match self {
            Self::Refused(problem) => problem.status >= 500,
            Self::NoAnswer { outcome_unknown, .. } => *outcome_unknown,
        }
    }

    /// How long the other side asks to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(problem) => problem.retry_after_ms.map(Duration::from_millis),
            Self::NoAnswer { retry_after, .. } => *retry_after,
        }
    }

    /// The stable code of a refusal.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(problem) => Some(problem.code),
            Self::NoAnswer { .. } => None,
        }
    }
}

impl From<ClientError> for LinkError {
    fn from(error: ClientError) -> Self {
        let (text, retry_after) = (error.chain(), error.retry_after());
        let outcome_unknown = error.is_outcome_unknown();
        match error {
            ClientError::Problem(problem) => Self::Refused(problem),
            ClientError::Unreachable { .. }
            | ClientError::Protocol { .. }
            | ClientError::Garbled { .. }
            | ClientError::Address { .. } => Self::NoAnswer { text, retry_after, outcome_unknown },
        }
    }
}

/// Pull: over the coordinator's HTTP API.
#[derive(Debug, Clone)]
pub struct HttpLink {
    client: Client,
}

impl HttpLink {
    /// A link over that client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

#[async_trait]
impl Link for HttpLink {
    async fn claim(&self, request: &ClaimRequest) -> Result<ClaimReply, LinkError> {
        Ok(self.client.claim(request).await?)
    }

    async fn start(&self, request: &ExtendRequest) -> Result<ExtendReply, LinkError> {
        Ok(self.client.extend(request).await?)
    }

    async fn heartbeat(&self, request: &Heartbeat) -> Result<HeartbeatReply, LinkError> {
        Ok(self.client.heartbeat(request).await?)
    }

    async fn settle(&self, request: &SettleRequest) -> Result<SettleReply, LinkError> {
        Ok(self.client.settle(request).await?)
    }

    async fn presence(&self, agent: &Name, boot_id: &Name) -> Result<(), LinkError> {
        Ok(self.client.presence(agent, boot_id).await?.closed().await?)
    }

    fn attempts(&self) -> Arc<dyn AttemptLink> {
        Arc::new(self.client.clone())
    }
}
