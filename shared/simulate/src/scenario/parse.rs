//! From text to a scenario.

use redrive_shared::breaker::BreakerConfig;
use redrive_shared::config::reader::{Document, Read, Reader, Source};

use super::parts::{read_breaker, read_gate, read_retry};
use super::quantities::Quantities;
use super::{
    Clients, Cost, Dependency, GateRules, Outage, RateLimit, Room, Scenario, ScenarioError, Stage, Variant,
    Workflow,
};
use crate::limits::{
    CAPACITY_MAX, CLIENTS_MAX, DURATION_MAX_MS, FILE_MAX_BYTES, PRICE_MAX_USD, RATE_MAX_PER_S, RUNS_MAX,
    SLOTS_MAX, STEPS_MAX, TASKS_MAX, VARIANTS_MAX, WINDOWS_MAX,
};

const DEFAULT_DURATION_MS: u64 = 3_600_000;
/// Below this rate, a client comes less than once in three years: a typing error.
const RATE_MIN_PER_S: f64 = 1e-8;

impl Scenario {
    /// Reads a scenario. `file` is its name, for errors.
    ///
    /// # Errors
    /// The first thing in the text that cannot be, with its line.
    pub fn parse(file: &str, text: &str) -> Result<Self, ScenarioError> {
        let source = Source { file, text };
        if text.len() > FILE_MAX_BYTES {
            let message =
                format!("a scenario has at most {FILE_MAX_BYTES} bytes; this one has {}", text.len());
            return Err(source.error(None, message));
        }
        let document = Document::parse(source).map_err(|mut mistakes| mistakes.remove(0))?;
        read_scenario(document.reader())
    }
}

fn read_scenario(mut top: Reader<'_>) -> Read<Scenario> {
    let title = top.name("title")?;
    let seed = top.whole("seed", 0..=i64::MAX as u64)?.unwrap_or(1);
    let runs = top.whole("runs", 1..=RUNS_MAX)?.unwrap_or(1);
    let duration_ms = top.whole("duration_ms", 1..=DURATION_MAX_MS)?.unwrap_or(DEFAULT_DURATION_MS);
    let clients = match top.table("clients")? {
        Some(reader) => read_clients(reader)?,
        None => return top.refuse("clients", "a table [clients] with its `count`"),
    };
    let dependency = top.table("dependency")?.map_or(Ok(Dependency::default()), read_dependency)?;
    let cost = top.table("cost")?.map_or(Ok(Cost::default()), read_cost)?;
    let breaker = top.table("breaker")?.map(read_breaker).transpose()?;
    let gate = top.table("gate")?.map(read_gate).transpose()?;
    let (workflow, resume) = top.table("workflow")?.map_or(Ok((Workflow::default(), true)), read_workflow)?;
    let retry = top.table("retry")?.map(read_retry).transpose()?;
    let mut variants = Vec::new();
    for mut reader in top.tables("variants", VARIANTS_MAX)? {
        let own = reader.table("retry")?.map(read_retry).transpose()?;
        let Some(retry) = own.or_else(|| retry.clone()) else { return no_retry(&reader) };
        let dependency =
            reader.table("dependency")?.map_or_else(|| Ok(dependency.clone()), read_dependency)?;
        let breaker = read_variant_breaker(&mut reader, breaker.as_ref())?;
        let gate = read_variant_gate(&mut reader, gate.as_ref())?;
        let resume = reader.flag("resume")?.unwrap_or(resume);
        let name = reader.name("name")?.unwrap_or_else(|| retry.strategy.clone());
        if variants.iter().any(|variant: &Variant| variant.name == name) {
            return Err(reader.error("name", format!("is \"{name}\" a second time; give each its own")));
        }
        reader.finish()?;
        variants.push(Variant { name, retry, dependency, breaker, gate, resume });
    }
    if variants.is_empty() {
        let Some(retry) = retry else { return no_retry(&top) };
        let name = retry.strategy.clone();
        variants.push(Variant { name, retry, dependency, breaker, gate, resume });
    }
    top.finish()?;
    let title = title.unwrap_or_else(|| variants[0].name.clone());
    Ok(Scenario { title, seed, runs, duration_ms, clients, workflow, cost, variants })
}

fn no_retry<T>(reader: &Reader<'_>) -> Read<T> {
    reader.refuse("retry", "a table with a `strategy`, such as \"full_jitter\"")
}

