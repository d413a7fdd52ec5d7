//! Gates of queues: limits, and nothing that outcomes say.

use super::*;

fn queue() -> Name {
    Name::new("q").unwrap()
}

fn of_queue() -> Scope {
    Scope::Queue(queue())
}

/// A book whose queue has these limits.
fn set(settings: Settings, shelf: &mut Shelf) -> Book {
    let mut book = Book::default();
    order(&mut book, settings);
    write(&mut book, shelf, T0);
    book
}

fn order(book: &mut Book, settings: Settings) {
    assert_eq!(book.order(&of_queue(), Order::Set(settings), oneshot::channel().0, T0), Ok(()));
}

fn at_once(most: u32) -> Settings {
    Settings { max_in_flight: Some(most), ..Settings::default() }
}

fn restrict(book: &mut Book, queue: &Name, now_ms: i64) -> Vec<Restriction> {
    let mut restrictions = book.restrict(10, now_ms);
    restrictions.extend(book.restrict_in(std::iter::once(queue), 10, now_ms));
    restrictions
}

/// Claims what it may of ten; returns how many it got, of each kind of task.
fn claim_some(
    book: &mut Book,
    shelf: &mut Shelf,
    lease: impl Fn() -> redrive_shared::task::Lease,
    now_ms: i64,
) -> u32 {
    let mut given = 0;
    // First it finds out that somebody waits.
    for _ in 0..2 {
        let restrictions = restrict(book, &queue(), now_ms);
        let most = restrictions.iter().filter_map(|one| one.any).min().unwrap_or(10);
        given += most;
        let held_back = restrictions.iter().filter(|one| one.any == Some(0)).map(|one| one.scope.clone());
        let leases = (0..most).map(|_| lease()).collect();
        let claimed = Claimed { leases, held_back: held_back.collect(), ..Claimed::default() };
        book.claimed(&restrictions, &[claim(10)], &[claimed], now_ms);
        write(book, shelf, now_ms);
    }
    given
}

fn end(book: &mut Book, dependency: Option<&Name>, now_ms: i64) {
    let mut told = book.told();
    told.end(&queue(), dependency, T0);
    book.hear(told, now_ms);
}

fn in_flight(book: &Book, scope: &Scope) -> Option<u32> {
    book.view(scope, T0 + 1).in_flight
}

#[test]
fn tasks_that_need_nothing_are_limited_by_their_queue() {
    let mut shelf = Shelf::default();
    let mut book = set(at_once(3), &mut shelf);
    let free = || redrive_shared::task::Lease { dependency: None, ..lease_at(T0) };
    assert_eq!(claim_some(&mut book, &mut shelf, free, T0), 3);
    assert_eq!(claim_some(&mut book, &mut shelf, free, T0), 0);
    assert_eq!(in_flight(&book, &of_queue()), Some(3));
    end(&mut book, None, T0 + 1);
    assert_eq!(write(&mut book, &mut shelf, T0 + 1), [of_queue()], "somebody waits");
    assert_eq!(claim_some(&mut book, &mut shelf, free, T0 + 1), 1);
}

#[test]
fn a_task_is_charged_to_its_queue_and_to_its_dependency() {
    let mut shelf = Shelf::default();
    let mut book = set(at_once(5), &mut shelf);
    assert_eq!(book.order(&scope(), Order::Set(at_once(2)), oneshot::channel().0, T0), Ok(()));
    write(&mut book, &mut shelf, T0);
    assert_eq!(claim_some(&mut book, &mut shelf, || lease_at(T0), T0), 2);
    assert_eq!(
        (in_flight(&book, &scope()), in_flight(&book, &of_queue())),
        (Some(2), Some(5)),
        "three are taken"
    );
    end(&mut book, Some(&dependency()), T0 + 1);
    end(&mut book, Some(&dependency()), T0 + 1);
    assert_eq!((in_flight(&book, &scope()), in_flight(&book, &of_queue())), (Some(0), Some(3)));
}

