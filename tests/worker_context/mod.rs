//! What a worker gives its handlers, with real workers, handlers and coordinators: steps that are not done again, states of any
//! length, locks that are lost, leases that were slept over.

mod blobs;
mod command;
mod locks;
mod losses;
mod resuming;

use std::path::{Path, PathBuf};
use std::time::Duration;

use redrive_shared::id::TaskId;
use redrive_shared::task::{TaskState, TaskView};
use redrive_shared::wire::{EnqueueRequest, NewTask};
use redrive_worker::client::Client;
use tempfile::TempDir;

use crate::support::process::Coordinator;
use crate::support::wait::eventually;
use crate::support::{fast_directory, id};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A coordinator on the embedded store, and a directory for what handlers write.
struct Scene {
    coordinator: Coordinator,
    client: Client,
    scratch: TempDir,
}

impl Scene {
    async fn new() -> Self {
        let scratch = fast_directory();
        let coordinator = Coordinator::start(&scratch.path().join("data")).await;
        let client = coordinator.client();
        Self { coordinator, client, scratch }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Settings of a worker whose handler writes here: to `$SCENE`.
    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![("SCENE", self.scratch.path().to_str().expect("UTF-8").to_owned())]
    }

    async fn enqueue(&self, task: &str) -> TaskId {
        let task = NewTask { id: Some(id(task)), ..NewTask::default() };
        let reply = self.client.enqueue(&EnqueueRequest { tasks: vec![task.clone()] }).await;
        reply.expect("it is enqueued");
        task.id.expect("an id")
    }

    /// The task once it has ended.
    async fn ended(&self, task: &TaskId) -> TaskView {
        let ended = eventually("the task ends", PATIENCE, async || {
            let view = self.client.task(task, Some(5_000)).await.ok()?;
            (!matches!(view.state, TaskState::Scheduled | TaskState::Leased)).then_some(view)
        });
        ended.await.0
    }
}

/// The lines that handlers wrote there.
fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Waits until a handler has made this file.
async fn made(path: &Path) {
    eventually("a handler comes so far", PATIENCE, async || path.exists().then_some(())).await;
}
