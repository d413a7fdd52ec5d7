//! `redrive queues export`: the file of what is in force.

use redrive_shared::id::Name;
use redrive_shared::wire::QueueView;
use redrive_worker::client::Client;
use serde_json::json;

use crate::context::Context;
use crate::queue_file;

const AFTER_HELP: &str = "\
`redrive queues apply` reads it back, and finds nothing to change.

Examples:
  redrive queues export > queues.toml
  redrive queues export reports payments";

/// Print the policies in force as a file for `apply`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Only these queues; all when none is named.
    #[arg(value_name = "NAME")]
    names: Vec<Name>,
}

pub async fn run(args: Args, client: &Client, context: &Context) -> anyhow::Result<()> {
    let queues: Vec<QueueView> = if args.names.is_empty() {
        client.queues().await?.queues
    } else {
        let mut queues = Vec::new();
        for name in &args.names {
            queues.push(client.queue(name).await?);
        }
        queues.sort_by(|one, other| one.name.cmp(&other.name));
        queues.dedup_by(|one, other| one.name == other.name);
        queues
    };
    let text = queue_file::write(&queues)?;
    if context.output.json {
        return context.output.value(&json!({ "file": text }));
    }
    Ok(context.output.line(text.trim_end())?)
}
