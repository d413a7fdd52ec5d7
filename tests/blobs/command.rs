//! Storage of blobs on the command line: what a coordinator and the doctor are told, and say.

use std::time::Duration;

use serde_json::Value;

use super::bed::Place;
use crate::support::process::redrive;

const PATIENCE: Duration = Duration::from_secs(60);

/// Exit code, and everything that was said.
async fn run(variable: (&str, &str), arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = redrive();
    let running = command.env(variable.0, variable.1).args(arguments).output();
    let output = tokio::time::timeout(PATIENCE, running).await.expect("bounded").unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

const URL: &str = "REDRIVE__COORDINATOR__BLOBS__URL";

#[tokio::test]
async fn the_doctor_says_where_blobs_are_and_whether_it_answers() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data").to_str().unwrap().to_owned();
    let doctor = ["--json", "doctor", "--data-dir", &data];
    let (code, said) = run((URL, ""), &doctor).await;
    let report: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (code, report["blobs"]["at"].as_str().unwrap()),
        (Some(0), format!("files:{data}/blobs").as_str())
    );
    assert!(!scratch.path().join("data").exists(), "it changes nothing");

    let place = Place::postgres().await;
    let (code, said) = run((URL, &place.address("redrive")), &doctor).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("PostgreSQL ") && said.contains("fsync is off"), "{said}");

    let (code, said) = run((URL, "postgres://me:hidden@127.0.0.1:1/b"), &doctor).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("does not answer") && !said.contains("hidden"), "{said}");
}

#[tokio::test]
async fn a_coordinator_does_not_start_without_its_blobs_and_says_why() {
    for (variable, value, code, says) in [
        (URL, "files:/proc/nowhere", 1, "cannot keep blobs at files:/proc/nowhere"),
        (
            URL,
            "postgres://me:hidden@127.0.0.1:1/b",
            1,
            "cannot keep blobs at postgres://me:***@127.0.0.1:1/b",
        ),
        (URL, "s4://bucket", 2, "did you mean `s3`?"),
        ("REDRIVE__COORDINATOR__BLOBS__MAX_BYTES", "0", 2, "max_bytes is from 1"),
        ("REDRIVE__COORDINATOR__BLOBS__SWEEP_EVERY_MS", "5", 2, "sweep_every_ms is from 1000"),
    ] {
        let (ended, said) =
            run((variable, value), &["coordinator", "--in-memory", "--listen", "127.0.0.1:0"]).await;
        assert_eq!(ended, Some(code), "{said}");
        assert!(said.contains(says) && !said.contains("hidden"), "{said}");
    }
}
