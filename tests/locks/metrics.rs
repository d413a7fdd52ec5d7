//! What Prometheus sees of locks.

use redrive_shared::lock::{Lost, Owner, Phase};
use redrive_shared::wire::{LockBreak, LockRequest};
use serde_json::{Value, json};

use super::{PATIENCE, code, owner, release, renew, take, wish};
use crate::support::id;
use crate::support::process::Coordinator;
use crate::support::wait::eventually;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_and_those_that_wait_and_what_was_refused_are_counted() {
    let data = tempfile::tempdir().unwrap();
    let coordinator = &Coordinator::start(data.path()).await;
    let client = coordinator.client();
    let shows = async |name: &str, value: u64| {
        let ask = async || (coordinator.metric(name).await == value).then_some(());
        eventually(&format!("{name} is {value}"), PATIENCE, ask).await;
    };
    let a = take(&client, &wish("a", "f", 0)).await;
    let b = take(&client, &wish("b", "g", 0)).await;
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { take(&client, &wish("c", "f", 30_000)).await }
    });
    shows("redrive_locks_held", 2).await;
    shows("redrive_locks_waiting", 1).await;
    assert_eq!(renew(&client, "stranger", &a).await.lost, Some(Lost::NotYours));
    release(&client, "a", &a).await;
    release(&client, "c", &waiting.await.unwrap()).await;
    shows("redrive_locks_waiting", 0).await;
    assert_eq!(release(&client, "a", &a).await.lost, Some(Lost::Unknown));
    shows("redrive_locks_lost_total{verb=\"release\",why=\"unknown\"}", 1).await;
    shows("redrive_fence_rejections_total{verb=\"release\"}", 0).await;
    client.break_lock(&LockBreak { token: b.token, reason: None }).await.unwrap();
    assert_eq!(renew(&client, "b", &b).await.lost, Some(Lost::Expired));
    shows("redrive_locks_lost_total{verb=\"renew\",why=\"expired\"}", 1).await;
    shows("redrive_fence_rejections_total{verb=\"renew\"}", 2).await;
    shows("redrive_locks_broken_total", 1).await;
    shows("redrive_locks_expired_total", 0).await;
    // Nobody asks for it any more: whoever looks finds that it is over.
    let short = LockRequest { ttl_ms: Some(1_000), lock_delay_ms: Some(60_000), ..wish("d", "h", 0) };
    take(&client, &short).await;
    shows("redrive_locks_expired_total", 1).await;
    let rests = client.locks().await.unwrap().locks;
    assert!(rests.iter().any(|lock| lock.owner == owner("d") && lock.phase == Phase::Lapsed), "{rests:?}");
    let task = json!({"tasks": [{"id": "t", "queue": "default", "payload": {}}]});
    let _: Value = client.post(&["v1", "tasks"], &task, 0).await.unwrap();
    let claim = json!({"agent": "w", "queues": ["default"], "max": 1});
    let claimed: Value = client.post(&["v1", "claims"], &claim, 0).await.unwrap();
    let epoch = claimed["leases"][0]["epoch"].as_i64().unwrap();
    let of_attempt =
        |epoch| LockRequest { owner: Owner::Attempt { task: id("t"), epoch }, ..wish("x", "i", 0) };
    take(&client, &of_attempt(epoch)).await;
    assert_eq!(code(client.acquire_lock(&of_attempt(epoch - 1), 0).await.unwrap_err()), "stale_epoch");
    shows("redrive_fence_rejections_total{verb=\"acquire\"}", 1).await;
    shows("redrive_lock_requests_total{outcome=\"granted\"}", 5).await;
    shows("redrive_lock_wait_seconds_count{outcome=\"granted\"}", 5).await;
}
