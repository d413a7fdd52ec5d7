//! `redrive doctor`, and the coordinator that asks the same, as processes.

use std::time::Duration;

use serde_json::Value;

use crate::support::process::redrive;
use crate::support::redis::{AppendFsync, RedisOptions, RedisServer};

const PATIENCE: Duration = Duration::from_secs(60);

/// Exit code, stdout and stderr.
async fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output =
        tokio::time::timeout(PATIENCE, redrive().args(arguments).output()).await.expect("bounded").unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn verdict<'a>(report: &'a Value, check: &str) -> &'a str {
    let findings = report["findings"].as_array().unwrap();
    let finding = findings.iter().find(|finding| finding["check"] == check);
    finding.unwrap_or_else(|| panic!("no {check} in {report:#}"))["verdict"].as_str().unwrap()
}

#[tokio::test]
async fn the_doctor_tells_programs_and_people_and_its_exit_code_says_it_too() {
    let kept = RedisOptions::default().append_only(AppendFsync::Everysec).maxmemory_bytes(64 << 20);
    let (good, bad) = tokio::join!(RedisServer::with(kept), RedisServer::start());
    let (code, out, err) = run(&["--json", "doctor", "--store", &good.url()]).await;
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
    assert_eq!((code, verdict(&report, "persistence")), (Some(0), "ok"), "{report:#}");
    assert_ne!(report["verdict"], "refused");

    let (code, out, _) = run(&["--json", "doctor", "--store", &bad.url(), "--wait-replicas", "1"]).await;
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["verdict"]), (Some(1), &Value::from("refused")), "{report:#}");
    assert_eq!((verdict(&report, "persistence"), verdict(&report, "replication")), ("refused", "refused"));

    let (code, out, err) = run(&["doctor", "--store", &bad.url()]).await;
    assert_eq!((code, err.as_str()), (Some(1), ""), "{out}");
    assert!(out.contains("persistence  refused") && out.contains("CONFIG SET appendonly yes"), "{out}");

    let (code, out, _) = run(&["--json", "doctor", "--store", "redis://127.0.0.1:1"]).await;
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, verdict(&report, "connection")), (Some(1), "refused"));
    assert_eq!(run(&["doctor", "--store", "http://127.0.0.1"]).await.0, Some(2));
}

#[tokio::test]
async fn the_embedded_store_is_examined_without_being_made() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    let (code, out, _) = run(&["--json", "doctor", "--data-dir", data.to_str().unwrap()]).await;
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, verdict(&report, "directory")), (Some(0), "ok"), "{report:#}");
    assert!(!data.exists());
}

#[tokio::test]
async fn a_coordinator_does_not_start_on_what_loses_tasks_and_says_why() {
    let bad = RedisServer::with(RedisOptions::default().set("maxmemory-policy", "allkeys-random")).await;
    let (code, _, err) = run(&["coordinator", "--listen", "127.0.0.1:0", "--store", &bad.url()]).await;
    assert_eq!(code, Some(1));
    for part in ["eviction", "noeviction", "persistence", "CONFIG SET appendonly yes", "--allow-unsafe"] {
        assert!(err.contains(part), "{part} is not in: {err}");
    }
    assert_eq!(bad.command(&["DBSIZE"]).await, "0", "nothing was written");
    let mut allowed = redrive()
        .args(["--json", "coordinator", "--listen", "127.0.0.1:0", "--allow-unsafe", "--store", &bad.url()])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let ready = crate::support::process::ready_line(&mut allowed).await;
    assert!(ready["url"].is_string(), "{ready}");
}
