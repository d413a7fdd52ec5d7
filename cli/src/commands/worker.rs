//! `redrive worker`: runs tasks for one agent.

use redrive_shared::id::Name;
use redrive_shared::limits::BATCH_MAX_ITEMS;
use redrive_worker::{Summary, WorkerConfig};
use serde_json::json;
use toml::{Table, Value};

use crate::context::Context;
use crate::failure::Usage;

const AFTER_HELP: &str = "\
A command gets the task as JSON on stdin and says how it ended with its exit code and JSON on stdout; an address gets it
as a POST with an Idempotency-Key, and answers with its status. docs/handlers.md has both in full.
On SIGTERM or Ctrl-C it takes no more work, lets running tasks end, hands back the rest, and exits 0.

Examples:
  redrive worker --agent researcher --queues reports,mails --concurrency 8 --exec './handle.sh'
  redrive worker --queues letters --link amqp://127.0.0.1 --exec './handle.sh'
  redrive worker --agent planner --http http://127.0.0.1:8000/run --url http://127.0.0.1:9000
  REDRIVE__WORKER__DRAIN_MS=60000 redrive worker --config worker.toml";

/// Run the tasks of queues through a command or an HTTP endpoint.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Who this worker is; unique in the fleet [default: host name and process id].
    #[arg(long, value_name = "NAME")]
    agent: Option<Name>,
    /// The queues to take work from [default: default].
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    queues: Vec<Name>,
    /// Tasks run at once [default: 4].
    #[arg(long, value_name = "N", allow_negative_numbers = true,
          value_parser = clap::value_parser!(u32).range(1..=BATCH_MAX_ITEMS as i64))]
    concurrency: Option<u32>,
    /// A shell command that runs each task.
    #[arg(long, value_name = "COMMAND", conflicts_with = "http")]
    exec: Option<String>,
    /// An address that each task is posted to.
    #[arg(long, value_name = "URL")]
    http: Option<String>,
    /// Take work from RabbitMQ, at amqp://[USER:PASSWORD@]HOST[,HOST…][/VHOST], instead of asking the coordinator for it.
    #[arg(long, value_name = "URL", hide_env_values = true)]
    link: Option<String>,
}

impl Args {
    fn flags(&self, url: Option<&str>) -> Table {
        let names = |names: &[Name]| names.iter().map(|name| Value::String(name.to_string())).collect();
        let text = |text: &str| Value::String(text.to_owned());
        let given = [
            ("url", url.map(text)),
            ("agent", self.agent.as_deref().map(text)),
            ("queues", (!self.queues.is_empty()).then(|| Value::Array(names(&self.queues)))),
            ("concurrency", self.concurrency.map(|n| Value::Integer(n.into()))),
            ("exec", self.exec.as_deref().map(text)),
            ("http", self.http.as_deref().map(text)),
            ("link", self.link.as_deref().map(text)),
        ];
        let section = given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
        Table::from_iter([("worker".to_owned(), Value::Table(section))])
    }

    /// One handler on the command line replaces another in the file.
    fn prefer_own_handler(&self, config: &mut WorkerConfig) {
        if self.exec.is_some() {
            config.http = None;
        }
        if self.http.is_some() {
            config.exec = None;
        }
    }
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let mut config = context.config(args.flags(context.global.url.as_deref()))?.worker;
    args.prefer_own_handler(&mut config);
    config.validate().map_err(|error| Usage::new(error.to_string()))?;
    let handler =
        config.handler().map_err(|error| Usage::new(format!("{error}; as flags: --exec, --http")))?;
    let shutdown = crate::signals::shutdown(&context.impatience)?;
    let link = config.connect(&shutdown)?;
    let (output, agent) = (context.output, config.agent.clone());
    if !output.json {
        let queues: Vec<&str> = config.queues.iter().map(|queue| queue.as_str()).collect();
        let places = config.concurrency;
        let (queues, url) = (queues.join(", "), &config.url);
        output.say(format!("redrive worker {agent}: up to {places} tasks at once from {queues} at {url}"));
    }
    let summary = redrive_worker::run(config, handler, link, shutdown).await?;
    if output.json {
        return output.value(&machine_summary(&agent, &summary));
    }
    output.say(format!("redrive worker {agent} has stopped: {}", human_summary(&summary)));
    Ok(())
}

fn parts(summary: &Summary) -> [(&'static str, u64); 9] {
    [
        ("claimed", summary.claimed),
        ("done", summary.done),
        ("retried", summary.retried),
        ("snoozed", summary.snoozed),
        ("dead", summary.dead),
        ("escalated", summary.escalated),
        ("released", summary.released),
        ("stopped", summary.stopped),
        ("unsettled", summary.unsettled),
    ]
}

fn machine_summary(agent: &Name, summary: &Summary) -> serde_json::Value {
    let mut object = json!({ "agent": agent });
    for (name, count) in parts(summary) {
        object[name] = json!(count);
    }
    object
}

fn human_summary(summary: &Summary) -> String {
    let shown = parts(summary).into_iter().filter(|(name, count)| *count > 0 || *name == "claimed");
    shown.map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> Args {
        Args { agent: None, queues: Vec::new(), concurrency: None, exec: None, http: None, link: None }
    }

    #[test]
    fn only_flags_that_were_given_set_keys() {
        assert_eq!(args().flags(None).to_string().trim(), "[worker]");
        let some = Args { queues: vec![Name::new("a").unwrap()], exec: Some("cat".into()), ..args() };
        assert_eq!(
            some.flags(Some("http://h:1")).to_string().trim(),
            "[worker]\nexec = \"cat\"\nqueues = [\"a\"]\nurl = \"http://h:1\""
        );
    }

    #[test]
    fn a_handler_on_the_command_line_replaces_that_of_the_file() {
        let mut config = WorkerConfig { http: Some("http://h:1".into()), ..WorkerConfig::default() };
        config.exec = Some("cat".into());
        Args { exec: Some("cat".into()), ..args() }.prefer_own_handler(&mut config);
        assert!(config.handler().is_ok() && config.http.is_none());
    }

    #[test]
    fn the_summary_leaves_out_what_did_not_happen() {
        assert_eq!(human_summary(&Summary::default()), "0 claimed");
        let summary = Summary { claimed: 3, done: 2, released: 1, ..Summary::default() };
        assert_eq!(human_summary(&summary), "3 claimed, 2 done, 1 released");
    }
}
