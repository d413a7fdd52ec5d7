//! `redrive config`: which keys there are, and which values hold.

use crate::config::{DEFAULTS, merged, redacted};
use crate::context::Context;

const AFTER_HELP: &str = "\
Layers, the last one that speaks wins: these defaults, --config FILE, environment variables (two underscores:
REDRIVE__COORDINATOR__LISTEN), flags. Unknown keys are refused, with a suggestion.

Examples:
  redrive config > redrive.toml               A file to start from
  redrive config --effective --config redrive.toml
  REDRIVE__COORDINATOR__IN_MEMORY=true redrive config --effective --json | jq .coordinator";

/// Print the configuration: every key with its documentation and default, or the values that hold.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Print the values that hold here, from all layers; secrets are not shown.
    #[arg(long)]
    effective: bool,
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let output = &context.output;
    if !args.effective {
        if output.json {
            return output.value(&DEFAULTS.parse::<toml::Table>()?);
        }
        return Ok(output.line(DEFAULTS.trim_end())?);
    }
    let merged = merged(context.global.config.as_deref(), toml::Table::new())?;
    // Read it too, so that a value that no command would take is refused here as well.
    merged.read::<crate::config::Config>()?;
    let table = redacted(merged.table());
    if output.json { output.value(&table) } else { Ok(output.line(toml::to_string(&table)?.trim_end())?) }
}
