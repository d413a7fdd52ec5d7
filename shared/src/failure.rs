//! What went wrong: the raw signal that a caller hands in, and the class that the classifier gives it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What kind of failure this is, named by what a retry system should do about it.
///
/// The set is closed: code matches it exhaustively, so that a new class stops the build wherever a decision is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// Too many requests per second or minute (or an unspecified rate).
    RateLimited,
    /// The server has no capacity just now, whatever status it says so with.
    Overloaded,
    /// The server failed.
    ServerError,
    /// A clock ran out; whether the work was done is unknown.
    Timeout,
    /// No response had begun: DNS, TCP, TLS, reset, refused.
    Network,
    /// A response had begun and did not end.
    PartialResponse,
    /// Money, credits, or an allowance of zero.
    QuotaExhausted,
    /// A known daily, weekly or few-hour window is used up; it resets by itself.
    QuotaWindow,
    /// The credential is missing, wrong or expired.
    Auth,
    /// The credential is good and may not do this.
    Permission,
    /// The model does not exist, is not deployed, or is gone.
    ModelUnavailable,
    /// The input is larger than the model's window.
    ContextOverflow,
    /// A filter refused.
    ContentPolicy,
    /// The model itself declined.
    Refusal,
    /// The model's answer is cut off or malformed.
    BadOutput,
    /// Deadlock, serialization failure, optimistic lock, 409.
    Conflict,
    /// The request is wrong and stays wrong.
    InvalidRequest,
    /// A tool ran and failed.
    ToolError,
    /// The business says no.
    BusinessRule,
    /// A worker or its process vanished in the middle: a lost heartbeat, an eviction, a kill for memory.
    WorkerLost,
    /// No lock in time.
    LockTimeout,
    /// Nothing was recognised.
    Unknown,
}

impl FailureClass {
    /// Every class, in the order of the documentation.
    pub const ALL: [Self; 22] = [
        Self::RateLimited,
        Self::Overloaded,
        Self::ServerError,
        Self::Timeout,
        Self::Network,
        Self::PartialResponse,
        Self::QuotaExhausted,
        Self::QuotaWindow,
        Self::Auth,
        Self::Permission,
        Self::ModelUnavailable,
        Self::ContextOverflow,
        Self::ContentPolicy,
        Self::Refusal,
        Self::BadOutput,
        Self::Conflict,
        Self::InvalidRequest,
        Self::ToolError,
        Self::BusinessRule,
        Self::WorkerLost,
        Self::LockTimeout,
        Self::Unknown,
    ];

    /// The name used on the wire, in logs and as a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::ServerError => "server_error",
            Self::Timeout => "timeout",
            Self::Network => "network",
            Self::PartialResponse => "partial_response",
            Self::QuotaExhausted => "quota_exhausted",
            Self::QuotaWindow => "quota_window",
            Self::Auth => "auth",
            Self::Permission => "permission",
            Self::ModelUnavailable => "model_unavailable",
            Self::ContextOverflow => "context_overflow",
            Self::ContentPolicy => "content_policy",
            Self::Refusal => "refusal",
            Self::BadOutput => "bad_output",
            Self::Conflict => "conflict",
            Self::InvalidRequest => "invalid_request",
            Self::ToolError => "tool_error",
            Self::BusinessRule => "business_rule",
            Self::WorkerLost => "worker_lost",
            Self::LockTimeout => "lock_timeout",
            Self::Unknown => "unknown",
        }
    }

    /// The class of that name, if there is one.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == name)
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failure as the caller saw it, before anyone has judged it. Every field may be missing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FailureSignal {
    /// The class, where the caller knows better than any classifier. It wins over everything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<FailureClass>,
    /// Whom the call went to (`openai`, `anthropic`, `postgres` …): a hint for wording that providers do not share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// HTTP status, where there was a response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// Response headers; names in any case.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Response body as text: JSON, HTML, cut off, wrapped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Type and message of the exception, as the client prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exception: Option<String>,
    /// Why generation stopped, in the OpenAI dialect (`length`, `content_filter` …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
    /// Why generation stopped, in the Anthropic dialect (`max_tokens`, `refusal` …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<String>,
    /// An exit code, where the failed work was a process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// A delay that the caller was told to keep, in milliseconds; it wins over hints found in headers and text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}
