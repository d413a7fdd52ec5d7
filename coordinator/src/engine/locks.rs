//! Locks: what their verbs mean.

use std::time::Duration;

use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::id::Name;
use redrive_shared::limits::{BATCH_MAX_ITEMS, REASON_MAX_BYTES, WAIT_MAX_MS};
use redrive_shared::lock::{
    Blocker, LOCK_DELAY_MAX_MS, LOCK_DELAY_MS, LOCK_RESOURCES_MAX, LOCK_WAIT_MAX_MS, LOCK_WAITERS_MAX,
    LOCKS_MAX, Mode, Owner, Refused, Request, Resource, TTL_DEFAULT_MS, TTL_MAX_MS, TTL_MIN_MS, Token,
};
use redrive_shared::task::TaskState;
use redrive_shared::wire::{
    LockBreak, LockGrant, LockRefs, LockReply, LockRequest, LockResult, LockResults, LockView, LockWaitView,
    LocksReply,
};
use tokio::time::Instant;

use super::{Engine, Result, check, unavailable};
use crate::locks::Wish;
use crate::metrics;
use crate::store::StoreError;

/// Most locks, and most that wait, in one list.
const LIST_MAX: usize = BATCH_MAX_ITEMS;

impl Engine {
    /// Asks for a lock; waits for it if the caller wants to.
    pub async fn acquire_lock(&self, request: LockRequest) -> Result<LockReply> {
        let wait_ms = request.wait_ms.unwrap_or(0);
        let wish = wish(request)?;
        let (ttl_ms, owner) = (wish.ttl_ms, wish.owner.clone());
        self.check_attempt(&owner).await?;
        let (began, poll_ms) = (Instant::now(), wait_ms.min(WAIT_MAX_MS));
        let until = async {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(poll_ms)) => {}
                () = self.stopping.cancelled() => {}
            }
        };
        let wished = self.locks.acquire(wish, until).await.map_err(unavailable)?;
        let waited = began.elapsed();
        match wished {
            Wish::Held(untold) => {
                if let Err(problem) = self.check_attempt(&owner).await {
                    // It waited for longer than its lease lasted.
                    let granted = untold.told();
                    let given_back = self.locks.release(vec![(granted.token, owner)]).await;
                    given_back.map_err(unavailable)?;
                    return Err(problem);
                }
                metrics::record_lock_wait("granted", waited);
                let granted = untold.told();
                Ok(LockReply { lock: Some(LockGrant::of(&granted, ttl_ms)) })
            }
            Wish::Waits if wait_ms > poll_ms || self.stopping.is_cancelled() => Ok(LockReply { lock: None }),
            Wish::Waits => {
                metrics::record_lock_wait("busy", waited);
                Err(busy(None, wait_ms))
            }
            Wish::Busy(blocker) => {
                metrics::record_lock_wait("busy", waited);
                Err(busy(blocker.as_ref(), wait_ms))
            }
            Wish::Refused(refusal) => {
                if refusal == Refused::Superseded {
                    metrics::record_fence_rejected("acquire");
                }
                metrics::record_lock_wait("refused", waited);
                Err(refused(&refusal))
            }
        }
    }

    /// Whether it is this coordinator's turn at something that one does for all: nobody else gets a turn at it for so many
    /// milliseconds, and this one does.
    pub(crate) async fn take_turn(
        &self,
        resource: Resource,
        owner: Owner,
        ttl_ms: u64,
    ) -> std::result::Result<bool, StoreError> {
        let wish = Request::new(owner, [(resource, Mode::Exclusive)]);
        let Some(wish) = wish.map(|wish| wish.timed(ttl_ms.clamp(TTL_MIN_MS, TTL_MAX_MS), 0, 0)) else {
            return Ok(false);
        };
        let Wish::Held(turn) = self.locks.acquire(wish, std::future::ready(())).await? else {
            return Ok(false);
        };
        turn.told();
        Ok(true)
    }

    /// Makes locks last.
    pub async fn renew_locks(&self, request: LockRefs) -> Result<LockResults> {
        check::batch("locks", request.locks.len())?;
        let tokens: Vec<Token> = request.locks.iter().map(|lock| lock.token).collect();
        let locks = request.locks.into_iter().map(|lock| (lock.token, lock.owner)).collect();
        let renewed = self.locks.renew(locks).await.map_err(unavailable)?;
        let results = tokens.into_iter().zip(renewed).map(|(token, renewed)| {
            let lost = renewed.err();
            lost.iter().for_each(|why| metrics::record_lock_lost("renew", *why));
            LockResult { token, until_ms: renewed.ok().map(|until_us| until_us.div_euclid(1_000)), lost }
        });
        Ok(LockResults { locks: results.collect() })
    }

    /// Gives locks back.
    pub async fn release_locks(&self, request: LockRefs) -> Result<LockResults> {
        check::batch("locks", request.locks.len())?;
        let tokens: Vec<Token> = request.locks.iter().map(|lock| lock.token).collect();
        let locks = request.locks.into_iter().map(|lock| (lock.token, lock.owner)).collect();
        let released = self.locks.release(locks).await.map_err(unavailable)?;
        let results = tokens.into_iter().zip(released).map(|(token, released)| {
            let lost = released.err();
            lost.iter().for_each(|why| metrics::record_lock_lost("release", *why));
            LockResult { token, until_ms: None, lost }
        });
        Ok(LockResults { locks: results.collect() })
    }

    /// Locks, and who waits: for anything, or for one resource.
    pub async fn list_locks(&self, resource: Option<&Resource>) -> Result<LocksReply> {
        let found = self.locks.locks(resource, LIST_MAX).await.map_err(unavailable)?;
        let locks = found.holds.iter().map(LockView::from).collect();
        let waiting = found.waits.iter().map(LockWaitView::from).collect();
        Ok(LocksReply { locks, waiting, more: found.more })
    }

    /// Shows the locks as metrics.
    pub(crate) async fn record_locks(&self) -> Result<()> {
        metrics::record_lock_counts(self.locks.counts().await.map_err(unavailable)?);
        Ok(())
    }

    /// Ends somebody's lock; returns what it was.
    pub async fn break_lock(&self, request: LockBreak, actor: Option<Name>) -> Result<LockView> {
        let reason = request.reason.unwrap_or_default();
        if reason.len() > REASON_MAX_BYTES {
            let detail =
                format!("`reason` has {} bytes; at most {REASON_MAX_BYTES} are allowed", reason.len());
            return Err(Problem::new(ErrorCode::InvalidValue, detail).at("reason"));
        }
        let token = request.token;
        let Some(hold) = self.locks.break_lock(token).await.map_err(unavailable)? else {
            let detail = format!(
                "there is no lock with the token {token}: it was released, or is over; see `redrive locks list`"
            );
            return Err(Problem::new(ErrorCode::UnknownLock, detail).at("token"));
        };
        let actor = actor.as_deref().unwrap_or("somebody");
        tracing::warn!(%token, owner = %hold.owner, actor, reason, "a lock was broken");
        metrics::record_lock_broken();
        Ok(LockView::from(&hold))
    }

    /// An attempt whose lease is over gets no lock. Only a check of what is known now: the token is what keeps a late one out.
    async fn check_attempt(&self, owner: &Owner) -> Result<()> {
        let Owner::Attempt { task, epoch } = owner else { return Ok(()) };
        let known = self.store.status(vec![task.clone()]).await.map_err(unavailable)?;
        let Some(view) = known.first() else {
            let detail = format!(
                "there is no task `{task}`; the owner of a lock is one that is leased, or has a name"
            );
            return Err(Problem::new(ErrorCode::UnknownTask, detail).at("owner.task"));
        };
        if view.state == TaskState::Leased && view.epoch == *epoch {
            return Ok(());
        }
        metrics::record_fence_rejected("acquire");
        let detail = format!("the lease {epoch} of `{task}` is over; stop what you do for it");
        Err(Problem::new(ErrorCode::StaleEpoch, detail).at("owner.epoch"))
    }
}

