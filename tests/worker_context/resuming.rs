//! What an attempt has saved is not done again by the next.

use std::sync::Arc;

use async_trait::async_trait;
use redrive_shared::task::{Lease, TaskState};
use redrive_shared::wire::Outcome;
use redrive_worker::client::Client;
use redrive_worker::link::HttpLink;
use redrive_worker::{Handler, TaskContext, WorkerConfig};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Scene, lines, made};
use crate::support::process::{exec_worker, kill_with_handlers};

/// Three steps; the first attempt hangs before the third.
const THREE_STEPS: &str = r#"
    "$REDRIVE" step one --pending two,three -- sh -c 'echo one >> $SCENE/log; echo 1' || exit
    two=$("$REDRIVE" step two -- sh -c 'echo two >> $SCENE/log; echo "{\"from\": \"two\"}"') || exit
    if [ ! -e "$SCENE/held" ]; then touch "$SCENE/held"; sleep 1000; fi
    "$REDRIVE" step three -- sh -c 'echo three >> $SCENE/log' || exit
    [ "$("$REDRIVE" completed one)" = 1 ] || exit 65
    printf '{"result": %s}' "$two"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_handlers_next_attempt_does_the_third_step_only() {
    let scene = Scene::new().await;
    let task = scene.enqueue("report").await;
    let mut first = exec_worker(&scene.coordinator.url(), "first", THREE_STEPS, &scene.settings());
    made(&scene.path("held")).await;
    let document = scene.client.progress_document(&task).await.unwrap();
    assert_eq!(document.status, "in_progress");
    assert_eq!(document.completed_steps.iter().map(|step| &**step).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(document.pending_steps.iter().map(|step| &**step).collect::<Vec<_>>(), ["three"]);
    kill_with_handlers(&mut first).await;
    let _second = exec_worker(&scene.coordinator.url(), "second", THREE_STEPS, &scene.settings());
    let view = scene.ended(&task).await;
    assert_eq!((view.state, view.ledger.lost), (TaskState::Succeeded, 1), "{view:?}");
    assert_eq!(view.result.unwrap().get(), r#"{"from": "two"}"#);
    assert_eq!(lines(&scene.path("log")), ["one", "two", "three"], "each once");
}

/// The same in Rust.
struct ThreeSteps {
    scene: std::path::PathBuf,
    hangs: bool,
    held: Notify,
}

impl ThreeSteps {
    fn log(&self, step: &str) -> u32 {
        use std::io::Write as _;
        let mut log =
            std::fs::File::options().create(true).append(true).open(self.scene.join("log")).unwrap();
        writeln!(log, "{step}").unwrap();
        step.len() as u32
    }

    async fn work(&self, ctx: &TaskContext) -> Result<u32, Outcome> {
        ctx.plan(&["one", "two", "three"])?;
        let one: u32 = ctx.step("one", || async { Ok::<_, Outcome>(self.log("one")) }).await?;
        let two: u32 = ctx.step("two", || async { Ok::<_, Outcome>(self.log("two")) }).await?;
        if self.hangs {
            self.held.notify_one();
            std::future::pending::<()>().await;
        }
        let three: u32 = ctx.step("three", || async { Ok::<_, Outcome>(self.log("three")) }).await?;
        Ok(one + two + three)
    }
}

#[async_trait]
impl Handler for ThreeSteps {
    async fn run(&self, _task: &Lease, ctx: &TaskContext) -> Outcome {
        match self.work(ctx).await {
            Ok(sum) => Outcome::done(serde_json::value::to_raw_value(&sum).ok()),
            Err(outcome) => outcome,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rust_handlers_next_attempt_does_the_third_step_only() {
    let scene = Scene::new().await;
    let task = scene.enqueue("report").await;
    let handler =
        |hangs| Arc::new(ThreeSteps { scene: scene.scratch.path().to_owned(), hangs, held: Notify::new() });
    let start = |agent: &str, handler: &Arc<ThreeSteps>| {
        let agent = crate::support::name(agent);
        let config = WorkerConfig { url: scene.coordinator.url(), agent, ..WorkerConfig::default() };
        let link = Arc::new(HttpLink::new(Client::new(&config.url).unwrap()));
        tokio::spawn(redrive_worker::run(
            config,
            Arc::clone(handler) as Arc<dyn Handler>,
            link,
            CancellationToken::new(),
        ))
    };
    let (hanging, whole) = (handler(true), handler(false));
    let first = start("first", &hanging);
    hanging.held.notified().await;
    // Dropped with all that it holds open, as by a kill.
    first.abort();
    let second = start("second", &whole);
    let view = scene.ended(&task).await;
    second.abort();
    assert_eq!((view.state, view.ledger.lost), (TaskState::Succeeded, 1), "{view:?}");
    assert_eq!(view.result.unwrap().get(), "11");
    assert_eq!(lines(&scene.path("log")), ["one", "two", "three"], "each once");
}
