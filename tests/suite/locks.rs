//! Locks: whatever is asked in whatever order, a store answers as the rules themselves do.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use redrive_coordinator::store::LockCounts;
use redrive_shared::clock::Clock;
use redrive_shared::id::{Name, TaskId};
use redrive_shared::lock::{
    Acquired, Answer, Answers, Granted, LOCK_WAITERS_MAX, Lost, Mode, Owner, PickedUp, Refused, Request,
    Resource, Space, Token, Verb, WaitId,
};

use crate::support::Bed;

fn owner(name: &str) -> Owner {
    Owner::Named { name: Name::new(name).unwrap() }
}

fn wish(owner: Owner, resource: &str, wait_ms: u64) -> Request {
    let wants = [(Resource::new(resource).unwrap(), Mode::Exclusive)];
    Request::new(owner, wants).unwrap().timed(30_000, 5_000, wait_ms)
}

async fn ask(bed: &Bed, verb: Verb) -> (Answer, Vec<WaitId>) {
    let Answers { mut answers, offered, .. } = bed.lock(vec![verb]).await.unwrap();
    assert_eq!(answers.len(), 1);
    (answers.remove(0), offered)
}

async fn take(bed: &Bed, request: Request) -> Granted {
    match ask(bed, Verb::Acquire(request)).await.0 {
        Answer::Acquired(Ok(Acquired::Held(granted))) => granted,
        other => panic!("not held: {other:?}"),
    }
}

async fn stand_in_line(bed: &Bed, request: Request) -> WaitId {
    match ask(bed, Verb::Acquire(request)).await.0 {
        Answer::Acquired(Ok(Acquired::Waits(id))) => id,
        other => panic!("does not wait: {other:?}"),
    }
}

async fn counts(bed: &Bed) -> LockCounts {
    bed.locks(None, 0).await.unwrap().counts
}

fn random_request(rng: &mut StdRng) -> Request {
    let who = rng.random_range(0..7);
    let owner = match who {
        0..4 => owner(&format!("worker-{who}")),
        _ => Owner::Attempt {
            task: TaskId::new(format!("task-{who}")).unwrap(),
            epoch: 1_700_000_000_000_000 + rng.random_range(0..3),
        },
    };
    // Names in an order that letters alone do not give.
    const NAMES: [&str; 6] = ["b", "B", "a/1", "a-1", "\u{e9}t\u{e9}", "Z z"];
    let wants: Vec<_> = (0..rng.random_range(1..4))
        .map(|_| {
            let mode = if rng.random_bool(0.5) { Mode::Exclusive } else { Mode::Shared };
            (Resource::new(NAMES[rng.random_range(0..NAMES.len())]).unwrap(), mode)
        })
        .collect();
    let delay_ms = if rng.random_bool(0.3) { 0 } else { rng.random_range(0..6_000) };
    let wait_ms = if rng.random_bool(0.2) { 0 } else { rng.random_range(1..30_000) };
    Request::new(owner, wants).unwrap().timed(rng.random_range(1_000..20_000), delay_ms, wait_ms)
}

fn random_verb(rng: &mut StdRng, space: &Space, ids: &[(WaitId, Owner)]) -> Verb {
    let count = space.holds().count();
    let hold = space.holds().nth(rng.random_range(0..count.max(1)));
    let hold =
        hold.map_or((Token(7), owner("nobody"), 0), |hold| (hold.token, hold.owner.clone(), hold.until_us));
    let id = ids.get(rng.random_range(0..ids.len().max(1))).cloned().unwrap_or((WaitId(3), owner("nobody")));
    match rng.random_range(0..21) {
        0..8 => Verb::Acquire(random_request(rng)),
        8 if rng.random_bool(0.2) => Verb::PickUp(id.0, owner("stranger")),
        8..12 => Verb::PickUp(id.0, id.1),
        12 if rng.random_bool(0.2) => Verb::CallOff(id.0, owner("stranger")),
        12 => Verb::CallOff(id.0, id.1),
        20 => Verb::TakeBack(hold.0, hold.1, hold.2 - i64::from(rng.random_bool(0.3))),
        13..15 => Verb::Renew(hold.0, hold.1),
        15..18 => Verb::Release(hold.0, hold.1),
        18 if rng.random_bool(0.5) => Verb::Release(hold.0, owner("stranger")),
        18 => Verb::Break(hold.0),
        _ => Verb::Advance,
    }
}

