//! Attempts that were lost with their workers.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, params};

use super::rows::to_json;
use super::tx::Tx;
use crate::store::lost::{Lost, LostAttempt};

/// Counts them, for the breakers of the agents' other runs.
pub(super) fn count(tx: &Tx<'_>, attempts: &[LostAttempt]) -> rusqlite::Result<()> {
    let mut by_agent: BTreeMap<&str, Vec<&LostAttempt>> = BTreeMap::new();
    for attempt in attempts {
        by_agent.entry(&attempt.agent).or_default().push(attempt);
    }
    for (agent, attempts) in by_agent {
        let mut lost = of_agent(tx, agent)?;
        lost.count(attempts, tx.now_us);
        tx.connection
            .prepare_cached("INSERT OR REPLACE INTO workers_lost (agent, lost) VALUES (?1, ?2)")?
            .execute(params![agent, to_json(&lost)?])?;
    }
    Ok(())
}

/// What an agent lost.
pub(super) fn of_agent(tx: &Tx<'_>, agent: &str) -> rusqlite::Result<Lost> {
    let kept: Option<String> = tx
        .connection
        .prepare_cached("SELECT lost FROM workers_lost WHERE agent = ?1")?
        .query_row([agent], |row| row.get(0))
        .optional()?;
    Ok(Lost::read(kept.as_deref().unwrap_or_default()))
}
