//! The desk of the locks: asks the store, and keeps those that wait here until it is their turn.
//!
//! The line itself is in the store, so that who comes first is served first, over any number of coordinators. Here is only who
//! waits *at this one*: each asks the store once, and then sleeps until an offer is heard of, in the answer to somebody's
//! release, or from another coordinator. What time alone ends (a lock that expires, the pause after it) is looked after by the
//! desk, which sleeps until the moment that the store named last.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redrive_shared::clock::Clock;
use redrive_shared::lock::{
    Acquired, Answer, Answers, Blocker, Granted, Lost, Owner, PickedUp, Refused, Request, Token, Verb, WaitId,
};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::alarm::Alarm;
use crate::store::{Locks, Store, StoreError};

/// How often the store hears that somebody still waits: a hint that was lost is made up for then, too, before its offer is over
/// ([`PICK_UP_MS`](redrive_shared::lock::PICK_UP_MS)).
const ALIVE_EVERY: Duration = Duration::from_secs(2);
/// How long to wait before offers that may have been missed are asked for.
const MISSED_AFTER: Duration = Duration::from_millis(100);
/// Signs of life in one call.
const SIGNS_MAX: usize = 100;
/// How long to wait after the store failed.
const RETRY_AFTER_FAILURE_MS: i64 = 500;

/// What became of a wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// It is granted.
    Held(Granted),
    /// It stands in line still: ask again within 15 s, and it keeps its place.
    Waits,
    /// Somebody has it, and the time to wait is over, or there was none. Who, where that is known.
    Busy(Option<Blocker>),
    /// It cannot be.
    Refused(Refused),
}

/// The desk.
pub struct Desk {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    /// Rings when something ends that somebody waits for.
    alarm: Alarm,
    waiting: Mutex<HashMap<WaitId, Waiting>>,
    /// Told when offers may have been missed.
    missed: Notify,
}

/// Those that wait here at one place in line: one, but for a client that asked twice.
struct Waiting {
    here: usize,
    called: Arc<Notify>,
}

