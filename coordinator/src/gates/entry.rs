//! One gate as this coordinator knows it: what was read, what is not written yet, and what was taken from it.

mod costs;
mod shared;

use redrive_shared::cost::Cost;
use redrive_shared::gate::{Change, Gate, Handed, Room, State, USED_WITHIN_MS, is_same_day};
use redrive_shared::limits::RESTART_GRACE_MS;
use redrive_shared::stored::LeftOut;
use redrive_shared::task::Lease;

use super::event::{Event, apply, began_ms};
use super::known::{self, Known};

/// How long what was heard may wait to be written, in ms, where it changes nothing for anybody.
const WRITE_WITHIN_MS: i64 = 2_000;
/// The same, where a budget is short: what was used of it must be known soon.
const BUDGET_WITHIN_MS: i64 = 200;
/// Calls that were handed out within so many ms are told as one: a gate that shut meanwhile asks how many were before that.
const CALLS_TOGETHER_MS: i64 = 500;
/// How long something taken may lie unused, in ms, and how much less at random: two coordinators that each have what the
/// other waits for do not give it back, and take the other, at the same time for ever. A claim has the rest of
/// [`USED_WITHIN_MS`] to hand it out.
const STOCK_KEPT_MS: i64 = USED_WITHIN_MS * 3 / 4;
/// See [`STOCK_KEPT_MS`].
const STOCK_SPREAD_MS: i64 = 250;
/// Most events of one gate that wait to be written. Beyond it the gate has changed here, and others hear of no more.
const PENDING_MAX: usize = 1_000;
/// The shortest time between two looks at a gate that lets nothing through, in ms.
const LOOK_MIN_MS: i64 = 5;

/// A gate, and what of it is ours.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// As it was read or written last, and the version of that; 0: it is not in the store.
    base: Gate,
    version: i64,
    /// Fields of its value there that this release does not know.
    later: Vec<LeftOut>,
    /// The base, and what happened since.
    pub gate: Gate,
    pending: Vec<Event>,
    /// Under way: what is written, what it becomes, and how many that takes.
    sending: Option<Sending>,
    /// When it is sent again as it was: nobody knows whether it was written.
    resend_at_ms: Option<i64>,
    /// Taken and not used, and until when it may be.
    stock: u32,
    stock_until_ms: i64,
    /// Retries that claims under way may get of the budget.
    lent: u32,
    /// How many more tasks claims that wait would take.
    wanted: u32,
    /// What waits are retries, and the budget is what holds them back.
    over_budget: bool,
    /// What it may cost within a day, as its queue says now; and whether that was reached by what was written here, and nobody
    /// was told yet.
    pub most: Option<Cost>,
    pub reached: bool,
    /// What is in the store cannot be read by this release: it is left as it is.
    unreadable: bool,
    write_at_ms: Option<i64>,
    look_at_ms: Option<i64>,
    /// It lets more through than those who wait know.
    pub lets_through: bool,
}

#[derive(Debug)]
struct Sending {
    draft: Draft,
    /// Who writes it, and as which of its writes.
    by: (u64, u64),
    /// It may have been written already.
    doubtful: bool,
    events: Vec<Event>,
    gate: Gate,
    granted: u32,
    changes: Vec<Change>,
    /// Whether it uses up what may be spent today.
    reached: bool,
}

/// What is to be written of one gate.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub seen: i64,
    pub value: String,
    pub tell: bool,
}

impl Entry {
    pub fn version(&self) -> i64 {
        self.version
    }

    /// Whether nothing of it is known only here.
    pub fn is_settled(&self) -> bool {
        self.pending.is_empty()
            && self.sending.is_none()
            && self.stock == 0
            && self.wanted == 0
            && !self.unreadable
    }

    /// What it lets through of up to `most` tasks, and of the retries among them; what was taken goes with that.
    pub fn restrict(&mut self, most: u32, now_ms: i64) -> (Option<u32>, Option<u32>) {
        self.gate.advance(now_ms);
        let any = match self.gate.room() {
            _ if self.spent_until_ms(now_ms).is_some() => Some(0),
            Room::Free => None,
            Room::Limited => {
                self.let_lapse(now_ms);
                Some(std::mem::take(&mut self.stock))
            }
            Room::Shut => Some(0),
        };
        let left = self.gate.retry_room(now_ms).map(|room| room.saturating_sub(self.lent));
        let retries = left.filter(|left| *left < most);
        self.lent = self.lent.saturating_add(retries.unwrap_or(0));
        (any, retries)
    }

    /// A claim that could have had so many retries is back.
    pub fn pay_back(&mut self, retries: Option<u32>) {
        self.lent = self.lent.saturating_sub(retries.unwrap_or(0));
    }

