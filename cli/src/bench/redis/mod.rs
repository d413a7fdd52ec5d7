//! The benchmark on a shared store: what the service does, what the store alone does, what the same Redis does at best, and
//! what parked tasks cost.
//!
//! Everything that it writes is under prefixes of its own, chosen by chance, and is deleted at the end, also when it is
//! interrupted.

mod ceiling;
mod claims;
mod memory;
mod rounds;
mod server;
mod straight;
mod throwaway;

use anyhow::{Context, bail};
use rand::RngExt;
use redrive_coordinator::store::redis::address::{Address, Kind};

pub use claims::Claims;
pub use memory::Memory;
pub use rounds::{Layer, Layers};
use server::Server;
use straight::Straight;
pub(super) use throwaway::Throwaway;

use super::report::{Percentiles, Report, Settings, Spread};
use super::talk::Talk;
use super::target::{Data, Targets};
use super::{Measure, Options, gates, idle, lateness, locks, push};

/// Parked tasks are due in a day.
const PARKED_DELAY_MS: u64 = 24 * 60 * 60 * 1_000;
/// The fewest that claims are measured with.
const SMALL_PARKED: usize = 10_000;
/// Coordinators that lateness and the storm are measured with, in turn.
const COORDINATORS: [usize; 2] = [1, 3];

/// Looks for keys to delete, at most.
const CLEAN_MAX: usize = 5;

/// Where the benchmark's keys are.
struct Names {
    url: String,
    address: Address,
    /// What they all begin with.
    stem: String,
}

impl Names {
    fn new(url: &str) -> anyhow::Result<Self> {
        let address: Address = url.parse()?;
        if address.kind == Kind::Cluster {
            bail!(
                "the benchmark compares with one server's plain commands: give it redis:// or redis+sentinel://, not a \
                 cluster"
            );
        }
        // With the letter behind it as long as `redrive`, the default prefix: keys are as long as in real use.
        let number = rand::rng().random_range(0..0x10_0000);
        Ok(Self { url: url.to_owned(), address, stem: format!("b{number:05x}") })
    }

    fn ceiling(&self) -> String {
        format!("{}c", self.stem)
    }

    fn straight(&self) -> String {
        format!("{}s", self.stem)
    }

    fn service(&self) -> String {
        format!("{}a", self.stem)
    }

    fn plain(&self) -> String {
        format!("{}p", self.stem)
    }

    fn push(&self) -> String {
        format!("{}q", self.stem)
    }

    fn gates(&self, name: &str) -> String {
        format!("{}g{name}", self.stem)
    }

    fn locks(&self) -> String {
        format!("{}k", self.stem)
    }

    fn locks_bare(&self) -> String {
        format!("{}n", self.stem)
    }

    fn parked(&self) -> String {
        format!("{}m", self.stem)
    }

    fn claims(&self) -> String {
        format!("{}l", self.stem)
    }
}

/// Measures, and deletes what it wrote, whatever comes of it.
pub(super) async fn run(
    url: &str,
    options: &Options,
    talk: &Talk<'_>,
    stopped: impl Future<Output = ()>,
) -> anyhow::Result<Report> {
    let names = Names::new(url)?;
    let server = Server::open(&names.address).await?;
    if server.has(&names.stem).await? {
        bail!("there are keys that begin with {}, which are not this benchmark's; run it again", names.stem);
    }
    let description = server.describe().await?;
    talk.note(&format!(
        "{description}, at {}; the load, the coordinators and, if it is here, Redis share this machine",
        names.address.hosts()
    ));
    let measured = tokio::select! {
        measured = measure(&server, &names, description, options, talk) => measured,
        () = stopped => Err(anyhow::anyhow!("it was stopped before the end")),
    };
    talk.step("deleting the benchmark's keys");
    clean(&server, &names).await.context("deleting the benchmark's keys")?;
    measured
}

async fn clean(server: &Server, names: &Names) -> anyhow::Result<()> {
    // What a coordinator had sent before it was ended may be written during the first look.
    for _ in 0..CLEAN_MAX {
        server.remove(&names.stem).await?;
        if !server.has(&names.stem).await? {
            return Ok(());
        }
    }
    bail!("keys that begin with {} come back; delete them by hand", names.stem)
}

