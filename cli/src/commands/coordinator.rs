//! `redrive coordinator`: the process that owns the truth.

use std::net::SocketAddr;

use anyhow::Context as _;
use redrive_coordinator::CoordinatorError;
use serde_json::json;
use tokio::sync::oneshot;
use toml::{Table, Value};

use super::amqp_args::AmqpArgs;
use super::store_args::StoreArgs;
use crate::context::Context;
use crate::failure::Usage;
use crate::output::Output;

const AFTER_HELP: &str = "\
Ends in good order on SIGTERM or Ctrl-C; a second one ends it at once. With --json, one line on stdout says where it
listens.

Examples:
  redrive coordinator
  redrive coordinator --listen 127.0.0.1:0 --data-dir /var/lib/redrive --create-queues
  redrive coordinator --store redis://127.0.0.1:6379
  redrive coordinator --store redis+cluster://10.0.0.1,10.0.0.2,10.0.0.3 --wait-replicas 1
  redrive coordinator --amqp amqp://127.0.0.1 --push reports,letters=100
  redrive coordinator --config /etc/redrive.toml
  REDRIVE__COORDINATOR__LISTEN=127.0.0.1:9000 redrive coordinator --in-memory";

/// More than any machine has a use for.
const THREADS_MAX: i64 = 256;

/// Run a coordinator, on the embedded store or on a shared one.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Where the API listens; port 0 takes a free one [default: 127.0.0.1:7878].
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Make queues that are named and do not exist, with the default policy.
    #[arg(long)]
    create_queues: bool,
    /// Start although the shared store would lose tasks; `redrive doctor` says how.
    #[arg(long)]
    allow_unsafe: bool,
    /// Threads that serve [default: as many as there are processors]. Beside a Redis on two processors, one is best.
    #[arg(long, value_name = "N", env = "REDRIVE_COORDINATOR_THREADS", value_parser = clap::value_parser!(u16).range(1..=THREADS_MAX))]
    threads: Option<u16>,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    amqp: AmqpArgs,
}

impl Args {
    /// Threads that it serves with, if it is told.
    pub fn threads(&self) -> Option<usize> {
        self.threads.map(usize::from)
    }

    fn flags(&self) -> Table {
        let mut section = Table::new();
        if let Some(listen) = self.listen {
            section.insert("listen".into(), Value::String(listen.to_string()));
        }
        self.store.write(&mut section);
        self.amqp.write(&mut section);
        if self.allow_unsafe {
            StoreArgs::allow_unsafe(&mut section);
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
        CoordinatorError::Unsafe(report) => {
            for finding in report.refused() {
                output.complain("store", finding);
            }
            anyhow::anyhow!(
                "will not start on a store that would lose tasks, or cannot work; to do so all the same, for trying \
                 things: --allow-unsafe, or allow_unsafe = true in [coordinator.store]"
            )
        }
        CoordinatorError::NotLoopback(_) => Usage::new(error.to_string()).into(),
        CoordinatorError::Listen { .. }
        | CoordinatorError::Store(_)
        | CoordinatorError::Blobs(_)
        | CoordinatorError::Amqp(_)
        | CoordinatorError::Defect(_) => error.into(),
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
        let none = Args {
            listen: None,
            create_queues: false,
            allow_unsafe: false,
            threads: None,
            store: StoreArgs::default(),
            amqp: AmqpArgs::default(),
        };
        assert_eq!(none.flags().to_string().trim(), "[coordinator]");
        let store = StoreArgs { data_dir: Some("/data".into()), ..StoreArgs::default() };
        let some = Args { create_queues: true, store, ..none };
        assert_eq!(
            some.flags().to_string().trim(),
            "[coordinator]\ncreate_queues = true\ndata_dir = \"/data\"\nin_memory = false"
        );
        let store = StoreArgs { wait_replicas: Some(1), ..StoreArgs::default() };
        let shared = Args { create_queues: false, allow_unsafe: true, store, ..some };
        let expected = "[coordinator.store]\nallow_unsafe = true\nwait_replicas = 1";
        assert!(shared.flags().to_string().contains(expected), "{}", shared.flags());
    }
}
