//! Keeps one connection open that shows that this process lives: when it breaks, the coordinator need not wait for three
//! heartbeats to be missed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Worker;
use crate::backoff::Backoff;
use crate::telemetry;

/// Delays before it is opened again. The shortest is well below the coordinator's grace of 2 s, after which it takes this
/// worker for dead.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(3));
/// A connection that lasted this long was a good one: the next trouble is a new one.
const LASTED: Duration = Duration::from_secs(5);

/// Keeps it open until `farewell`.
pub(super) async fn run(worker: Arc<Worker>, farewell: CancellationToken) {
    let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    loop {
        let opened = Instant::now();
        let ended = tokio::select! {
            ended = worker.link.presence(&worker.config.agent, &worker.boot_id) => ended,
            () = farewell.cancelled() => return,
        };
        if opened.elapsed() >= LASTED {
            backoff.reset();
        }
        let pause = match ended {
            Ok(()) => backoff.next(None),
            Err(error) => {
                telemetry::link_error("presence");
                let pause = backoff.next(error.retry_after());
                tracing::debug!(%error, ?pause, "the presence connection broke");
                pause
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = farewell.cancelled() => return,
        }
    }
}
