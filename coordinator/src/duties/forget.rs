//! Forgets finished tasks whose retention is over.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::store::StoreError;

/// Most tasks forgotten in one transaction, so that claims are not held up.
const BATCH: usize = 500;
/// How often to look, in milliseconds. Nobody waits for it.
const EVERY_MS: u64 = 10_000;

/// The duty.
pub struct Forgetter {
    engine: Arc<Engine>,
}

impl Forgetter {
    /// A forgetter for this engine's store.
    pub fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }

    /// Works until shutdown.
    pub async fn run(&self, shutdown: CancellationToken) {
        let clock = self.engine.clock();
        let mut next_ms = clock.now_ms();
        loop {
            if clock.now_ms() < next_ms {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = clock.sleep_until(next_ms) => {}
                }
                continue;
            }
            if shutdown.is_cancelled() {
                return;
            }
            let more = match self.run_once().await {
                Ok(forgotten) => forgotten == BATCH,
                Err(error) => {
                    tracing::warn!(%error, "cannot forget finished tasks; trying again");
                    false
                }
            };
            if !more {
                next_ms = clock.now_ms().saturating_add_unsigned(EVERY_MS);
            }
        }
    }

    /// Forgets one batch; returns how many.
    pub async fn run_once(&self) -> Result<usize, StoreError> {
        self.engine.store().forget(BATCH).await
    }
}
