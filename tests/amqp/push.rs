//! Tasks go to those who have room for them.

use std::process::Stdio;

use futures_util::StreamExt;
use redrive_coordinator::CoordinatorConfig;
use redrive_coordinator::amqp::PushConfig;
use serde_json::json;
use tokio::process::Child;

use super::{Bench, coordinator, next_lease, nothing, room, settlement};
use crate::support::process::redrive;
use crate::support::server::Server;

/// A worker process that takes its work from RabbitMQ.
fn worker(bench: &Bench, agent: &str, queue: &str, command: &str) -> Child {
    worker_with(bench, agent, queue, command, 4)
}

fn worker_with(bench: &Bench, agent: &str, queue: &str, command: &str, concurrency: u32) -> Child {
    redrive()
        .args([
            "--url",
            &bench.server.url(""),
            "worker",
            "--agent",
            agent,
            "--queues",
            queue,
            "--exec",
            command,
            "--concurrency",
            &concurrency.to_string(),
        ])
        .env("REDRIVE__WORKER__LINK", bench.rabbit.url())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn a_worker_is_given_its_work_and_starts_it_in_its_own_name() {
    let bench = Bench::pushing([("letters", PushConfig::default())]).await;
    let _worker = worker(&bench, "postman", "letters", "cat >/dev/null; echo '{\"result\": 7}'");
    let tasks: Vec<_> = (0..40).map(|n| json!({ "id": format!("t{n}"), "queue": "letters" })).collect();
    bench.enqueue(json!(tasks)).await;
    for n in 0..40 {
        let task = bench.task_in(&format!("t{n}"), "succeeded").await;
        assert_eq!(task["result"], 7);
        assert_eq!((&task["history"][0]["agent"], &task["runs"]), (&json!("postman"), &json!(1)), "{task}");
    }
}

#[tokio::test]
async fn a_consumer_of_another_make_gets_all_that_it_needs_to_know() {
    let bench = Bench::pushing([("letters", room(5))]).await;
    let mut consumer = bench.peer.consume("redrive.q.letters").await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let task = json!({ "id": "a", "queue": "letters", "priority": "high", "payload": { "to": "you" }, "traceparent": trace });
    bench.enqueue(json!([task])).await;
    let (message, lease) = next_lease(&mut consumer).await;
    let properties = &message.properties;
    let text = |value: &Option<lapin::types::ShortString>| value.as_ref().map(ToString::to_string);
    assert_eq!(text(properties.content_type()).as_deref(), Some("application/json"));
    assert_eq!(text(properties.kind()).as_deref(), Some("redrive.lease.v1"));
    assert_eq!(text(properties.message_id()).as_deref(), Some("a"));
    assert_eq!(text(properties.reply_to()).as_deref(), Some("redrive.outcomes"));
    assert_eq!(*properties.priority(), Some(2));
    assert_eq!(super::header(&message, "traceparent"), trace);
    let left_ms: u64 = text(properties.expiration()).unwrap().parse().unwrap();
    assert!((1..=lease.lease_ms).contains(&left_ms), "no longer there than the lease: {left_ms}");
    assert_eq!(lease.payload.get(), r#"{"to":"you"}"#);
    assert_eq!(bench.task_in("a", "leased").await["agent"], "amqp");
    bench.peer.settle(&lease, json!({ "done": { "result": "sent" } })).await;
    assert_eq!(bench.task_in("a", "succeeded").await["result"], "sent");
}

#[tokio::test]
async fn no_more_is_pushed_than_there_is_room_for() {
    let bench = Bench::pushing([("letters", room(5))]).await;
    let mut consumer = bench.peer.consume("redrive.q.letters").await;
    let tasks: Vec<_> = (0..20).map(|n| json!({ "id": format!("t{n}"), "queue": "letters" })).collect();
    bench.enqueue(json!(tasks)).await;
    let mut leases = Vec::new();
    for _ in 0..5 {
        leases.push(next_lease(&mut consumer).await.1);
    }
    nothing(&mut consumer).await;
    let two: Vec<_> = leases.drain(..2).map(|lease| settlement(&lease, json!({ "done": {} }))).collect();
    bench.peer.say("", "redrive.outcomes", &json!({ "settlements": two })).await;
    for _ in 0..2 {
        leases.push(next_lease(&mut consumer).await.1);
    }
    nothing(&mut consumer).await;
    // The rest goes through as room is made.
    for _ in 0..13 {
        bench.peer.settle(&leases.remove(0), json!({ "done": {} })).await;
        leases.push(next_lease(&mut consumer).await.1);
    }
    nothing(&mut consumer).await;
}

#[tokio::test]
async fn where_nobody_consumes_tasks_stay_in_the_store() {
    let bench = Bench::pushing([("letters", room(5))]).await;
    bench.enqueue(json!([{ "id": "a", "queue": "letters" }])).await;
    tokio::time::sleep(super::A_WHILE).await;
    assert_eq!(bench.server.get("/v1/tasks/a").await.json["state"], "scheduled");
    assert_eq!(bench.peer.look("redrive.q.letters").await, Some((0, 0)));
    let mut consumer = bench.peer.consume("redrive.q.letters").await;
    assert_eq!(&*next_lease(&mut consumer).await.1.id, "a");
}

#[tokio::test]
async fn a_message_that_is_lost_costs_its_lease_and_nothing_more() {
    let config = PushConfig { max_outstanding: 5, lease_ms: Some(1_000) };
    let bench = Bench::pushing([("letters", config)]).await;
    let mut consumer = bench.peer.consume("redrive.q.letters").await;
    bench.enqueue(json!([{ "id": "a", "queue": "letters" }])).await;
    let (_, lost) = next_lease(&mut consumer).await;
    // Nothing is said of it. Its lease ends, and it comes again.
    let (_, again) = next_lease(&mut consumer).await;
    assert_eq!((&again.id, again.ledger.undelivered, again.ledger.failed), (&lost.id, 1, 0));
    assert!(again.epoch > lost.epoch);
    // What the first lease's holder says now changes nothing.
    bench.peer.settle(&lost, json!({ "dead": { "failure": { "exception": "too late" } } })).await;
    bench.peer.settle(&again, json!({ "done": {} })).await;
    assert_eq!(bench.task_in("a", "succeeded").await["ledger"]["failed"], 0);
}

#[tokio::test]
async fn a_paused_queue_pushes_nothing() {
    let bench = Bench::pushing([("letters", room(5))]).await;
    let mut consumer = bench.peer.consume("redrive.q.letters").await;
    let paused = bench.server.post("/v1/queues/letters/pause", &json!({})).await;
    assert_eq!(paused.status, 200, "{paused:?}");
    bench.enqueue(json!([{ "id": "a", "queue": "letters" }])).await;
    nothing(&mut consumer).await;
    bench.server.post("/v1/queues/letters/resume", &json!({})).await;
    assert_eq!(&*next_lease(&mut consumer).await.1.id, "a");
}

#[tokio::test]
async fn what_a_busy_worker_cannot_begin_goes_to_one_that_can() {
    let bench = Bench::pushing([("letters", PushConfig::default())]).await;
    let gate = tempfile::tempdir().unwrap();
    let open = gate.path().join("open");
    // The slow one has two at once, and keeps them until the end; the other is quick.
    let wait = format!("cat >/dev/null; while [ ! -e {} ]; do sleep 0.02; done", open.display());
    let _slow = worker_with(&bench, "slow", "letters", &wait, 2);
    let tasks = |of: &str| {
        (0..2).map(|n| json!({ "id": format!("{of}{n}"), "queue": "letters" })).collect::<Vec<_>>()
    };
    bench.enqueue(json!(tasks("slow"))).await;
    for n in 0..2 {
        bench.agent_has(&format!("slow{n}"), "slow").await;
    }
    let _quick = worker_with(&bench, "quick", "letters", "cat >/dev/null", 2);
    for round in 0..10 {
        bench.enqueue(json!(tasks(&format!("quick{round}-")))).await;
        for n in 0..2 {
            let task = bench.task_in(&format!("quick{round}-{n}"), "succeeded").await;
            assert_eq!(task["history"][0]["agent"], "quick");
        }
    }
    std::fs::write(open, "").unwrap();
    bench.task_in("slow0", "succeeded").await;
}

#[tokio::test]
async fn a_coordinator_that_stops_leaves_nothing_on_the_way() {
    const TASKS: u64 = 3_000;
    let data = tempfile::tempdir().unwrap();
    let on_disk = |config: CoordinatorConfig| CoordinatorConfig {
        in_memory: false,
        data_dir: data.path().into(),
        ..config
    };
    let bench = Bench::with(|url| on_disk(coordinator(url, [("letters", room(10_000))]))).await;
    let tasks: Vec<_> = (0..TASKS).map(|n| json!({ "id": format!("t{n}"), "queue": "letters" })).collect();
    for tasks in tasks.chunks(1_000) {
        bench.enqueue(json!(tasks)).await;
    }
    let mut consumer = bench.peer.consume("redrive.q.letters").await;
    next_lease(&mut consumer).await;
    let Bench { rabbit: _rabbit, server, peer: _peer } = bench;
    server.stop().await;
    let mut published = 1;
    while tokio::time::timeout(super::A_WHILE, consumer.next()).await.is_ok() {
        published += 1;
    }
    // All that was claimed was published or handed back: no lease waits for its end with nobody.
    let server = Server::with(on_disk(CoordinatorConfig::default())).await;
    let queues = server.get("/v1/queues").await.json;
    let counts =
        &queues["queues"].as_array().unwrap().iter().find(|one| one["name"] == "letters").unwrap()["counts"];
    assert_eq!(
        (&counts["leased"], counts["scheduled"].as_u64()),
        (&json!(published), Some(TASKS - published))
    );
    assert!(published < TASKS, "it was stopped in the middle");
}
