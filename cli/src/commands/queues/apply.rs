//! `redrive queues apply`: the policies of a file come into force, after a look at what they change.

use std::fs::File;
use std::io::{BufRead, IsTerminal, Read};
use std::path::{Path, PathBuf};

use redrive_shared::config::reader::Mistake;
use redrive_shared::id::Name;
use redrive_shared::retry::RetryPolicy;
use redrive_shared::wire::{QueuePut, QueueView, QueuesPut};
use redrive_worker::client::Client;
use serde::Serialize;
use serde_json::json;

use super::changes::{lines, plural};
use crate::context::Context;
use crate::failure::Usage;
use crate::output::Output;
use crate::queue_file::{self, Change, Entry, FILE_MAX_BYTES};

const AFTER_HELP: &str = "\
Shows what the file changes, setting by setting, asks, and puts all of it in force or nothing. Queues that are not in the file
are left as they are. A setting that the file leaves out takes its default. If somebody changes a policy in between, nothing is
applied. docs/policies.md documents the settings, docs/queues.toml shows them.

Examples:
  redrive queues apply queues.toml --dry-run
  redrive queues apply queues.toml --reason 'provider was down for an hour'
  redrive queues apply queues.toml --yes --json | jq '.queues[].changes'";

/// Put the policies of a file in force.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The queues and their policies, in TOML.
    #[arg(value_name = "FILE.toml")]
    file: PathBuf,
    /// Show what would change, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Apply without asking.
    #[arg(long, short, conflicts_with = "dry_run")]
    yes: bool,
    /// Why, for the policies' history.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// What the file does to one queue.
#[derive(Debug, Serialize)]
struct Plan {
    name: Name,
    status: Status,
    /// The version that is compared with, which becomes the one in force.
    version: u64,
    /// What a queue that is not there would have is what changes nothing.
    changes: Vec<Change>,
    #[serde(skip)]
    policy: RetryPolicy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    New,
    Changed,
    Unchanged,
}

pub async fn run(args: Args, client: &Client, context: &Context) -> anyhow::Result<()> {
    let output = &context.output;
    let entries = read(&args.file, output)?;
    let in_force = client.queues().await?.queues;
    let mut plans = Vec::new();
    let mut contradictions = Vec::new();
    for entry in entries {
        let before = in_force.iter().find(|queue| queue.name == entry.name);
        let plan = compare(entry.name, entry.policy, before)?;
        if plan.status != Status::Unchanged {
            contradictions.extend(entry.contradictions);
        }
        plans.push(plan);
    }
    refuse(&args.file, &contradictions, output)?;
    let named = |queue: &&QueueView| plans.iter().all(|plan| plan.name != queue.name);
    let untouched: Vec<Name> = in_force.iter().filter(named).map(|queue| queue.name.clone()).collect();
    if !output.json {
        show(&plans, &untouched, output)?;
    }
    let wanted = plans.iter().any(|plan| plan.status != Status::Unchanged);
    let applied = wanted && !args.dry_run;
    if applied {
        if !args.yes {
            confirm(output)?;
        }
        apply(client, &mut plans, args.reason).await?;
    }
    if output.json {
        return output.value(&json!({ "queues": plans, "untouched": untouched, "applied": applied }));
    }
    if !wanted {
        output.say("nothing to change");
    } else if args.dry_run {
        output.say("nothing was changed: this was a dry run");
    } else {
        let of = |plan: &Plan| format!("{} is at version {}", plan.name, plan.version);
        let changed = plans.iter().filter(|plan| plan.status != Status::Unchanged);
        output.say(format!("applied: {}", changed.map(of).collect::<Vec<_>>().join(", ")));
    }
    Ok(())
}

fn read(file: &Path, output: &Output) -> anyhow::Result<Vec<Entry>> {
    let cannot = |error| Usage::new(format!("cannot read the file {}: {error}", file.display()));
    let mut text = String::new();
    // One byte more than is taken: that many are refused with a reason.
    let most = FILE_MAX_BYTES as u64 + 1;
    File::open(file).and_then(|open| open.take(most).read_to_string(&mut text)).map_err(cannot)?;
    match queue_file::parse(&file.display().to_string(), &text) {
        Ok(entries) => Ok(entries),
        Err(mistakes) => refuse(file, &mistakes, output).map(|()| Vec::new()),
    }
}

