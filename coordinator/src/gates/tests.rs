//! Books over a shelf of versioned values, as a store keeps them: what several coordinators make of one gate.

use std::collections::BTreeMap;

use redrive_shared::gate::{Barred, SHUT_MS, Settings, Signal, Standing, State, TAKEN_MS};
use redrive_shared::task::{Ledger, Nonce, Priority};

use super::book::Book;
use super::*;
use crate::store::{GateCell, GateSwap, GateSwapped, Gates};

mod adversity;
mod costs;
mod late;
mod newer;
mod queues;
mod tokens;

const T0: i64 = 1_700_000_000_000;

fn dependency() -> Name {
    Name::new("openai/main/gpt").unwrap()
}

fn scope() -> Scope {
    Scope::Dependency(dependency())
}

/// The store's side.
#[derive(Default)]
struct Shelf {
    cells: BTreeMap<Scope, GateCell>,
    change: i64,
}

impl Shelf {
    fn swap(&mut self, swaps: Vec<GateSwap>) -> Vec<GateSwapped> {
        swaps.into_iter().map(|swap| self.swap_one(swap)).collect()
    }

    fn swap_one(&mut self, swap: GateSwap) -> GateSwapped {
        let now = self.cells.get(&swap.scope);
        if now.map_or(0, |cell| cell.version) != swap.seen {
            return GateSwapped::Changed(now.cloned());
        }
        self.change += 1;
        let Some(value) = swap.value else {
            self.cells.remove(&swap.scope);
            return GateSwapped::Now(0);
        };
        let cell = GateCell { scope: swap.scope.clone(), version: self.change, value };
        self.cells.insert(swap.scope, cell);
        GateSwapped::Now(self.change)
    }

    fn all(&self) -> Gates {
        Gates { change: self.change, cells: self.cells.values().cloned().collect() }
    }
}

fn hear(book: &mut Book, agent: &str, signal: Signal, now_ms: i64) {
    let mut told = Told::default();
    told.add(&dependency(), signal, Some(&Name::new(agent).unwrap()), now_ms);
    book.hear(told, now_ms);
}

/// Writes what is due, until nothing is.
fn write(book: &mut Book, shelf: &mut Shelf, now_ms: i64) -> Vec<Scope> {
    for _ in 0..10 {
        let swaps = book.begin_write(now_ms * 1_000);
        if swaps.is_empty() {
            return book.take_let_through(now_ms);
        }
        book.written(Ok(shelf.swap(swaps)), now_ms, now_ms + 500);
    }
    panic!("it never ends");
}

fn state(book: &Book, now_ms: i64) -> State {
    book.view(&scope(), now_ms).state
}

const fn hint(ms: u64) -> Signal {
    Signal::Limited { hint_ms: Some(ms) }
}

fn claim(max: usize) -> Claim {
    let name = |text: &str| Name::new(text).unwrap();
    Claim {
        agent: name("a"),
        boot_id: None,
        request_id: None,
        queues: vec![name("q")],
        max,
        lease_ms: None,
        avoid: Vec::new(),
    }
}

fn lease(failed: u32) -> redrive_shared::task::Lease {
    let name = |text: &str| Name::new(text).unwrap();
    redrive_shared::task::Lease {
        id: redrive_shared::id::TaskId::generate(),
        epoch: 1,
        nonce: Nonce(1),
        lease_until_ms: 0,
        lease_ms: 30_000,
        due_at_ms: 0,
        queue: name("q"),
        task_type: name("q"),
        type_version: None,
        payload: serde_json::value::RawValue::NULL.to_owned(),
        payload_ref: None,
        checkpoint: None,
        dependency: Some(dependency()),
        group: None,
        priority: Priority::Normal,
        route: 0,
        attempt: failed + 1,
        run: 1,
        max_attempts: 5,
        timeout_ms: 1_000,
        deadline_at_ms: 0,
        ledger: Ledger { failed, ..Ledger::default() },
        last_failure: None,
        traceparent: None,
        tokens: None,
        labels: BTreeMap::new(),
    }
}

