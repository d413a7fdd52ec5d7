//! What a handler relied on is lost: its lock, or its lease.

use redrive_shared::failure::FailureClass;
use redrive_shared::task::{AttemptEnd, TaskState};
use redrive_shared::wire::LockBreak;

use super::{PATIENCE, Scene, lines, made};
use crate::support::process::{exec_worker, resume, suspend, terminate};
use crate::support::wait::eventually;

/// The first attempt holds a lock, and works under it until it is stopped.
const LOCKED: &str = r#"
    curl -sSf --data '{"exclusive": ["report.md"], "wait_ms": 20000}' "$REDRIVE_CONTEXT_URL/locks" >> "$SCENE/grants" || exit 75
    echo >> "$SCENE/grants"
    if [ ! -e "$SCENE/held" ]; then touch "$SCENE/held"; sleep 1000; fi
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_whose_lock_is_lost_is_stopped_and_charged_a_wait() {
    let scene = Scene::new().await;
    let task = scene.enqueue("report").await;
    let _worker = exec_worker(&scene.coordinator.url(), "first", LOCKED, &scene.settings());
    made(&scene.path("held")).await;
    let held = scene.client.locks().await.unwrap().locks.remove(0);
    scene.client.break_lock(&LockBreak { token: held.token, reason: None }).await.unwrap();
    let view = scene.ended(&task).await;
    assert_eq!(view.state, TaskState::Succeeded, "{view:?}");
    assert_eq!((view.ledger.lock_waits, view.ledger.failed, view.ledger.lost), (1, 0, 0));
    let failure = view.history[0].failure.as_ref().unwrap();
    assert_eq!((view.history[0].end, failure.class), (AttemptEnd::Failed, FailureClass::LockTimeout));
    assert_eq!(lines(&scene.path("grants")).len(), 2);
    eventually("what the second attempt held is given back", PATIENCE, async || {
        scene.client.locks().await.unwrap().locks.is_empty().then_some(())
    })
    .await;
}

/// Nobody writes any more: its group is gone. So nobody has to wait for the lock's time, or for the rest after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_stopped_gives_its_lock_back() {
    let scene = Scene::new().await;
    scene.enqueue("report").await;
    let mut settings = scene.settings();
    settings.push(("REDRIVE__WORKER__DRAIN_MS", "200".to_owned()));
    let mut worker = exec_worker(&scene.coordinator.url(), "first", LOCKED, &settings);
    made(&scene.path("held")).await;
    assert_eq!(scene.client.locks().await.unwrap().locks.len(), 1);
    terminate(&worker);
    worker.wait().await.unwrap();
    assert!(scene.client.locks().await.unwrap().locks.is_empty());
}

/// The first attempt saves when it is told to, and writes what came of it.
const SLEEPER: &str = r#"
    if [ -e "$SCENE/held" ]; then "$REDRIVE" step write -- echo second; exit; fi
    touch "$SCENE/held"
    trap '' TERM
    while [ ! -e "$SCENE/go" ]; do sleep 0.05; done
    curl -sS -X PUT --data '"first"' -o "$SCENE/answer" "$REDRIVE_CONTEXT_URL/steps/write"
    touch "$SCENE/answered"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_slept_past_its_lease_saves_nothing() {
    let scene = Scene::new().await;
    let task = scene.enqueue("report").await;
    let mut settings = scene.settings();
    settings.push(("REDRIVE__WORKER__LEASE_MS", "1500".to_owned()));
    let sleeper = exec_worker(&scene.coordinator.url(), "sleeper", SLEEPER, &settings);
    made(&scene.path("held")).await;
    suspend(&sleeper);
    let _heir = exec_worker(&scene.coordinator.url(), "heir", SLEEPER, &scene.settings());
    let view = scene.ended(&task).await;
    assert_eq!(view.state, TaskState::Succeeded, "{view:?}");
    // Its handler runs on, and asks a worker that is not there; the question waits in its socket.
    std::fs::write(scene.path("go"), "").unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    resume(&sleeper);
    // The worker refuses it, or ends the handler before it can ask: either way nothing is saved.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let answer = std::fs::read_to_string(scene.path("answer")).unwrap_or_default();
    assert!(!answer.contains("\"seq\""), "{answer}");
    let steps = scene.client.progress(&task).await.unwrap();
    assert_eq!(steps.seq, 1);
    assert_eq!(steps.steps[0].state.as_ref().unwrap().get(), r#""second\n""#);
}
