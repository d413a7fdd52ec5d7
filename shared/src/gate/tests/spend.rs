//! What is spent within a day.

use super::*;
use crate::cost::Cost;
use crate::gate::Command;

const DAY_MS: i64 = 86_400_000;
/// A midnight (UTC).
const MIDNIGHT_MS: i64 = 20_000 * DAY_MS;

fn usd(dollars: u64) -> Cost {
    Cost::from_micros(dollars * 1_000_000)
}

fn spent(gate: &Gate, now_ms: i64) -> Option<Cost> {
    gate.spent(now_ms).map(|spent| spent.cost)
}

#[test]
fn a_group_that_spent_its_day_waits_for_midnight() {
    let mut gate = Gate::default();
    assert_eq!(gate.spent_until_ms(usd(3), MIDNIGHT_MS), None);
    gate.spend(usd(2), MIDNIGHT_MS);
    assert_eq!(gate.spent_until_ms(usd(3), MIDNIGHT_MS + 1), None);
    gate.spend(usd(1), MIDNIGHT_MS + 2);
    let over_ms = MIDNIGHT_MS + DAY_MS;
    assert_eq!(gate.spent_until_ms(usd(3), MIDNIGHT_MS + 3), Some(over_ms), "reached is used up");
    assert_eq!(gate.spent_until_ms(usd(4), MIDNIGHT_MS + 3), None, "a higher bound holds at once");
    assert_eq!(gate.spent_until_ms(usd(3), over_ms - 1), Some(over_ms));
    assert!(!gate.is_fresh(over_ms - 1));
    assert_eq!((gate.spent_until_ms(usd(3), over_ms), spent(&gate, over_ms)), (None, None));
    assert!(gate.is_fresh(over_ms), "a past day is forgotten");
    gate.spend(usd(1), over_ms);
    assert_eq!(spent(&gate, over_ms), Some(usd(1)), "and the next counts from zero");
}

#[test]
fn sums_do_not_depend_on_the_order_not_even_around_midnight() {
    let told = [(usd(1), MIDNIGHT_MS - 1), (usd(2), MIDNIGHT_MS), (usd(4), MIDNIGHT_MS + 5)];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut gate = Gate::default();
        for place in order {
            let (cost, at_ms) = told[place];
            gate.spend(cost, at_ms);
        }
        assert_eq!(spent(&gate, MIDNIGHT_MS + 9), Some(usd(6)), "{order:?}");
        // Whose clock is a little behind counts by the day that has begun elsewhere.
        assert_eq!(spent(&gate, MIDNIGHT_MS - 1), Some(usd(6)), "{order:?}");
    }
}

#[test]
fn a_clock_that_was_set_back_for_days_holds_nothing_back() {
    let mut gate = Gate::default();
    gate.spend(usd(9), MIDNIGHT_MS + 400 * DAY_MS);
    assert_eq!((spent(&gate, MIDNIGHT_MS), gate.spent_until_ms(usd(1), MIDNIGHT_MS)), (None, None));
    gate.spend(usd(1), MIDNIGHT_MS);
    assert_eq!(spent(&gate, MIDNIGHT_MS), Some(usd(1)));
}

#[test]
fn a_person_lifts_it_for_the_day_or_counts_anew() {
    let mut gate = Gate::default();
    gate.spend(usd(5), MIDNIGHT_MS);
    let mut anew = gate.clone();
    assert_eq!(gate.command(Command::Open, MIDNIGHT_MS), None, "its state is the same");
    gate.spend(usd(5), MIDNIGHT_MS + 1);
    assert_eq!(gate.spent_until_ms(usd(1), MIDNIGHT_MS + 2), None);
    assert_eq!(spent(&gate, MIDNIGHT_MS + 2), Some(usd(10)), "it is counted all the same");
    gate.spend(usd(1), MIDNIGHT_MS + DAY_MS);
    assert!(gate.spent_until_ms(usd(1), MIDNIGHT_MS + DAY_MS).is_some(), "for that day only");

    anew.command(Command::Reset, MIDNIGHT_MS);
    assert_eq!((spent(&anew, MIDNIGHT_MS), anew.spent_until_ms(usd(1), MIDNIGHT_MS)), (None, None));
    anew.spend(usd(1), MIDNIGHT_MS);
    assert!(anew.spent_until_ms(usd(1), MIDNIGHT_MS).is_some(), "the bound holds again");
}

#[test]
fn it_travels_as_whole_micro_dollars_and_what_is_not_there_is_not_written() {
    let mut gate = Gate::default();
    assert!(!serde_json::to_string(&gate).unwrap().contains("spend"));
    gate.spend(Cost::from_micros(123_457), MIDNIGHT_MS);
    let text = serde_json::to_string(&gate).unwrap();
    assert!(text.contains(r#""spend":{"day":20000,"micros":123457}"#), "{text}");
    assert_eq!(serde_json::from_str::<Gate>(&text).unwrap(), gate);
}
