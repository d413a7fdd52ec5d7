//! Ends leases whose worker went silent, whatever is paused, and escalates what waited past its deadline: a task must
//! never stay leased, or wait, for ever.

use std::sync::Arc;

use redrive_shared::limits::BATCH_MAX_ITEMS;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::store::StoreError;

/// How long to wait after the store failed, in milliseconds.
const RETRY_MS: u64 = 1_000;

/// The duty.
pub struct Reaper {
    engine: Arc<Engine>,
}

impl Reaper {
    /// A reaper for this engine's store.
    pub fn new(engine: Arc<Engine>) -> Self {
        engine.reaper.set_earlier(i64::MIN);
        Self { engine }
    }

    /// Works until shutdown.
    pub async fn run(&self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.engine.reaper.wait(self.engine.clock()) => {}
            }
            self.engine.reaper.clear();
            let next_ms = match self.run_once().await {
                Ok(next_ms) => next_ms,
                Err(error) => {
                    tracing::warn!(%error, "cannot reap leases; trying again");
                    Some(self.engine.clock().now_ms().saturating_add_unsigned(RETRY_MS))
                }
            };
            if let Some(next_ms) = next_ms {
                self.engine.reaper.set_earlier(next_ms);
            }
        }
    }

    /// Ends what is over now; returns when to look again.
    pub async fn run_once(&self) -> Result<Option<i64>, StoreError> {
        let round = self.engine.store().reap(BATCH_MAX_ITEMS).await?;
        for agent in &round.gone {
            tracing::warn!(%agent, "an agent has gone silent");
            metrics::counter!("redrive_agents_gone_total").increment(1);
        }
        for id in &round.too_late {
            metrics::counter!("redrive_deadline_passed_total").increment(1);
            self.engine.answered(id);
        }
        // Before anyone is woken to claim more.
        self.engine.tell_gates_of_reaped(&round.reaped);
        for task in &round.reaped {
            let kind = if task.started { "lost" } else { "undelivered" };
            metrics::counter!("redrive_leases_lost_total", "queue" => task.queue.to_string(), "kind" => kind)
                .increment(1);
            if task.started {
                self.engine.lost(task);
            }
            self.engine.moved(&task.id, &task.queue, task.state, task.due_ms);
        }
        // Behind everything else: breakers hear of it with heartbeats, and no task waits for that.
        self.engine.tell_breakers_of_lost(&round.reaped).await;
        Ok(round.next_ms)
    }
}
