//! Clocks that are set back, calls that hung, failures of which only one side is told, and dependencies that nobody calls.

use super::*;

#[test]
fn a_clock_that_is_set_back_makes_nobody_wait_for_that_much_longer() {
    const HOUR: i64 = 3_600 * SECOND;
    let mut gate = Gate::default();
    hear(&mut gate, hint(10), T0);
    gate.advance(T0 - HOUR);
    assert_eq!(gate.next_ms(T0 - HOUR), Some(T0 - HOUR + 10 * SECOND));

    let mut gate = Gate::default();
    gate.set(Settings { requests_per_minute: Some(600), ..Settings::default() });
    assert_eq!(take(&mut gate, 100, T0), 10);
    gate.advance(T0 - HOUR);
    assert_eq!(take(&mut gate, 100, T0 - HOUR + SECOND), 9, "a second's worth");

    let mut gate = canary(T0);
    assert_eq!(take(&mut gate, 1, T0), 1);
    let back_ms = T0 - HOUR;
    gate.advance(back_ms);
    assert_eq!(hear(&mut gate, Signal::Success, back_ms).unwrap().to, State::Ramp);
    assert!(take(&mut gate, 1, back_ms + SECOND) == 1);

    let mut gate = Gate::default();
    gate.count_calls(1_000, 1_000, T0);
    gate.advance(T0 - HOUR);
    assert_eq!(gate.next_retry_ms(T0 - HOUR), Some(T0 - HOUR + SAMPLE_MS));
}

#[test]
fn what_hung_since_before_it_shut_does_not_shut_it_again() {
    let mut gate = ramp(T0);
    for _ in 0..40 {
        assert_eq!(gate.hear(&from("a", Signal::Failure, T0 - SECOND), T0 + SECOND, 0.0), None);
    }
    let auth = Signal::Blocked(FailureClass::Auth);
    let mut gate = Gate::default();
    for _ in 0..3 {
        hear(&mut gate, auth, T0);
    }
    gate.command(Command::Open, T0 + SECOND);
    for _ in 0..8 {
        assert_eq!(gate.hear(&from("a", auth, T0), T0 + 2 * SECOND, 0.0), None, "a person opened it since");
    }
}

#[test]
fn failures_that_are_handed_over_count_only_beside_reports_of_what_worked() {
    let handed_over = |gate: &mut Gate, now_ms| {
        let heard = Heard { signal: Signal::Failure, count: 1, agent: None, started_ms: 0 };
        gate.hear(&heard, now_ms, 0.0)
    };
    let mut gate = Gate::default();
    for step in 0..200 {
        assert_eq!(handed_over(&mut gate, T0 + step * 200), None, "who fails is all that is enqueued");
    }
    let mut gate = Gate::default();
    gate.count_reported(30, T0);
    let mut changes = (0..30).filter_map(|step| handed_over(&mut gate, T0 + step));
    assert_eq!(changes.next().map(|change| change.to), Some(State::Shut), "nothing of them worked");
}

#[test]
fn one_that_nobody_calls_any_more_is_fresh_again() {
    let mut gate = canary(T0);
    assert!(!gate.is_fresh(T0 + 3_600 * SECOND));
    gate.advance(T0 + 7 * 3_600 * SECOND);
    assert!(gate.is_fresh(T0 + 7 * 3_600 * SECOND), "nobody has wanted its canary for hours");
    let mut gate = Gate::default();
    hear(&mut gate, Signal::Blocked(FailureClass::Auth), T0);
    assert!(!gate.is_fresh(T0 + 300 * SECOND), "two more isolate it");
}
