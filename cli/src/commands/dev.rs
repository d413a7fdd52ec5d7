//! `redrive dev`: a queue on this machine in one command, and the demo.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use redrive_coordinator::{CoordinatorConfig, CoordinatorError};
use redrive_worker::client::Client;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::Instant;
use toml::{Table, Value};

use super::amqp_args::AmqpArgs;
use super::store_args::StoreArgs;
use crate::context::Context;
use crate::demo;
use crate::failure::Usage;
use crate::output::Output;

const AFTER_HELP: &str = "\
Without --demo it stays up until Ctrl-C or SIGTERM and makes every queue that is named. Its data lives in
$XDG_DATA_HOME/redrive/dev (or ~/.local/share/redrive/dev) and survives a restart. With --json, one line on stdout says
when it is ready.
With --demo it plays for about 20 seconds in a directory of its own, and exits 0 only if every task is accounted for. With
--amqp as well, the same is pushed to the workers over RabbitMQ, under names of its own that are removed at the end.

Examples:
  redrive dev
  redrive dev --in-memory --listen 127.0.0.1:0
  redrive dev --amqp amqp://127.0.0.1 --push letters
  redrive dev --demo
  redrive dev --demo --store redis://127.0.0.1:6379
  redrive dev --demo --amqp amqp://127.0.0.1
  redrive dev --demo --seed 7 --json | jq .books";

/// How long a stranger on our port may take to show that it is a coordinator.
const NEIGHBOUR_PATIENCE: Duration = Duration::from_secs(1);

/// Run everything on this machine: a queue to try things with, or a demo.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Watch failing work come back: an outage, a crash and an open breaker, in about 20 seconds.
    #[arg(long)]
    pub demo: bool,
    /// Which task of the demo comes when.
    #[arg(long, value_name = "N", requires = "demo", default_value_t = demo::DEFAULT_SEED)]
    seed: u64,
    /// Where the API listens; port 0 takes a free one [default: 127.0.0.1:7878, with --demo a free port].
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    amqp: AmqpArgs,
}

impl Args {
    fn flags(&self) -> Table {
        let mut section = Table::from_iter([("create_queues".to_owned(), Value::Boolean(true))]);
        if let Some(listen) = self.listen {
            section.insert("listen".into(), Value::String(listen.to_string()));
        }
        self.store.write(&mut section);
        self.amqp.write(&mut section);
        Table::from_iter([("coordinator".to_owned(), Value::Table(section))])
    }
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let begun = Instant::now();
    if args.demo && !args.amqp.push.is_empty() {
        return Err(Usage::new("with --demo the demo's own queues are pushed; leave out --push").into());
    }
    let mut config = context.config(args.flags())?.coordinator;
    // For trying things: what a coordinator would refuse is only warned about here.
    config.store.allow_unsafe = true;
    let shutdown = crate::signals::shutdown(&context.impatience)?;
    if args.demo {
        if args.listen.is_none() {
            config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        }
        // Its outage is over within seconds; a gate would rightly stay shut for longer than the whole play.
        config.gates = false;
        let keep = args.store.data_dir.is_some() || config.store.url.is_some();
        let options = demo::Options { seed: args.seed, coordinator: config, keep };
        return demo::run(options, context, shutdown).await.map_err(explained);
    }
    // Whoever has named a directory in a file or a variable gets that one.
    let named = args.store.data_dir.is_some()
        || config.store.url.is_some()
        || config.data_dir != CoordinatorConfig::default().data_dir;
    if !named && !config.in_memory {
        config.data_dir = usual_data_dir()?;
    }
    let (ready, listening) = oneshot::channel();
    let farewell =
        if config.in_memory { "stopped; what was in memory is gone" } else { "stopped; nothing is lost" };
    let (output, told) = (context.output, config.clone());
    let announce = tokio::spawn(async move {
        match listening.await {
            Ok(address) => announce(output, &told, address, begun.elapsed()),
            // It failed before it was ready, and says why itself.
            Err(_) => Ok(()),
        }
    });
    let metrics = redrive_coordinator::metrics::install().context("cannot start the metrics recorder")?;
    let ran = redrive_coordinator::run(config, Some(metrics), shutdown, ready).await;
    announce.await??;
    match ran {
        Ok(()) => {
            if !output.json {
                output.say(farewell);
            }
            Ok(())
        }
        Err(CoordinatorError::Listen { address, source }) if source.kind() == ErrorKind::AddrInUse => {
            Err(taken(address).await)
        }
        Err(error) => Err(explained(error.into())),
    }
}