impl Desk {
    /// A desk before a store.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            store,
            clock,
            alarm: Alarm::default(),
            waiting: Mutex::default(),
            missed: Notify::new(),
        })
    }

    /// Asks for a lock, and waits for it until it is granted, its time to wait is over, or `until`.
    ///
    /// # Errors
    /// The store fails. The lock may have been granted then: the same wish again is given it.
    pub async fn acquire(
        self: &Arc<Self>,
        request: Request,
        until: impl Future<Output = ()>,
    ) -> Result<Wish, StoreError> {
        let ends = Instant::now() + Duration::from_millis(request.wait_ms);
        tokio::pin!(until);
        loop {
            let left = ends.saturating_duration_since(Instant::now());
            let wait_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            let asked = request.clone().timed(request.ttl_ms, request.delay_ms, wait_ms);
            let id = match self.ask_one(Verb::Acquire(asked)).await? {
                Answer::Acquired(Ok(Acquired::Held(granted))) => return Ok(Wish::Held(granted)),
                Answer::Acquired(Ok(Acquired::Busy(blocker))) => return Ok(Wish::Busy(Some(blocker))),
                Answer::Acquired(Ok(Acquired::Waits(id))) => id,
                Answer::Acquired(Err(refused)) => return Ok(Wish::Refused(refused)),
                _ => return Err(unexpected()),
            };
            match self.wait_for(id, until.as_mut()).await? {
                Some(wish) => return Ok(wish),
                // The store has forgotten the place, or an offer was missed: it stands in line anew.
                None if Instant::now() < ends => {}
                None => return Ok(Wish::Busy(None)),
            }
        }
    }

    /// Waits at a place in line. None: there is no such place any more.
    async fn wait_for(
        self: &Arc<Self>,
        id: WaitId,
        mut until: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Option<Wish>, StoreError> {
        let place = self.wait_at(id);
        let called = place.called();
        loop {
            // Registered before it asks: an offer that is made from here on is heard.
            let notified = called.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            let picked_up = self.ask_one(Verb::PickUp(id)).await;
            let wish = match picked_up {
                Ok(Answer::PickedUp(PickedUp::Waits)) => None,
                Ok(Answer::PickedUp(PickedUp::Held(granted))) => Some(Ok(Some(Wish::Held(granted)))),
                Ok(Answer::PickedUp(PickedUp::Gone)) => Some(Ok(None)),
                Ok(_) => Some(Err(unexpected())),
                // Its caller is told to ask again: it keeps its place for that.
                Err(error) => Some(Err(error)),
            };
            if let Some(wish) = wish {
                place.leave();
                return wish;
            }
            tokio::select! {
                () = notified => {}
                () = &mut until => {
                    place.leave();
                    return Ok(Some(Wish::Waits));
                }
            }
        }
    }

    /// Makes locks last their time from now on; answers in order: until when (µs).
    ///
    /// # Errors
    /// The store fails: whether they last is not known.
    pub async fn renew(&self, locks: Vec<(Token, Owner)>) -> Result<Vec<Result<i64, Lost>>, StoreError> {
        let verbs = locks.into_iter().map(|(token, owner)| Verb::Renew(token, owner)).collect();
        let read = |answer| match answer {
            Answer::Renewed(renewed) => Ok(renewed),
            _ => Err(unexpected()),
        };
        self.ask(verbs).await?.into_iter().map(read).collect()
    }

    /// Gives locks back; answers in order.
    ///
    /// # Errors
    /// The store fails: the same again does no harm.
    pub async fn release(&self, locks: Vec<(Token, Owner)>) -> Result<Vec<Result<(), Lost>>, StoreError> {
        let verbs = locks.into_iter().map(|(token, owner)| Verb::Release(token, owner)).collect();
        let read = |answer| match answer {
            Answer::Released(released) => Ok(released),
            _ => Err(unexpected()),
        };
        self.ask(verbs).await?.into_iter().map(read).collect()
    }

    /// Ends somebody's lock. None: there is no such lock.
    ///
    /// # Errors
    /// The store fails.
    pub async fn break_lock(&self, token: Token) -> Result<Option<redrive_shared::lock::Hold>, StoreError> {
        match self.ask_one(Verb::Break(token)).await? {
            Answer::Broken(hold) => Ok(hold),
            _ => Err(unexpected()),
        }
    }

    /// Locks and those that wait, up to so many of each.
    ///
    /// # Errors
    /// The store fails.
    pub async fn locks(&self, most: usize) -> Result<Locks, StoreError> {
        // What is over is not shown.
        self.ask(vec![Verb::Advance]).await?;
        self.store.locks(most).await
    }

    /// Places in line were granted, by this coordinator or another.
    pub fn offered(&self, ids: &[WaitId]) {
        let waiting = self.lock();
        for id in ids {
            if let Some(here) = waiting.get(id) {
                here.called.notify_waiters();
            }
        }
    }

    /// Offers may have been missed: those that wait here ask.
    pub fn look_again(&self) {
        self.missed.notify_one();
    }

    /// Ends what time ends, and shows that those who wait here are alive, until shutdown.
    pub async fn run(&self, shutdown: CancellationToken) {
        let mut signs = tokio::time::interval_at(Instant::now() + ALIVE_EVERY, ALIVE_EVERY);
        signs.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let verbs: Vec<Verb> = tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.alarm.wait(&*self.clock) => {
                    self.alarm.clear();
                    vec![Verb::Advance]
                }
                _ = signs.tick() => self.signs(),
                () = self.missed.notified() => {
                    tokio::time::sleep(MISSED_AFTER).await;
                    self.signs()
                }
            };
            // Whoever waits at another coordinator is looked after there.
            if self.lock().is_empty() {
                continue;
            }
            for part in verbs.chunks(SIGNS_MAX) {
                self.look(part.to_vec()).await;
            }
        }
    }

    fn signs(&self) -> Vec<Verb> {
        self.lock().keys().map(|id| Verb::PickUp(*id)).collect()
    }

    async fn look(&self, verbs: Vec<Verb>) {
        let ids: Vec<Option<WaitId>> =
            verbs.iter().map(|verb| if let Verb::PickUp(id) = verb { Some(*id) } else { None }).collect();
        match self.ask(verbs).await {
            Ok(answers) => {
                let due = ids.into_iter().zip(answers).filter_map(|(id, answer)| match answer {
                    Answer::PickedUp(PickedUp::Waits) => None,
                    _ => id,
                });
                self.offered(&due.collect::<Vec<_>>());
            }
            Err(error) => {
                tracing::warn!(%error, "cannot look after the locks");
                self.alarm.set_earlier(self.clock.now_ms() + RETRY_AFTER_FAILURE_MS);
            }
        }
    }

    async fn ask_one(&self, verb: Verb) -> Result<Answer, StoreError> {
        self.ask(vec![verb]).await?.pop().ok_or_else(unexpected)
    }

    async fn ask(&self, verbs: Vec<Verb>) -> Result<Vec<Answer>, StoreError> {
        let asked = self.store.lock(verbs).await;
        if asked.is_err() {
            // What was offered on the way is not known.
            self.look_again();
        }
        let Answers { answers, offered, next_us } = asked?;
        self.offered(&offered);
        if let Some(next_us) = next_us {
            self.alarm.set_earlier(next_us.saturating_add(999).div_euclid(1_000));
        }
        Ok(answers)
    }

    fn wait_at(self: &Arc<Self>, id: WaitId) -> Place {
        let mut waiting = self.lock();
        waiting.entry(id).or_insert_with(|| Waiting { here: 0, called: Arc::default() }).here += 1;
        Place { desk: Arc::clone(self), id, hung_up: true }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<WaitId, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who waits here, until dropped.
struct Place {
    desk: Arc<Desk>,
    id: WaitId,
    /// Whether the caller went away without an answer.
    hung_up: bool,
}

impl Place {
    fn called(&self) -> Arc<Notify> {
        self.desk.lock().get(&self.id).map(|waiting| Arc::clone(&waiting.called)).unwrap_or_default()
    }

    /// The caller has its answer.
    fn leave(mut self) {
        self.hung_up = false;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.desk.lock();
        let Some(here) = waiting.get_mut(&self.id) else { return };
        here.here -= 1;
        let last = here.here == 0;
        if last {
            waiting.remove(&self.id);
        }
        drop(waiting);
        // Nobody waits any more: a grant would keep others waiting for nothing.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.hung_up && last {
            let (desk, id) = (Arc::clone(&self.desk), self.id);
            runtime.spawn(async move { desk.call_off(id).await });
        }
    }
}

impl Desk {
    /// The place is given up, and an offer that was not picked up. What was picked up is not: its owner may have asked again, here
    /// or elsewhere, and have it.
    async fn call_off(&self, id: WaitId) {
        if let Err(error) = self.ask_one(Verb::CallOff(id)).await {
            tracing::warn!(%error, "a place in line cannot be given up; it ends by itself");
        }
    }
}

fn unexpected() -> StoreError {
    StoreError::Corrupt("the store answered something else than was asked of a lock".into())
}
