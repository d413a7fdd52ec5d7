use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::id::{Name, TaskId};

const T0: i64 = 1_700_000_000_000_000;
const MS: i64 = 1_000;

fn owner(name: &str) -> Owner {
    Owner::Named { name: Name::new(name).unwrap() }
}

fn attempt(task: &str, epoch: i64) -> Owner {
    Owner::Attempt { task: TaskId::new(task).unwrap(), epoch }
}

fn name(text: &str) -> Resource {
    Resource::new(text).unwrap()
}

fn request(owner: Owner, exclusive: &[&str], shared: &[&str]) -> Request {
    let exclusive = exclusive.iter().map(|text| (name(text), Mode::Exclusive));
    let shared = shared.iter().map(|text| (name(text), Mode::Shared));
    Request { wait_ms: 10_000, ..Request::new(owner, exclusive.chain(shared)).unwrap() }
}

fn held(acquired: Result<Acquired, Refused>) -> Granted {
    match acquired.unwrap() {
        Acquired::Held(granted) => granted,
        other => panic!("not held: {other:?}"),
    }
}

fn waits(acquired: Result<Acquired, Refused>) -> WaitId {
    match acquired.unwrap() {
        Acquired::Waits(id) => id,
        other => panic!("does not wait: {other:?}"),
    }
}

#[test]
fn the_first_has_it_and_the_next_are_served_in_order() {
    let mut space = Space::default();
    let first = held(space.acquire(request(owner("a"), &["f"], &[]), T0));
    let b = waits(space.acquire(request(owner("b"), &["f"], &[]), T0 + 1));
    let c = waits(space.acquire(request(owner("c"), &[], &["f"]), T0 + 2));
    let d = waits(space.acquire(request(owner("d"), &[], &["f"]), T0 + 3));
    assert_eq!(space.pick_up(b, &owner("b"), T0 + 4), PickedUp::Waits);
    assert_eq!(space.release(first.token, &owner("a"), T0 + 5), Ok(()));
    assert_eq!(space.take_offered(), [b]);
    let PickedUp::Held(second) = space.pick_up(b, &owner("b"), T0 + 6) else { panic!("b has it") };
    assert!(second.token > first.token);
    let PickedUp::Held(again) = space.pick_up(b, &owner("b"), T0 + 7) else {
        panic!("an answer may be lost")
    };
    assert_eq!((again.token, second.is_news, again.is_news), (second.token, true, false));
    assert_eq!(space.release(second.token, &owner("b"), T0 + 8), Ok(()));
    assert_eq!(space.take_offered(), [c, d], "those that share have it together");
}

#[test]
fn nobody_passes_one_that_wants_it_alone() {
    let mut space = Space::default();
    let reader = held(space.acquire(request(owner("a"), &[], &["f"]), T0));
    let writer = waits(space.acquire(request(owner("b"), &["f"], &[]), T0));
    let late = waits(space.acquire(request(owner("c"), &[], &["f"]), T0));
    space.call_off(writer, &owner("b"), T0 + 1);
    assert_eq!(space.take_offered(), [late], "until that one leaves");
    assert_eq!(space.release(reader.token, &owner("a"), T0 + 2), Ok(()));
}

#[test]
fn several_are_granted_in_one_step_or_not_at_all() {
    let mut space = Space::default();
    let a = held(space.acquire(request(owner("a"), &["x"], &[]), T0));
    let both = waits(space.acquire(request(owner("b"), &["x", "y"], &[]), T0));
    let y = waits(space.acquire(request(owner("c"), &["y"], &[]), T0));
    assert_eq!(space.pick_up(y, &owner("c"), T0 + 1), PickedUp::Waits, "its turn comes after both");
    space.release(a.token, &owner("a"), T0 + 2).unwrap();
    assert_eq!(space.take_offered(), [both]);
    let PickedUp::Held(granted) = space.pick_up(both, &owner("b"), T0 + 3) else { panic!("both are free") };
    assert_eq!(granted.resources.len(), 2);
    space.release(granted.token, &owner("b"), T0 + 4).unwrap();
    assert_eq!(space.take_offered(), [y]);
}

