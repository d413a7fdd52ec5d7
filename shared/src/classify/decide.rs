//! From evidence to a class, strongest evidence first.

use serde::Serialize;

use super::evidence::{Evidence, head};
use super::lexicon::{Codes, Heard, Named, Phrases, Topic};
use super::{allowance, codes, replies, stream, words};
use crate::failure::FailureClass;

/// How much of a message is taken apart into words: the name of an exception stands at its start.
const MAX_NAME_BYTES: usize = 96;
/// How far a class has to lead by its words (hundredths of a logit) to overrule two rules that agree …
const STRONGEST_LEAD: i32 = 700;
/// … those that are nearly always right …
const STRONG_LEAD: i32 = 400;
/// … those that are mostly right …
const FAIR_LEAD: i32 = 200;
/// … and where there is nothing to overrule.
const ANY_LEAD: i32 = 0;
/// How far it then has to lead `unknown`: "request failed" is made of words that say nothing.
const TELLING: i32 = 120;
/// How sure single words have to be of trying again, or of not trying, to have their way where nothing else was found.
const SURE_OF_AGAIN: i32 = 80;
/// … and where rules found a class that can go either way.
const SURER_OF_AGAIN: i32 = 150;

/// A class and what it rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    pub class: FailureClass,
    pub by: By,
    /// What single words say of trying again, where they were asked: hundredths of a logit, above zero for yes.
    pub again: Option<i32>,
}

/// What decided, strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The caller stated the class.
    Caller,
    /// How the generation ended.
    Stop,
    /// A code that means one thing.
    Code,
    /// An allowance that is gone, or a window.
    Limit,
    /// A telling sentence.
    Sentence,
    /// A mail server's reply.
    Mail,
    /// A rate.
    Rate,
    /// A code that covers many causes.
    GeneralCode,
    /// How a process ended.
    ExitCode,
    /// A tool's own report of an error.
    ToolReport,
    /// What a gateway says of its upstream.
    Gateway,
    /// The HTTP status.
    Status,
    /// The words of transports.
    Transport,
    /// The shape of an answer or a stream.
    Shape,
    /// The name of an exception.
    Name,
    /// Stems in codes and names.
    Stem,
    /// The weights of single words.
    Words,
    /// Nothing was recognised.
    Nothing,
}

/// Decides the class: how generation ended, specific codes, limits, telling sentences, general codes, the status, the words
/// of transports, which clients print over every kind of failure; and last single words, where all that was found is weak.
pub(super) fn decide(evidence: &Evidence, exit_code: Option<i32>, hint_ms: Option<u64>) -> Verdict {
    let (class, by) = by_rules(evidence, exit_code, hint_ms).unwrap_or((FailureClass::Unknown, By::Nothing));
    let ruled = Verdict { class, by, again: None };
    // What a proxy or an upstream says of credentials is beyond guessing.
    let definite = by == By::Status && matches!(evidence.status, Some(401 | 407));
    let Some(needed) = lead_over(by).filter(|_| !definite) else { return ruled };
    // Where a code says what the status says, two witnesses have to be overruled.
    let status_class = evidence.status.and_then(|status| by_status(status, evidence));
    let agreed = by == By::GeneralCode && status_class == Some(class);
    let needed = if agreed { STRONGEST_LEAD } else { needed };
    let Some(opinion) = words::opinion(evidence) else { return ruled };
    // Who says when to come back does not mean never.
    if hint_ms.is_some() && (opinion.again < 0 || lasts(opinion.class)) {
        return ruled;
    }
    let again = Some(opinion.again);
    let telling = by != By::Nothing || opinion.telling >= TELLING;
    if opinion.class != class && opinion.class != FailureClass::Unknown && opinion.lead >= needed && telling {
        return Verdict { class: opinion.class, by: By::Words, again };
    }
    Verdict { again, ..ruled }
}

/// How far a class has to lead by its words to overrule what the rules found; `None` where nothing overrules them.
const fn lead_over(by: By) -> Option<i32> {
    match by {
        By::Caller | By::Stop | By::Code | By::Limit | By::Mail | By::ExitCode | By::ToolReport => None,
        By::Sentence | By::GeneralCode => Some(STRONG_LEAD),
        By::Rate | By::Gateway | By::Status | By::Transport | By::Shape | By::Name | By::Stem => {
            Some(FAIR_LEAD)
        }
        By::Words | By::Nothing => Some(ANY_LEAD),
    }
}

/// Classes that the same request, unchanged, does not come out of, or seldom.
const fn lasts(class: FailureClass) -> bool {
    use FailureClass as C;
    matches!(
        class,
        C::QuotaExhausted
            | C::Auth
            | C::Permission
            | C::ModelUnavailable
            | C::ContextOverflow
            | C::ContentPolicy
            | C::Refusal
            | C::InvalidRequest
            | C::BusinessRule
            | C::ToolError
    )
}

