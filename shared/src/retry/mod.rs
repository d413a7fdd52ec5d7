//! Retry policies: given what failed and how often, when to run it again, or how to end.
//!
//! Plain data and pure functions. The instant and the random numbers are arguments, so the coordinator and the simulator
//! reach the same decision from the same input.
//!
//! ```text
//!  Failure ──▶ RetryPolicy::decide ──▶ Retry { due_ms, delay_ms, reason }
//!                │    ▲                Dead { reason }
//!                │    └ ClassRule      Escalate { reason }
//!                └ Strategy::delay_ms  (the task's own, the class's, the policy's)
//! ```
//!
//! * [`Strategy`]: the backoff formulas, each with its source.
//! * [`class_default`]: what each failure class gets where a policy says nothing (an exhaustive match).
//! * [`RetryPolicy`]: a queue's settings; [`RetryPolicy::validate`] checks them on the way in.
//! * [`RetryPolicy::check_own`]: the backoff that a task brings with it, within the queue's bounds.
//! * [`Fallback`]: when another dependency stands in for the one that failed.
//! * [`RetryPolicy::decide`]: the decision.
//!
//! All time arithmetic is in whole milliseconds. `U(a, b)` is a uniform draw from the integers `a..=b`, both ends
//! included. Sums and products saturate and exponents are clamped, so every input has an answer: `decide` and
//! `delay_ms` cannot panic or wrap, even on a policy that nobody validated.

mod class;
mod decide;
mod fallback;
mod invalid;
mod own;
mod policy;
mod strategy;
#[cfg(test)]
mod tests;
mod validate;

pub use class::{ClassPolicy, ClassRule, Ending, class_default};
pub use decide::{Decision, DelayReason, EndReason, Failure};
pub use fallback::{Fallback, OnRoute};
pub use invalid::PolicyError;
pub use policy::{RetryPolicy, Risk};
pub use strategy::Strategy;

const SECOND_MS: u64 = 1_000;
const MINUTE_MS: u64 = 60 * SECOND_MS;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;

/// The longest delay that a strategy may give, in milliseconds: 30 days. A longer one is a typing error far more often
/// than a wish, and a task that is to rest for longer can be snoozed.
pub const MAX_DELAY_MS: u64 = 30 * DAY_MS;

/// The most attempts a policy may allow for one task. Past a hundred failures, a retry is a loop.
pub const MAX_ATTEMPTS: u32 = crate::limits::ATTEMPTS_MAX;

/// The most entries of a [`Strategy::Schedule`]. Every task of the queue is judged by it, so it stays short.
pub const MAX_SCHEDULE_LEN: usize = 64;

/// The longest deadline, in milliseconds after the enqueue: 365 days.
pub const MAX_DEADLINE_MS: u64 = 365 * DAY_MS;

/// The longest retention of a finished task, in milliseconds: twice the longest deadline, as in the default rule.
pub const MAX_RETENTION_MS: u64 = 2 * MAX_DEADLINE_MS;

/// The longest time-out of one attempt, in milliseconds: 7 days.
pub const MAX_TIMEOUT_MS: u64 = 7 * DAY_MS;

/// The shortest lease, in milliseconds: below a second, ordinary network delay would look like a dead worker.
pub const MIN_LEASE_MS: u64 = crate::limits::LEASE_MIN_MS;

/// The longest lease, in milliseconds: 24 h. Plain AMQP consumers need it to cover queue wait plus handler time.
pub const MAX_LEASE_MS: u64 = crate::limits::LEASE_MAX_MS;

/// The shortest retention, in milliseconds, that a policy gets by default: 24 h.
pub const DEFAULT_RETENTION_FLOOR_MS: u64 = DAY_MS;

/// Most dependencies that stand in for one.
pub const MAX_CHAIN_LEN: usize = crate::limits::ROUTE_MAX as usize;

/// Most chains of one policy, which every decision about its tasks carries with it.
pub const MAX_CHAINS: usize = 256;

/// A hint that is longer than this takes the next route where there is one, in milliseconds: shorter waits are worth it.
pub const LONG_HINT_MS: u64 = MINUTE_MS;

/// Most deferrals and releases that a policy may allow one task.
pub const MAX_DEFERRALS: u32 = 1_000_000;

/// The fixed part of the largest jitter that is put on top of a server's hint, in milliseconds.
pub const HINT_JITTER_BASE_MS: u64 = SECOND_MS;

/// The jitter on top of a hint grows by one part in this many of the hint (0.1·hint).
pub const HINT_JITTER_DIVISOR: u64 = 10;

/// The largest jitter that is put on top of a server's hint, in milliseconds.
pub const MAX_HINT_JITTER_MS: u64 = 30 * SECOND_MS;
