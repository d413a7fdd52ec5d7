//! A coordinator that dies between two checkpoints: what it acknowledged is there, and its worker goes on.

use redrive_shared::task::Lease;
use redrive_shared::wire::{
    CheckpointRequest, ClaimRequest, EnqueueRequest, NewTask, Outcome, SettleRequest, Settlement,
};
use redrive_worker::client::Client;

use crate::support::process::Coordinator;
use crate::support::redis::{AppendFsync, RedisOptions, RedisServer};
use crate::support::{fast_directory, id, name, raw};

fn checkpoint(lease: &Lease, seq: u64, step: &str) -> CheckpointRequest {
    CheckpointRequest {
        epoch: lease.epoch,
        nonce: lease.nonce,
        seq,
        step: name(step),
        completed: true,
        state: Some(raw(&format!("{{\"after\": \"{step}\"}}"))),
        state_ref: None,
        pending: None,
    }
}

async fn claim(client: &Client) -> Lease {
    let request = ClaimRequest {
        agent: name("w"),
        boot_id: None,
        request_id: None,
        queues: vec![name("default")],
        max: 1,
        wait_ms: 20_000,
        lease_ms: Some(60_000),
        avoid: Vec::new(),
    };
    client.claim(&request).await.expect("an answer").leases.remove(0)
}

async fn a_task_goes_on_after_a_kill(mut coordinator: Coordinator) {
    let client = coordinator.client();
    let task = NewTask { id: Some(id("t")), ..NewTask::default() };
    client.enqueue(&EnqueueRequest { tasks: vec![task] }).await.expect("it is enqueued");
    let lease = claim(&client).await;
    let (first, second) = (checkpoint(&lease, 1, "fetch"), checkpoint(&lease, 2, "parse"));
    client.save_checkpoint(&lease.id, &first).await.expect("it is saved");
    coordinator.kill().await;
    let lost = client.save_checkpoint(&lease.id, &second).await.expect_err("nobody is there");
    assert!(lost.is_retryable(), "{lost}");
    coordinator.restart().await;
    // The answer to the first may have been lost, too.
    let again = client.save_checkpoint(&lease.id, &first).await.expect("it was saved");
    assert!(again.repeated);
    let saved = client.save_checkpoint(&lease.id, &second).await.expect("the lease outlived the coordinator");
    assert_eq!((saved.seq, saved.repeated), (2, false));
    coordinator.kill().await;
    coordinator.restart().await;
    let kept = client.progress(&lease.id).await.expect("an answer");
    let steps: Vec<_> = kept.steps.iter().map(|step| (step.step.as_str(), step.seq)).collect();
    assert_eq!(steps, [("fetch", 1), ("parse", 2)]);
    let released = Settlement {
        id: lease.id.clone(),
        epoch: lease.epoch,
        nonce: lease.nonce,
        outcome: Outcome::release(),
    };
    client.settle(&SettleRequest { settlements: vec![released] }).await.expect("an answer");
    let next = claim(&client).await.checkpoint.expect("it comes with the next lease");
    assert_eq!(next.step("parse").unwrap().state.as_ref().unwrap().get(), "{\"after\": \"parse\"}");
    let document = client.progress_document(&lease.id).await.expect("an answer");
    assert_eq!(document.completed_steps, ["fetch", "parse"].map(name));
}

#[tokio::test]
async fn a_coordinator_that_is_killed_between_two_checkpoints_loses_none_on_sqlite() {
    let directory = fast_directory();
    a_task_goes_on_after_a_kill(Coordinator::start(directory.path()).await).await;
}

#[tokio::test]
async fn a_coordinator_that_is_killed_between_two_checkpoints_loses_none_on_redis() {
    let redis = RedisServer::with(RedisOptions::default().append_only(AppendFsync::Always)).await;
    a_task_goes_on_after_a_kill(Coordinator::on(&redis.url()).await).await;
}