    /// Whether it is limited how many are out.
    pub fn limits_in_flight(&self) -> bool {
        self.gate.settings().max_in_flight.is_some()
    }

    /// Whether what was taken of it counts, used or not.
    fn keeps_what_is_taken(&self) -> bool {
        self.limits_in_flight() || self.gate.limits_tokens()
    }

    /// Its dependency is called for these tasks.
    pub fn called(&mut self, leases: &[&Lease], now_ms: i64) {
        let retries = count(leases.iter().filter(|lease| lease.ledger.was_tried()).count());
        let firsts = count(leases.len()) - retries;
        if firsts + retries > 0 {
            self.add(Event::Calls { firsts, retries, at_ms: now_ms }, now_ms);
        }
    }

    /// What a claim was given of it, and how many more would have been taken.
    pub fn claimed(&mut self, given: Option<u32>, leases: &[&Lease], held_back: u32, now_ms: i64) {
        let used = count(leases.len());
        if self.limits_in_flight() {
            for lease in leases {
                self.begin(1, began_ms(lease.epoch), over_by_ms(lease), now_ms);
            }
        }
        if self.gate.limits_tokens() && !leases.is_empty() {
            self.add(Event::Hand(handed(given, leases), now_ms), now_ms);
        }
        if let Some(given) = given {
            self.stock = self.stock.saturating_add(given.saturating_sub(used));
        }
        if held_back > 0 {
            // It could have had more than it took.
            self.over_budget = given.is_none_or(|given| given > used);
            self.wanted = self.wanted.max(held_back);
        }
        self.look(now_ms);
    }

    /// A claim failed that may have been given so many, whose leases would end then.
    pub fn lost(&mut self, given: u32, ends_ms: i64, now_ms: i64) {
        self.begin(given, now_ms, ends_ms, now_ms);
        if self.gate.limits_tokens() {
            self.add(Event::Hand(self.gate.handed_by_mean(given), now_ms), now_ms);
        }
    }

    /// Leases began, as far as anybody knows; they count at most until `until_ms`.
    pub fn begin(&mut self, count: u32, started_ms: i64, until_ms: i64, now_ms: i64) {
        if self.limits_in_flight() {
            self.add(Event::Begin { count, started_ms, until_ms, at_ms: now_ms }, now_ms);
        }
    }

    /// Something happened: here it holds at once.
    pub fn add(&mut self, event: Event, now_ms: i64) {
        self.gate.advance(now_ms);
        let change = apply(&mut self.gate, &event, now_ms);
        let short = self.gate.retry_room(now_ms).is_some_and(|room| room == 0);
        let within_ms = match (&event, change, self.gate.state()) {
            (Event::Command(..) | Event::Set(_) | Event::Take(_), ..) | (_, Some(_), _) => 0,
            (Event::Spent { .. }, ..) => self.spent_within_ms(now_ms),
            (event, ..) if event.is_of_limit() && self.keeps_what_is_taken() => 0,
            (_, None, State::Canary | State::Ramp) => BUDGET_WITHIN_MS,
            (Event::Calls { retries, .. }, ..) if *retries > 0 && self.lent > 0 => BUDGET_WITHIN_MS,
            _ if short => BUDGET_WITHIN_MS,
            _ => WRITE_WITHIN_MS,
        };
        self.write_by(now_ms + within_ms);
        if self.wanted > 0 && (change.is_some() || event.makes_room()) {
            self.look_at_ms = Some(now_ms);
        }
        self.keep(event);
        if change.is_some() {
            self.waste(now_ms);
        }
    }

    /// What was taken of another state is worth nothing.
    fn waste(&mut self, now_ms: i64) {
        let unused = std::mem::take(&mut self.stock);
        if unused > 0 && self.keeps_what_is_taken() {
            self.add(Event::Waste(unused), now_ms);
        }
    }

