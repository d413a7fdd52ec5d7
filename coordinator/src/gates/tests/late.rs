//! What coordinators tell of late.

use super::*;

#[test]
fn what_others_handed_out_before_a_refusal_counts_for_the_ramp_after_it() {
    for signal in [hint(1_000), Signal::Limited { hint_ms: None }] {
        let (mut shelf, mut a) = (Shelf::default(), Book::default());
        let mut others = [Book::default(), Book::default()];
        for (place, book) in others.iter_mut().enumerate() {
            claim_with(book, 40, &[0; 20], false, T0 + place as i64);
            claim_with(book, 40, &[0; 20], false, T0 + 30 + place as i64);
        }
        claim_with(&mut a, 20, &[0; 20], false, T0 + 5);
        hear(&mut a, "x", signal, T0 + 50);
        write(&mut a, &mut shelf, T0 + 50);
        for book in &mut others {
            book.learn(shelf.all(), T0 + 52);
            // At once, not within two seconds.
            write(book, &mut shelf, T0 + 53);
        }
        a.learn(shelf.all(), T0 + 60);
        let mut now_ms = T0 + 60;
        if state(&a, now_ms) == State::Shut {
            now_ms += 1_200;
            claim_with(&mut a, 10, &[], true, now_ms);
            write(&mut a, &mut shelf, now_ms);
            claim_with(&mut a, 10, &[1], true, now_ms);
            hear(&mut a, "x", Signal::Success, now_ms + 1);
        }
        // Of a hundred all but one were not refused, in the half second that is the least to tell a rate from.
        let rate_per_s = a.view(&scope(), now_ms + 1).rate_per_s.unwrap();
        assert!((rate_per_s - 0.7 * 99.0 / 0.5).abs() < 0.5, "{rate_per_s}");
    }
}

#[test]
fn what_is_told_late_is_no_clock_that_was_set_back() {
    let (mut shelf, mut a, mut b) = (Shelf::default(), Book::default(), Book::default());
    for step in 0..10 {
        hear(&mut b, &format!("agent-{step}"), Signal::Success, T0);
    }
    hear(&mut a, "x", hint(10_000), T0 + 1_500);
    write(&mut a, &mut shelf, T0 + 1_500);
    let until_ms = a.view(&scope(), T0 + 1_500).until_ms;
    assert!(until_ms.is_some_and(|until_ms| until_ms >= T0 + 11_500), "{until_ms:?}");
    b.learn(shelf.all(), T0 + 1_900);
    assert_eq!(b.view(&scope(), T0 + 1_900).until_ms, until_ms);
    write(&mut b, &mut shelf, T0 + 2_000);
    a.learn(shelf.all(), T0 + 2_001);
    let view = a.view(&scope(), T0 + 2_001);
    assert_eq!((view.until_ms, view.last_minute.successes), (until_ms, 10));
}
