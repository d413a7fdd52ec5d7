//! Attempts that were lost with their workers.

use std::collections::BTreeMap;

use futures_util::{StreamExt, stream};

use super::Inner;
use super::beside::json;
use crate::store::Result;
use crate::store::lost::{Lost, LostAttempt};

/// Agents that are written at once.
const AT_ONCE: usize = 32;

impl Inner {
    /// Counts them, for the breakers of the agents' other runs.
    pub async fn count_lost(&self, attempts: &[LostAttempt]) -> Result<()> {
        let mut by_agent: BTreeMap<&str, Vec<&LostAttempt>> = BTreeMap::new();
        for attempt in attempts {
            by_agent.entry(&attempt.agent).or_default().push(attempt);
        }
        let counts: Vec<_> =
            by_agent.into_iter().map(|(agent, attempts)| self.count_lost_of(agent, attempts)).collect();
        // All of them, whatever became of one.
        let counted: Vec<Result<()>> = stream::iter(counts).buffer_unordered(AT_ONCE).collect().await;
        counted.into_iter().collect()
    }

    async fn count_lost_of(&self, agent: &str, attempts: Vec<&LostAttempt>) -> Result<()> {
        let counted = self.replace("lost", agent, |seen| {
            let mut lost = Lost::read(seen);
            lost.count(attempts.iter().copied(), self.time.now_us());
            Ok((Some(json(&lost)?), ()))
        });
        counted.await
    }
}