/// What is wished, checked.
fn wish(request: LockRequest) -> Result<Request> {
    let LockRequest { owner, exclusive, shared, ttl_ms, lock_delay_ms, wait_ms } = request;
    let ttl_ms = bounded("ttl_ms", ttl_ms.unwrap_or(TTL_DEFAULT_MS), TTL_MIN_MS, TTL_MAX_MS)?;
    let delay_ms = bounded("lock_delay_ms", lock_delay_ms.unwrap_or(LOCK_DELAY_MS), 0, LOCK_DELAY_MAX_MS)?;
    let wait_ms = bounded("wait_ms", wait_ms.unwrap_or(0), 0, LOCK_WAIT_MAX_MS)?;
    let named = exclusive.len() + shared.len();
    let wants = exclusive.into_iter().map(|name| (name, Mode::Exclusive));
    let wants = wants.chain(shared.into_iter().map(|name| (name, Mode::Shared)));
    let wish = if named > LOCK_RESOURCES_MAX { None } else { Request::new(owner, wants) };
    let wish = wish.ok_or_else(|| {
        let detail = format!(
            "{named} resources are named in `exclusive` and `shared`; name 1 to {LOCK_RESOURCES_MAX}"
        );
        Problem::new(ErrorCode::InvalidValue, detail).at("exclusive")
    })?;
    Ok(wish.timed(ttl_ms, delay_ms, wait_ms))
}

fn bounded(field: &str, value: u64, least: u64, most: u64) -> Result<u64> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    let detail = format!("`{field}` is {value} ms; it must be from {least} to {most} ms");
    Err(Problem::new(ErrorCode::InvalidValue, detail).at(field))
}

fn busy(blocker: Option<&Blocker>, wait_ms: u64) -> Problem {
    let what = match blocker {
        Some(Blocker { resource, owner, until_us: Some(_) }) => format!("`{resource}` is held by {owner}"),
        Some(Blocker { resource, owner, until_us: None }) => {
            format!("{owner} stands in line for `{resource}` before you")
        }
        None => "it was not granted".to_owned(),
    };
    let instead = if wait_ms == 0 { "wait for it with `wait_ms`" } else { "try again" };
    let waited = if wait_ms == 0 { String::new() } else { format!(" within {wait_ms} ms") };
    Problem::new(ErrorCode::LockBusy, format!("{what}{waited}; {instead}, or see `redrive locks list`"))
}

fn refused(refusal: &Refused) -> Problem {
    match refusal {
        Refused::Superseded => {
            let detail = "a later attempt of the task has locks already: this one's lease is over; stop what you do for it";
            Problem::new(ErrorCode::StaleEpoch, detail).at("owner.epoch")
        }
        Refused::Overlap(resource) => {
            let detail = format!(
                "you have `{resource}`, or wait for it, by another lock that does not cover this one; release that first, or ask \
                 for all that you need at once"
            );
            Problem::new(ErrorCode::LockOverlap, detail)
        }
        Refused::TooManyWaiters => {
            let detail = format!("{LOCK_WAITERS_MAX} wait for locks already; come back later");
            Problem::new(ErrorCode::LimitReached, detail)
        }
        Refused::TooManyLocks => {
            let detail = format!("{LOCKS_MAX} locks are held already; come back later");
            Problem::new(ErrorCode::LimitReached, detail)
        }
    }
}
