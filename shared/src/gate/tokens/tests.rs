use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::gate::Command;
use crate::limits::TASK_TOKENS_MAX;

const T0: i64 = 1_000_000_000;
const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;

fn settings(per_minute: u64) -> Settings {
    Settings { tokens_per_minute: Some(per_minute), ..Settings::default() }
}

fn gate(per_minute: u64) -> Gate {
    let mut gate = Gate::default();
    gate.set(settings(per_minute));
    gate
}

fn take(gate: &mut Gate, wanted: u32, now_ms: i64) -> u32 {
    gate.take(wanted, now_ms * 1_000)
}

/// Leases what was taken, as tasks that use so much each.
fn lease(gate: &mut Gate, tokens: &[u32], now_ms: i64) {
    let tasks = tokens.len() as u32;
    let tokens = tokens.iter().map(|tokens| u64::from(*tokens)).sum();
    gate.hand(Handed { taken: tasks, tasks, unknown: 0, tokens }, now_ms);
}

/// A gate that knows what its tasks are like.
fn used_to(per_minute: u64, each: u32) -> Gate {
    let mut gate = gate(per_minute);
    assert_eq!(take(&mut gate, 100, T0 - 1_000 * MINUTE), 1, "one tells what they are like");
    lease(&mut gate, &[each], T0 - 1_000 * MINUTE);
    gate
}

#[test]
fn a_limit_in_tokens_is_counted() {
    use crate::gate::Room;
    assert_eq!(gate(60_000).room(), Room::Limited);
    assert_eq!((gate(60_000).tokens_owed(T0), Gate::default().tokens_owed(T0)), (Some(0), None));
}

#[test]
fn so_many_pass_as_the_tokens_allow_by_what_tasks_were_like() {
    let mut gate = used_to(60_000, 100);
    assert_eq!(take(&mut gate, 100, T0), 10, "1,000 at once");
    assert_eq!(take(&mut gate, 100, T0), 0, "they are taken");
    lease(&mut gate, &[100; 10], T0);
    assert_eq!(gate.next_ms(T0), Some(T0 + 1));
    // Between two looks so much is paid off, and whoever looks gets at least one.
    assert_eq!(take(&mut gate, 100, T0 + 500), 4);
}

#[test]
fn a_batch_that_was_heavier_is_paid_off_before_anything_else_passes() {
    let mut gate = used_to(60_000, 100);
    assert_eq!(take(&mut gate, 10, T0), 10);
    lease(&mut gate, &[1_000; 10], T0);
    assert_eq!(gate.tokens_owed(T0), Some(9_000), "1,000 were there");
    let next_ms = gate.next_ms(T0).unwrap();
    assert!((9 * SECOND..10 * SECOND).contains(&(next_ms - T0)), "{}", next_ms - T0);
    assert_eq!(take(&mut gate, 10, next_ms - 1), 0);
    assert_eq!(take(&mut gate, 10, next_ms), 1, "one at least");
}

#[test]
fn a_task_that_is_larger_than_the_limit_passes_alone_and_is_paid_off() {
    let mut gate = used_to(600, 6_000);
    assert_eq!(take(&mut gate, 10, T0), 1);
    assert_eq!(take(&mut gate, 10, T0), 0, "also before it is known what it uses");
    lease(&mut gate, &[6_000], T0);
    let next_ms = gate.next_ms(T0).unwrap();
    assert!((10 * MINUTE..11 * MINUTE).contains(&(next_ms - T0)), "{}", next_ms - T0);
    assert_eq!((take(&mut gate, 10, next_ms - 1), take(&mut gate, 10, next_ms)), (0, 1));
}

#[test]
fn the_mean_follows_what_is_leased() {
    let mut gate = used_to(60_000_000, 100);
    for _ in 0..10 {
        lease(&mut gate, &[1_000; 20], T0);
    }
    assert!(gate.tokens.mean_milli.is_some_and(|mean| (998_000..1_000_000).contains(&mean)));
    for _ in 0..200 {
        lease(&mut gate, &[0; 20], T0);
    }
    assert_eq!(gate.tokens.mean_milli, Some(0), "and comes to nothing");
}