/// A claim of so many that found so many, and more behind the gate.
fn claim_with(book: &mut Book, max: usize, found: &[u32], more: bool, now_ms: i64) -> Vec<Restriction> {
    let restrictions = book.restrict(u32::try_from(max).unwrap(), now_ms);
    let held_back = if more { vec![scope()] } else { Vec::new() };
    let leases = found.iter().map(|failed| lease(*failed)).collect();
    let claimed = Claimed { leases, held_back, ..Claimed::default() };
    book.claimed(&restrictions, &[claim(max)], &[claimed], now_ms);
    restrictions
}

fn only(restrictions: &[Restriction]) -> (Option<u32>, Option<u32>) {
    match restrictions {
        [one] => (one.any, one.retries),
        _ => panic!("{restrictions:?}"),
    }
}

#[test]
fn a_hint_that_one_hears_shuts_the_gate_for_all() {
    let (mut shelf, mut a, mut b) = (Shelf::default(), Book::default(), Book::default());
    assert!(a.restrict(10, T0).is_empty(), "nothing is known");
    hear(&mut a, "x", hint(10_000), T0);
    assert_eq!(only(&a.restrict(10, T0)), (Some(0), None), "here at once");
    write(&mut a, &mut shelf, T0);
    b.learn(shelf.all(), T0 + 2);
    assert_eq!(only(&b.restrict(10, T0 + 2)), (Some(0), None));
    assert_eq!(state(&b, T0 + 2), State::Shut);
}

#[test]
fn successes_wait_to_be_written_and_what_changes_something_does_not() {
    let (mut shelf, mut book) = (Shelf::default(), Book::default());
    hear(&mut book, "x", Signal::Success, T0);
    write(&mut book, &mut shelf, T0 + 1_999);
    assert!(shelf.cells.is_empty());
    hear(&mut book, "x", Signal::Success, T0 + 1_999);
    assert_eq!(book.next_ms(), T0 + 2_000);
    write(&mut book, &mut shelf, T0 + 2_000);
    assert_eq!(shelf.change, 1, "both in one");
    hear(&mut book, "x", hint(1_000), T0 + 2_001);
    assert!(book.next_ms() <= T0 + 2_001);
}

#[test]
fn what_two_hear_at_once_is_kept_of_both() {
    let (mut shelf, mut a, mut b) = (Shelf::default(), Book::default(), Book::default());
    for _ in 0..4 {
        hear(&mut a, "x", Signal::Success, T0);
        hear(&mut b, "y", Signal::Success, T0);
    }
    hear(&mut b, "y", hint(60_000), T0);
    hear(&mut a, "x", hint(10_000), T0);
    let (of_a, of_b) = (a.begin_write(T0 * 1_000), b.begin_write(T0 * 1_000));
    a.written(Ok(shelf.swap(of_a)), T0, T0);
    b.written(Ok(shelf.swap(of_b)), T0, T0);
    write(&mut b, &mut shelf, T0);
    a.learn(shelf.all(), T0 + 1);
    for book in [&a, &b] {
        let view = book.view(&scope(), T0 + 1);
        assert_eq!((view.last_minute.successes, view.last_minute.limited), (8, 2));
        assert_eq!(view.until_ms.map(|at_ms| at_ms >= T0 + 60_000), Some(true), "the longer hint");
    }
}

