//! Fallback chains with real processes: one model fails, and a handler that looks at its task's route works at another.

use std::path::Path;
use std::process::Stdio;

use redrive::upstream::Reply;
use serde_json::{Value, json};

use crate::support::process::{Coordinator, redrive};
use crate::support::sink::{Sink, sink};

const OPUS: &str = "anthropic/main/opus";
const SONNET: &str = "anthropic/main/sonnet";

/// Runs a client command that must work; returns what it printed as JSON.
async fn run(coordinator: &Coordinator, arguments: &[&str]) -> Value {
    let mut command = redrive();
    command.args(["--json", "--url", &coordinator.url()]).args(arguments);
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

async fn enqueue(coordinator: &Coordinator, id: &str, more: &[&str]) {
    let task = ["enqueue", "--queue", "writing", "--id", id, "--dependency", OPUS];
    let payload = ["--payload", r#"{"prompt": "hello"}"#];
    run(coordinator, &[&task[..], &payload, more].concat()).await;
}

/// The counters of a dependency: attempts, and tasks that were tried there first.
async fn counted(coordinator: &Coordinator, dependency: &str) -> (u64, u64) {
    let of = |counter: &str| format!("{counter}{{dependency=\"{dependency}\"}}");
    let attempts = coordinator.metric(&of("redrive_attempts_total")).await;
    (attempts, coordinator.metric(&of("redrive_attempted_tasks_total")).await)
}

/// The documented example, with a server for each model.
fn worker(coordinator: &Coordinator, opus: &Sink, sonnet: &Sink) -> tokio::process::Child {
    let endpoints = json!({ OPUS: opus.url, SONNET: sonnet.url }).to_string();
    let command = "python3 docs/examples/fallback_handler.py";
    redrive()
        .args(["--url", &coordinator.url(), "worker", "--agent", "writer", "--queues", "writing"])
        .args(["--exec", command])
        .env("ENDPOINTS", endpoints)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_fails_is_stood_in_for_by_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(directory.path()).await;
    let policy = json!({
        "fallbacks": { OPUS: [SONNET] },
        "overrides": { "overloaded": { "strategy": { "strategy": "fixed", "delay_ms": 20 } } },
    });
    run(&coordinator, &["queues", "create", "writing", "--policy", &policy.to_string()]).await;
    let (opus, sonnet) = (sink().await, sink().await);
    opus.handle.begin_outage(Reply::Overloaded);
    let _worker = worker(&coordinator, &opus, &sonnet);

    enqueue(&coordinator, "essay", &["--max-cost-usd", "2"]).await;
    let done = run(&coordinator, &["tasks", "show", "essay", "--wait", "30s"]).await;
    assert_eq!((&done["state"], &done["result"]["model"]), (&json!("succeeded"), &json!(SONNET)), "{done:#}");
    let tried: Vec<[&Value; 4]> = done["history"].as_array().unwrap().iter().map(line).collect();
    let failed = [&json!(0), &json!(OPUS), &json!("failed"), &json!(0.25)];
    let worked = [&json!(1), &json!(SONNET), &json!("succeeded"), &json!(0.018)];
    assert_eq!(tried, [failed, failed, worked], "overloaded: the next one after two failures");
    assert_eq!((&done["ledger"]["cost_usd"], &done["primary"]), (&json!(0.518), &json!(OPUS)));
    assert_eq!((opus.handle.calls_of("essay"), sonnet.handle.calls_of("essay")), (2, 1));
    assert_eq!(counted(&coordinator, OPUS).await, (2, 1));
    assert_eq!(counted(&coordinator, SONNET).await, (1, 0));

    let queue = run(&coordinator, &["queues", "show", "writing"]).await;
    assert_eq!(queue["amplification"], json!(3.0), "three calls for one task");
    assert_eq!(coordinator.metric("redrive_amplification{queue=\"writing\"}").await, 3);
    assert_eq!(coordinator.metric("redrive_amplification{queue=\"default\"}").await, 0, "no calls");

    // What failed for good at the caller goes on at once, whatever holds the first model back.
    run(&coordinator, &["gates", "isolate", OPUS]).await;
    enqueue(&coordinator, "gone", &["--failure", r#"{"class": "model_unavailable"}"#]).await;
    let done = run(&coordinator, &["tasks", "show", "gone", "--wait", "30s"]).await;
    assert_eq!((&done["state"], &done["route"]), (&json!("succeeded"), &json!(1)), "{done:#}");
    assert_eq!(opus.handle.calls_of("gone"), 0);
    let queue = run(&coordinator, &["queues", "show", "writing"]).await;
    assert_eq!(queue["amplification"], json!(2.5), "the call that was made before it came counts");

    // So does what failed nowhere yet.
    enqueue(&coordinator, "calm", &[]).await;
    let done = run(&coordinator, &["tasks", "show", "calm", "--wait", "30s"]).await;
    assert_eq!((&done["state"], &done["route"]), (&json!("succeeded"), &json!(1)), "{done:#}");
    assert!(done["history"][0]["why"].as_str().unwrap().contains("another stands in"), "{done:#}");
    assert_eq!((opus.handle.calls_of("calm"), &done["ledger"]["failed"]), (0, &json!(0)));

    // Nobody left to stand in, and too dear: a person is asked.
    sonnet.handle.begin_outage(Reply::Overloaded);
    enqueue(&coordinator, "dear", &["--max-cost-usd", "0.5", "--failure", r#"{"class": "auth"}"#]).await;
    let done = run(&coordinator, &["tasks", "show", "dear", "--wait", "30s"]).await;
    assert_eq!((&done["state"], &done["ledger"]["cost_usd"]), (&json!("escalated"), &json!(0.5)), "{done:#}");
    assert!(done["why"].as_str().unwrap().contains("cost"), "{done:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happened_to_a_task_before_it_came_counts_once_and_only_its_calls() {
    let directory = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(directory.path()).await;
    run(&coordinator, &["queues", "create", "writing"]).await;
    let failed = ["--attempts-made", "3", "--failure", r#"{"class": "timeout"}"#];
    for _ in 0..2 {
        enqueue(&coordinator, "twice", &failed).await;
    }
    let waited = ["--attempts-made", "2", "--failure", r#"{"class": "lock_timeout"}"#];
    enqueue(&coordinator, "waited", &waited).await;
    let reported =
        |class: &str| format!("redrive_failures_reported_total{{queue=\"writing\",class=\"{class}\"}}");
    assert_eq!(coordinator.metric(&reported("timeout")).await, 1, "the second was the same task");
    assert_eq!(coordinator.metric(&reported("lock_timeout")).await, 1);
    assert_eq!(counted(&coordinator, OPUS).await, (4, 2), "a lock that was not had is no call");

    let shown = run(&coordinator, &["tasks", "show", "waited"]).await;
    let charges = shown["charges"].as_array().unwrap();
    let of = |kind: &str| charges.iter().find(|one| one["kind"] == kind).unwrap();
    assert_eq!((&of("failed")["count"], &of("failed")["most"]), (&json!(1), &json!(5)), "{shown:#}");
    assert_eq!((&of("lock_waits")["count"], &of("lock_waits")["most"]), (&json!(1), &json!(20)));
    assert_eq!(of("lock_waits")["last_why"], "lock_timeout: lock_timeout");
    assert_eq!((&of("released")["most"], &of("lost")["most"]), (&json!(1_000), &json!(3)));
    let listed = run(&coordinator, &["tasks", "list"]).await;
    assert!(listed["tasks"].as_array().unwrap().iter().all(|task| task.get("charges").is_none()));
}

fn line(line: &Value) -> [&Value; 4] {
    ["route", "dependency", "end", "cost_usd"].map(|field| &line[field])
}
