//! What is told of only after a refusal.

use super::*;

/// Refused in the middle of a storm of which so many calls are known.
fn refused(calls: u32, hint_ms: Option<u64>) -> Gate {
    let mut gate = Gate::default();
    gate.count_calls(calls, 0, T0);
    hear(&mut gate, Signal::Limited { hint_ms }, T0 + 50);
    gate
}

fn whole_per_s(gate: &Gate, now_ms: i64) -> f64 {
    let Phase::Ramp { full_per_s, .. } = gate.phase else { panic!("{gate:?}") };
    assert!(gate.rate_per_s(now_ms).is_some());
    full_per_s
}

/// The canary goes after the hint, and is let in.
fn ramp_after(mut gate: Gate) -> f64 {
    let now_ms = T0 + 2 * SECOND;
    gate.advance(now_ms);
    assert_eq!(take(&mut gate, 1, now_ms), 1);
    gate.count_calls(0, 1, now_ms);
    hear(&mut gate, Signal::Success, now_ms);
    whole_per_s(&gate, now_ms)
}

#[test]
fn what_is_told_late_of_before_a_refusal_raises_the_whole_rate() {
    let mut gate = refused(20, Some(1_000));
    gate.advance(T0 + 100);
    gate.count_calls(30, 10, T0 - 20);
    assert!((ramp_after(gate) - 59.0 / 0.5).abs() < 1e-9);

    let mut gate = refused(20, None);
    assert!((whole_per_s(&gate, T0 + 50) - 38.0).abs() < 1e-9, "all that is known");
    gate.count_calls(40, 0, T0 + 50);
    assert!((whole_per_s(&gate, T0 + 50) - 118.0).abs() < 1e-9);
    gate.count_calls(40, 0, T0 + 51);
    assert!((whole_per_s(&gate, T0 + 51) - 118.0).abs() < 1e-9, "that is the ramp's own");
}

#[test]
fn what_was_handed_out_long_before_a_refusal_or_after_it_says_nothing_about_it() {
    for at_ms in [T0 + 50 - sample::BUCKET_MS, T0 + 50 + 101] {
        let mut gate = refused(20, Some(1_000));
        gate.count_calls(1_000, 0, at_ms);
        assert!((ramp_after(gate) - 38.0).abs() < 1e-9, "{}", at_ms - T0);
    }
    // Over the time that it spans: 19 + 81 calls in two seconds are 50 a second.
    let mut gate = refused(20, Some(1_000));
    gate.count_calls(81, 0, T0 + 50 - 2_000);
    assert!((ramp_after(gate) - 50.0).abs() < 1e-9);
    let mut gate = refused(20, Some(1_000));
    gate.count_calls(31, 0, T0 + 50 - 2_000);
    assert!((ramp_after(gate) - 38.0).abs() < 1e-9);
}

#[test]
fn a_limit_that_is_set_bounds_what_is_learnt_late() {
    let mut gate = Gate::default();
    gate.set(Settings { requests_per_minute: Some(60), ..Settings::default() });
    gate.count_calls(20, 0, T0);
    hear(&mut gate, hint(1), T0 + 50);
    gate.count_calls(1_000, 0, T0 + 20);
    assert!(ramp_after(gate) <= 1.0);
}

#[test]
fn a_value_of_an_older_release_reads_as_one_that_learns_nothing_late() {
    let gate = refused(20, Some(1_000));
    let mut value = serde_json::to_value(&gate).unwrap();
    assert!(value.as_object_mut().unwrap().remove("before_refusal").is_some());
    let mut older: Gate = serde_json::from_value(value).unwrap();
    older.count_calls(40, 0, T0 + 10);
    assert!((ramp_after(older) - 38.0).abs() < 1e-9);
}

#[test]
fn a_clock_that_is_set_back_takes_the_refusal_with_it() {
    const HOUR: i64 = 3_600 * SECOND;
    let mut gate = refused(20, Some(1_000));
    gate.advance(T0 + 100);
    gate.advance(T0 + 100 - HOUR);
    gate.count_calls(40, 0, T0 + 20 - HOUR);
    assert!((gate.full_per_s.unwrap() - 118.0).abs() < 1e-9);
}
