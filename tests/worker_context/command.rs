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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_cannot_be_asked_is_no_answer_and_its_secret_is_not_told() {
    let secret = "0123456789abcdef0123456789abcdef";
    for (arguments, code) in [
        (&["completed", "fetch"][..], 69),
        (&["step", "fetch", "--", "true"], 1),
        (&["checkpoint", "fetch"], 1),
        (&["lock", "--name", "report", "--", "true"], 1),
    ] {
        let mut command = redrive();
        command.env("REDRIVE_CONTEXT_URL", format!("http://127.0.0.1:1/{secret}")).args(arguments);
        let output = command.output().await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains("no answer from the worker: "), "{said}");
        assert!(!said.contains(secret) && !said.contains("redrive dev"), "{said}");
    }
}

const COMMANDS: &str = r#"
    cd "$SCENE"
    "$REDRIVE" step broken -- sh -c 'echo half; exit 7' > half; echo "broken $?" >> codes
    "$REDRIVE" step missing -- ./no-such-program; echo "missing $?" >> codes
    "$REDRIVE" completed broken; echo "completed $?" >> codes
    echo '{"row": 3}' | "$REDRIVE" checkpoint import --progress --pending import,mail; echo "checkpoint $?" >> codes
    "$REDRIVE" completed import; echo "completed $?" >> codes
    "$REDRIVE" step large -- sh -c 'head -c 67108865 /dev/zero | tr "\\0" x' 2> large; echo "large $?" >> codes
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
        [
            "broken 7",
            "missing 127",
            "completed 1",
            "checkpoint 0",
            "completed 1",
            "large 1",
            "malformed 1",
            "lock 0"
        ]
    );
    let large = std::fs::read_to_string(scene.path("large")).unwrap();
    assert!(
        large.contains("body_too_large") && large.contains("67108864 bytes"),
        "the worker's bound: {large}"
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
