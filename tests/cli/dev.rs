//! `redrive dev`, with and without `--demo`.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::process::Command;

use crate::support::port::Port;
use crate::support::process::{ready_line, redrive, terminate};
use crate::support::rabbit::{SharedRabbit, shared};
use crate::support::wait::eventually;

/// The demo is bounded at 45 s by itself.
const DEMO_PATIENCE: Duration = Duration::from_secs(90);
/// For what takes seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pushed and turn queues of three queues, outcomes, ingress, rejected.
const DEMO_QUEUES: &str = "9";

#[tokio::test]
async fn the_demo_balances_its_books_and_leaves_nothing_behind() {
    balanced(demo(&[]), false).await;
}

#[tokio::test]
async fn the_demo_pushed_over_rabbitmq_balances_its_books_and_leaves_nothing_there() {
    let rabbit = shared().await;
    balanced(demo(&["--amqp", &rabbit.url()]), true).await;
    let (queues, exchanges) = (names(&rabbit, "list_queues").await, names(&rabbit, "list_exchanges").await);
    assert!(queues.is_empty(), "{queues:?}");
    let left: Vec<_> = exchanges.iter().filter(|name| !name.starts_with("amq.")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn the_demo_leaves_nothing_in_rabbitmq_when_it_is_interrupted() {
    let rabbit = shared().await;
    let child =
        demo(&["--amqp", &rabbit.url()]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let count = format!("length(rabbit_amqqueue:list_names(<<\"{}\">>)).", rabbit.vhost());
    let counted = async |wanted: &str| (rabbit.evaluate(&count).await == wanted).then_some(());
    eventually("its queues are there", PATIENCE, async || counted(DEMO_QUEUES).await).await;
    terminate(&child);
    let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("interrupted"), "{said}");
    assert_eq!(rabbit.evaluate(&count).await, "0");
}

#[tokio::test]
async fn without_its_rabbitmq_the_demo_says_so_at_once_and_keeps_the_password_to_itself() {
    // Nobody listens there.
    let port = Port::free();
    let url = format!("amqp://someone:hunter2@127.0.0.1:{}", port.number());
    let begun = Instant::now();
    let output = demo(&["--amqp", &url]).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{said}");
    let shown = format!("amqp://someone:***@127.0.0.1:{}", port.number());
    for part in [shown.as_str(), "start RabbitMQ there", "leave out --amqp"] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    assert!(!said.contains("hunter2"), "{said}");
}

#[tokio::test]
async fn what_the_demo_pushes_is_not_for_its_user_to_say() {
    let output = demo(&["--amqp", "amqp://127.0.0.1", "--push", "letters"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("leave out --push"));
}

fn demo(arguments: &[&str]) -> Command {
    let mut command = redrive();
    command.args(["--json", "dev", "--demo"]).args(arguments);
    command
}

/// Plays a demo to its end, and checks what must hold however its workers get their work.
async fn balanced(mut demo: Command, pushed: bool) {
    let scratch = tempfile::tempdir().unwrap();
    let run = demo.env("TMPDIR", scratch.path()).output();
    let output = tokio::time::timeout(DEMO_PATIENCE, run).await.expect("bounded").unwrap();
    let report = report(&output);
    assert_eq!(report["pushed"], pushed);
    let books = &report["books"];
    let count = |name: &str| books[name].as_u64().unwrap_or_else(|| panic!("no {name} in {report:#}"));
    let ended: u64 = ["succeeded", "dead", "escalated", "cancelled", "waiting"].into_iter().map(count).sum();
    assert_eq!(count("enqueued"), ended);
    assert!(count("recovered") > 250 && count("first_try") > 100 && count("dead") >= 10, "{report:#}");
    assert_eq!(count("cancelled"), 1);
    assert_eq!(books["crash"]["tasks"], books["crash"]["again"], "what the crash cut off ran again");
    assert!(books["crash"]["tasks"].as_u64() >= Some(1), "the crash found nothing to cut off");
    assert_eq!((&books["overlapping_leases"], &books["overlapping_calls"]), (&0.into(), &0.into()));
    assert!(books["work_lateness_ms"]["claims"].as_u64() > Some(300), "the upstream saw the calls");
    assert!(report["breaker_openings"]["agents"].as_u64() >= Some(1), "the outage opened no breaker");
    assert_eq!(files_in(scratch.path()), 0, "it leaves files behind");
}

fn report(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no report: {said}"));
    assert_eq!(output.status.code(), Some(0), "{report:#}\n{said}");
    report
}

fn files_in(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

/// What `rabbitmqctl` lists in the virtual host of a test.
async fn names(rabbit: &SharedRabbit, what: &str) -> Vec<String> {
    let listed = rabbit.ctl(&[what, "--vhost", rabbit.vhost(), "--no-table-headers", "name"]).await;
    listed.lines().filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[tokio::test]
async fn dev_is_ready_says_where_and_stops_cleanly() {
    let scratch = tempfile::tempdir().unwrap();
    let mut child = redrive()
        .args(["--json", "dev", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(scratch.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let ready = ready_line(&mut child).await;
    let url = ready["url"].as_str().unwrap().to_owned();
    assert!(ready["ready_ms"].as_f64().is_some(), "{ready}");
    assert_eq!(ready["data_dir"].as_str().unwrap(), scratch.path().to_str().unwrap());
    // As the pasteable curl does: a failure, into a queue that nobody made.
    let body = r#"{"tasks": [{"queue": "reports", "attempts_made": 1, "failure": {"http_status": 503}}]}"#;
    let curl = Command::new("curl")
        .args(["-sS", "-H", "content-type: application/json", "-d", body, &format!("{url}/v1/tasks")])
        .output()
        .await
        .expect("curl is needed");
    let reply: Value = serde_json::from_slice(&curl.stdout).unwrap();
    assert_eq!(reply["results"][0]["status"], "created", "{reply}");
    terminate(&child);
    let status = tokio::time::timeout(Duration::from_secs(20), child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn dev_pushes_as_a_coordinator_does() {
    let rabbit = shared().await;
    let mut child = redrive()
        .args(["--json", "dev", "--listen", "127.0.0.1:0", "--in-memory", "--push", "letters", "--amqp"])
        .arg(rabbit.url())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let ready = ready_line(&mut child).await;
    let shown = ready["amqp"].as_str().unwrap();
    assert!(shown.contains(":***@") && shown.contains(rabbit.vhost()), "{ready}");
    let queues = names(&rabbit, "list_queues").await;
    assert!(queues.iter().any(|name| name == "redrive.q.letters"), "{queues:?}");
    terminate(&child);
    let status = tokio::time::timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
}
