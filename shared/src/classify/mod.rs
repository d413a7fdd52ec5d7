//! Failure signal in, class and hint out.
//!
//! [`classify`] is a pure function that reads as a pipeline: gather the evidence, decide the class, look for the server's
//! hint, name the cluster. Evidence comes from structured places first (stop reasons, codes, types), since prose is written
//! for people and transports; the status decides only where neither speaks. The knowledge of what providers say lives in two
//! tables, `codes` and `phrases`, and in `allowance`, which tells a rate from a window from an empty purse;
//! `lexicon` compiles them, so that a text is read once for all of them.
//!
//! Work is bounded by constants in `evidence`, `scan`, `spoken` and `rules`; no input makes it panic.

mod allowance;
mod codes;
mod decide;
mod evidence;
mod fingerprint;
mod hints;
mod lexicon;
mod phrases;
mod replies;
mod rules;
mod scan;
mod spoken;
mod status;
mod stream;
#[cfg(test)]
mod tests;
mod words;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::failure::{FailureClass, FailureSignal};
pub use decide::By;
use decide::Verdict;
use evidence::Evidence;
pub use fingerprint::at_dependency;

/// What the classifier makes of a failure signal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Classification {
    /// What kind of failure it was.
    pub class: FailureClass,
    /// Whether the same request, unchanged, may succeed later with no person acting.
    pub retryable: bool,
    /// The server's hint: milliseconds from now, at most 30 days where it was found in headers or text, never zero. It may
    /// stand beside `retryable: false`: a policy may retry all the same, and then the hint is a floor.
    pub retry_after_ms: Option<u64>,
    /// Sixteen hexadecimal digits that occurrences of one outage share.
    pub fingerprint: String,
}

/// Classifies a failure. `dependency` is whom the task called, as configured; `now_ms` is the time in milliseconds since the
/// Unix epoch, for hints that name a point in time. A class and a hint given in the signal win over everything found in it.
pub fn classify(signal: &FailureSignal, dependency: Option<&str>, now_ms: i64) -> Classification {
    judge(signal, &Evidence::gather(signal), dependency, now_ms).0
}

/// What a classification rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The strongest evidence that spoke.
    pub by: By,
    /// The words that speak for the class, strongest first, with their weights in hundredths of a logit. They decided only
    /// where `by` is `words`.
    pub words: Vec<(String, i32)>,
    /// All words that were read, as the table of weights has them.
    pub read: Vec<String>,
}

/// Classifies a failure as [`classify`] does, and tells why.
pub fn explain(
    signal: &FailureSignal,
    dependency: Option<&str>,
    now_ms: i64,
) -> (Classification, Explanation) {
    let evidence = Evidence::gather(signal);
    let (found, by) = judge(signal, &evidence, dependency, now_ms);
    let words = words::telling(&evidence, found.class);
    (found, Explanation { by, words, read: words::read(&evidence).into_iter().collect() })
}

fn judge(
    signal: &FailureSignal,
    evidence: &Evidence,
    dependency: Option<&str>,
    now_ms: i64,
) -> (Classification, By) {
    let found_hint = signal.retry_after_ms.filter(|hint| *hint > 0).or_else(|| hints::find(evidence, now_ms));
    let verdict = match signal.class {
        Some(class) => Verdict { class, by: By::Caller, again: None },
        None => decide::decide(evidence, signal.exit_code, found_hint),
    };
    let retryable = decide::is_retryable(verdict, evidence);
    let found = Classification {
        class: verdict.class,
        retryable,
        retry_after_ms: found_hint,
        fingerprint: fingerprint::fingerprint(verdict.class, dependency, &evidence.message),
    };
    (found, verdict.by)
}