#[test]
fn what_was_held_alone_and_expired_rests_before_others_have_it() {
    let mut space = Space::default();
    let late = held(space.acquire(request(owner("a"), &["f"], &["g"]), T0));
    let f = waits(space.acquire(request(owner("b"), &["f"], &[]), T0 + 1));
    let g = waits(space.acquire(request(owner("c"), &["g"], &[]), T0 + 1));
    let over_us = T0 + 30_000 * MS;
    // Both show signs of life, and wait on.
    for (id, who) in [(f, "b"), (g, "c")] {
        assert_eq!(space.pick_up(id, &owner(who), T0 + 9_000 * MS), PickedUp::Waits);
    }
    let again = |space: &mut Space, who: &str, what: &str, at_us| {
        waits(space.acquire(request(owner(who), &[what], &[]), at_us))
    };
    assert_eq!(again(&mut space, "b", "f", T0 + 9_500 * MS), f, "who asks again keeps its place");
    let (f, g) = (f, again(&mut space, "c", "g", T0 + 9_500 * MS));
    let before_us = T0 + 19_000 * MS;
    assert_eq!((again(&mut space, "b", "f", before_us), again(&mut space, "c", "g", before_us)), (f, g));
    let before_us = T0 + 28_000 * MS;
    assert_eq!((again(&mut space, "b", "f", before_us), again(&mut space, "c", "g", before_us)), (f, g));
    space.advance(over_us);
    assert_eq!(space.take_offered(), [g], "what was shared harms nobody");
    assert_eq!(space.renew(late.token, &owner("a"), over_us), Err(Lost::Expired));
    space.advance(over_us + 5_000 * MS - 1);
    assert_eq!(space.take_offered(), []);
    space.advance(over_us + 5_000 * MS);
    assert_eq!(space.take_offered(), [f]);
    assert_eq!(space.renew(late.token, &owner("a"), over_us + 6_000 * MS), Err(Lost::Unknown));
}

#[test]
fn who_was_late_may_say_that_it_is_done_or_begin_anew() {
    let mut space = Space::default();
    let late = held(space.acquire(request(owner("a"), &["f"], &[]), T0));
    let over_us = T0 + 30_000 * MS;
    let b = waits(space.acquire(request(owner("b"), &["f"], &[]), over_us));
    assert_eq!(space.release(late.token, &owner("a"), over_us + 1), Err(Lost::Expired));
    assert_eq!(space.take_offered(), [b], "no pause is needed any more");

    let mut space = Space::default();
    let late = held(space.acquire(request(owner("a"), &["f"], &[]), T0));
    let anew = held(space.acquire(request(owner("a"), &["f"], &[]), over_us));
    assert!(anew.token > late.token, "somebody may have had it in between");
}

#[test]
fn an_offer_that_nobody_picks_up_goes_to_the_next_without_a_pause() {
    let mut space = Space::default();
    let a = held(space.acquire(request(owner("a"), &["f"], &[]), T0));
    let dead = waits(space.acquire(request(owner("b"), &["f"], &[]), T0));
    let next = waits(space.acquire(request(owner("c"), &["f"], &[]), T0));
    space.release(a.token, &owner("a"), T0 + 1).unwrap();
    assert_eq!(space.take_offered(), [dead]);
    assert_eq!(space.next_us(), Some(T0 + 1 + 6_000 * MS));
    space.advance(T0 + 1 + 6_000 * MS);
    assert_eq!(space.take_offered(), [next]);
    assert_eq!(space.pick_up(dead, &owner("b"), T0 + 2 + 6_000 * MS), PickedUp::Gone);
}

