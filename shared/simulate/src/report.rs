//! What came of it: figures for each variant, and curves over time.

use serde::Serialize;

use crate::limits::EVENTS_MAX;
use crate::scenario::{Scenario, Variant};
use crate::world::World;

/// The figures of a scenario. Field names are stable: other tools read them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The scenario's title.
    pub title: String,
    /// Its seed.
    pub seed: u64,
    /// How many runs the figures are means of.
    pub runs: u64,
    /// In the order of the file.
    pub variants: Vec<VariantReport>,
}

/// What came of one variant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VariantReport {
    /// Its name.
    pub name: String,
    /// The name of its retry strategy.
    pub strategy: String,
    /// Why the runs ended: the reason that cut most off, where they differ.
    pub ended: Ending,
    /// Means over all runs.
    pub figures: Figures,
    /// The first run over time.
    pub curve: Curve,
}

/// Why a run ended. Later ones cut more off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// There was nothing left to do.
    Done,
    /// Virtual time was up.
    TimeUp,
    /// Its share of [`EVENTS_MAX`] was used up: the figures are those of a part.
    EventLimit,
}

/// Counts over time.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Curve {
    /// How much time each point stands for, in milliseconds.
    pub bucket_ms: u64,
    /// At most [`POINTS_MAX`](crate::limits::POINTS_MAX) of them.
    pub points: Vec<Point>,
}

/// A stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// When it begins, in milliseconds.
    pub at_ms: u64,
    /// Calls a second that reached the dependency.
    pub calls_per_s: f64,
    /// Those of them that were retries.
    pub retries_per_s: f64,
    /// The most tasks that were begun and not over.
    pub backlog: u32,
    /// Tasks, from the beginning on, that had failed and then succeeded.
    pub recovered: u64,
}

macro_rules! figures {
    ($($(#[$about:meta])* $name:ident),* $(,)?) => {
        /// The figures of a run, or means over several: therefore counts are not whole either.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
        pub struct Figures { $($(#[$about])* pub $name: f64,)* }

        impl Figures {
            fn mean(all: &[Self]) -> Self {
                let mean = |of: fn(&Self) -> f64| all.iter().map(of).sum::<f64>() / all.len().max(1) as f64;
                Self { $($name: mean(|figures| figures.$name),)* }
            }
        }
    };
}

figures! {
    /// Tasks that were begun.
    tasks,
    /// Those that succeeded.
    succeeded,
    /// Those that had failed at least once and then succeeded.
    recovered,
    /// Those whose attempts were used up.
    dead,
    /// Those that would be handed to a person.
    escalated,
    /// Of these, because the next attempt would have been due after the deadline.
    past_deadline,
    /// Those that were not over at the end.
    unfinished,
    /// Calls that reached the dependency.
    calls,
    /// Those of them that were not a task's first.
    retries,
    /// Calls that failed: an outage, poison, or the rate of failures.
    failed,
    /// Calls refused because the queue was full.
    overloaded,
    /// Calls refused by the rate limit.
    rate_limited,
    /// Calls that the client gave up.
    timed_out,
    /// Writes that lost against another.
    conflicts,
    /// How often an attempt was held back: by a breaker or a gate, or because its agent's slots were taken.
    held_back,
    /// How often breakers opened.
    breaker_openings,
    /// How often the fleet's gate shut.
    gate_shuts,
    /// Steps that worked.
    steps,
    /// Those of them that had worked before, in an earlier attempt at the same task.
    steps_repeated,
    /// When the last task was over, in milliseconds.
    completed_ms,
    /// The time that half of the successful tasks took at most, in milliseconds, within 1 %.
    p50_ms,
    /// The time that 99 of 100 successful tasks took at most, in milliseconds, within 1 %.
    p99_ms,
    /// The mean of the delays that the policy gave, in milliseconds.
    delay_mean_ms,
    /// How long a task waited between its attempts, altogether, in milliseconds; the mean over all tasks.
    wait_mean_ms,
    /// The longest that one task waited between its attempts, altogether, in milliseconds.
    wait_max_ms,
    /// The most calls within any one second.
    calls_peak_per_s,
    /// The most retries within any one second.
    retries_peak_per_s,
    /// The most tasks that were begun and not over.
    backlog_peak,
    /// What the calls cost, in dollars.
    cost_calls_usd,
    /// What the waiting cost, in dollars.
    cost_waiting_usd,
    /// Both.
    cost_usd,
    /// The cost beyond that of each task's first call, in percent of it.
    cost_extra_percent,
}

/// Runs a scenario: each variant as often as it says.
///
/// Every variant of a run has the same seed, so clients come at the same instants under each of them.
pub fn simulate(scenario: &Scenario) -> Report {
    let runs = scenario.runs.max(1);
    let events = EVENTS_MAX / (runs * scenario.variants.len().max(1) as u64);
    Report {
        title: scenario.title.clone(),
        seed: scenario.seed,
        runs,
        variants: scenario.variants.iter().map(|variant| run(scenario, variant, runs, events)).collect(),
    }
}

fn run(scenario: &Scenario, variant: &Variant, runs: u64, events: u64) -> VariantReport {
    let mut ended = Ending::Done;
    let mut figures = Vec::new();
    let mut curve = None;
    for run in 0..runs {
        let done = World::new(scenario, variant, scenario.seed.wrapping_add(run)).run(events);
        ended = ended.max(done.ended);
        figures.push(done.figures);
        curve.get_or_insert(done.curve);
    }
    VariantReport {
        name: variant.name.clone(),
        strategy: variant.retry.strategy.clone(),
        ended,
        figures: Figures::mean(&figures),
        curve: curve.unwrap_or_default(),
    }
}
