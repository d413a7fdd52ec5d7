//! Leases that a run took over at one coordinator, as another sees them that handed them out, and what Redis keeps of it.

use std::sync::Arc;

use redrive_coordinator::store::redis::RedisStore;
use redrive_coordinator::store::{Claim, Ending, Extend, Settled, Store};
use redrive_shared::clock::{Clock, ManualClock};
use redrive_shared::task::{Lease, TaskState};

use crate::support::redis::RedisServer;
use crate::support::{
    Bed, RedisBackend, START_MS, claim_of, fence, fixed_policy, id, name, redis_config, settle_of, task,
};

async fn open(redis: &RedisServer) -> RedisStore {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(START_MS));
    RedisStore::open(&redis_config(&redis.url()), Some(clock)).await.expect("the store opens")
}

async fn take_over(store: &dyn Store, lease: &Lease) {
    let run = Some(redrive_coordinator::store::Run { agent: name("b"), boot_id: name("b-1") });
    let item = Extend { id: lease.id.clone(), fence: fence(lease), lease_ms: Some(30_000), run };
    store.extend(vec![item]).await.expect("extended");
}

#[tokio::test]
async fn whoever_handed_a_lease_out_learns_who_took_it_over_elsewhere() {
    let redis = RedisServer::start().await;
    let (giver, other) = (open(&redis).await, open(&redis).await);
    giver.put_queue(&name("default"), fixed_policy(10_000)).await.unwrap();
    giver.enqueue(["x", "y", "z"].map(task).into()).await.unwrap();
    let leases = giver.claim(vec![claim_of(3)], &[]).await.unwrap().remove(0).leases;
    for lease in &leases[..2] {
        take_over(&other, lease).await;
    }
    // The one that handed them out remembers them as the claimer's.
    let batch = leases.iter().map(|lease| settle_of(lease, Ending::Done(None))).collect();
    for answer in giver.settle(batch).await.unwrap() {
        assert!(matches!(answer, Settled::Applied { state: TaskState::Succeeded, .. }), "{answer:?}");
    }
    for (lease, agent) in leases.iter().zip(["b", "b", "a"]) {
        let view = other.get(&lease.id).await.unwrap().expect("it is known");
        assert_eq!(view.history[0].agent, Some(name(agent)));
    }
}

#[tokio::test]
async fn a_claim_of_which_nothing_was_taken_over_is_settled_without_a_look() {
    let redis = RedisServer::start().await;
    let bed = Bed::new(RedisBackend::at(&redis.url(), "rd", 1)).await;
    for taken in [false, true] {
        bed.put_all(if taken { ["a", "b"] } else { ["c", "d"] }.map(task).into()).await;
        let leases = bed.take(2).await;
        for lease in &leases {
            bed.take_over(lease, if taken { "b" } else { "a" }, "a-1").await;
        }
        redis.command(&["CONFIG", "RESETSTAT"]).await;
        bed.settle(leases.iter().map(|lease| settle_of(lease, Ending::Done(None))).collect()).await.unwrap();
        let asked = redis.command(&["INFO", "commandstats"]).await;
        assert_eq!(asked.contains("cmdstat_hmget"), taken, "{asked}");
        assert!(!asked.contains("cmdstat_zmscore"), "it is told as a whole: {asked}");
    }
}

#[tokio::test]
async fn nothing_is_left_of_leases_that_were_taken_over() {
    let redis = RedisServer::start().await;
    let bed = Bed::new(RedisBackend::at(&redis.url(), "rd", 1)).await;
    bed.put_all(["settled", "lost", "called-off"].map(task).into()).await;
    let leases = bed.take(3).await;
    for lease in &leases {
        take_over(&*bed, lease).await;
    }
    let settled = leases.iter().find(|lease| &*lease.id == "settled").expect("it was given");
    bed.finish(settled, Ending::Done(None)).await;
    bed.cancel_one("called-off").await;
    bed.advance(30_000);
    assert_eq!(bed.reap(9).await.unwrap().reaped.len(), 1);
    for key in ["r", "G", "E", "u"] {
        assert_eq!(redis.command(&["EXISTS", &format!("rd:{{0}}:{key}")]).await, "0", "{key}");
    }
}

#[tokio::test]
async fn what_one_run_took_over_is_found_among_many_thousands() {
    const TASKS: usize = 9_000;
    let bed = Bed::new(RedisBackend::new().await).await;
    bed.put_all((0..TASKS).map(|number| task(&format!("t{number}"))).collect()).await;
    let mut leases = Vec::new();
    while leases.len() < TASKS {
        leases.extend(bed.claim_one(Claim { lease_ms: Some(600_000), ..claim_of(1_000) }).await.leases);
    }
    let take_over = |lease: &Lease, agent: &str| Extend {
        id: lease.id.clone(),
        fence: fence(lease),
        lease_ms: None,
        run: Some(redrive_coordinator::store::Run { agent: name(agent), boot_id: name("1") }),
    };
    for batch in leases.chunks(1_000) {
        // One of them in each, and all others by another run.
        let taken = batch
            .iter()
            .enumerate()
            .map(|(place, lease)| take_over(lease, if place == 500 { "b" } else { "c" }));
        bed.extend(taken.collect()).await.unwrap();
    }
    let arrival = bed.arrive(&name("b"), &name("1")).await.unwrap();
    assert_eq!(bed.expire_leases(&name("b"), &name("1"), arrival).await.unwrap(), 9);
    let mut reaped = 0;
    for _ in 0..TASKS / 1_000 {
        // Each round looks at a bounded number of leases.
        reaped += bed.reap(100).await.unwrap().reaped.len();
    }
    assert_eq!(reaped, 9);
    assert_eq!(bed.get(&id("t0")).await.unwrap().expect("it is there").state, TaskState::Leased);
}