#[test]
fn two_that_wait_for_a_canary_get_one_between_them() {
    let (mut shelf, mut a, mut b) = (Shelf::default(), Book::default(), Book::default());
    hear(&mut a, "x", hint(1_000), T0);
    write(&mut a, &mut shelf, T0);
    b.learn(shelf.all(), T0);
    claim_with(&mut a, 10, &[], true, T0);
    claim_with(&mut b, 10, &[], true, T0);
    let later = T0 + 1_100;
    assert!(a.next_ms() <= later && b.next_ms() <= later);
    let let_through = write(&mut a, &mut shelf, later).len() + write(&mut b, &mut shelf, later).len();
    assert_eq!(let_through, 1);
    let granted = [&mut a, &mut b].map(|book| only(&book.restrict(10, later)).0);
    assert_eq!(granted.iter().flatten().sum::<u32>(), 1, "{granted:?}");
}

#[test]
fn what_was_taken_is_used_once_and_comes_back_unused() {
    let (mut shelf, mut book) = (Shelf::default(), Book::default());
    hear(&mut book, "x", hint(1_000), T0);
    claim_with(&mut book, 10, &[], true, T0);
    let later = T0 + 1_100;
    assert_eq!(write(&mut book, &mut shelf, later), [scope()]);
    assert_eq!(only(&book.restrict(10, later)).0, Some(1));
    assert_eq!(only(&book.restrict(10, later)).0, Some(0), "another wave has it");
    let restrictions = [Restriction { scope: scope(), any: Some(1), retries: None }];
    book.claimed(&restrictions, &[claim(10)], &[Claimed::default()], later);
    assert_eq!(only(&book.restrict(10, later)).0, Some(1), "nothing was due");
    book.claimed(&restrictions, &[claim(10)], &[Claimed::default()], later);
    // Nobody uses it: somebody else may.
    write(&mut book, &mut shelf, later + 2_000);
    write(&mut book, &mut shelf, later + 2_000);
    assert_eq!(only(&book.restrict(10, later + 2_000)).0, Some(0));
    claim_with(&mut book, 10, &[], true, later + 2_001);
    assert_eq!(write(&mut book, &mut shelf, later + 2_001), [scope()]);
}

#[test]
fn after_the_canary_a_growing_rate_passes() {
    let (mut shelf, mut book) = (Shelf::default(), Book::default());
    hear(&mut book, "x", hint(1_000), T0);
    claim_with(&mut book, 10, &[], true, T0);
    let later = T0 + 1_100;
    write(&mut book, &mut shelf, later);
    claim_with(&mut book, 10, &[1], true, later);
    write(&mut book, &mut shelf, later);
    assert_eq!(only(&book.restrict(10, later)).0, Some(0), "one, and then its outcome");
    hear(&mut book, "x", Signal::Success, later + 50);
    let mut passed = 0;
    for step in 0..600 {
        let now_ms = later + 50 + step * 100;
        write(&mut book, &mut shelf, now_ms);
        let restrictions = book.restrict(50, now_ms);
        let found = restrictions.first().and_then(|one| one.any).unwrap_or(50).min(50);
        let leases = (0..found).map(|_| lease(1)).collect();
        let claimed = Claimed { leases, held_back: vec![scope()], ..Claimed::default() };
        book.claimed(&restrictions, &[claim(50)], &[claimed], now_ms);
        passed += found;
    }
    // From 1/s to 10/s in a minute: 330, give or take the bursts.
    assert!((250..400).contains(&passed), "{passed}");
}

#[test]
fn a_store_that_fails_loses_nothing_of_what_was_heard() {
    let (mut shelf, mut book) = (Shelf::default(), Book::default());
    hear(&mut book, "x", hint(60_000), T0);
    let swaps = book.begin_write(T0 * 1_000);
    assert_eq!(swaps.len(), 1);
    hear(&mut book, "x", Signal::Success, T0 + 1);
    let error = StoreError::Unavailable("gone".into());
    assert!(book.written(Err(error), T0 + 1, T0 + 501).is_empty());
    assert_eq!(only(&book.restrict(10, T0 + 2)).0, Some(0), "shut here all the same");
    assert!(book.begin_write((T0 + 400) * 1_000).is_empty());
    write(&mut book, &mut shelf, T0 + 501);
    let mut other = Book::default();
    other.learn(shelf.all(), T0 + 502);
    assert_eq!(
        (state(&other, T0 + 502), other.view(&scope(), T0 + 502).last_minute.successes),
        (State::Shut, 1)
    );
}

