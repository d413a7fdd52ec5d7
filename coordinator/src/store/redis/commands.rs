//! What persons want of agents' breakers.

use std::collections::HashMap;

use redis::{Value, cmd};
use redrive_shared::wire::BreakerCommand;

use super::Inner;
use super::reply::{integer, pairs, text};
use super::scripts::COMMAND;
use crate::store::commands::{CommandBreaker, Commands};
use crate::store::{Result, StoreError};

/// Persons who give commands to one agent at once: each of them is made to look again by every other at most once.
const TRIES_MAX: usize = 100;

impl Inner {
    /// Gives a command; `None`: there is no place for it.
    pub async fn command_breaker(&self, wanted: &CommandBreaker) -> Result<Option<BreakerCommand>> {
        for _ in 0..TRIES_MAX {
            let query = cmd("HGET").arg(self.keys.once("commands")).arg(wanted.agent.as_str()).to_owned();
            let seen = match self.link.query(&query).await? {
                Value::Nil => String::new(),
                kept => text(&kept)?.to_owned(),
            };
            let mut commands = read(&seen)?;
            let Some(given) = commands.give(wanted, self.time.now_us()) else { return Ok(None) };
            let kept = serde_json::to_string(&commands)
                .map_err(|error| StoreError::Corrupt(format!("commands: {error}")))?;
            let mut call = COMMAND.on(self.keys.once(""));
            call.arg(self.time.argument()).arg(wanted.agent.as_str()).arg(seen).arg(kept);
            if integer(&self.link.write(call).await?)? == 1 {
                return Ok(Some(given));
            }
        }
        Err(StoreError::Unavailable(format!("too many give commands to {} at once", wanted.agent)))
    }

    /// Those that stand, by agent.
    pub async fn breaker_commands(&self) -> Result<HashMap<String, Commands>> {
        let reply = self.link.query(cmd("HGETALL").arg(self.keys.once("commands"))).await?;
        let all = pairs(&reply)?.into_iter();
        all.map(|(agent, kept)| Ok((text(agent)?.to_owned(), read(text(kept)?)?))).collect()
    }
}

/// Reads what is kept of an agent.
pub(super) fn read(kept: &str) -> Result<Commands> {
    Commands::read(kept).map_err(|error| StoreError::Corrupt(format!("an agent's commands: {error}")))
}