#[test]
fn what_says_nothing_of_itself_counts_as_it_is_set() {
    let unknown = Handed { taken: 2, tasks: 2, unknown: 2, tokens: 0 };
    let mut gate = gate(60_000);
    gate.hand(unknown, T0);
    assert_eq!(take(&mut gate, 1_000_000, T0), 1_000_000, "nothing");
    let mut gate = Gate::default();
    gate.set(Settings { tokens_default: Some(5_000), ..settings(60_000) });
    gate.hand(unknown, T0);
    assert_eq!(gate.tokens_owed(T0), Some(9_000));
}

#[test]
fn what_is_not_used_comes_back_and_what_is_lost_does_with_time() {
    let mut gate = used_to(60_000, 100);
    assert_eq!(take(&mut gate, 10, T0), 10);
    gate.give_back(4);
    assert_eq!(take(&mut gate, 10, T0), 4);
    gate.waste(10);
    assert_eq!(take(&mut gate, 10, T0), 10);
    // Whoever took them is gone: the bucket stays full of them.
    assert_eq!(take(&mut gate, 10, T0 + TAKEN_MS - 1), 0);
    let next_ms = gate.next_ms(T0 + TAKEN_MS - 1).unwrap();
    assert!((T0 + TAKEN_MS..=T0 + TAKEN_MS + TOGETHER_MS).contains(&next_ms));
    assert_eq!(take(&mut gate, 20, next_ms), 10);
    assert_eq!(gate.tokens.reserved.len(), 1);
}

#[test]
fn a_debt_stays_what_it_is_in_tokens_and_goes_with_the_limit() {
    let mut gate = used_to(600, 100);
    gate.hand(Handed { taken: 0, tasks: 1, unknown: 0, tokens: 6_000 }, T0);
    gate.set(settings(60_000));
    let next_ms = gate.next_ms(T0).unwrap() - T0;
    assert!((4_900..5_100).contains(&next_ms), "{next_ms}");
    gate.set(settings(600));
    assert!(gate.next_ms(T0).unwrap() > T0 + 8 * MINUTE);
    gate.command(Command::Reset, T0);
    assert!(gate.next_ms(T0).unwrap() > T0 + 8 * MINUTE, "what is limited is not forgotten");
    gate.set(Settings::default());
    gate.set(settings(600));
    assert_eq!(take(&mut gate, 5, T0), 1, "nothing is counted without a limit");
}

#[test]
fn a_clock_that_is_set_back_makes_nobody_pay_for_longer() {
    let mut gate = used_to(60_000, 100);
    take(&mut gate, 1, T0);
    lease(&mut gate, &[5_000], T0);
    let wait_ms = gate.next_ms(T0).unwrap() - T0;
    let back_ms = T0 - 60 * MINUTE;
    gate.advance(back_ms);
    assert_eq!(gate.next_ms(back_ms), Some(back_ms + wait_ms));
    gate.hand(Handed::default(), back_ms - 5 * SECOND);
    gate.advance(back_ms);
    assert_eq!(gate.next_ms(back_ms), Some(back_ms + wait_ms), "what is told late sets no clock back");
}

#[test]
fn what_passes_in_a_canary_and_beside_other_limits_is_all_that_is_charged() {
    let mut gate = used_to(60_000, 100);
    gate.set(Settings { max_in_flight: Some(2), ..settings(60_000) });
    assert_eq!(take(&mut gate, 10, T0), 2);
    gate.set(settings(60_000));
    assert_eq!(take(&mut gate, 10, T0), 8);
    gate.waste(10);
    gate.command(Command::Shut(1), T0);
    gate.advance(T0 + 1);
    assert_eq!(take(&mut gate, 10, T0 + 1), 1, "a canary");
    assert_eq!(gate.tokens.reserved(T0 + 1), 100);
}

#[test]
fn extremes_do_not_overflow() {
    for per_minute in [1, 59, 60, 10_000_000_000] {
        let mut gate = used_to(per_minute, TASK_TOKENS_MAX);
        for step in 0..50 {
            gate.hand(Handed { taken: 0, tasks: 1_000, unknown: 0, tokens: 10_000_000_000 }, T0 + step);
        }
        assert!(gate.next_ms(T0).unwrap() > T0 && gate.tokens_owed(T0).unwrap() > 0);
        gate.give_back(u32::MAX);
        assert_eq!(gate.next_ms(i64::MAX - 1).map(|at_ms| at_ms < i64::MAX), Some(true));
        let text = serde_json::to_string(&gate).unwrap();
        assert_eq!(serde_json::from_str::<Gate>(&text).unwrap(), gate);
    }
}

