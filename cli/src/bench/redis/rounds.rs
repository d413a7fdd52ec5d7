//! Ceiling, store and service in turn, several times in one run: what else the machine does hits all three alike, and the
//! median of each is what counts.

use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use super::server::Server;
use super::straight::{self, Straight};
use super::{Names, ceiling};
use crate::bench::cycles::{self, Cycles};
use crate::bench::median::median;
use crate::bench::talk::Talk;
use crate::bench::target::Targets;
use crate::bench::{Options, cpu};

/// Of each of the three.
const ROUNDS: usize = 5;

/// Full cycles three ways.
#[derive(Debug, Clone, Serialize)]
pub struct Layers {
    /// Plain batched commands, and nothing else.
    pub ceiling: Layer,
    /// The store, driven in this process.
    pub store: Layer,
    /// The coordinators' API.
    pub service: Layer,
    /// Store to ceiling, cycles a second.
    pub store_to_ceiling: f64,
    /// Service to ceiling, cycles a second.
    pub service_to_ceiling: f64,
    /// Rounds of each; the figures are medians.
    pub rounds: usize,
    /// Coordinators that the service's callers were spread over.
    pub coordinators: usize,
}

/// Medians of one of them. Processor time is in µs a cycle.
#[derive(Debug, Clone, Serialize)]
pub struct Layer {
    /// Full cycles a second.
    pub per_s: f64,
    /// Of the server's main thread.
    pub redis_us: f64,
    /// Of this process: the load, and in `store` the store as well.
    pub load_us: Option<f64>,
    /// Of all coordinators.
    pub coordinator_us: Option<f64>,
}

/// Processor time used so far.
struct Used {
    redis: Duration,
    load: Option<Duration>,
    coordinators: Option<Duration>,
}

impl Used {
    async fn now(server: &Server, targets: Option<&Targets>) -> anyhow::Result<Self> {
        let load = cpu::of_process(std::process::id());
        Ok(Self { redis: server.cpu_time().await?, load, coordinators: targets.and_then(Targets::cpu_time) })
    }
}

struct Round {
    cycles: Cycles,
    before: Used,
    after: Used,
}

impl Round {
    /// Processor time in µs a cycle.
    fn each(&self, of: impl Fn(&Used) -> Option<Duration>) -> Option<f64> {
        let used = of(&self.after)?.saturating_sub(of(&self.before)?);
        Some(used.as_secs_f64() * 1e6 / self.cycles.tasks as f64)
    }
}

impl Layer {
    fn of(rounds: &[Round]) -> Self {
        let all = |figure: &dyn Fn(&Round) -> Option<f64>| median(rounds.iter().filter_map(figure).collect());
        Self {
            per_s: all(&|round| Some(round.cycles.per_second())).unwrap_or(f64::NAN),
            redis_us: all(&|round| round.each(|used| Some(used.redis))).unwrap_or(f64::NAN),
            load_us: all(&|round| round.each(|used| used.load)),
            coordinator_us: all(&|round| round.each(|used| used.coordinators)),
        }
    }
}

pub(super) async fn measure(
    server: &Server,
    straight: &Straight,
    targets: &Targets,
    names: &Names,
    options: &Options,
    talk: &Talk<'_>,
) -> anyhow::Result<Layers> {
    let (mut ceilings, mut stores, mut services) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        talk.step(&format!("full cycles, round {round} of {ROUNDS}: plain commands"));
        let before = Used::now(server, None).await?;
        let cycles = ceiling::measure(server, &names.ceiling(), options).await.context("plain commands")?;
        ceilings.push(Round { cycles, before, after: Used::now(server, None).await? });

        talk.step(&format!("full cycles, round {round} of {ROUNDS}: the store"));
        let before = Used::now(server, None).await?;
        let cycles = straight::measure(straight, options).await.context("the store")?;
        stores.push(Round { cycles, before, after: Used::now(server, None).await? });

        talk.step(&format!("full cycles, round {round} of {ROUNDS}: the service"));
        let before = Used::now(server, Some(targets)).await?;
        let cycles = cycles::measure(targets.clients(), options).await.context("the service")?;
        services.push(Round { cycles, before, after: Used::now(server, Some(targets)).await? });
    }
    let (ceiling, store, service) = (Layer::of(&ceilings), Layer::of(&stores), Layer::of(&services));
    Ok(Layers {
        store_to_ceiling: store.per_s / ceiling.per_s,
        service_to_ceiling: service.per_s / ceiling.per_s,
        ceiling,
        store,
        service,
        rounds: ROUNDS,
        coordinators: targets.clients().len(),
    })
}
