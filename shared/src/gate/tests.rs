use proptest::prelude::*;

use super::hear::BLOCKED_QUIET_MS;
use super::*;

mod adversity;
mod late;
mod spend;

const SECOND: i64 = 1_000;
const T0: i64 = 1_000_000_000;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn from(agent: &str, signal: Signal, started_ms: i64) -> Heard {
    Heard { signal, count: 1, agent: Some(name(agent)), started_ms }
}

/// One call of one agent that began and ended now.
fn hear(gate: &mut Gate, signal: Signal, now_ms: i64) -> Option<Change> {
    gate.hear(&from("a", signal, now_ms), now_ms, 0.0)
}

const fn hint(seconds: u64) -> Signal {
    Signal::Limited { hint_ms: Some(seconds * 1_000) }
}

fn take(gate: &mut Gate, wanted: u32, now_ms: i64) -> u32 {
    gate.take(wanted, now_ms * 1_000)
}

/// Shut by a hint of 10 s, and its time is over.
fn canary(now_ms: i64) -> Gate {
    let mut gate = Gate::default();
    hear(&mut gate, hint(10), now_ms - 10 * SECOND);
    assert_eq!(gate.advance(now_ms).map(|change| change.to), Some(State::Canary));
    gate
}

/// Shut by failures, and its time is over.
fn canary_after_failures(now_ms: i64) -> Gate {
    let mut gate = Gate::default();
    for _ in 0..10 {
        hear(&mut gate, Signal::Failure, now_ms - SHUT_MS as i64);
    }
    assert_eq!(gate.advance(now_ms).map(|change| change.to), Some(State::Canary));
    gate
}

fn ramp(now_ms: i64) -> Gate {
    let mut gate = canary(now_ms);
    assert_eq!(take(&mut gate, 5, now_ms), 1);
    hear(&mut gate, Signal::Success, now_ms);
    assert_eq!(gate.state(), State::Ramp);
    gate
}

#[test]
fn a_hint_shuts_it_until_then_and_a_longer_one_for_longer() {
    let mut gate = Gate::default();
    assert_eq!(gate.room(), Room::Free);
    let change = hear(&mut gate, hint(30), T0).unwrap();
    assert_eq!((change.from, change.to, change.reason), (State::Open, State::Shut, Reason::Hint));
    assert_eq!((gate.room(), gate.next_ms(T0)), (Room::Shut, Some(T0 + 30 * SECOND)));
    hear(&mut gate, hint(5), T0 + SECOND);
    assert_eq!(gate.next_ms(T0), Some(T0 + 30 * SECOND), "a shorter one opens nothing");
    hear(&mut gate, hint(60), T0 + SECOND);
    assert_eq!(gate.next_ms(T0), Some(T0 + 61 * SECOND));
    assert_eq!(take(&mut gate, 10, T0 + 60 * SECOND), 0);
    assert_eq!(gate.advance(T0 + 61 * SECOND - 1), None);
    assert_eq!(gate.advance(T0 + 61 * SECOND).unwrap().to, State::Canary);
}

#[test]
fn an_absurd_hint_is_cut() {
    let mut gate = Gate::default();
    hear(&mut gate, Signal::Limited { hint_ms: Some(u64::MAX) }, T0);
    assert_eq!(gate.next_ms(T0), Some(T0 + 15 * 60 * SECOND));
}

#[test]
fn one_canary_goes_and_another_when_it_is_not_heard_of() {
    let mut gate = canary_after_failures(T0);
    assert_eq!(gate.room(), Room::Limited);
    assert_eq!((take(&mut gate, 9, T0), take(&mut gate, 9, T0)), (1, 0));
    assert_eq!((gate.next_ms(T0), gate.advance(T0 + CANARY_MS)), (Some(T0 + CANARY_MS), None));
    assert_eq!(take(&mut gate, 9, T0 + CANARY_MS), 1);
    gate.give_back(1);
    assert_eq!(take(&mut gate, 9, T0 + CANARY_MS), 1, "what was not used may be used");
    hear(&mut gate, Signal::NotMade, T0 + CANARY_MS + 1);
    assert_eq!(take(&mut gate, 9, T0 + CANARY_MS + 1), 1, "the call was not made");
}

