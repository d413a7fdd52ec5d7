//! `redrive agents`: who works.

use comfy_table::Color;
use redrive_shared::breaker::BreakerState;
use redrive_shared::wire::{AgentStatus, AgentView};

use crate::context::Context;
use crate::output::{Entry, Rows, from_now};

const AFTER_HELP: &str = "\
Examples:
  redrive agents list
  redrive agents list --json | jq '.agents[] | select(.status == \"gone\")'";

/// See the agents and how they are.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List every agent: status, queues, load, open breakers.
    #[command(after_help = AFTER_HELP)]
    List,
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    match args.action {
        Action::List => list(context).await,
    }
}

async fn list(context: &Context) -> anyhow::Result<()> {
    let reply = context.client()?.agents().await?;
    if context.output.json {
        return context.output.value(&reply);
    }
    if reply.agents.is_empty() {
        context.output.say("no agent has reported yet; start one with `redrive worker`");
        return Ok(());
    }
    let now_ms = context.now_ms();
    let mut rows = Rows::new(["AGENT", "STATUS", "RUNNING", "QUEUES", "BREAKERS", "SEEN"]).right([2]);
    for agent in &reply.agents {
        let queues: Vec<&str> = agent.queues.iter().map(|queue| queue.as_str()).collect();
        rows.push([
            (&agent.agent).into(),
            status(agent.status),
            format!("{}/{}", agent.in_flight, agent.capacity).into(),
            queues.join(",").into(),
            breakers(agent).into(),
            from_now(agent.seen_at_ms, now_ms).into(),
        ]);
    }
    Ok(context.output.table(rows)?)
}

pub fn status(status: AgentStatus) -> Entry {
    match status {
        AgentStatus::Alive => Entry::coloured("alive", Color::Green),
        AgentStatus::Draining => Entry::coloured("draining", Color::Yellow),
        AgentStatus::Gone => Entry::coloured("gone", Color::Red),
    }
}

/// Those that let nothing through, or are being tried.
fn breakers(agent: &AgentView) -> String {
    let closed = |state: BreakerState| match state {
        BreakerState::Closed => true,
        BreakerState::Open | BreakerState::HalfOpen | BreakerState::Isolated => false,
    };
    let troubled: Vec<String> = agent
        .breakers
        .iter()
        .filter(|(_, breaker)| !closed(breaker.state))
        .map(|(name, breaker)| format!("{name}: {}", breaker.state))
        .collect();
    if troubled.is_empty() { "-".to_owned() } else { troubled.join(", ") }
}
