//! `redrive`: the command line of Redrive. Data goes to stdout, talk to stderr.
//!
//! A command is a file in `commands/` with `Args` and `run`, and one line in the list of `commands/mod.rs`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

mod actor;
mod arguments;
mod attempt;
mod batch;
mod bench;
mod child;
mod cli;
mod commands;
mod config;
mod context;
mod demo;
mod failure;
mod json;
mod lines;
mod logging;
mod output;
mod patience;
mod queue_file;
mod signals;
pub mod upstream;
mod waiting;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return failure::usage(&error),
    };
    let context = context::Context::new(cli.global);
    let done = run(cli.command, &context);
    failure::report(done, context.output)
}

fn run(command: commands::Command, context: &context::Context) -> anyhow::Result<()> {
    logging::start(&context.global, command.log_level())?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = command.threads() {
        runtime.worker_threads(threads);
    }
    let runtime = runtime.enable_all().build()?;
    let done = runtime.block_on(context.impatience.run_until_cancelled(command.run(context)));
    // A thread that still reads stdin must not hold up the end.
    runtime.shutdown_timeout(Duration::from_millis(100));
    done.unwrap_or_else(|| Err(failure::Impatient.into()))
}
