//! What who pushes asks: how much room there is, and when there is more.

use redrive_shared::breaker::BreakerState;
use redrive_shared::id::Name;
use redrive_shared::wire::{AgentStatus, AgentView};

use super::Engine;
use crate::store::Result;

/// The breaker of the agent itself, among those by dependency.
const OWN_BREAKER: &str = "*";

impl Engine {
    /// Makes a queue that is to be pushed, unless it is there.
    pub(crate) async fn make_pushed(&self, queue: &Name) {
        if let Err(error) = self.store.make_queue(queue).await {
            tracing::warn!(%error, %queue, "cannot make the queue that is to be pushed");
        }
    }

    /// How many tasks of a queue are leased, by whomever.
    pub(crate) async fn leased(&self, queue: &Name) -> Result<u64> {
        self.store.leased(queue).await
    }

    /// How many tasks of a queue the workers that are pushed to take together.
    pub(crate) async fn push_capacity(&self, queue: &Name) -> Result<u64> {
        Ok(self.store.agents().await?.iter().filter(|agent| agent.queues.contains(queue)).map(capacity).sum())
    }

    /// Waits for leases to end, from when it was called: there may be room again.
    pub(crate) fn freed(&self) -> impl Future<Output = ()> {
        self.freed.notified()
    }
}

/// What an agent takes by push.
fn capacity(agent: &AgentView) -> u64 {
    if !agent.pushed || agent.status != AgentStatus::Alive {
        return 0;
    }
    match agent.breakers.get(OWN_BREAKER).map(|breaker| breaker.state) {
        Some(BreakerState::Open | BreakerState::Isolated) => 0,
        Some(BreakerState::HalfOpen) => 1,
        Some(BreakerState::Closed) | None => agent.capacity.into(),
    }
}
