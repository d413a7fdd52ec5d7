//! `redrive queues history`: how a queue's policy came about.

use redrive_shared::id::Name;
use redrive_shared::retry::RetryPolicy;
use redrive_shared::wire::PolicyVersion;
use redrive_worker::client::Client;
use serde::Serialize;
use serde_json::json;

use super::changes::lines;
use crate::context::Context;
use crate::output::{from_now, moment, printable};
use crate::queue_file::{self, Change};

const AFTER_HELP: &str = "\
Newest first, the last 50 versions. Each shows what it changed of the one before it; the first one of a queue, what it changed
of the defaults.

Example:
  redrive queues history reports
  redrive queues history reports --json | jq '.versions[] | {version, actor, reason, changes}'";

/// Show who changed a queue's policy, when, why and how.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The queue.
    name: Name,
}

/// A version with what it changed.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    version: PolicyVersion,
    changes: Vec<Change>,
}

pub async fn run(args: Args, client: &Client, context: &Context) -> anyhow::Result<()> {
    let reply = client.queue_versions(&args.name).await?;
    let versions = compared(reply.versions)?;
    let output = &context.output;
    if output.json {
        return output.value(&json!({ "name": reply.name, "versions": versions }));
    }
    if versions.is_empty() {
        output.say(format!("the policy of queue {} was never changed", reply.name));
    }
    for Shown { version: PolicyVersion { version, at_ms, actor, reason, .. }, changes } in &versions {
        let who = actor.as_ref().map_or("somebody", Name::as_str);
        let ago = from_now(*at_ms, context.now_ms());
        let why = reason.as_ref().map(|reason| format!("  {}", printable(reason))).unwrap_or_default();
        let told = output.faint(&format!("{} ({ago})  {who}{why}", moment(*at_ms)));
        output.line(format!("{}  {told}", output.strong(&format!("version {version}"))))?;
        lines(changes, output)?;
    }
    Ok(())
}

fn compared(versions: Vec<PolicyVersion>) -> anyhow::Result<Vec<Shown>> {
    let default = RetryPolicy::default();
    let mut shown = Vec::new();
    for (place, version) in versions.iter().enumerate() {
        let before = versions.get(place + 1);
        // What the oldest of a full list changed is not known any more.
        let changes = match before {
            None if version.version > 1 => Vec::new(),
            before => queue_file::changes(before.map_or(&default, |before| &before.policy), &version.policy)?,
        };
        shown.push(Shown { version: version.clone(), changes });
    }
    Ok(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_compared_with_the_one_before_it() {
        let of = |version, max_attempts| PolicyVersion {
            version,
            at_ms: 0,
            actor: None,
            reason: None,
            policy: RetryPolicy { max_attempts, ..RetryPolicy::default() },
        };
        let changed = |versions| -> Vec<usize> {
            compared(versions).unwrap().iter().map(|shown| shown.changes.len()).collect()
        };
        assert_eq!(changed(vec![of(2, 4), of(1, 3)]), [1, 1]);
        assert_eq!(changed(vec![of(1, 5)]), [0], "the defaults");
        assert_eq!(changed(vec![of(52, 4), of(51, 3)]), [1, 0], "what was before it is forgotten");
        assert!(changed(vec![]).is_empty());
    }
}