    fn keep(&mut self, event: Event) {
        let calm = matches!(self.gate.state(), State::Open | State::Ramp);
        // What began or comes back was taken before, and one take is asked for at a time: there is no more of it than that.
        let always = !matches!(event, Event::Heard { .. } | Event::Calls { .. } | Event::Reported { .. });
        let room = always || self.pending.len() < PENDING_MAX;
        match (self.pending.last_mut(), &event) {
            (Some(Event::Heard { heard: last, at_ms, .. }), Event::Heard { heard, at_ms: now_ms, .. })
                if calm
                    && last.signal == heard.signal
                    && last.agent == heard.agent
                    && self.gate.is_fresh_call(last.started_ms)
                        == self.gate.is_fresh_call(heard.started_ms) =>
            {
                last.count = last.count.saturating_add(heard.count);
                last.started_ms = last.started_ms.min(heard.started_ms);
                *at_ms = *now_ms;
            }
            (
                Some(Event::Calls { firsts, retries, at_ms }),
                Event::Calls { firsts: more, retries: again, at_ms: now_ms },
            ) if now_ms.saturating_sub(*at_ms) < CALLS_TOGETHER_MS => {
                *firsts = firsts.saturating_add(*more);
                *retries = retries.saturating_add(*again);
            }
            (Some(Event::Spent { cost, at_ms }), Event::Spent { cost: more, at_ms: now_ms })
                if is_same_day(*at_ms, *now_ms) =>
            {
                *cost = cost.plus(*more);
            }
            (
                Some(Event::Begin { count, started_ms, until_ms, at_ms }),
                Event::Begin { count: more, started_ms: also_ms, until_ms: later_ms, at_ms: now_ms },
            ) if started_ms == also_ms => {
                *count = count.saturating_add(*more);
                *until_ms = (*until_ms).max(*later_ms);
                *at_ms = *now_ms;
            }
            (Some(Event::Hand(handed, at_ms)), Event::Hand(more, now_ms)) => {
                handed.join(*more);
                *at_ms = *now_ms;
            }
            (
                Some(Event::End { count, started_ms, at_ms }),
                Event::End { count: more, started_ms: also_ms, at_ms: now_ms },
            ) if started_ms == also_ms => {
                *count = count.saturating_add(*more);
                *at_ms = *now_ms;
            }
            _ if room => self.pending.push(event),
            _ => {}
        }
    }

    fn write_by(&mut self, at_ms: i64) {
        self.write_at_ms = Some(self.write_at_ms.map_or(at_ms, |earlier| earlier.min(at_ms)));
    }

    /// When there is something to do for it.
    pub fn next_ms(&self) -> i64 {
        if self.lets_through {
            return i64::MIN;
        }
        let write_ms = if self.sending.is_some() { self.resend_at_ms } else { self.write_at_ms };
        let stock_ms = (self.stock > 0).then_some(self.stock_until_ms);
        [write_ms, self.look_at_ms, stock_ms].into_iter().flatten().min().unwrap_or(i64::MAX)
    }

    /// Looks whether it lets more through, if somebody waits for that, and gives back what lies unused.
    pub fn look(&mut self, now_ms: i64) {
        self.gate.advance(now_ms);
        if self.gate.room() != Room::Limited {
            // It opened or shut by time: what was taken before is worth nothing.
            self.waste(now_ms);
        }
        self.let_lapse(now_ms);
        self.look_at_ms = None;
        if self.wanted == 0 {
            return;
        }
        if let Some(until_ms) = self.spent_until_ms(now_ms) {
            self.look_at_ms = Some(until_ms);
            return;
        }
        let next_ms = match (self.gate.room(), self.gate.next_retry_ms(now_ms)) {
            // Held back all the same: retries are, by the budget.
            (Room::Free, Some(next_ms)) => next_ms,
            (Room::Limited, Some(next_ms)) if self.over_budget => next_ms,
            (Room::Free, None) => return self.let_through(),
            (Room::Limited, _) if self.stock > 0 => return self.let_through(),
            (Room::Limited, _) if self.has_asked() => return,
            (Room::Limited, _) => match self.gate.next_ms(now_ms) {
                Some(next_ms) if next_ms > now_ms => next_ms,
                _ => return self.add(Event::Take(self.wanted), now_ms),
            },
            (Room::Shut, _) => match self.gate.next_ms(now_ms) {
                Some(next_ms) => next_ms,
                // Only an event changes that, and it looks here.
                None => return,
            },
        };
        self.look_at_ms = Some(next_ms.max(now_ms + LOOK_MIN_MS));
    }

    /// Gives back what has lain unused for too long, and what was more than it seemed: what was leased of it has brought the gate
    /// into debt.
    fn let_lapse(&mut self, now_ms: i64) {
        let owes = || self.gate.tokens_owed(now_ms).is_some_and(|owed| owed > 0);
        if self.stock > 0 && (now_ms >= self.stock_until_ms || owes()) {
            let unused = std::mem::take(&mut self.stock);
            self.add(Event::GiveBack(unused), now_ms);
        }
    }

    /// Whether it has asked for more already, and does not know yet what it gets.
    fn has_asked(&self) -> bool {
        let sending = self.sending.iter().flat_map(|sending| &sending.events);
        sending.chain(&self.pending).any(|event| matches!(event, Event::Take(_)))
    }

