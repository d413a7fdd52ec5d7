//! `redrive breakers`: what each agent's circuit breakers do, and a person's hand on them.

use std::time::Duration;

use comfy_table::Color;
use redrive_shared::breaker::{BreakerSnapshot, BreakerState};
use redrive_shared::id::Name;
use redrive_shared::wire::{
    AgentStatus, BreakerAction, BreakerCommand, BreakerCommandRequest, BreakerView, OWN_BREAKER,
};
use redrive_worker::client::Client;
use serde::Serialize;
use tokio::time::Instant;

use super::agents::status;
use crate::arguments;
use crate::context::Context;
use crate::output::{Entry, Rows, duration, excerpt, from_now};

/// How often to look whether a command was carried out: a heartbeat brings it, which may come at any moment.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Characters of a reason in the table.
const REASON_MAX_CHARS: usize = 40;

const AFTER_HELP: &str = "\
Each agent has a breaker of its own (*) and one for each dependency. SAMPLE is failures of outcomes.

Examples:
  redrive breakers
  redrive breakers isolate researcher --reason 'its key was revoked'
  redrive breakers close researcher
  redrive breakers --json | jq '.breakers[] | select(.snapshot.state != \"closed\")'";

const ISOLATE_HELP: &str = "\
Its claims stop, and what it holds and has not begun goes back to the queue, without charge; what runs goes on. With
--dependency only tasks of that dependency. It stays so, over restarts too, until it is closed or reset.

Examples:
  redrive breakers isolate researcher --reason 'its key was revoked'
  redrive breakers isolate researcher --dependency openai/acct/gpt";

/// See agents' circuit breakers, isolate, close and reset them.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List every breaker: state, since when, openings in a row, sample, next change.
    #[command(after_help = AFTER_HELP)]
    List,
    /// Shut a breaker until a person closes or resets it.
    #[command(after_help = ISOLATE_HELP)]
    Isolate(Which),
    /// Let calls through again. Its openings are remembered: it waits longer if that was wrong.
    #[command(after_help = "Example:\n  redrive breakers close researcher --reason 'a new key is in place'")]
    Close(Which),
    /// Make a breaker as new: closed, no openings, an empty sample.
    #[command(after_help = "Example:\n  redrive breakers reset researcher --dependency openai/acct/gpt")]
    Reset(Which),
}

#[derive(Debug, clap::Args)]
struct Which {
    /// The agent.
    agent: Name,
    /// Its breaker of this dependency, instead of its own.
    #[arg(long, value_name = "NAME")]
    dependency: Option<Name>,
    /// Why, for others to see.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Wait for up to this long until the agent has done it.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = arguments::duration_ms)]
    wait: u64,
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let client = context.client()?;
    match args.action {
        None | Some(Action::List) => list(&client, context).await,
        Some(Action::Isolate(which)) => command(&client, context, BreakerAction::Isolate, which).await,
        Some(Action::Close(which)) => command(&client, context, BreakerAction::Close, which).await,
        Some(Action::Reset(which)) => command(&client, context, BreakerAction::Reset, which).await,
    }
}

async fn list(client: &Client, context: &Context) -> anyhow::Result<()> {
    let reply = client.breakers().await?;
    if context.output.json {
        return context.output.value(&reply);
    }
    if reply.breakers.is_empty() {
        context.output.say("no agent has reported a breaker yet; start one with `redrive worker`");
        return Ok(());
    }
    Ok(context.output.table(table(&reply.breakers, context.now_ms()))?)
}

fn table(breakers: &[BreakerView], now_ms: i64) -> Rows {
    let headers =
        ["AGENT", "STATUS", "BREAKER", "STATE", "SINCE", "TRIPS", "SAMPLE", "NEXT CHANGE", "COMMAND"];
    let mut rows = Rows::new(headers).right([5, 6]);
    for breaker in breakers {
        let snapshot = breaker.snapshot.as_ref();
        let since = snapshot.and_then(|it| it.since_ms).map(|at_ms| from_now(at_ms, now_ms));
        rows.push([
            (&breaker.agent).into(),
            status(breaker.status),
            breaker.breaker.as_str().into(),
            snapshot.map_or_else(|| "-".into(), |it| state(it.state)),
            Entry::or_dash(since),
            Entry::or_dash(snapshot.map(|it| it.trips.to_string())),
            Entry::or_dash(snapshot.map(|it| format!("{}/{}", it.failures, it.outcomes))),
            Entry::or_dash(snapshot.and_then(|it| next_change(it, now_ms))),
            Entry::or_dash(breaker.command.as_ref().map(|command| told(command, breaker.pending))),
        ]);
    }
    rows
}

fn state(state: BreakerState) -> Entry {
    match state {
        BreakerState::Closed => Entry::coloured("closed", Color::Green),
        BreakerState::HalfOpen => Entry::coloured("half-open", Color::Yellow),
        BreakerState::Open => Entry::coloured("open", Color::Red),
        BreakerState::Isolated => Entry::coloured("isolated", Color::Magenta),
    }
}

