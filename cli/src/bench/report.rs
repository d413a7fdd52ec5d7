//! What `redrive bench` says: a table for people, one object for machines.

use serde::Serialize;

use super::gates::Gates;
use super::lateness::Lateness;
use super::locks::{HandedOn, Locks};
use super::push::{Figure, Push};
use super::redis::{Claims, Layer, Layers, Memory};
use super::{Measure, Options};

/// Everything that was measured; what was not is null, or missing where it is only for Redis. Field names are stable: other
/// tools read them.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Full cycles (enqueue, claim, retry, claim, succeed) a second, over the API.
    pub cycles_per_s: Option<f64>,
    /// Lateness at a steady 200 due tasks a second, with one coordinator.
    pub lateness_ms: Option<Percentiles>,
    /// From the instant at which the storm's tasks were due until the last was in a worker's hands, with one coordinator.
    pub storm_ms: Option<f64>,
    /// The idle coordinator's share of one core, in percent.
    pub idle_cpu_percent: Option<f64>,
    /// Full cycles by the service, by the store alone, and by plain commands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<Layers>,
    /// Lateness and storm by the number of coordinators.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub spread: Vec<Spread>,
    /// What parked tasks cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// What claims cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claims: Option<Claims>,
    /// Push over RabbitMQ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub push: Option<Push>,
    /// A storm of rate limits, and what gates cost while there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gates: Option<Gates>,
    /// Locks, free and wanted by many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locks: Option<Locks>,
    /// What it was measured with.
    pub settings: Settings,
}

/// Milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Percentiles {
    /// Half of the tasks were no later.
    pub p50: f64,
    /// 99 of 100 were no later.
    pub p99: f64,
    /// The latest.
    pub max: f64,
}

impl Percentiles {
    pub(super) fn of(late: &Lateness) -> Self {
        Self { p50: late.percentile_ms(0.5), p99: late.percentile_ms(0.99), max: late.max_ms() }
    }
}

/// Producers and workers spread over so many coordinators. No task came twice: that would have ended the run.
#[derive(Debug, Clone, Serialize)]
pub struct Spread {
    /// How many.
    pub coordinators: usize,
    /// Lateness at a steady 200 due tasks a second.
    pub lateness_ms: Option<Percentiles>,
    /// From the instant at which the storm's tasks were due until the last was in a worker's hands.
    pub storm_ms: Option<f64>,
}

/// What the figures depend on.
#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    /// The store.
    pub store: &'static str,
    /// What is flushed when; of Redis also which one it is.
    pub durability: String,
    /// Retry budgets.
    pub budgets: &'static str,
    /// Tasks that went through the cycle.
    pub tasks: usize,
    /// Tasks in a call.
    pub batch: usize,
    /// Producers, and as many workers.
    pub callers: usize,
    /// Threads of each coordinator; the load has one.
    pub threads: u16,
    /// Bytes of a payload.
    pub payload_bytes: usize,
    /// Tasks of the lateness measurement.
    pub lateness_tasks: usize,
    /// Tasks of the storm.
    pub storm_tasks: usize,
}

impl Settings {
    pub(super) fn new(options: &Options, store: &'static str, durability: String) -> Self {
        Self {
            store,
            durability,
            budgets: "off",
            tasks: super::cycles::tasks(options),
            batch: options.batch,
            callers: options.callers,
            threads: options.threads,
            payload_bytes: options.payload_bytes,
            lateness_tasks: super::lateness::tasks(options),
            storm_tasks: options.storm_tasks,
        }
    }
}

type Row = [String; 3];

fn row(what: &str, value: String, how: impl Into<String>) -> Row {
    [what.to_owned(), value, how.into()]
}