pub async fn locks_are_given_by_the_rules(bed: Bed) {
    for seed in 0..6 {
        let mut rng = StdRng::seed_from_u64(seed);
        // The store begins each round with nothing but its last number.
        let mut space = Space::default();
        bed.advance(3_600_000);
        ask(&bed, Verb::Advance).await;
        let mut ids: Vec<(WaitId, Owner)> = Vec::new();
        for round in 0..150 {
            let most_ms = if rng.random_bool(0.2) { 9_000 } else { 300 };
            bed.advance(rng.random_range(0..most_ms));
            let count = rng.random_range(1..4);
            let verbs: Vec<Verb> = (0..count).map(|_| random_verb(&mut rng, &space, &ids)).collect();
            let expected = space.apply(verbs.clone(), bed.clock.now_us());
            let given = bed.lock(verbs.clone()).await.unwrap();
            assert_eq!(given, expected, "seed {seed}, round {round}: {verbs:?}\n{space:#?}");
            for asked in verbs.into_iter().zip(&given.answers) {
                if let (Verb::Acquire(request), Answer::Acquired(Ok(Acquired::Waits(id)))) = asked {
                    ids.push((*id, request.owner));
                }
            }
            let keep = ids.len().saturating_sub(12);
            ids.drain(..keep);
            if round % 10 == 0 {
                let shown = bed.locks(None, 1_000).await.unwrap();
                assert_eq!(
                    shown.holds,
                    space.holds().cloned().collect::<Vec<_>>(),
                    "seed {seed}, round {round}"
                );
                assert_eq!(
                    shown.waits,
                    space.waits().cloned().collect::<Vec<_>>(),
                    "seed {seed}, round {round}"
                );
            }
        }
        bed.advance(3_600_000);
        space.advance(bed.clock.now_us());
        ask(&bed, Verb::Advance).await;
        assert_eq!(bed.locks(None, 10).await.unwrap(), Default::default(), "everything ends by itself");
        assert!(space.is_empty());
    }
}

pub async fn a_lock_outlives_the_coordinator_that_gave_it(mut bed: Bed) {
    let held = take(&bed, wish(owner("a"), "report.md", 0)).await;
    bed.reopen().await;
    let (busy, _) = ask(&bed, Verb::Acquire(wish(owner("b"), "report.md", 0))).await;
    assert!(matches!(busy, Answer::Acquired(Ok(Acquired::Busy(_)))), "{busy:?}");
    let (renewed, _) = ask(&bed, Verb::Renew(held.token, owner("a"))).await;
    assert!(matches!(renewed, Answer::Renewed(Ok(_))), "{renewed:?}");
    assert_eq!(ask(&bed, Verb::Release(held.token, owner("a"))).await.0, Answer::Released(Ok(())));
    bed.reopen().await;
    assert!(take(&bed, wish(owner("b"), "report.md", 0)).await.token > held.token);
}

pub async fn tokens_rise_though_the_clock_is_set_back(mut bed: Bed) {
    let before = take(&bed, wish(owner("a"), "f", 0)).await;
    ask(&bed, Verb::Release(before.token, owner("a"))).await;
    bed.advance(-60_000);
    bed.reopen().await;
    let after = take(&bed, wish(owner("b"), "f", 0)).await;
    assert!(after.token > before.token, "{} {}", after.token, before.token);
}

pub async fn whoever_waits_is_told_in_order(bed: Bed) {
    let held = take(&bed, wish(owner("a"), "f", 0)).await;
    let first = stand_in_line(&bed, wish(owner("b"), "f", 30_000)).await;
    let second = stand_in_line(&bed, wish(owner("c"), "f", 30_000)).await;
    assert_eq!(
        stand_in_line(&bed, wish(owner("b"), "f", 30_000)).await,
        first,
        "who asks again keeps its place"
    );
    let (answer, offered) = ask(&bed, Verb::Release(held.token, owner("a"))).await;
    assert_eq!((answer, offered), (Answer::Released(Ok(())), vec![first]));
    let (answer, _) = ask(&bed, Verb::PickUp(first, owner("b"))).await;
    let Answer::PickedUp(PickedUp::Held(next)) = answer else { panic!("{answer:?}") };
    let (late, _) = ask(&bed, Verb::Renew(held.token, owner("a"))).await;
    assert_eq!(late, Answer::Renewed(Err(Lost::Unknown)));
    let (_, offered) = ask(&bed, Verb::Release(next.token, owner("b"))).await;
    assert_eq!(offered, [second]);
}

