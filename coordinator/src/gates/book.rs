//! Every gate that this coordinator knows of. No I/O: the keeper reads and writes.

mod spending;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use redrive_shared::cost::Cost;
use redrive_shared::gate::{Barred, Change, Command, Gate, Room, Scope, Settings, Standing, State};
use redrive_shared::id::Name;
use redrive_shared::limits::GATES_MAX;
use redrive_shared::wire::GateView;
use tokio::sync::oneshot;

pub(super) use self::spending::Reached;
use super::Order;
use super::entry::Entry;
use super::event::{Event, Told};
use super::known::Known;
use super::used::Used;
use crate::store::{Claim, Claimed, GateCell, GateSwap, GateSwapped, Gates, Restriction, StoreError};

/// How often gates are looked for that can be forgotten, in ms.
const FORGET_EVERY_MS: i64 = 60_000;
/// Most gates written in one call.
const WRITE_MAX: usize = 1_000;

type Written = oneshot::Sender<Result<(), StoreError>>;

/// Why an order cannot be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There are as many gates as may be.
    TooMany,
    /// What is in the store is of a newer release.
    Unreadable,
}

/// A number that no other book has.
#[derive(Debug)]
struct Writer(u64);

impl Default for Writer {
    fn default() -> Self {
        Self(rand::random())
    }
}

/// The book.
#[derive(Debug, Default)]
pub(super) struct Book {
    entries: HashMap<Scope, Entry>,
    /// Those that may hold something back: the others cost a claim nothing.
    restricting: BTreeSet<Scope>,
    /// The queues of which it is limited how many tasks are out.
    counted: Arc<HashSet<Name>>,
    /// The last change of the store's that it shows.
    change: i64,
    look_at_ms: Option<i64>,
    forget_at_ms: i64,
    /// The earliest moment at which an entry has something to do.
    entries_next_ms: Option<i64>,
    /// Under way, in the order of the call.
    sending: Vec<Scope>,
    orders: Vec<(Scope, Written)>,
    /// As whom it signs what it writes, and how many gates it has written.
    writer: Writer,
    writes: u64,
    closed: bool,
}

impl Book {
    /// What the gates of dependencies let through of up to `most` tasks.
    pub fn restrict(&mut self, most: u32, now_ms: i64) -> Vec<Restriction> {
        self.restrict_those(|scope| scope.dependency().is_some(), most, now_ms)
    }