impl Report {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            cycles_per_s: None,
            lateness_ms: None,
            storm_ms: None,
            idle_cpu_percent: None,
            layers: None,
            spread: Vec::new(),
            memory: None,
            claims: None,
            push: None,
            gates: None,
            locks: None,
            settings,
        }
    }

    pub(super) fn layers(&mut self, layers: Layers) {
        self.cycles_per_s = Some(layers.service.per_s);
        self.layers = Some(layers);
    }

    pub(super) fn spread(&mut self, spread: Spread) {
        if spread.coordinators == 1 {
            (self.lateness_ms, self.storm_ms) = (spread.lateness_ms, spread.storm_ms);
        }
        self.spread.push(spread);
    }

    /// Rows of the table: what, how much, measured how. Only of what was asked for.
    pub fn rows(&self, only: &[Measure]) -> Vec<Row> {
        let mut rows = Vec::new();
        match (&self.layers, self.cycles_per_s) {
            (Some(layers), _) => self.layer_rows(layers, &mut rows),
            (None, Some(cycles)) => rows.push(row("full cycles", per_second(cycles), self.load())),
            (None, None) => {}
        }
        if self.spread.is_empty() {
            self.late_rows("", self.lateness_ms, self.storm_ms, &mut rows);
        }
        for spread in &self.spread {
            let with = format!(", coordinators: {}", spread.coordinators);
            self.late_rows(&with, spread.lateness_ms, spread.storm_ms, &mut rows);
        }
        if only.contains(&Measure::Idle) {
            let idle = self.idle_cpu_percent;
            let idle = idle.map_or("not told here".into(), |percent| format!("{percent:.2} % of a core"));
            rows.push(row("idle", idle, "10,000 parked tasks, 8 waiting workers"));
        }
        if let Some(memory) = &self.memory {
            memory_rows(memory, &mut rows);
        }
        if let Some(claims) = &self.claims {
            claim_rows(claims, &mut rows);
        }
        if let Some(push) = &self.push {
            self.push_rows(push, &mut rows);
        }
        if let Some(gates) = &self.gates {
            gate_rows(gates, &mut rows);
        }
        if let Some(locks) = &self.locks {
            lock_rows(locks, &mut rows);
        }
        rows
    }

    fn load(&self) -> String {
        let Settings { tasks, batch, callers, payload_bytes, .. } = &self.settings;
        format!(
            "{tasks} tasks, {payload_bytes} B, batches of {batch}, {callers} producers + {callers} workers"
        )
    }

    fn layer_rows(&self, layers: &Layers, rows: &mut Vec<Row>) {
        let Layers { ceiling, store, service, rounds, coordinators, .. } = layers;
        rows.push(row("full cycles", per_second(service.per_s), self.load()));
        rows.push(row(
            "",
            processor(service),
            format!(
                "coordinators: {coordinators}, threads: {}; medians of {rounds} rounds",
                self.settings.threads
            ),
        ));
        rows.push(row(
            "store alone",
            per_second(store.per_s),
            "the same transitions in this process, no HTTP",
        ));
        rows.push(row("", processor(store), ""));
        let bare = "plain commands: no script, decision, fence, history, counter or listing";
        rows.push(row("ceiling", per_second(ceiling.per_s), bare));
        rows.push(row("", processor(ceiling), ""));
        rows.push(row("store to ceiling", percent(layers.store_to_ceiling), ""));
        rows.push(row("service to ceiling", percent(layers.service_to_ceiling), ""));
    }

    fn late_rows(
        &self,
        with: &str,
        lateness: Option<Percentiles>,
        storm_ms: Option<f64>,
        rows: &mut Vec<Row>,
    ) {
        let Settings { lateness_tasks, storm_tasks, .. } = &self.settings;
        if let Some(Percentiles { p50, p99, max }) = lateness {
            let how = format!("{lateness_tasks} tasks, 200 due/s{with}");
            rows.push(row("lateness p50", format!("{p50:.1} ms"), how));
            rows.push(row("lateness p99", format!("{p99:.1} ms"), ""));
            rows.push(row("lateness max", format!("{max:.1} ms"), ""));
        }
        if let Some(storm_ms) = storm_ms {
            let how = format!("{storm_tasks} tasks due at one instant{with}");
            rows.push(row("storm", format!("{storm_ms:.0} ms"), how));
        }
    }
}

impl Report {
    fn push_rows(&self, push: &Push, rows: &mut Vec<Row>) {
        let Push { ceiling, dispatch, cycles, tasks, message_bytes, outstanding, rounds, .. } = push;
        let Settings { batch, callers, lateness_tasks, threads, .. } = &self.settings;
        rows.push(row(
            "plain RabbitMQ client",
            per_second(ceiling.per_s),
            format!("{tasks} messages of {message_bytes} B, published, confirmed, consumed, acknowledged"),
        ));
        let how = format!("batches of {batch}, {outstanding} out; medians of {rounds} rounds");
        rows.push(row("", used(ceiling), how));
        rows.push(row(
            "pushed",
            per_second(dispatch.per_s),
            format!("{tasks} tasks that were due, one coordinator, threads: {threads}"),
        ));
        rows.push(row("", used(dispatch), ""));
        rows.push(row("pushed to plain", percent(push.dispatch_to_ceiling), ""));
        rows.push(row(
            "full cycles by push",
            per_second(cycles.per_s),
            format!(
                "enqueue, pushed, retry, pushed, done; {outstanding} out, {callers} producers + 1 consumer"
            ),
        ));
        rows.push(row("", used(cycles), ""));
        rows.push(row(
            "cycles to plain",
            percent(push.cycles_to_ceiling),
            "a cycle is two messages, two outcomes",
        ));
        let Percentiles { p50, p99, max } = push.latency_ms;
        let how = format!("due to consumer; {lateness_tasks} tasks, 200 due/s");
        rows.push(row("push latency p50", format!("{p50:.1} ms"), how));
        rows.push(row("push latency p99", format!("{p99:.1} ms"), ""));
        rows.push(row("push latency max", format!("{max:.1} ms"), ""));
    }
}

