//! What a book makes of stores that fail or are full, of newer releases, and of what is left over.

use super::*;

#[test]
fn a_store_that_takes_nothing_for_long_costs_no_gate_its_turn() {
    let (mut shelf, mut book) = (Shelf::default(), Book::default());
    let settings = Settings { requests_per_minute: Some(6_000), ..Settings::default() };
    let (written, _done) = oneshot::channel();
    book.order(&scope(), Order::Set(settings), written, T0).unwrap();
    write(&mut book, &mut shelf, T0);
    // What is heard meanwhile is more than is kept.
    let sent = book.begin_write(T0 * 1_000);
    assert!(sent.is_empty());
    hear(&mut book, "x", Signal::Success, T0);
    let mut under_way = book.begin_write((T0 + 2_000) * 1_000);
    for step in 0..3_000 {
        let signal = if step % 2 == 0 { Signal::Success } else { Signal::Limited { hint_ms: None } };
        hear(&mut book, if step % 3 == 0 { "x" } else { "y" }, signal, T0 + 2_000);
    }
    claim_with(&mut book, 10, &[], true, T0 + 2_000);
    let error = StoreError::Unavailable("gone".into());
    assert!(book.written(Err(error), T0 + 2_000, T0 + 2_500).is_empty());
    under_way.clear();
    let mut passed = 0;
    for step in 0..100 {
        let now_ms = T0 + 3_000 + step * 100;
        write(&mut book, &mut shelf, now_ms);
        let restrictions = book.restrict(10, now_ms);
        let given = restrictions.first().and_then(|one| one.any).unwrap_or(10);
        let leases = (0..given.min(10)).map(|_| lease(0)).collect();
        let claimed = Claimed { leases, held_back: vec![scope()], ..Claimed::default() };
        book.claimed(&restrictions, &[claim(10)], &[claimed], now_ms);
        passed += given.min(10);
    }
    assert!(passed > 0, "it asks again");
}

#[test]
fn what_there_is_no_room_for_in_the_store_holds_nothing_back() {
    let mut book = Book::default();
    hear(&mut book, "x", hint(60_000), T0);
    claim_with(&mut book, 10, &[], true, T0);
    let swaps = book.begin_write(T0 * 1_000);
    assert_eq!(swaps.len(), 1);
    book.written(Ok(vec![GateSwapped::NoRoom]), T0, T0 + 500);
    assert_eq!(book.take_let_through(T0), [scope()]);
    assert!(book.restrict(10, T0).is_empty());
}

#[test]
fn a_gate_of_a_newer_release_is_left_as_it_is_and_holds_nothing_back_here() {
    let (mut shelf, mut book) = (Shelf::default(), Book::default());
    hear(&mut book, "x", hint(60_000), T0);
    claim_with(&mut book, 10, &[], true, T0);
    write(&mut book, &mut shelf, T0);
    let newer = r#"{"phase":{"phase":"half_shut"},"since_ms":0}"#.to_owned();
    let cell = GateCell { scope: scope(), version: 99, value: newer.clone() };
    shelf.cells.insert(scope(), cell);
    shelf.change = 99;
    book.learn(shelf.all(), T0 + 1);
    assert_eq!(book.take_let_through(T0 + 1), [scope()]);
    assert!(book.restrict(10, T0 + 1).is_empty());
    let (written, _done) = oneshot::channel();
    let refused = book.order(&scope(), Order::Command(Command::Isolate), written, T0 + 1);
    assert_eq!(refused, Err(Refusal::Unreadable));
    hear(&mut book, "x", hint(60_000), T0 + 2);
    for later in [T0 + 2, T0 + 5_000, T0 + 700_000] {
        write(&mut book, &mut shelf, later);
    }
    assert_eq!(shelf.cells.get(&scope()).map(|cell| &cell.value), Some(&newer));
    // The newer one writes what this one understands.
    let cell =
        GateCell { version: 100, value: serde_json::to_string(&shut(T0 + 700_000)).unwrap(), scope: scope() };
    shelf.cells.insert(scope(), cell);
    shelf.change = 100;
    book.learn(shelf.all(), T0 + 700_001);
    assert_eq!(only(&book.restrict(10, T0 + 700_001)).0, Some(0));
}

fn shut(now_ms: i64) -> redrive_shared::gate::Gate {
    let mut gate = redrive_shared::gate::Gate::default();
    gate.command(Command::Shut(60_000), now_ms);
    gate
}

