//! Consumers in Python: the documented example, and one that knows nothing of Redrive.

use std::path::Path;
use std::process::Stdio;

use redrive_coordinator::amqp::Republish;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use super::{Bench, PATIENCE, republish, room};
use crate::support::python::python;

/// A script that has said that it is ready, and what it says then.
async fn start(script: &str, arguments: &[&str], url: &str) -> (Child, Lines<BufReader<ChildStdout>>) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(script);
    let mut child =
        python().arg(script).args(arguments).env("AMQP_URL", url).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(line(&mut lines).await, "ready");
    (child, lines)
}

async fn line(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().expect("a line before it ends")
}

#[tokio::test]
async fn the_documented_worker_does_its_tasks() {
    let bench = Bench::pushing([("letters", room(10))]).await;
    let _worker = start("docs/examples/amqp_worker.py", &["letters"], &bench.rabbit.url()).await;
    let again = json!({ "to": "you", "fail_until_attempt": 2 });
    let tasks = json!([
        { "id": "good", "queue": "letters", "payload": { "to": "me" } },
        { "id": "again", "queue": "letters", "payload": again },
        { "id": "wrong", "queue": "letters", "payload": {}, "max_attempts": 1 },
    ]);
    bench.enqueue(tasks).await;
    assert_eq!(bench.task_in("good", "succeeded").await["result"], json!({ "sent_to": "me" }));
    let task = bench.task_in("again", "succeeded").await;
    assert_eq!((&task["ledger"]["failed"], &task["last_failure"]["class"]), (&json!(1), &json!("network")));
    let task = bench.task_in("wrong", "escalated").await;
    assert!(task["last_failure"]["message"].as_str().unwrap().contains("KeyError"), "{task}");
}

#[tokio::test]
async fn a_consumer_that_knows_nothing_of_redrive_gets_its_retries() {
    let (bench, consumer) = republish::bench(Republish::Exchange, 5).await;
    drop(consumer);
    let url = bench.rabbit.url();
    let (_orders, mut lines) = start("tests/amqp/orders.py", &[&url], &url).await;
    bench.peer.publish("", "orders", b"3 apples", republish::order()).await;
    assert_eq!(line(&mut lines).await, "order-1 text/plain 3 apples");
    let task = bench.task_in("orders/order-1", "handed_off").await;
    assert_eq!((&task["ledger"]["failed"], &task["runs"]), (&json!(2), &json!(2)));
}
