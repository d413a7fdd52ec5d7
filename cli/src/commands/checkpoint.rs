//! `redrive checkpoint`: saves how far a handler's task came.

use std::io::{self, IsTerminal as _, Read as _};

use redrive_shared::id::Name;
use serde_json::json;

use crate::attempt::{self, STATE_MAX_BYTES};
use crate::context::Context;
use crate::failure::Usage;

const LONG_ABOUT: &str = "\
Say that a step of a handler's task is done, or how far it came. The state, any JSON, comes on stdin; it may be empty.

When it ends with 0, the state is durable and comes with the task's next attempt. While the coordinator is away it waits. Who has
the lease no more saves nothing: the handler is being stopped then.";

const AFTER_HELP: &str = "\
Exit codes: 0 saved, 1 not saved, 2 the command line is wrong, or this is no handler.

Examples:
  redrive checkpoint fetch < page.json
  echo '{\"row\": 1200}' | redrive checkpoint import --progress
  redrive checkpoint plan --pending fetch,summarise,mail < /dev/null";

/// In a handler: save that a step is done, or how far it came.
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT, after_help = AFTER_HELP)]
pub struct Args {
    /// The step.
    #[arg(value_name = "NAME")]
    step: Name,
    /// It is not done: this is how far it came.
    #[arg(long)]
    progress: bool,
    /// The steps that are still to come, for people who look at the task.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pending: Option<Vec<Name>>,
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let attempt = attempt::context()?;
    if io::stdin().is_terminal() {
        return Err(Usage::new("the state comes on stdin; write `< FILE`, or `< /dev/null` for none").into());
    }
    let mut state = Vec::new();
    io::stdin().lock().take(STATE_MAX_BYTES + 1).read_to_end(&mut state)?;
    anyhow::ensure!(
        state.len() as u64 <= STATE_MAX_BYTES,
        "the state was not saved: it has more than {STATE_MAX_BYTES} bytes; keep it elsewhere, and save where it is"
    );
    let saved = attempt.save(&args.step, !args.progress, args.pending.as_deref(), state).await?;
    if context.output.json {
        return context.output.value(&json!({ "step": args.step, "seq": saved.seq }));
    }
    Ok(())
}
