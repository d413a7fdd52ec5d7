//! Progress and large payloads at the command line.

use redrive_shared::wire::CheckpointRequest;
use serde_json::{Value, json};

use crate::support::process::{Coordinator, redrive};
use crate::support::{fast_directory, id, name, raw};

/// Exit code, stdout and stderr of `redrive …`.
async fn run(coordinator: &Coordinator, arguments: &[&str]) -> (i32, String, String) {
    let call = redrive().args(["--url", &coordinator.url()]).args(arguments).output();
    let output = call.await.expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}

async fn body(coordinator: &Coordinator, path: &str) -> String {
    let answer = reqwest::get(format!("{}{path}", coordinator.url())).await.expect("an answer");
    answer.text().await.expect("a body")
}

#[tokio::test]
async fn progress_is_a_table_for_people_and_the_document_for_machines() {
    let directory = fast_directory();
    let coordinator = Coordinator::start(directory.path()).await;
    let client = coordinator.client();
    assert_eq!(run(&coordinator, &["enqueue", "--id", "t"]).await.0, 0);
    let (code, shown, _) = run(&coordinator, &["tasks", "progress", "t"]).await;
    assert_eq!((code, shown.as_str()), (0, "t  in_progress: nothing saved yet\n"));
    let asked = json!({"agent": "w", "queues": ["default"], "max": 1, "wait_ms": 20_000});
    let leases: Value = client.post(&["v1", "claims"], &asked, 20_000).await.expect("an answer");
    let lease = &leases["leases"][0];
    let checkpoint = |seq: u64, step: &str, completed: bool, state: Option<&str>| CheckpointRequest {
        epoch: lease["epoch"].as_i64().unwrap(),
        nonce: serde_json::from_value(lease["nonce"].clone()).unwrap(),
        seq,
        step: name(step),
        completed,
        state: state.map(raw),
        state_ref: None,
        pending: Some(["parse", "write"].map(name).to_vec()),
    };
    for checkpoint in [
        checkpoint(1, "fetch", true, Some("{\"rows\": 1200}")),
        checkpoint(2, "parse", false, Some(&format!("\"{}\"", "x".repeat(20 * 1024)))),
    ] {
        client.save_checkpoint(&id("t"), &checkpoint).await.expect("it is saved");
    }
    let (_, shown, _) = run(&coordinator, &["tasks", "progress", "t"]).await;
    let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(shown.starts_with("t  in_progress: 1 step done, 1 begun, 1 to come; saved "), "{shown}");
    assert_eq!(lines[1], ["STEP", "DONE", "SEQ", "SAVED", "SIZE"], "{shown}");
    assert_eq!((lines[2][..3].to_vec(), lines[2].last()), (vec!["fetch", "yes", "1"], Some(&"B")), "{shown}");
    assert_eq!(
        (lines[3][..3].to_vec(), lines[3].last()),
        (vec!["parse", "begun", "2"], Some(&"KiB")),
        "{shown}"
    );
    assert_eq!(lines[4], ["write", "to", "come", "-", "-", "-"], "{shown}");
    let (_, states, _) = run(&coordinator, &["tasks", "progress", "t", "--steps"]).await;
    assert!(states.contains("{\"rows\": 1200}") && states.contains("  blob "), "{states}");

    let (_, document, _) = run(&coordinator, &["tasks", "progress", "t", "--json"]).await;
    assert_eq!(document.trim_end(), body(&coordinator, "/v1/tasks/t/checkpoint").await);
    let (_, steps, _) = run(&coordinator, &["tasks", "progress", "t", "--steps", "--json"]).await;
    assert_eq!(steps.trim_end(), body(&coordinator, "/v1/tasks/t/steps").await);
    let (_, shown, _) = run(&coordinator, &["tasks", "show", "t"]).await;
    assert!(
        shown.contains("1 step done, 1 begun") && shown.contains("(redrive tasks progress t)"),
        "{shown}"
    );
    let (code, _, said) = run(&coordinator, &["tasks", "progress", "nobody"]).await;
    assert_eq!(code, 1);
    assert!(said.contains("unknown_task"), "{said}");
}

#[tokio::test]
async fn a_large_payload_is_uploaded_by_itself_and_is_the_same_when_it_comes_again() {
    let directory = fast_directory();
    let coordinator = Coordinator::start(directory.path()).await;
    let file = directory.path().join("large.json");
    std::fs::write(&file, format!("{{\"text\": \"{}\"}}\n", "x".repeat(1024 * 1024))).unwrap();
    let payload = format!("@{}", file.display());
    let arguments = ["enqueue", "--id", "t", "--payload", &payload];
    let (code, shown, said) = run(&coordinator, &arguments).await;
    assert!(code == 0 && shown.starts_with("t created, scheduled"), "{shown} {said}");
    assert!(said.contains("uploaded as a blob of 1.00 MiB"), "{said}");
    let (code, shown, _) = run(&coordinator, &arguments).await;
    assert!(code == 0 && shown.starts_with("t there already, scheduled"), "{shown}");
    let task = coordinator.client().task(&id("t"), None).await.expect("it is there");
    let blob = task.payload_ref.expect("it is a blob");
    assert_eq!(blob.bytes, 1024 * 1024 + "{\"text\": \"\"}".len() as u64);
    let whole = coordinator.client().download_blob(&id("t"), &blob).await.expect("it is there");
    let whole = whole.whole().await.expect("whole");
    assert_eq!(whole, std::fs::read_to_string(&file).unwrap().trim().as_bytes(), "byte for byte");
}