    /// What gates within these queues let through of up to `most` tasks: claims of others have nothing to do with them.
    pub fn restrict_in<'a>(
        &mut self,
        queues: impl Iterator<Item = &'a Name>,
        most: u32,
        now_ms: i64,
    ) -> Vec<Restriction> {
        // Scopes of dependencies come before all others.
        if self.restricting.last().is_none_or(|scope| scope.queue().is_none()) {
            return Vec::new();
        }
        let queues: HashSet<&Name> = queues.collect();
        self.restrict_those(|scope| scope.queue().is_some_and(|queue| queues.contains(queue)), most, now_ms)
    }

    fn restrict_those(&mut self, those: impl Fn(&Scope) -> bool, most: u32, now_ms: i64) -> Vec<Restriction> {
        let Self { entries, restricting, .. } = self;
        let mut restrictions = Vec::new();
        restricting.retain(|scope| {
            if !those(scope) {
                return true;
            }
            let Some(entry) = entries.get_mut(scope) else { return false };
            let (any, retries) = entry.restrict(most, now_ms);
            if any.is_some() || retries.is_some() {
                restrictions.push(Restriction { scope: scope.clone(), any, retries });
            }
            restricts(entry, now_ms)
        });
        restrictions
    }

    /// The dependencies that are let nothing through to.
    pub fn standing(&self) -> Standing {
        let held_back =
            self.restricting.iter().filter_map(|scope| Some((scope.dependency()?, self.entries.get(scope)?)));
        Standing::new(held_back.filter_map(|(name, entry)| {
            let barred = match entry.gate.state() {
                State::Shut => Barred::Shut,
                State::Isolated => Barred::Isolated,
                State::Open | State::Canary | State::Ramp => return None,
            };
            Some((name.clone(), barred))
        }))
    }

    /// What came of a claim under these restrictions.
    pub fn claimed(
        &mut self,
        restrictions: &[Restriction],
        claims: &[Claim],
        claimed: &[Claimed],
        now_ms: i64,
    ) {
        let mut used = Used::of(restrictions, claimed);
        let mut held_back: HashMap<&Scope, usize> = HashMap::new();
        for (claim, one) in claims.iter().zip(claimed) {
            for scope in &one.held_back {
                *held_back.entry(scope).or_default() += claim.max.saturating_sub(one.leases.len());
            }
        }
        for Restriction { scope, any, retries } in restrictions {
            let held_back = held_back.get(scope).copied().unwrap_or(0);
            let used = used.take(scope);
            self.with(scope, now_ms, |entry| {
                let held_back = u32::try_from(held_back).unwrap_or(u32::MAX);
                entry.pay_back(*retries);
                if scope.dependency().is_some() {
                    entry.called(&used, now_ms);
                }
                entry.claimed(*any, &used, held_back, now_ms);
            });
        }
        for (dependency, used) in used.dependencies {
            self.with(&Scope::Dependency(dependency.clone()), now_ms, |entry| {
                entry.called(&used, now_ms);
                entry.claimed(None, &used, 0, now_ms);
            });
        }
    }

    /// A claim under these restrictions failed, but may have been given what they let through: such leases end unstarted by
    /// then.
    pub fn lost(&mut self, restrictions: &[Restriction], ends_ms: i64, now_ms: i64) {
        for Restriction { scope, any, retries } in restrictions {
            self.with(scope, now_ms, |entry| entry.pay_back(*retries));
            if let Some(given) = any.filter(|given| *given > 0) {
                self.with(scope, now_ms, |entry| entry.lost(given, ends_ms, now_ms));
            }
        }
    }

    /// Nothing that is out stops to count before then.
    pub fn spare(&mut self, until_ms: i64, now_ms: i64) {
        let limited = self.entries.iter().filter(|(_, entry)| entry.limits_in_flight());
        for scope in limited.map(|(scope, _)| scope.clone()).collect::<Vec<_>>() {
            self.with(&scope, now_ms, |entry| entry.add(Event::Spare(until_ms), now_ms));
        }
    }

    /// Takes down what gates are to be told.
    pub fn told(&self) -> Told {
        Told::counting(Arc::clone(&self.counted))
    }

    /// How calls ended, and which leases did.
    pub fn hear(&mut self, told: Told, now_ms: i64) {
        for (scope, started_ms, count) in told.ended {
            if self.entries.get(&scope).is_some_and(Entry::limits_in_flight) {
                let event = Event::End { count, started_ms, at_ms: now_ms };
                self.with(&scope, now_ms, |entry| entry.add(event, now_ms));
            }
        }
        self.spend(told.spent, now_ms);
        for (dependency, heard) in told.heard {
            let event = Event::Heard { heard, at_ms: now_ms, jitter: rand::random::<f64>() };
            self.with(&Scope::Dependency(dependency), now_ms, |entry| entry.add(event, now_ms));
        }
    }

    /// Agents made first calls themselves.
    pub fn count_reported(&mut self, dependency: &Name, firsts: u32, now_ms: i64) {
        let event = Event::Reported { firsts, at_ms: now_ms };
        self.with(&Scope::Dependency(dependency.clone()), now_ms, |entry| entry.add(event, now_ms));
    }

    /// An operator orders something.
    pub fn order(
        &mut self,
        scope: &Scope,
        order: Order,
        written: Written,
        now_ms: i64,
    ) -> Result<(), Refusal> {
        if self.entries.get(scope).is_some_and(Entry::is_unreadable) {
            return Err(Refusal::Unreadable);
        }
        if matches!((scope, &order), (Scope::Group { .. }, Order::Command(Command::Open))) {
            // Also where nothing was spent yet: the bound is lifted for what comes.
            self.with(scope, now_ms, |entry| {
                entry.add(Event::Spent { cost: Cost::default(), at_ms: now_ms }, now_ms)
            });
        }
        let event = match order {
            Order::Command(command) => Event::Command(command, now_ms),
            Order::Set(settings) => Event::Set(settings),
        };
        if !self.with(scope, now_ms, |entry| entry.add(event, now_ms)) {
            return Err(Refusal::TooMany);
        }
        if !self.closed {
            self.orders.push((scope.clone(), written));
        }
        Ok(())
    }

    /// Does something with a gate, which is made if it is not there; false where there are too many of them.
    fn with(&mut self, scope: &Scope, now_ms: i64, does: impl FnOnce(&mut Entry)) -> bool {
        if !self.entries.contains_key(scope) {
            if self.entries.len() >= GATES_MAX {
                metrics::counter!("redrive_gates_refused_total").increment(1);
                return false;
            }
            self.entries.insert(scope.clone(), Entry::default());
        }
        let Some(entry) = self.entries.get_mut(scope) else { return false };
        does(entry);
        if restricts(entry, now_ms) && !self.restricting.contains(scope) {
            self.restricting.insert(scope.clone());
        }
        if let Scope::Queue(queue) = scope
            && self.counted.contains(queue) != entry.limits_in_flight()
        {
            let counted = Arc::make_mut(&mut self.counted);
            if !counted.remove(queue) {
                counted.insert(queue.clone());
            }
        }
        let next_ms = entry.next_ms();
        self.entries_next_ms = Some(self.entries_next_ms.map_or(next_ms, |earlier| earlier.min(next_ms)));
        true
    }

    /// When there is something to do.
    pub fn next_ms(&self) -> i64 {
        [self.entries_next_ms, self.look_at_ms].into_iter().flatten().min().unwrap_or(i64::MAX)
    }

    /// The store is to be asked then.
    pub fn look_at(&mut self, at_ms: i64) {
        self.look_at_ms = Some(self.look_at_ms.map_or(at_ms, |earlier| earlier.min(at_ms)));
    }

    /// The change seen last, if it is time to ask for a later one; `again_ms` is when to ask again.
    pub fn begin_look(&mut self, now_ms: i64, again_ms: Option<i64>) -> Option<i64> {
        if self.look_at_ms.is_none_or(|at_ms| at_ms > now_ms) {
            return None;
        }
        self.look_at_ms = again_ms;
        Some(self.change)
    }

    /// Takes in what the store has.
    pub fn learn(&mut self, gates: Gates, now_ms: i64) {
        self.change = gates.change;
        let mut gone: BTreeSet<Scope> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.version() != 0)
            .map(|(name, _)| name.clone())
            .collect();
        for cell in gates.cells {
            gone.remove(&cell.scope);
            if self.entries.get(&cell.scope).is_some_and(|entry| entry.version() == cell.version) {
                continue;
            }
            let gate = Known::read(&cell.scope, &cell.value);
            self.with(&cell.scope, now_ms, |entry| match gate {
                Some(gate) => entry.learn(gate, cell.version, now_ms),
                None => entry.cannot_read(cell.version),
            });
        }
        for scope in gone {
            self.with(&scope, now_ms, |entry| entry.learn(Known::default(), 0, now_ms));
        }
    }

    /// What is to be written now. Answer with [`Book::written`].
    pub fn begin_write(&mut self, now_us: i64) -> Vec<GateSwap> {
        let now_ms = now_us.div_euclid(1_000);
        let mut swaps = self.forget(now_ms);
        self.sending = swaps.iter().map(|swap| swap.scope.clone()).collect();
        let mut next_ms = i64::MAX;
        for (scope, entry) in &mut self.entries {
            if entry.next_ms() <= now_ms {
                entry.look(now_ms);
            }
            if swaps.len() < WRITE_MAX
                && let Some(draft) = entry.begin_write(now_us, (self.writer.0, self.writes + 1))
            {
                self.writes += 1;
                self.sending.push(scope.clone());
                swaps.push(GateSwap {
                    scope: scope.clone(),
                    seen: draft.seen,
                    value: Some(draft.value),
                    tell: draft.tell,
                });
            }
            next_ms = next_ms.min(entry.next_ms());
        }
        self.entries_next_ms = Some(next_ms);
        swaps
    }

    /// Gates of what nobody calls any more.
    fn forget(&mut self, now_ms: i64) -> Vec<GateSwap> {
        if now_ms < self.forget_at_ms {
            return Vec::new();
        }
        self.forget_at_ms = now_ms + FORGET_EVERY_MS;
        let old = self.entries.iter().filter(|(_, entry)| entry.is_settled() && entry.gate.is_fresh(now_ms));
        let old: Vec<(Scope, i64)> =
            old.take(WRITE_MAX).map(|(name, entry)| (name.clone(), entry.version())).collect();
        for (name, _) in &old {
            self.entries.remove(name);
            self.restricting.remove(name);
        }
        let written = old.into_iter().filter(|(_, version)| *version != 0);
        written.map(|(scope, seen)| GateSwap { scope, seen, value: None, tell: false }).collect()
    }

    /// What came of writing: returns what changed by it.
    pub fn written(
        &mut self,
        result: Result<Vec<GateSwapped>, StoreError>,
        now_ms: i64,
        again_ms: i64,
    ) -> Vec<(Scope, Change)> {
        let sending = std::mem::take(&mut self.sending);
        let mut changes = Vec::new();
        match result {
            Ok(swapped) => {
                for (scope, swapped) in sending.into_iter().zip(swapped) {
                    self.swapped(scope, swapped, now_ms, &mut changes);
                }
            }
            Err(error) => {
                for scope in sending {
                    self.answer(&scope, &Err(error.clone()));
                    self.with(&scope, now_ms, |entry| entry.failed(again_ms));
                }
            }
        }
        changes
    }

    fn swapped(
        &mut self,
        scope: Scope,
        swapped: GateSwapped,
        now_ms: i64,
        changes: &mut Vec<(Scope, Change)>,
    ) {
        match swapped {
            // It was forgotten.
            GateSwapped::Now(0) => {}
            GateSwapped::Now(version) => self.is_written(&scope, version, now_ms, changes),
            GateSwapped::Changed(Some(cell)) if self.has_written(&cell) => {
                self.is_written(&scope, cell.version, now_ms, changes);
            }
            GateSwapped::NoRoom => {
                self.with(&scope, now_ms, Entry::refused);
                self.answer(&scope, &Err(StoreError::Full("there are too many gates".into())));
            }
            GateSwapped::Changed(cell) => {
                let (gate, version) = cell.map_or_else(
                    || (Some(Known::default()), 0),
                    |cell| (Known::read(&scope, &cell.value), cell.version),
                );
                if gate.is_none() {
                    let error = StoreError::Corrupt("it is of a newer release, and left as it is".into());
                    self.answer(&scope, &Err(error));
                }
                let mut landed = None;
                self.with(&scope, now_ms, |entry| match gate {
                    Some(gate) => landed = entry.overtaken(gate, version, now_ms),
                    None => entry.cannot_read(version),
                });
                if let Some(changed) = landed {
                    changes.extend(changed.into_iter().map(|change| (scope.clone(), change)));
                    self.answer(&scope, &Ok(()));
                }
            }
        }
    }

    fn has_written(&self, cell: &GateCell) -> bool {
        self.entries.get(&cell.scope).is_some_and(|entry| entry.has_written(&cell.value))
    }

    fn is_written(&mut self, scope: &Scope, version: i64, now_ms: i64, changes: &mut Vec<(Scope, Change)>) {
        self.with(scope, now_ms, |entry| {
            let changed = entry.written(version, now_ms).into_iter();
            changes.extend(changed.map(|change| (scope.clone(), change)));
        });
        self.answer(scope, &Ok(()));
    }

    fn answer(&mut self, scope: &Scope, result: &Result<(), StoreError>) {
        let (done, others) =
            std::mem::take(&mut self.orders).into_iter().partition(|(name, _)| name == scope);
        self.orders = others;
        let done: Vec<(Scope, Written)> = done;
        for (_, written) in done {
            // Whoever ordered may have gone.
            let _ = written.send(result.clone());
        }
    }

    /// Of what somebody waits for more, and gets it now.
    pub fn take_let_through(&mut self, now_ms: i64) -> Vec<Scope> {
        let mut scopes = Vec::new();
        for (scope, entry) in &mut self.entries {
            if std::mem::take(&mut entry.lets_through) {
                scopes.push(scope.clone());
            }
        }
        let next_ms = self.entries.values().map(Entry::next_ms).min().unwrap_or(i64::MAX);
        // Later than now: whatever an entry may want, the keeper does not run in a circle.
        self.entries_next_ms = Some(next_ms.max(now_ms + 1));
        scopes
    }

    /// Everything is to be written at once.
    pub fn hurry(&mut self, now_ms: i64) {
        self.entries.values_mut().for_each(|entry| entry.hurry(now_ms));
    }

    /// Nothing is written any more.
    pub fn close(&mut self) {
        self.closed = true;
        self.orders.clear();
    }

    pub fn views(&self, now_ms: i64) -> Vec<GateView> {
        // That of a dependency is shown for what was seen, that of a queue for its limits, that of a group for what it cost.
        let shown = |(scope, entry): &(&Scope, &Entry)| {
            scope.dependency().is_some()
                || *entry.gate.settings() != Settings::default()
                || entry.gate.spent(now_ms).is_some()
        };
        let mut entries: Vec<(&Scope, &Entry)> = self.entries.iter().filter(shown).collect();
        entries.sort_by_key(|(scope, _)| *scope);
        entries.into_iter().map(|(scope, entry)| entry.view(scope, now_ms)).collect()
    }

    pub fn view(&self, scope: &Scope, now_ms: i64) -> GateView {
        let fresh = || GateView::of(scope.clone(), &Gate::default(), now_ms);
        self.entries.get(scope).map_or_else(fresh, |entry| entry.view(scope, now_ms))
    }
}

/// Whether it may hold something back.
fn restricts(entry: &Entry, now_ms: i64) -> bool {
    let gate = &entry.gate;
    gate.room() != Room::Free || gate.retry_room(now_ms).is_some() || entry.spent_until_ms(now_ms).is_some()
}
