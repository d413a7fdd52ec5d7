//! Locks of an attempt: renewed while it runs, given back when it ends.
//!
//! One table has all of them, from the moment in which they are granted: so none is forgotten, wherever a call is dropped. The
//! coordinator gives an attempt that asks for what it holds the same lock, so an entry counts who holds it; the last one gives it back.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redrive_shared::limits::BATCH_MAX_ITEMS;
use redrive_shared::lock::{Owner, Resource, Token};
use redrive_shared::wire::{LockGrant, LockRef, LockRefs, LockRequest};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{CancelReason, ContextError, TaskContext};
use crate::client::ClientError;
use crate::lock::{self, Granted, Renewal};
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

/// A lock of an attempt. Dropped, it stays the attempt's until that ends.
#[derive(Debug)]
pub struct AttemptLock {
    ctx: TaskContext,
    grant: LockGrant,
    lost: CancellationToken,
}

/// What came of giving a lock back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Released {
    /// Others may have it.
    GivenBack,
    /// The attempt asked for it more than once: it holds it still.
    StillHeld,
    /// It was lost before, or given back.
    NotHeld,
}

/// Those that the attempt was granted.
#[derive(Debug, Default)]
pub(super) struct Locks {
    table: Mutex<Table>,
    /// How many were given back. Held while one is, and while one begins to be held: what is granted again just before it is
    /// given back goes with it, and must not be taken for held.
    releases: tokio::sync::Mutex<u64>,
}

#[derive(Debug, Default)]
struct Table {
    held: BTreeMap<Token, Held>,
    /// The attempt is over: nothing is held for it any more.
    ended: bool,
}

#[derive(Debug, Default)]
struct Held {
    /// How often it was handed out and not given back.
    holders: u32,
    /// None: it was not handed out yet, or is being given back.
    renewal: Option<Renewal>,
}

impl Locks {
    /// A poisoned lock only says that some thread panicked; every change here is complete or not begun.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of one that was granted. False: the attempt is over.
    fn enter(&self, token: Token) -> bool {
        let mut table = self.table();
        if !table.ended {
            table.held.entry(token).or_default();
        }
        !table.ended
    }

    /// One holder less. None: that was the last one, and the coordinator is to be told.
    fn leave(&self, token: Token) -> Option<Released> {
        let mut table = self.table();
        let Some(held) = table.held.get_mut(&token) else { return Some(Released::NotHeld) };
        if held.is_lost() {
            table.held.remove(&token);
            return Some(Released::NotHeld);
        }
        held.holders = held.holders.saturating_sub(1);
        if held.holders > 0 {
            return Some(Released::StillHeld);
        }
        // From here on it is no news that it ends.
        held.renewal = None;
        None
    }

    /// Ends all renewals, and tells who has one of the locks still. Returns those that were not lost.
    fn end(&self) -> Vec<Token> {
        let mut table = self.table();
        table.ended = true;
        let left = std::mem::take(&mut table.held).into_iter().filter(|(_, held)| !held.is_lost());
        let end = |(token, held): (Token, Held)| {
            held.renewal.iter().for_each(|renewal| renewal.lost.cancel());
            token
        };
        left.map(end).collect()
    }
}

impl Held {
    fn is_lost(&self) -> bool {
        self.renewal.as_ref().is_some_and(|renewal| renewal.lost.is_cancelled())
    }
}

impl TaskContext {
    /// Takes a lock for this attempt, and keeps it until it is released, or the attempt ends. A later attempt of the task ends
    /// it; the attempt itself, asking again for what it holds, is given the same lock, and has to release it as often.
    ///
    /// When it is lost, the handler is told to stop ([`CancelReason::LockLost`]). What it writes all the same is refused
    /// where it brings the lock's token: see [`crate::fenced_file`].
    ///
    /// # Errors
    /// [`ContextError::LockBusy`]: as an outcome it charges no attempt, and counts as a wait for a lock. The lease is over (and
    /// the handler is told to stop), the handler is to stop anyway, or the coordinator refuses it.
    pub async fn lock(&self, wanted: Wanted) -> Result<AttemptLock, ContextError> {
        let request = LockRequest {
            owner: self.owner(),
            exclusive: wanted.exclusive,
            shared: wanted.shared,
            ttl_ms: wanted.ttl.map(millis),
            lock_delay_ms: wanted.lock_delay.map(millis),
            wait_ms: Some(millis(wanted.wait.min(self.time_left()))),
        };
        let began = Instant::now();
        let acquired = tokio::select! {
            biased;
            // Whatever it is for: what it would guard is not to begin.
            reason = self.cancelled() => Err(ContextError::Stopped(reason)),
            acquired = self.acquire(&request, began) => acquired,
        };
        let outcome = match &acquired {
            Ok(_) => "granted",
            Err(ContextError::LockBusy(_)) => "busy",
            Err(ContextError::Stopped(_)) => "stopped",
            Err(_) => "failed",
        };
        telemetry::lock_waited(outcome, began.elapsed());
        acquired
    }