#[test]
fn what_is_left_over_when_a_ramp_is_over_keeps_nobody_awake() {
    let (mut shelf, mut book) = (Shelf::default(), Book::default());
    hear(&mut book, "x", hint(1_000), T0);
    claim_with(&mut book, 10, &[], true, T0);
    let mut now_ms = T0 + 1_100;
    write(&mut book, &mut shelf, now_ms);
    claim_with(&mut book, 10, &[1], true, now_ms);
    hear(&mut book, "x", Signal::Success, now_ms + 1);
    // A hundred first attempts a minute: the budget counts, and what waits are retries.
    book.count_reported(&dependency(), 200, now_ms + 1);
    let (mut rounds, mut at_once) = (0, 0);
    while now_ms < T0 + 400_000 {
        write(&mut book, &mut shelf, now_ms);
        if rounds % 10 == 0 {
            claim_with(&mut book, 500, &[], true, now_ms);
            book.count_reported(&dependency(), 20, now_ms);
        }
        rounds += 1;
        let next_ms = book.next_ms();
        at_once = if next_ms > now_ms { 0 } else { at_once + 1 };
        assert!(at_once < 5, "it runs in a circle at {}", now_ms - T0);
        now_ms = next_ms.clamp(now_ms, now_ms + 1_000);
        assert!(rounds < 20_000, "it looks all the time: {}", now_ms - T0);
    }
}

#[test]
fn claims_at_the_same_time_share_what_the_budget_has_left() {
    let mut book = Book::default();
    book.count_reported(&dependency(), 1_000, T0);
    let first = book.restrict(500, T0);
    let second = book.restrict(500, T0);
    assert_eq!((only(&first), only(&second)), ((None, Some(200)), (None, Some(0))));
    book.claimed(&first, &[claim(500)], &[Claimed::default()], T0);
    book.claimed(&second, &[claim(500)], &[Claimed::default()], T0);
    assert_eq!(only(&book.restrict(500, T0)), (None, Some(200)), "none was used");
}

#[test]
fn whoever_judges_failures_is_told_which_dependencies_are_barred() {
    let mut book = Book::default();
    assert_eq!(book.standing(), Standing::default());
    hear(&mut book, "x", Signal::Limited { hint_ms: Some(60_000) }, T0);
    let isolated = Scope::Dependency(Name::new("tool/pdf").unwrap());
    book.order(&isolated, Order::Command(Command::Isolate), oneshot::channel().0, T0).unwrap();
    let standing = book.standing();
    assert_eq!(standing.of(&dependency()), Some(Barred::Shut));
    assert_eq!(standing.of("tool/pdf"), Some(Barred::Isolated));
    assert!(standing.is_open("tool/ocr"));
}

#[test]
fn what_was_written_and_not_answered_is_not_counted_twice_under_what_others_wrote() {
    let mut shelf = Shelf::default();
    let (mut one, mut other) = limited_to(3, &mut shelf, T0);
    assert_eq!(claim_some(&mut one, &mut shelf, T0), 3);
    // One ends. That is written and the answer is lost; then another coordinator takes the place that came free.
    end(&mut one, T0, T0 + 1_000);
    let swaps = one.begin_write((T0 + 1_000) * 1_000);
    assert_eq!(swaps.len(), 1);
    shelf.swap(swaps);
    one.written(Err(StoreError::Unavailable("gone".into())), T0 + 1_000, T0 + 1_500);
    other.learn(shelf.all(), T0 + 1_100);
    assert_eq!(claim_some(&mut other, &mut shelf, T0 + 1_100), 1);
    // What is sent again is found below that.
    write(&mut one, &mut shelf, T0 + 2_000);
    assert_eq!(in_flight(&one, T0 + 2_000), Some(3), "three are out");
    // One that was not written is, on top of what others wrote.
    end(&mut one, T0, T0 + 3_000);
    assert_eq!(one.begin_write((T0 + 3_000) * 1_000).len(), 1);
    one.written(Err(StoreError::Unavailable("gone".into())), T0 + 3_000, T0 + 3_500);
    end(&mut other, T0, T0 + 3_100);
    write(&mut other, &mut shelf, T0 + 3_100);
    write(&mut one, &mut shelf, T0 + 4_000);
    assert_eq!(in_flight(&one, T0 + 4_000), Some(1));
}
