//! Presence: one connection that each worker keeps open. When it breaks and the same run of the agent does not come back
//! within the grace, its leases end at once, so that a killed worker's tasks run again in seconds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redrive_shared::id::Name;
use redrive_shared::limits::PRESENCE_GRACE_MS;

use super::Engine;

/// Connections of one run of an agent.
#[derive(Debug, Default)]
struct Connected {
    open: usize,
    /// How often the last one broke: only the latest departure's grace counts.
    departures: u64,
}

type Connections = HashMap<(Name, Name), Connected>;

/// Connections by agent and boot id.
#[derive(Debug, Default)]
pub(super) struct Presence(Mutex<Connections>);

impl Presence {
    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody came back since that departure; then it is forgotten.
    fn stayed_away(&self, key: &(Name, Name), departure: u64) -> bool {
        let mut connections = self.lock();
        let away = connections.get(key).is_some_and(|now| now.open == 0 && now.departures == departure);
        if away {
            connections.remove(key);
        }
        away
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
        self.presence.lock().entry(key.clone()).or_default().open += 1;
        Present { engine: Arc::clone(self), key }
    }

    /// Waits for the grace, and ends the leases of a worker that did not come back.
    async fn miss(&self, key: (Name, Name), departure: u64) {
        let until_ms = self.clock.now_ms().saturating_add_unsigned(PRESENCE_GRACE_MS);
        while self.clock.now_ms() < until_ms {
            self.clock.sleep_until(until_ms).await;
        }
        if !self.presence.stayed_away(&key, departure) || self.stopping.is_cancelled() {
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
        let Some(connected) = connections.get_mut(&self.key) else { return };
        connected.open -= 1;
        if connected.open > 0 {
            return;
        }
        connected.departures += 1;
        let departure = connected.departures;
        drop(connections);
        if self.engine.stopping.is_cancelled() {
            // It is this coordinator that goes, not the worker.
            return;
        }
        let (engine, key) = (Arc::clone(&self.engine), self.key.clone());
        // Without a runtime the coordinator is going down: leases end by themselves.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { engine.miss(key, departure).await });
        }
    }
}
