//! `redrive queues`: what waits where, and how it is retried.

mod apply;
mod changes;
mod export;
mod history;

use redrive_shared::id::Name;
use redrive_shared::retry::RetryPolicy;
use redrive_shared::wire::{GateView, QueueCreate, QueueView, UNREAD_ALL};
use redrive_worker::client::{Client, ClientError};

use crate::arguments;
use crate::context::Context;
use crate::output::{Entry, Rows, from_now};

const AFTER_HELP: &str = "\
Examples:
  redrive queues list
  redrive queues create reports --policy '{\"max_attempts\": 8, \"deadline_ms\": 3600000}'
  redrive queues apply queues.toml --dry-run
  redrive queues pause reports";

const CREATE_HELP: &str = "\
Without --policy, a queue that exists is left as it is. With it, its policy becomes this one; fields left out take their
defaults.

Examples:
  redrive queues create reports
  redrive queues create payments --policy '{\"risk\": \"high\"}'
  redrive queues create reports --policy @policy.json";

/// See, make, pause and resume queues.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
    /// Who makes a change, for the policies' history [default: user@host].
    #[arg(long, global = true, env = "REDRIVE_ACTOR", value_name = "NAME")]
    actor: Option<Name>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List every queue with its tasks by state.
    #[command(after_help = "Example:\n  redrive queues list --json | jq '.queues[] | select(.paused)'")]
    List,
    /// Show one queue and its policy.
    #[command(after_help = "Example:\n  redrive queues show reports --json | jq .policy > policy.json")]
    Show {
        /// The queue.
        name: Name,
    },
    /// Make a queue, or change its policy.
    #[command(after_help = CREATE_HELP)]
    Create {
        /// The queue.
        name: Name,
        /// How its tasks are retried, as JSON, @FILE, or - for stdin.
        #[arg(long, value_name = "JSON|@FILE|-")]
        policy: Option<String>,
        /// Why, for the policy's history.
        #[arg(long, value_name = "TEXT", requires = "policy")]
        reason: Option<String>,
    },
    Apply(apply::Args),
    Export(export::Args),
    History(history::Args),
    /// Stop a queue from handing out work; what runs goes on.
    #[command(after_help = "Example:\n  redrive queues pause reports")]
    Pause {
        /// The queue.
        name: Name,
    },
    /// Let a queue hand out work again.
    #[command(after_help = "Example:\n  redrive queues resume reports")]
    Resume {
        /// The queue.
        name: Name,
    },
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let client = context.client()?;
    let client = match args.actor.or_else(crate::actor::who) {
        Some(actor) => client.acting_as(&actor),
        None => client,
    };
    match args.action {
        Action::Apply(args) => apply::run(args, &client, context).await,
        Action::Export(args) => export::run(args, &client, context).await,
        Action::History(args) => history::run(args, &client, context).await,
        Action::List => list(&client, context).await,
        Action::Show { name } => show(context, &client.queue(&name).await?, &client.gates().await?.queues),
        Action::Create { name, policy, reason } => {
            let policy = policy.map(|given| arguments::object("--policy", &given)).transpose()?;
            create(&client, context, &name, policy, reason).await
        }
        Action::Pause { name } => changed(context, &client.pause(&name).await?, "paused"),
        Action::Resume { name } => changed(context, &client.resume(&name).await?, "resumed"),
    }
}

async fn list(client: &Client, context: &Context) -> anyhow::Result<()> {
    let reply = client.queues().await?;
    if context.output.json {
        return context.output.value(&reply);
    }
    if reply.queues.is_empty() {
        context.output.say("there is no queue yet; make one with `redrive queues create NAME`");
        return Ok(());
    }
    let limits = client.gates().await?.queues;
    context.output.table(table(&reply.queues, &limits, context.now_ms()))?;
    reply.queues.iter().for_each(|queue| say_unread(context, queue));
    Ok(())
}

