//! Presence where there are several coordinators: a worker that comes back to another one keeps its leases.

use std::time::Duration;

use redrive_shared::task::TaskState;
use redrive_shared::wire::{ClaimRequest, EnqueueRequest, NewTask};
use redrive_worker::client::Presence;
use tokio::time::Instant;

use crate::support::process::Coordinator;
use crate::support::redis::RedisServer;
use crate::support::wait::eventually;
use crate::support::{beat_with, id, name};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a coordinator waits for a worker to come back: 2 s, by a clock that it only estimates.
const GRACE: Duration = Duration::from_millis(1_900);
/// Until the leases of a worker that was killed have ended: the grace, and what a busy machine adds; not its silence, which
/// takes 15 s.
const NOTICED: Duration = Duration::from_secs(8);

/// A worker that stays, as far as anybody knows, and one that is killed after it did something.
const WORKER: &str = "worker";
const OTHER: &str = "other";

/// Two coordinators on one store.
struct Scene {
    redis: RedisServer,
    a: Coordinator,
    b: Coordinator,
}

impl Scene {
    async fn start() -> Self {
        let redis = RedisServer::start().await;
        let (a, b) = (Coordinator::on(&redis.url()).await, Coordinator::on(&redis.url()).await);
        Self { redis, a, b }
    }

    /// Gives a worker a task of its own name, which it works on.
    async fn lease(&self, agent: &str) {
        let client = self.a.client();
        let task = NewTask { id: Some(id(agent)), ..NewTask::default() };
        client.enqueue(&EnqueueRequest { tasks: vec![task] }).await.expect("taken");
        let claim = ClaimRequest {
            agent: name(agent),
            boot_id: Some(name("boot")),
            request_id: None,
            queues: vec![name("default")],
            max: 1,
            wait_ms: 0,
            lease_ms: Some(600_000),
            avoid: Vec::new(),
        };
        let lease = client.claim(&claim).await.expect("a claim").leases.remove(0);
        assert_eq!(lease.id, id(agent));
        client.heartbeat(&beat_with(agent, "boot", &[&lease])).await.expect("heard");
    }

    /// Opens a worker's presence there; it is over when the connection is dropped.
    async fn present(&self, agent: &str, at: &Coordinator) -> Presence {
        let last = self.arrived(agent).await;
        let connection = at.client().presence(&name(agent), &name("boot")).await.expect("a stream");
        let told = async || (self.arrived(agent).await != last).then_some(());
        eventually("the store knows of the arrival", PATIENCE, told).await;
        connection
    }

    async fn arrived(&self, agent: &str) -> String {
        self.redis.command(&["ZSCORE", "redrive:{*}:arrived", &format!("{agent}|boot")]).await
    }

    async fn state(&self, agent: &str) -> TaskState {
        self.b.client().task(&id(agent), None).await.expect("the task").state
    }

    /// Waits until the first coordinator has drawn its conclusion from connections that broke before: another worker
    /// breaks with it after them, and loses its lease.
    async fn judged(&self) {
        let connection = self.present(OTHER, &self.a).await;
        self.lease(OTHER).await;
        self.lost(OTHER, connection).await;
    }

    /// A worker is killed: its leases end in seconds, and not before the grace is over.
    async fn lost(&self, agent: &str, connection: Presence) {
        let broke = Instant::now();
        drop(connection);
        let over = async || (self.state(agent).await != TaskState::Leased).then_some(());
        eventually("its lease ends", PATIENCE, over).await;
        let took = broke.elapsed();
        println!("the lease of {agent} ended after {took:?}");
        assert!(took >= GRACE && took < NOTICED, "{took:?}");
    }
}

#[tokio::test]
async fn a_worker_that_comes_back_to_another_coordinator_keeps_its_leases() {
    let scene = Scene::start().await;
    let at_a = scene.present(WORKER, &scene.a).await;
    scene.lease(WORKER).await;
    drop(at_a);
    let at_b = scene.present(WORKER, &scene.b).await;
    scene.judged().await;
    assert_eq!(scene.state(WORKER).await, TaskState::Leased, "it is at the other");
    scene.lost(WORKER, at_b).await;
}

#[tokio::test]
async fn a_connection_whose_end_is_noticed_late_costs_no_leases() {
    let scene = Scene::start().await;
    let at_a = scene.present(WORKER, &scene.a).await;
    scene.lease(WORKER).await;
    // It gave the first up, and its coordinator does not know yet.
    let at_b = scene.present(WORKER, &scene.b).await;
    drop(at_a);
    scene.judged().await;
    assert_eq!(scene.state(WORKER).await, TaskState::Leased, "it is at the other");
    scene.lost(WORKER, at_b).await;
}

#[tokio::test]
async fn a_worker_that_was_killed_loses_its_leases_however_shortly_before_it_was_heard_from() {
    let scene = Scene::start().await;
    // It has been at the other before.
    let at_b = scene.present(WORKER, &scene.b).await;
    let at_a = scene.present(WORKER, &scene.a).await;
    drop(at_b);
    scene.lease(WORKER).await;
    scene.lost(WORKER, at_a).await;
}
