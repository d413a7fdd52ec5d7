//! What persons want of agents' breakers.

use std::collections::HashMap;

use redis::cmd;
use redrive_shared::wire::BreakerCommand;

use super::Inner;
use super::beside::json;
use super::reply::{pairs, text};
use crate::store::commands::{CommandBreaker, Commands};
use crate::store::{Result, StoreError};

impl Inner {
    /// Gives a command; `None`: there is no place for it.
    pub async fn command_breaker(&self, wanted: &CommandBreaker) -> Result<Option<BreakerCommand>> {
        self.replace("commands", &wanted.agent, |seen| {
            let mut commands = read(seen)?;
            let Some(given) = commands.give(wanted, self.time.now_us()) else { return Ok((None, None)) };
            Ok((Some(json(&commands)?), Some(given)))
        })
        .await
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
