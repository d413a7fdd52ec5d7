//! What is kept of an agent beside its heartbeats, each kind in a hash by agent, and replaced by compare and swap.

use redis::{Value, cmd};

use super::Inner;
use super::reply::{integer, text};
use super::scripts::REPLACE;
use crate::store::{Result, StoreError};

/// Those who change what is kept of one agent at once: each of them is made to look again by every other at most once.
const TRIES_MAX: usize = 100;

impl Inner {
    /// Changes what is kept of an agent (`''`: nothing): `change` says what it is to be, if anything, and what to answer.
    pub async fn replace<T>(
        &self,
        hash: &str,
        agent: &str,
        mut change: impl FnMut(&str) -> Result<(Option<String>, T)>,
    ) -> Result<T> {
        for _ in 0..TRIES_MAX {
            let query = cmd("HGET").arg(self.keys.once(hash)).arg(agent).to_owned();
            let seen = match self.link.query(&query).await? {
                Value::Nil => String::new(),
                kept => text(&kept)?.to_owned(),
            };
            let (kept, answer) = change(&seen)?;
            let Some(kept) = kept else { return Ok(answer) };
            let mut call = REPLACE.on(self.keys.once(""));
            call.arg(self.time.argument()).arg(hash).arg(agent).arg(seen).arg(kept);
            if integer(&self.link.write(call).await?)? == 1 {
                return Ok(answer);
            }
        }
        Err(StoreError::Unavailable(format!("too many change what is kept of {agent} at once")))
    }
}

/// As it is kept.
pub(super) fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| StoreError::Corrupt(format!("what an agent has: {error}")))
}