#[test]
fn an_order_is_answered_when_it_is_written() {
    let (mut shelf, mut book) = (Shelf::default(), Book::default());
    let (written, mut done) = oneshot::channel();
    assert_eq!(book.order(&scope(), Order::Command(Command::Isolate), written, T0), Ok(()));
    assert!(done.try_recv().is_err());
    write(&mut book, &mut shelf, T0);
    assert!(done.try_recv().unwrap().is_ok());
    assert_eq!(state(&book, T0), State::Isolated);
}

#[test]
fn retries_are_held_back_by_the_budget_and_first_attempts_are_not() {
    let mut book = Book::default();
    book.count_reported(&dependency(), 1_000, T0);
    claim_with(&mut book, 195, &[1; 195], false, T0);
    assert!(book.restrict(4, T0).is_empty(), "five are left, and four wanted");
    assert_eq!(only(&claim_with(&mut book, 50, &[0, 0, 1, 1, 1, 1, 1], true, T0)), (None, Some(5)));
    assert_eq!(only(&book.restrict(1, T0)), (None, Some(0)));
    // Two more first attempts are no fifth of a retry more; the minute's end is what they wait for.
    assert!(book.next_ms() <= T0 + 60_000);
}

#[test]
fn gates_that_nobody_calls_are_forgotten() {
    let (mut shelf, mut book) = (Shelf::default(), Book::default());
    hear(&mut book, "x", Signal::Success, T0);
    write(&mut book, &mut shelf, T0 + 2_000);
    assert_eq!((shelf.cells.len(), book.views(T0).len()), (1, 1));
    write(&mut book, &mut shelf, T0 + 700_000);
    assert_eq!((shelf.cells.len(), book.views(T0).len()), (0, 0));
}

#[test]
fn too_many_dependencies_get_no_gates_and_no_harm() {
    let mut book = Book::default();
    for place in 0..=GATES_MAX {
        let name = Name::new(format!("tool/{place}")).unwrap();
        book.count_reported(&name, 1, T0);
    }
    assert_eq!(book.views(T0).len(), GATES_MAX);
    let (written, _done) = oneshot::channel();
    let late = Scope::Dependency(Name::new(format!("tool/{GATES_MAX}")).unwrap());
    let refused = book.order(&late, Order::Command(Command::Isolate), written, T0);
    assert_eq!(refused, Err(Refusal::TooMany));
}

#[test]
fn failures_of_the_fleet_are_one_gates_business_whoever_hears_them() {
    let (mut shelf, mut a, mut b) = (Shelf::default(), Book::default(), Book::default());
    // Five each: neither has enough to tell.
    for step in 0..5 {
        hear(&mut a, "x", Signal::Failure, T0 + step);
        hear(&mut b, "y", Signal::Failure, T0 + step);
    }
    assert_eq!((state(&a, T0 + 5), state(&b, T0 + 5)), (State::Open, State::Open));
    write(&mut a, &mut shelf, T0 + 2_000);
    write(&mut b, &mut shelf, T0 + 2_000);
    a.learn(shelf.all(), T0 + 2_001);
    assert_eq!((state(&a, T0 + 2_001), state(&b, T0 + 2_001)), (State::Shut, State::Shut));
    let view = a.view(&scope(), T0 + 2_001);
    assert!(view.until_ms.is_some_and(|at_ms| at_ms >= T0 + SHUT_MS as i64));
}

#[test]
fn heard_alike_is_told_as_one() {
    let mut told = Told::default();
    let agent = Name::new("x").unwrap();
    for _ in 0..3 {
        told.add(&dependency(), Signal::Success, Some(&agent), 5);
    }
    told.add(&dependency(), Signal::Failure, Some(&agent), 5);
    assert_eq!(told.heard.iter().map(|(_, heard)| heard.count).collect::<Vec<_>>(), [3, 1]);
}