#[test]
fn claims_of_other_queues_have_nothing_to_do_with_it() {
    let mut shelf = Shelf::default();
    let mut book = set(at_once(1), &mut shelf);
    assert_eq!(restrict(&mut book, &Name::new("other").unwrap(), T0), []);
    let only_this = [Restriction { scope: of_queue(), any: Some(0), retries: None }];
    assert_eq!(restrict(&mut book, &queue(), T0), only_this);
    order(&mut book, Settings::default());
    assert_eq!(restrict(&mut book, &queue(), T0), [], "without limits it is in no list");
}

#[test]
fn a_queue_without_limits_costs_nothing() {
    let (mut shelf, mut book) = (Shelf::default(), Book::default());
    let free = || redrive_shared::task::Lease { dependency: None, ..lease_at(T0) };
    assert_eq!(claim_some(&mut book, &mut shelf, free, T0), 20);
    let mut told = book.told();
    told.end(&queue(), None, T0);
    assert!(told.is_empty());
    // Nor does one of which only the rate is limited count who is out.
    order(&mut book, Settings { requests_per_minute: Some(60), ..Settings::default() });
    write(&mut book, &mut shelf, T0);
    let mut told = book.told();
    told.end(&queue(), None, T0);
    assert!(told.is_empty());
    order(&mut book, Settings::default());
    write(&mut book, &mut shelf, T0);
    assert_eq!(book.views(T0), [], "nothing is to be shown of it");
    write(&mut book, &mut shelf, T0 + 120_000);
    assert!(shelf.cells.is_empty() && book.begin_write((T0 + 240_000) * 1_000).is_empty());
}

#[test]
fn nothing_that_outcomes_say_moves_a_queues_gate() {
    let mut shelf = Shelf::default();
    let mut book = set(at_once(1_000), &mut shelf);
    let retry = || redrive_shared::task::Lease { dependency: None, ledger: tried(), ..lease_at(T0) };
    for _ in 0..30 {
        claim_some(&mut book, &mut shelf, retry, T0);
    }
    let view = book.view(&of_queue(), T0);
    assert_eq!((view.state, view.last_minute, view.retries_left), (State::Open, Default::default(), None));
    assert_eq!(book.standing(), Standing::default());
}

fn tried() -> Ledger {
    Ledger { failed: 1, ..Ledger::default() }
}

#[test]
fn ends_of_one_queue_and_dependency_are_gathered() {
    let mut shelf = Shelf::default();
    let book = set(at_once(9), &mut shelf);
    let mut told = book.told();
    for _ in 0..3 {
        told.end(&queue(), Some(&dependency()), T0);
    }
    told.end(&queue(), None, T0);
    told.end(&queue(), None, T0 + 1);
    told.end(&Name::new("other").unwrap(), None, T0 + 1);
    assert_eq!(told.ended, [(scope(), T0, 3), (of_queue(), T0, 4), (of_queue(), T0 + 1, 1)]);
}

#[test]
fn what_lay_unused_for_too_long_is_not_handed_out() {
    let mut shelf = Shelf::default();
    let mut book = set(Settings { requests_per_minute: Some(60), ..Settings::default() }, &mut shelf);
    let ask = |book: &mut Book, now_ms| {
        let restrictions = restrict(book, &queue(), now_ms);
        let claimed = Claimed { held_back: vec![of_queue()], ..Claimed::default() };
        book.claimed(&restrictions, &[claim(1)], &[claimed], now_ms);
    };
    ask(&mut book, T0);
    assert_eq!(write(&mut book, &mut shelf, T0), [of_queue()]);
    // Whoever waited has gone, and the keeper is late.
    assert_eq!(restrict(&mut book, &queue(), T0 + 800)[0].any, Some(0));
    write(&mut book, &mut shelf, T0 + 800);
    ask(&mut book, T0 + 800);
    assert_eq!(write(&mut book, &mut shelf, T0 + 800), [of_queue()], "it can be taken again");
}
