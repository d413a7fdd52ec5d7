//! What a handler is: the code that does a task's work.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use redrive_shared::id::Name;
use redrive_shared::task::Lease;
use redrive_shared::wire::Outcome;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Does the work of one task. Embed it with [`crate::run`]; [`crate::handlers`] has two that need no Rust.
///
/// A task may be delivered more than once, to this worker or another: make the effect idempotent with the task's id, and
/// fence it with the lease's epoch. A panic is caught, and counts as a failed attempt.
///
/// ```
/// use redrive_shared::{task::Lease, wire::Outcome};
/// use redrive_worker::{Handler, TaskContext};
///
/// struct Shout;
///
/// #[async_trait::async_trait]
/// impl Handler for Shout {
///     async fn run(&self, task: &Lease, _ctx: &TaskContext) -> Outcome {
///         let text = task.payload.get().to_uppercase();
///         Outcome::done(serde_json::value::RawValue::from_string(text).ok())
///     }
/// }
/// ```
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Runs the task to its end and says how it ended.
    ///
    /// When `ctx` is cancelled, return soon: after [`CANCEL_GRACE`], or at the end of the lease if that comes first, this
    /// future is dropped.
    async fn run(&self, task: &Lease, ctx: &TaskContext) -> Outcome;
}

/// How long a handler may go on after it was cancelled before its future is dropped; less when its lease
/// ends before.
pub const CANCEL_GRACE: Duration = Duration::from_secs(4);

/// Why a handler is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelReason {
    /// It has had its time. The attempt fails, unless the handler still returns `Done`.
    Timeout,
    /// The lease is over: another worker may have the task already. Whatever is returned is dropped.
    LeaseLost,
    /// Someone called the task off. Whatever is returned is dropped.
    Cancelled,
    /// The worker stops. The task is handed back without charge, unless the handler still returns `Done`.
    Draining,
}

impl CancelReason {
    /// The name used in logs and as a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::LeaseLost => "lease_lost",
            Self::Cancelled => "cancelled",
            Self::Draining => "draining",
        }
    }
}

/// What a handler knows besides its task.
#[derive(Debug, Clone)]
pub struct TaskContext {
    agent: Name,
    api_url: Arc<str>,
    started: Instant,
    timeout: Duration,
    stop: Stop,
}

impl TaskContext {
    /// A context as the runtime makes it; for tests of handlers too. `timeout` counts from now.
    pub fn new(agent: Name, api_url: Arc<str>, timeout: Duration, stop: Stop) -> Self {
        Self { agent, api_url, started: Instant::now(), timeout, stop }
    }

    /// The agent that runs the task.
    pub fn agent(&self) -> &Name {
        &self.agent
    }

    /// The coordinator's address, for checkpoints, locks and new tasks.
    pub fn api_url(&self) -> &str {
        &self.api_url
    }

    /// How long the task may take in all.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// How much of that is left.
    pub fn time_left(&self) -> Duration {
        self.timeout.saturating_sub(self.started.elapsed())
    }

    /// A token to hand on to what the handler calls. Cancelling it stops only those who have it.
    pub fn token(&self) -> CancellationToken {
        self.stop.token.child_token()
    }

    /// Why the handler is to stop, if it is.
    pub fn reason(&self) -> Option<CancelReason> {
        self.stop.reason()
    }

    /// Returns when the handler is to stop, with the reason.
    pub async fn cancelled(&self) -> CancelReason {
        self.stop.wait().await
    }
}

/// Tells one handler to stop. The first reason stands. Clones are of the same switch.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    token: CancellationToken,
    reason: Arc<OnceLock<CancelReason>>,
}

impl Stop {
    /// Says stop, and why; without effect when that was said before.
    pub fn now(&self, reason: CancelReason) {
        // Before the token: whoever is woken by it finds the reason.
        let _ = self.reason.set(reason);
        self.token.cancel();
    }

    /// Why, if it was said.
    pub fn reason(&self) -> Option<CancelReason> {
        self.reason.get().copied()
    }

    /// Returns when it is said.
    pub async fn wait(&self) -> CancelReason {
        self.token.cancelled().await;
        // The token is never cancelled without a reason, and never given out.
        self.reason().unwrap_or(CancelReason::Cancelled)
    }
}
