//! What groups may cost within a day, from settlements to claims, by a test's clock.

use std::sync::Arc;
use std::time::Duration;

use redrive_coordinator::engine::Engine;
use redrive_coordinator::store::{Ending, Settled};
use redrive_shared::clock::Clock;
use redrive_shared::cost::Cost;
use redrive_shared::gate::{Reason, State};
use redrive_shared::retry::RetryPolicy;
use redrive_shared::task::Lease;
use redrive_shared::wire::{ClaimRequest, GateView, Outcome, SettleRequest, Settlement};
use tokio_util::sync::CancellationToken;

use crate::support::{Bed, EnqueueExt, fixed_policy, name, task};

const DAY_MS: i64 = 86_400_000;
/// Between two looks at what the engine does meanwhile.
const PAUSE: Duration = Duration::from_millis(2);

fn usd(dollars: u64) -> Cost {
    Cost::from_micros(dollars * 1_000_000)
}

/// A coordinator's engine over the bed's store and clock, until the token is cancelled.
fn engine(bed: &Bed, stop: &CancellationToken) -> Arc<Engine> {
    let clock = Arc::clone(&bed.clock) as Arc<dyn Clock>;
    let engine = Engine::new(bed.shared(), None, clock, false, true, stop.clone());
    let (keeping, dispatching, stop) = (Arc::clone(&engine), Arc::clone(&engine), stop.clone());
    let stopping = stop.clone();
    tokio::spawn(async move { keeping.keep_gates(stopping).await });
    tokio::spawn(async move { dispatching.dispatcher().run(stop).await });
    engine
}

async fn claim(engine: &Engine, wait_ms: u64) -> Vec<Lease> {
    let request = ClaimRequest {
        agent: name("a"),
        boot_id: None,
        request_id: None,
        queues: vec![name("default")],
        max: 10,
        wait_ms,
        lease_ms: None,
        avoid: Vec::new(),
    };
    engine.claim(request).await.expect("an answer").leases
}

fn ids(leases: &[Lease]) -> Vec<&str> {
    let mut ids: Vec<&str> = leases.iter().map(|lease| &*lease.id).collect();
    ids.sort_unstable();
    ids
}

/// Done, for that much.
async fn settle(engine: &Engine, lease: &Lease, cost: Cost) {
    let (id, epoch, nonce) = (lease.id.clone(), lease.epoch, lease.nonce);
    let outcome = Outcome::done(None).costing(cost);
    let settlements = vec![Settlement { id, epoch, nonce, outcome }];
    let reply = engine.settle(SettleRequest { settlements }).await.expect("an answer");
    assert!(reply.results[0].error.is_none(), "{reply:?}");
}

fn group(engine: &Engine, group: &str) -> GateView {
    let gates = engine.gates();
    assert!(gates.gates.is_empty(), "they are no dependencies: {gates:?}");
    gates.groups.into_iter().find(|view| view.group.as_deref() == Some(group)).expect("it cost something")
}

pub async fn a_settlement_tells_the_group_of_its_task(bed: Bed) {
    bed.put_all(vec![task("grouped").group("g"), task("alone")]).await;
    for lease in bed.take_by_id(2).await {
        let Settled::Applied { group, .. } = bed.settle_one(&lease, Ending::Done(None)).await else {
            panic!("the lease holds")
        };
        assert_eq!(group.as_deref(), (&*lease.id == "grouped").then_some("g"));
    }
}

pub async fn a_group_that_spent_its_day_waits_for_the_next_and_others_go_on(bed: Bed) {
    let policy = RetryPolicy {
        max_group_cost_usd_per_day: Some(usd(3)),
        deadline_ms: 7 * DAY_MS.unsigned_abs(),
        ..fixed_policy(10_000)
    };
    bed.put_queue(&name("default"), policy).await.unwrap();
    let stop = CancellationToken::new();
    let (engine, _stop) = (engine(&bed, &stop), stop.clone().drop_guard());
    bed.put_all(vec![task("a-1").group("a")]).await;
    let leases = claim(&engine, 0).await;
    assert_eq!(ids(&leases), ["a-1"]);
    // Late, after its lease: what it cost counts.
    bed.advance(40_000);
    settle(&engine, &leases[0], usd(3)).await;
    bed.put_all(vec![task("a-2").group("a"), task("b-1").group("b"), task("alone")]).await;
    let leases = claim(&engine, 0).await;
    assert_eq!(ids(&leases), ["alone", "b-1"], "what has no group is not bounded");
    for lease in &leases {
        settle(&engine, lease, usd(2)).await;
    }
    let midnight_ms = (bed.now_ms() / DAY_MS + 1) * DAY_MS;
    let view = group(&engine, "a");
    assert_eq!(
        (view.state, view.reason, view.until_ms),
        (State::Shut, Some(Reason::Cost), Some(midnight_ms))
    );
    let b = group(&engine, "b");
    assert_eq!((b.state, b.costs.map(|costs| costs.spent_usd)), (State::Open, Some(usd(2))));
    assert_eq!(engine.gates().groups.len(), 2);

    // Who waits does so by the same clock.
    bed.advance(midnight_ms - 20_000 - bed.now_ms());
    let waiting = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move { claim(&engine, 50_000).await }
    });
    while engine.dispatcher().waiting() == 0 {
        tokio::time::sleep(PAUSE).await;
    }
    let ledger = bed.view("a-2").await.ledger;
    bed.advance(20_000);
    let leases = waiting.await.unwrap();
    assert_eq!(ids(&leases), ["a-2"]);
    assert_eq!(bed.view("a-2").await.ledger, ledger, "nothing was charged meanwhile");
    settle(&engine, &leases[0], usd(1)).await;
    let costs = group(&engine, "a").costs.expect("of today");
    assert_eq!((costs.spent_usd, costs.until_ms), (usd(1), midnight_ms + DAY_MS));
}

pub async fn what_a_group_spent_outlives_the_coordinator_and_a_changed_bound_holds_at_once(bed: Bed) {
    let bounded =
        |dollars| RetryPolicy { max_group_cost_usd_per_day: Some(usd(dollars)), ..fixed_policy(10_000) };
    bed.put_queue(&name("default"), bounded(3)).await.unwrap();
    bed.put_all(vec![task("a-1").group("a")]).await;
    let stop = CancellationToken::new();
    let first = engine(&bed, &stop);
    let leases = claim(&first, 0).await;
    settle(&first, &leases[0], usd(3)).await;
    while bed.gates(0).await.unwrap().is_none_or(|gates| gates.cells.is_empty()) {
        tokio::time::sleep(PAUSE).await;
    }
    stop.cancel();
    drop(first);

    let stop = CancellationToken::new();
    let (second, _stop) = (engine(&bed, &stop), stop.clone().drop_guard());
    bed.put_all(vec![task("a-2").group("a")]).await;
    assert_eq!(ids(&claim(&second, 0).await), [""; 0]);
    let policy = bounded(4).into();
    second.put_queue(&name("default"), policy, None).await.expect("it is changed");
    let leases = claim(&second, 50_000).await;
    assert_eq!(ids(&leases), ["a-2"]);
}
