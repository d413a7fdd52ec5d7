//! The coordinator is killed in the middle of a load, again and again, and started again on its data.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redrive_shared::id::TaskId;
use redrive_shared::wire::{EnqueueRequest, EnqueueStatus, NewTask};
use redrive_worker::client::Client;
use serde_json::value::RawValue;
use tokio::sync::watch;

use super::{PATIENCE, all_succeed, sink};
use crate::support::process::{Coordinator, worker};

const KILLS: usize = 5;
/// Acknowledged batches between two kills, so that every kill finds enqueues, claims and settlements under way.
const BATCHES_BETWEEN: usize = 8;
const BATCH: usize = 20;
const FAILS_ONCE: &str = r#"{"script": ["500", "ok@5"]}"#;
const SUCCEEDS: &str = r#"{"script": ["ok@5", "ok@5"]}"#;

/// Enqueues until told to stop; only what was acknowledged counts. An unanswered batch is repeated with its ids.
async fn produce(
    client: Client,
    name: usize,
    stop: Arc<AtomicBool>,
    acknowledged: watch::Sender<Vec<TaskId>>,
) {
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let tasks: Vec<NewTask> = (0..BATCH)
            .map(|n| NewTask {
                id: Some(TaskId::new(format!("p{name}-{number}-{n}")).unwrap()),
                // One in five fails once: fewer than would open the workers' breakers.
                payload: Some(
                    RawValue::from_string(if n % 5 == 0 { FAILS_ONCE } else { SUCCEEDS }.into()).unwrap(),
                ),
                ..NewTask::default()
            })
            .collect();
        let ids: Vec<TaskId> = tasks.iter().filter_map(|task| task.id.clone()).collect();
        let request = EnqueueRequest { tasks };
        while !stop.load(Ordering::Relaxed) {
            match client.enqueue(&request).await {
                Ok(reply) => {
                    assert!(reply.results.iter().all(|result| result.status != EnqueueStatus::Refused));
                    acknowledged.send_modify(|all| all.extend(ids));
                    break;
                }
                Err(error) => {
                    assert!(error.is_retryable(), "{error}");
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_coordinator_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let mut coordinator = Coordinator::start(directory.path()).await;
    let sink = sink().await;
    let at_once = r#"{"overrides": {"server_error": {"strategy": {"strategy": "fixed", "delay_ms": 20}}}}"#;
    let policy: redrive_shared::retry::RetryPolicy = serde_json::from_str(at_once).unwrap();
    let default = redrive_shared::id::Name::new("default").unwrap();
    coordinator.client().put_queue(&default, &policy.into()).await.unwrap();
    let _workers =
        [worker(&coordinator.url(), "one", &sink.url, 8), worker(&coordinator.url(), "two", &sink.url, 8)];
    let stop = Arc::new(AtomicBool::new(false));
    let (acknowledged, mut known) = watch::channel(Vec::new());
    let producers: Vec<_> = (0..2)
        .map(|name| {
            tokio::spawn(produce(coordinator.client(), name, Arc::clone(&stop), acknowledged.clone()))
        })
        .collect();
    for _ in 0..KILLS {
        let enough = known.borrow().len() + BATCHES_BETWEEN * BATCH;
        tokio::time::timeout(PATIENCE, known.wait_for(|all| all.len() >= enough)).await.unwrap().unwrap();
        coordinator.kill().await;
        coordinator.restart().await;
    }
    stop.store(true, Ordering::Relaxed);
    for producer in producers {
        producer.await.unwrap();
    }
    let ids = known.borrow().clone();
    let lost = all_succeed(&coordinator.client(), &ids).await;
    let stale = coordinator.stale_epochs().await;
    println!(
        "coordinator killed -9 {KILLS} times: {} acknowledged, {} lost, overlapping leases {}, sink calls {}, \
         repeats beyond the scripted ones {}, stale settlements refused since the last start {stale}",
        ids.len(),
        lost.len(),
        sink.overlaps(),
        sink.handle.calls(),
        i128::from(sink.repeats()) - (ids.len() / 5) as i128,
    );
    assert_eq!(lost, []);
    assert_eq!(sink.overlaps(), 0, "{:#?}", sink.handle.overlaps());
    assert!(ids.len() >= KILLS * BATCHES_BETWEEN * BATCH);
}
