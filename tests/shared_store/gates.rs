//! Gates between coordinators: who is first, who hears of it, and what a failover takes back.

use std::sync::Arc;
use std::time::Duration;

use redrive_coordinator::store::redis::{RedisConfig, RedisStore};
use redrive_coordinator::store::{Claim, GateCell, GateSwap, GateSwapped, Hint, Restriction, Store};
use tokio::sync::broadcast::Receiver;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::redis::RedisServer;
use crate::support::{EnqueueExt, claim_of, name, of_dependency, redis_config, task};

/// Hints travel in milliseconds; the rest is for a busy machine.
const SOON: Duration = Duration::from_secs(10);

async fn open(redis: &RedisServer, shards: u16) -> Arc<RedisStore> {
    let config = RedisConfig { shards: Some(shards), ..redis_config(&redis.url()) };
    Arc::new(RedisStore::open(&config, None).await.expect("the store opens"))
}

fn swap(dependency: &str, seen: i64, value: &str, tell: bool) -> GateSwap {
    GateSwap { scope: of_dependency(dependency), seen, value: Some(value.to_owned()), tell }
}

async fn swap_one(store: &RedisStore, swap: GateSwap) -> GateSwapped {
    store.swap_gates(vec![swap]).await.expect("an answer").remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_coordinators_that_change_a_gate_at_once_one_is_first_each_time() {
    let redis = RedisServer::start().await;
    let stores = [open(&redis, 4).await, open(&redis, 4).await];
    let mut seen = 0;
    for round in 0..20 {
        let mut callers = JoinSet::new();
        for caller in 0..10 {
            let store = Arc::clone(&stores[caller % 2]);
            let value = format!("{round} {caller}");
            callers.spawn(async move { (swap_one(&store, swap("d", seen, &value, false)).await, value) });
        }
        let answers = callers.join_all().await;
        let won: Vec<(i64, String)> = answers
            .iter()
            .filter_map(|(answer, value)| match answer {
                GateSwapped::Now(version) => Some((*version, value.clone())),
                _ => None,
            })
            .collect();
        let [(version, value)] = &won[..] else { panic!("one is first: {answers:?}") };
        assert!(*version > seen);
        let there = GateCell { scope: of_dependency("d"), version: *version, value: value.clone() };
        for (answer, _) in answers.iter().filter(|(answer, _)| !matches!(answer, GateSwapped::Now(_))) {
            assert_eq!(
                *answer,
                GateSwapped::Changed(Some(there.clone())),
                "the others are told what is there"
            );
        }
        for store in &stores {
            let gates = store.gates(seen).await.expect("an answer").expect("it was changed");
            assert_eq!((gates.change, gates.cells), (*version, vec![there.clone()]));
        }
        seen = *version;
    }
}

/// What a coordinator hears of gates, up to the word that something of that queue is due.
async fn heard_until(hints: &mut Receiver<Hint>, queue: &str) -> usize {
    let mut heard = 0;
    let hearing = async {
        loop {
            match hints.recv().await.expect("the store is open") {
                Hint::Gates => heard += 1,
                Hint::Due { queue: told, .. } if &*told == queue => return,
                Hint::Due { .. } | Hint::Offered(_) | Hint::Look => {}
            }
        }
    };
    timeout(SOON, hearing).await.expect("it is told");
    heard
}

#[tokio::test]
async fn others_hear_at_once_of_a_change_that_is_to_be_told() {
    let redis = RedisServer::start().await;
    let (here, there) = (open(&redis, 1).await, open(&redis, 1).await);
    for queue in ["one", "two", "three"] {
        here.make_queue(&name(queue)).await.expect("made");
    }
    let (mut heard_here, mut heard_there) = (here.hints().expect("shared"), there.hints().expect("shared"));
    // Messages of one coordinator come in order: the tasks say how far it has been heard.
    let tell = async |queue: &str| {
        here.enqueue(vec![task(queue).on(queue)]).await.expect("taken");
    };
    let mut version = 0;
    let mut change = async |told: bool, expected_to_change: bool| {
        let seen = if expected_to_change { version } else { 1 };
        let answer = swap_one(&here, swap("d", seen, "v", told)).await;
        assert_eq!(matches!(answer, GateSwapped::Now(_)), expected_to_change);
        if let GateSwapped::Now(now) = answer {
            version = now;
        }
    };
    change(false, true).await;
    change(true, false).await;
    tell("one").await;
    assert_eq!(heard_until(&mut heard_there, "one").await, 0, "nothing was to be told");
    change(true, true).await;
    tell("two").await;
    assert_eq!(heard_until(&mut heard_there, "two").await, 1);
    let batch = vec![swap("e", 0, "v", true), swap("d", 1, "too late", true), swap("f", 0, "v", true)];
    here.swap_gates(batch).await.expect("changed");
    tell("three").await;
    assert_eq!(heard_until(&mut heard_there, "three").await, 1, "a batch is told once");
    there.enqueue(vec![task("there").on("one")]).await.expect("taken");
    assert_eq!(heard_until(&mut heard_here, "one").await, 0, "it knows its own");
}

#[tokio::test]
async fn no_version_comes_twice_though_a_failover_took_changes_back() {
    let redis = RedisServer::start().await;
    let (here, there) = (open(&redis, 1).await, open(&redis, 1).await);
    let GateSwapped::Now(first) = swap_one(&here, swap("d", 0, "v", false)).await else {
        panic!("it is new")
    };
    let before = redis.command(&["HGET", "rd:{*}:gates", ""]).await;
    let kept = redis.command(&["HGET", "rd:{*}:gates", "d"]).await;
    let GateSwapped::Now(lost) = swap_one(&here, swap("d", first, "w", false)).await else {
        panic!("as seen")
    };
    // As a replica that lagged behind has it.
    redis.command(&["HSET", "rd:{*}:gates", "", &before, "d", &kept]).await;
    let gates = there.gates(lost).await.expect("an answer").expect("what was seen is no more");
    assert_eq!((gates.change, gates.cells[0].version, gates.cells[0].value.as_str()), (first, first, "v"));
    let answer = swap_one(&here, swap("d", lost, "x", false)).await;
    assert!(matches!(answer, GateSwapped::Changed(Some(cell)) if cell.version == first));
    let GateSwapped::Now(next) = swap_one(&here, swap("d", first, "x", false)).await else {
        panic!("as seen")
    };
    assert!(next > lost && lost > first && first > 1_000_000_000_000_000, "{first} {lost} {next}");
    redis.command(&["DEL", "rd:{*}:gates"]).await;
    let gates = here.gates(next).await.expect("an answer").expect("what was seen is no more");
    assert_eq!((gates.change, gates.cells.len()), (0, 0));
    let GateSwapped::Now(last) = swap_one(&here, swap("d", 0, "y", false)).await else { panic!("it is new") };
    assert!(last > next);
}

#[tokio::test]
async fn a_restriction_holds_over_all_shards_and_calls() {
    let redis = RedisServer::start().await;
    let store = open(&redis, 4).await;
    let tasks = |from: usize| (from..from + 1_000).map(|number| task(&format!("t{number}")).needs("d"));
    for from in [0, 1_000, 2_000] {
        store.enqueue(tasks(from).collect()).await.expect("taken");
    }
    let restricted = [Restriction { scope: of_dependency("d"), any: Some(1_500), retries: None }];
    // More than one call to a shard gives.
    let claims: Vec<Claim> = (0..12).map(|_| Claim { max: 1_000, ..claim_of(1) }).collect();
    let claimed = store.claim(claims.clone(), &restricted).await.expect("an answer");
    assert_eq!(claimed.iter().map(|one| one.leases.len()).sum::<usize>(), 1_500);
    let claimed = store.claim(claims, &[]).await.expect("an answer");
    assert_eq!(claimed.iter().map(|one| one.leases.len()).sum::<usize>(), 1_500, "all the others");
}
