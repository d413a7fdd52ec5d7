//! Policies put in force, and their versions.

use redis::cmd;
use redrive_shared::id::Name;
use redrive_shared::limits::POLICY_VERSIONS_KEPT;
use redrive_shared::wire::PolicyVersion;
use serde::Deserialize;

use super::Inner;
use super::reply::{bytes, integer, items, pairs, text};
use super::scripts::PUT_QUEUES;
use crate::store::policies::{FOUND, StoredPolicy};
use crate::store::{PolicyChange, PolicyPut, Result, StoreError};

/// A version as it lies under its number. Texts are empty where there is none.
#[derive(Debug, Deserialize)]
struct Entry {
    at_ms: i64,
    actor: String,
    reason: String,
    /// The policy as it lies in `queues`, byte for byte, so that scripts can compare them.
    policy: String,
}

impl Inner {
    /// Puts policies in force: all of them, or none where one was changed since.
    pub async fn put_queues(&self, change: &PolicyChange) -> Result<PolicyPut> {
        let mut call = PUT_QUEUES.on(self.keys.once(""));
        call.arg(self.time.argument())
            .arg(self.keys.channel())
            .arg(&self.origin)
            .arg(change.actor.as_deref().unwrap_or(""))
            .arg(change.reason.as_deref().unwrap_or(""))
            .arg(POLICY_VERSIONS_KEPT)
            .arg(FOUND);
        for new in &change.queues {
            let policy = serde_json::to_string(&new.policy)
                .map_err(|error| StoreError::Corrupt(format!("a policy: {error}")))?;
            let expected = new.version.map_or_else(String::new, |version| version.to_string());
            call.arg(new.queue.as_str()).arg(expected).arg(policy);
        }
        let reply = self.link.write(call).await?;
        // Also after a conflict: who is told of it looks next at what is in force.
        self.refresh_book().await?;
        let mut conflicts = Vec::new();
        for found in items(&reply)?.chunks_exact(2) {
            let name = Name::new(text(&found[0])?)
                .map_err(|error| StoreError::Corrupt(format!("a queue's name {error}")))?;
            conflicts.push((name, integer(&found[1])?.unsigned_abs()));
        }
        Ok(if conflicts.is_empty() { PolicyPut::Done } else { PolicyPut::Conflict(conflicts) })
    }

    /// The versions that are kept, newest first.
    pub async fn policy_versions(&self, queue: &Name) -> Result<Vec<PolicyVersion>> {
        let key = self.keys.once(&format!("h:{queue}"));
        let all = self.link.query(cmd("HGETALL").arg(key)).await?;
        let mut versions = Vec::new();
        for (number, entry) in pairs(&all)? {
            versions.push(version(queue, integer(number)?.unsigned_abs(), bytes(entry)?)?);
        }
        versions.sort_by_key(|version| std::cmp::Reverse(version.version));
        Ok(versions)
    }
}

fn version(queue: &Name, version: u64, entry: &[u8]) -> Result<PolicyVersion> {
    let corrupt = |error: &dyn std::fmt::Display| {
        StoreError::Corrupt(format!("a version of the policy of queue {queue}: {error}"))
    };
    let entry: Entry = serde_json::from_slice(entry).map_err(|error| corrupt(&error))?;
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    Ok(PolicyVersion {
        version,
        at_ms: entry.at_ms,
        actor: given(entry.actor).map(Name::new).transpose().map_err(|error| corrupt(&error))?,
        reason: given(entry.reason),
        policy: StoredPolicy::read(&entry.policy).policy,
    })
}