#[test]
fn after_a_hint_a_canary_that_is_not_refused_soon_is_let_in() {
    let mut gate = canary(T0);
    assert_eq!((gate.next_ms(T0), take(&mut gate, 1, T0)), (None, 1));
    assert_eq!((gate.next_ms(T0), gate.advance(T0 + REFUSAL_MS - 1)), (Some(T0 + REFUSAL_MS), None));
    let change = gate.advance(T0 + REFUSAL_MS).unwrap();
    assert_eq!((change.to, change.reason), (State::Ramp, Reason::CanaryPassed));
}

#[test]
fn only_what_was_started_since_decides_about_a_canary() {
    let mut gate = canary(T0);
    take(&mut gate, 1, T0);
    for signal in [Signal::Success, Signal::Failure] {
        assert_eq!(gate.hear(&from("a", signal, T0 - 1), T0 + 1, 0.0), None);
    }
    let change = hear(&mut gate, Signal::Failure, T0 + 2).unwrap();
    assert_eq!((change.to, change.reason), (State::Shut, Reason::CanaryFailed));
    assert_eq!(gate.next_ms(T0), Some(T0 + 2 + SHUT_MS as i64));
}

#[test]
fn it_stays_shut_for_longer_each_time_in_a_row_up_to_its_bound() {
    let (mut gate, mut now_ms) = (canary(T0), T0);
    for seconds in [30, 60, 120, 240, 300, 300] {
        take(&mut gate, 1, now_ms);
        hear(&mut gate, Signal::Failure, now_ms);
        now_ms += seconds * SECOND;
        assert_eq!(gate.advance(now_ms - 1), None, "{seconds}");
        assert_eq!(gate.advance(now_ms).unwrap().to, State::Canary);
    }
}

#[test]
fn failures_of_the_whole_fleet_shut_it_and_bad_luck_does_not() {
    let mut gate = Gate::default();
    for place in 0..9 {
        assert_eq!(hear(&mut gate, Signal::Failure, T0 + place), None);
    }
    let change = hear(&mut gate, Signal::Failure, T0 + 9).unwrap();
    assert_eq!((change.to, change.reason), (State::Shut, Reason::Failures));

    let mut gate = Gate::default();
    for place in 0..6_000 {
        hear(&mut gate, Signal::Success, T0 + place * 10);
    }
    let down_ms = T0 + 60 * SECOND;
    let noticed = (1..=100).find(|place| hear(&mut gate, Signal::Failure, down_ms + place * 10).is_some());
    assert_eq!(noticed, Some(20), "however much worked before");

    let mut gate = Gate::default();
    hear(&mut gate, Signal::Success, T0);
    gate.hear(&Heard { count: 1_000, ..from("a", Signal::Success, 0) }, T0, 0.0);
    for _ in 0..100 {
        let own = Heard { agent: None, ..from("a", Signal::Failure, 0) };
        assert_eq!(gate.hear(&own, T0, 0.0), None, "what agents call themselves is told in pieces");
    }

    let mut gate = Gate::default();
    for place in 0..10_000 {
        let signal = if place % 5 == 0 { Signal::Failure } else { Signal::Success };
        assert_eq!(hear(&mut gate, signal, T0 + place * 100), None, "one in five fails");
    }
}