    fn let_through(&mut self) {
        self.wanted = 0;
        self.over_budget = false;
        self.lets_through = true;
    }

    /// What is to be written now, if it is time; `by`: who writes it, and as which of its writes.
    pub fn begin_write(&mut self, now_us: i64, by: (u64, u64)) -> Option<Draft> {
        let now_ms = now_us.div_euclid(1_000);
        if let Some(sending) = &self.sending {
            let again = self.resend_at_ms.take_if(|at_ms| *at_ms <= now_ms);
            return again.map(|_| sending.draft.clone());
        }
        if self.write_at_ms.is_none_or(|at_ms| at_ms > now_ms) {
            return None;
        }
        self.write_at_ms = None;
        if self.unreadable {
            self.pending.clear();
            self.gate = Gate::default();
            return None;
        }
        let events = std::mem::take(&mut self.pending);
        let (mut gate, mut granted, mut changes) = (self.base.clone(), 0, Vec::new());
        changes.extend(gate.advance(now_ms));
        let was_full = gate.is_full(now_ms);
        for event in &events {
            match event {
                Event::Take(wanted) => granted += gate.take(*wanted, now_us),
                event => changes.extend(apply(&mut gate, event, now_ms)),
            }
        }
        gate.sign(by.0, by.1);
        // Others may have somebody who waits for the end of a lease that is heard of here.
        let has_room = was_full && !gate.is_full(now_ms);
        let is_spent =
            |gate: &Gate| self.most.is_some_and(|most| gate.spent_until_ms(most, now_ms).is_some());
        let reached = is_spent(&gate) && !is_spent(&self.base);
        let tell = has_room
            || reached
            || !changes.is_empty()
            || events.iter().any(|event| matches!(event, Event::Set(_) | Event::Command(..)));
        // It consists of numbers and names: were it ever not to serialise, nothing would be written.
        let mut later = self.later.clone();
        if is_set(&events) {
            known::forget_settings(&mut later);
        }
        let value = known::write(&gate, &later).ok()?;
        let draft = Draft { seen: self.version, value, tell };
        self.sending = Some(Sending {
            draft: draft.clone(),
            by,
            doubtful: false,
            events,
            gate,
            granted,
            changes,
            reached,
        });
        Some(draft)
    }

    /// It was written: returns what changed.
    pub fn written(&mut self, version: i64, now_ms: i64) -> Vec<Change> {
        let Some(sending) = self.sending.take() else { return Vec::new() };
        let (gate, mut later) = (sending.gate.clone(), std::mem::take(&mut self.later));
        if is_set(&sending.events) {
            known::forget_settings(&mut later);
        }
        self.landed(sending, Known { gate, later }, version, now_ms)
    }

    /// What was sent is in the store, in this.
    fn landed(&mut self, sending: Sending, now: Known, version: i64, now_ms: i64) -> Vec<Change> {
        (self.base, self.later, self.version) = (now.gate, now.later, version);
        self.reached |= sending.reached;
        self.again(now_ms);
        if sending.events.iter().any(|event| matches!(event, Event::Take(_))) {
            if self.gate.room() == Room::Limited {
                self.stock = self.stock.saturating_add(sending.granted);
                self.stock_until_ms = now_ms + STOCK_KEPT_MS - rand::random_range(0..STOCK_SPREAD_MS);
            } else if self.keeps_what_is_taken() && sending.granted > 0 {
                self.add(Event::Waste(sending.granted), now_ms);
            }
        }
        self.look(now_ms);
        sending.changes
    }
}

/// Whether an operator sets the gate's limits.
fn is_set(events: &[Event]) -> bool {
    events.iter().any(|event| matches!(event, Event::Set(_)))
}

/// What a claim was given and leased, in tokens.
fn handed(given: Option<u32>, leases: &[&Lease]) -> Handed {
    let tasks = count(leases.len());
    let tokens = leases.iter().filter_map(|lease| lease.tokens).map(u64::from);
    Handed {
        taken: tasks.min(given.unwrap_or(0)),
        tasks,
        unknown: count(leases.iter().filter(|lease| lease.tokens.is_none()).count()),
        tokens: tokens.sum(),
    }
}

fn count(some: usize) -> u32 {
    u32::try_from(some).unwrap_or(u32::MAX)
}

/// When a lease is over at the latest: it is started before its end, may then take its time, and is spared for a while where
/// the store could not be reached.
fn over_by_ms(lease: &Lease) -> i64 {
    lease.lease_until_ms.saturating_add_unsigned(lease.timeout_ms).saturating_add_unsigned(RESTART_GRACE_MS)
}
