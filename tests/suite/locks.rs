//! Locks: whatever is asked in whatever order, a store answers as the rules themselves do.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use redrive_shared::clock::Clock;
use redrive_shared::id::{Name, TaskId};
use redrive_shared::lock::{
    Acquired, Answer, Answers, Granted, Lost, Mode, Owner, PickedUp, Request, Resource, Space, Token, Verb,
    WaitId,
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

fn random_verb(rng: &mut StdRng, space: &Space, ids: &[WaitId]) -> Verb {
    let count = space.holds().count();
    let hold = space.holds().nth(rng.random_range(0..count.max(1)));
    let hold = hold.map_or((Token(7), owner("nobody")), |hold| (hold.token, hold.owner.clone()));
    let id = ids.get(rng.random_range(0..ids.len().max(1))).copied().unwrap_or(WaitId(3));
    match rng.random_range(0..20) {
        0..8 => Verb::Acquire(random_request(rng)),
        8..12 => Verb::PickUp(id),
        12 => Verb::CallOff(id),
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
        let mut ids: Vec<WaitId> = Vec::new();
        for round in 0..150 {
            let most_ms = if rng.random_bool(0.2) { 9_000 } else { 300 };
            bed.advance(rng.random_range(0..most_ms));
            let count = rng.random_range(1..4);
            let verbs: Vec<Verb> = (0..count).map(|_| random_verb(&mut rng, &space, &ids)).collect();
            let expected = space.apply(verbs.clone(), bed.clock.now_us());
            let given = bed.lock(verbs.clone()).await.unwrap();
            assert_eq!(given, expected, "seed {seed}, round {round}: {verbs:?}\n{space:#?}");
            for answer in &given.answers {
                if let Answer::Acquired(Ok(Acquired::Waits(id))) = answer {
                    ids.push(*id);
                }
            }
            let keep = ids.len().saturating_sub(12);
            ids.drain(..keep);
            if round % 10 == 0 {
                let shown = bed.locks(1_000).await.unwrap();
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
        assert_eq!(bed.locks(10).await.unwrap(), Default::default(), "everything ends by itself");
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
    let (answer, _) = ask(&bed, Verb::PickUp(first)).await;
    let Answer::PickedUp(PickedUp::Held(next)) = answer else { panic!("{answer:?}") };
    let (late, _) = ask(&bed, Verb::Renew(held.token, owner("a"))).await;
    assert_eq!(late, Answer::Renewed(Err(Lost::Unknown)));
    let (_, offered) = ask(&bed, Verb::Release(next.token, owner("b"))).await;
    assert_eq!(offered, [second]);
}