#[test]
fn a_ramp_grows_to_the_rate_that_worked_before_and_then_opens() {
    for (first, mut gate) in [(0.7, Gate::default()), (0.1, Gate::default())] {
        for place in 0..600 {
            hear(&mut gate, Signal::Success, T0 + place * 100);
        }
        let shut_ms = T0 + 60 * SECOND;
        let command = Command::Shut(10_000);
        let change =
            if first > 0.5 { hear(&mut gate, hint(10), shut_ms) } else { gate.command(command, shut_ms) };
        assert_eq!(change.unwrap().to, State::Shut);
        let start_ms = shut_ms + 10 * SECOND;
        gate.advance(start_ms);
        assert_eq!(take(&mut gate, 1, start_ms), 1);
        hear(&mut gate, Signal::Success, start_ms);
        let rate = |gate: &Gate, seconds: i64| gate.ramp_rate(start_ms + seconds * SECOND).unwrap().per_s;
        let full = rate(&gate, 60);
        assert!((9.9..10.1).contains(&full), "ten a second worked: {full}");
        assert!((rate(&gate, 0) - full * first).abs() < 0.01, "{}", rate(&gate, 0));
        // Half of the time is worth seven eighths of the way.
        assert!((rate(&gate, 30) - full * (1.0 - (1.0 - first) / 8.0)).abs() < 0.01);
        assert!(rate(&gate, 90) < full * 1.12, "beyond the whole it grows slowly at first");
        assert!(rate(&gate, 300) > full * 20.0 * (1.0 - first), "and then faster");
        // Somebody wanted more than it let through.
        assert!(take(&mut gate, 1_000, start_ms + 50 * SECOND) < 1_000);
        assert_eq!(gate.advance(start_ms + 100 * SECOND), None);
        let change = gate.advance(start_ms + 111 * SECOND).unwrap();
        assert_eq!((change.to, change.reason), (State::Open, Reason::RampedUp));
    }
}

#[test]
fn a_failure_halves_a_ramp_once_for_all_calls_that_were_under_way() {
    let mut gate = ramp(T0);
    let at_ms = T0 + 30 * SECOND;
    let before = gate.ramp_rate(at_ms).unwrap().per_s;
    for _ in 0..3 {
        gate.hear(&from("a", Signal::Failure, at_ms - 1), at_ms, 0.0);
    }
    let after = gate.ramp_rate(at_ms).unwrap().per_s;
    assert!((after - before / 2.0).abs() < 1e-9, "{before} {after}");
}

#[test]
fn a_dependency_that_always_fails_now_and_then_is_ramped_up_all_the_same() {
    let mut gate = ramp(T0);
    for second in 1..60 {
        for place in 0..10 {
            let signal = if place == 9 { Signal::Failure } else { Signal::Success };
            hear(&mut gate, signal, T0 + second * SECOND);
        }
    }
    assert!(gate.share(T0 + RAMP_MS).unwrap() >= 1.0, "one failure in ten halves nothing");
    for place in 0..200 {
        let signal = if place % 2 == 0 { Signal::Failure } else { Signal::Success };
        hear(&mut gate, signal, T0 + RAMP_MS + place);
    }
    let share = gate.share(T0 + RAMP_MS + 200);
    assert!(share.is_some_and(|share| share < 0.6), "one in two does: {share:?}");
}

#[test]
fn what_turned_out_to_be_too_much_bounds_the_next_ramp() {
    let at_ms = T0 + 30 * SECOND;
    for hint_ms in [Some(1_000), None] {
        let mut gate = ramp(T0);
        let before = gate.ramp_rate(at_ms).unwrap().per_s;
        take(&mut gate, 1_000, at_ms);
        hear(&mut gate, Signal::Limited { hint_ms }, at_ms);
        let mut from_ms = at_ms;
        if hint_ms.is_some() {
            from_ms += SECOND;
            gate.advance(from_ms);
            take(&mut gate, 1, from_ms);
            hear(&mut gate, Signal::Success, from_ms);
        }
        let rate = |after_ms: i64| gate.ramp_rate(from_ms + after_ms).unwrap().per_s;
        assert!((rate(0) - before * 0.63).abs() < 0.01, "{before} {}", rate(0));
        assert!((rate(RAMP_MS) - before * 0.9).abs() < 0.01, "{before} {}", rate(RAMP_MS));
    }
}

