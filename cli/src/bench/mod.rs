//! `redrive bench`: what this machine does, measured over the real API of coordinators in processes of their own.
//!
//! Each measurement is bounded in tasks and time. Load generator and coordinators share the machine, so figures are
//! comparable within one run only; on a shared store the run therefore measures what it is to be compared with as well.

mod cpu;
mod cycles;
mod fleet;
mod gates;
mod idle;
mod lateness;
mod locks;
mod median;
mod push;
mod redis;
mod report;
mod talk;
mod target;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

pub use push::{Broker, OUTSTANDING_MAX};
pub use report::Report;
pub use talk::Talk;

use self::redis::Throwaway;
use self::report::{Percentiles, Settings};
use self::target::{Data, Targets};

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Measure {
    /// Full cycles a second; on Redis also by the store alone, and by plain commands.
    Cycles,
    /// How late tasks reach a worker at 200 due a second.
    Lateness,
    /// How long many tasks take that are due at one instant.
    Storm,
    /// What an idle coordinator uses.
    Idle,
    /// Bytes of a parked task, on Redis.
    Memory,
    /// Cost of a claim with many tasks parked, on Redis.
    Claims,
    /// A storm of rate limits with and without gates, and what gates cost while there is none.
    Gates,
    /// Locks that nobody else wants, and one that a hundred wait for; on Redis beside bare `SET NX PX`.
    Locks,
    /// Push over RabbitMQ: dispatch, full cycles and latency, and what a plain client does with the same RabbitMQ.
    Push,
}

impl Measure {
    /// Whether it is about Redis itself.
    pub fn needs_redis(self) -> bool {
        matches!(self, Self::Memory | Self::Claims)
    }
}

/// Which store.
#[derive(Debug, Clone)]
pub enum Place {
    /// The embedded one, in this directory; a temporary one when left out.
    Embedded(Option<PathBuf>),
    /// The shared one at this address.
    Shared(String),
    /// A Redis server that is started for the run.
    Throwaway,
}

/// How much to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// What.
    pub only: Vec<Measure>,
    /// Where.
    pub place: Place,
    /// The RabbitMQ that push is measured with.
    pub amqp: Option<Broker>,
    /// Tasks that go through the full cycle.
    pub tasks: usize,
    /// Tasks in one call.
    pub batch: usize,
    /// Producers, and as many workers, calling at once.
    pub callers: usize,
    /// Coordinators that full cycles are spread over.
    pub coordinators: usize,
    /// Threads that each of them serves with.
    pub threads: u16,
    /// Bytes of each payload.
    pub payload_bytes: usize,
    /// Tasks due at one instant in the storm.
    pub storm_tasks: usize,
    /// Seconds of lateness and idle measurement each.
    pub seconds: u64,
    /// Tasks parked for memory and claims.
    pub parked: usize,
    /// Messages that may be out at once in full cycles by push, and in the ceiling of push.
    pub outstanding: usize,
}

impl Options {
    fn has(&self, measure: Measure) -> bool {
        self.only.contains(&measure)
    }

    /// The RabbitMQ, if push is to be measured.
    fn broker(&self) -> Option<&Broker> {
        self.amqp.as_ref().filter(|_| self.has(Measure::Push))
    }
}

/// A coordinator that was ended in the middle may have asked RabbitMQ for something that is not there yet.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Starts coordinators, measures, stops them. `stopped` ends it early; it cleans up all the same.
pub async fn run(
    options: &Options,
    talk: &Talk<'_>,
    stopped: impl Future<Output = ()>,
) -> anyhow::Result<Report> {
    let Some(broker) = options.broker() else { return in_place(options, talk, stopped).await };
    broker.try_out().await?;
    talk.note(&format!("RabbitMQ at {}; if it is here, it shares this machine too", broker.address()));
    let measured = in_place(options, talk, stopped).await;
    talk.step("deleting the benchmark's queues in RabbitMQ");
    if measured.is_err() {
        tokio::time::sleep(LAST_WORDS).await;
    }
    match (measured, broker.clean().await) {
        (measured, Ok(())) => measured,
        (Ok(_), Err(left)) => Err(left),
        // What went wrong first is what matters.
        (Err(failed), Err(left)) => {
            talk.note(&format!("{left:#}"));
            Err(failed)
        }
    }
}

/// On the store that was asked for.
async fn in_place(
    options: &Options,
    talk: &Talk<'_>,
    stopped: impl Future<Output = ()>,
) -> anyhow::Result<Report> {
    match &options.place {
        Place::Embedded(data_dir) => {
            let scratch = tempfile::tempdir().context("cannot make a temporary directory")?;
            let data_dir = data_dir.clone().unwrap_or_else(|| scratch.path().to_owned());
            tokio::select! {
                measured = embedded(options, Data::Directory(&data_dir), talk) => measured,
                () = stopped => Err(anyhow::anyhow!("it was stopped before the end")),
            }
        }
        Place::Shared(url) => redis::run(url, options, talk, stopped).await,
        Place::Throwaway => {
            let server = Throwaway::start().await?;
            let measured = redis::run(server.url(), options, talk, stopped).await;
            server.stop().await;
            measured
        }
    }
}

async fn embedded(options: &Options, data: Data<'_>, talk: &Talk<'_>) -> anyhow::Result<Report> {
    let durability = "WAL, synchronous=FULL: every commit is flushed";
    let mut report = Report::new(Settings::new(options, "sqlite", durability.to_owned()));
    if options.only.iter().any(|measure| !matches!(measure, Measure::Push | Measure::Gates | Measure::Locks))
    {
        over_http(options, data, talk, &mut report).await?;
    }
    if options.has(Measure::Gates) {
        let scratch = tempfile::tempdir().context("cannot make a temporary directory")?;
        let places = ["off", "on1", "with", "without"].map(|name| (name, scratch.path().join(name)));
        let place = |name: &str| {
            let found = places.iter().find(|(known, _)| *known == name);
            Data::Directory(found.map_or(scratch.path(), |(_, path)| path))
        };
        report.gates = Some(gates::measure(place, &[1], options, talk).await.context("measuring gates")?);
    }
    if options.has(Measure::Locks) {
        report.locks = Some(locks::measure(data, None, options, talk).await.context("measuring locks")?);
    }
    if let Some(broker) = options.broker() {
        report.push = Some(push::measure(broker, data, options, talk).await.context("measuring push")?);
    }
    Ok(report)
}

/// What needs nothing but a coordinator.
async fn over_http(
    options: &Options,
    data: Data<'_>,
    talk: &Talk<'_>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let targets = Targets::start(data, 1, options.threads).await?;
    let clients = targets.clients();
    if options.has(Measure::Cycles) {
        talk.step("full cycles: enqueue, claim, retry, claim, succeed");
        let cycles = cycles::measure(clients, options).await.context("measuring cycles")?;
        report.cycles_per_s = Some(cycles.per_second());
    }
    if options.has(Measure::Lateness) {
        talk.step("lateness at 200 due tasks a second");
        let late = lateness::steady(clients, options).await.context("measuring lateness")?;
        report.lateness_ms = Some(Percentiles::of(&late));
    }
    if options.has(Measure::Storm) {
        talk.step("a storm: tasks due at one instant");
        let storm = lateness::storm(clients, options).await.context("measuring the storm")?;
        report.storm_ms = Some(storm.drained_ms);
    }
    if options.has(Measure::Idle) {
        talk.step("idle, with parked tasks and waiting workers");
        report.idle_cpu_percent = idle::measure(&targets, options).await.context("measuring idle cost")?;
    }
    targets.stop().await;
    Ok(())
}
