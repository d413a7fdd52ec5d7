//! `redrive bench`: what this machine does.

use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::bench::{Options, run as measure};
use crate::context::Context;
use crate::output::{Entry, Rows};

const AFTER_HELP: &str = "\
It starts a coordinator of its own on a free loopback port, measures over its API, and stops it; about half a minute with
the defaults. Load and coordinator share the machine: compare figures of one run with one another, not with other
machines. With --json, one object on stdout: cycles_per_s, lateness_ms {p50, p99, max}, storm_ms, idle_cpu_percent, settings.

Examples:
  redrive bench
  redrive bench --json | jq .lateness_ms
  redrive bench --tasks 5000 --seconds 3      A quick look
  redrive bench --data-dir /mnt/fast/bench    On another disk";

/// Measure cycles per second, dispatch lateness and idle cost.
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
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
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
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let options = Options {
        tasks: args.tasks as usize,
        batch: args.batch as usize,
        callers: args.callers as usize,
        payload_bytes: args.payload as usize,
        storm_tasks: args.storm as usize,
        seconds: args.seconds,
        data_dir: args.data_dir,
    };
    let progress =
        ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {msg}  {elapsed}")?);
    progress.enable_steady_tick(Duration::from_millis(100));
    let report = measure(&options, &progress).await?;
    if context.output.json {
        return context.output.value(&report);
    }
    let mut rows = Rows::new(["measure", "value", "with"]);
    for row in report.rows() {
        rows.push(row.map(Entry::from));
    }
    context.output.table(rows)?;
    let settings = &report.settings;
    context
        .output
        .say(format!("store: {}, {}; budgets {}", settings.store, settings.durability, settings.budgets));
    Ok(())
}
