//! A worker is killed in the middle of its tasks.

use std::time::{Duration, Instant};

use redrive_shared::error::ErrorCode;
use redrive_shared::failure::FailureSignal;
use redrive_shared::id::TaskId;
use redrive_shared::task::TaskState;
use redrive_shared::wire::{EnqueueRequest, NewTask, Outcome, SettleRequest, Settlement, StatusRequest};
use serde_json::value::RawValue;

use super::{PATIENCE, all_succeed, sink};
use crate::support::process::{Coordinator, kill, resume, suspend, terminate, worker, worker_with_lease};

const TASKS: usize = 200;
/// Each task takes so long at the sink, so that a kill finds some of them under way.
const SCRIPT: &str = r#"{"script": ["ok@300", "ok@50", "ok@50"]}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_workers_tasks_run_again_within_seconds() {
    let directory = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(directory.path()).await;
    let (client, sink) = (coordinator.client(), sink().await);
    let tasks: Vec<NewTask> = (0..TASKS)
        .map(|n| NewTask {
            id: Some(TaskId::new(format!("task-{n}")).unwrap()),
            payload: Some(RawValue::from_string(SCRIPT.into()).unwrap()),
            ..NewTask::default()
        })
        .collect();
    let ids: Vec<TaskId> = tasks.iter().filter_map(|task| task.id.clone()).collect();
    client.enqueue(&EnqueueRequest { tasks }).await.unwrap();

    let mut victim = worker(&coordinator.url(), "victim", &sink.url, 16);
    let mut progress = sink.handle.progress();
    tokio::time::timeout(PATIENCE, progress.wait_for(|seen| seen.arrived >= 40)).await.unwrap().unwrap();
    let _heir = worker(&coordinator.url(), "heir", &sink.url, 16);
    kill(&mut victim).await;
    let killed = Instant::now();
    let killed_ms = sink_now_ms(&sink);

    assert_eq!(all_succeed(&client, &ids).await, []);
    let log = sink.handle.log();
    // By the coordinator's own account: requests of a killed worker may still reach the sink after its end.
    let reply = client.status(&StatusRequest { ids: ids.clone() }).await.unwrap();
    let cut_off: Vec<&str> =
        reply.tasks.iter().filter(|task| task.ledger.lost > 0).map(|task| task.id.as_str()).collect();
    assert!(!cut_off.is_empty(), "the kill found nothing under way");
    let back_ms = log
        .iter()
        .filter(|entry| cut_off.contains(&entry.key.as_str()) && entry.call == 2)
        .map(|entry| entry.started_ms.saturating_sub(killed_ms))
        .max()
        .unwrap();
    println!(
        "worker killed -9: {TASKS} acknowledged, 0 lost, {} cut off, overlapping leases {}, repeats {}, \
         cut-off tasks run again after {back_ms} ms at most, all done {} ms after the kill",
        cut_off.len(),
        sink.overlaps(),
        sink.repeats(),
        killed.elapsed().as_millis(),
    );
    assert_eq!(sink.overlaps(), 0, "{:#?}", sink.handle.overlaps());
    assert!(sink.repeats() <= cut_off.len() as u64, "only what was cut off runs twice");
    // Not a speed test: without presence these tasks would wait for the end of a 30 s lease.
    assert!(Duration::from_millis(back_ms) < Duration::from_secs(15), "presence did not notice the kill");
}