#[test]
fn what_a_ramp_let_through_is_not_too_much_where_nobody_wanted_that_much() {
    let mut gate = ramp(T0);
    let at_ms = T0 + 10 * 60 * SECOND;
    for second in 0..60 {
        gate.count_calls(2, 0, at_ms - (60 - second) * SECOND);
    }
    assert!(gate.ramp_rate(at_ms).unwrap().per_s > 1_000.0);
    hear(&mut gate, Signal::Limited { hint_ms: None }, at_ms);
    let after = gate.ramp_rate(at_ms).unwrap().per_s;
    assert!(after < 20.0, "{after}");
}

#[test]
fn too_many_calls_without_a_hint_throttle_and_do_not_shut() {
    let mut gate = Gate::default();
    gate.count_calls(60, 0, T0);
    for _ in 0..50 {
        hear(&mut gate, Signal::Success, T0);
    }
    let change = hear(&mut gate, Signal::Limited { hint_ms: None }, T0 + SECOND).unwrap();
    assert_eq!((change.to, change.reason), (State::Ramp, Reason::RateLimited));
    let rate = gate.ramp_rate(T0 + SECOND).unwrap().per_s;
    assert!((rate - 59.0 * 0.7).abs() < 0.1, "60 were made, and one of them refused: {rate}");
}

#[test]
fn a_bad_credential_of_one_agent_among_others_isolates_nothing() {
    let auth = Signal::Blocked(FailureClass::Auth);
    let mut gate = Gate::default();
    gate.hear(&from("good", Signal::Success, T0), T0, 0.0);
    for place in 0..5 {
        assert_eq!(gate.hear(&from("bad", auth, T0), T0 + BLOCKED_QUIET_MS + place, 0.0), None);
    }
    let change = gate.hear(&from("good", auth, T0), T0 + BLOCKED_QUIET_MS + 9, 0.0).unwrap();
    assert_eq!((change.to, change.reason), (State::Isolated, Reason::Blocked));
    let alarm = gate.alarm().unwrap();
    assert_eq!((alarm.class, alarm.since_ms), (Some(FailureClass::Auth), T0 + BLOCKED_QUIET_MS));
    assert_eq!(alarm.agents, [name("bad"), name("good")]);
}

#[test]
fn the_only_agent_speaks_for_all_and_a_success_within_a_minute_for_the_dependency() {
    let quota = Signal::Blocked(FailureClass::QuotaExhausted);
    let mut gate = Gate::default();
    assert_eq!(hear(&mut gate, quota, T0), None);
    assert_eq!(hear(&mut gate, quota, T0 + 1), None);
    assert_eq!(hear(&mut gate, quota, T0 + 2).unwrap().to, State::Isolated);

    let mut gate = Gate::default();
    hear(&mut gate, Signal::Success, T0);
    for place in 0..8 {
        assert_eq!(hear(&mut gate, quota, T0 + place), None, "it worked a moment ago");
    }
    assert_eq!(hear(&mut gate, quota, T0 + BLOCKED_QUIET_MS).unwrap().to, State::Isolated);
}

#[test]
fn only_a_person_ends_an_isolation() {
    let mut gate = Gate::default();
    gate.command(Command::Isolate, T0);
    assert_eq!((gate.next_ms(T0), gate.advance(T0 + 1_000 * 60 * SECOND)), (None, None));
    hear(&mut gate, Signal::Success, T0 + 1);
    hear(&mut gate, hint(1), T0 + 2);
    assert_eq!((gate.state(), take(&mut gate, 1, T0 + 3)), (State::Isolated, 0));
    assert_eq!(gate.command(Command::Open, T0 + 4).unwrap().to, State::Canary);
    assert_eq!(gate.alarm(), None);
    assert_eq!(gate.command(Command::Reset, T0 + 5).unwrap().to, State::Open);
    assert_eq!(gate.command(Command::Open, T0 + 6), None);
}

