//! Time, and processor time, of one round.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::bench::cpu;
use crate::bench::median::median;
use crate::bench::target::Targets;

/// Medians of what was measured. Processor time is in µs each; RabbitMQ's own is not known here.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// A second.
    pub per_s: f64,
    /// Of this process: the load.
    pub load_us: Option<f64>,
    /// Of the coordinator, where it takes part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coordinator_us: Option<f64>,
}

impl Figure {
    pub(super) fn of(rounds: &[Round]) -> Self {
        let all = |figure: &dyn Fn(&Round) -> Option<f64>| median(rounds.iter().filter_map(figure).collect());
        Self {
            per_s: all(&|round| Some(round.per_s)).unwrap_or(f64::NAN),
            load_us: all(&|round| round.load_us),
            coordinator_us: all(&|round| round.coordinator_us),
        }
    }
}

/// The same of one round.
pub(super) struct Round {
    per_s: f64,
    load_us: Option<f64>,
    coordinator_us: Option<f64>,
}

/// Runs while a round is measured.
pub(super) struct Meter<'a> {
    coordinator: Option<&'a Targets>,
    started: Instant,
    load: Option<Duration>,
    coordinated: Option<Duration>,
}

impl<'a> Meter<'a> {
    /// From now on, with that coordinator or with none.
    pub fn start(coordinator: Option<&'a Targets>) -> Self {
        let coordinated = coordinator.and_then(Targets::cpu_time);
        let load = cpu::of_process(std::process::id());
        Self { coordinator, started: Instant::now(), load, coordinated }
    }

    /// Until now, for so many.
    pub fn stop(self, count: usize) -> Round {
        let elapsed = self.started.elapsed();
        let each = |before: Option<Duration>, after: Option<Duration>| {
            Some(after?.saturating_sub(before?).as_secs_f64() * 1e6 / count as f64)
        };
        Round {
            per_s: count as f64 / elapsed.as_secs_f64(),
            load_us: each(self.load, cpu::of_process(std::process::id())),
            coordinator_us: each(self.coordinated, self.coordinator.and_then(Targets::cpu_time)),
        }
    }
}