#[test]
fn waiters_that_are_not_heard_of_or_too_late_leave_the_line() {
    let mut space = Space::default();
    held(space.acquire(request(owner("a"), &["f"], &[]), T0));
    let patient = Request { wait_ms: 600_000, ..request(owner("b"), &["f"], &[]) };
    let silent = waits(space.acquire(patient, T0));
    let hasty = waits(space.acquire(request(owner("c"), &["f"], &[]), T0));
    assert_eq!(space.pick_up(hasty, &owner("c"), T0 + 9_999 * MS), PickedUp::Waits);
    assert_eq!(space.pick_up(hasty, &owner("c"), T0 + 10_000 * MS), PickedUp::Gone);
    assert_eq!(space.pick_up(silent, &owner("b"), T0 + 15_000 * MS), PickedUp::Gone);
    assert_eq!(space.next_us(), None);
}

#[test]
fn the_same_owner_is_given_the_same_token() {
    let mut space = Space::default();
    let first = held(space.acquire(request(owner("a"), &["f", "g"], &[]), T0));
    let again = held(space.acquire(request(owner("a"), &["f"], &[]), T0 + 1_000 * MS));
    assert_eq!(again.token, first.token);
    assert_eq!(again.until_us, first.until_us + 1_000 * MS);
    held(space.acquire(request(owner("a"), &[], &["g"]), T0 + 2));
    let reader = held(space.acquire(request(owner("a"), &["x"], &["y"]), T0 + 3));
    assert!(reader.token > first.token, "what it had nothing of is a lock of its own");
    for more in [&["y"][..], &["f", "z"]] {
        let overlap = space.acquire(request(owner("a"), more, &[]), T0 + 4);
        assert_eq!(overlap, Err(Refused::Overlap(name(more[0]))));
    }
}

#[test]
fn a_later_attempt_ends_what_earlier_ones_hold() {
    let mut space = Space::default();
    let early = held(space.acquire(request(attempt("t", 1), &["f"], &["g"]), T0));
    held(space.acquire(request(attempt("t", 2), &["g"], &[]), T0 + 1));
    assert_eq!(space.renew(early.token, &attempt("t", 1), T0 + 2), Err(Lost::Expired));
    let refused = space.acquire(request(attempt("t", 1), &["h"], &[]), T0 + 3);
    assert_eq!(refused, Err(Refused::Superseded));
    let f = waits(space.acquire(request(attempt("t", 2), &["f"], &[]), T0 + 4));
    assert_eq!(
        space.pick_up(f, &attempt("t", 2), T0 + 4_999 * MS),
        PickedUp::Waits,
        "the earlier one may be writing still"
    );
    assert!(matches!(space.pick_up(f, &attempt("t", 2), T0 + 1 + 5_000 * MS), PickedUp::Held(_)));
}

#[test]
fn only_the_owner_renews_and_releases() {
    let mut space = Space::default();
    let a = held(space.acquire(request(owner("a"), &["f"], &[]), T0));
    assert_eq!(space.renew(a.token, &owner("b"), T0), Err(Lost::NotYours));
    assert_eq!(space.release(a.token, &owner("b"), T0), Err(Lost::NotYours));
    assert_eq!(space.release(Token(7), &owner("a"), T0), Err(Lost::Unknown));
    assert_eq!(space.break_hold(a.token, T0).map(|hold| hold.owner), Some(owner("a")));
    assert_eq!(space.renew(a.token, &owner("a"), T0), Err(Lost::Expired));
    assert_eq!(space.break_hold(a.token, T0), None);
}

#[test]
fn a_place_in_line_is_its_owners() {
    let mut space = Space::default();
    let a = held(space.acquire(request(owner("a"), &["f"], &[]), T0));
    let b = waits(space.acquire(request(owner("b"), &["f"], &[]), T0));
    assert_eq!(space.pick_up(b, &owner("c"), T0 + 1), PickedUp::Gone);
    space.call_off(b, &owner("c"), T0 + 2);
    space.release(a.token, &owner("a"), T0 + 3).unwrap();
    assert_eq!(space.take_offered(), [b], "nobody else has called it off");
    assert_eq!(space.pick_up(b, &owner("c"), T0 + 4), PickedUp::Gone);
    space.call_off(b, &owner("c"), T0 + 5);
    assert!(matches!(space.pick_up(b, &owner("b"), T0 + 6), PickedUp::Held(_)));
}

