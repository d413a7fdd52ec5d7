//! A lock, held: renewed as long as it is needed, and told of when it is lost.

use std::sync::Arc;
use std::time::Duration;

use redrive_shared::error::ErrorCode;
use redrive_shared::limits::WAIT_MAX_MS;
use redrive_shared::lock::{Owner, TTL_DEFAULT_MS, Token};
use redrive_shared::wire::{LockGrant, LockRef, LockRefs, LockRequest};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::client::{Client, ClientError};
use crate::link::AttemptLink;
use crate::telemetry;

/// Of its time, the share before whose end a lock counts as lost: guarded work needs time to stop.
const MARGIN: u32 = 5;
/// Of its time, the share after which it is renewed: two renewals may be lost.
const RENEW_AT: u32 = 3;
/// How long to wait until a renewal that failed is tried again, at most.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// A lock that is held by itself, and not for an attempt. Dropped, it ends by itself within its time; [`HeldLock::release`]
/// ends it at once.
#[derive(Debug)]
#[must_use = "a lock that is dropped is not renewed, and ends by itself"]
pub struct HeldLock {
    grant: LockGrant,
    owner: Owner,
    link: Arc<dyn AttemptLink>,
    renewal: Renewal,
}

/// Asks for a lock until it is granted or its time to wait is over, and then keeps it. Where `request` says nothing of it, the
/// lock lasts 30 s after its last renewal.
///
/// # Errors
/// What the coordinator answers: [`ErrorCode::LockBusy`] where somebody else has it. A coordinator that cannot be reached is
/// tried again as long as the caller wants to wait.
pub async fn acquire(client: &Client, request: &LockRequest) -> Result<HeldLock, ClientError> {
    let (link, began) = (Arc::new(client.clone()) as Arc<dyn AttemptLink>, Instant::now());
    loop {
        let Granted { grant, since } = ask(&*link, request, began).await?;
        let lock = LockRef { token: grant.token, owner: request.owner.clone() };
        let since = match since {
            Some(since) => Some(since),
            None => confirm(&*link, lock.clone()).await?,
        };
        if let Some(since) = since {
            let renewal = Renewal::start(&link, lock, ttl(request), since, CancellationToken::new(), || ());
            return Ok(HeldLock { grant, owner: request.owner.clone(), link, renewal });
        }
    }
}

/// For how long a lock is granted and renewed.
pub(crate) fn ttl(request: &LockRequest) -> Duration {
    Duration::from_millis(request.ttl_ms.unwrap_or(TTL_DEFAULT_MS))
}

/// A lock as it was granted.
#[derive(Debug)]
pub(crate) struct Granted {
    pub(crate) grant: LockGrant,
    /// From when on its time counts: when the request was sent, which is a moment before it was granted. None: it was waited for,
    /// and how much of that was before is not known.
    pub(crate) since: Option<Instant>,
}

/// Asks for a lock until it is granted, or was waited for since `began` as long as the request says.
pub(crate) async fn ask(
    link: &dyn AttemptLink,
    request: &LockRequest,
    began: Instant,
) -> Result<Granted, ClientError> {
    let wait = Duration::from_millis(request.wait_ms.unwrap_or(0));
    loop {
        let sent = Instant::now();
        let left = wait.saturating_sub(began.elapsed());
        let left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let asked = LockRequest { wait_ms: Some(left_ms), ..request.clone() };
        match link.acquire_lock(&asked, left_ms.min(WAIT_MAX_MS)).await {
            Ok(Some(grant)) => return Ok(Granted { grant, since: (left_ms == 0).then_some(sent) }),
            Ok(None) => {}
            Err(error) if error.is_retryable() && !left.is_zero() => {
                let pause = error.retry_after().unwrap_or(AGAIN_AFTER);
                sleep(pause.min(left)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Renews a lock, so that it is known from when on its time counts. None: it was lost at once, or there is no answer. Ask again:
/// what is held is granted again.
pub(crate) async fn confirm(link: &dyn AttemptLink, lock: LockRef) -> Result<Option<Instant>, ClientError> {
    let sent = Instant::now();
    match link.renew_locks(&LockRefs { locks: vec![lock] }).await {
        Ok(renewed) => Ok(renewed.locks.first().is_some_and(|result| result.lost.is_none()).then_some(sent)),
        Err(error) if error.is_retryable() => {
            sleep(AGAIN_AFTER).await;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Renews a lock as long as it lives, and says when it is lost.
#[derive(Debug)]
pub(crate) struct Renewal {
    pub(crate) ttl: Duration,
    pub(crate) lost: CancellationToken,
    _renewing: AbortOnDropHandle<()>,
}

impl Renewal {
    /// `lost` is cancelled when it is lost, and `when_lost` called before.
    pub(crate) fn start(
        link: &Arc<dyn AttemptLink>,
        lock: LockRef,
        ttl: Duration,
        since: Instant,
        lost: CancellationToken,
        when_lost: impl FnOnce() + Send + 'static,
    ) -> Self {
        let (link, told) = (Arc::clone(link), lost.clone());
        let renewing = tokio::spawn(async move {
            renew(&*link, lock, ttl, since).await;
            telemetry::lock_lost();
            when_lost();
            told.cancel();
        });
        Self { ttl, lost, _renewing: AbortOnDropHandle::new(renewing) }
    }
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
        self.grant.token
    }

    /// What is held.
    pub fn grant(&self) -> &LockGrant {
        &self.grant
    }

    /// Cancelled when it is lost: from then on somebody else may have it, and guarded work has to have stopped.
    pub fn lost(&self) -> CancellationToken {
        self.renewal.lost.clone()
    }

    /// Gives it back. False: it was lost before.
    ///
    /// # Errors
    /// The coordinator cannot be asked: the lock ends by itself.
    pub async fn release(self) -> Result<bool, ClientError> {
        // From here on it is no news that it ends.
        drop(self.renewal);
        let locks = vec![LockRef { token: self.grant.token, owner: self.owner }];
        let released = self.link.release_locks(&LockRefs { locks }).await?;
        Ok(released.locks.first().is_some_and(|result| result.lost.is_none()))
    }
}

/// Whether an error says that somebody else has the lock.
pub fn is_busy(error: &ClientError) -> bool {
    matches!(error, ClientError::Problem(problem) if problem.code == ErrorCode::LockBusy)
}
