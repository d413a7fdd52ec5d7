//! What shuts a gate, and what comes through one.

use std::time::{Duration, Instant};

use redrive_coordinator::CoordinatorConfig;
use redrive_shared::gate::State;
use redrive_shared::wire::GateAction;

use super::{DEPENDENCY, change, claim, done, enqueue, gate, limit, limited, settle, state, unauthorized};
use crate::support::process::Coordinator;
use crate::support::redis::RedisServer;
use crate::support::server::Server;
use redrive_worker::client::Client;

/// A coordinator on the embedded store, in this process.
async fn embedded() -> (Server, Client) {
    let config = CoordinatorConfig { in_memory: true, ..CoordinatorConfig::default() };
    let server = Server::with(config).await;
    let client = Client::new(&server.url("")).expect("a client");
    (server, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hint_shuts_the_gate_for_everyone_and_a_canary_opens_it_embedded() {
    let (_server, client) = embedded().await;
    a_hint_shuts_the_gate_and_a_canary_opens_it(&client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hint_shuts_the_gate_for_everyone_and_a_canary_opens_it_shared() {
    let redis = RedisServer::start().await;
    let coordinator = Coordinator::on(&redis.url()).await;
    a_hint_shuts_the_gate_and_a_canary_opens_it(&coordinator.client()).await;
}

async fn a_hint_shuts_the_gate_and_a_canary_opens_it(client: &Client) {
    enqueue(client, "limited", 30, DEPENDENCY).await;
    enqueue(client, "other", 3, "tool/pdf").await;
    let first = claim(client, "a", 1, 5_000).await;
    // Of whichever it was: one call to the limited dependency is refused.
    let mut held = first;
    while held.iter().all(|lease| lease.dependency.as_deref() != Some(DEPENDENCY)) {
        held.extend(claim(client, "a", 1, 5_000).await);
    }
    let refused =
        held.iter().position(|lease| lease.dependency.as_deref() == Some(DEPENDENCY)).expect("there");
    let refused = held.swap_remove(refused);
    let shut = Instant::now();
    settle(client, &refused, limited(2)).await;
    assert_eq!(state(client, DEPENDENCY).await, State::Shut);

    let others = claim(client, "b", 40, 0).await;
    let through: Vec<_> =
        others.iter().filter(|lease| lease.dependency.as_deref() == Some(DEPENDENCY)).collect();
    assert!(through.is_empty(), "behind the gate: {through:?}");
    assert_eq!(others.len() + held.len(), 3, "the other dependency goes on");

    // Who waits gets the canary, alone, and not before the hint is over.
    let canary = claim(client, "b", 40, 10_000).await;
    assert_eq!(canary.len(), 1, "one to see");
    assert!(shut.elapsed() >= Duration::from_secs(2), "not before: {:?}", shut.elapsed());
    assert_eq!((canary[0].attempt, canary[0].run), (1, 1), "waiting behind a gate charges nothing");
    assert_eq!(claim(client, "c", 40, 0).await.len(), 0, "no second one");
    assert_eq!(state(client, DEPENDENCY).await, State::Canary);

    settle(client, &canary[0], done()).await;
    assert_eq!(state(client, DEPENDENCY).await, State::Ramp);
    let next = claim(client, "c", 40, 10_000).await;
    assert!((1..=5).contains(&next.len()), "a tenth of what is known, and no flood: {}", next.len());
    let view = gate(client, DEPENDENCY).await.expect("there");
    assert!(view.rate_per_s.is_some_and(|rate| rate > 0.0), "{view:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_that_fails_for_two_agents_isolates_the_dependency_with_one_alarm() {
    let (_server, client) = embedded().await;
    enqueue(&client, "auth", 30, DEPENDENCY).await;
    for agent in ["a", "b", "a"] {
        let lease = claim(&client, agent, 1, 5_000).await.remove(0);
        settle(&client, &lease, unauthorized()).await;
    }
    let view = gate(&client, DEPENDENCY).await.expect("there");
    assert_eq!(view.state, State::Isolated);
    let alarm = view.alarm.expect("an alarm");
    assert_eq!(alarm.class.map(|class| class.as_str()), Some("auth"));
    assert_eq!(alarm.agents.iter().map(|agent| agent.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(claim(&client, "c", 40, 300).await.len(), 0, "nothing until a person opens it");

    // Who waits gets something as soon as a person opens it.
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { claim(&client, "c", 40, 20_000).await }
    });
    change(&client, DEPENDENCY, GateAction::Open).await;
    let canary = waiting.await.expect("no panic");
    assert_eq!(canary.len(), 1);
    settle(&client, &canary[0], done()).await;
    assert_eq!(state(&client, DEPENDENCY).await, State::Ramp);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_bounds_what_is_handed_out_in_a_stretch_of_time() {
    let (_server, client) = embedded().await;
    // Ten a second, at most ten at once.
    limit(&client, DEPENDENCY, 600).await;
    enqueue(&client, "many", 60, DEPENDENCY).await;
    let (started, mut given) = (Instant::now(), 0);
    while given < 30 {
        given += claim(&client, "a", 60, 5_000).await.len();
        let allowed = 10.0 + started.elapsed().as_secs_f64() * 10.0;
        assert!(given as f64 <= allowed, "{given} after {:?}", started.elapsed());
    }
    assert!(started.elapsed() >= Duration::from_millis(1_900), "{:?}", started.elapsed());
}