#[test]
fn what_its_owner_was_never_told_of_is_given_back_and_nothing_else() {
    let mut space = Space::default();
    let wish = || request(owner("a"), &["f"], &[]);
    let first = held(space.acquire(wish(), T0));
    assert!(first.is_news);
    // In the very µs in which it was granted, too.
    let again = held(space.acquire(wish(), T0));
    assert!(!again.is_news && again.token == first.token);
    space.take_back(first.token, &owner("a"), first.until_us, T0);
    let until_us =
        space.renew(first.token, &owner("a"), T0).expect("its owner has asked again: it knows of it");
    space.take_back(first.token, &owner("a"), again.until_us, T0);
    space.take_back(first.token, &owner("b"), until_us, T0);
    assert!(space.hold(first.token).is_some(), "it was renewed, and is nobody else's");
    let b = waits(space.acquire(request(owner("b"), &["f"], &[]), T0 + 1));
    space.release(first.token, &owner("a"), T0 + 2).unwrap();
    let PickedUp::Held(untold) = space.pick_up(b, &owner("b"), T0 + 3) else { panic!("b has it") };
    let c = waits(space.acquire(request(owner("c"), &["f"], &[]), T0 + 4));
    space.take_offered();
    space.take_back(untold.token, &owner("b"), untold.until_us, T0 + 5);
    assert_eq!(space.take_offered(), [c], "without a rest");
}

#[test]
fn what_expires_is_counted_and_nothing_else_is() {
    let mut space = Space::default();
    let a = held(space.acquire(request(owner("a"), &["f"], &[]), T0));
    waits(space.acquire(request(owner("b"), &["f"], &[]), T0));
    space.release(a.token, &owner("a"), T0 + 1).unwrap();
    space.advance(T0 + 3_600_000 * MS);
    assert_eq!((space.take_expired(), space.counts()), (0, (0, 0)), "an offer that nobody picked up");
    held(space.acquire(request(owner("c"), &["f"], &["g"]), T0 + 3_600_000 * MS));
    space.advance(T0 + 7_200_000 * MS);
    assert_eq!((space.take_expired(), space.take_expired()), (1, 0));
}

#[test]
fn what_concerns_one_resource_is_found_by_its_name() {
    let mut space = Space::default();
    let a = held(space.acquire(request(owner("a"), &["f"], &["g"]), T0));
    let b = waits(space.acquire(request(owner("b"), &["f"], &[]), T0));
    let of = |name: &str| {
        let name = Resource::new(name).unwrap();
        let waits: Vec<WaitId> = space.waits_at(&name).map(|wait| wait.id).collect();
        (space.holds_at(&name).map(|hold| hold.token).collect::<Vec<_>>(), waits)
    };
    assert_eq!(of("f"), (vec![a.token], vec![b]));
    assert_eq!((of("g"), of("h")), ((vec![a.token], vec![]), (vec![], vec![])));
}

#[test]
fn who_does_not_wait_is_told_who_has_it() {
    let mut space = Space::default();
    let a = held(space.acquire(request(owner("a"), &["f"], &[]), T0));
    let b = waits(space.acquire(request(owner("b"), &["f", "g"], &[]), T0));
    let ask = |what: &str| Request { wait_ms: 0, ..request(owner("c"), &[what], &[]) };
    let busy = |what: &str, who: &str, until_us| {
        Ok(Acquired::Busy(Blocker { resource: name(what), owner: owner(who), until_us }))
    };
    assert_eq!(space.acquire(ask("f"), T0), busy("f", "a", Some(a.until_us)));
    assert_eq!(space.acquire(ask("g"), T0), busy("g", "b", None));
    assert_eq!(space.waits().map(|wait| wait.id).collect::<Vec<_>>(), [b]);
}