async fn measure(
    server: &Server,
    names: &Names,
    description: String,
    options: &Options,
    talk: &Talk<'_>,
) -> anyhow::Result<Report> {
    let mut report = Report::new(Settings::new(options, "redis", description));
    if options.has(Measure::Cycles) {
        report.layers(layers(server, names, options, talk).await.context("measuring cycles")?);
    }
    if options.has(Measure::Lateness) || options.has(Measure::Storm) {
        for coordinators in COORDINATORS {
            let spread = spread(names, coordinators, options, talk).await?;
            report.spread(spread);
        }
    }
    if options.has(Measure::Idle) {
        talk.step("idle, with parked tasks and waiting workers");
        let targets = start(names, 1, options).await?;
        report.idle_cpu_percent = idle::measure(&targets, options).await.context("measuring idle cost")?;
        targets.stop().await;
    }
    if let Some(broker) = options.broker() {
        let data = Data::Shared { url: &names.url, prefix: &names.push() };
        report.push = Some(push::measure(broker, data, options, talk).await.context("measuring push")?);
    }
    if options.has(Measure::Gates) {
        // One after the other, and each with keys of its own.
        let places = ["off", "on1", "on3", "with", "without"].map(|name| (name, names.gates(name)));
        let place = |name: &str| {
            let prefix =
                places.iter().find(|(known, _)| *known == name).map_or(&names.stem, |(_, prefix)| prefix);
            Data::Shared { url: &names.url, prefix }
        };
        let measured = gates::measure(place, &COORDINATORS, options, talk).await;
        report.gates = Some(measured.context("measuring gates")?);
    }
    if options.has(Measure::Locks) {
        let bare = locks::Bare::new(server.connection(), names.locks_bare());
        let data = Data::Shared { url: &names.url, prefix: &names.locks() };
        let measured = locks::measure(data, Some(&bare), options, talk).await;
        report.locks = Some(measured.context("measuring locks")?);
    }
    if options.has(Measure::Memory) || options.has(Measure::Claims) {
        // What the others left would be in the same tables.
        server.remove(&names.stem).await?;
    }
    if options.has(Measure::Memory) {
        report.memory =
            Some(memory::measure(server, names, options, talk).await.context("measuring memory")?);
    }
    if options.has(Measure::Claims) {
        report.claims =
            Some(claims::measure(server, names, options, talk).await.context("measuring claims")?);
    }
    Ok(report)
}

async fn start(names: &Names, coordinators: usize, options: &Options) -> anyhow::Result<Targets> {
    let data = Data::Shared { url: &names.url, prefix: &names.service() };
    Targets::start(data, coordinators, options.threads).await
}

async fn layers(
    server: &Server,
    names: &Names,
    options: &Options,
    talk: &Talk<'_>,
) -> anyhow::Result<Layers> {
    let straight = Straight::open(&names.address, &names.straight(), options.payload_bytes).await?;
    let targets = start(names, options.coordinators, options).await?;
    let measured = rounds::measure(server, &straight, &targets, names, options, talk).await;
    targets.stop().await;
    measured
}

async fn spread(
    names: &Names,
    coordinators: usize,
    options: &Options,
    talk: &Talk<'_>,
) -> anyhow::Result<Spread> {
    let targets = start(names, coordinators, options).await?;
    let mut spread = Spread { coordinators, lateness_ms: None, storm_ms: None };
    if options.has(Measure::Lateness) {
        talk.step(&format!("lateness at 200 due tasks a second, coordinators: {coordinators}"));
        let late = lateness::steady(targets.clients(), options).await.context("measuring lateness")?;
        spread.lateness_ms = Some(Percentiles::of(&late));
    }
    if options.has(Measure::Storm) {
        talk.step(&format!("a storm: tasks due at one instant, coordinators: {coordinators}"));
        let storm = lateness::storm(targets.clients(), options).await.context("measuring the storm")?;
        spread.storm_ms = Some(storm.drained_ms);
    }
    targets.stop().await;
    Ok(spread)
}