/// An address that is refused is a matter of the command line.
fn explained(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<CoordinatorError>() {
        Some(CoordinatorError::NotLoopback(_)) => Usage::new(error.to_string()).into(),
        _ => error,
    }
}

/// Says who has the port, if it is one of us, and what to do.
async fn taken(address: SocketAddr) -> anyhow::Error {
    let url = format!("http://{address}");
    let neighbour = match Client::new(&url) {
        Ok(client) => tokio::time::timeout(NEIGHBOUR_PATIENCE, client.ready()).await.unwrap_or(false),
        Err(_) => false,
    };
    let (who, instead) = if neighbour {
        ("a Redrive coordinator is running there already", "use that one, stop it, or ")
    } else {
        ("another program listens there", "")
    };
    anyhow::anyhow!(
        "{address} is taken: {who}; {instead}choose another port: redrive dev --listen 127.0.0.1:0"
    )
}

/// `$XDG_DATA_HOME/redrive/dev`, or `~/.local/share/redrive/dev`.
fn usual_data_dir() -> anyhow::Result<PathBuf> {
    data_dir_of(std::env::var_os("XDG_DATA_HOME").map(PathBuf::from), std::env::home_dir()).ok_or_else(|| {
        Usage::new("there is no home directory to keep the data in; give --data-dir or --in-memory").into()
    })
}

/// The XDG specification takes absolute paths only, and the default for anything else.
fn data_dir_of(xdg: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let base = xdg.filter(|path| path.is_absolute()).or_else(|| {
        let home = home.filter(|path| path.is_absolute())?;
        Some(home.join(".local/share"))
    })?;
    Some(base.join("redrive/dev"))
}

fn announce(
    output: Output,
    config: &CoordinatorConfig,
    address: SocketAddr,
    ready: Duration,
) -> anyhow::Result<()> {
    let url = format!("http://{address}");
    let ready_ms = ready.as_millis();
    if output.json {
        let shared = config.store.url.as_ref().map(ToString::to_string);
        let data_dir = (!config.in_memory && shared.is_none()).then_some(&config.data_dir);
        let amqp = config.amqp.url.as_ref().map(ToString::to_string);
        let ready =
            json!({ "url": url, "data_dir": data_dir, "store": shared, "amqp": amqp, "ready_ms": ready_ms });
        return Ok(output.line(ready)?);
    }
    let data = if let Some(shared) = &config.store.url {
        format!(
            "{shared} (shared: other coordinators may use it too)\n         dev starts on settings that would lose tasks; \
             `{} doctor --store …` says whether these would",
            program()
        )
    } else if config.in_memory {
        "in memory: gone when this stops".to_owned()
    } else {
        format!("{} (durable: survives a restart)", config.data_dir.display())
    };
    let redrive = program();
    let flag = if url == crate::context::DEFAULT_URL { String::new() } else { format!(" --url {url}") };
    let strong = |text: &str| output.strong(text);
    output.line(format!("{} is ready in {ready_ms} ms\n", strong("redrive dev")))?;
    output.line(format!("  API    {url}"))?;
    output.line(format!("  Data   {data}"))?;
    if let Some(rabbit) = pushes(config) {
        output.line(format!("  Push   {rabbit}"))?;
    }
    output.line("")?;
    output.line(strong("Hand it a call that failed, as your code saw it fail:"))?;
    output.line(format!("{}\n", enqueue_line(&url)))?;
    output.line(strong(
        "Let a worker run what is due (the task is JSON on stdin, what is printed is its result):",
    ))?;
    output.line(format!("  {redrive} worker{flag} --agent me --queues chat --exec 'echo hello back'\n"))?;
    output.line(strong("Look:"))?;
    output.line(format!("  {redrive} tasks show call-1{flag}"))?;
    output.line(format!("  {redrive} tasks list{flag}"))?;
    output.line(format!("  curl {url}/metrics"))?;
    output.line(format!("  curl {url}/openapi.json\n"))?;
    output.line("Stop it with Ctrl-C.")?;
    Ok(())
}

