//! Contexts against a coordinator's side in memory. Time is paused where it matters.

pub(crate) mod fake;
mod holding;
mod saving;

use std::sync::Arc;
use std::time::Duration;

use redrive_shared::id::Name;
use redrive_shared::task::Lease;

use super::{Stop, Surroundings, TaskContext};
use crate::link::AttemptLink;
use fake::FakeAttempts;

/// Most bytes of a blob in these tests.
pub(crate) const MAX_BLOB_BYTES: u64 = 2 * 1024 * 1024;

/// An attempt of that task, and the switch that stops it. Its time-out is 9 s.
pub(crate) fn attempt(link: &Arc<FakeAttempts>, task: &Lease) -> (TaskContext, Stop) {
    let stop = Stop::default();
    let surroundings = Surroundings {
        agent: Name::new("agent-1").unwrap(),
        api_url: Arc::from("http://127.0.0.1:7878"),
        link: Arc::clone(link) as Arc<dyn AttemptLink>,
        max_blob_bytes: MAX_BLOB_BYTES,
    };
    (TaskContext::new(task, surroundings, Duration::from_secs(9), stop.clone()), stop)
}

/// The next attempt of a task: it knows what was saved.
fn next_attempt(link: &Arc<FakeAttempts>) -> (TaskContext, Stop) {
    let checkpoint = Some(link.state().progress.clone());
    attempt(link, &Lease { checkpoint, ..crate::runtime::tests::lease("task", "done") })
}
