//! How a handler is told to stop.

use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

/// Why a handler is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelReason {
    /// It has had its time. The attempt fails, unless the handler still returns `Done`.
    Timeout,
    /// The lease is over: another worker may have the task already. Whatever is returned is dropped.
    LeaseLost,
    /// A lock of the attempt was lost: another may write what it guards. The attempt fails as one that had no lock in time
    /// (`lock_timeout`), unless the handler still returns `Done`.
    LockLost,
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
            Self::LockLost => "lock_lost",
            Self::Cancelled => "cancelled",
            Self::Draining => "draining",
        }
    }

    /// Whether the task is not this attempt's any more: nothing that it says counts.
    pub(crate) const fn is_final(self) -> bool {
        match self {
            Self::LeaseLost | Self::Cancelled => true,
            Self::Timeout | Self::LockLost | Self::Draining => false,
        }
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

    /// A token that is cancelled with it, to give out.
    pub(crate) fn token(&self) -> CancellationToken {
        self.token.child_token()
    }
}