#[test]
fn a_limit_per_minute_holds_in_every_minute() {
    for per_minute in [1, 2, 59, 60, 61, 600, 6_000] {
        let mut gate = Gate::default();
        gate.set(Settings { requests_per_minute: Some(per_minute), ..Settings::default() });
        assert_eq!(gate.room(), Room::Limited);
        let mut granted = Vec::new();
        for step in 0..1_800 {
            let now_ms = T0 + step * 100;
            granted.push(take(&mut gate, 1_000_000, now_ms));
        }
        let most = granted.windows(600).map(|minute| minute.iter().sum::<u32>()).max().unwrap();
        assert!(most <= per_minute, "{most} of {per_minute}");
        let all: u32 = granted.iter().sum();
        assert!(f64::from(all) > f64::from(per_minute) * 2.7, "{all} of {per_minute} in three minutes");
    }
}

#[test]
fn a_limit_holds_in_every_minute_though_what_is_taken_is_handed_out_later() {
    for per_minute in [1, 2, 60, 61, 600] {
        let mut gate = Gate::default();
        gate.set(Settings { requests_per_minute: Some(per_minute), ..Settings::default() });
        // What is taken first lies for as long as it may; then everything is handed out at once.
        let mut handed_out = vec![0; 1_300];
        for step in 0..1_290_usize {
            let later = if step < 10 { USED_WITHIN_MS as usize / 100 - 1 - step } else { 0 };
            handed_out[step + later] += take(&mut gate, 1_000_000, T0 + step as i64 * 100);
        }
        let most = handed_out.windows(600).map(|minute| minute.iter().sum::<u32>()).max().unwrap();
        assert!(most <= per_minute, "{most} of {per_minute}");
    }
}

#[test]
fn a_ramp_never_passes_the_limit_that_is_set() {
    let mut gate = ramp(T0);
    gate.set(Settings { requests_per_minute: Some(60), ..Settings::default() });
    let at_ms = T0 + 50 * SECOND;
    assert_eq!(take(&mut gate, 1_000, at_ms), 1);
    assert_eq!(gate.next_ms(at_ms), Some(at_ms + SECOND + 17), "61 s for 60");
}

#[test]
fn retries_are_bounded_to_a_fifth_of_first_attempts_once_there_are_a_hundred() {
    let mut gate = Gate::default();
    gate.count_calls(99, 1_000, T0);
    assert_eq!(gate.retry_room(T0), None, "it only watches");
    gate.count_calls(901, 0, T0);
    assert_eq!(gate.retry_room(T0), Some(0), "200 are allowed and 1,000 were made");
    assert_eq!(gate.next_retry_ms(T0), Some(T0 + SAMPLE_MS));
    let mut gate = Gate::default();
    gate.count_calls(1_000, 150, T0);
    assert_eq!(gate.retry_room(T0), Some(50));
    gate.count_calls(0, 50, T0);
    assert_eq!(gate.retry_room(T0), Some(0));
    let mut gate = Gate::default();
    gate.count_calls(100, 0, T0);
    assert_eq!(gate.retry_room(T0), Some(60), "one a second is always allowed");
}

#[test]
fn every_class_says_something_definite() {
    assert_eq!(Signal::of(FailureClass::RateLimited, Some(0)), Signal::Limited { hint_ms: None });
    assert_eq!(Signal::of(FailureClass::Overloaded, Some(5)), Signal::Limited { hint_ms: Some(5) });
    assert_eq!(Signal::of(FailureClass::Overloaded, None), Signal::Failure);
    assert_eq!(Signal::of(FailureClass::Auth, None), Signal::Blocked(FailureClass::Auth));
    assert_eq!(Signal::of(FailureClass::BadOutput, None), Signal::Success, "it answered");
    assert_eq!(Signal::of(FailureClass::LockTimeout, None), Signal::NotMade);
}

