//! Keeps the fleet's gates: what a dependency's outcomes say is told to its gate, and what gates say bounds claims. Each has
//! a [`Scope`].
//!
//! A [`Gate`](redrive_shared::gate::Gate) is pure and lies in the store as an opaque value with a version. Each coordinator has
//! a copy of all of them, its book: outcomes change the copy at once and are written soon after, by compare and swap; who was
//! slower hears the same again on top of what the faster one wrote. So all coordinators agree within milliseconds on a gate
//! that shuts, and a gate that everything passes costs one write in two seconds and nothing in a claim.
//!
//! What a gate lets through one by one (a canary, a ramp, a limit) is *taken* from it before it is used, by such a swap, and
//! only where a claim found that somebody waits for it.

mod book;
mod entry;
mod event;
mod known;
mod used;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redrive_shared::clock::Clock;
use redrive_shared::cost::Cost;
use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::gate::{Command, Scope, Settings, Signal, Standing};
use redrive_shared::id::Name;
use redrive_shared::limits::{GATES_MAX, LEASE_DEFAULT_MS, RESTART_GRACE_MS};
use redrive_shared::wire::GateView;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use self::book::{Book, Reached, Refusal};
pub use self::event::{Told, began_ms};
use crate::alarm::Alarm;
use crate::dispatch::Dispatcher;
use crate::metrics::BoundedLabels;
use crate::store::{Claim, Claimed, Restriction, Store, StoreError};

/// How often to ask the store for what others changed, where hints may be lost.
const LOOK_EVERY_MS: i64 = 1_000;
/// How long to wait after the store failed.
const RETRY_AFTER_FAILURE_MS: i64 = 500;
/// How much longer leases are counted than they are spared after a coordinator's start, in ms: they are ended one batch after
/// the other.
const SPARED_MORE_MS: u64 = 2_000;

/// The keeper.
pub struct Keeper {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    /// Rings when something is to be written or looked at.
    alarm: Alarm,
    labels: Arc<BoundedLabels>,
    /// Whether claims are restricted.
    holds_back: bool,
    /// Whether the store was read.
    known: AtomicBool,
    book: Mutex<Book>,
}