/// Fails if there are any, after telling each.
fn refuse(file: &Path, mistakes: &[Mistake], output: &Output) -> anyhow::Result<()> {
    if mistakes.is_empty() {
        return Ok(());
    }
    for mistake in mistakes {
        output.complain(mistake.place(), &mistake.message);
    }
    let count = plural(mistakes.len(), "mistake");
    Err(Usage::new(format!("{} has {count}; nothing was applied", file.display())).into())
}

fn compare(name: Name, policy: RetryPolicy, before: Option<&QueueView>) -> anyhow::Result<Plan> {
    let default = RetryPolicy::default();
    let changes = queue_file::changes(before.map_or(&default, |queue| &queue.policy), &policy)?;
    let status = match before {
        None => Status::New,
        Some(queue) if queue.policy == policy => Status::Unchanged,
        Some(_) => Status::Changed,
    };
    Ok(Plan { name, status, version: before.map_or(0, |queue| queue.version), changes, policy })
}

fn show(plans: &[Plan], untouched: &[Name], output: &Output) -> anyhow::Result<()> {
    for plan in plans {
        let name = output.strong(&plan.name);
        let told = match plan.status {
            Status::New if plan.changes.is_empty() => "new, with the defaults".to_owned(),
            Status::New => "new; what is not shown has its default".to_owned(),
            Status::Changed => format!("changes from version {}", plan.version),
            Status::Unchanged => format!("unchanged, version {}", plan.version),
        };
        output.line(format!("{name}  {}", output.faint(&told)))?;
        lines(&plan.changes, output)?;
    }
    if !untouched.is_empty() {
        let names: Vec<&str> = untouched.iter().map(Name::as_str).collect();
        output.line(output.faint(&format!("not in the file, left as they are: {}", names.join(", "))))?;
    }
    Ok(())
}

fn confirm(output: &Output) -> anyhow::Result<()> {
    let stdin = std::io::stdin();
    if output.json || !stdin.is_terminal() {
        let said = "nobody can be asked here: pass --yes to apply it, or --dry-run to see what it changes";
        return Err(Usage::new(said).into());
    }
    output.say("apply this? [y/N]");
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(anyhow::anyhow!("not confirmed; nothing was applied")),
    }
}

async fn apply(client: &Client, plans: &mut [Plan], reason: Option<String>) -> anyhow::Result<()> {
    // Also those that are unchanged: the file as a whole is what was looked at.
    let put = |plan: &Plan| QueuePut {
        name: plan.name.clone(),
        policy: plan.policy.clone(),
        version: Some(plan.version),
    };
    let request = QueuesPut { queues: plans.iter().map(put).collect(), reason };
    let reply = client.put_queues(&request).await?;
    for plan in plans {
        if let Some(queue) = reply.queues.iter().find(|queue| queue.name == plan.name) {
            plan.version = queue.version;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_new_changed_or_as_it_was() {
        let name = || Name::new("a").unwrap();
        let view = |policy: RetryPolicy| QueueView {
            name: name(),
            paused: false,
            counts: <_>::default(),
            next_due_at_ms: None,
            policy,
            amplification: None,
            version: 7,
            unread: Vec::new(),
        };
        let high = RetryPolicy { max_attempts: 3, ..RetryPolicy::default() };
        let new = compare(name(), high.clone(), None).unwrap();
        assert_eq!((new.status, new.version, new.changes.len()), (Status::New, 0, 1));
        let same = compare(name(), high.clone(), Some(&view(high.clone()))).unwrap();
        assert_eq!((same.status, same.version, same.changes.len()), (Status::Unchanged, 7, 0));
        let changed = compare(name(), high, Some(&view(RetryPolicy::default()))).unwrap();
        assert_eq!((changed.status, changed.version), (Status::Changed, 7));
        let change = Change { setting: "max_attempts".into(), old: "5".into(), new: "3".into() };
        assert_eq!(changed.changes, [change]);
    }
}
