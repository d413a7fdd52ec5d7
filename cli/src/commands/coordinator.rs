//! `redrive coordinator`: the process that owns the truth.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use redrive_coordinator::CoordinatorError;
use serde_json::json;
use tokio::sync::oneshot;
use toml::{Table, Value};

use crate::context::Context;
use crate::failure::Usage;
use crate::output::Output;

const AFTER_HELP: &str = "\
Ends in good order on SIGTERM or Ctrl-C; a second one ends it at once. With --json, one line on stdout says where it
listens.

Examples:
  redrive coordinator
  redrive coordinator --listen 127.0.0.1:0 --data-dir /var/lib/redrive --create-queues
  redrive coordinator --config /etc/redrive.toml
  REDRIVE__COORDINATOR__LISTEN=127.0.0.1:9000 redrive coordinator --in-memory";

/// Run a coordinator on the embedded store.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Where the API listens; port 0 takes a free one [default: 127.0.0.1:7878].
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Where the store keeps its files [default: redrive-data].
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// Keep everything in memory: nothing survives the process.
    #[arg(long, conflicts_with = "data_dir")]
    in_memory: bool,
    /// Make queues that are named and do not exist, with the default policy.
    #[arg(long)]
    create_queues: bool,
}

impl Args {
    fn flags(&self) -> Table {
        let mut section = Table::new();
        if let Some(listen) = self.listen {
            section.insert("listen".into(), Value::String(listen.to_string()));
        }
        if let Some(data_dir) = &self.data_dir {
            section.insert("data_dir".into(), Value::String(data_dir.to_string_lossy().into_owned()));
            section.insert("in_memory".into(), Value::Boolean(false));
        }
        if self.in_memory {
            section.insert("in_memory".into(), Value::Boolean(true));
        }
        if self.create_queues {
            section.insert("create_queues".into(), Value::Boolean(true));
        }
        Table::from_iter([("coordinator".to_owned(), Value::Table(section))])
    }
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let config = context.config(args.flags())?.coordinator;
    let shutdown = crate::signals::shutdown(&context.impatience)?;
    let (ready, listening) = oneshot::channel();
    let output = context.output;
    let announce = tokio::spawn(async move {
        match listening.await {
            Ok(address) => announce(output, address),
            // It failed before it was ready, and says why itself.
            Err(_) => Ok(()),
        }
    });
    let metrics = redrive_coordinator::metrics::install().context("cannot start the metrics recorder")?;
    let ran = redrive_coordinator::run(config, Some(metrics), shutdown, ready).await;
    announce.await??;
    ran.map_err(|error| match error {
        CoordinatorError::NotLoopback(_) => Usage::new(error.to_string()).into(),
        CoordinatorError::Listen { .. } | CoordinatorError::Store(_) | CoordinatorError::Defect(_) => {
            error.into()
        }
    })
}

fn announce(output: Output, address: SocketAddr) -> std::io::Result<()> {
    let url = format!("http://{address}");
    if output.json {
        return output.line(json!({ "url": url }));
    }
    output.say(format!("redrive coordinator: API at {url}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_flags_that_were_given_set_keys() {
        let none = Args { listen: None, data_dir: None, in_memory: false, create_queues: false };
        assert_eq!(none.flags().to_string().trim(), "[coordinator]");
        let some = Args { data_dir: Some("/data".into()), create_queues: true, ..none };
        assert_eq!(
            some.flags().to_string().trim(),
            "[coordinator]\ncreate_queues = true\ndata_dir = \"/data\"\nin_memory = false"
        );
    }
}