/// Where a message's or a cycle's time goes, without RabbitMQ's own.
fn used(figure: &Figure) -> String {
    let parts = [("load", figure.load_us), ("coordinator", figure.coordinator_us)];
    let told = parts.iter().filter_map(|(who, used)| Some(format!("{who} {:.1} us", (*used)?)));
    told.collect::<Vec<_>>().join(", ")
}

fn memory_rows(memory: &Memory, rows: &mut Vec<Row>) {
    let bytes = |bytes: f64| format!("{bytes:.0} B");
    let how = format!("beyond the payload, of {} tasks, id included", memory.tasks);
    rows.push(row("parked task", bytes(memory.parked_bytes), how));
    rows.push(row("", bytes(memory.failed_bytes), "the same, with the failure of its first attempt"));
    let how = "the same once it has succeeded, beyond its result: its id is remembered";
    rows.push(row("finished task", bytes(memory.finished_bytes), how));
    rows.push(row("plain string and member", bytes(memory.plain_bytes), "of the same payloads and ids"));
    let ratios = format!("{:.2}, with a failure {:.2}", memory.ratio, memory.failed_ratio);
    rows.push(row("parked to plain", ratios, ""));
    for stored in &memory.stored {
        rows.push(row(&format!("  stored: {}", stored.part), String::new(), stored.holds));
    }
}

fn claim_rows(claims: &Claims, rows: &mut Vec<Row>) {
    for size in &claims.sizes {
        let value = format!("{:.0} us, Redis {:.0} us", size.claim_us, size.redis_us);
        rows.push(row("claim of 100", value, format!("{} tasks parked in the same lane", size.parked)));
    }
    let ratios = format!("{:.2}, Redis {:.2}", claims.time_ratio, claims.redis_ratio);
    rows.push(row("most to fewest", ratios, ""));
}

fn gate_rows(gates: &Gates, rows: &mut Vec<Row>) {
    for storm in &gates.storms {
        let what = if storm.gates { "storm of 429, gates" } else { "storm of 429, no gates" };
        let value = format!("{:.1} s, {} calls, {} refused", storm.drained_s, storm.calls, storm.refused);
        let how = format!(
            "{} tasks, {:.1} s at best; refused {:.1} %, retries a task {:.2}; coordinators: {}",
            storm.tasks,
            storm.ideal_s,
            storm.refused_share * 100.0,
            storm.retries_per_task,
            storm.coordinators
        );
        rows.push(row(what, value, how));
    }
    let idle = &gates.idle;
    let value = format!("{:.3}", idle.ratio);
    let how = format!(
        "cycles with to without: {:.0}/s, {:.0}/s; medians of {} pairs",
        idle.with_per_s, idle.without_per_s, idle.pairs
    );
    rows.push(row("idle gates", value, how));
}

fn lock_rows(locks: &Locks, rows: &mut Vec<Row>) {
    let how = format!("{} callers, a lock each; medians of {} rounds", locks.callers, locks.rounds);
    rows.push(row("free locks", per_second(locks.free_per_s), how));
    if let (Some(bare), Some(ratio)) = (locks.bare_free_per_s, locks.ratio) {
        let how = format!("SET NX PX and a comparing delete; served to bare {ratio:.2}");
        rows.push(row("bare Redis", per_second(bare), how));
    }
    let mut handed_on = |what, on: &HandedOn, who: &str| {
        let value = format!("{:.2} ms, p99 {:.2} ms", on.p50_ms, on.p99_ms);
        let how = format!(
            "{} wait{who}; all served in {:.0} ms, {} out of order",
            on.waiters, on.all_ms, on.out_of_order
        );
        rows.push(row(what, value, how));
    };
    handed_on("lock handed on", &locks.handed_on, "");
    if let Some(bare) = &locks.bare_handed_on {
        handed_on("bare, handed on", bare, " and ask every 10 ms");
    }
}

fn per_second(value: f64) -> String {
    format!("{value:.0}/s")
}

fn percent(ratio: f64) -> String {
    format!("{:.0} %", ratio * 100.0)
}

/// Where a cycle's time goes.
fn processor(layer: &Layer) -> String {
    let mut text = format!("Redis {:.1} us", layer.redis_us);
    for (who, used) in [("load", layer.load_us), ("coordinators", layer.coordinator_us)] {
        if let Some(used) = used {
            text.push_str(&format!(", {who} {used:.1} us"));
        }
    }
    text
}