/// The sink's own clock: when the last call that it knows of arrived or ended.
fn sink_now_ms(sink: &super::Sink) -> u64 {
    sink.handle
        .log()
        .iter()
        .flat_map(|entry| [Some(entry.started_ms), entry.ended_ms])
        .flatten()
        .max()
        .unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_told_to_stop_finishes_what_it_has_and_takes_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(directory.path()).await;
    let (client, sink) = (coordinator.client(), sink().await);
    let tasks: Vec<NewTask> = (0..40)
        .map(|n| NewTask {
            id: Some(TaskId::new(format!("task-{n}")).unwrap()),
            payload: Some(RawValue::from_string(r#"{"script": ["ok@400"]}"#.into()).unwrap()),
            ..NewTask::default()
        })
        .collect();
    let ids: Vec<TaskId> = tasks.iter().filter_map(|task| task.id.clone()).collect();
    client.enqueue(&EnqueueRequest { tasks }).await.unwrap();
    let mut first = worker(&coordinator.url(), "first", &sink.url, 4);
    let mut progress = sink.handle.progress();
    tokio::time::timeout(PATIENCE, progress.wait_for(|seen| seen.arrived >= 6)).await.unwrap().unwrap();
    terminate(&first);
    let status = tokio::time::timeout(PATIENCE, first.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0), "a drain is no failure");
    let done = sink.handle.calls();
    assert!(done < 40, "it took everything before it stopped");

    let _second = worker(&coordinator.url(), "second", &sink.url, 8);
    assert_eq!(all_succeed(&client, &ids).await, []);
    assert_eq!(sink.repeats(), 0, "nothing that was begun is done twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_worker_that_wakes_up_late_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(directory.path()).await;
    let (client, sink) = (coordinator.client(), sink().await);
    let id = TaskId::new("slept-over").unwrap();
    let task = NewTask {
        id: Some(id.clone()),
        payload: Some(RawValue::from_string(r#"{"script": ["ok@400", "ok@10"]}"#.into()).unwrap()),
        ..NewTask::default()
    };
    client.enqueue(&EnqueueRequest { tasks: vec![task] }).await.unwrap();
    let sleeper = worker_with_lease(&coordinator.url(), "sleeper", &sink.url, 1_500);
    let mut progress = sink.handle.progress();
    tokio::time::timeout(PATIENCE, progress.wait_for(|seen| seen.arrived >= 1)).await.unwrap().unwrap();
    suspend(&sleeper);
    let mut heir = worker(&coordinator.url(), "heir", &sink.url, 1);
    let done = client.task(&id, Some(30_000)).await.unwrap();
    assert_eq!(done.state, TaskState::Succeeded);
    assert!(done.ledger.lost >= 1, "its lease ended");
    kill(&mut heir).await;
    resume(&sleeper);
    // Once the sleeper has done something else, it has dealt with what it slept over.
    let next = TaskId::new("next").unwrap();
    let task = NewTask { id: Some(next.clone()), ..NewTask::default() };
    client.enqueue(&EnqueueRequest { tasks: vec![task] }).await.unwrap();
    assert_eq!(client.task(&next, Some(30_000)).await.unwrap().state, TaskState::Succeeded);
    let after = client.task(&id, None).await.unwrap();
    assert_eq!((after.epoch, after.runs, after.history.len()), (done.epoch, done.runs, done.history.len()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_ignores_the_end_of_its_lease_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(directory.path()).await;
    let (client, sink) = (coordinator.client(), sink().await);
    let tasks = (0..20).map(|n| NewTask { id: TaskId::new(format!("task-{n}")).ok(), ..NewTask::default() });
    client.enqueue(&EnqueueRequest { tasks: tasks.collect() }).await.unwrap();
    let claim = r#"{"agent": "rude", "queues": ["default"], "max": 20, "lease_ms": 1000}"#;
    let leases = client.claim(&serde_json::from_str(claim).unwrap()).await.unwrap().leases;
    let _heir = worker(&coordinator.url(), "heir", &sink.url, 8);
    let ids: Vec<TaskId> = leases.iter().map(|lease| lease.id.clone()).collect();
    assert_eq!(all_succeed(&client, &ids).await, []);
    let settlements = leases.into_iter().map(|lease| Settlement {
        id: lease.id,
        epoch: lease.epoch,
        nonce: lease.nonce,
        outcome: Outcome::dead(FailureSignal::default()),
    });
    let reply = client.settle(&SettleRequest { settlements: settlements.collect() }).await.unwrap();
    assert!(reply.results.iter().all(|result| {
        result.error.as_ref().is_some_and(|problem| problem.code == ErrorCode::StaleEpoch)
    }));
    assert_eq!(all_succeed(&client, &ids).await, [], "they still are");
    println!("stale settlements refused: {} of 20", coordinator.stale_epochs().await);
}
