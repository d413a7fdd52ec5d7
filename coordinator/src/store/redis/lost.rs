//! Attempts that were lost with their workers.

use std::collections::BTreeMap;

use futures_util::{StreamExt, stream};
use redis::cmd;

use super::Inner;
use super::beside::json;
use super::reply::{pairs, text};
use super::scripts::REPLACE;
use crate::store::Result;
use crate::store::lost::{Lost, LostAttempt};

/// Agents that are written at once.
const AT_ONCE: usize = 32;
/// Agents whose losses are dropped at once: each costs a call.
const DROPPED_MAX: usize = 64;

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
        counted.into_iter().collect::<Result<()>>()?;
        self.drop_old_losses().await
    }

    async fn count_lost_of(&self, agent: &str, attempts: Vec<&LostAttempt>) -> Result<()> {
        let counted = self.replace("lost", agent, |seen| {
            let mut lost = Lost::read(seen);
            lost.count(attempts.iter().copied(), self.time.now_us());
            Ok((Some(json(&lost)?), ()))
        });
        counted.await
    }

    /// Drops what is told no more, a bounded part at a time: agents that have a name of their own for each start would pile up.
    async fn drop_old_losses(&self) -> Result<()> {
        let all = self.link.query(cmd("HGETALL").arg(self.keys.once("lost"))).await?;
        let now_ms = self.now_ms();
        let mut dropped = 0;
        for (agent, kept) in pairs(&all)? {
            let kept = text(kept)?;
            if dropped < DROPPED_MAX && Lost::is_over(kept, now_ms) {
                let mut call = REPLACE.on(self.keys.once(""));
                call.arg(self.time.argument()).arg("lost").arg(text(agent)?).arg(kept).arg("");
                // Where somebody was faster, it is not old any more, or gone.
                self.link.write(call).await?;
                dropped += 1;
            }
        }
        Ok(())
    }
}
