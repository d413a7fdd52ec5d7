//! `redrive bench`: what this machine does.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::bench::{Broker, Measure, OUTSTANDING_MAX, Options, Place, Talk, run as measure};
use crate::context::Context;
use crate::failure::Usage;
use crate::output::{Entry, Rows};

const AFTER_HELP: &str = "\
It starts coordinators of its own on free loopback ports, measures over their API, and stops them; about half a minute with
the defaults. Load and coordinators share the machine: compare figures of one run with one another, not with other
machines. With --json, one object on stdout: cycles_per_s, lateness_ms {p50, p99, max}, storm_ms, idle_cpu_percent, settings.

On a shared store, less than two minutes, and more figures: layers {service, store, ceiling}, where `store` is the same
transitions without HTTP and `ceiling` the same Redis given plain batched commands and nothing else, each with the processor
time of a cycle; spread, which is lateness and storm with 1 and 3 coordinators; memory of a parked task, and of a
finished one, whose id is remembered; claims, by tasks parked. Its keys are under prefixes of its own, chosen by chance, and are deleted at the end.

With --amqp, two minutes more, on either store: push {ceiling, dispatch, cycles, latency_ms, …}. `ceiling` is a plain client
of the same RabbitMQ, with messages that look the same; `dispatch` is tasks that are due already, pushed to a consumer that
only acknowledges; `cycles` adds enqueueing over HTTP and outcomes over RabbitMQ; `latency_ms` is from due to consumer. RabbitMQ's
own processor time is in none of them. Its exchanges and queues are under a prefix of their own, and are deleted at the end.

With --only gates, some six minutes: gates {storms, idle}. A storm is 3,000 tasks at once for a server that takes 50 a second
and answers the others 429 with Retry-After, and four workers; without gates, with them, and, on a shared store, with three
coordinators. `idle` is cycles with gates to cycles without, in turn, while everything passes.

With --only locks: locks {free_per_s, handed_on, …}, and on a shared store the same with bare `SET NX PX`.

Examples:
  redrive bench
  redrive bench --json | jq .lateness_ms
  redrive bench --tasks 5000 --seconds 3      A quick look
  redrive bench --data-dir /mnt/fast/bench    On another disk
  redrive bench --store redis://127.0.0.1:6379
  redrive bench --redis --only cycles --coordinators 2
  redrive bench --redis --only memory,claims --memory 1000000
  redrive bench --redis --only gates
  redrive bench --redis --only locks
  redrive bench --redis --amqp amqp://127.0.0.1 --only push";

/// Measure cycles per second, dispatch lateness and idle cost; on Redis also memory and what the layers cost; with RabbitMQ
/// also push.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Tasks that go through the full cycle (enqueue, claim, retry, claim, succeed).
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    tasks: u32,
    /// Tasks in one call.
    #[arg(long, value_name = "N", default_value_t = 250, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    batch: u32,
    /// Producers, and as many workers, calling at once.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    callers: u32,
    /// Bytes of each payload.
    #[arg(long, value_name = "BYTES", default_value_t = 512, value_parser = clap::value_parser!(u32).range(2..=65_536))]
    payload: u32,
    /// Tasks that are due at one instant in the storm.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    storm: u32,
    /// Seconds for which lateness, and then idle cost, is measured.
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=40))]
    seconds: u64,
    /// Where the coordinator keeps its data [default: a temporary directory].
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// Measure on a shared store: redis://HOST or redis+sentinel://HOST,…/SERVICE.
    #[arg(long, value_name = "URL", conflicts_with = "data_dir")]
    store: Option<String>,
    /// The same on a redis-server that is started for the run (from PATH) and stopped after it.
    #[arg(long, conflicts_with_all = ["data_dir", "store"])]
    redis: bool,
    /// Coordinators that full cycles are spread over, on a shared store.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    coordinators: u32,
    /// Threads that each of them serves with.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
    /// Tasks parked to measure memory, and what a claim costs beside them.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    memory: u32,
    /// Measure push as well, with the RabbitMQ there: amqp://[USER:PASSWORD@]HOST[,HOST…][/VHOST] or amqps://….
    #[arg(long, value_name = "URL")]
    amqp: Option<String>,
    /// Messages that may be out at once in full cycles by push, and for the plain client that they are compared with.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(OUTSTANDING_MAX)))]
    outstanding: u32,
    /// Only these, separated by commas [default: all that the store has but gates and locks, and push with --amqp].
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_enum)]
    only: Vec<Measure>,
}

impl Args {
    fn options(self) -> Result<Options, Usage> {
        let place = match (self.store, self.redis) {
            (Some(url), _) => Place::Shared(url),
            (None, true) => Place::Throwaway,
            (None, false) => Place::Embedded(self.data_dir),
        };
        let is_embedded = matches!(place, Place::Embedded(_));
        let mut only = self.only;
        if is_embedded && (self.coordinators > 1 || only.iter().any(|measure| measure.needs_redis())) {
            return Err(Usage::new(
                "memory, claims and several coordinators are measured on a shared store: add --store URL or --redis",
            ));
        }
        if self.amqp.is_none() && only.contains(&Measure::Push) {
            return Err(Usage::new("push is measured with a RabbitMQ: add --amqp URL"));
        }
        if only.is_empty() {
            only = Measure::value_variants().to_vec();
            only.retain(|measure| !is_embedded || !measure.needs_redis());
            only.retain(|measure| *measure != Measure::Push || self.amqp.is_some());
            // Several minutes: only where it is asked for.
            only.retain(|measure| !matches!(measure, Measure::Gates | Measure::Locks));
        }
        let amqp = self.amqp.map(|url| Broker::new(&url, self.outstanding)).transpose();
        let amqp = amqp.map_err(|error| Usage::new(format!("--amqp: {error}")))?;
        Ok(Options {
            only,
            place,
            amqp,
            tasks: self.tasks as usize,
            batch: self.batch as usize,
            callers: self.callers as usize,
            coordinators: self.coordinators as usize,
            threads: self.threads,
            payload_bytes: self.payload as usize,
            storm_tasks: self.storm as usize,
            seconds: self.seconds,
            parked: self.memory as usize,
            outstanding: self.outstanding as usize,
        })
    }
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let options = args.options()?;
    let stopped = crate::signals::shutdown(&context.impatience)?;
    let talk = Talk::new(&context.output)?;
    let report = measure(&options, &talk, stopped.cancelled()).await?;
    drop(talk);
    if context.output.json {
        return context.output.value(&report);
    }
    let mut rows = Rows::new(["measure", "value", "with"]);
    for row in report.rows(&options.only) {
        rows.push(row.map(Entry::from));
    }
    context.output.table(rows)?;
    let settings = &report.settings;
    context
        .output
        .say(format!("store: {}, {}; budgets {}", settings.store, settings.durability, settings.budgets));
    Ok(())
}
