//! From evidence to a class, strongest evidence first.

use super::evidence::{Evidence, head};
use super::lexicon::{Codes, Heard, Named, Phrases, Topic};
use super::{allowance, codes, stream};
use crate::failure::FailureClass;

/// How much of a message is taken apart into words: the name of an exception stands at its start.
const MAX_NAME_BYTES: usize = 96;

/// A class and what it rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    pub class: FailureClass,
    /// Nothing but the status told the class, so that a header may overrule whether to retry.
    pub from_status: bool,
}

/// Decides the class: how generation ended, specific codes, limits, telling sentences, general codes, the status, and last
/// the words of transports, which clients print over every kind of failure.
pub(super) fn decide(evidence: &Evidence, exit_code: Option<i32>, hint_ms: Option<u64>) -> Verdict {
    let told = specific(evidence, hint_ms)
        .or_else(|| exit_code.or(evidence.exit_code).and_then(by_exit_code))
        .or_else(|| evidence.tool_result.then_some(FailureClass::ToolError));
    if let Some(class) = told {
        return Verdict { class, from_status: false };
    }
    if let Some(class) = behind_gateway(evidence) {
        return Verdict { class, from_status: false };
    }
    if let Some(class) = evidence.status.and_then(|status| by_status(status, evidence)) {
        return Verdict { class, from_status: true };
    }
    let class = evidence
        .heard
        .class(Phrases::Transport)
        .or_else(|| stream::broken_off(evidence))
        .or_else(|| stream::empty_answer(evidence))
        .or_else(|| refused(evidence))
        .or_else(|| evidence.heard.class(Phrases::Names))
        .or_else(|| by_name(evidence))
        .or_else(|| evidence.named.class(Codes::Stems))
        .or_else(|| Named::by(&evidence.names).class(Codes::Stems))
        .unwrap_or(FailureClass::Unknown);
    Verdict { class, from_status: false }
}

/// A gateway that could not reach its upstream, or not in time, says so in a status of its own for every cause.
fn behind_gateway(evidence: &Evidence) -> Option<FailureClass> {
    let gateway = matches!(evidence.status, Some(500 | 502));
    let class = evidence.heard.class(Phrases::Transport).filter(|_| gateway)?;
    matches!(class, FailureClass::Network | FailureClass::Timeout).then_some(class)
}

/// What codes and sentences say, regardless of the status.
fn specific(evidence: &Evidence, hint_ms: Option<u64>) -> Option<FailureClass> {
    Named::by(&evidence.stops)
        .class(Codes::Stops)
        .or_else(|| evidence.named.class(Codes::Specific))
        .or_else(|| allowance::lasting(evidence, hint_ms))
        .or_else(|| {
            evidence.heard.class(Phrases::Telling).filter(|class| fits_status(*class, evidence.status))
        })
        .or_else(|| allowance::mentioned(evidence))
        .or_else(|| general(evidence))
}

/// Some statuses are too definite for the looser sentences: a 429 page that says "access denied" is still a rate limit, and
/// a 403 that names a model is about the right to use it.
fn fits_status(class: FailureClass, status: Option<u16>) -> bool {
    use FailureClass as C;
    match status {
        Some(429) => !matches!(
            class,
            C::Auth
                | C::Permission
                | C::ModelUnavailable
                | C::ToolError
                | C::BusinessRule
                | C::PartialResponse
        ),
        Some(403) => class != C::ModelUnavailable,
        Some(422) => class != C::Permission,
        Some(_) | None => true,
    }
}

/// General codes yield to a status that is more precise than they are: `invalid_request_error` is also sent with a 401.
fn general(evidence: &Evidence) -> Option<FailureClass> {
    let class = evidence.named.class(Codes::General)?;
    let vague = matches!(
        class,
        FailureClass::InvalidRequest
            | FailureClass::ServerError
            | FailureClass::Network
            | FailureClass::Conflict
    ) || (class == FailureClass::Overloaded && evidence.status.is_none());
    let status_class = evidence.status.and_then(|status| by_status(status, evidence));
    if vague {
        status_class.or_else(|| evidence.heard.class(Phrases::Transport)).or(Some(class))
    } else {
        Some(class)
    }
}

