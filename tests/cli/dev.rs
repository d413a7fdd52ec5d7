//! `redrive dev`, with and without `--demo`.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::support::process::{ready_line, redrive, terminate};

/// The demo is bounded at 45 s by itself.
const DEMO_PATIENCE: Duration = Duration::from_secs(90);

#[tokio::test]
async fn the_demo_balances_its_books_and_leaves_nothing_behind() {
    let scratch = tempfile::tempdir().unwrap();
    let run = redrive().args(["--json", "dev", "--demo"]).env("TMPDIR", scratch.path()).output();
    let output = tokio::time::timeout(DEMO_PATIENCE, run).await.expect("bounded").unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no report: {said}"));
    assert_eq!(output.status.code(), Some(0), "{report:#}\n{said}");
    let books = &report["books"];
    let count = |name: &str| books[name].as_u64().unwrap_or_else(|| panic!("no {name} in {report:#}"));
    let ended: u64 = ["succeeded", "dead", "escalated", "cancelled", "waiting"].into_iter().map(count).sum();
    assert_eq!(count("enqueued"), ended);
    assert!(count("recovered") > 250 && count("first_try") > 100 && count("dead") >= 10, "{report:#}");
    assert_eq!(count("cancelled"), 1);
    assert_eq!(books["crash"]["tasks"], books["crash"]["again"], "what the crash cut off ran again");
    assert!(books["crash"]["tasks"].as_u64() >= Some(1), "the crash found nothing to cut off");
    assert_eq!((&books["overlapping_leases"], &books["overlapping_calls"]), (&0.into(), &0.into()));
    assert!(report["breaker_openings"]["agents"].as_u64() >= Some(1), "the outage opened no breaker");
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "it leaves files behind");
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
    let curl = tokio::process::Command::new("curl")
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