    async fn acquire(&self, request: &LockRequest, began: Instant) -> Result<AttemptLock, ContextError> {
        let (link, locks) = (&self.inner.surroundings.link, &self.inner.locks);
        loop {
            let before = *locks.releases.lock().await;
            let asked = lock::ask(&**link, request, began).await;
            let Granted { grant, since } = asked.map_err(|error| self.refused(error))?;
            if !locks.enter(grant.token) {
                // It ends by itself: it may be one that was left to, since the work goes on.
                return Err(ContextError::Stopped(CancelReason::LeaseLost));
            }
            let releases = locks.releases.lock().await;
            let since = match since {
                Some(since) if *releases == before => Some(since),
                _ => {
                    let confirmed = lock::confirm(&**link, self.reference(grant.token)).await;
                    confirmed.map_err(|error| self.refused(error))?
                }
            };
            if let Some(since) = since
                && let Some(lost) = self.hold(request, grant.token, since)
            {
                return Ok(AttemptLock { ctx: self.clone(), grant, lost });
            }
        }
    }

    /// One holder more. None: it is not in the table any more.
    fn hold(&self, request: &LockRequest, token: Token, since: Instant) -> Option<CancellationToken> {
        let mut table = self.inner.locks.table();
        let held = table.held.get_mut(&token)?;
        let (mut ttl, mut lost) = (lock::ttl(request), CancellationToken::new());
        if let Some(before) = held.renewal.take() {
            // The last time that was asked for counts. Which one that was is not known: answers may overtake one another.
            (ttl, lost) = (ttl.min(before.ttl), before.lost.clone());
        }
        let stop = self.inner.stop.clone();
        let when_lost = move || stop.now(CancelReason::LockLost);
        let (link, lock) = (&self.inner.surroundings.link, self.reference(token));
        held.renewal = Some(Renewal::start(link, lock, ttl, since, lost.clone(), when_lost));
        held.holders += 1;
        Some(lost)
    }

    /// Gives back what was handed out once. Where that fails it can be repeated, and is when the attempt ends.
    pub(crate) async fn release_lock(&self, token: Token) -> Result<Released, ContextError> {
        let mut releases = self.inner.locks.releases.lock().await;
        if let Some(released) = self.inner.locks.leave(token) {
            return Ok(released);
        }
        // Before the call: it may be carried out, whatever becomes of the answer.
        *releases += 1;
        let refs = LockRefs { locks: vec![self.reference(token)] };
        let answer = self.inner.surroundings.link.release_locks(&refs).await;
        let results = answer.map_err(|error| self.refused(error))?;
        self.inner.locks.table().held.remove(&token);
        let was_held = results.locks.first().is_some_and(|result| result.lost.is_none());
        Ok(if was_held { Released::GivenBack } else { Released::NotHeld })
    }

    /// The attempt is over, and nothing of its work goes on: gives back the locks that it has still. They end by themselves where
    /// the coordinator cannot be asked now.
    pub(crate) async fn release_locks(&self) {
        let tokens = self.inner.locks.end();
        let released = async {
            for batch in tokens.chunks(BATCH_MAX_ITEMS) {
                let locks = batch.iter().map(|token| self.reference(*token)).collect();
                self.inner.surroundings.link.release_locks(&LockRefs { locks }).await?;
            }
            Ok::<_, ClientError>(())
        };
        match tokio::time::timeout(RELEASE_PATIENCE, released).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(task = %self.inner.task, %error, "locks end by themselves"),
            Err(_) => tracing::warn!(task = %self.inner.task, "locks end by themselves: no answer"),
        }
    }

    /// The attempt is over, and its work may go on: its locks end by themselves, with the rest after it. Given back, they would go
    /// to the next at once, while this one is writing still.
    pub(crate) fn leave_locks(&self) {
        let left = self.inner.locks.end();
        if !left.is_empty() {
            tracing::warn!(task = %self.inner.task, locks = left.len(), "locks end by themselves: the work may go on");
        }
    }

    fn owner(&self) -> Owner {
        Owner::Attempt { task: self.inner.task.clone(), epoch: self.inner.epoch }
    }

    /// As calls name it.
    fn reference(&self, token: Token) -> LockRef {
        LockRef { token, owner: self.owner() }
    }
}

impl AttemptLock {
    /// Its fencing token: what writes under it bring along.
    pub fn token(&self) -> Token {
        self.grant.token
    }

    /// What is held.
    pub fn grant(&self) -> &LockGrant {
        &self.grant
    }

    /// Cancelled when it is lost, or the attempt ends: from then on somebody else may have it, and guarded work has to have
    /// stopped.
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Gives it back; where the attempt asked for it more than once, the last one does. False: it was lost before.
    ///
    /// # Errors
    /// The coordinator cannot be asked: the lock is not renewed any more, and given back when the attempt ends.
    pub async fn release(self) -> Result<bool, ContextError> {
        Ok(self.ctx.release_lock(self.grant.token).await? != Released::NotHeld)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
