//! Where the work of a load ends up, and what became of its tasks. The sink is the flaky upstream: it logs every call that
//! reaches it and hides no repeat.

use std::collections::HashSet;
use std::time::Duration;

use redrive::upstream::{Upstream, UpstreamHandle};
use redrive_shared::id::TaskId;
use redrive_shared::task::TaskState;
use redrive_shared::wire::StatusRequest;
use redrive_worker::client::Client;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Calls of one task that ran side by side for less than this are one worker's end and the next one's beginning.
pub const HANDOVER: Duration = Duration::from_millis(100);
/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The sink, and its end.
pub struct Sink {
    pub url: String,
    pub handle: UpstreamHandle,
    _stop: DropGuard,
}

pub async fn sink() -> Sink {
    let upstream = Upstream::bind(([127, 0, 0, 1], 0).into()).await.expect("the sink listens");
    let (url, handle) = (upstream.url(), upstream.handle());
    let shutdown = CancellationToken::new();
    tokio::spawn(upstream.run(shutdown.clone()));
    Sink { url, handle, _stop: shutdown.drop_guard() }
}

impl Sink {
    /// Calls of one task that overlapped for longer than a hand-over.
    pub fn overlaps(&self) -> usize {
        self.handle.overlaps().iter().filter(|overlap| overlap.lasted > HANDOVER).count()
    }

    /// Calls beyond the first of each task.
    pub fn repeats(&self) -> u64 {
        let log = self.handle.log();
        let tasks: HashSet<&str> = log.iter().map(|entry| entry.key.as_str()).collect();
        log.len() as u64 - tasks.len() as u64
    }
}

/// Waits until all of these tasks have succeeded; returns those that are not known.
pub async fn all_succeed(client: &Client, ids: &[TaskId]) -> Vec<TaskId> {
    let waiting = async {
        let mut unknown = Vec::new();
        for some in ids.chunks(500) {
            loop {
                let reply = client.status(&StatusRequest { ids: some.to_vec() }).await.expect("a status");
                let open = reply.tasks.iter().find(|task| task.state != TaskState::Succeeded);
                match open {
                    // The long poll on one that is open stands for all: it wakes when there is news.
                    Some(task) => drop(client.task(&task.id, Some(5_000)).await),
                    None => {
                        unknown.extend(reply.unknown);
                        break;
                    }
                }
            }
        }
        unknown
    };
    match tokio::time::timeout(PATIENCE, waiting).await {
        Ok(unknown) => unknown,
        Err(_) => panic!("not every task succeeded: {}", first_open(client, ids).await),
    }
}

/// A task that has not succeeded, for the report of a failure.
async fn first_open(client: &Client, ids: &[TaskId]) -> String {
    for some in ids.chunks(500) {
        let reply = client.status(&StatusRequest { ids: some.to_vec() }).await.expect("a status");
        if let Some(task) = reply.tasks.iter().find(|task| task.state != TaskState::Succeeded) {
            return format!("{:#?}", client.task(&task.id, None).await);
        }
    }
    "all have now".to_owned()
}
