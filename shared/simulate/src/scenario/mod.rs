//! What is simulated. [`Scenario::parse`] reads it from TOML; `docs/simulate.md` documents every key.

mod parse;
mod parts;
mod quantities;
#[cfg(test)]
mod tests;

use redrive_shared::breaker::BreakerConfig;
pub use redrive_shared::config::reader::Mistake as ScenarioError;
use redrive_shared::gate::Settings;
use redrive_shared::retry::RetryPolicy;

/// A scenario that was read and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// What it is about, in a few words.
    pub title: String,
    /// What everything random follows from; each further run takes the next number.
    pub seed: u64,
    /// How many runs the figures are averaged over.
    pub runs: u64,
    /// Where virtual time ends, in milliseconds.
    pub duration_ms: u64,
    /// Who calls.
    pub clients: Clients,
    /// What a task consists of.
    pub workflow: Workflow,
    /// What calling and waiting cost.
    pub cost: Cost,
    /// What is compared, at least one.
    pub variants: Vec<Variant>,
}

/// One row of the table: the same clients with other rules.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// Its name in tables and pictures.
    pub name: String,
    /// When and how often a failed task runs again.
    pub retry: Retry,
    /// Who is called.
    pub dependency: Dependency,
    /// The circuit breaker of each agent, if there is one.
    pub breaker: Option<BreakerConfig>,
    /// The fleet's gate of the dependency, if there is one.
    pub gate: Option<GateRules>,
    /// Whether an attempt begins at the step that failed, as with checkpoints; else at the first one.
    pub resume: bool,
}

/// The fleet's gate.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GateRules {
    /// What it holds back.
    pub holds: Holds,
    /// What an operator has set on it.
    pub settings: Settings,
}

/// What a gate holds back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Holds {
    /// Every attempt: all work goes through the queue.
    #[default]
    Everything,
    /// Retries: agents make their first attempts themselves, and hand over what failed.
    Retries,
}

/// Who calls, and when.
#[derive(Debug, Clone, PartialEq)]
pub struct Clients {
    /// How many.
    pub count: u32,
    /// The rate at which they come. Empty: all at once, at 0.
    pub rates: Vec<Stage>,
    /// Tasks of each, one after the other.
    pub tasks: u32,
    /// From the end of a client's task to the beginning of its next one.
    pub pause: Spread,
    /// Agents that the clients belong to, in turn. Those of one agent share its circuit breaker and its slots.
    pub agents: u32,
    /// Attempts that one agent has under way at a time. None: no bound.
    pub slots: Option<u32>,
}

/// What a task consists of: steps, one of which calls the dependency. The others always work.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Workflow {
    /// How many.
    pub steps: u32,
    /// Which one calls the dependency, counted from 1.
    pub calls_at: u32,
    /// How long each of the others takes.
    pub step: Spread,
}

impl Default for Workflow {
    /// One call and nothing else.
    fn default() -> Self {
        Self { steps: 1, calls_at: 1, step: Spread::default() }
    }
}

/// A rate that holds from an instant on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stage {
    /// From when on, in milliseconds.
    pub from_ms: u64,
    /// So much a second: of clients on average, as a Poisson process; of a rate limit exactly.
    pub per_s: f64,
}

/// A normally distributed duration, in milliseconds; a draw below zero counts as its absolute value.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spread {
    /// The mean.
    pub mean_ms: f64,
    /// The standard deviation; 0: always the mean.
    pub sd_ms: f64,
}

/// When and how often a failed task runs again.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// The name of the strategy, as in the file.
    pub strategy: String,
    /// The queue's policy, as in production.
    pub policy: RetryPolicy,
    /// Whether attempts never end.
    pub unlimited: bool,
}

/// The system that is called.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Dependency {
    /// From the client to the dependency; the way back takes as long again.
    pub network: Spread,
    /// From when a call is begun to its answer.
    pub service: Spread,
    /// How calls stand in each other's way.
    pub room: Room,
    /// After this long the client gives a call up, in milliseconds from when it was sent. The dependency does its work all
    /// the same.
    pub timeout_ms: Option<u64>,
    /// The share of calls that fail outside outages, 0 to 1.
    pub failure_rate: f64,
    /// The share of tasks that fail at every attempt, 0 to 1.
    pub poison_rate: f64,
    /// Times at which another share of calls fails: in order, and none overlaps another.
    pub outages: Vec<Outage>,
    /// What it lets in.
    pub rate_limit: Option<RateLimit>,
}

/// How calls stand in each other's way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Room {
    /// Not at all.
    #[default]
    Unlimited,
    /// So many are served at a time; the others wait in order.
    Capacity {
        /// Served at a time.
        at_once: u32,
        /// How many may wait; more are refused as overload. None: any number.
        queue: Option<u32>,
    },
    /// They all write one row under optimistic concurrency control: a call reads the row's version, goes back to the client,
    /// and writes; where another has written in between, it fails as a conflict.
    Contention,
}

/// A stretch of time in which another share of calls fails.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outage {
    /// From this instant on, in milliseconds.
    pub from_ms: u64,
    /// Up to this instant, in milliseconds.
    pub to_ms: u64,
    /// The share of calls that fail, 0 to 1.
    pub failure_rate: f64,
}

/// A token bucket, full at first; a call without a token is refused at once.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimit {
    /// Tokens a second, at first.
    pub per_s: f64,
    /// Tokens a second from then on, in order.
    pub changes: Vec<Stage>,
    /// Tokens that it holds at most.
    pub burst: u32,
    /// Whether a call that is refused takes a token too, down to a debt of as many as it can hold.
    pub counts_refused: bool,
    /// The `Retry-After` that a refusal carries, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

/// What calling and waiting cost, in dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    /// Each call, whether it works or not.
    pub per_call_usd: f64,
    /// Each second that a task waits to run again: an agent that is held, memory, a user who looks on. 0 where a task is
    /// parked while it waits.
    pub per_wait_s_usd: f64,
}
