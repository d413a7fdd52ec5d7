//! Limits of queues: over several coordinators, beside those of dependencies, and as operators meet them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use redrive_shared::gate::{Settings, State};
use redrive_shared::task::Lease;
use redrive_shared::wire::{ClaimRequest, GateRequest, SettleRequest, Settlement};
use redrive_worker::client::Client;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::in_flight::{
    Limited, every_end_makes_room, leased, most_at_once, never_more_than_three_embedded,
    never_more_than_three_shared, short_attempts,
};
use super::{DEPENDENCY, done, enqueue_to, limit, queue_gate, settle};
use crate::support::name;
use crate::support::process::{Coordinator, redrive};
use crate::support::redis::RedisServer;
use crate::support::server::Server;
use crate::support::wait::eventually;

/// Longer than everything that comes back by itself.
const PATIENCE: Duration = Duration::from_secs(60);

async fn limit_queue(client: &Client, queue: &str, settings: Settings) {
    client.change_gate(&GateRequest::of_queue(name(queue), settings)).await.expect("done");
}

fn at_once(most: u32) -> Settings {
    Settings { max_in_flight: Some(most), ..Settings::default() }
}

async fn claim_from(client: &Client, agent: &str, queues: &[&str], max: u32, wait_ms: u64) -> Vec<Lease> {
    let request = ClaimRequest {
        agent: name(agent),
        boot_id: None,
        request_id: None,
        queues: queues.iter().map(|queue| name(queue)).collect(),
        max,
        wait_ms,
        lease_ms: None,
        avoid: Vec::new(),
    };
    client.claim(&request).await.expect("an answer").leases
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_of_a_queue_are_leased_at_once_than_may_be_whoever_dies_shared() {
    never_more_than_three_shared(Limited::Queue).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_of_a_queue_are_leased_at_once_than_may_be_whoever_dies_embedded() {
    never_more_than_three_embedded(Limited::Queue).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_end_of_a_lease_makes_room_in_its_queue_embedded() {
    let data = tempfile::tempdir().expect("a directory");
    let coordinator = Coordinator::start(data.path()).await;
    every_end_makes_room(&coordinator.client(), Limited::Queue).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_end_of_a_lease_makes_room_in_its_queue_shared() {
    let redis = RedisServer::start().await;
    let coordinator = Coordinator::on(&redis.url()).await;
    every_end_makes_room(&coordinator.client(), Limited::Queue).await;
}

/// Takes what it is given until then; returns when that was, in µs by the store's clock.
async fn take_until(client: Client, number: usize, end: Instant) -> Vec<i64> {
    let mut began = Vec::new();
    let mut turn = number as u64;
    while Instant::now() < end {
        turn += 1;
        let leases = claim_from(&client, &format!("w{number}"), &["default"], 5, 400).await;
        // Nobody waits for a while: what was taken for them lies unused.
        sleep(Duration::from_millis((turn * 67) % 200)).await;
        began.extend(leases.iter().map(|lease| lease.epoch));
        for lease in &leases {
            settle(&client, lease, done()).await;
        }
    }
    began
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_no_minute_more_of_a_queue_is_handed_out_than_its_limit_whichever_coordinator_does() {
    const PER_MINUTE: usize = 240;
    let redis = RedisServer::start().await;
    let url = redis.url();
    let (a, b) = tokio::join!(Coordinator::on(&url), Coordinator::on(&url));
    let (a, b) = (a.client(), b.client());
    let settings = Settings { requests_per_minute: Some(PER_MINUTE as u32), ..Settings::default() };
    limit_queue(&a, "default", settings).await;
    let known = async || queue_gate(&b, "default").await;
    eventually("the other knows", PATIENCE, known).await;
    enqueue_to(&a, "t", 400, "default", None).await;
    enqueue_to(&a, "d", 400, "default", Some(DEPENDENCY)).await;
    let end = Instant::now() + Duration::from_secs(66);
    let mut workers = JoinSet::new();
    for (number, client) in [&a, &b, &a, &b, &a].into_iter().enumerate() {
        workers.spawn(take_until(client.clone(), number, end));
    }
    let mut began = workers.join_all().await.concat();
    began.sort_unstable();
    let within =
        |from_us: &i64| began.iter().filter(|at| (*from_us..from_us + 60_000_000).contains(at)).count();
    let most = began.iter().map(within).max();
    assert!(most.is_some_and(|most| most <= PER_MINUTE), "{most:?} in one minute");
    assert!(began.len() > PER_MINUTE * 9 / 10, "{} in 66 s", began.len());
}

/// Works on two queues until everything is done; one task in ten it forgets, as a worker does that is killed.
async fn work(done_tasks: Arc<AtomicUsize>, all: usize, clients: Vec<Client>, number: usize) {
    let mut turn = number;
    while done_tasks.load(Ordering::SeqCst) < all {
        turn += 1;
        let client = &clients[turn % clients.len()];
        for lease in claim_from(client, &format!("w{number}"), &["default", "other"], 2, 2_000).await {
            if (turn + number).is_multiple_of(10) && lease.run == 1 {
                continue;
            }
            sleep(Duration::from_millis(10 + (turn as u64 * 7) % 40)).await;
            let (epoch, nonce) = (lease.epoch, lease.nonce);
            let settlements = vec![Settlement { id: lease.id.clone(), epoch, nonce, outcome: done() }];
            let other = &clients[(turn + 1) % clients.len()];
            let reply = other.settle(&SettleRequest { settlements }).await.expect("an answer");
            done_tasks.fetch_add(usize::from(reply.results[0].error.is_none()), Ordering::SeqCst);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_a_queue_and_one_of_a_dependency_hold_both() {
    const EACH: usize = 30;
    let redis = RedisServer::start().await;
    let url = redis.url();
    let (a, b) = tokio::join!(Coordinator::on(&url), Coordinator::on(&url));
    let clients = vec![a.client(), b.client()];
    let client = &clients[0];
    short_attempts(client, "default").await;
    short_attempts(client, "other").await;
    limit_queue(client, "default", at_once(4)).await;
    let of_dependency = GateRequest::new(name(DEPENDENCY), redrive_shared::wire::GateAction::Set);
    let request = GateRequest { settings: Some(at_once(2)), ..of_dependency };
    client.change_gate(&request).await.expect("done");
    let known = async || queue_gate(&clients[1], "default").await;
    eventually("the other knows", PATIENCE, known).await;
    enqueue_to(client, "limited", EACH, "default", None).await;
    enqueue_to(client, "both", EACH, "default", Some(DEPENDENCY)).await;
    enqueue_to(client, "needs", EACH, "other", Some(DEPENDENCY)).await;
    enqueue_to(client, "free", EACH, "other", None).await;
    let mut workers = JoinSet::new();
    let finished = Arc::new(AtomicUsize::new(0));
    for number in 0..10 {
        workers.spawn(work(Arc::clone(&finished), 4 * EACH, clients.clone(), number));
    }
    workers.join_all().await;
    let (limited, both) = (leased(client, "limited", EACH).await, leased(client, "both", EACH).await);
    let (needs, free) = (leased(client, "needs", EACH).await, leased(client, "free", EACH).await);
    let (of_queue, of_dependency) =
        (most_at_once(&[&limited[..], &both].concat()), most_at_once(&[both, needs].concat()));
    assert!((3..=4).contains(&of_queue), "{of_queue} of the queue at once");
    assert!((1..=2).contains(&of_dependency), "{of_dependency} of the dependency at once");
    assert!(most_at_once(&free) > 4, "nothing limits these");
    let back = async || (queue_gate(client, "default").await?.in_flight == Some(0)).then_some(());
    eventually("nothing is out", PATIENCE, back).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_queues_go_on_while_one_is_full_and_it_goes_on_where_somebody_waits() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let (a, b) = tokio::join!(Coordinator::on(&url), Coordinator::on(&url));
    let (one, a, b) = (&a, a.client(), b.client());
    short_attempts(&a, "other").await;
    limit_queue(&a, "default", at_once(1)).await;
    enqueue_to(&a, "t", 3, "default", Some(DEPENDENCY)).await;
    let lease = claim_from(&a, "w", &["default"], 5, 10_000).await.remove(0);
    assert_eq!(one.metric("redrive_gate_in_flight{queue=\"default\"}").await, 1);
    let full = async || (queue_gate(&b, "default").await?.in_flight == Some(1)).then_some(());
    eventually("the other knows", PATIENCE, full).await;
    enqueue_to(&b, "o", 6, "other", Some(DEPENDENCY)).await;
    let others = claim_from(&b, "w", &["default", "other"], 10, 10_000).await;
    assert!(others.len() == 6 && others.iter().all(|lease| lease.queue == name("other")), "{others:?}");
    let waiting = tokio::spawn({
        let b = b.clone();
        async move { claim_from(&b, "w", &["default", "other"], 5, 20_000).await }
    });
    settle(&a, &lease, done()).await;
    let next = waiting.await.expect("no panic");
    assert!(next.len() == 1 && next[0].queue == name("default"), "{next:?}");
    // Without a limit everything goes, and nothing is shown any more.
    limit_queue(&b, "default", Settings::default()).await;
    assert_eq!(claim_from(&b, "w", &["default"], 5, 10_000).await.len(), 1);
    assert!(queue_gate(&b, "default").await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_a_queue_outlive_the_coordinator() {
    let data = tempfile::tempdir().expect("a directory");
    let mut coordinator = Coordinator::start(data.path()).await;
    let client = coordinator.client();
    let settings = Settings { requests_per_minute: Some(600), max_in_flight: Some(2), ..Settings::default() };
    limit_queue(&client, "default", settings.clone()).await;
    coordinator.kill().await;
    coordinator.restart().await;
    let known = async || queue_gate(&client, "default").await;
    let (view, _) = eventually("the limits are known", PATIENCE, known).await;
    assert_eq!((view.state, view.settings, view.dependency), (State::Open, settings, None));
    enqueue_to(&client, "t", 5, "default", None).await;
    assert_eq!(claim_from(&client, "w", &["default"], 5, 10_000).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_queues_limits_is_said_and_changes_nothing() {
    let server = Server::start().await;
    let set =
        |settings: serde_json::Value| json!({"queue": "default", "action": "set", "settings": settings});
    let cases = [
        (json!({"action": "set", "settings": {}}), "invalid_value", "or a `queue` in its place"),
        (
            json!({"dependency": "d", "queue": "default", "action": "set", "settings": {}}),
            "invalid_value",
            "leave one of them out",
        ),
        (json!({"queue": "default", "action": "isolate"}), "invalid_value", "pause"),
        (json!({"queue": "default", "action": "shut", "for_ms": 5}), "invalid_value", "pause"),
        (json!({"queue": "default", "action": "set"}), "invalid_value", "no limits"),
        (
            json!({"queue": "defualt", "action": "set", "settings": {}}),
            "unknown_queue",
            "did you mean `default`",
        ),
        (json!({"queue": "a b", "action": "set", "settings": {}}), "invalid_value", "contains ' '"),
        (set(json!({"budget": {"ratio": 0.1}})), "invalid_value", "a queue has no retry budget"),
        (set(json!({"max_in_flight": 0})), "invalid_value", "1 to 1000000"),
        (set(json!({"requests_per_hour": 5})), "unknown_field", "requests_per_minute"),
    ];
    for (request, code, says) in cases {
        let reply = server.post("/v1/gates", &request).await;
        assert_eq!(reply.code(), code, "{request}: {reply:?}");
        assert!(reply.json["detail"].as_str().unwrap().contains(says), "{request}: {reply:?}");
    }
    assert_eq!(server.get("/v1/gates").await.json, json!({"gates": []}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_limit_queues_from_the_command_line() {
    let data = tempfile::tempdir().expect("a directory");
    let coordinator = Coordinator::start(data.path()).await;
    let gates = async |arguments: &[&str]| {
        let mut command = redrive();
        command.args(["--url", &coordinator.url(), "gates"]).args(arguments);
        let output = command.output().await.expect("it runs");
        let text = [&output.stdout[..], &output.stderr[..]].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    let set = ["set", "--queue", "default", "--requests-per-minute", "120", "--max-in-flight", "8"];
    let (code, text) = gates(&set).await;
    assert!(
        code == Some(0) && text.contains("QUEUE") && text.contains("120") && text.contains("0/8"),
        "{text}"
    );
    let (code, text) = gates(&["list"]).await;
    assert!(code == Some(0) && text.contains("default") && text.contains("0/8"), "{text}");
    let (_, text) = gates(&["list", "--json"]).await;
    let listed: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(listed["queues"][0]["settings"], json!({"requests_per_minute": 120, "max_in_flight": 8}));
    for wrong in [
        &["limit"][..],
        &["limit", "tool/pdf", "--queue", "default"],
        &["limit", "--queue", "a", "--retry-ratio", "1"],
    ] {
        let (code, text) = gates(wrong).await;
        assert_eq!(code, Some(2), "{wrong:?}: {text}");
    }
    // This coordinator makes the queues that tasks are sent to. Limits are for those that are there.
    let (code, text) = gates(&["limit", "--queue", "defualt", "--max-in-flight", "8"]).await;
    assert!(code == Some(1) && text.contains("did you mean `default`"), "{text}");
    let mut queues = redrive();
    queues.args(["--url", &coordinator.url(), "queues", "list"]);
    let text = String::from_utf8(queues.output().await.expect("it runs").stdout).expect("text");
    assert!(text.contains("0/8") && !text.contains("defualt"), "{text}");
    assert_eq!(coordinator.metric("redrive_gate_in_flight{queue=\"default\"}").await, 0);
    limit(&coordinator.client(), DEPENDENCY, 60).await;
    let (_, text) = gates(&["list"]).await;
    assert!(text.contains("DEPENDENCY") && text.contains(DEPENDENCY) && text.contains("QUEUE"), "{text}");
    let (code, text) = gates(&["limit", "--queue", "default"]).await;
    assert!(code == Some(0) && !text.contains("120"), "{text}");
    let (_, text) = gates(&["list"]).await;
    assert!(!text.contains("QUEUE"), "{text}");
}
