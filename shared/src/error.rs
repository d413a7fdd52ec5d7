//! Stable error codes, and the problem documents (RFC 9457) that carry them.
//!
//! A code never changes its meaning. Each has a page under `docs/errors/` that says what happened and what to do; a test
//! holds that the pages and the codes are the same set.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $status:literal, $title:literal;)*) => {
        /// Every error that the API can answer with.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum ErrorCode {
            $($(#[$doc])* $variant,)*
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The HTTP status that it comes with.
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// One line for people.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }
        }
    };
}

error_codes! {
    /// The body is not JSON.
    MalformedJson = "malformed_json", 400, "The body is not valid JSON";
    /// The body is not UTF-8.
    InvalidUtf8 = "invalid_utf8", 400, "The body is not UTF-8";
    /// A field that does not exist.
    UnknownField = "unknown_field", 422, "There is no such field";
    /// A field is missing or has a value that is not allowed.
    InvalidValue = "invalid_value", 422, "A value is missing or not allowed";
    /// JSON nested too deeply.
    JsonTooDeep = "json_too_deep", 422, "The JSON is nested too deeply";
    /// A payload or result over its limit.
    PayloadTooLarge = "payload_too_large", 413, "The payload is too large";
    /// A request body over its limit.
    BodyTooLarge = "body_too_large", 413, "The request body is too large";
    /// Too many items, or none.
    BatchSize = "batch_size", 422, "The batch has no items or too many";
    /// A retry policy that contradicts itself or a bound.
    InvalidPolicy = "invalid_policy", 422, "The retry policy is not valid";
    /// The same id with other contents.
    IdReused = "id_reused", 422, "That id belongs to a task with other contents";
    /// No such queue.
    UnknownQueue = "unknown_queue", 404, "There is no such queue";
    /// No such task, or no longer.
    UnknownTask = "unknown_task", 404, "There is no such task";
    /// No such agent, or one that is gone.
    UnknownAgent = "unknown_agent", 404, "There is no such agent";
    /// No such breaker of the agent.
    UnknownBreaker = "unknown_breaker", 404, "The agent has no such breaker";
    /// No such page of the API.
    UnknownPath = "unknown_path", 404, "There is nothing at this path";
    /// The path exists, the method does not.
    MethodNotAllowed = "method_not_allowed", 405, "This path does not take that method";
    /// A body that is not declared as JSON.
    UnsupportedMediaType = "unsupported_media_type", 415, "The body must be JSON";
    /// The lease is over, or somebody else has it.
    StaleEpoch = "stale_epoch", 409, "The lease is no longer yours";
    /// The task is in a state that does not allow this.
    WrongState = "wrong_state", 409, "The task's state does not allow this";
    /// A checkpoint whose number is not above the last one's.
    StaleCheckpoint = "stale_checkpoint", 409, "A later checkpoint was saved";
    /// No such step of the task, or it is not done.
    UnknownStep = "unknown_step", 404, "That step is not done";
    /// No such blob of the task, or no longer.
    UnknownBlob = "unknown_blob", 404, "There is no such blob";
    /// The coordinator was not told where to keep blobs.
    NoBlobs = "no_blobs", 422, "This coordinator keeps no blobs";
    /// Where blobs are kept does not answer.
    BlobsUnavailable = "blobs_unavailable", 503, "The storage of blobs does not answer";
    /// Somebody has the lock, or stands in line for it.
    LockBusy = "lock_busy", 409, "Somebody else has the lock";
    /// The owner has a part of it by another lock.
    LockOverlap = "lock_overlap", 409, "You have a part of it already";
    /// No such lock, or no longer.
    UnknownLock = "unknown_lock", 404, "There is no such lock";
    /// Somebody else changed it first.
    VersionConflict = "version_conflict", 409, "It was changed since you read it";
    /// The request took too long to arrive.
    RequestTimeout = "request_timeout", 408, "The request did not arrive in time";
    /// Too much is under way or waiting.
    Overloaded = "overloaded", 429, "The coordinator has too much to do";
    /// A Host or Origin that is not this machine's.
    ForbiddenHost = "forbidden_host", 403, "That Host or Origin is not allowed";
    /// So many of something are there that no more may be made.
    LimitReached = "limit_reached", 409, "There are as many as there may be";
    /// The store does not answer.
    StoreUnavailable = "store_unavailable", 503, "The store does not answer";
    /// The store has no room.
    StoreFull = "store_full", 503, "The store has no room";
    /// The store has little room: no new tasks.
    StoreNearlyFull = "store_nearly_full", 429, "The store is nearly full";
    /// The coordinator is stopping.
    ShuttingDown = "shutting_down", 503, "The coordinator is stopping";
    /// A defect.
    Internal = "internal", 500, "Something went wrong inside Redrive";
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error as the API sends it: what, where, and what to do instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Address of the page that explains the code, relative to the documentation.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code's title.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The stable code.
    pub code: ErrorCode,
    /// What exactly was wrong here, and what to do instead.
    pub detail: String,
    /// Where: a path such as `tasks[3].payload`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// When to try again, in milliseconds, where trying again can help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Problem {
    /// A problem with its detail.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("docs/errors/{code}.md"),
            title: code.title().to_owned(),
            status: code.status(),
            code,
            detail: detail.into(),
            at: None,
            retry_after_ms: None,
        }
    }

    /// Says where it is.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.at = Some(place.into());
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_after_ms(mut self, after_ms: u64) -> Self {
        self.retry_after_ms = Some(after_ms);
        self
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)?;
        if let Some(place) = &self.at {
            write!(f, " (at {place})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

/// The known name that is closest to a wrong one, if any is close: `did you mean …?`.
pub fn suggest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(wrong, name), name))
        .filter(|(distance, name)| *distance <= 2.max(name.len() / 3) || begins_alike(wrong, name))
        .min()
        .map(|(_, name)| name)
}

/// One is the other with something added: `listen` and `listen_on`.
fn begins_alike(wrong: &str, name: &str) -> bool {
    const LEAST: usize = 4;
    let shorter = wrong.len().min(name.len());
    shorter >= LEAST && (wrong.starts_with(name) || name.starts_with(wrong))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_serialise_as_they_print() {
        let mut seen = std::collections::BTreeSet::new();
        for code in ErrorCode::ALL {
            assert!(seen.insert(code.as_str()), "{code} twice");
            assert_eq!(serde_json::to_string(code).unwrap(), format!("\"{code}\""));
        }
    }

    #[test]
    fn suggestions_are_close_or_absent() {
        assert_eq!(suggest("pririty", ["queue", "priority"]), Some("priority"));
        assert_eq!(suggest("listen_on", ["queue", "listen"]), Some("listen"));
        assert_eq!(suggest("zzzzzz", ["queue", "priority"]), None);
    }
}
