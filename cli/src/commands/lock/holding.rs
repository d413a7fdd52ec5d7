//! Who holds the lock for the command: this process, or in a handler the attempt's worker.

use std::fmt::Display;
use std::time::Duration;

use anyhow::Context as _;
use redrive_shared::error::ErrorCode;
use redrive_shared::id::{Name, TaskId};
use redrive_shared::lock::Owner;
use redrive_shared::wire::{LockGrant, LockRequest};
use redrive_worker::client::{AskError, ContextClient};
use redrive_worker::lock::{HeldLock, acquire, is_busy};
use redrive_worker::{CancelReason, Wanted};

use super::BUSY;
use crate::attempt;
use crate::context::Context;
use crate::failure::Exit;

/// A lock that is held for the command.
#[derive(Debug)]
pub enum Holding {
    /// By this process, which renews it.
    Ours(HeldLock),
    /// By the attempt that this process works for. Its worker renews it, and ends the handler's whole group when it is lost or the
    /// attempt is over.
    Attempts(ContextClient, LockGrant),
}

/// Why the command is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// The lock is lost.
    Lost,
    /// The attempt, whose lock it is.
    Attempt,
}

impl Holding {
    /// Takes it, in a handler through the attempt's context.
    pub async fn acquire(wanted: Wanted, context: &Context) -> anyhow::Result<Self> {
        let busy = |error: &dyn Display| {
            context.output.complain("lock", error);
            anyhow::Error::from(Exit(BUSY))
        };
        if attempt::is_ours() {
            let attempt = attempt::context()?;
            return match attempt.lock(&wanted).await {
                Ok(grant) => Ok(Self::Attempts(attempt, grant)),
                Err(error) if error.code() == Some(ErrorCode::LockBusy) => Err(busy(&error)),
                Err(error) => Err(error.into()),
            };
        }
        let request = LockRequest {
            owner: own_name()?,
            exclusive: wanted.exclusive,
            shared: wanted.shared,
            ttl_ms: wanted.ttl.map(millis),
            lock_delay_ms: wanted.lock_delay.map(millis),
            wait_ms: Some(millis(wanted.wait)),
        };
        match acquire(&context.client()?, &request).await {
            Ok(lock) => Ok(Self::Ours(lock)),
            Err(error) if is_busy(&error) => Err(busy(&error)),
            Err(error) => Err(error.into()),
        }
    }

    /// What is held.
    pub fn grant(&self) -> &LockGrant {
        match self {
            Self::Ours(lock) => lock.grant(),
            Self::Attempts(_, grant) => grant,
        }
    }

    /// Returns when the command is to stop.
    pub async fn over(&self) -> Over {
        match self {
            Self::Ours(lock) => {
                lock.lost().cancelled().await;
                Over::Lost
            }
            Self::Attempts(attempt, _) => match attempt.stopped().await {
                Ok(CancelReason::LockLost) => Over::Lost,
                // A worker that is gone does not renew it either.
                Ok(_) | Err(_) => Over::Attempt,
            },
        }
    }

    /// Gives it back. False: it was lost before.
    pub async fn give_back(self) -> anyhow::Result<bool> {
        let given_back = match self {
            Self::Ours(lock) => lock.release().await.map_err(anyhow::Error::from),
            Self::Attempts(attempt, grant) => attempt.unlock(grant.token).await.map_err(AskError::into),
        };
        given_back.context("cannot give it back, it ends by itself")
    }
}

/// A name that nobody else uses; whoever looks at the locks sees where it runs.
fn own_name() -> anyhow::Result<Owner> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let unique = TaskId::generate();
    let name = Name::new(format!("{host}/{}/{}", std::process::id(), &*unique));
    let name = name.or_else(|_| Name::new(unique.as_str())).map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(Owner::Named { name })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
