//! Locks of an attempt: its own, told of when they are lost, and given back when it ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redrive_shared::lock::{Owner, Resource};
use redrive_shared::wire::{LockRefs, LockRequest};
use tokio::time::Instant;

use super::{CancelReason, ContextError, TaskContext};
use crate::lock::{HeldLock, Kept, acquire_over};
use crate::telemetry;

/// How long giving back what a handler left behind may hold up what comes after it.
const RELEASE_PATIENCE: Duration = Duration::from_secs(2);

/// What is to be locked.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// What is wanted alone. Here and in `shared` up to 64 together, at least one; all are granted in one step.
    pub exclusive: Vec<Resource>,
    /// What may be shared with others that share it.
    pub shared: Vec<Resource>,
    /// How long to stand in line, up to 1 h, and no longer than the attempt may take.
    pub wait: Duration,
    /// How long it outlives its last renewal, 1 s to 1 h; 30 s where nothing is said.
    pub ttl: Option<Duration>,
    /// How long what was held alone rests after an expiry, up to 60 s; 5 s where nothing is said.
    pub lock_delay: Option<Duration>,
}

/// Those that the attempt was granted.
#[derive(Debug, Default)]
pub(super) struct Locks(Mutex<Vec<Arc<Kept>>>);

impl Locks {
    /// A poisoned lock only says that some thread panicked; every change here is complete or not begun.
    fn list(&self) -> MutexGuard<'_, Vec<Arc<Kept>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TaskContext {
    /// Takes a lock for this attempt, and keeps it until it is released, or the attempt ends. A later attempt of the task ends
    /// it; the attempt itself, asking again for what it holds, is given the same lock.
    ///
    /// When it is lost, the handler is told to stop ([`CancelReason::LockLost`]). What it writes all the same is refused
    /// where it brings the lock's token: see [`crate::fenced_file`].
    ///
    /// # Errors
    /// [`ContextError::LockBusy`]: as an outcome it charges no attempt, and counts as a wait for a lock. The handler is to stop,
    /// or the coordinator refuses it.
    pub async fn lock(&self, wanted: Wanted) -> Result<HeldLock, ContextError> {
        let request = LockRequest {
            owner: Owner::Attempt { task: self.inner.task.clone(), epoch: self.inner.epoch },
            exclusive: wanted.exclusive,
            shared: wanted.shared,
            ttl_ms: wanted.ttl.map(millis),
            lock_delay_ms: wanted.lock_delay.map(millis),
            wait_ms: Some(millis(wanted.wait.min(self.time_left()))),
        };
        let (began, stop) = (Instant::now(), self.inner.stop.clone());
        let when_lost = move || stop.now(CancelReason::LockLost);
        let acquired = tokio::select! {
            biased;
            // Whatever it is for: what it would guard is not to begin.
            reason = self.cancelled() => Err(ContextError::Stopped(reason)),
            acquired = acquire_over(&self.inner.surroundings.link, &request, when_lost) => acquired.map_err(ContextError::from),
        };
        let outcome = match &acquired {
            Ok(_) => "granted",
            Err(ContextError::LockBusy(_)) => "busy",
            Err(ContextError::Stopped(_)) => "stopped",
            Err(_) => "failed",
        };
        telemetry::lock_waited(outcome, began.elapsed());
        let held = acquired?;
        let mut list = self.inner.locks.list();
        list.retain(|kept| !kept.is_over());
        list.push(Arc::clone(held.kept()));
        Ok(held)
    }

    /// Gives back the locks that the handler left behind. They end by themselves where the coordinator cannot be asked now.
    pub(crate) async fn release_locks(&self) {
        let mut locks: Vec<_> = self.inner.locks.list().drain(..).filter_map(|kept| kept.take()).collect();
        // Asked for twice, it is the same lock.
        locks.sort_by_key(|lock| lock.token);
        locks.dedup();
        if locks.is_empty() {
            return;
        }
        let refs = LockRefs { locks };
        let released = self.inner.surroundings.link.release_locks(&refs);
        match tokio::time::timeout(RELEASE_PATIENCE, released).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(task = %self.inner.task, %error, "locks end by themselves"),
            Err(_) => tracing::warn!(task = %self.inner.task, "locks end by themselves: no answer"),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
