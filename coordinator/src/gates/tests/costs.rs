//! What groups may cost within a day, over several coordinators.

use redrive_shared::cost::Cost;
use redrive_shared::gate::Reason;

use super::*;

/// The midnight (UTC) after [`T0`].
const MIDNIGHT_MS: i64 = (T0 / 86_400_000 + 1) * 86_400_000;

fn usd(dollars: u64) -> Cost {
    Cost::from_micros(dollars * 1_000_000)
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn of_group(group: &str) -> Scope {
    Scope::Group { queue: name("q"), group: name(group) }
}

/// A task of the group cost so much, of three dollars a day.
fn spend(book: &mut Book, group: &str, dollars: u64, now_ms: i64) {
    let mut told = Told::default();
    told.spend(&name("q"), &name(group), usd(dollars), usd(3));
    book.hear(told, now_ms);
}

/// The groups that a claim from the queue gets nothing of.
fn held_back(book: &mut Book, now_ms: i64) -> Vec<Scope> {
    let queues = [name("q")];
    let restrictions = book.restrict_in(queues.iter(), 10, now_ms);
    assert!(restrictions.iter().all(|one| (one.any, one.retries) == (Some(0), None)), "{restrictions:?}");
    restrictions.into_iter().map(|one| one.scope).collect()
}

/// A claim that found something due of the group behind its gate, and waits.
fn waits(book: &mut Book, group: &str, now_ms: i64) {
    let queues = [name("q")];
    let restrictions = book.restrict_in(queues.iter(), 10, now_ms);
    let claimed = Claimed { held_back: vec![of_group(group)], ..Claimed::default() };
    book.claimed(&restrictions, &[claim(10)], &[claimed], now_ms);
}

#[test]
fn coordinators_add_up_what_a_group_costs_and_one_tells_that_it_was_enough() {
    let (mut shelf, mut a, mut b) = (Shelf::default(), Book::default(), Book::default());
    spend(&mut a, "t7", 2, T0);
    spend(&mut b, "t7", 1, T0);
    spend(&mut b, "t8", 2, T0);
    assert_eq!((held_back(&mut a, T0), held_back(&mut b, T0)), (vec![], vec![]));
    write(&mut a, &mut shelf, T0 + 2_000);
    // Who is slower adds its own to what is there.
    write(&mut b, &mut shelf, T0 + 2_000);
    assert_eq!(held_back(&mut b, T0 + 2_000), [of_group("t7")], "the other group goes on");
    assert_eq!((a.take_reached(T0 + 2_000).len(), b.take_reached(T0 + 2_000).len()), (0, 1));
    assert!(b.take_reached(T0 + 2_001).is_empty(), "told once");
    a.learn(shelf.all(), T0 + 2_001);
    assert_eq!(held_back(&mut a, T0 + 2_001), [of_group("t7")]);
    assert!(a.take_reached(T0 + 2_001).is_empty(), "by one of them");
    assert!(a.restrict_in([name("other")].iter(), 10, T0 + 2_001).is_empty(), "other queues go on");
    let view = a.view(&of_group("t7"), T0 + 2_001);
    assert_eq!(
        (view.state, view.reason, view.until_ms),
        (State::Shut, Some(Reason::Cost), Some(MIDNIGHT_MS))
    );
    let costs = view.costs.unwrap();
    assert_eq!((costs.spent_usd, costs.max_usd, costs.lifted), (usd(3), Some(usd(3)), false));
}

#[test]
fn what_uses_up_the_day_is_written_and_announced_at_once() {
    let mut book = Book::default();
    spend(&mut book, "t7", 1, T0);
    assert!(book.begin_write(T0 * 1_000).is_empty(), "it only counts");
    spend(&mut book, "t7", 2, T0 + 1);
    let swaps = book.begin_write((T0 + 1) * 1_000);
    assert!(swaps.len() == 1 && swaps[0].tell, "{swaps:?}");
}

#[test]
fn who_waits_goes_on_at_midnight_and_past_days_are_forgotten() {
    let (mut shelf, mut book) = (Shelf::default(), Book::default());
    spend(&mut book, "t7", 3, T0);
    assert_eq!(write(&mut book, &mut shelf, T0), []);
    waits(&mut book, "t7", T0 + 1);
    assert_eq!(write(&mut book, &mut shelf, T0 + 1), []);
    assert!(book.next_ms() <= MIDNIGHT_MS);
    assert_eq!(write(&mut book, &mut shelf, MIDNIGHT_MS - 1), []);
    assert_eq!(held_back(&mut book, MIDNIGHT_MS - 1), [of_group("t7")]);
    assert_eq!(write(&mut book, &mut shelf, MIDNIGHT_MS), [of_group("t7")], "its lines are woken");
    assert_eq!(held_back(&mut book, MIDNIGHT_MS), []);
    write(&mut book, &mut shelf, MIDNIGHT_MS + 61_000);
    assert!(shelf.cells.is_empty() && book.views(MIDNIGHT_MS + 61_000).is_empty());
}

#[test]
fn a_higher_bound_lets_those_go_on_who_wait_and_a_lower_one_holds_back() {
    let (mut shelf, mut book) = (Shelf::default(), Book::default());
    spend(&mut book, "t7", 3, T0);
    waits(&mut book, "t7", T0);
    assert_eq!(write(&mut book, &mut shelf, T0), []);
    book.bound_costs(|_| Some(usd(4)), T0 + 1);
    assert_eq!(write(&mut book, &mut shelf, T0 + 1), [of_group("t7")]);
    assert_eq!(held_back(&mut book, T0 + 1), []);
    book.bound_costs(|_| Some(usd(2)), T0 + 2);
    assert_eq!(held_back(&mut book, T0 + 2), [of_group("t7")]);
    book.bound_costs(|_| None, T0 + 3);
    assert_eq!(held_back(&mut book, T0 + 3), []);
    // Who has just started knows the sums by what is in the store, and the bounds by the policies.
    let mut late = Book::default();
    late.learn(shelf.all(), T0 + 4);
    assert_eq!(held_back(&mut late, T0 + 4), []);
    late.bound_costs(|_| Some(usd(3)), T0 + 4);
    assert_eq!(held_back(&mut late, T0 + 4), [of_group("t7")]);
}

#[test]
fn a_person_lifts_it_at_one_coordinator_for_those_who_wait_at_another() {
    let (mut shelf, mut a, mut b) = (Shelf::default(), Book::default(), Book::default());
    spend(&mut a, "t7", 3, T0);
    write(&mut a, &mut shelf, T0);
    b.learn(shelf.all(), T0 + 1);
    b.bound_costs(|_| Some(usd(3)), T0 + 1);
    waits(&mut b, "t7", T0 + 1);
    let (written, _done) = oneshot::channel();
    a.order(&of_group("t7"), Order::Command(Command::Open), written, T0 + 2).unwrap();
    write(&mut a, &mut shelf, T0 + 2);
    b.learn(shelf.all(), T0 + 3);
    assert_eq!(write(&mut b, &mut shelf, T0 + 3), [of_group("t7")]);
    spend(&mut b, "t7", 9, T0 + 4);
    assert_eq!(held_back(&mut b, T0 + 4), [], "whatever it costs");
    assert!(b.view(&of_group("t7"), T0 + 4).costs.unwrap().lifted);
    spend(&mut b, "t7", 3, MIDNIGHT_MS);
    assert_eq!(held_back(&mut b, MIDNIGHT_MS), [of_group("t7")], "for that day");
}

#[test]
fn no_more_groups_are_counted_than_leave_room_for_dependencies() {
    let mut book = Book::default();
    for number in 0..5_001 {
        spend(&mut book, &format!("g{number}"), 3, T0);
    }
    assert_eq!(book.views(T0).len(), 5_000);
    assert_eq!(held_back(&mut book, T0).len(), 5_000);
    hear(&mut book, "x", hint(10_000), T0);
    assert_eq!(state(&book, T0), State::Shut);
}
