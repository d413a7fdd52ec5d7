//! What persons want of agents' breakers.

use redrive_shared::wire::BreakerCommand;
use rusqlite::{OptionalExtension, params};

use super::rows::{corrupt, to_json};
use super::tx::Tx;
use crate::store::commands::{CommandBreaker, Commands};

/// Gives a command; `None`: there is no place for it.
pub(super) fn give(tx: &Tx<'_>, wanted: &CommandBreaker) -> rusqlite::Result<Option<BreakerCommand>> {
    let mut commands = of_agent(tx, &wanted.agent)?;
    let given = commands.give(wanted, tx.now_us);
    if given.is_some() {
        tx.connection
            .prepare_cached("INSERT OR REPLACE INTO breaker_commands (agent, commands) VALUES (?1, ?2)")?
            .execute(params![wanted.agent.as_str(), to_json(&commands)?])?;
    }
    Ok(given)
}

/// Those that stand for an agent.
pub(super) fn of_agent(tx: &Tx<'_>, agent: &str) -> rusqlite::Result<Commands> {
    let kept: Option<String> = tx
        .connection
        .prepare_cached("SELECT commands FROM breaker_commands WHERE agent = ?1")?
        .query_row([agent], |row| row.get(0))
        .optional()?;
    Commands::read(kept.as_deref().unwrap_or_default()).map_err(|error| corrupt(0, error))
}
