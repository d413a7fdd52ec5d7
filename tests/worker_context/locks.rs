//! `redrive lock` in a handler: the lock is the attempt's, and what runs under it ends with it.

use std::path::Path;

use redrive_shared::task::TaskState;
use redrive_shared::wire::LockBreak;

use super::{PATIENCE, Scene, lines, made};
use crate::support::process::{exec_worker, kill_with_handlers};
use crate::support::wait::eventually;

impl Scene {
    /// Waits until nobody holds a lock.
    async fn unlocked(&self) {
        eventually("the lock is given back", PATIENCE, async || {
            self.client.locks().await.unwrap().locks.is_empty().then_some(())
        })
        .await;
    }

    /// Waits until the process is gone whose number a handler wrote there.
    async fn gone(&self, name: &str) {
        let pid = lines(&self.path(name)).remove(0);
        eventually("what ran under the lock is gone", PATIENCE, async || {
            (!Path::new("/proc").join(&pid).exists()).then_some(())
        })
        .await;
    }
}

/// The handler ends, and leaves behind what works under its lock.
const LEAVES: &str = r#"
    "$REDRIVE" lock --name report --ttl 1h -- sh -c '
        (trap "" TERM; exec sleep 1000) & echo $! > "$SCENE/pid"; touch "$SCENE/held"; wait
    ' &
    while [ ! -e "$SCENE/held" ]; do sleep 0.05; done
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_works_under_a_lock_ends_with_the_handler_and_the_lock_is_given_back() {
    let scene = Scene::new().await;
    let task = scene.enqueue("leaves").await;
    let _worker = exec_worker(&scene.coordinator.url(), "worker", LEAVES, &scene.settings());
    assert_eq!(scene.ended(&task).await.state, TaskState::Succeeded);
    scene.gone("pid").await;
    scene.unlocked().await;
}

/// `timeout` makes a group of its own, which the worker's signals do not reach.
const OUT_OF_REACH: &str = r#"
    if [ -e "$SCENE/held" ]; then exit 0; fi
    timeout 1000 "$REDRIVE" lock --name report --ttl 3s -- sh -c 'echo $$ > "$SCENE/pid"; touch "$SCENE/held"; exec sleep 1000'
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_whose_lock_is_lost_is_stopped_out_of_the_workers_reach_too() {
    let scene = Scene::new().await;
    let task = scene.enqueue("report").await;
    let _worker = exec_worker(&scene.coordinator.url(), "worker", OUT_OF_REACH, &scene.settings());
    made(&scene.path("held")).await;
    let held = scene.client.locks().await.unwrap().locks.remove(0);
    scene.client.break_lock(&LockBreak { token: held.token, reason: None }).await.unwrap();
    scene.gone("pid").await;
    let view = scene.ended(&task).await;
    assert_eq!((view.state, view.ledger.lock_waits), (TaskState::Succeeded, 1), "{view:?}");
    assert_eq!((view.ledger.failed, view.ledger.lost), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_ends_when_the_worker_that_renews_its_lock_is_gone() {
    let scene = Scene::new().await;
    scene.enqueue("report").await;
    let mut worker = exec_worker(&scene.coordinator.url(), "worker", OUT_OF_REACH, &scene.settings());
    made(&scene.path("held")).await;
    // The worker alone: its handlers go on.
    worker.start_kill().unwrap();
    scene.gone("pid").await;
}

/// The second attempt asks for what the first one held.
const AGAIN: &str = r#"
    if [ ! -e "$SCENE/held" ]; then
        "$REDRIVE" lock --name report --ttl 1h -- sh -c 'touch "$SCENE/held"; sleep 1000'; exit
    fi
    "$REDRIVE" lock --name report -- true; echo "at once $?" >> "$SCENE/codes"
    "$REDRIVE" lock --name report --wait 30s -- true; echo "after its rest $?" >> "$SCENE/codes"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_attempt_waits_for_the_rest_of_a_lock_and_not_for_its_end() {
    let scene = Scene::new().await;
    let task = scene.enqueue("report").await;
    let mut first = exec_worker(&scene.coordinator.url(), "first", AGAIN, &scene.settings());
    made(&scene.path("held")).await;
    kill_with_handlers(&mut first).await;
    let _second = exec_worker(&scene.coordinator.url(), "second", AGAIN, &scene.settings());
    assert_eq!(scene.ended(&task).await.state, TaskState::Succeeded);
    assert_eq!(lines(&scene.path("codes")), ["at once 75", "after its rest 0"]);
}
