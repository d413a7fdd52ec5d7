//! What groups may cost within a day, as operators and workers meet it: real processes, on both stores.

use std::time::Duration;

use redrive_shared::cost::Cost;
use redrive_shared::gate::State;
use redrive_shared::retry::RetryPolicy;
use redrive_shared::wire::{EnqueueRequest, GateAction, GateRequest, NewTask, Outcome, QueueCreate};
use redrive_worker::client::Client;
use serde_json::{Value, json};

use super::{claim, settle};
use crate::support::process::{Coordinator, redrive};
use crate::support::redis::RedisServer;
use crate::support::server::Server;
use crate::support::wait::eventually;
use crate::support::{id, name};

const PATIENCE: Duration = Duration::from_secs(30);

/// Three dollars a day for each group of the queue `default`.
async fn bound(client: &Client) {
    let policy: RetryPolicy =
        serde_json::from_value(json!({"max_group_cost_usd_per_day": 3})).expect("a policy");
    client.put_queue(&name("default"), &QueueCreate::from(policy)).await.expect("it is put");
}

async fn enqueue(client: &Client, ids: &[&str]) {
    let new = |text: &&str| NewTask {
        id: Some(id(text)),
        group: text.split_once('-').map(|(group, _)| name(group)),
        ..NewTask::default()
    };
    let reply =
        client.enqueue(&EnqueueRequest { tasks: ids.iter().map(new).collect() }).await.expect("an answer");
    assert!(reply.results.iter().all(|one| one.error.is_none()), "{reply:?}");
}

async fn claimed(client: &Client, wait_ms: u64) -> Vec<String> {
    let mut ids: Vec<String> =
        claim(client, "w", 10, wait_ms).await.into_iter().map(|lease| lease.id.to_string()).collect();
    ids.sort_unstable();
    ids
}

fn costing(dollars: u64) -> Outcome {
    Outcome::done(None).costing(Cost::from_micros(dollars * 1_000_000))
}

async fn state(client: &Client, group: &str) -> Option<State> {
    let groups = client.gates().await.expect("an answer").groups;
    groups.into_iter().find(|view| view.group.as_deref() == Some(group)).map(|view| view.state)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_two_coordinators_hear_of_a_group_is_added_up_and_holds_it_back_at_both() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let (a, b) = tokio::join!(Coordinator::on(&url), Coordinator::on(&url));
    let clients = [a.client(), b.client()];
    bound(&clients[0]).await;
    enqueue(&clients[0], &["t7-1", "t7-2"]).await;
    let leases = claim(&clients[0], "w", 2, 5_000).await;
    assert_eq!(leases.len(), 2);
    // Each hears of less than the bound.
    settle(&clients[0], &leases[0], costing(2)).await;
    settle(&clients[1], &leases[1], costing(1)).await;
    for client in &clients {
        let shut = async || (state(client, "t7").await == Some(State::Shut)).then_some(());
        eventually("both know the sum", PATIENCE, shut).await;
    }
    enqueue(&clients[0], &["t7-3", "t8-1", "alone"]).await;
    assert_eq!(claimed(&clients[1], 5_000).await, ["alone", "t8-1"]);
    assert_eq!(claimed(&clients[0], 0).await, [""; 0]);
    let mut told = 0;
    for coordinator in [&a, &b] {
        told += coordinator.metric("redrive_group_cost_reached_total{queue=\"default\"}").await;
    }
    assert_eq!(told, 1, "it happened once");

    // Lifted at one, for who waits at the other.
    let waiting = tokio::spawn({
        let client = clients[1].clone();
        async move { claimed(&client, 20_000).await }
    });
    let request = GateRequest::of_group(name("default"), name("t7"), GateAction::Open);
    let view = clients[0].change_gate(&request).await.expect("done");
    assert!(view.costs.is_some_and(|costs| costs.lifted), "{view:?}");
    assert_eq!(waiting.await.expect("no panic"), ["t7-3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_see_what_groups_cost_and_count_it_anew() {
    let data = tempfile::tempdir().expect("a directory");
    let coordinator = Coordinator::start(data.path()).await;
    let client = coordinator.client();
    bound(&client).await;
    let gates = async |arguments: &[&str]| {
        let mut command = redrive();
        command.args(["--url", &coordinator.url(), "gates"]).args(arguments);
        let output = command.output().await.expect("it runs");
        let text = [&output.stdout[..], &output.stderr[..]].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    enqueue(&client, &["t7-1", "t7-2"]).await;
    let lease = claim(&client, "w", 1, 5_000).await.remove(0);
    settle(&client, &lease, costing(4)).await;
    assert_eq!(claimed(&client, 0).await, [""; 0]);
    let (code, text) = gates(&["list"]).await;
    let row = text.lines().find(|line| line.contains("t7")).unwrap_or_else(|| panic!("{text}"));
    assert!(
        code == Some(0) && ["default", "shut", "cost", "$4", "$3"].iter().all(|word| row.contains(word)),
        "{text}"
    );
    let whose = ["--queue", "default", "--group", "t7"];
    let (code, text) = gates(&[&["reset"], &whose[..]].concat()).await;
    assert!(code == Some(0) && text.contains("open") && text.contains("$0"), "{text}");
    assert_eq!(claimed(&client, 5_000).await, ["t7-2"]);
    let (code, text) = gates(&["open", "--queue", "default"]).await;
    assert!(code == Some(2) && text.contains("--group"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_done_with_a_group_is_said() {
    let server = Server::start().await;
    let of_group = |action: &str| json!({"queue": "default", "group": "g", "action": action});
    let with = |more: Value| {
        let mut request = of_group("open");
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    let cases = [
        (of_group("isolate"), "invalid_value", "lifts"),
        (of_group("set"), "invalid_value", "lifts"),
        (with(json!({"dependency": "d"})), "invalid_value", "leave one of them out"),
        (with(json!({"queue": "nowhere"})), "unknown_queue", "nowhere"),
        (json!({"action": "open"}), "invalid_value", "`dependency` is missing"),
        (json!({"group": "g", "action": "open"}), "invalid_value", "`queue` is missing"),
    ];
    for (request, code, says) in cases {
        let reply = server.post("/v1/gates", &request).await;
        assert_eq!(reply.code(), code, "{request}: {reply:?}");
        assert!(reply.json["detail"].as_str().unwrap().contains(says), "{request}: {reply:?}");
    }
    assert_eq!(server.get("/v1/gates").await.json, json!({"gates": []}));
}
