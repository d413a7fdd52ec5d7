//! Presence: one connection that each worker keeps open. When it breaks and the same run of the agent does not come back
//! within the grace, its leases end at once, so that a killed worker's tasks run again in seconds.
//!
//! It may come back to another coordinator. So each connection's arrival is told to the store, which keeps a run's last
//! one: who finds another than the one it knows leaves the run to whoever knows that. It does not matter when a break is
//! noticed: a connection that died without a word may be older than the one that took its place by many seconds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redrive_shared::id::Name;
use redrive_shared::limits::PRESENCE_GRACE_MS;
use tokio_util::sync::CancellationToken;

use super::Engine;
use crate::store::Arrival;

/// Between two tries to tell the store of an arrival: well below the grace of the coordinator that the worker came from.
const TELL_AGAIN_MS: i64 = 100;

/// Connections of one run of an agent.
#[derive(Debug, Default)]
struct Connected {
    open: usize,
    /// How often the last one broke: only the latest departure's grace counts.
    departures: u64,
    /// The last one that the store was told of.
    arrival: Option<Arrival>,
}

type Connections = HashMap<(Name, Name), Connected>;

/// Connections by agent and boot id.
#[derive(Debug, Default)]
pub(super) struct Presence(Mutex<Connections>);

impl Presence {
    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store knows of a connection's arrival. One that broke meanwhile counts for nothing: the run may have arrived
    /// elsewhere before this was written.
    fn arrived(&self, key: &(Name, Name), arrival: Arrival, broken: &CancellationToken) {
        let mut connections = self.lock();
        if let Some(connected) = connections.get_mut(key).filter(|_| !broken.is_cancelled()) {
            connected.arrival = Some(arrival);
        }
    }

    /// Forgets who did not come back since that departure; the last arrival, where the store knows of one.
    fn departed(&self, key: &(Name, Name), departure: u64) -> Option<Arrival> {
        let mut connections = self.lock();
        connections.get(key).filter(|now| now.open == 0 && now.departures == departure)?;
        connections.remove(key)?.arrival
    }
}

/// A worker is here for as long as this lives.
pub struct Present {
    engine: Arc<Engine>,
    key: (Name, Name),
    broken: CancellationToken,
}

impl Engine {
    /// A worker's presence connection was opened. Must be called within a Tokio runtime.
    pub fn arrive(self: &Arc<Self>, agent: Name, boot_id: Name) -> Present {
        let key = (agent, boot_id);
        self.presence.lock().entry(key.clone()).or_default().open += 1;
        let broken = CancellationToken::new();
        let (engine, told, until) = (Arc::clone(self), key.clone(), broken.clone());
        tokio::spawn(async move {
            if let Some(arrival) = until.run_until_cancelled(engine.tell_store(&told)).await {
                engine.presence.arrived(&told, arrival, &until);
            }
        });
        Present { engine: Arc::clone(self), key, broken }
    }

    /// Tells the store of an arrival, for as long as it takes.
    async fn tell_store(&self, (agent, boot_id): &(Name, Name)) -> Arrival {
        loop {
            match self.store.arrive(agent, boot_id).await {
                Ok(arrival) => return arrival,
                Err(error) => tracing::debug!(%error, %agent, "cannot tell the store who is here"),
            }
            self.clock.sleep_until(self.clock.now_ms().saturating_add(TELL_AGAIN_MS)).await;
        }
    }

    /// Waits for the grace, and ends the leases of a worker that did not come back.
    async fn miss(&self, key: (Name, Name), departure: u64) {
        let until_ms = self.clock.now_ms().saturating_add_unsigned(PRESENCE_GRACE_MS);
        while self.clock.now_ms() < until_ms {
            self.clock.sleep_until(until_ms).await;
        }
        // Without an arrival nobody here can tell whether it is elsewhere: its silence will.
        let Some(arrival) = self.presence.departed(&key, departure) else { return };
        if self.stopping.is_cancelled() {
            return;
        }
        match self.store.expire_leases(&key.0, &key.1, arrival).await {
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
        self.broken.cancel();
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
