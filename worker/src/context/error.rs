//! Why a context did not do what its handler asked for.

use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::failure::{FailureClass, FailureSignal};
use redrive_shared::wire::Outcome;

use super::CancelReason;
use crate::client::ClientError;

/// Why a context did not do what its handler asked for. As an [`Outcome`] it is what a handler returns that knows no better:
/// `Err(error) => return error.into()`.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The handler is to stop, and nothing that it says counts any more, or it would wait in vain.
    #[error("the handler is to stop ({})", .0.as_str())]
    Stopped(CancelReason),
    /// The coordinator refuses what was asked for; nothing was changed.
    #[error(transparent)]
    Refused(Box<Problem>),
    /// Somebody else had the lock all the time that it was waited for.
    #[error("{0}")]
    LockBusy(Box<Problem>),
    /// The coordinator's address or the HTTP client cannot be used, or storage failed for too long.
    #[error("{0}")]
    Unavailable(String),
    /// It cannot be a step's name, or a value cannot be JSON.
    #[error("{0}")]
    Invalid(String),
    /// Longer than this worker takes and keeps.
    #[error("{what} has {bytes} bytes, and this worker takes up to {max} (`worker.max_blob_bytes`)")]
    TooLarge {
        /// What.
        what: String,
        /// Its length.
        bytes: u64,
        /// What is taken.
        max: u64,
    },
    /// What was kept is not what it was, or not what was expected of it.
    #[error("{what} cannot be used: {why}")]
    Unreadable {
        /// What.
        what: String,
        /// Why.
        why: String,
    },
}

impl ContextError {
    /// As a problem document.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Refused(problem) | Self::LockBusy(problem) => (**problem).clone(),
            Self::Stopped(CancelReason::LeaseLost | CancelReason::Cancelled) => Problem::new(
                ErrorCode::StaleEpoch,
                "the attempt is over: another may have the task already. Stop; nothing was changed",
            ),
            Self::Stopped(reason) => {
                let detail = format!("the handler is to stop ({}); nothing was changed", reason.as_str());
                Problem::new(ErrorCode::ShuttingDown, detail)
            }
            Self::Unavailable(_) => Problem::new(ErrorCode::StoreUnavailable, self.to_string()),
            Self::Invalid(_) => Problem::new(ErrorCode::InvalidValue, self.to_string()),
            Self::TooLarge { .. } => Problem::new(ErrorCode::PayloadTooLarge, self.to_string()),
            Self::Unreadable { .. } => Problem::new(ErrorCode::Internal, self.to_string()),
        }
    }

    /// What it means for what failed with it. A stale one learns more by what stops the handler than by this.
    fn class(&self) -> Option<FailureClass> {
        match self {
            Self::LockBusy(_) => Some(FailureClass::LockTimeout),
            Self::Refused(problem) if problem.status >= 500 => None,
            Self::Refused(_) | Self::Invalid(_) | Self::TooLarge { .. } | Self::Unreadable { .. } => {
                Some(FailureClass::InvalidRequest)
            }
            Self::Stopped(_) | Self::Unavailable(_) => None,
        }
    }
}

impl From<ContextError> for Outcome {
    fn from(error: ContextError) -> Self {
        match error {
            // Handed back without charge: what it was stopped for says the rest.
            ContextError::Stopped(_) | ContextError::Unavailable(_) => Self::release(),
            _ => Self::retry(FailureSignal {
                class: error.class(),
                exception: Some(error.to_string()),
                ..FailureSignal::default()
            }),
        }
    }
}

impl From<ClientError> for ContextError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Problem(problem) if problem.code == ErrorCode::LockBusy => Self::LockBusy(problem),
            ClientError::Problem(problem) => Self::Refused(problem),
            ClientError::Unreachable { .. }
            | ClientError::Protocol { .. }
            | ClientError::Garbled { .. }
            | ClientError::Address { .. } => Self::Unavailable(error.chain()),
        }
    }
}