#[test]
fn tokens_rise_though_the_clock_is_set_back_and_over_a_restart() {
    let mut space = Space::default();
    let a = held(space.acquire(request(owner("a"), &["f"], &[]), T0));
    let b = held(space.acquire(request(owner("b"), &["g"], &[]), T0 - 1_000_000_000));
    assert!(b.token > a.token);
    let mut space = Space::restore(space.mark(), space.holds().cloned().collect::<Vec<_>>());
    assert_eq!(space.holds().count(), 2);
    let busy = space.acquire(Request { wait_ms: 0, ..request(owner("c"), &["f"], &[]) }, T0 + 1);
    assert!(matches!(busy, Ok(Acquired::Busy(_))));
    assert!(held(space.acquire(request(owner("c"), &["h"], &[]), T0 - 1_000_000_000)).token > b.token);
}

#[derive(Debug, Clone)]
enum Step {
    Acquire { who: u8, epoch: i64, wants: Vec<(u8, bool)>, wait_ms: u64, ttl_ms: u64, delay_ms: u64 },
    PickUp(usize),
    CallOff(usize),
    TakeBack(usize, bool),
    Renew(usize),
    Release(usize),
    Break(usize),
    Pass,
}

fn step() -> impl Strategy<Value = Step> {
    let wants = prop::collection::vec((0_u8..4, any::<bool>()), 1..4);
    let acquire = (0_u8..6, 1_i64..4, wants, 0_u64..20_000, 1_000_u64..20_000, 0_u64..6_000);
    prop_oneof![
        6 => acquire.prop_map(|(who, epoch, wants, wait_ms, ttl_ms, delay_ms)| {
            Step::Acquire { who, epoch, wants, wait_ms, ttl_ms, delay_ms }
        }),
        4 => (0_usize..20).prop_map(Step::PickUp),
        1 => (0_usize..20).prop_map(Step::CallOff),
        1 => (0_usize..20, any::<bool>()).prop_map(|(place, exact)| Step::TakeBack(place, exact)),
        1 => (0_usize..20).prop_map(Step::Renew),
        3 => (0_usize..20).prop_map(Step::Release),
        1 => (0_usize..20).prop_map(Step::Break),
        1 => Just(Step::Pass),
    ]
}

/// What must hold of any space, told by what it shows alone.
fn check(space: &Space, now_us: i64) {
    let holds: Vec<&Hold> = space.holds().collect();
    for (place, one) in holds.iter().enumerate() {
        assert!(one.until_us > now_us, "{one:?} is over");
        for other in &holds[place + 1..] {
            let clash = one
                .resources
                .iter()
                .any(|(resource, mode)| other.mode_of(resource).is_some_and(|held| !held.goes_with(*mode)));
            assert!(!clash, "{one:?} and {other:?}");
        }
    }
    // Nobody waits for nothing.
    let waits: Vec<&Wait> = space.waits().collect();
    for (place, wait) in waits.iter().enumerate() {
        assert!(wait.ends_us() > now_us, "{wait:?} is over");
        let blocked = wait.request.wants().iter().any(|(resource, mode)| {
            let mut held = holds.iter().filter_map(|hold| hold.mode_of(resource));
            let before = waits[..place].iter().flat_map(|earlier| earlier.request.wants());
            let mut earlier = before.filter(|(name, _)| name == resource).map(|(_, mode)| *mode);
            held.any(|held| !held.goes_with(*mode)) || earlier.any(|earlier| !earlier.goes_with(*mode))
        });
        assert!(blocked, "{wait:?} waits for nothing: {space:?}");
    }
    assert_eq!(space.next_us().is_some(), !waits.is_empty());
}