fn limited_to(max: u32, shelf: &mut Shelf, now_ms: i64) -> (Book, Book) {
    let (mut a, mut b) = (Book::default(), Book::default());
    let (written, _done) = oneshot::channel();
    let settings = Settings { max_in_flight: Some(max), ..Settings::default() };
    assert_eq!(a.order(&scope(), Order::Set(settings), written, now_ms), Ok(()));
    write(&mut a, shelf, now_ms);
    b.learn(shelf.all(), now_ms);
    (a, b)
}

/// A lease that was given then.
fn lease_at(began_ms: i64) -> redrive_shared::task::Lease {
    redrive_shared::task::Lease { epoch: began_ms * 1_000, lease_until_ms: began_ms + 30_000, ..lease(0) }
}

/// Claims what it may of ten; returns how many it got.
fn claim_some(book: &mut Book, shelf: &mut Shelf, now_ms: i64) -> u32 {
    claim_with(book, 10, &[], true, now_ms);
    write(book, shelf, now_ms);
    let restrictions = book.restrict(10, now_ms);
    let given = restrictions[0].any.unwrap();
    let leases = (0..given).map(|_| lease_at(now_ms)).collect();
    let claimed = Claimed { leases, ..Claimed::default() };
    book.claimed(&restrictions, &[claim(10)], &[claimed], now_ms);
    write(book, shelf, now_ms);
    given
}

fn end(book: &mut Book, began_ms: i64, now_ms: i64) {
    let mut told = Told::default();
    told.end(&Name::new("q").unwrap(), Some(&dependency()), began_ms);
    book.hear(told, now_ms);
}

fn in_flight(book: &Book, now_ms: i64) -> Option<u32> {
    book.view(&scope(), now_ms).in_flight
}

#[test]
fn two_share_how_many_may_be_out() {
    let mut shelf = Shelf::default();
    let (mut a, mut b) = limited_to(3, &mut shelf, T0);
    assert_eq!(claim_some(&mut a, &mut shelf, T0), 3);
    assert_eq!(claim_some(&mut b, &mut shelf, T0 + 1), 0, "it finds out when it asks");
    assert_eq!(in_flight(&b, T0 + 1), Some(3));
    // The end of one is heard by whoever did not give it, and by the other at once.
    end(&mut b, T0, T0 + 500);
    assert!(b.next_ms() <= T0 + 500, "somebody waits");
    assert_eq!(write(&mut b, &mut shelf, T0 + 500), [scope()]);
    assert_eq!(only(&b.restrict(10, T0 + 500)).0, Some(1));
    a.learn(shelf.all(), T0 + 501);
    assert_eq!(claim_some(&mut a, &mut shelf, T0 + 502), 0);
    assert_eq!(in_flight(&a, T0 + 502), Some(3));
}

#[test]
fn an_end_is_announced_where_nobody_waits_and_lets_others_through() {
    let mut shelf = Shelf::default();
    let (mut a, mut b) = limited_to(1, &mut shelf, T0);
    assert_eq!(claim_some(&mut a, &mut shelf, T0), 1);
    b.learn(shelf.all(), T0 + 1);
    assert_eq!(claim_some(&mut b, &mut shelf, T0 + 1), 0);
    // Everything that gave way before has been let through, and nobody waits at the first one.
    end(&mut a, T0, T0 + 2);
    let swaps = a.begin_write((T0 + 2) * 1_000);
    assert!(swaps.iter().all(|swap| swap.tell), "{swaps:?}");
    a.written(Ok(shelf.swap(swaps)), T0 + 2, T0 + 2);
    b.learn(shelf.all(), T0 + 3);
    assert_eq!(write(&mut b, &mut shelf, T0 + 3), [scope()]);
}