/// What a status means when nothing else speaks.
fn by_status(status: u16, evidence: &Evidence) -> Option<FailureClass> {
    use FailureClass as C;
    let class = match status {
        401 | 407 => C::Auth,
        402 => C::QuotaExhausted,
        403 | 451 => C::Permission,
        404 | 410 if evidence.heard.about(Topic::Model) => C::ModelUnavailable,
        408 | 504 | 522 | 524 | 598 | 599 => C::Timeout,
        409 | 412 => C::Conflict,
        413 => C::ContextOverflow,
        423 => C::LockTimeout,
        424 => C::ToolError,
        425 | 429 | 420 => C::RateLimited,
        498 | 503 | 529 => C::Overloaded,
        499 => C::Timeout,
        400..=497 => C::InvalidRequest,
        500..=597 => C::ServerError,
        _ => return None,
    };
    Some(class)
}

/// The model's own words of refusal, where nothing else went wrong.
fn refused(evidence: &Evidence) -> Option<FailureClass> {
    let says_no = |heard: Heard| heard.about(Topic::Refusing);
    (says_no(evidence.heard) || says_no(Heard::listen(&evidence.said))).then_some(FailureClass::Refusal)
}

/// The words that a name is made of, where nothing else was recognised: `TokenExpiredError` says what happened as well as
/// a sentence does.
fn by_name(evidence: &Evidence) -> Option<FailureClass> {
    let heard = Heard::listen(&taken_apart(head(&evidence.message, MAX_NAME_BYTES)));
    heard
        .class(Phrases::Telling)
        .or_else(|| heard.about(Topic::NoMoney).then_some(FailureClass::QuotaExhausted))
        .or_else(|| heard.about(Topic::Rate).then_some(FailureClass::RateLimited))
        .or_else(|| heard.class(Phrases::Transport))
}

/// `LockNotAcquired` and `lock_not_acquired` as "lock not acquired".
fn taken_apart(name: &str) -> String {
    let mut words = String::with_capacity(name.len() + 8);
    let mut before = ' ';
    for c in name.chars() {
        let starts_word = c.is_uppercase() && before.is_lowercase();
        if (starts_word || c == '_') && !words.ends_with(' ') {
            words.push(' ');
        }
        if c != '_' {
            words.extend(c.to_lowercase());
        }
        before = c;
    }
    words
}

/// Codes from 129 to 159 are `128 + signal`: somebody killed the process. Negative ones are Python's way to say the same. An
/// ordinary failure code tells nothing about its cause.
fn by_exit_code(code: i32) -> Option<FailureClass> {
    match code {
        124 => Some(FailureClass::Timeout),
        129..=159 | i32::MIN..=-1 => Some(FailureClass::WorkerLost),
        _ => None,
    }
}

/// Whether the same request may succeed later with no person acting.
pub(super) fn is_retryable(verdict: Verdict, evidence: &Evidence) -> bool {
    use FailureClass as C;
    let heard = evidence.heard;
    let by_class = match verdict.class {
        C::RateLimited
        | C::Overloaded
        | C::ServerError
        | C::Timeout
        | C::PartialResponse
        | C::QuotaWindow => true,
        C::WorkerLost | C::LockTimeout | C::Unknown => true,
        C::Network => !heard.about(Topic::LastingNetwork),
        C::Conflict => !heard.about(Topic::LastingConflict) && !names_what_stays(evidence),
        C::ToolError => heard.about(Topic::PassingToolError),
        C::BadOutput => !ran_out_of_tokens(evidence),
        C::QuotaExhausted | C::Auth | C::Permission | C::ModelUnavailable | C::ContextOverflow => false,
        C::ContentPolicy | C::Refusal | C::InvalidRequest | C::BusinessRule => false,
    };
    if !verdict.from_status {
        return by_class;
    }
    match evidence.headers.get("x-should-retry").map(|value| value.to_ascii_lowercase()) {
        Some(value) if value == "true" => true,
        Some(value) if value == "false" => false,
        Some(_) | None => by_class,
    }
}

/// Whether a code tells that something is in the way for good: `AlreadyExists`.
fn names_what_stays(evidence: &Evidence) -> bool {
    let mut codes = evidence.codes.iter();
    codes.any(|code| codes::LASTING.iter().any(|name| code.contains(name)))
}

/// An answer that hit its own limit hits it again: the request has to change.
fn ran_out_of_tokens(evidence: &Evidence) -> bool {
    const LIMITS: &[&str] = &["length", "maxtokens", "maxoutputtokens"];
    evidence.stops.iter().any(|stop| LIMITS.contains(&stop.as_str()))
        || evidence.heard.about(Topic::OutOfTokens)
}
