//! What who pushes asks: how much room there is, and when there is more.

use redrive_shared::id::Name;
use redrive_shared::wire::AgentView;

use super::Engine;
use crate::store::Result;

impl Engine {
    /// Makes a queue that the configuration names, unless it is there.
    pub(crate) async fn make_configured(&self, queue: &Name) {
        if let Err(error) = self.store.make_queue(queue).await {
            tracing::warn!(%error, %queue, "cannot make a queue that the configuration names");
        }
    }

    /// How many tasks of a queue are leased, by whomever.
    pub(crate) async fn leased(&self, queue: &Name) -> Result<u64> {
        self.store.leased(queue).await
    }

    /// The workers that are pushed to.
    pub(crate) async fn pushed_agents(&self) -> Result<Vec<AgentView>> {
        let mut agents = self.store.agents().await?;
        agents.retain(|agent| agent.pushed);
        Ok(agents)
    }

    /// Waits for leases to end, from when it was called: there may be room again.
    pub(crate) fn freed(&self) -> impl Future<Output = ()> {
        self.freed.notified()
    }

    /// Waits for a worker that is pushed to to be heard of, from when it was called: it may have more room than before.
    pub(crate) fn taker_heard(&self) -> impl Future<Output = ()> {
        self.taker_heard.notified()
    }
}