#[test]
fn what_dies_with_a_coordinator_comes_back() {
    let mut shelf = Shelf::default();
    let (mut a, mut b) = limited_to(2, &mut shelf, T0);
    // It takes both, claims, and is gone before it has told of that.
    claim_with(&mut a, 10, &[], true, T0);
    write(&mut a, &mut shelf, T0);
    drop(a);
    b.learn(shelf.all(), T0);
    assert_eq!(claim_some(&mut b, &mut shelf, T0 + TAKEN_MS - 1), 0);
    assert!(b.next_ms() <= T0 + TAKEN_MS + 1_000, "it looks again by itself");
    assert_eq!(claim_some(&mut b, &mut shelf, T0 + TAKEN_MS + 1_000), 2);
}

#[test]
fn a_coordinator_that_begins_counts_what_counted_when_the_last_one_went() {
    let mut shelf = Shelf::default();
    let (mut a, _) = limited_to(2, &mut shelf, T0);
    assert_eq!(claim_some(&mut a, &mut shelf, T0), 2);
    let (mut later, now_ms) = (Book::default(), T0 + 3_600_000);
    later.learn(shelf.all(), now_ms);
    later.spare(now_ms + 12_000, now_ms);
    assert_eq!(in_flight(&later, now_ms), Some(2));
    // It ends one of them, and of the other nothing is ever heard.
    end(&mut later, T0, now_ms + 10_000);
    assert_eq!(claim_some(&mut later, &mut shelf, now_ms + 10_001), 1);
    assert_eq!(claim_some(&mut later, &mut shelf, now_ms + 11_999), 0);
    assert_eq!(claim_some(&mut later, &mut shelf, now_ms + 12_000), 1);
}

#[test]
fn a_claim_whose_answer_is_lost_counts_until_its_leases_end() {
    let mut shelf = Shelf::default();
    let (mut a, _) = limited_to(2, &mut shelf, T0);
    claim_with(&mut a, 10, &[], true, T0);
    write(&mut a, &mut shelf, T0);
    let restrictions = a.restrict(10, T0);
    assert_eq!(only(&restrictions).0, Some(2));
    a.lost(&restrictions, T0 + 60_000, T0);
    write(&mut a, &mut shelf, T0);
    assert_eq!(claim_some(&mut a, &mut shelf, T0 + 59_999), 0);
    assert_eq!(claim_some(&mut a, &mut shelf, T0 + 60_000), 2);
}

#[test]
fn what_was_written_though_the_answer_was_lost_is_not_counted_twice() {
    let mut shelf = Shelf::default();
    let (mut a, _) = limited_to(5, &mut shelf, T0);
    claim_with(&mut a, 2, &[], true, T0);
    for (now_ms, lost) in [(T0, true), (T0 + 500, false)] {
        let swaps = a.begin_write(now_ms * 1_000);
        assert_eq!(swaps.len(), 1);
        let swapped = shelf.swap(swaps);
        let result = if lost { Err(StoreError::Unavailable("gone".into())) } else { Ok(swapped) };
        a.written(result, now_ms, now_ms + 500);
    }
    assert_eq!(only(&a.restrict(2, T0 + 500)).0, Some(2));
    assert_eq!(in_flight(&a, T0 + 500), Some(2), "and not four");
}

#[test]
fn what_was_taken_and_is_worth_nothing_any_more_is_not_out() {
    let mut shelf = Shelf::default();
    let (mut a, _) = limited_to(3, &mut shelf, T0);
    claim_with(&mut a, 10, &[], true, T0);
    write(&mut a, &mut shelf, T0);
    assert_eq!(in_flight(&a, T0), Some(3));
    hear(&mut a, "x", hint(10_000), T0 + 1);
    write(&mut a, &mut shelf, T0 + 1);
    assert_eq!((state(&a, T0 + 1), in_flight(&a, T0 + 1)), (State::Shut, Some(0)));
}
