//! How a call ended, as far as a breaker cares.

use serde::{Deserialize, Serialize};

use crate::failure::FailureClass;

/// How a call that a breaker permitted has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// It worked.
    Success {
        /// How long it took, in milliseconds.
        duration_ms: u64,
    },
    /// It failed; [`counting`] says what that means.
    Failure {
        /// Why.
        class: FailureClass,
        /// How long it took, in milliseconds.
        duration_ms: u64,
    },
    /// It was not made, or says nothing about the dependency: there was no task, or the worker drains. The permit is
    /// given back.
    Ignored,
}

/// What a failure means to a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// It speaks against the dependency: counted in the window, and fails a probe.
    Counted,
    /// It speaks about the request or the answer, not about the dependency: the permit is given back.
    NotCounted,
    /// The dependency is well, but wants fewer calls. The fleet's gate slows everyone down, so the window does not count
    /// it; but a probe that meets it must not open the flood-gates.
    FailsProbe,
}

/// What a failure of this class means to a breaker.
pub const fn counting(class: FailureClass) -> Counting {
    match class {
        FailureClass::ServerError
        | FailureClass::Timeout
        | FailureClass::Network
        | FailureClass::Overloaded
        | FailureClass::PartialResponse
        | FailureClass::ToolError
        | FailureClass::Auth
        | FailureClass::Permission
        | FailureClass::ModelUnavailable
        | FailureClass::QuotaExhausted
        | FailureClass::QuotaWindow
        | FailureClass::WorkerLost
        | FailureClass::Unknown => Counting::Counted,
        FailureClass::InvalidRequest
        | FailureClass::ContentPolicy
        | FailureClass::Refusal
        | FailureClass::ContextOverflow
        | FailureClass::BadOutput
        | FailureClass::Conflict
        | FailureClass::BusinessRule
        | FailureClass::LockTimeout => Counting::NotCounted,
        FailureClass::RateLimited => Counting::FailsProbe,
    }
}
