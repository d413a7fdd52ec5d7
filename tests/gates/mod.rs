//! Gates as agents and operators meet them: real coordinators, over real sockets, on both stores.

mod agreement;
mod costs;
mod in_flight;
mod operators;
mod queues;
mod several;
mod storm;
mod tokens;

use redrive_shared::failure::FailureSignal;
use redrive_shared::gate::{Settings, State};
use redrive_shared::task::Lease;
use redrive_shared::wire::{
    ClaimRequest, EnqueueRequest, GateAction, GateRequest, GateView, NewTask, Outcome, SettleRequest,
    Settlement,
};
use redrive_worker::client::Client;

use crate::support::{id, name};

const DEPENDENCY: &str = "openai/main/gpt";

fn task(id_text: &str, dependency: &str) -> NewTask {
    NewTask { id: Some(id(id_text)), dependency: Some(name(dependency)), ..NewTask::default() }
}

/// Enqueues so many tasks that need the dependency.
async fn enqueue(client: &Client, prefix: &str, count: usize, dependency: &str) {
    enqueue_to(client, prefix, count, "default", Some(dependency)).await;
}

/// Enqueues so many tasks.
async fn enqueue_to(client: &Client, prefix: &str, count: usize, queue: &str, dependency: Option<&str>) {
    let task = |number| NewTask {
        id: Some(id(&format!("{prefix}-{number}"))),
        queue: Some(name(queue)),
        dependency: dependency.map(name),
        ..NewTask::default()
    };
    let reply =
        client.enqueue(&EnqueueRequest { tasks: (0..count).map(task).collect() }).await.expect("an answer");
    assert!(reply.results.iter().all(|one| one.error.is_none()), "{reply:?}");
}

async fn claim(client: &Client, agent: &str, max: u32, wait_ms: u64) -> Vec<Lease> {
    let request = ClaimRequest {
        agent: name(agent),
        boot_id: None,
        request_id: None,
        queues: vec![name("default")],
        max,
        wait_ms,
        lease_ms: Some(30_000),
        avoid: Vec::new(),
    };
    client.claim(&request).await.expect("an answer").leases
}

async fn settle(client: &Client, lease: &Lease, outcome: Outcome) {
    let (epoch, nonce) = (lease.epoch, lease.nonce);
    let settlements = vec![Settlement { id: lease.id.clone(), epoch, nonce, outcome }];
    let reply = client.settle(&SettleRequest { settlements }).await.expect("an answer");
    assert!(reply.results[0].error.is_none(), "{reply:?}");
}

/// What a server says that has had too many requests.
fn limited(retry_after_s: u32) -> Outcome {
    let failure = FailureSignal {
        http_status: Some(429),
        headers: [("retry-after".to_owned(), retry_after_s.to_string())].into(),
        ..FailureSignal::default()
    };
    Outcome::retry(failure)
}

fn unauthorized() -> Outcome {
    let body = r#"{"error":{"type":"authentication_error","message":"invalid x-api-key"}}"#;
    let failure =
        FailureSignal { http_status: Some(401), body: Some(body.to_owned()), ..FailureSignal::default() };
    Outcome::retry(failure)
}

fn done() -> Outcome {
    Outcome::done(None)
}

async fn gate(client: &Client, dependency: &str) -> Option<GateView> {
    let gates = client.gates().await.expect("an answer").gates;
    gates.into_iter().find(|gate| gate.dependency.as_deref() == Some(dependency))
}

async fn queue_gate(client: &Client, queue: &str) -> Option<GateView> {
    let gates = client.gates().await.expect("an answer").queues;
    gates.into_iter().find(|gate| gate.queue.as_deref() == Some(queue))
}

async fn state(client: &Client, dependency: &str) -> State {
    gate(client, dependency).await.map_or(State::Open, |gate| gate.state)
}

async fn change(client: &Client, dependency: &str, action: GateAction) -> GateView {
    client.change_gate(&GateRequest::new(name(dependency), action)).await.expect("done")
}

/// At most so many a minute.
async fn limit(client: &Client, dependency: &str, requests_per_minute: u32) -> GateView {
    let settings = Settings { requests_per_minute: Some(requests_per_minute), ..Settings::default() };
    let request = GateRequest::new(name(dependency), GateAction::Set);
    client.change_gate(&GateRequest { settings: Some(settings), ..request }).await.expect("done")
}
