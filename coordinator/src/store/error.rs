//! Why the store could not do its work, and what callers are told then.

use redrive_shared::error::{ErrorCode, Problem};

/// What verbs return.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Why the store could not do its work.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Nothing can be written any more.
    #[error("the store has no room: {0}")]
    Full(String),
    /// There is little room: new tasks are refused, so that those that are there can be claimed and settled. Nothing has
    /// happened.
    #[error("the store is nearly full: {0}")]
    NearlyFull(String),
    /// It does not answer, or another process holds it.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
    /// What was fixed when it was made is not what is asked for.
    #[error("{0}")]
    Mismatch(String),
    /// It holds something that this release cannot read.
    #[error("the store's contents cannot be read: {0}")]
    Corrupt(String),
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        const RETRY_AFTER_MS: u64 = 1_000;
        /// Room comes from work that is done, which takes a while.
        const NEARLY_FULL_RETRY_AFTER_MS: u64 = 5_000;
        if matches!(error, StoreError::NearlyFull(_)) {
            return Self::new(
                ErrorCode::StoreNearlyFull,
                format!(
                    "{error}; nothing was taken: repeat it later; claims and settlements go on and make room"
                ),
            )
            .retry_after_ms(NEARLY_FULL_RETRY_AFTER_MS);
        }
        let code = match &error {
            StoreError::Full(_) => ErrorCode::StoreFull,
            StoreError::NearlyFull(_) => ErrorCode::StoreNearlyFull,
            StoreError::Unavailable(_) => ErrorCode::StoreUnavailable,
            StoreError::Corrupt(_) | StoreError::Mismatch(_) => ErrorCode::Internal,
        };
        Self::new(code, format!("{error}; what was asked may or may not have happened; repeat it, an enqueue with the same ids"))
            .retry_after_ms(RETRY_AFTER_MS)
    }
}