impl Keeper {
    /// Gates that only watch unless they hold back.
    pub fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        labels: Arc<BoundedLabels>,
        holds_back: bool,
    ) -> Self {
        let (alarm, known) = (Alarm::default(), AtomicBool::new(false));
        Self { store, clock, alarm, labels, holds_back, known, book: Mutex::default() }
    }

    /// Knows the gates from here on: a coordinator that has just begun hands out nothing before it does.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn ready(&self) -> Result<(), StoreError> {
        if !self.holds_back || self.known.load(Ordering::Acquire) {
            return Ok(());
        }
        let gates = self.store.gates(0).await?;
        let now_ms = self.clock.now_ms();
        let mut book = self.lock();
        if let Some(gates) = gates {
            book.learn(gates, now_ms);
        }
        // Leases from before outlive their time by so much: see `Store::reap`.
        let spared_ms = now_ms.saturating_add_unsigned(RESTART_GRACE_MS + SPARED_MORE_MS);
        if !self.known.swap(true, Ordering::AcqRel) {
            book.spare(spared_ms, now_ms);
        }
        book.bound_costs(|queue| self.max_group_cost(queue), now_ms);
        self.ring(book);
        Ok(())
    }

    /// What the gates let through to claims. Give the answer to [`Keeper::claimed`], whatever comes of them.
    pub fn restrict(&self, claims: &[Claim]) -> Vec<Restriction> {
        if !self.holds_back {
            return Vec::new();
        }
        let most = u32::try_from(claims.iter().map(|claim| claim.max).sum::<usize>()).unwrap_or(u32::MAX);
        let now_ms = self.clock.now_ms();
        let mut book = self.lock();
        let mut restrictions = book.restrict(most, now_ms);
        restrictions.extend(book.restrict_in(claims.iter().flat_map(|claim| &claim.queues), most, now_ms));
        restrictions
    }

    /// Which dependencies are let nothing through to, for those who judge failures. Cheap where there are none.
    pub fn standing(&self) -> Standing {
        if self.holds_back { self.lock().standing() } else { Standing::default() }
    }

    /// What was claimed under these restrictions, and what was held back.
    pub fn claimed(&self, restrictions: &[Restriction], claims: &[Claim], claimed: &[Claimed]) {
        let now_ms = self.clock.now_ms();
        let mut book = self.lock();
        book.claimed(restrictions, claims, claimed, now_ms);
        self.ring(book);
    }

    /// A claim under these restrictions failed: nobody knows what it was given.
    pub fn lost(&self, restrictions: &[Restriction], claims: &[Claim]) {
        let now_ms = self.clock.now_ms();
        let lease_ms = claims.iter().map(|claim| claim.lease_ms.unwrap_or(LEASE_DEFAULT_MS)).max();
        let ends_ms = now_ms.saturating_add_unsigned(lease_ms.unwrap_or(LEASE_DEFAULT_MS));
        let mut book = self.lock();
        book.lost(restrictions, ends_ms, now_ms);
        self.ring(book);
    }

    /// Takes down what gates are to be told of leases that are over: give it to [`Keeper::hear`].
    pub fn told(&self) -> Told {
        self.lock().told()
    }

    /// How calls ended, and which leases did.
    pub fn hear(&self, told: Told) {
        if told.is_empty() {
            return;
        }
        let now_ms = self.clock.now_ms();
        let mut book = self.lock();
        book.hear(told, now_ms);
        self.ring(book);
    }

    /// An agent made calls itself, for work that had not been tried before. Those that failed are heard of when they are
    /// handed over. So must those be that worked: otherwise a dependency of which one call in twenty fails would seem to do
    /// nothing else.
    pub fn count_firsts(&self, dependency: &Name, agent: &Name, attempts: u32, failures: u32) {
        let now_ms = self.clock.now_ms();
        let mut told = Told::default();
        told.add_many(dependency, Signal::Success, attempts.saturating_sub(failures), Some(agent), 0);
        let mut book = self.lock();
        book.count_reported(dependency, attempts, now_ms);
        book.hear(told, now_ms);
        self.ring(book);
    }

    /// Does what an operator says; returns when it is written.
    pub async fn command(&self, scope: &Scope, order: Order) -> Result<(), Problem> {
        let (written, done) = oneshot::channel();
        {
            let now_ms = self.clock.now_ms();
            let mut book = self.lock();
            match book.order(scope, order, written, now_ms) {
                Ok(()) => {}
                Err(Refusal::TooMany) => {
                    let detail =
                        format!("there are {GATES_MAX} gates already; none was made for the {scope}");
                    return Err(Problem::new(ErrorCode::LimitReached, detail));
                }
                Err(Refusal::Unreadable) => {
                    let detail = format!(
                        "the gate of the {scope} cannot be read by this release; ask a coordinator of the newer one"
                    );
                    return Err(Problem::new(ErrorCode::Internal, detail));
                }
            }
            self.ring(book);
        }
        match done.await {
            Ok(result) => result.map_err(Problem::from),
            Err(_) => Err(StoreError::Unavailable("the coordinator stops".into()).into()),
        }
    }

    /// Every gate, those of dependencies first, each kind by name.
    pub fn views(&self) -> Vec<GateView> {
        let now_ms = self.clock.now_ms();
        self.lock().views(now_ms)
    }

    /// One gate; as new where nothing is known.
    pub fn view(&self, scope: &Scope) -> GateView {
        let now_ms = self.clock.now_ms();
        self.lock().view(scope, now_ms)
    }

    /// Learns what there is, before anything is handed out.
    pub async fn prepare(&self) {
        self.lock().look_at(i64::MIN);
        self.read(self.store.hints().is_some()).await;
    }

    /// Others changed gates.
    pub fn look(&self) {
        self.lock().look_at(i64::MIN);
        self.alarm.set_earlier(i64::MIN);
    }

    /// Writes and looks until shutdown; then once more, so that what was heard last is not lost.
    pub async fn run(&self, dispatcher: &Dispatcher, shutdown: CancellationToken) {
        if let Err(error) = self.ready().await {
            tracing::warn!(%error, "cannot read the gates yet");
        }
        self.look();
        let shared = self.store.hints().is_some();
        while shutdown.run_until_cancelled(self.alarm.wait(&*self.clock)).await.is_some() {
            self.alarm.clear();
            self.read(shared).await;
            let let_through = self.write().await;
            if !let_through.is_empty() {
                dispatcher.let_through(&let_through);
            }
            let next_ms = self.lock().next_ms();
            self.alarm.set_earlier(next_ms);
        }
        self.lock().hurry(self.clock.now_ms());
        self.write().await;
        self.lock().close();
    }

    /// What a queue lets each of its groups spend within a day.
    pub fn max_group_cost(&self, queue: &Name) -> Option<Cost> {
        self.store.policy(queue)?.max_group_cost_usd_per_day
    }

    /// Learns what others wrote, and what queues let their groups spend by now.
    async fn read(&self, shared: bool) {
        let now_ms = self.clock.now_ms();
        let Some(seen) = self.lock().begin_look(now_ms, shared.then_some(now_ms + LOOK_EVERY_MS)) else {
            return;
        };
        match self.store.gates(seen).await {
            Ok(Some(gates)) => self.lock().learn(gates, self.clock.now_ms()),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot read the gates");
                self.lock().look_at(now_ms + RETRY_AFTER_FAILURE_MS);
            }
        }
        self.lock().bound_costs(|queue| self.max_group_cost(queue), self.clock.now_ms());
    }

    /// Writes what is to be written; returns what lets more through now.
    async fn write(&self) -> Vec<Scope> {
        let now_us = self.clock.now_us();
        let swaps = self.lock().begin_write(now_us);
        if !swaps.is_empty() {
            let result = self.store.swap_gates(swaps).await;
            if let Err(error) = &result {
                tracing::warn!(%error, "cannot write the gates");
            }
            let now_ms = self.clock.now_ms();
            let changes = self.lock().written(result, now_ms, now_ms + RETRY_AFTER_FAILURE_MS);
            for (scope, change) in changes {
                self.record(&scope, change);
            }
        }
        let now_ms = self.clock.now_ms();
        let mut book = self.lock();
        book.take_reached(now_ms).iter().for_each(tell_reached);
        book.take_let_through(now_ms)
    }

    fn record(&self, scope: &Scope, change: redrive_shared::gate::Change) {
        // Nothing is heard of others that would move them.
        let Some(dependency) = scope.dependency() else { return };
        let (to, reason) = (change.to.as_str(), change.reason.as_str());
        let label = self.labels.label(dependency).to_string();
        metrics::counter!("redrive_gate_changes_total", "dependency" => label, "to" => to, "reason" => reason)
            .increment(1);
        if change.to == redrive_shared::gate::State::Isolated {
            tracing::error!(%dependency, reason, "the dependency is isolated: nothing is handed out until a person opens its gate");
        } else {
            tracing::info!(%dependency, from = change.from.as_str(), to, reason, "a gate changed");
        }
    }

    fn ring(&self, book: MutexGuard<'_, Book>) {
        let next_ms = book.next_ms();
        drop(book);
        self.alarm.set_earlier(next_ms);
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A group reached what it may spend: told once, by whoever wrote it.
fn tell_reached(reached: &Reached) {
    let Reached { scope, most, until_ms } = reached;
    let (usd, for_s) = (most.usd(), until_ms / 1_000);
    tracing::warn!(%scope, most_usd = usd, until_s = for_s, "its tasks cost what they may within a day: they wait for the next one");
    if let Some(queue) = scope.queue() {
        metrics::counter!("redrive_group_cost_reached_total", "queue" => queue.to_string()).increment(1);
    }
}

/// What an operator orders.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// Moves a gate.
    Command(Command),
    /// Sets limits.
    Set(Settings),
}

#[cfg(test)]
mod tests;