pub async fn who_is_late_and_who_is_not_the_owner_change_nothing(bed: Bed) {
    let held = take(&bed, wish(owner("a"), "f", 0)).await;
    for verb in [Verb::Renew(held.token, owner("b")), Verb::Release(held.token, owner("b"))] {
        let (refused, offered) = ask(&bed, verb).await;
        let is_refused = [Answer::Renewed(Err(Lost::NotYours)), Answer::Released(Err(Lost::NotYours))];
        assert!(is_refused.contains(&refused) && offered.is_empty(), "{refused:?}");
    }
    let waits = stand_in_line(&bed, wish(owner("b"), "f", 60_000)).await;
    assert_eq!(ask(&bed, Verb::PickUp(waits, owner("c"))).await.0, Answer::PickedUp(PickedUp::Gone));
    ask(&bed, Verb::CallOff(waits, owner("c"))).await;
    // In its last moment it is renewed still, and once that is over never again.
    bed.advance(29_999);
    assert!(matches!(ask(&bed, Verb::Renew(held.token, owner("a"))).await.0, Answer::Renewed(Ok(_))));
    stand_in_line(&bed, wish(owner("b"), "f", 60_000)).await;
    bed.advance(30_000);
    let Answers { answers, expired, .. } = bed.lock(vec![Verb::Renew(held.token, owner("a"))]).await.unwrap();
    assert_eq!((answers, expired), (vec![Answer::Renewed(Err(Lost::Expired))], 1));
    bed.advance(5_000);
    for _ in 0..2 {
        let (late, _) = ask(&bed, Verb::Renew(held.token, owner("a"))).await;
        assert_eq!(late, Answer::Renewed(Err(Lost::Unknown)));
        let (late, _) = ask(&bed, Verb::Release(held.token, owner("a"))).await;
        assert_eq!(late, Answer::Released(Err(Lost::Unknown)));
    }
}

pub async fn what_its_owner_was_not_told_of_is_taken_back(bed: Bed) {
    let untold = take(&bed, wish(owner("a"), "f", 0)).await;
    assert!(untold.is_news);
    let back = |granted: &Granted| Verb::TakeBack(granted.token, owner("a"), granted.until_us);
    let again = take(&bed, wish(owner("a"), "f", 0)).await;
    assert_eq!((again.token, again.is_news), (untold.token, false));
    ask(&bed, back(&untold)).await;
    assert_eq!(counts(&bed).await.holds, 1, "it was asked for again since");
    let b = stand_in_line(&bed, wish(owner("b"), "f", 30_000)).await;
    ask(&bed, Verb::Release(untold.token, owner("a"))).await;
    let (Answer::PickedUp(PickedUp::Held(next)), _) = ask(&bed, Verb::PickUp(b, owner("b"))).await else {
        panic!("b has it")
    };
    let c = stand_in_line(&bed, wish(owner("c"), "f", 30_000)).await;
    let (_, offered) = ask(&bed, Verb::TakeBack(next.token, owner("b"), next.until_us)).await;
    assert_eq!((next.is_news, offered), (true, vec![c]), "at once: its owner never began");
}

pub async fn locks_are_counted_and_found_by_their_resource(bed: Bed) {
    for number in 0..5 {
        take(&bed, wish(owner(&format!("holds-{number}")), &format!("f{number}"), 0)).await;
    }
    let first = stand_in_line(&bed, wish(owner("b"), "f3", 30_000)).await;
    let second = stand_in_line(&bed, wish(owner("c"), "f3", 30_000)).await;
    assert_eq!(counts(&bed).await, LockCounts { holds: 5, waits: 2 });
    let of = async |name: &str, most: usize| {
        let found = bed.locks(Some(&Resource::new(name).unwrap()), most).await.unwrap();
        let holders: Vec<Owner> = found.holds.into_iter().map(|hold| hold.owner).collect();
        (holders, found.waits.into_iter().map(|wait| wait.id).collect::<Vec<_>>(), found.more)
    };
    assert_eq!(of("f3", 10).await, (vec![owner("holds-3")], vec![first, second], false));
    assert_eq!(of("f3", 1).await, (vec![owner("holds-3")], vec![first], true));
    assert_eq!(of("f4", 1).await, (vec![owner("holds-4")], vec![], false));
    assert_eq!(of("F4", 1).await, (vec![], vec![], false), "names are compared byte by byte");
}

