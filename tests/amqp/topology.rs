//! What Redrive needs in RabbitMQ is made, made again, and must be as it needs it.

use redrive_coordinator::CoordinatorConfig;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Bench, Peer, coordinator, room};
use crate::support::rabbit::shared;
use crate::support::wait::eventually;

#[tokio::test]
async fn what_is_missing_is_made_again_with_the_next_connection() {
    let bench = Bench::pushing([("letters", room(1))]).await;
    let delete = lapin::options::QueueDeleteOptions::default();
    bench.peer.channel.queue_delete("redrive.outcomes".into(), delete).await.unwrap();
    bench.until_consumed("redrive.outcomes", 1).await;
    bench.peer.channel.queue_delete("redrive.q.letters".into(), delete).await.unwrap();
    let what = "the queue that is pushed is there again";
    eventually(what, super::PATIENCE, async || Peer::look(&bench.peer, "redrive.q.letters").await).await;
}

#[tokio::test]
async fn what_is_otherwise_than_needed_is_named_and_stops_the_start() {
    let rabbit = shared().await;
    let peer = Peer::connect(&rabbit.url()).await;
    peer.declare("redrive.outcomes", &[("x-queue-type", "classic")]).await;
    let config = coordinator(&rabbit.url(), []);
    let config = CoordinatorConfig { listen: ([127, 0, 0, 1], 0).into(), ..config };
    let (ready, _) = oneshot::channel();
    let ran = redrive_coordinator::run(config, None, CancellationToken::new(), ready).await;
    let error = ran.unwrap_err().to_string();
    for said in ["redrive.outcomes", "x-queue-type", "'quorum'", "classic", "coordinator.amqp.prefix"] {
        assert!(error.contains(said), "{said}: {error}");
    }
}

#[tokio::test]
async fn without_rabbitmq_a_coordinator_starts_and_pull_goes_on() {
    let config = coordinator("amqp://127.0.0.1:1", [("letters", room(1))]);
    let server = crate::support::server::Server::with(config).await;
    let task = serde_json::json!({ "tasks": [{ "id": "a", "queue": "letters" }] });
    assert_eq!(server.post("/v1/tasks", &task).await.status, 200);
    let claim = serde_json::json!({ "agent": "w", "queues": ["letters"], "max": 1 });
    let claimed = server.post("/v1/claims", &claim).await;
    assert_eq!(claimed.json["leases"][0]["id"], "a", "{claimed:?}");
}