fn by_rules(evidence: &Evidence, exit_code: Option<i32>, hint_ms: Option<u64>) -> Option<(FailureClass, By)> {
    let found = |class: Option<FailureClass>, by| class.map(|class| (class, by));
    specific(evidence, hint_ms)
        .or_else(|| found(exit_code.or(evidence.exit_code).and_then(by_exit_code), By::ExitCode))
        .or_else(|| evidence.tool_result.then_some((FailureClass::ToolError, By::ToolReport)))
        .or_else(|| found(behind_gateway(evidence), By::Gateway))
        .or_else(|| found(evidence.status.and_then(|status| by_status(status, evidence)), By::Status))
        .or_else(|| found(evidence.heard.class(Phrases::Transport), By::Transport))
        .or_else(|| found(stream::broken_off(evidence), By::Shape))
        .or_else(|| found(stream::empty_answer(evidence), By::Shape))
        .or_else(|| found(refused(evidence), By::Shape))
        .or_else(|| found(evidence.heard.class(Phrases::Names), By::Name))
        .or_else(|| found(by_name(evidence), By::Name))
        .or_else(|| found(evidence.named.class(Codes::Stems), By::Stem))
        .or_else(|| found(Named::by(&evidence.names).class(Codes::Stems), By::Stem))
}

/// A gateway that could not reach its upstream, or not in time, says so in a status of its own for every cause.
fn behind_gateway(evidence: &Evidence) -> Option<FailureClass> {
    let gateway = matches!(evidence.status, Some(500 | 502));
    let class = evidence.heard.class(Phrases::Transport).filter(|_| gateway)?;
    matches!(class, FailureClass::Network | FailureClass::Timeout).then_some(class)
}

/// What codes and sentences say, regardless of the status.
fn specific(evidence: &Evidence, hint_ms: Option<u64>) -> Option<(FailureClass, By)> {
    let found = |class: Option<FailureClass>, by| class.map(|class| (class, by));
    let sentence =
        || evidence.heard.class(Phrases::Telling).filter(|class| fits_status(*class, evidence.status));
    found(Named::by(&evidence.stops).class(Codes::Stops), By::Stop)
        .or_else(|| found(evidence.named.class(Codes::Specific), By::Code))
        .or_else(|| found(allowance::lasting(evidence, hint_ms), By::Limit))
        .or_else(|| found(passing_mail(evidence), By::Mail))
        .or_else(|| found(sentence(), By::Sentence))
        .or_else(|| found(allowance::mentioned(evidence), By::Rate))
        .or_else(|| found(replies::mail(&evidence.prose), By::Mail))
        .or_else(|| found(general(evidence), By::GeneralCode))
}

/// A mail server's word that this passes; it sends the same numbers for a pace.
fn passing_mail(evidence: &Evidence) -> Option<FailureClass> {
    let class = replies::passing(&evidence.prose)?;
    Some(allowance::mentioned(evidence).unwrap_or(class))
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
        Some(400 | 401 | 402 | 404) => class != C::PartialResponse,
        Some(403) => !matches!(class, C::ModelUnavailable | C::PartialResponse),
        Some(422) => !matches!(class, C::Permission | C::PartialResponse),
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
        behind_gateway(evidence)
            .or(status_class)
            .or_else(|| evidence.heard.class(Phrases::Transport))
            .or(Some(class))
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
        C::ToolError => heard.about(Topic::PassingToolError) || passes(heard),
        C::BadOutput => !ran_out_of_tokens(evidence),
        C::QuotaExhausted | C::Auth | C::Permission | C::ModelUnavailable | C::ContextOverflow => false,
        C::ContentPolicy | C::Refusal | C::InvalidRequest | C::BusinessRule => false,
    };
    let either = matches!(verdict.class, C::Unknown | C::Network | C::Conflict | C::ToolError);
    let needed = if matches!(verdict.by, By::Words | By::Nothing) { SURE_OF_AGAIN } else { SURER_OF_AGAIN };
    let by_words = verdict.again.filter(|again| either && again.abs() >= needed).map(|again| again > 0);
    let told = evidence.headers.get("x-should-retry").map(|value| value.to_ascii_lowercase());
    match told.as_deref() {
        Some("true") if verdict.by == By::Status => true,
        Some("false") if verdict.by == By::Status => false,
        Some(_) | None => by_words.unwrap_or(by_class),
    }
}

/// Whether the words of transports tell of something that clears by itself.
fn passes(heard: Heard) -> bool {
    !heard.about(Topic::LastingNetwork)
        && matches!(
            heard.class(Phrases::Transport),
            Some(FailureClass::Timeout | FailureClass::Network | FailureClass::Overloaded)
        )
}

/// Whether a code, or the name of an error, tells that something is in the way for good: `AlreadyExists`.
fn names_what_stays(evidence: &Evidence) -> bool {
    let mut codes = evidence.codes.iter().chain(&evidence.names);
    codes.any(|code| codes::LASTING.iter().any(|name| code.contains(name)))
}

/// An answer that hit its own limit hits it again: the request has to change.
fn ran_out_of_tokens(evidence: &Evidence) -> bool {
    const LIMITS: &[&str] = &["length", "maxtokens", "maxoutputtokens"];
    evidence.stops.iter().any(|stop| LIMITS.contains(&stop.as_str()))
        || evidence.heard.about(Topic::OutOfTokens)
}