/// What the coordinator cannot read of a policy.
fn say_unread(context: &Context, queue: &QueueView) {
    let what = match queue.unread.as_slice() {
        [] => return,
        [all] if all == UNREAD_ALL => "the policy, and the defaults are in force there".to_owned(),
        settings => format!("{} of the policy, and goes on without", settings.join(", ")),
    };
    context.output.say(format!(
        "queue {}: this coordinator's release cannot read {what}: a newer release wrote it; use that one everywhere",
        queue.name
    ));
}

fn table(queues: &[QueueView], limits: &[GateView], now_ms: i64) -> Rows {
    const HANDED_OFF: usize = 8;
    let headers = [
        "QUEUE",
        "STATUS",
        "SCHEDULED",
        "LEASED",
        "SUCCEEDED",
        "DEAD",
        "ESCALATED",
        "CANCELLED",
        "HANDED OFF",
        "NEXT DUE",
    ];
    let mut rows = Rows::new(headers).right([2, 3, 4, 5, 6, 7, HANDED_OFF]);
    for queue in queues {
        rows.push([
            (&queue.name).into(),
            status(queue),
            queue.counts.scheduled.into(),
            leased(queue, limits),
            queue.counts.succeeded.into(),
            queue.counts.dead.into(),
            queue.counts.escalated.into(),
            queue.counts.cancelled.into(),
            queue.counts.handed_off.into(),
            Entry::or_dash(queue.next_due_at_ms.map(|at_ms| from_now(at_ms, now_ms))),
        ]);
    }
    // Only push over AMQP hands anything off: elsewhere it would be a column of zeros on a full line.
    if queues.iter().all(|queue| queue.counts.handed_off == 0) { rows.without(HANDED_OFF) } else { rows }
}

/// How many are leased; of how many that may be, where that is limited.
fn leased(queue: &QueueView, limits: &[GateView]) -> Entry {
    let limit = limits.iter().find(|gate| gate.queue.as_ref() == Some(&queue.name));
    match limit.and_then(|gate| gate.settings.max_in_flight) {
        Some(most) => format!("{}/{most}", queue.counts.leased).into(),
        None => queue.counts.leased.into(),
    }
}

fn status(queue: &QueueView) -> Entry {
    if queue.paused { Entry::coloured("paused", comfy_table::Color::Yellow) } else { "active".into() }
}

fn show(context: &Context, queue: &QueueView, limits: &[GateView]) -> anyhow::Result<()> {
    let output = &context.output;
    if output.json {
        return output.value(queue);
    }
    output.table(table(std::slice::from_ref(queue), limits, context.now_ms()))?;
    if let Some(amplification) = queue.amplification {
        let calls = format!("{amplification:.2} calls a task in the last 10 minutes");
        output.line(format!("\n{}  {calls}", output.strong("amplification")))?;
    }
    let version = output.faint(&format!("version {}", queue.version));
    output.line(format!("\n{}  {version}", output.strong("policy")))?;
    output.line(serde_json::to_string_pretty(&queue.policy)?)?;
    say_unread(context, queue);
    Ok(())
}

async fn create(
    client: &Client,
    context: &Context,
    name: &Name,
    policy: Option<RetryPolicy>,
    reason: Option<String>,
) -> anyhow::Result<()> {
    let existing = match client.queue(name).await {
        Ok(queue) => Some(queue),
        // Not there; any other reason why it could not be read would also stop it from being written.
        Err(ClientError::Problem(_)) => None,
        Err(error) => return Err(error.into()),
    };
    match (existing, policy) {
        // Making a queue twice must not put a policy that somebody has tuned back to the defaults.
        (Some(queue), None) => changed(context, &queue, "exists already and is left as it is"),
        (existing, policy) => {
            let request = QueueCreate { reason, ..policy.unwrap_or_default().into() };
            let what = if existing.is_some() { "has a new policy" } else { "created" };
            changed(context, &client.put_queue(name, &request).await?, what)
        }
    }
}

fn changed(context: &Context, queue: &QueueView, what: &str) -> anyhow::Result<()> {
    if context.output.json {
        return context.output.value(queue);
    }
    Ok(context.output.line(format!("queue {} {what}", queue.name))?)
}
