//! Listens to what other coordinators do, so that whoever waits here wakes for it.

use std::sync::Arc;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::store::Hint;

/// The duty.
pub struct Listener {
    engine: Arc<Engine>,
    hints: Receiver<Hint>,
}

impl Listener {
    /// A listener to the hints of this engine's store.
    pub fn new(engine: Arc<Engine>, hints: Receiver<Hint>) -> Self {
        Self { engine, hints }
    }

    /// Works until shutdown.
    pub async fn run(mut self, shutdown: CancellationToken) {
        while let Some(heard) = shutdown.run_until_cancelled(self.hints.recv()).await {
            match heard {
                Ok(Hint::Due { queue, due_ms }) => self.engine.dispatcher().announce(&queue, due_ms),
                Ok(Hint::Offered(ids)) => self.engine.locks_offered(&ids),
                Ok(Hint::Gates) => self.engine.look_at_gates(),
                Ok(Hint::Look) | Err(RecvError::Lagged(_)) => self.look(),
                Err(RecvError::Closed) => return shutdown.cancelled().await,
            }
        }
    }

    /// Anything may have changed: claims are tried, and leases that another coordinator gave are looked after.
    fn look(&self) {
        self.engine.look_at_gates();
        self.engine.look_at_locks();
        self.engine.dispatcher().wake_all();
        self.engine.reaper.set_earlier(self.engine.clock().now_ms());
    }
}