#[test]
fn over_time_the_limit_is_used_whatever_tasks_are_like() {
    for each in [1, 50, 700, 5_000, 90_000] {
        let per_minute = 60_000;
        let mut gate = used_to(per_minute, each);
        let (mut sum, mut now_ms) = (0_u64, T0);
        while now_ms < T0 + 60 * MINUTE {
            let granted = take(&mut gate, 64, now_ms);
            assert!(granted > 0, "it is what `next_ms` says");
            lease(&mut gate, &vec![each; granted as usize], now_ms);
            sum += u64::from(granted) * u64::from(each);
            now_ms = gate.next_ms(now_ms).unwrap().max(now_ms + 5);
        }
        let of_limit = sum as f64 / (per_minute * 60) as f64;
        assert!((0.97..1.03).contains(&of_limit), "{each}: {of_limit}");
    }
}

/// What somebody does to a gate, with so many tasks.
#[derive(Debug, Clone, Copy)]
enum Act {
    Take,
    /// Leases some of what is taken, the oldest or the newest.
    Lease,
    /// The same, by who did not know of the limit.
    LeaseMore,
    GiveBack,
    Waste,
    /// Whoever has it is gone.
    Lose,
}

fn acts() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => Just(Act::Take),
        4 => Just(Act::Lease),
        1 => Just(Act::LeaseMore),
        1 => Just(Act::GiveBack),
        1 => Just(Act::Waste),
        1 => Just(Act::Lose),
    ]
}

proptest! {
    /// However many take at once, in whatever order it becomes known what they took, and whatever is lost: when something is
    /// taken, less than the limit was leased in the minute up to then. So in no minute is more leased than that and what was
    /// taken last.
    #[test]
    fn nothing_passes_that_the_minute_before_has_no_room_for(
        per_minute in prop_oneof![1_u64..100, 100_u64..100_000, Just(TOKENS_PER_MINUTE)],
        heavy in 1_u32..200_000,
        steps in prop::collection::vec((0_i64..9_000, acts(), 0_u32..40, 0_u32..1_000), 1..250),
    ) {
        let mut gate = gate(per_minute);
        let (mut now_ms, mut stock) = (T0, 0_u32);
        let mut leased: VecDeque<(i64, u64)> = VecDeque::new();
        for (wait_ms, act, number, weight) in steps {
            // Often at once, now and then after a while.
            now_ms += if wait_ms % 3 == 0 { wait_ms } else { wait_ms % 40 };
            match act {
                Act::Take => {
                    let next_ms = gate.next_ms(now_ms);
                    let granted = take(&mut gate, number, now_ms);
                    prop_assert!(granted <= number);
                    prop_assert!(granted > 0 || number == 0 || next_ms.is_some_and(|at_ms| at_ms > now_ms));
                    prop_assert!(granted == 0 || next_ms.is_none_or(|at_ms| at_ms <= now_ms));
                    stock += granted;
                    if granted > 0 {
                        let minute = leased.iter().filter(|(at_ms, _)| *at_ms >= now_ms - MINUTE);
                        let sum: u64 = minute.map(|(_, tokens)| tokens).sum();
                        prop_assert!(sum <= per_minute, "{sum} of {per_minute}");
                        prop_assert_eq!(gate.tokens_owed(now_ms), Some(0));
                    }
                }
                Act::Lease | Act::LeaseMore => {
                    let tasks = if matches!(act, Act::Lease) { number.min(stock) } else { number };
                    let taken = if matches!(act, Act::Lease) { tasks } else { 0 };
                    let each = if weight % 10 == 0 { heavy } else { weight };
                    let tokens = u64::from(tasks) * u64::from(each);
                    stock -= taken;
                    gate.hand(Handed { taken, tasks, unknown: 0, tokens }, now_ms);
                    leased.push_back((now_ms, tokens));
                }
                Act::GiveBack | Act::Waste => {
                    let unused = number.min(stock);
                    stock -= unused;
                    if matches!(act, Act::Waste) { gate.waste(unused) } else { gate.give_back(unused) }
                }
                Act::Lose => stock -= number.min(stock),
            }
            let text = serde_json::to_string(&gate).unwrap();
            prop_assert!(text.len() < 4 * 1_024);
            prop_assert_eq!(serde_json::from_str::<Gate>(&text).unwrap(), gate.clone());
        }
    }
}

/// A limit of which a second's worth is more than anybody wants.
const TOKENS_PER_MINUTE: u64 = crate::gate::TOKENS_PER_MINUTE_MAX;
