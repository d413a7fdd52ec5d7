//! `redrive doctor`: can the store be trusted with tasks?

use std::collections::BTreeSet;

use anyhow::Context as _;
use comfy_table::Color;
use redrive_coordinator::store::doctor::{Finding, Report, Verdict};
use redrive_coordinator::store::{redis, sqlite};
use redrive_coordinator::{amqp, blobs};
use serde_json::json;
use toml::{Table, Value};

use super::amqp_args::AmqpArgs;
use super::store_args::StoreArgs;
use crate::context::Context;
use crate::failure::{AlreadyReported, Usage};
use crate::output::{Entry, Output, Rows};

const LONG_ABOUT: &str = "\
Check whether the store can be trusted with tasks.

On Redis: version, eviction, persistence, replication, cluster, memory, connections, latency, clocks, TLS, and whether its
user may do everything that the store does (tried under the prefix, and removed). On the embedded store: the directory,
its disk, the lock, the tables. It changes nothing, and a coordinator that runs meanwhile is not disturbed. A coordinator
makes the same checks of a Redis when it starts.

Of where blobs are kept: whether it answers and is durable.

Of RabbitMQ, where one is configured: version, connection, permissions, alarms, queues that are otherwise than needed, the
binding for new tasks, consumers of what is pushed.

Verdicts: ok; warning (works, with the risk that is named); refused (would lose tasks, or cannot work: a coordinator does
not start unless told --allow-unsafe); skipped (the server does not tell: what to check by hand).";

const AFTER_HELP: &str = "\
Exit codes: 0 nothing is refused, 1 something is, 2 the command line or the configuration is wrong.

Examples:
  redrive doctor --store redis://127.0.0.1:6379
  redrive doctor --store redis+cluster://10.0.0.1,10.0.0.2,10.0.0.3 --wait-replicas 1
  redrive doctor --data-dir /var/lib/redrive
  redrive doctor --amqp amqp://127.0.0.1 --push letters
  redrive doctor --config /etc/redrive.toml --json | jq '.findings[] | select(.verdict == \"refused\")'";

/// Check whether the store can be trusted with tasks.
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT, after_help = AFTER_HELP)]
pub struct Args {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    amqp: AmqpArgs,
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let mut section = Table::new();
    args.store.write(&mut section);
    args.amqp.write(&mut section);
    let flags = Table::from_iter([("coordinator".to_owned(), Value::Table(section))]);
    let config = context.config(flags)?.coordinator;
    let blobs_at = config.blobs_at();
    let (name, report) = if let Some(shared) = config.store.redis() {
        (shared.address.to_string(), redis::doctor::examine(&shared).await)
    } else if config.in_memory {
        return Err(Usage::new(
            "in memory nothing is kept, so there is nothing to check; name a --store or --data-dir",
        )
        .into());
    } else {
        let (name, data_dir) = (config.data_dir.display().to_string(), config.data_dir);
        let examining = tokio::task::spawn_blocking(move || sqlite::doctor::examine(&data_dir));
        (name, examining.await.context("the examination ended early")?)
    };
    let broker = config.amqp.url.as_ref().map(ToString::to_string);
    let broker = match broker {
        Some(broker) => Some((broker, amqp::doctor::examine(&config.amqp).await)),
        None => None,
    };
    let storage = match blobs_at {
        Some(address) => Some((address.to_string(), blobs::doctor::examine(&address).await)),
        None => None,
    };
    let others = broker.iter().chain(&storage).map(|(_, report)| report.verdict());
    let verdict = others.fold(report.verdict(), Verdict::max);
    if context.output.json {
        let mut value = json!({ "store": name, "verdict": verdict, "findings": report.findings() });
        if let Some((broker, report)) = &broker {
            value["amqp"] = json!({ "at": broker, "findings": report.findings() });
        }
        if let Some((storage, report)) = &storage {
            value["blobs"] = json!({ "at": storage, "findings": report.findings() });
        }
        context.output.value(&value)?;
    } else {
        print(context.output, &name, &report)?;
        for (name, report) in broker.iter().chain(&storage) {
            context.output.line("")?;
            print(context.output, name, report)?;
        }
    }
    match verdict {
        Verdict::Refused => Err(AlreadyReported.into()),
        Verdict::Ok | Verdict::Skipped | Verdict::Warning => Ok(()),
    }
}

fn print(output: Output, name: &str, report: &Report) -> anyhow::Result<()> {
    output.line(format!("{}\n", output.strong(name)))?;
    let mut rows = Rows::new(["CHECK", "VERDICT", "FOUND"]);
    let servers: BTreeSet<&String> = report.findings().iter().flat_map(|finding| &finding.at).collect();
    for finding in report.findings() {
        // Where, if not everywhere.
        let some = !finding.at.is_empty() && finding.at.len() < servers.len();
        let place = if some { format!("{}: ", finding.at.join(", ")) } else { String::new() };
        rows.push([
            finding.check.into(),
            verdict(finding.verdict),
            format!("{place}{}", finding.found).into(),
        ]);
    }
    output.table(rows)?;
    let mut headed = false;
    for finding in report.findings() {
        let Some(remedy) = &finding.remedy else { continue };
        if !headed {
            output.line(format!("\n{}", output.strong("What to do")))?;
            headed = true;
        }
        output.line(format!("  {}: {remedy}", subject(finding)))?;
    }
    let refused = report.refused().count();
    output.line(match report.verdict() {
        Verdict::Refused => {
            format!("\n{refused} refused: a coordinator does not start on it unless told --allow-unsafe.")
        }
        Verdict::Warning => "\nNothing is refused.".to_owned(),
        Verdict::Ok | Verdict::Skipped => "\nAll is well.".to_owned(),
    })?;
    Ok(())
}

/// The check, and where, if not everywhere.
fn subject(finding: &Finding) -> String {
    match finding.at.as_slice() {
        [] => finding.check.to_owned(),
        places => format!("{} ({})", finding.check, places.join(", ")),
    }
}

fn verdict(verdict: Verdict) -> Entry {
    let colour = match verdict {
        Verdict::Ok => Color::Green,
        Verdict::Skipped => Color::DarkGrey,
        Verdict::Warning => Color::Yellow,
        Verdict::Refused => Color::Red,
    };
    Entry::coloured(verdict.as_str(), colour)
}