/// A variant's own breaker, or the scenario's; `breaker = false` is none.
fn read_variant_breaker(
    reader: &mut Reader<'_>,
    common: Option<&BreakerConfig>,
) -> Read<Option<BreakerConfig>> {
    match reader.value("breaker") {
        None => Ok(common.cloned()),
        Some(toml::Value::Boolean(false)) => Ok(None),
        Some(_) => reader.table("breaker")?.map(read_breaker).transpose(),
    }
}

/// A variant's own gate, or the scenario's; `gate = false` is none, and `true` the scenario's or one with its defaults.
fn read_variant_gate(reader: &mut Reader<'_>, common: Option<&GateRules>) -> Read<Option<GateRules>> {
    match reader.value("gate") {
        None => Ok(common.cloned()),
        Some(toml::Value::Boolean(false)) => Ok(None),
        Some(toml::Value::Boolean(true)) => Ok(Some(common.cloned().unwrap_or_default())),
        Some(_) => reader.table("gate")?.map(read_gate).transpose(),
    }
}

/// The steps, and whether attempts resume at the one that failed.
fn read_workflow(mut reader: Reader<'_>) -> Read<(Workflow, bool)> {
    let Some(steps) = reader.whole("steps", 1..=STEPS_MAX)? else {
        return reader.refuse("steps", "how many steps a task has");
    };
    let Some(calls_at) = reader.whole("calls_at", 1..=steps)? else {
        return reader.refuse("calls_at", "which of the steps calls the dependency, counted from 1");
    };
    let step = reader.spread("step_ms")?;
    let resume = reader.flag("resume")?.unwrap_or(true);
    reader.finish()?;
    Ok((Workflow { steps: steps as u32, calls_at: calls_at as u32, step }, resume))
}

fn read_clients(mut reader: Reader<'_>) -> Read<Clients> {
    let Some(count) = reader.whole("count", 1..=CLIENTS_MAX)? else {
        return reader.refuse("count", &format!("a whole number from 1 to {CLIENTS_MAX}"));
    };
    let arrival = reader.word("arrival", &["at_once", "poisson", "rates"])?.unwrap_or("at_once");
    let per_s = reader.number("per_s", RATE_MIN_PER_S..=RATE_MAX_PER_S)?;
    let stages = reader.tables("rates", WINDOWS_MAX)?;
    for (key, given, wanted) in
        [("per_s", per_s.is_some(), "poisson"), ("rates", !stages.is_empty(), "rates")]
    {
        if given && arrival != wanted {
            return Err(reader.error(key, format!("means nothing where arrival is \"{arrival}\"")));
        }
    }
    let rates = match (arrival, per_s) {
        ("poisson", Some(per_s)) => vec![Stage { from_ms: 0, per_s }],
        ("poisson", None) => return reader.refuse("per_s", "clients a second, such as 10"),
        ("rates", _) => {
            let stages = read_stages(stages, 0.0)?;
            if stages.iter().all(|stage| stage.per_s <= 0.0) {
                let expected = "at least one [[clients.rates]] with `from_ms` and a `per_s` above 0";
                return reader.refuse("rates", expected);
            }
            stages
        }
        _ => Vec::new(),
    };
    let tasks = reader.whole("tasks", 1..=TASKS_MAX)?.unwrap_or(1);
    let pause = reader.spread("pause_ms")?;
    let agents = reader.whole("agents", 1..=count)?.unwrap_or(count);
    let slots = reader.whole("slots", 1..=SLOTS_MAX)?.map(|slots| slots as u32);
    reader.finish()?;
    // All four are bounded far below 2^32.
    Ok(Clients { count: count as u32, rates, tasks: tasks as u32, pause, agents: agents as u32, slots })
}

/// Rates that follow one another, none below the least.
fn read_stages(readers: Vec<Reader<'_>>, least_per_s: f64) -> Read<Vec<Stage>> {
    let mut stages: Vec<Stage> = Vec::new();
    for mut reader in readers {
        let from_ms = reader.millis("from_ms")?.unwrap_or(0);
        if stages.last().is_some_and(|last| last.from_ms >= from_ms) {
            return Err(reader.error("from_ms", "is not after the one before; write them in order"));
        }
        let Some(per_s) = reader.number("per_s", least_per_s..=RATE_MAX_PER_S)? else {
            return reader.refuse("per_s", "how many a second, such as 10");
        };
        reader.finish()?;
        stages.push(Stage { from_ms, per_s });
    }
    Ok(stages)
}

