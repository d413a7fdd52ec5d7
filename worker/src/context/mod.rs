//! What a handler can ask for while it runs: how far earlier attempts came, checkpoints, locks, and when to stop.
//!
//! Nothing here holds any truth. A checkpoint is saved when the coordinator says so, under the attempt's lease; a lock is held as
//! long as its renewals are answered. The context numbers the checkpoints, asks again while the coordinator is away, moves what
//! is too large for the store to blobs, and tells the handler when what it relied on is lost.

mod blobs;
mod error;
mod locks;
mod steps;
mod stop;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::time::Duration;

use redrive_shared::error::ErrorCode;
use redrive_shared::id::{Name, TaskId};
use redrive_shared::task::{Lease, Nonce};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use error::ContextError;
pub(crate) use locks::Released;
pub use locks::{AttemptLock, Wanted};
pub use stop::{CancelReason, Stop};

use crate::backoff::Backoff;
use crate::client::ClientError;
use crate::link::{AttemptLink, LinkError};
use crate::telemetry;
use locks::Locks;
pub(crate) use steps::NewCheckpoint;
use steps::Steps;

/// Delays between calls that fail.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// What all attempts of one worker have in common.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The agent that runs them.
    pub agent: Name,
    /// The coordinator's address.
    pub api_url: Arc<str>,
    /// The way to it.
    pub link: Arc<dyn AttemptLink>,
    /// Most bytes of a payload, a state or a result that is kept as a blob.
    pub max_blob_bytes: u64,
}

/// What a handler knows and can do besides its task. Clones are of the same attempt.
#[derive(Debug, Clone)]
pub struct TaskContext {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    task: TaskId,
    epoch: i64,
    nonce: Nonce,
    surroundings: Surroundings,
    started: Instant,
    timeout: Duration,
    stop: Stop,
    steps: Steps,
    locks: Locks,
}

impl TaskContext {
    /// A context as the runtime makes it; for tests of handlers too. `timeout` counts from now.
    pub fn new(task: &Lease, surroundings: Surroundings, timeout: Duration, stop: Stop) -> Self {
        let inner = Inner {
            task: task.id.clone(),
            epoch: task.epoch,
            nonce: task.nonce,
            surroundings,
            started: Instant::now(),
            timeout,
            stop,
            steps: Steps::new(task.checkpoint.clone().unwrap_or_default()),
            locks: Locks::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The agent that runs the task.
    pub fn agent(&self) -> &Name {
        &self.inner.surroundings.agent
    }

    /// The coordinator's address, for new tasks.
    pub fn api_url(&self) -> &str {
        &self.inner.surroundings.api_url
    }

    /// How long the task may take in all.
    pub fn timeout(&self) -> Duration {
        self.inner.timeout
    }

    /// How much of that is left.
    pub fn time_left(&self) -> Duration {
        self.inner.timeout.saturating_sub(self.inner.started.elapsed())
    }

    /// Most bytes of a payload, a state or a result.
    pub fn max_blob_bytes(&self) -> u64 {
        self.inner.surroundings.max_blob_bytes
    }

    /// A token to hand on to what the handler calls. Cancelling it stops only those who have it.
    pub fn token(&self) -> CancellationToken {
        self.inner.stop.token()
    }

    /// Why the handler is to stop, if it is.
    pub fn reason(&self) -> Option<CancelReason> {
        self.inner.stop.reason()
    }

    /// Returns when the handler is to stop, with the reason.
    pub async fn cancelled(&self) -> CancelReason {
        self.inner.stop.wait().await
    }

    /// Returns when the task is not this attempt's any more.
    async fn gone(&self) -> CancelReason {
        let reason = self.inner.stop.wait().await;
        if !reason.is_final() {
            // It may still save what it has. The runtime drops it when its lease or its patience ends.
            std::future::pending::<()>().await;
        }
        reason
    }

    fn check_still_ours(&self) -> Result<(), ContextError> {
        match self.reason().filter(|reason| reason.is_final()) {
            Some(reason) => Err(ContextError::Stopped(reason)),
            None => Ok(()),
        }
    }

    /// Calls until there is an answer or the task is not this attempt's any more: a coordinator that is away may be back before
    /// the lease ends.
    async fn patiently<T, F>(
        &self,
        what: &'static str,
        mut call: impl FnMut() -> F,
    ) -> Result<T, ContextError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        self.check_still_ours()?;
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        let calls = async {
            loop {
                let error = match call().await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => LinkError::from(error),
                };
                telemetry::link_error(what);
                if !error.is_retryable() {
                    return Err(self.refused(error));
                }
                tracing::warn!(task = %self.inner.task, call = what, %error, "an attempt's call brought no answer yet");
                tokio::time::sleep(backoff.next(error.retry_after())).await;
            }
        };
        tokio::select! {
            biased;
            reason = self.gone() => Err(ContextError::Stopped(reason)),
            answer = calls => answer,
        }
    }

    /// What it means that a call did not do what was asked for, whichever it was. A lease that is over stops the handler.
    fn refused(&self, error: impl Into<LinkError>) -> ContextError {
        match error.into() {
            LinkError::Refused(problem)
                if matches!(problem.code, ErrorCode::StaleEpoch | ErrorCode::UnknownTask) =>
            {
                tracing::warn!(task = %self.inner.task, %problem, "a lease was lost: its handler is stopped");
                self.inner.stop.now(CancelReason::LeaseLost);
                ContextError::Stopped(CancelReason::LeaseLost)
            }
            LinkError::Refused(problem) if problem.code == ErrorCode::LockBusy => {
                ContextError::LockBusy(problem)
            }
            LinkError::Refused(problem) => ContextError::Refused(problem),
            LinkError::NoAnswer { text, .. } => ContextError::Unavailable(text),
        }
    }
}