fn next_change(breaker: &BreakerSnapshot, now_ms: i64) -> Option<String> {
    match breaker.state {
        BreakerState::Open => breaker.open_until_ms.map(|at_ms| format!("probe {}", from_now(at_ms, now_ms))),
        BreakerState::HalfOpen => Some("its probe's end".to_owned()),
        BreakerState::Isolated => Some("by a person".to_owned()),
        BreakerState::Closed => None,
    }
}

fn told(command: &BreakerCommand, pending: bool) -> String {
    let reason = command.reason.as_deref().map(|reason| excerpt(reason, REASON_MAX_CHARS));
    let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
    let pending = if pending { " (pending)" } else { "" };
    format!("{}{pending}{reason}", command.action)
}

/// What became of a command.
#[derive(Debug, Serialize)]
struct Commanded {
    command: BreakerCommand,
    /// Whether every run of the agent that is there has carried it out.
    done: bool,
}

async fn command(
    client: &Client,
    context: &Context,
    action: BreakerAction,
    which: Which,
) -> anyhow::Result<()> {
    let Which { agent, dependency, reason, wait } = which;
    let request = BreakerCommandRequest { agent, dependency, action, reason };
    let command = client.command_breaker(&request).await?;
    let done = carried_out(client, &request.agent, &command, Duration::from_millis(wait)).await?;
    let output = &context.output;
    let whose = match command.breaker.as_str() {
        OWN_BREAKER => format!("the breaker of agent {}", request.agent),
        dependency => format!("the breaker of agent {} for {dependency}", request.agent),
    };
    if !done && wait > 0 {
        let wait = duration(wait);
        output.note(&format!(
            "{whose} was told to {action}, but has not said within {wait} that it did: the command stands; see `redrive breakers`"
        ));
    }
    if output.json {
        return output.value(&Commanded { command, done });
    }
    let is = match (done, action) {
        (false, _) => format!("will {action} with the agent's next heartbeat"),
        (true, BreakerAction::Isolate) => "is isolated".to_owned(),
        (true, BreakerAction::Close) => "is closed".to_owned(),
        (true, BreakerAction::Reset) => "is as new".to_owned(),
    };
    Ok(output.line(format!("{whose} {is}"))?)
}

/// Waits until every run of the agent that is there reports that it has carried the command out.
async fn carried_out(
    client: &Client,
    agent: &Name,
    command: &BreakerCommand,
    patience: Duration,
) -> anyhow::Result<bool> {
    let until = Instant::now() + patience;
    loop {
        let breakers = client.breakers().await?.breakers;
        let of_agent = |it: &&BreakerView| it.agent == *agent && it.breaker == command.breaker;
        let there = |it: &&BreakerView| it.status != AgentStatus::Gone;
        let mut runs = breakers.iter().filter(of_agent).filter(there).peekable();
        if runs.peek().is_some() && runs.all(|run| command.is_done(run.snapshot.as_ref())) {
            return Ok(true);
        }
        if Instant::now() + LOOK_EVERY > until {
            return Ok(false);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use redrive_shared::breaker::{Breaker, BreakerConfig};

    use super::*;

    fn view(
        breaker: &str,
        snapshot: Option<BreakerSnapshot>,
        command: Option<BreakerCommand>,
    ) -> BreakerView {
        BreakerView {
            agent: Name::new("planner").unwrap(),
            boot_id: Name::new("b").unwrap(),
            status: AgentStatus::Alive,
            breaker: breaker.to_owned(),
            snapshot,
            seen_at_ms: 0,
            pending: command.as_ref().is_some_and(|it| !it.is_done(snapshot.as_ref())),
            command,
        }
    }

    #[test]
    fn a_breaker_is_a_line_with_its_state_and_who_wanted_it_so() {
        let mut breaker = Breaker::new(BreakerConfig::default()).unwrap();
        let closed = breaker.snapshot(0);
        breaker.isolate(1_000);
        let isolated = BreakerSnapshot { command: Some(7), ..breaker.snapshot(1_000) };
        let command = |breaker: &str, action| BreakerCommand {
            number: 7,
            breaker: breaker.to_owned(),
            action,
            reason: Some("key revoked".to_owned()),
            given_at_ms: 500,
        };
        let rows = table(
            &[
                view("*", Some(isolated), Some(command("*", BreakerAction::Isolate))),
                view("llm/a", Some(closed), Some(command("llm/a", BreakerAction::Reset))),
                view("llm/b", None, None),
            ],
            6_000,
        );
        let text = rows.render(false);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1][..6], ["planner", "alive", "*", "isolated", "5s", "ago"], "{text}");
        assert!(lines[1].join(" ").ends_with("0 0/0 by a person isolate: key revoked"), "{text}");
        assert!(lines[2].join(" ").ends_with("closed - 0 0/0 - reset (pending): key revoked"), "{text}");
        assert!(lines[3].join(" ").ends_with("llm/b - - - - - -"), "{text}");
    }
}
