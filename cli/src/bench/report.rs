//! What `redrive bench` says: a table for people, one object for machines.

use serde::Serialize;

use super::Options;
use super::cycles::Cycles;
use super::lateness::Lateness;

/// Everything that was measured. Field names are stable: other tools read them.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Full cycles (enqueue, claim, retry, claim, succeed) a second, over the API.
    pub cycles_per_s: f64,
    /// Lateness at a steady 200 due tasks a second.
    pub lateness_ms: Percentiles,
    /// From the instant at which the storm's tasks were due until the last was in a worker's hands.
    pub storm_ms: f64,
    /// The idle coordinator's share of one core, in percent.
    pub idle_cpu_percent: Option<f64>,
    /// What it was measured with.
    pub settings: Settings,
}

/// Milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Percentiles {
    /// Half of the tasks were no later.
    pub p50: f64,
    /// 99 of 100 were no later.
    pub p99: f64,
    /// The latest.
    pub max: f64,
}

/// What the figures depend on.
#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    /// The store.
    pub store: &'static str,
    /// What is flushed when.
    pub durability: &'static str,
    /// Retry budgets.
    pub budgets: &'static str,
    /// Tasks that went through the cycle.
    pub tasks: usize,
    /// Tasks in a call.
    pub batch: usize,
    /// Producers, and as many workers.
    pub callers: usize,
    /// Bytes of a payload.
    pub payload_bytes: usize,
    /// Tasks of the lateness measurement.
    pub lateness_tasks: usize,
    /// Tasks of the storm.
    pub storm_tasks: usize,
}

impl Report {
    pub(super) fn new(
        options: &Options,
        cycles: &Cycles,
        lateness: &Lateness,
        storm: &Lateness,
        idle_cpu_percent: Option<f64>,
    ) -> Self {
        Self {
            cycles_per_s: cycles.per_second(),
            lateness_ms: Percentiles {
                p50: lateness.percentile_ms(0.5),
                p99: lateness.percentile_ms(0.99),
                max: lateness.max_ms(),
            },
            storm_ms: storm.drained_ms,
            idle_cpu_percent,
            settings: Settings {
                store: "sqlite",
                durability: "WAL, synchronous=FULL: every commit is flushed",
                budgets: "off",
                tasks: cycles.tasks,
                batch: options.batch,
                callers: options.callers,
                payload_bytes: options.payload_bytes,
                lateness_tasks: lateness.tasks(),
                storm_tasks: storm.tasks(),
            },
        }
    }

    /// Rows of the table: what, how much, measured how.
    pub fn rows(&self) -> Vec<[String; 3]> {
        let Settings { tasks, batch, callers, payload_bytes, lateness_tasks, storm_tasks, .. } =
            &self.settings;
        let row = |what: &str, value: String, how: String| [what.to_owned(), value, how];
        let idle = self
            .idle_cpu_percent
            .map_or("not told here".into(), |percent| format!("{percent:.2} % of a core"));
        vec![
            row(
                "full cycles",
                format!("{:.0}/s", self.cycles_per_s),
                format!(
                    "{tasks} tasks, {payload_bytes} B, batches of {batch}, {callers} producers + {callers} workers"
                ),
            ),
            row(
                "lateness p50",
                format!("{:.1} ms", self.lateness_ms.p50),
                format!("{lateness_tasks} tasks, 200 due/s"),
            ),
            row("lateness p99", format!("{:.1} ms", self.lateness_ms.p99), String::new()),
            row("lateness max", format!("{:.1} ms", self.lateness_ms.max), String::new()),
            row(
                "storm",
                format!("{:.0} ms", self.storm_ms),
                format!("{storm_tasks} tasks due at one instant"),
            ),
            row("idle", idle, "10,000 parked tasks, 8 waiting workers".into()),
        ]
    }
}
