//! What can go wrong between this process and the coordinator.

use std::time::Duration;

use redrive_shared::error::{ErrorCode, Problem};

/// Why a call brought no answer, or a refusal.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The coordinator refused, and says why (RFC 9457). The code is stable; `docs/errors/` has a page for each.
    #[error(transparent)]
    Problem(#[from] Box<Problem>),
    /// No complete answer: not resolved, refused, reset, timed out, cut off. Whether the call was carried out is
    /// unknown: repeat it (with the same request id, where it has one).
    #[error("no answer from the coordinator at {url}")]
    Unreachable {
        /// What was called.
        url: String,
        /// Why, as the HTTP client tells it; its own sources go deeper.
        source: reqwest::Error,
    },
    /// Something answered, but not as a coordinator does: a proxy's page, another program on that port, a reply of a
    /// release that this one cannot read.
    #[error("unexpected answer from {url}: {detail}")]
    Protocol {
        /// What was called.
        url: String,
        /// The HTTP status; none where the answer, or its next byte, did not come in time.
        status: Option<u16>,
        /// What was wrong, with the beginning of the body where that helps.
        detail: String,
        /// The `Retry-After` header.
        retry_after: Option<Duration>,
    },
    /// A blob came or was kept otherwise than it was sent. Another try may go better; one after the third does not.
    #[error("a blob was garbled between here and {url}: {detail}")]
    Garbled {
        /// What was called.
        url: String,
        /// What there was, and what there should be.
        detail: String,
    },
    /// The address of the coordinator cannot be used, or the HTTP client cannot be built.
    #[error("{url:?} is not the address of a coordinator: {detail}")]
    Address {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        detail: String,
    },
}

impl ClientError {
    /// Whether the same call may succeed later without anybody changing it.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Problem(problem) => is_retryable_status(problem.status),
            Self::Unreachable { .. } | Self::Garbled { .. } => true,
            // Without a status nothing came in time.
            Self::Protocol { status, .. } => status.is_none_or(is_retryable_status),
            Self::Address { .. } => false,
        }
    }

    /// Whether the call may have been carried out although no answer came: repeat it with the same request id.
    pub fn is_outcome_unknown(&self) -> bool {
        match self {
            Self::Unreachable { source, .. } => !source.is_connect() && !source.is_builder(),
            // A gateway that timed out or lost its upstream does not know either.
            Self::Protocol { status, .. } => matches!(status, None | Some(502 | 504) | Some(200..=299)),
            Self::Problem(problem) => problem.status >= 500,
            // Nothing refers to what was kept.
            Self::Garbled { .. } | Self::Address { .. } => false,
        }
    }

    /// How long the other side asks to wait before the next try.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Problem(problem) => problem.retry_after_ms.map(Duration::from_millis),
            Self::Protocol { retry_after, .. } => *retry_after,
            Self::Unreachable { .. } | Self::Garbled { .. } | Self::Address { .. } => None,
        }
    }

    /// The stable code, where the coordinator gave one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Problem(problem) => Some(problem.code),
            Self::Unreachable { .. }
            | Self::Protocol { .. }
            | Self::Garbled { .. }
            | Self::Address { .. } => None,
        }
    }

    /// The whole chain of causes on one line, for logs: `no answer from …: connection refused (os error 111)`.
    pub fn chain(&self) -> String {
        error_chain(self)
    }
}

fn is_retryable_status(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// An error and its causes, outermost first, joined by `: `. A cause that only repeats what was said is left out.
pub(crate) fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = inner.source();
    }
    text
}
