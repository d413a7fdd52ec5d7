//! Limits of tokens a minute, over several coordinators.

use super::*;

/// Of 60,000 a minute: what passes at once.
const AT_ONCE: u64 = 1_000;

fn limited(shelf: &mut Shelf, now_ms: i64) -> (Book, Book) {
    let (mut a, mut b) = (Book::default(), Book::default());
    let (written, _done) = oneshot::channel();
    let settings = Settings { tokens_per_minute: Some(60 * AT_ONCE), ..Settings::default() };
    assert_eq!(a.order(&scope(), Order::Set(settings), written, now_ms), Ok(()));
    write(&mut a, shelf, now_ms);
    b.learn(shelf.all(), now_ms);
    (a, b)
}

/// Leases of what it was given so many tasks that use so much each.
fn lease_some(book: &mut Book, most: u32, tokens: u32, more: bool, now_ms: i64) -> u32 {
    let restrictions = book.restrict(most, now_ms);
    let count = only(&restrictions).0.unwrap().min(most);
    let lease = || redrive_shared::task::Lease { tokens: Some(tokens), ..lease_at(now_ms) };
    let held_back = if more { vec![scope()] } else { Vec::new() };
    let leases = (0..count).map(|_| lease()).collect();
    let claimed = Claimed { leases, held_back, ..Claimed::default() };
    book.claimed(&restrictions, &[claim(most as usize)], &[claimed], now_ms);
    count
}

/// Asks for so many, and leases what it gets.
fn ask(book: &mut Book, shelf: &mut Shelf, most: u32, tokens: u32, now_ms: i64) -> u32 {
    claim_with(book, most as usize, &[], true, now_ms);
    write(book, shelf, now_ms);
    let count = lease_some(book, most, tokens, false, now_ms);
    write(book, shelf, now_ms);
    count
}

fn owed(book: &Book, now_ms: i64) -> u64 {
    book.view(&scope(), now_ms).tokens_owed.unwrap()
}

#[test]
fn what_one_leases_leaves_less_for_the_other() {
    let mut shelf = Shelf::default();
    let (mut a, mut b) = limited(&mut shelf, T0);
    assert_eq!(ask(&mut a, &mut shelf, 50, 100, T0), 1, "one tells what they are like");
    assert_eq!(ask(&mut b, &mut shelf, 5, 100, T0), 5, "it hears of the first when it asks");
    assert_eq!(ask(&mut a, &mut shelf, 50, 100, T0), 4);
    assert_eq!((ask(&mut b, &mut shelf, 50, 100, T0), owed(&b, T0)), (0, 0));
}

#[test]
fn what_is_taken_is_charged_before_it_is_known() {
    let mut shelf = Shelf::default();
    let (mut a, mut b) = limited(&mut shelf, T0);
    ask(&mut a, &mut shelf, 1, 100, T0);
    let later = T0 + 10_000;
    claim_with(&mut a, 50, &[], true, later);
    write(&mut a, &mut shelf, later);
    assert_eq!(ask(&mut b, &mut shelf, 50, 100, later), 0, "the first has taken all that there is");
    assert_eq!(lease_some(&mut a, 50, 100, false, later), 10);
}

#[test]
fn nobody_gets_anything_until_a_heavy_batch_is_paid_off() {
    let mut shelf = Shelf::default();
    let (mut a, mut b) = limited(&mut shelf, T0);
    ask(&mut a, &mut shelf, 1, 100, T0);
    let later = T0 + 10_000;
    claim_with(&mut a, 10, &[], true, later);
    write(&mut a, &mut shelf, later);
    // Of ten it leases six that are ten times as heavy: the other four are given up.
    assert_eq!(lease_some(&mut a, 6, 1_000, true, later), 6);
    assert_eq!(only(&a.restrict(10, later)).0, Some(0));
    write(&mut a, &mut shelf, later);
    assert!((4_980..=5_000).contains(&owed(&a, later)), "{}", owed(&a, later));
    for wait_ms in [1, 1_000, 4_900] {
        assert_eq!(ask(&mut b, &mut shelf, 50, 100, later + wait_ms), 0);
    }
    let next_ms = b.next_ms();
    assert!((5_000..5_200).contains(&(next_ms - later)), "{}", next_ms - later);
    assert_eq!(write(&mut b, &mut shelf, next_ms), [scope()]);
    assert_eq!(lease_some(&mut b, 50, 100, false, next_ms), 1);
}

#[test]
fn what_is_not_used_can_be_taken_again() {
    let mut shelf = Shelf::default();
    let (mut a, mut b) = limited(&mut shelf, T0);
    ask(&mut a, &mut shelf, 1, 100, T0);
    let later = T0 + 10_000;
    claim_with(&mut a, 50, &[], true, later);
    write(&mut a, &mut shelf, later);
    lease_some(&mut a, 0, 0, false, later);
    write(&mut a, &mut shelf, later + 1_000);
    assert_eq!(ask(&mut b, &mut shelf, 50, 100, later + 1_000), 10);
    // The gate shuts while somebody has some.
    let later = later + 10_000;
    claim_with(&mut a, 50, &[], true, later);
    write(&mut a, &mut shelf, later);
    hear(&mut a, "x", hint(1), later);
    write(&mut a, &mut shelf, later);
    let text = &shelf.cells[&scope()].value;
    assert!(!text.contains("reserved"), "{text}");
}

#[test]
fn what_was_written_though_the_answer_was_lost_is_charged_once() {
    let mut shelf = Shelf::default();
    let (mut a, _) = limited(&mut shelf, T0);
    claim_with(&mut a, 1, &[], true, T0);
    write(&mut a, &mut shelf, T0);
    lease_some(&mut a, 1, 7_000, false, T0);
    for (now_ms, lost) in [(T0, true), (T0 + 500, false)] {
        let swaps = a.begin_write(now_ms * 1_000);
        assert_eq!(swaps.len(), 1);
        let swapped = shelf.swap(swaps);
        let result = if lost { Err(StoreError::Unavailable("gone".into())) } else { Ok(swapped) };
        a.written(result, now_ms, now_ms + 500);
    }
    assert!((5_400..5_600).contains(&owed(&a, T0 + 500)), "{}", owed(&a, T0 + 500));
}

#[test]
fn a_debt_is_not_made_smaller_by_what_is_written_late() {
    let mut shelf = Shelf::default();
    let (mut a, _) = limited(&mut shelf, T0);
    claim_with(&mut a, 1, &[], true, T0);
    write(&mut a, &mut shelf, T0);
    lease_some(&mut a, 1, 31_000, false, T0);
    for agent in ["x", "y", "x", "y"] {
        hear(&mut a, agent, Signal::Success, T0);
    }
    let swaps = a.begin_write(T0 * 1_000);
    assert_eq!(swaps.len(), 1);
    // Somebody else was faster, and then the store is away for a while.
    let error = StoreError::Unavailable("gone".into());
    a.written(Err(error), T0, T0 + 5_000);
    let cell = shelf.cells.get_mut(&scope()).unwrap();
    (cell.version, shelf.change) = (77, 77);
    write(&mut a, &mut shelf, T0 + 5_000);
    assert!((24_900..25_100).contains(&owed(&a, T0 + 5_000)), "{}", owed(&a, T0 + 5_000));
}
