//! Presence: one connection that each worker keeps open. When it breaks and the same run of the agent does not come back
//! within the grace, its leases end at once, so that a killed worker's tasks run again in seconds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redrive_shared::id::Name;
use redrive_shared::limits::PRESENCE_GRACE_MS;

use super::Engine;

type Connections = HashMap<(Name, Name), usize>;

/// Connections by agent and boot id.
#[derive(Debug, Default)]
pub(super) struct Presence(Mutex<Connections>);

impl Presence {
    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_here(&self, key: &(Name, Name)) -> bool {
        self.lock().contains_key(key)
    }
}

/// A worker is here for as long as this lives.
pub struct Present {
    engine: Arc<Engine>,
    key: (Name, Name),
}

impl Engine {
    /// A worker's presence connection was opened.
    pub fn arrive(self: &Arc<Self>, agent: Name, boot_id: Name) -> Present {
        let key = (agent, boot_id);
        *self.presence.lock().entry(key.clone()).or_default() += 1;
        Present { engine: Arc::clone(self), key }
    }

    /// Waits for the grace, and ends the leases of a worker that did not come back.
    async fn miss(&self, key: (Name, Name)) {
        let until_ms = self.clock.now_ms().saturating_add_unsigned(PRESENCE_GRACE_MS);
        while self.clock.now_ms() < until_ms {
            self.clock.sleep_until(until_ms).await;
        }
        if self.presence.is_here(&key) || self.stopping.is_cancelled() {
            return;
        }
        match self.store.expire_leases(&key.0, &key.1).await {
            Ok(0) => {}
            Ok(leases) => {
                tracing::warn!(agent = %key.0, boot_id = %key.1, leases, "a worker vanished; its leases end now");
                self.reaper.set_earlier(i64::MIN);
            }
            // Its leases end by themselves, later.
            Err(error) => {
                tracing::warn!(%error, agent = %key.0, "cannot end the leases of a worker that vanished")
            }
        }
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        let mut connections = self.engine.presence.lock();
        if let Some(count) = connections.get_mut(&self.key) {
            *count -= 1;
            if *count > 0 {
                return;
            }
        }
        connections.remove(&self.key);
        drop(connections);
        if self.engine.stopping.is_cancelled() {
            // It is this coordinator that goes, not the worker.
            return;
        }
        let (engine, key) = (Arc::clone(&self.engine), self.key.clone());
        // Without a runtime the coordinator is going down: leases end by themselves.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { engine.miss(key).await });
        }
    }
}
