//! An agent whose tasks take its workers with them.

use redrive_shared::breaker::BreakerState;
use redrive_shared::id::TaskId;
use redrive_shared::task::AttemptEnd;
use redrive_shared::wire::{AgentStatus, EnqueueRequest, NewTask, OWN_BREAKER};
use redrive_worker::client::Client;
use serde_json::value::RawValue;

use super::{PATIENCE, all_succeed, sink};
use crate::support::process::{Coordinator, kill, worker};
use crate::support::wait::eventually;

/// Of each run, and what it has under way when it is killed.
const SLOTS: usize = 4;
/// The first call of each is cut off.
const SCRIPT: &str = r#"{"script": ["ok@60000", "ok@10", "ok@10"]}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_next_run_begins_with_an_open_breaker_and_others_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(directory.path()).await;
    let (client, sink) = (coordinator.client(), sink().await);
    let mut ids = Vec::new();
    for killed in 1..=2 {
        let added: Vec<TaskId> =
            (0..SLOTS).map(|n| TaskId::new(format!("task-{killed}-{n}")).unwrap()).collect();
        // The task that another run was killed with may be done meanwhile; these hang.
        let tasks = added.iter().map(|id| NewTask {
            id: Some(id.clone()),
            payload: Some(RawValue::from_string(SCRIPT.into()).unwrap()),
            ..NewTask::default()
        });
        client.enqueue(&EnqueueRequest { tasks: tasks.collect() }).await.unwrap();
        let mut victim = worker(&coordinator.url(), "victim", &sink.url, SLOTS as u32);
        eventually("all slots are busy", PATIENCE, async || {
            let log = sink.handle.log();
            let hangs = |id: &TaskId| log.iter().any(|entry| *entry.key == **id && entry.ended_ms.is_none());
            added.iter().all(hangs).then_some(())
        })
        .await;
        kill(&mut victim).await;
        eventually("all of them are lost", PATIENCE, async || {
            let metric = r#"redrive_worker_lost_total{agent="victim"}"#;
            (coordinator.metric(metric).await as usize >= killed * SLOTS).then_some(())
        })
        .await;
        ids.extend(added);
    }
    let before = lost_of_victim(&client, &ids).await;
    assert_eq!(before.0, 2 * SLOTS);
    let _third = worker(&coordinator.url(), "victim", &sink.url, SLOTS as u32);
    let open = async || {
        let breakers = client.breakers().await.unwrap().breakers;
        let alive = breakers.into_iter().filter(|one| one.status == AgentStatus::Alive);
        let mut own = alive.filter(|one| *one.agent == *"victim" && one.breaker == OWN_BREAKER);
        own.any(|one| one.snapshot.is_some_and(|now| now.state == BreakerState::Open)).then_some(())
    };
    eventually("the next run begins with an open breaker", PATIENCE, open).await;
    let _other = worker(&coordinator.url(), "other", &sink.url, SLOTS as u32);
    assert_eq!(all_succeed(&client, &ids).await, []);
    assert_eq!(lost_of_victim(&client, &ids).await, before, "it took nothing");
}

/// Attempts of the agent that were lost, and all of them.
async fn lost_of_victim(client: &Client, ids: &[TaskId]) -> (usize, usize) {
    let (mut lost, mut all) = (0, 0);
    for id in ids {
        let history = client.task(id, None).await.unwrap().history;
        let own = history.iter().filter(|one| one.agent.as_deref().is_some_and(|agent| *agent == *"victim"));
        for one in own {
            all += 1;
            lost += usize::from(one.end == AttemptEnd::Lost);
        }
    }
    (lost, all)
}