/// Does one step.
fn take(space: &mut Space, step: Step, now_us: i64, ids: &mut Vec<(WaitId, Owner)>) {
    let hold =
        |space: &Space, place: usize| space.holds().nth(place).map(|hold| (hold.token, hold.owner.clone()));
    match step {
        Step::Acquire { who, epoch, wants, wait_ms, ttl_ms, delay_ms } => {
            let wants = wants.into_iter().map(|(number, alone)| {
                (name(&format!("r{number}")), if alone { Mode::Exclusive } else { Mode::Shared })
            });
            let owner = if who < 4 { owner(&format!("o{who}")) } else { attempt(&format!("t{who}"), epoch) };
            let request =
                Request { wait_ms, ttl_ms, delay_ms, ..Request::new(owner.clone(), wants).unwrap() };
            if let Ok(Acquired::Waits(id)) = space.acquire(request, now_us) {
                ids.push((id, owner));
            }
        }
        Step::PickUp(place) => {
            if let Some((id, owner)) = ids.get(place) {
                space.pick_up(*id, owner, now_us);
            }
        }
        Step::CallOff(place) => {
            if let Some((id, owner)) = ids.get(place) {
                space.call_off(*id, owner, now_us);
            }
        }
        Step::TakeBack(place, exact) => {
            let until_us = space.holds().nth(place).map(|hold| hold.until_us + i64::from(!exact));
            if let (Some((token, owner)), Some(until_us)) = (hold(space, place), until_us) {
                space.take_back(token, &owner, until_us, now_us);
            }
        }
        Step::Renew(place) => {
            if let Some((token, owner)) = hold(space, place) {
                let _ = space.renew(token, &owner, now_us);
            }
        }
        Step::Release(place) => {
            if let Some((token, owner)) = hold(space, place) {
                let _ = space.release(token, &owner, now_us);
            }
        }
        Step::Break(place) => {
            if let Some((token, _)) = hold(space, place) {
                space.break_hold(token, now_us);
            }
        }
        Step::Pass => space.advance(now_us),
    }
}

proptest! {
    #[test]
    fn no_two_clash_nobody_waits_for_nothing_and_places_in_line_are_kept(
        steps in prop::collection::vec((0_i64..4_000_000, step()), 1..120),
    ) {
        let (mut space, mut now_us, mut last) = (Space::default(), T0, Token(0));
        let (mut ids, mut kept) = (Vec::new(), BTreeMap::new());
        for (pause_us, step) in steps {
            now_us += pause_us;
            let mark = space.mark();
            let before: Vec<Wait> = space.waits().cloned().collect();
            take(&mut space, step, now_us, &mut ids);
            space.advance(now_us);
            check(&space, now_us);
            // Whoever was served passed nobody who still waits and wants the same.
            for id in space.take_offered() {
                let Some(served) = before.iter().find(|wait| wait.id == id) else { continue };
                for earlier in space.waits().filter(|wait| wait.id < id) {
                    let clash = earlier.request.wants().iter().any(|(name, mode)| {
                        let wanted = served.request.wants().iter().find(|(wanted, _)| wanted == name);
                        wanted.is_some_and(|(_, other)| !mode.goes_with(*other))
                    });
                    prop_assert!(!clash, "{served:?} passed {earlier:?}");
                }
            }
            // What is kept of it is it.
            for token in space.take_changed() {
                match space.hold(token) {
                    Some(hold) => kept.insert(token, hold.clone()),
                    None => kept.remove(&token),
                };
            }
            prop_assert!(space.holds().eq(kept.values()));
            // A new one is higher than all that ever were.
            let newer = space.holds().map(|hold| hold.token).filter(|token| *token > last).max();
            prop_assert!(space.holds().all(|hold| hold.token <= last || hold.token.0 > mark));
            last = newer.unwrap_or(last);
        }
        let all: Vec<_> = space.waits().map(|wait| (wait.id, wait.request.owner.clone())).collect();
        for (id, owner) in all {
            space.call_off(id, &owner, now_us);
        }
        space.advance(now_us + 100_000_000);
        prop_assert_eq!(space.holds().count(), 0);
        prop_assert!(space.is_empty(), "{:?}", space);
    }
}