/// Where RabbitMQ is, and what is pushed there.
fn pushes(config: &CoordinatorConfig) -> Option<String> {
    let address = config.amqp.url.as_ref()?;
    let queues: Vec<&str> = config.amqp.push.keys().map(|queue| queue.as_str()).collect();
    let pushed = match queues.is_empty() {
        true => "no queue, for none is named with --push".to_owned(),
        false => format!("{}, to workers with --link", queues.join(", ")),
    };
    Some(format!("{address}: {pushed}"))
}

/// How this program was called, for lines to paste: `cargo run` leaves it out of the path.
pub fn program() -> String {
    let called = std::env::args().next().filter(|name| name.contains('/'));
    called.unwrap_or_else(|| "redrive".to_owned())
}

/// A `curl` that can be pasted into any POSIX shell.
fn enqueue_line(url: &str) -> String {
    const TASK: &str = r#"{"tasks": [{"id": "call-1", "queue": "chat", "payload": {"prompt": "hello"},
    "attempts_made": 1, "failure": {"http_status": 429, "headers": {"retry-after": "2"}, "body": "slow down"}}]}"#;
    format!("  curl {url}/v1/tasks -H 'content-type: application/json' -d '{TASK}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> Args {
        Args { demo: false, seed: 1, listen: None, store: StoreArgs::default(), amqp: AmqpArgs::default() }
    }

    #[test]
    fn data_lives_where_the_platform_wants_it() {
        let path = |xdg: Option<&str>, home: Option<&str>| {
            data_dir_of(xdg.map(PathBuf::from), home.map(PathBuf::from))
                .map(|path| path.display().to_string())
        };
        assert_eq!(path(Some("/data"), Some("/home/a")).unwrap(), "/data/redrive/dev");
        assert_eq!(path(None, Some("/home/a")).unwrap(), "/home/a/.local/share/redrive/dev");
        assert_eq!(path(Some("relative"), Some("/home/a")).unwrap(), "/home/a/.local/share/redrive/dev");
        assert_eq!(path(None, Some("")), None);
    }

    #[test]
    fn queues_are_always_made() {
        assert_eq!(args().flags().to_string().trim(), "[coordinator]\ncreate_queues = true");
        let store = StoreArgs { in_memory: true, ..StoreArgs::default() };
        let some = Args { store, listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))), ..args() };
        let expected = "[coordinator]\ncreate_queues = true\nin_memory = true\nlisten = \"127.0.0.1:0\"";
        assert_eq!(some.flags().to_string().trim(), expected);
    }

    #[test]
    fn the_line_to_paste_is_one_shell_word_of_valid_json() {
        let line = enqueue_line("http://127.0.0.1:7878");
        let body = line.split_once("-d '").unwrap().1.strip_suffix('\'').unwrap();
        assert!(!body.contains('\''));
        let request: redrive_shared::wire::EnqueueRequest = serde_json::from_str(body).unwrap();
        let failure = request.tasks[0].failure.as_ref().unwrap();
        let judged = redrive_shared::classify::classify(failure, None, 0);
        assert_eq!(judged.class, redrive_shared::failure::FailureClass::RateLimited);
        assert_eq!(judged.retry_after_ms, Some(2_000));
    }
}
