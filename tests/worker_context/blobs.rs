//! Payloads, states and results that are too large for the store.

use redrive_shared::task::TaskState;
use redrive_shared::wire::{EnqueueRequest, NewTask};

use super::{Scene, lines};
use crate::support::id;
use crate::support::process::exec_worker;

const MIB: usize = 1024 * 1024;

/// Saves a state of 50 MiB, fails, and reads it back in the next attempt.
const LARGE_STATE: &str = r#"
    "$REDRIVE" step fetch -- sh -c 'echo fetch >> $SCENE/log; head -c 52428800 /dev/zero | tr "\0" x' | sha256sum >> "$SCENE/sums"
    if [ ! -e "$SCENE/failed" ]; then touch "$SCENE/failed"; exit 75; fi
    "$REDRIVE" completed fetch | sha256sum >> "$SCENE/sums"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_of_50_mib_comes_back_as_it_was() {
    let scene = Scene::new().await;
    let task = scene.enqueue("large").await;
    let _worker = exec_worker(&scene.coordinator.url(), "worker", LARGE_STATE, &scene.settings());
    let view = scene.ended(&task).await;
    assert_eq!((view.state, view.ledger.failed), (TaskState::Succeeded, 1), "{view:?}");
    let sums = lines(&scene.path("sums"));
    assert_eq!(sums.len(), 3);
    assert!(sums.iter().all(|sum| *sum == sums[0]), "{sums:?}");
    assert_eq!(lines(&scene.path("log")), ["fetch"]);
    let step = &scene.client.progress(&task).await.unwrap().steps[0];
    assert_eq!(step.state_ref.unwrap().bytes as usize, 50 * MIB + 2);
}

/// Gives its payload back, from standard input and from its context.
const ECHO: &str = r#"
    cat > "$SCENE/document"
    curl -sS "$REDRIVE_CONTEXT_URL/payload"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_payload_arrives_whole_and_a_large_result_goes_back() {
    let scene = Scene::new().await;
    let payload = format!("{{\"text\": \"{}\"}}", "y".repeat(3 * MIB));
    let task = id("echo");
    let contents = std::io::Cursor::new(payload.clone().into_bytes());
    let blob = scene.client.upload_blob(&task, contents).await.unwrap();
    let new = NewTask { id: Some(task.clone()), payload_ref: Some(blob), ..NewTask::default() };
    scene.client.enqueue(&EnqueueRequest { tasks: vec![new] }).await.unwrap();
    let _worker = exec_worker(&scene.coordinator.url(), "worker", ECHO, &scene.settings());
    let view = scene.ended(&task).await;
    assert_eq!(view.state, TaskState::Succeeded, "{view:?}");
    let result = view.result_ref.expect("a reference");
    assert!(result.same_contents(&blob));
    let whole = scene.client.download_blob(&task, &result).await.unwrap().whole().await.unwrap();
    assert!(whole == payload.as_bytes());
    let document = std::fs::read_to_string(scene.path("document")).unwrap();
    assert!(document.contains(&format!("\"payload\":{payload}")));
}
