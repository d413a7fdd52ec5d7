//! What failures say in words. All patterns are lower case; see `rules::Phrase` for how they are written.
//!
//! The tables are ordered: a rule further up wins. More peculiar causes come before those whose words turn up everywhere. The
//! words themselves are sorted by who says them: what is stored, models, accounts, services, tools; and `abroad`, in other
//! languages.

mod abroad;
mod account;
mod model;
mod service;
mod stored;
mod tool;

use super::rules::{Rule, rule};
use crate::failure::FailureClass as C;

pub(super) use abroad::{
    NO_MONEY as MONEY_ABROAD, RATE as RATE_ABROAD, SPENT as SPENT_ABROAD, USED_UP as USED_UP_ABROAD,
    WINDOW as WINDOW_ABROAD,
};
pub(super) use model::{MODEL, OUT_OF_TOKENS, REFUSING};
pub(super) use service::LASTING_NETWORK;
pub(super) use stored::LASTING_CONFLICT;
pub(super) use tool::PASSING_TOOL_ERROR;

/// Sentences that tell the cause whatever the status and the general code next to them.
pub(super) const TELLING: &[Rule] = &[
    // Before the context and the filters: what is wrong with parameters, whom a router has nobody for, and a rate that is
    // named as such and may come with the advice to shorten the prompt.
    rule(C::InvalidRequest, &[model::PARAMETERS]),
    rule(C::ModelUnavailable, &[model::NOBODY_SERVES, abroad::NOBODY_SERVES]),
    rule(
        C::RateLimited,
        &["would exceed*rate limit; exceed the rate limit for; exceeded rate limit; \
           {exceed,exceeds,exceeded,exceeding}*{per minute,per-minute,per second} rate limit; \
           {exceed,exceeded,hit,reached,triggered}~rate limit"],
    ),
    // Before locks: a deadlock is reported as "found when trying to get lock".
    rule(C::Conflict, &[stored::DEADLOCK, abroad::DEADLOCK]),
    rule(C::LockTimeout, &[stored::LOCKED, abroad::LOCKED]),
    rule(C::Conflict, &[stored::CONFLICT]),
    rule(C::InvalidRequest, &[stored::INTEGRITY]),
    rule(C::Network, &[stored::CONNECTION_HEARTBEAT]),
    rule(C::WorkerLost, &[stored::WORKER_LOST]),
    rule(C::ContextOverflow, &[model::TOO_LONG, abroad::TOO_LONG]),
    rule(C::ContentPolicy, &[model::FILTERED, abroad::FILTERED]),
    rule(C::BadOutput, &[model::BAD_OUTPUT]),
    rule(C::Auth, &[account::LOG_IN_AGAIN]),
    rule(C::Timeout, &[tool::GAVE_UP_WAITING]),
    rule(C::ToolError, &[tool::REPORTED]),
    rule(C::BusinessRule, &[account::BUSINESS_SAYS_NO]),
    rule(C::Auth, &[account::UNKNOWN_CALLER, abroad::UNKNOWN_CALLER]),
    // A rate that is named as such, even where "high demand" is given as its reason.
    rule(C::RateLimited, &["rate limit exceeded; rate limit reached"]),
    rule(C::Overloaded, &[service::OVERLOADED, abroad::OVERLOADED]),
    rule(C::ModelUnavailable, &[model::NO_SUCH_MODEL, abroad::NO_SUCH_MODEL]),
    rule(C::PartialResponse, &[service::BROKEN_OFF]),
    rule(C::Permission, &[account::NOT_ALLOWED, abroad::NOT_ALLOWED]),
];

/// What transports say. Clients print it over every failure, so it counts only where nothing better is known.
pub(super) const TRANSPORT: &[Rule] = &[
    rule(C::Network, &[LASTING_NETWORK]),
    rule(C::Timeout, &[service::TIMEOUT, abroad::TIMEOUT]),
    rule(C::Network, &[service::NETWORK, abroad::NETWORK]),
    rule(C::PartialResponse, &["typeerror: terminated"]),
    rule(C::Overloaded, &[service::UNAVAILABLE, abroad::UNAVAILABLE]),
    rule(C::ServerError, &[service::SERVER_ERROR, abroad::SERVER_ERROR]),
    rule(C::ToolError, &[tool::FAILED]),
    // Without a status nobody rejected a request: it is an answer that did not fit its schema.
    rule(C::BadOutput, &["validation error for; validation errors for"]),
    rule(C::InvalidRequest, &[tool::BAD_REQUEST, abroad::BAD_REQUEST]),
    rule(C::BadOutput, &[abroad::BAD_OUTPUT]),
];

/// Weak words and names of exceptions, for when nothing else spoke.
pub(super) const NAMES: &[Rule] = &[
    rule(C::RateLimited, &["*ratelimiterror; too many; limit exceeded; limit reached"]),
    rule(C::Auth, &["*authenticationerror; unauthorized"]),
    rule(C::Permission, &["*permissiondenied; blocked; denied"]),
    rule(
        C::BadOutput,
        &["expecting value: line; *jsondecodeerror; in json at position; is not valid json; failed to parse"],
    ),
    rule(C::Conflict, &["conflict|; already exists"]),
    rule(C::WorkerLost, &["killed|; oom|"]),
];
