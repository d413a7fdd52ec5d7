//! A lock, held: renewed as long as it is needed, and told of when it is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redrive_shared::error::ErrorCode;
use redrive_shared::limits::WAIT_MAX_MS;
use redrive_shared::lock::{Owner, TTL_DEFAULT_MS, Token};
use redrive_shared::wire::{LockGrant, LockRef, LockRefs, LockRequest};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::client::{Client, ClientError};
use crate::link::AttemptLink;
use crate::telemetry;

/// Of its time, the share before whose end a lock counts as lost: guarded work needs time to stop.
const MARGIN: u32 = 5;
/// Of its time, the share after which it is renewed: two renewals may be lost.
const RENEW_AT: u32 = 3;
/// How long to wait until a renewal that failed is tried again, at most.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// A lock that is held. Dropped, it ends by itself within its time; [`HeldLock::release`] ends it at once.
#[derive(Debug)]
pub struct HeldLock {
    kept: Arc<Kept>,
    /// Ends the renewals.
    renewing: DropGuard,
}

/// What there is to know of a lock that is held, also for who has to give it back when its holder forgets it.
#[derive(Debug)]
pub(crate) struct Kept {
    grant: LockGrant,
    owner: Owner,
    link: Arc<dyn AttemptLink>,
    lost: CancellationToken,
    /// It was given back, or is lost.
    over: AtomicBool,
}

/// Asks for a lock until it is granted or its time to wait is over, and then keeps it. Where `request` says nothing of it, the
/// lock lasts 30 s after its last renewal.
///
/// # Errors
/// What the coordinator answers: [`ErrorCode::LockBusy`] where somebody else has it. A coordinator that cannot be reached is
/// tried again as long as the caller wants to wait.
pub async fn acquire(client: &Client, request: &LockRequest) -> Result<HeldLock, ClientError> {
    acquire_over(&(Arc::new(client.clone()) as Arc<dyn AttemptLink>), request, || ()).await
}

