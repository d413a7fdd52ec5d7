//! The desk of the locks: asks the store, and keeps those that wait here until it is their turn.
//!
//! The line itself is in the store, so that who comes first is served first, over any number of coordinators. Here is only who
//! waits *at this one*: each asks the store once, and then sleeps until an offer is heard of, in the answer to somebody's
//! release, or from another coordinator. What time alone ends (a lock that expires, the pause after it) is looked after by the
//! desk, which sleeps until the moment that the store named last.
//!
//! A caller may be gone before it is told of what it was granted. Then nobody would release it: so it is given back, unless its
//! owner has asked for it again or knew of it before.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redrive_shared::clock::Clock;
use redrive_shared::lock::{
    Acquired, Answer, Answers, Blocker, Granted, Hold, Lost, Owner, PickedUp, Refused, Request, Resource,
    Token, Verb, WaitId,
};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::alarm::Alarm;
use crate::metrics::record_locks_expired;
use crate::store::{LockCounts, Locks, Store, StoreError};

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
pub enum Wish {
    /// It is granted.
    Held(Untold),
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
    owner: Owner,
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
            let place = match self.ask_for(Verb::Acquire(asked), &request.owner).await? {
                Asked::Held(untold) => return Ok(Wish::Held(untold)),
                Asked::Waits(place) => place,
                Asked::Other(Answer::Acquired(Ok(Acquired::Busy(blocker)))) => {
                    return Ok(Wish::Busy(Some(blocker)));
                }
                Asked::Other(Answer::Acquired(Err(refused))) => return Ok(Wish::Refused(refused)),
                Asked::Other(_) => return Err(unexpected()),
            };
            match self.wait_at(place, until.as_mut()).await? {
                Some(wish) => return Ok(wish),
                // The store has forgotten the place, or an offer was missed: it stands in line anew.
                None if Instant::now() < ends => {}
                None => return Ok(Wish::Busy(None)),
            }
        }
    }

    /// Waits at a place in line. None: there is no such place any more.
    async fn wait_at(
        self: &Arc<Self>,
        place: Place,
        mut until: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Option<Wish>, StoreError> {
        let called = place.called();
        loop {
            // Registered before it asks: an offer that is made from here on is heard.
            let notified = called.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            let picked_up = self.ask_for(Verb::PickUp(place.id, place.owner.clone()), &place.owner).await;
            let wish = match picked_up {
                Ok(Asked::Held(untold)) => Some(Ok(Some(Wish::Held(untold)))),
                Ok(Asked::Other(Answer::PickedUp(PickedUp::Waits))) => None,
                Ok(Asked::Other(Answer::PickedUp(PickedUp::Gone))) => Some(Ok(None)),
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
    pub async fn break_lock(&self, token: Token) -> Result<Option<Hold>, StoreError> {
        match self.ask_one(Verb::Break(token)).await? {
            Answer::Broken(hold) => Ok(hold),
            _ => Err(unexpected()),
        }
    }

    /// Locks and those that wait, of all resources or of one, up to so many of each.
    ///
    /// # Errors
    /// The store fails.
    pub async fn locks(&self, resource: Option<&Resource>, most: usize) -> Result<Locks, StoreError> {
        // What is over is not shown.
        self.ask(vec![Verb::Advance]).await?;
        self.store.locks(resource, most).await
    }

    /// How many locks stand, and how many wait for one.
    ///
    /// # Errors
    /// The store fails.
    pub async fn counts(&self) -> Result<LockCounts, StoreError> {
        Ok(self.locks(None, 0).await?.counts)
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
    pub async fn run(self: &Arc<Self>, shutdown: CancellationToken) {
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
        self.lock().iter().map(|(id, here)| Verb::PickUp(*id, here.owner.clone())).collect()
    }

    async fn look(self: &Arc<Self>, verbs: Vec<Verb>) {
        match self.ask(verbs.clone()).await {
            Ok(answers) => {
                for (verb, answer) in verbs.into_iter().zip(answers) {
                    if let Verb::PickUp(id, owner) = verb {
                        self.looked(id, owner, answer);
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot look after the locks");
                self.alarm.set_earlier(self.clock.now_ms() + RETRY_AFTER_FAILURE_MS);
            }
        }
    }

    /// What a sign of life at a place was answered with.
    fn looked(self: &Arc<Self>, id: WaitId, owner: Owner, answer: Answer) {
        if let Answer::PickedUp(PickedUp::Held(granted)) = answer {
            let untold = Untold::new(self, owner, granted);
            // Whoever waits here asks for it in a moment. Where nobody does any more, it is given back.
            if self.lock().contains_key(&id) {
                untold.told();
            }
        } else if answer == Answer::PickedUp(PickedUp::Waits) {
            return;
        }
        self.offered(&[id]);
    }

    /// Asks for something that may be granted, and hears the answer also where its caller hangs up meanwhile: then it is dropped,
    /// and given back by that.
    async fn ask_for(self: &Arc<Self>, verb: Verb, owner: &Owner) -> Result<Asked, StoreError> {
        let (desk, owner) = (Arc::clone(self), owner.clone());
        let asking = tokio::spawn(async move {
            Ok(match desk.ask_one(verb).await? {
                Answer::Acquired(Ok(Acquired::Held(granted))) | Answer::PickedUp(PickedUp::Held(granted)) => {
                    Asked::Held(Untold::new(&desk, owner, granted))
                }
                Answer::Acquired(Ok(Acquired::Waits(id))) => Asked::Waits(Place::new(&desk, id, owner)),
                other => Asked::Other(other),
            })
        });
        asking.await.unwrap_or_else(|_| Err(unexpected()))
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
        let Answers { answers, offered, expired, next_us } = asked?;
        record_locks_expired(expired);
        self.offered(&offered);
        if let Some(next_us) = next_us {
            self.alarm.set_earlier(next_us.saturating_add(999).div_euclid(1_000));
        }
        Ok(answers)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<WaitId, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was answered to whoever asks for a lock.
enum Asked {
    Held(Untold),
    Waits(Place),
    Other(Answer),
}

/// A lock that was granted and of which its owner has not been told yet. Dropped, it is given back.
pub struct Untold {
    /// None: it was told, or knew before.
    desk: Option<Arc<Desk>>,
    owner: Owner,
    granted: Granted,
}

impl Untold {
    fn new(desk: &Arc<Desk>, owner: Owner, granted: Granted) -> Self {
        Self { desk: granted.is_news.then(|| Arc::clone(desk)), owner, granted }
    }

    /// Its owner is told, as far as can be known here.
    pub fn told(mut self) -> Granted {
        self.desk = None;
        self.granted.clone()
    }
}

impl Drop for Untold {
    fn drop(&mut self) {
        let Some(desk) = self.desk.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let back = Verb::TakeBack(self.granted.token, self.owner.clone(), self.granted.until_us);
        runtime.spawn(async move {
            if let Err(error) = desk.ask_one(back).await {
                tracing::warn!(%error, "a lock whose owner hung up cannot be given back; it ends by itself");
            }
        });
    }
}

/// Somebody who waits here, until dropped.
struct Place {
    desk: Arc<Desk>,
    id: WaitId,
    owner: Owner,
    /// Whether the caller went away without an answer.
    hung_up: bool,
}

impl Place {
    fn new(desk: &Arc<Desk>, id: WaitId, owner: Owner) -> Self {
        let fresh = || Waiting { owner: owner.clone(), here: 0, called: Arc::default() };
        desk.lock().entry(id).or_insert_with(fresh).here += 1;
        Self { desk: Arc::clone(desk), id, owner, hung_up: true }
    }

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
            let (desk, id, owner) = (Arc::clone(&self.desk), self.id, self.owner.clone());
            runtime.spawn(async move { desk.call_off(id, owner).await });
        }
    }
}

impl Desk {
    /// The place is given up, and an offer that was not picked up. What was picked up is not: its owner may have asked again, here
    /// or elsewhere, and have it.
    async fn call_off(&self, id: WaitId, owner: Owner) {
        if let Err(error) = self.ask_one(Verb::CallOff(id, owner)).await {
            tracing::warn!(%error, "a place in line cannot be given up; it ends by itself");
        }
    }
}

fn unexpected() -> StoreError {
    StoreError::Corrupt("the store answered something else than was asked of a lock".into())
}

#[cfg(test)]
mod tests;