pub async fn ten_thousand_wait_and_no_more_and_are_served_in_order(bed: Bed) {
    let held = take(&bed, wish(owner("holder"), "f", 0)).await;
    let mut line = Vec::new();
    for part in (0..LOCK_WAITERS_MAX).collect::<Vec<_>>().chunks(1_000) {
        let wishes = part.iter().map(|number| wish(owner(&format!("w{number}")), "f", 600_000));
        let Answers { answers, .. } = bed.lock(wishes.map(Verb::Acquire).collect()).await.unwrap();
        line.extend(answers.into_iter().map(|answer| match answer {
            Answer::Acquired(Ok(Acquired::Waits(id))) => id,
            other => panic!("does not wait: {other:?}"),
        }));
    }
    let one_more = || Verb::Acquire(wish(owner("one-more"), "f", 600_000));
    assert_eq!(ask(&bed, one_more()).await.0, Answer::Acquired(Err(Refused::TooManyWaiters)));
    let elsewhere = take(&bed, wish(owner("elsewhere"), "g", 600_000)).await;
    assert!(elsewhere.token > held.token, "who need not wait is not in their way");
    let mut holder = (held.token, owner("holder"));
    for (number, id) in line.iter().enumerate().take(20) {
        let (_, offered) = ask(&bed, Verb::Release(holder.0, holder.1)).await;
        assert_eq!(offered, [*id]);
        let next = owner(&format!("w{number}"));
        let (answer, _) = ask(&bed, Verb::PickUp(*id, next.clone())).await;
        let Answer::PickedUp(PickedUp::Held(granted)) = answer else { panic!("{answer:?}") };
        holder = (granted.token, next);
    }
    assert!(matches!(ask(&bed, one_more()).await.0, Answer::Acquired(Ok(Acquired::Waits(_)))));
    // Nobody is heard of any more: all of them leave in one step.
    bed.advance(3_600_000);
    ask(&bed, Verb::Advance).await;
    assert_eq!(counts(&bed).await, LockCounts::default());
}

pub async fn a_clock_that_jumps_ends_locks_and_lowers_no_token(bed: Bed) {
    let before = take(&bed, wish(owner("a"), "f", 0)).await;
    bed.advance(365 * 24 * 3_600_000);
    assert_eq!(
        ask(&bed, Verb::Renew(before.token, owner("a"))).await.0,
        Answer::Renewed(Err(Lost::Unknown)),
        "its time and its rest are over"
    );
    let ahead = take(&bed, wish(owner("b"), "f", 0)).await;
    assert!(ahead.token > before.token);
    // Set right again: nothing ends earlier than it was promised, and tokens go on from the highest.
    bed.advance(-365 * 24 * 3_600_000);
    assert!(matches!(ask(&bed, Verb::Renew(ahead.token, owner("b"))).await.0, Answer::Renewed(Ok(_))));
    assert_eq!(ask(&bed, Verb::Release(ahead.token, owner("b"))).await.0, Answer::Released(Ok(())));
    let after = take(&bed, wish(owner("c"), "f", 0)).await;
    assert_eq!(after.token, Token(ahead.token.0 + 1));
}

pub async fn of_a_long_line_all_that_may_share_are_served(bed: Bed) {
    let f = take(&bed, wish(owner("holds-f"), "f", 0)).await;
    let g = take(&bed, wish(owner("holds-g"), "g", 0)).await;
    let (mut free, mut held_back) = (Vec::new(), Vec::new());
    for number in 0..100 {
        let names = if number % 3 == 0 { &["f", "g"][..] } else { &["f"] };
        let wants = names.iter().map(|name| (Resource::new(*name).unwrap(), Mode::Shared));
        let request = Request::new(owner(&format!("w{number}")), wants).unwrap().timed(30_000, 5_000, 60_000);
        let line = if number % 3 == 0 { &mut held_back } else { &mut free };
        line.push(stand_in_line(&bed, request).await);
    }
    let last = stand_in_line(&bed, wish(owner("alone"), "f", 60_000)).await;
    let (_, offered) = ask(&bed, Verb::Release(f.token, owner("holds-f"))).await;
    assert_eq!(
        offered, free,
        "those that wait for something else as well are passed by those that share with them"
    );
    let (_, offered) = ask(&bed, Verb::Release(g.token, owner("holds-g"))).await;
    assert_eq!(offered, held_back);
    assert_eq!(ask(&bed, Verb::PickUp(last, owner("alone"))).await.0, Answer::PickedUp(PickedUp::Waits));
}