fn read_dependency(mut reader: Reader<'_>) -> Read<Dependency> {
    let network = reader.spread("network_ms")?;
    let service = reader.spread("service_ms")?;
    let timeout_ms = reader.whole("timeout_ms", 1..=DURATION_MAX_MS)?;
    let failure_rate = reader.share("failure_rate")?.unwrap_or(0.0);
    let poison_rate = reader.share("poison_rate")?.unwrap_or(0.0);
    let outages = reader.tables("outages", WINDOWS_MAX)?;
    let outages = read_outages(outages)?;
    let rate_limit = reader.table("rate_limit")?.map(read_rate_limit).transpose()?;
    let room = read_room(&mut reader)?;
    if room == Room::Contention && timeout_ms.is_some() {
        return Err(reader.error("timeout_ms", "cannot be combined with contention; leave one out"));
    }
    reader.finish()?;
    Ok(Dependency { network, service, room, timeout_ms, failure_rate, poison_rate, outages, rate_limit })
}

fn read_room(reader: &mut Reader<'_>) -> Read<Room> {
    let contention = reader.word("contention", &["none", "optimistic"])? == Some("optimistic");
    let capacity = reader.whole("capacity", 1..=CAPACITY_MAX)?;
    let queue = reader.whole("queue", 0..=CAPACITY_MAX)?;
    match (contention, capacity) {
        (true, Some(_)) => Err(reader.error("capacity", "cannot be combined with contention; leave one out")),
        (true, None) => Ok(Room::Contention),
        (false, None) if queue.is_some() => {
            Err(reader.error("queue", "means nothing without a `capacity`: nobody waits"))
        }
        (false, None) => Ok(Room::Unlimited),
        (false, Some(at_once)) => {
            Ok(Room::Capacity { at_once: at_once as u32, queue: queue.map(|queue| queue as u32) })
        }
    }
}

fn read_outages(readers: Vec<Reader<'_>>) -> Read<Vec<Outage>> {
    let mut found: Vec<(Outage, Reader<'_>)> = Vec::new();
    for mut reader in readers {
        let (Some(from_ms), Some(to_ms)) = (reader.millis("from_ms")?, reader.millis("to_ms")?) else {
            return reader.refuse("to_ms", "both `from_ms` and `to_ms`, in milliseconds");
        };
        if from_ms >= to_ms {
            return Err(reader.error("to_ms", format!("is {to_ms}; it must be after from_ms ({from_ms})")));
        }
        let failure_rate = reader.share("failure_rate")?.unwrap_or(1.0);
        found.push((Outage { from_ms, to_ms, failure_rate }, reader));
    }
    found.sort_by_key(|(outage, _)| outage.from_ms);
    for pair in found.windows(2) {
        let [(first, earlier), (second, later)] = pair else { continue };
        if second.from_ms < first.to_ms {
            // Blamed on the one further down in the file.
            let (blamed, other) =
                if earlier.line() > later.line() { (earlier, later) } else { (later, earlier) };
            let message =
                format!("overlaps the outage of line {}; let one end before the other begins", other.line());
            return Err(blamed.error("from_ms", message));
        }
    }
    found.into_iter().map(|(outage, reader)| reader.finish().map(|()| outage)).collect()
}

fn read_rate_limit(mut reader: Reader<'_>) -> Read<RateLimit> {
    let Some(per_s) = reader.number("per_s", RATE_MIN_PER_S..=RATE_MAX_PER_S)? else {
        return reader.refuse("per_s", "calls a second, such as 50");
    };
    let burst = reader.whole("burst", 1..=CAPACITY_MAX)?;
    let retry_after_ms = reader.millis("retry_after_ms")?;
    let counts_refused = reader.flag("counts_refused")?.unwrap_or(false);
    let changes = read_stages(reader.tables("changes", WINDOWS_MAX)?, RATE_MIN_PER_S)?;
    reader.finish()?;
    // Without a burst of its own, a bucket holds one second's tokens.
    let burst = burst.unwrap_or((per_s.ceil() as u64).max(1)) as u32;
    Ok(RateLimit { per_s, changes, burst, counts_refused, retry_after_ms })
}

fn read_cost(mut reader: Reader<'_>) -> Read<Cost> {
    let per_call_usd = reader.number("per_call_usd", 0.0..=PRICE_MAX_USD)?.unwrap_or(0.0);
    let per_wait_s_usd = reader.number("per_wait_s_usd", 0.0..=PRICE_MAX_USD)?.unwrap_or(0.0);
    reader.finish()?;
    Ok(Cost { per_call_usd, per_wait_s_usd })
}
