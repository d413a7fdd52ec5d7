//! The commands that handlers in shell use.

use redrive_shared::lock::Owner;
use redrive_shared::task::TaskState;
use redrive_shared::wire::LocksReply;

use super::{Scene, lines};
use crate::support::process::{exec_worker, redrive};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outside_a_handler_they_say_so() {
    for arguments in [&["step", "fetch", "--", "true"][..], &["checkpoint", "fetch"], &["completed", "fetch"]]
    {
        let output = redrive().env_remove("REDRIVE_CONTEXT_URL").args(arguments).output().await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains("this command is for handlers"), "{said}");
    }
}

const COMMANDS: &str = r#"
    cd "$SCENE"
    "$REDRIVE" step broken -- sh -c 'echo half; exit 7' > half; echo "broken $?" >> codes
    "$REDRIVE" step missing -- ./no-such-program; echo "missing $?" >> codes
    "$REDRIVE" completed broken; echo "completed $?" >> codes
    echo '{"row": 3}' | "$REDRIVE" checkpoint import --progress --pending import,mail; echo "checkpoint $?" >> codes
    "$REDRIVE" completed import; echo "completed $?" >> codes
    echo '{"row": ' | "$REDRIVE" checkpoint import; echo "malformed $?" >> codes
    "$REDRIVE" lock --name deploy -- "$REDRIVE" locks list --json > locks; echo "lock $?" >> codes
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_handler_they_hand_on_what_came_of_it() {
    let scene = Scene::new().await;
    let task = scene.enqueue("commands").await;
    let _worker = exec_worker(&scene.coordinator.url(), "worker", COMMANDS, &scene.settings());
    let view = scene.ended(&task).await;
    assert_eq!(view.state, TaskState::Succeeded, "{view:?}");
    assert_eq!(
        lines(&scene.path("codes")),
        ["broken 7", "missing 127", "completed 1", "checkpoint 0", "completed 1", "malformed 1", "lock 0"]
    );
    assert_eq!(lines(&scene.path("half")), ["half"]);
    let progress = scene.client.progress(&task).await.unwrap();
    let steps: Vec<_> = progress.steps.iter().map(|step| (&*step.step, step.completed)).collect();
    assert_eq!(steps, [("import", false)]);
    assert_eq!(progress.pending.len(), 2);
    let locks = std::fs::read_to_string(scene.path("locks")).unwrap();
    let locks: LocksReply = serde_json::from_str(&locks).unwrap();
    assert!(
        matches!(&locks.locks[0].owner, Owner::Attempt { task: owner, epoch } if *owner == task && *epoch > 0),
        "{locks:?}"
    );
}
