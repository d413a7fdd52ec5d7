//! Waiting for a task's answer, longer than one long poll may last.

use std::time::Duration;

use redrive_shared::id::TaskId;
use redrive_shared::limits::WAIT_MAX_MS;
use redrive_shared::task::TaskView;
use redrive_worker::client::{Client, ClientError};
use tokio::time::Instant;

use crate::output::Output;
use crate::patience::Patience;

/// How long the coordinator may be away while somebody waits: a restart.
const AWAY: Duration = Duration::from_secs(30);

/// The task when it is settled, or as it is after `wait_ms`.
pub async fn settled(
    client: &Client,
    output: Output,
    id: &TaskId,
    wait_ms: u64,
) -> Result<TaskView, ClientError> {
    let (started, wait) = (Instant::now(), Duration::from_millis(wait_ms));
    loop {
        let left = wait.saturating_sub(started.elapsed());
        let poll_ms = u64::try_from(left.as_millis()).map_or(WAIT_MAX_MS, |ms| ms.min(WAIT_MAX_MS));
        let patience = Patience::new(AWAY.min(left), output);
        let task = patience.call(async || client.task(id, Some(poll_ms)).await).await?.value;
        if task.state.is_settled() || started.elapsed() >= wait {
            return Ok(task);
        }
    }
}