#[test]
fn settings_out_of_their_bounds_are_refused() {
    let budget = |budget| Settings { budget: Some(budget), ..Settings::default() };
    let bad = [
        (Settings { requests_per_minute: Some(0), ..Settings::default() }, "requests_per_minute"),
        (budget(Budget { ratio: -0.1, ..Budget::default() }), "budget.ratio"),
        (budget(Budget { ratio: f64::NAN, ..Budget::default() }), "budget.ratio"),
        (budget(Budget { floor_per_s: 1e9, ..Budget::default() }), "budget.floor_per_s"),
        (budget(Budget { min_firsts: u32::MAX, ..Budget::default() }), "budget.min_firsts"),
    ];
    for (settings, field) in bad {
        assert_eq!(settings.validate().unwrap_err().field, field);
    }
    assert_eq!(Settings::default().validate(), Ok(()));
}

fn signals() -> impl Strategy<Value = Signal> {
    prop_oneof![
        Just(Signal::Success),
        Just(Signal::Failure),
        Just(Signal::NotMade),
        Just(Signal::Blocked(FailureClass::Auth)),
        proptest::option::of(any::<u64>()).prop_map(|hint_ms| Signal::Limited { hint_ms }),
        (1_u64..60).prop_map(hint),
    ]
}

proptest! {
    /// Whatever happens: nothing passes a gate that is shut, one canary goes a minute, and what is written down reads as
    /// it was.
    #[test]
    fn whatever_happens(
        steps in prop::collection::vec((0_i64..40_000, signals(), 0_u32..30, 0_i64..90_000, 0_u8..40), 1..150),
        limit in proptest::option::of(1_u32..2_000),
    ) {
        let (mut gate, mut now_ms, mut canary_ms) = (Gate::default(), T0, i64::MIN);
        gate.set(Settings { requests_per_minute: limit, ..Settings::default() });
        for (wait_ms, signal, wanted, age_ms, extra) in steps {
            now_ms += wait_ms;
            gate.advance(now_ms);
            let state = gate.state();
            let granted = take(&mut gate, wanted, now_ms);
            prop_assert!(granted <= wanted);
            match state {
                State::Shut | State::Isolated => prop_assert_eq!(granted, 0),
                State::Canary if granted > 0 => {
                    prop_assert_eq!(granted, 1);
                    prop_assert!(now_ms >= canary_ms, "one at a time");
                    canary_ms = now_ms + CANARY_MS;
                }
                State::Canary | State::Ramp | State::Open => {}
            }
            let heard = Heard { signal, count: 1 + u32::from(extra), agent: None, started_ms: now_ms - age_ms };
            let change = gate.hear(&heard, now_ms, f64::from(extra) / 40.0);
            if change.is_some() || (signal == Signal::NotMade && age_ms == 0) || gate.state() != State::Canary {
                canary_ms = i64::MIN;
            }
            if signal == Signal::NotMade {
                canary_ms = i64::MIN;
            }
            match extra {
                0 => drop(gate.command(Command::Open, now_ms)),
                1 => drop(gate.command(Command::Shut(u64::from(wanted) * 1_000), now_ms)),
                2 => drop(gate.command(Command::Isolate, now_ms)),
                3 => drop(gate.command(Command::Reset, now_ms)),
                _ => {}
            }
            if extra < 4 {
                canary_ms = i64::MIN;
            }
            if let Some(rate) = gate.ramp_rate(now_ms) {
                prop_assert!(rate.per_s.is_finite() && rate.per_s > 0.0);
            }
            let text = serde_json::to_string(&gate).unwrap();
            prop_assert!(text.len() < 8 * 1_024, "{}", text.len());
            let mut read: Gate = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(read.state(), gate.state());
            prop_assert_eq!(take(&mut read, 5, now_ms), take(&mut gate.clone(), 5, now_ms));
        }
    }
}