/// [`acquire`], over that link. `when_lost` is called if it is lost.
pub(crate) async fn acquire_over(
    link: &Arc<dyn AttemptLink>,
    request: &LockRequest,
    when_lost: impl FnOnce() + Send + 'static,
) -> Result<HeldLock, ClientError> {
    let wait = Duration::from_millis(request.wait_ms.unwrap_or(0));
    let began = Instant::now();
    loop {
        let sent = Instant::now();
        let left = wait.saturating_sub(began.elapsed());
        let left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let asked = LockRequest { wait_ms: Some(left_ms), ..request.clone() };
        match link.acquire_lock(&asked, left_ms.min(WAIT_MAX_MS)).await {
            // It counts from when the request was sent: that is a moment before it was granted, unless it was waited for.
            Ok(Some(grant)) if left_ms == 0 => return Ok(keep(link, request, grant, sent, when_lost)),
            Ok(Some(grant)) => {
                // How much of the wait was before the grant is not known: once renewed, it is.
                let held = LockRef { token: grant.token, owner: request.owner.clone() };
                let sent = Instant::now();
                match link.renew_locks(&LockRefs { locks: vec![held] }).await {
                    Ok(renewed) if renewed.locks.first().is_some_and(|result| result.lost.is_none()) => {
                        return Ok(keep(link, request, grant, sent, when_lost));
                    }
                    // It was lost at once, or the answer is not known: what is held is granted again.
                    Ok(_) => {}
                    Err(error) if error.is_retryable() => sleep(AGAIN_AFTER).await,
                    Err(error) => return Err(error),
                }
            }
            Ok(None) => {}
            Err(error) if error.is_retryable() && !left.is_zero() => {
                let pause = error.retry_after().unwrap_or(AGAIN_AFTER);
                sleep(pause.min(left)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

fn keep(
    link: &Arc<dyn AttemptLink>,
    request: &LockRequest,
    grant: LockGrant,
    sent: Instant,
    when_lost: impl FnOnce() + Send + 'static,
) -> HeldLock {
    let ttl = Duration::from_millis(request.ttl_ms.unwrap_or(TTL_DEFAULT_MS));
    let kept = Arc::new(Kept {
        grant,
        owner: request.owner.clone(),
        link: Arc::clone(link),
        lost: CancellationToken::new(),
        over: AtomicBool::new(false),
    });
    let (renewing, holder) = (CancellationToken::new(), Arc::clone(&kept));
    let stop = renewing.clone();
    tokio::spawn(async move {
        if stop.run_until_cancelled(renew(&*holder.link, holder.reference(), ttl, sent)).await.is_none() {
            return;
        }
        // Given back by who looks after its holder: that is no loss.
        if !holder.over.swap(true, Ordering::Relaxed) {
            telemetry::lock_lost();
            when_lost();
        }
        holder.lost.cancel();
    });
    HeldLock { kept, renewing: renewing.drop_guard() }
}

/// Renews a lock until it is lost.
async fn renew(link: &dyn AttemptLink, lock: LockRef, ttl: Duration, sent: Instant) {
    let token = lock.token;
    let refs = LockRefs { locks: vec![lock] };
    let mut last = sent;
    loop {
        // By this machine's monotonic clock, from before the request left: never later than by the store's.
        let ends = last + ttl - ttl / MARGIN;
        sleep_until((last + ttl / RENEW_AT).min(ends)).await;
        loop {
            let sent = Instant::now();
            if sent >= ends {
                tracing::warn!(%token, "the lock could not be renewed in time, and counts as lost");
                return;
            }
            // One call that hangs must not be the last.
            let until = ends.min(sent + ttl / (2 * RENEW_AT));
            match tokio::time::timeout_at(until, link.renew_locks(&refs)).await {
                Ok(Ok(results)) => match results.locks.first() {
                    Some(result) if result.lost.is_none() => {
                        last = sent;
                        break;
                    }
                    result => {
                        let why = result.and_then(|result| result.lost);
                        tracing::warn!(%token, ?why, "the lock is lost");
                        return;
                    }
                },
                Ok(Err(error)) => {
                    tracing::warn!(%token, %error, "cannot renew the lock yet");
                    sleep_until((Instant::now() + AGAIN_AFTER).min(ends)).await;
                }
                Err(_) => {}
            }
        }
    }
}

impl HeldLock {
    /// Its fencing token: what writes under it bring along.
    pub fn token(&self) -> Token {
        self.kept.grant.token
    }

    /// What is held.
    pub fn grant(&self) -> &LockGrant {
        &self.kept.grant
    }

    /// Cancelled when it is lost: from then on somebody else may have it, and guarded work has to have stopped.
    pub fn lost(&self) -> CancellationToken {
        self.kept.lost.clone()
    }

    /// Gives it back. False: it was lost before.
    ///
    /// # Errors
    /// The coordinator cannot be asked: the lock ends by itself.
    pub async fn release(self) -> Result<bool, ClientError> {
        // From here on it is no news that it ends.
        drop(self.renewing);
        self.kept.over.store(true, Ordering::Relaxed);
        let locks = vec![self.kept.reference()];
        let released = self.kept.link.release_locks(&LockRefs { locks }).await?;
        Ok(released.locks.first().is_some_and(|result| result.lost.is_none()))
    }

    pub(crate) fn kept(&self) -> &Arc<Kept> {
        &self.kept
    }
}

impl Kept {
    /// As calls name it.
    fn reference(&self) -> LockRef {
        LockRef { token: self.grant.token, owner: self.owner.clone() }
    }

    /// Whether it was given back, or is lost.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Takes it from its holder, to give it back. None: it is over already.
    pub(crate) fn take(&self) -> Option<LockRef> {
        (!self.over.swap(true, Ordering::Relaxed)).then(|| self.reference())
    }
}

/// Whether an error says that somebody else has the lock.
pub fn is_busy(error: &ClientError) -> bool {
    matches!(error, ClientError::Problem(problem) if problem.code == ErrorCode::LockBusy)
}
