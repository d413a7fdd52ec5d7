//! RabbitMQ fails under load. Whatever happens to it, what was acknowledged is done in the end, and no two hold a task.
//!
//! Each test prints its figures: `cargo nextest run -p redrive -E 'test(amqp::faults)' --no-capture`.

mod broker;
mod consumers;
mod coordinators;
mod load;
mod network;
mod nodes;
mod workers;

use std::process::Stdio;
use std::time::{Duration, Instant};

use redrive_coordinator::CoordinatorConfig;
use redrive_coordinator::amqp::PushConfig;
use redrive_shared::id::TaskId;
use redrive_shared::retry::RetryPolicy;
use redrive_shared::task::{Priority, TaskState, TaskView};
use redrive_shared::wire::{
    ClaimRequest, EnqueueRequest, NewTask, Outcome, QueueCreate, SettleRequest, Settlement,
};
use redrive_worker::client::Client;
use serde_json::json;
use tokio::process::Child;

use super::{PATIENCE, Peer, coordinator, room};
use crate::support::process::redrive;
use crate::support::proxy::Proxy;
use crate::support::rabbit::SharedRabbit;
use crate::support::server::Server;
use crate::support::sink::{Sink, sink};
use crate::support::wait::eventually;
use crate::support::{id, name};

/// Pushed to workers of Redrive's, which say over HTTP how it went.
const LETTERS: &str = "letters";
/// Pushed to consumers of another make, which say it over RabbitMQ.
const PLAIN: &str = "plain";
/// Not pushed at all.
const PULLED: &str = "pulled";
/// Messages that may be out for consumers of another make.
const OUTSTANDING: u32 = 20;
/// Short, so that what is lost with RabbitMQ comes back soon; long beside what is done in it.
const LEASE: Duration = Duration::from_secs(3);
/// What is lost is the point here, so losing it often must not end a task.
const POLICY: &str = r#"{"lease_ms": 3000, "overrides": {
    "worker_lost": {"max_attempts": 100, "strategy": {"strategy": "fixed", "delay_ms": 20}}
}}"#;

/// A coordinator in this process, and where the work of its workers ends.
struct Rig {
    server: Server,
    client: Client,
    sink: Sink,
}

impl Rig {
    /// One that finds RabbitMQ there, and pushes.
    async fn at(amqp: &str) -> Self {
        Self::with(coordinator(amqp, [(LETTERS, PushConfig::default()), (PLAIN, room(OUTSTANDING))])).await
    }

    async fn with(config: CoordinatorConfig) -> Self {
        let server = Server::with(config).await;
        let client = Client::new(&server.url("")).unwrap();
        make_queues(&client).await;
        Self { server, client, sink: sink().await }
    }

    /// A worker process that takes letters from RabbitMQ.
    fn worker(&self, agent: &str, amqp: &str) -> Child {
        redrive()
            // A short lease is kept by heartbeats that are frequent; breakers have tests of their own.
            .env("REDRIVE__WORKER__LEASE_MS", LEASE.as_millis().to_string())
            .env("REDRIVE__WORKER__BREAKER__RECENT_OUTCOMES", "0")
            .env("REDRIVE__WORKER__BREAKER__MIN_OUTCOMES", "10000")
            .args(["--url", &self.server.url(""), "worker", "--agent", agent, "--queues", LETTERS])
            .args(["--http", &self.sink.url, "--concurrency", "8", "--link", amqp])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }
}

async fn make_queues(client: &Client) {
    for queue in [LETTERS, PLAIN, PULLED] {
        let policy: RetryPolicy = serde_json::from_str(POLICY).unwrap();
        client.put_queue(&name(queue), &QueueCreate::from(policy)).await.unwrap();
    }
}

/// The address of the same RabbitMQ, through a network that can fail.
async fn behind(rabbit: &SharedRabbit) -> (Proxy, String) {
    let proxy = Proxy::to_port(rabbit.port()).await;
    let by = |port: u16| format!(":{port}/");
    let url = rabbit.url().replace(&by(rabbit.port()), &by(proxy.port()));
    (proxy, url)
}

/// A task. At the sink it gets these replies, one a call.
fn task(id_: &str, queue: &str, script: &str) -> NewTask {
    let replies: Vec<&str> = script.split(' ').collect();
    let payload = serde_json::value::to_raw_value(&json!({ "script": replies })).unwrap();
    NewTask { id: Some(id(id_)), queue: Some(name(queue)), payload: Some(payload), ..NewTask::default() }
}

async fn enqueue(client: &Client, tasks: Vec<NewTask>) -> Vec<TaskId> {
    let ids = tasks.iter().filter_map(|task| task.id.clone()).collect();
    client.enqueue(&EnqueueRequest { tasks }).await.unwrap();
    ids
}

/// Enqueues, claims and settles, with nothing but HTTP.
async fn pull(client: &Client, id: &str) {
    let ids = enqueue(client, vec![task(id, PULLED, "ok")]).await;
    let request = ClaimRequest {
        agent: name("puller"),
        boot_id: None,
        request_id: None,
        queues: vec![name(PULLED)],
        max: 1,
        wait_ms: 5_000,
        lease_ms: None,
        avoid: Vec::new(),
    };
    let lease = client.claim(&request).await.unwrap().leases.remove(0);
    let (outcome, epoch, nonce) = (Outcome::done(None), lease.epoch, lease.nonce);
    let settlements = vec![Settlement { id: lease.id, epoch, nonce, outcome }];
    assert!(client.settle(&SettleRequest { settlements }).await.unwrap().results[0].error.is_none());
    until_succeeded(client, &ids[0]).await;
}

/// A task that comes now, ahead of the others: how long until it is done?
async fn probe(client: &Client, queue: &str, id_: &str) -> Duration {
    let began = Instant::now();
    let urgent = NewTask { priority: Priority::High, ..task(id_, queue, "ok@5") };
    let ids = enqueue(client, vec![urgent]).await;
    until_succeeded(client, &ids[0]).await;
    began.elapsed()
}

async fn until_succeeded(client: &Client, id: &TaskId) -> TaskView {
    let (task, _) = eventually(&format!("{id} has succeeded"), PATIENCE, async || {
        let task = client.task(id, Some(5_000)).await.unwrap();
        (task.state == TaskState::Succeeded).then_some(task)
    })
    .await;
    task
}

/// Waits until so many more of a queue's tasks have succeeded.
async fn under_load(client: &Client, queue: &str, more: i64) {
    let succeeded = async || client.queue(&name(queue)).await.unwrap().counts.succeeded;
    let enough = succeeded().await + more;
    let what = format!("{more} more tasks of {queue} succeed");
    eventually(&what, PATIENCE, async || (succeeded().await >= enough).then_some(())).await;
}

/// Waits until so many consume a queue.
async fn until_consumed(amqp: &str, queue: &str, consumers: u32) {
    let peer = Peer::connect(amqp).await;
    eventually(&format!("{queue} has {consumers} consumers"), PATIENCE, async || {
        let found = peer.look(queue).await;
        (found.map(|(_, consumers)| consumers) == Some(consumers)).then_some(())
    })
    .await;
}
