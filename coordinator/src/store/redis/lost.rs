//! Attempts that were lost with their workers.

use std::collections::BTreeMap;

use super::Inner;
use super::beside::json;
use crate::store::Result;
use crate::store::lost::{Lost, LostAttempt};

impl Inner {
    /// Counts them, for the breakers of the agents' other runs.
    pub async fn count_lost(&self, attempts: &[LostAttempt]) -> Result<()> {
        let mut by_agent: BTreeMap<&str, Vec<&LostAttempt>> = BTreeMap::new();
        for attempt in attempts {
            by_agent.entry(&attempt.agent).or_default().push(attempt);
        }
        for (agent, attempts) in by_agent {
            let counted = self.replace("lost", agent, |seen| {
                let mut lost = Lost::read(seen);
                lost.count(attempts.iter().copied(), self.time.now_us());
                Ok((Some(json(&lost)?), ()))
            });
            counted.await?;
        }
        Ok(())
    }
}
