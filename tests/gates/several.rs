//! Several coordinators share a gate, and it outlives them.

use std::time::{Duration, Instant};

use redrive_shared::gate::State;
use redrive_shared::wire::GateAction;

use super::{DEPENDENCY, change, claim, done, enqueue, gate, limit, limited, settle, state};
use crate::support::process::Coordinator;
use crate::support::redis::RedisServer;
use crate::support::wait::eventually;

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_coordinator_hears_holds_back_all_and_one_canary_goes_for_all() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let (a, b, c) = tokio::join!(Coordinator::on(&url), Coordinator::on(&url), Coordinator::on(&url));
    let clients = [a.client(), b.client(), c.client()];
    enqueue(&clients[0], "shared", 60, DEPENDENCY).await;
    let lease = claim(&clients[0], "w0", 1, 5_000).await.remove(0);
    settle(&clients[0], &lease, limited(2)).await;
    for client in &clients {
        let shut = async || (state(client, DEPENDENCY).await == State::Shut).then_some(());
        eventually("the gate is shut everywhere", PATIENCE, shut).await;
        assert_eq!(claim(client, "w", 10, 0).await.len(), 0);
    }
    // All three wait; the canary is one. Not until 2 s after it: who is not refused by then is let in, and others follow.
    let started = Instant::now();
    let waiting = clients
        .clone()
        .map(|client| tokio::spawn(async move { (claim(&client, "w", 10, 3_500).await, Instant::now()) }));
    let mut given = Vec::new();
    for one in waiting {
        given.push(one.await.expect("no panic").0);
    }
    let canaries: Vec<_> = given.iter().flatten().collect();
    assert_eq!(canaries.len(), 1, "after {:?}", started.elapsed());
    // Its outcome, told at another coordinator, lets all go on.
    settle(&clients[1], canaries[0], done()).await;
    for client in &clients {
        let ramp = async || (state(client, DEPENDENCY).await == State::Ramp).then_some(());
        eventually("the ramp begins everywhere", PATIENCE, ramp).await;
    }
    assert!(!claim(&clients[2], "w", 10, 10_000).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_opens_at_one_coordinator_what_others_wait_for() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let (a, b) = tokio::join!(Coordinator::on(&url), Coordinator::on(&url));
    let (a, b) = (a.client(), b.client());
    change(&a, DEPENDENCY, GateAction::Isolate).await;
    enqueue(&a, "isolated", 5, DEPENDENCY).await;
    let isolated = async || (state(&b, DEPENDENCY).await == State::Isolated).then_some(());
    eventually("the other knows", PATIENCE, isolated).await;
    let waiting = tokio::spawn({
        let b = b.clone();
        async move { claim(&b, "w", 5, 20_000).await }
    });
    change(&a, DEPENDENCY, GateAction::Reset).await;
    assert_eq!(waiting.await.expect("no panic").len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_outlives_the_coordinator_that_shut_it() {
    let data = tempfile::tempdir().expect("a directory");
    let mut coordinator = Coordinator::start(data.path()).await;
    let client = coordinator.client();
    let settings = limit(&client, DEPENDENCY, 6_000).await.settings;
    change(&client, DEPENDENCY, GateAction::Isolate).await;
    coordinator.kill().await;
    coordinator.restart().await;
    let known = async || gate(&client, DEPENDENCY).await;
    let (view, _) = eventually("the gate is known", PATIENCE, known).await;
    assert_eq!((view.state, view.settings), (State::Isolated, settings));
    enqueue(&client, "late", 3, DEPENDENCY).await;
    assert_eq!(claim(&client, "w", 3, 300).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_all_had_handed_out_when_one_was_refused_is_the_rate_of_the_ramp() {
    const EACH: u32 = 40;
    let redis = RedisServer::start().await;
    let url = redis.url();
    let (a, b, c) = tokio::join!(Coordinator::on(&url), Coordinator::on(&url), Coordinator::on(&url));
    let clients = [a.client(), b.client(), c.client()];
    enqueue(&clients[0], "storm", 200, DEPENDENCY).await;
    let started = Instant::now();
    let [first, second, third] = &clients;
    let (leases, ..) = tokio::join!(
        claim(first, "a", EACH, 5_000),
        claim(second, "b", EACH, 5_000),
        claim(third, "c", EACH, 5_000)
    );
    settle(first, &leases[0], limited(2)).await;
    let stretch = started.elapsed().max(Duration::from_millis(500));
    for client in &clients {
        let shut = async || (state(client, DEPENDENCY).await == State::Shut).then_some(());
        eventually("the gate is shut everywhere", PATIENCE, shut).await;
    }
    // The others tell of what they handed out while it is shut; after the canary everyone has the same whole rate.
    let canary = claim(second, "b", 1, 10_000).await.remove(0);
    settle(second, &canary, done()).await;
    let ramp = async || gate(third, DEPENDENCY).await.filter(|view| view.state == State::Ramp);
    let (view, _) = eventually("the ramp begins everywhere", PATIENCE, ramp).await;
    let begins_per_s = 0.7 * f64::from(3 * EACH - 1) / stretch.as_secs_f64();
    let rate_per_s = view.rate_per_s.expect("a ramp has one");
    // A third of it, where one knew only its own.
    assert!(rate_per_s >= 0.7 * begins_per_s, "{rate_per_s} of {begins_per_s} a second");
}
