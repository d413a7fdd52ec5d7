//! The options that every command takes.

use std::path::PathBuf;

use clap::{Args, Parser, ValueEnum};

use crate::commands::Command;

const AFTER_HELP: &str = "\
Exit codes: 0 all went well, 1 something failed, 2 the command line or the configuration is wrong.
Configuration: defaults, then --config FILE, then variables such as REDRIVE__COORDINATOR__LISTEN, then flags.

Examples:
  redrive dev --demo                          See failing work come back, in 20 seconds
  redrive enqueue --queue reports --payload '{\"page\": 7}'
  redrive worker --agent researcher --queues reports --exec './handle.sh'
  redrive tasks list --state dead --json | jq .";

/// The retry queue for fleets of AI agents.
#[derive(Debug, Parser)]
#[command(name = "redrive", version, after_help = AFTER_HELP, arg_required_else_help = true)]
#[command(subcommand_required = true, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// Print JSON for machines, data on stdout and errors on stderr.
    #[arg(long, global = true)]
    pub json: bool,
    /// Address of the coordinator [default: http://127.0.0.1:7878].
    #[arg(long, global = true, env = "REDRIVE_URL", value_name = "URL")]
    pub url: Option<String>,
    /// Configuration file; `redrive config` prints one with every key and its default.
    #[arg(long, global = true, env = "REDRIVE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Log more: once for debug, twice for that of the libraries, three times for everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// How to write the log on stderr.
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value_t)]
    pub log_format: LogFormat,
}

/// How the log looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Pretty,
    /// One JSON object a line.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples() {
        fn check(command: &clap::Command, path: &str) {
            for sub in command.get_subcommands() {
                let path = format!("{path} {}", sub.get_name());
                let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("redrive "), "`{path} --help` has no examples");
                assert!(sub.get_about().is_some(), "`{path}` does not say what it does");
                check(sub, &path);
            }
        }
        check(&Cli::command(), "redrive");
    }
}
