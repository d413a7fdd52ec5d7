//! `redrive locks`: who has what, who waits, and an end to a lock whose holder is gone.

use comfy_table::Color;
use redrive_shared::lock::{Owner, Phase, Resource, ResourceError, Token};
use redrive_shared::wire::{LockBreak, LockView, LocksReply};

use crate::context::Context;
use crate::output::{Entry, Rows, from_now};

const AFTER_HELP: &str = "\
A lock is granted for a time and ends by itself where nobody renews it; then what was held alone rests for 5 s, since its
holder may be writing still.

Examples:
  redrive locks list
  redrive locks show /srv/out/report.md
  redrive locks break 1763461000123456 --reason 'its machine is gone'";

/// See who holds locks and who waits for them; break one.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List locks, and who waits for one: the first 1,000 of each.
    #[command(after_help = "Example:\n  redrive locks list --json | jq '.waiting | length'")]
    List,
    /// Show who has one resource, and who waits for it.
    #[command(after_help = "Example:\n  redrive locks show /srv/out/report.md")]
    Show {
        /// The resource, as `redrive locks list` names it.
        #[arg(value_parser = resource)]
        resource: Resource,
    },
    /// End somebody's lock, as if it had expired.
    #[command(after_help = "Example:\n  redrive locks break 1763461000123456 --reason 'its machine is gone'")]
    Break {
        /// Its token, as `redrive locks list` shows it.
        token: i64,
        /// Why, for the coordinator's log.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let client = context.client()?;
    match args.action {
        Action::List => show(&client.locks().await?, context),
        Action::Show { resource } => show(&client.locks_of(&resource).await?, context),
        Action::Break { token, reason } => {
            let broken = client.break_lock(&LockBreak { token: Token(token), reason }).await?;
            if context.output.json {
                return context.output.value(&broken);
            }
            Ok(context.output.table(table(&[broken], context.now_ms()))?)
        }
    }
}

fn resource(text: &str) -> Result<Resource, ResourceError> {
    Resource::new(text)
}

fn show(reply: &LocksReply, context: &Context) -> anyhow::Result<()> {
    if context.output.json {
        return context.output.value(reply);
    }
    let now_ms = context.now_ms();
    if reply.locks.is_empty() && reply.waiting.is_empty() && !reply.more {
        context.output.say("nobody holds a lock, and nobody waits for one");
        return Ok(());
    }
    context.output.table(table(&reply.locks, now_ms))?;
    if !reply.waiting.is_empty() {
        let mut rows = Rows::new(["", "WAITS", "ALONE", "SHARED", "SINCE", "UNTIL"]).right([0]);
        for (place, wait) in (1..).zip(&reply.waiting) {
            rows.push([
                Entry::from(place),
                Entry::from(owner(&wait.owner)),
                names(&wait.exclusive),
                names(&wait.shared),
                Entry::from(from_now(wait.since_ms, now_ms)),
                Entry::from(from_now(wait.deadline_ms, now_ms)),
            ]);
        }
        context.output.line("")?;
        context.output.table(rows)?;
    }
    if reply.more {
        context.output.say("there are more than are shown");
    }
    Ok(())
}

fn table(locks: &[LockView], now_ms: i64) -> Rows {
    let mut rows = Rows::new(["TOKEN", "OWNER", "LOCK", "ALONE", "SHARED", "SINCE", "UNTIL"]).right([0]);
    for lock in locks {
        rows.push([
            Entry::from(lock.token),
            Entry::from(owner(&lock.owner)),
            phase(lock.phase),
            names(&lock.exclusive),
            names(&lock.shared),
            Entry::from(from_now(lock.since_ms, now_ms)),
            Entry::from(from_now(lock.until_ms, now_ms)),
        ]);
    }
    rows
}

fn owner(owner: &Owner) -> String {
    match owner {
        Owner::Attempt { task, epoch } => format!("{task} (epoch {epoch})"),
        Owner::Named { name } => name.to_string(),
    }
}

fn names(resources: &[Resource]) -> Entry {
    let text = resources.iter().map(Resource::as_str).collect::<Vec<_>>().join("\n");
    Entry::or_dash(Some(text).filter(|text| !text.is_empty()))
}

fn phase(phase: Phase) -> Entry {
    match phase {
        Phase::Held => Entry::coloured("held", Color::Green),
        Phase::Offered => Entry::coloured("offered", Color::Yellow),
        Phase::Lapsed => Entry::coloured("rests", Color::Red),
    }
}
