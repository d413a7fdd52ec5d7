//! An operator isolates one of two workers and lets it back, with real processes.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use redrive_shared::breaker::BreakerState;
use redrive_shared::task::TaskState;
use redrive_shared::wire::{AgentStatus, EnqueueRequest, NewTask};
use redrive_worker::client::Client;
use serde_json::Value;
use tokio::process::Child;

use crate::support::process::{Coordinator, redrive, terminate};
use crate::support::redis::RedisServer;
use crate::support::wait::eventually;
use crate::support::{id, name};

const TASKS: usize = 20;
/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Exit code, stdout and stderr of `redrive breakers …`.
async fn breakers(coordinator: &Coordinator, arguments: &[&str]) -> (i32, String, String) {
    let mut command = redrive();
    command.args(["--url", &coordinator.url(), "breakers"]).args(arguments);
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A worker whose tasks take a moment; it runs `command` for each.
fn worker(coordinator: &Coordinator, agent: &str, directory: &Path, command: &str) -> Child {
    redrive()
        .args(["--url", &coordinator.url(), "worker", "--agent", agent, "--queues", "default"])
        .args(["--concurrency", "2", "--exec", command])
        .current_dir(directory)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Puts a batch on the queue and waits until all of it is done; returns how many of it each of two agents did.
async fn done_by(client: &Client, batch: &str) -> [usize; 2] {
    let ids: Vec<_> = (0..TASKS).map(|n| id(&format!("{batch}-{n}"))).collect();
    let tasks = ids.iter().map(|id| NewTask { id: Some(id.clone()), ..NewTask::default() }).collect();
    client.enqueue(&EnqueueRequest { tasks }).await.expect("taken");
    let mut by = [0, 0];
    for id in &ids {
        let task = client.task(id, Some(30_000)).await.expect("an answer");
        assert_eq!(task.state, TaskState::Succeeded, "{task:?}");
        assert_eq!(task.ledger.failed, 0, "no attempt is charged for what is handed back");
        let last = task.history.last().and_then(|attempt| attempt.agent.clone()).expect("somebody did it");
        by[usize::from(last == name("second"))] += 1;
    }
    by
}

async fn agents_are_there(client: &Client, count: usize) {
    let there = async || (client.agents().await.ok()?.agents.len() == count).then_some(());
    eventually("the agents are there", PATIENCE, there).await;
}

#[tokio::test]
async fn an_isolated_agent_takes_nothing_while_the_other_takes_all_until_it_is_closed_again() {
    let directory = tempfile::tempdir().unwrap();
    let redis = RedisServer::start().await;
    // Who takes the command and who hands it over need not be the same.
    let (taken_by, told_by) = (Coordinator::on(&redis.url()).await, Coordinator::on(&redis.url()).await);
    let _first = worker(&told_by, "first", directory.path(), "sleep 0.05");
    let mut second = worker(&told_by, "second", directory.path(), "sleep 0.05");
    let client = told_by.client();
    agents_are_there(&client, 2).await;
    let both = done_by(&client, "both").await;
    assert!(both.iter().all(|count| *count > 0), "{both:?}");

    let (code, out, said) =
        breakers(&taken_by, &["isolate", "second", "--reason", "its key was revoked"]).await;
    assert_eq!((code, out.as_str()), (0, "the breaker of agent second is isolated\n"), "{said}");
    assert_eq!(done_by(&client, "one").await, [TASKS, 0]);
    let (_, table, _) = breakers(&told_by, &[]).await;
    let row = table.lines().find(|line| line.starts_with("second")).expect("a row");
    assert!(row.contains("isolated") && row.contains("isolate: its key was revoked"), "{table}");

    let metrics = reqwest::get(format!("{}/metrics", told_by.url())).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("redrive_breaker_state{agent=\"second\",breaker=\"*\"} 3"), "{metrics}");

    // Isolated it stays: another process of the agent begins with it.
    terminate(&second);
    second.wait().await.unwrap();
    let _again = worker(&told_by, "second", directory.path(), "sleep 0.05");
    let isolated = async || {
        let all = client.breakers().await.ok()?.breakers;
        let mut second = all.into_iter().filter(|it| it.agent == name("second") && it.breaker == "*");
        let second = second.find(|it| it.status == AgentStatus::Alive && !it.pending)?;
        (second.snapshot?.state == BreakerState::Isolated).then_some(())
    };
    eventually("the new run is isolated", PATIENCE, isolated).await;
    assert_eq!(done_by(&client, "still-one").await, [TASKS, 0]);

    let (code, out, said) = breakers(&taken_by, &["--json", "close", "second"]).await;
    assert_eq!(code, 0, "{said}");
    let closed: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&closed["done"], &closed["command"]["action"]), (&Value::Bool(true), &Value::from("close")));
    let both = done_by(&client, "both-again").await;
    assert!(both.iter().all(|count| *count > 0), "{both:?}");
}

#[tokio::test]
async fn who_is_not_there_is_told_with_what_may_have_been_meant() {
    let directory = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(directory.path()).await;
    let (code, _, said) = breakers(&coordinator, &[]).await;
    assert!(code == 0 && said.contains("no agent has reported a breaker"), "{said}");
    let _worker = worker(&coordinator, "researcher", directory.path(), "true");
    agents_are_there(&coordinator.client(), 1).await;
    let (code, _, said) = breakers(&coordinator, &["isolate", "reseacher"]).await;
    assert_eq!(code, 1);
    assert!(said.contains("did you mean `researcher`?"), "{said}");
    let (code, out, _) = breakers(&coordinator, &["reset", "researcher", "--wait", "0s"]).await;
    assert_eq!((code, out.contains("will reset with the agent's next heartbeat")), (0, true), "{out}");
}
