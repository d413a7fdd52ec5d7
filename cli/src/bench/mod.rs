//! `redrive bench`: what this machine does, measured over the real API of a coordinator in a process of its own.
//!
//! Three measurements, each bounded in tasks and time: full cycles per second, dispatch lateness, and what an idle
//! coordinator costs. Load generator and coordinator share the machine, so figures are comparable within one run only.

mod cycles;
mod fleet;
mod idle;
mod lateness;
mod report;
mod target;

use std::path::PathBuf;

use anyhow::Context;
use indicatif::ProgressBar;

pub use report::Report;
use target::Target;

/// How much to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// Tasks that go through the full cycle.
    pub tasks: usize,
    /// Tasks in one call.
    pub batch: usize,
    /// Producers, and as many workers, calling at once.
    pub callers: usize,
    /// Bytes of each payload.
    pub payload_bytes: usize,
    /// Tasks due at one instant in the storm.
    pub storm_tasks: usize,
    /// Seconds of lateness and idle measurement each.
    pub seconds: u64,
    /// Where the coordinator keeps its data; a temporary directory when left out.
    pub data_dir: Option<PathBuf>,
}

/// Starts a coordinator, measures, stops it.
pub async fn run(options: &Options, progress: &ProgressBar) -> anyhow::Result<Report> {
    let scratch = tempfile::tempdir().context("cannot make a temporary directory")?;
    let data_dir = options.data_dir.clone().unwrap_or_else(|| scratch.path().to_owned());
    let target = Target::start(&data_dir).await?;
    let measured = measure(options, &target, progress).await;
    target.stop().await;
    measured
}

async fn measure(options: &Options, target: &Target, progress: &ProgressBar) -> anyhow::Result<Report> {
    let client = target.client()?;
    progress.set_message("full cycles: enqueue, claim, retry, claim, succeed");
    let cycles = cycles::measure(&client, options).await.context("measuring cycles")?;
    progress.set_message("lateness at 200 due tasks a second");
    let lateness = lateness::steady(&client, options).await.context("measuring lateness")?;
    progress.set_message("a storm: tasks due at one instant");
    let storm = lateness::storm(&client, options).await.context("measuring the storm")?;
    progress.set_message("idle, with parked tasks and waiting workers");
    let idle = idle::measure(&client, target, options).await.context("measuring idle cost")?;
    progress.finish_and_clear();
    Ok(Report::new(options, &cycles, &lateness, &storm, idle))
}
