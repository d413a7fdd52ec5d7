//! A coordinator on the shared store, and callers that notice how it fails.

use std::collections::HashSet;
use std::time::Duration;

use redrive_coordinator::{CoordinatorConfig, StoreConfig};
use redrive_shared::wire::{ClaimRequest, Outcome, SettleRequest, Settlement};
use redrive_worker::client::Client;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::name;
use crate::support::server::Server;
use crate::support::wait::eventually;

/// How long this coordinator waits for a connection, for an answer, and for replicas.
const GIVES_UP_MS: u64 = 1_000;
/// What a refusal may take: the time-outs, and as much again on a machine that is busy.
const REFUSED_WITHIN: Duration = Duration::from_millis(4_000);
/// Far longer than anything here takes to come back.
const PATIENCE: Duration = Duration::from_secs(30);

/// A coordinator, and what it acknowledged.
pub struct Front {
    server: Server,
    client: Client,
    acknowledged: HashSet<String>,
}

/// What became of a call.
pub struct Answer {
    pub status: u16,
    pub json: Value,
    retry_after: Option<String>,
    took: Duration,
}

impl Front {
    pub async fn start(url: &str, wait_replicas: u32) -> Self {
        let store = StoreConfig {
            url: Some(url.parse().expect("an address")),
            wait_replicas,
            connect_timeout_ms: GIVES_UP_MS,
            response_timeout_ms: GIVES_UP_MS,
            wait_timeout_ms: GIVES_UP_MS,
            // These servers keep nothing on disk.
            allow_unsafe: true,
            ..StoreConfig::default()
        };
        let server = Server::with(CoordinatorConfig { store, ..CoordinatorConfig::default() }).await;
        let client = Client::new(&server.url("")).expect("a client");
        Self { server, client, acknowledged: HashSet::new() }
    }

    /// Enqueues thirty tasks, always the same ones for a name.
    pub async fn put(&mut self, batch: &str) -> Answer {
        let ids: Vec<String> = (0..30).map(|number| format!("{batch}-{number}")).collect();
        let tasks: Vec<Value> = ids.iter().map(|id| json!({ "id": id })).collect();
        let started = Instant::now();
        let request =
            self.server.request(reqwest::Method::POST, "/v1/tasks").json(&json!({ "tasks": tasks }));
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let json: Value = response.json().await.expect("JSON");
        if status == 200 {
            let results = json["results"].as_array().expect("results");
            assert!(
                results.iter().all(|one| one["status"] == "created" || one["status"] == "duplicate"),
                "{json:#}"
            );
            self.acknowledged.extend(ids);
        }
        let retry_after = headers.get("retry-after").map(|after| after.to_str().expect("text").to_owned());
        Answer { status, json, retry_after, took: started.elapsed() }
    }

    /// Enqueues tasks that must be taken.
    pub async fn put_well(&mut self, batch: &str) {
        let answer = self.put(batch).await;
        assert_eq!(answer.status, 200, "{batch}: {:#}", answer.json);
    }

    /// Enqueues until it goes well.
    pub async fn put_until_taken(&mut self, batch: &str) {
        let asked = async || (self.put(batch).await.status == 200).then_some(());
        eventually(&format!("{batch} is taken"), PATIENCE, asked).await;
    }

    pub async fn is_ready(&self) -> bool {
        self.server.get("/readyz").await.status == 200
    }

    /// Waits until it says that it is ready, or that it is not.
    pub async fn until_ready(&self, ready: bool) -> Duration {
        let asked = async || (self.is_ready().await == ready).then_some(());
        eventually(&format!("readiness is {ready}"), PATIENCE, asked).await.1
    }

    /// Works until nothing is due: every task that was acknowledged is done once, and there is no other.
    pub async fn finish(&self) {
        let mut done = HashSet::new();
        let claim = ClaimRequest {
            agent: name("a"),
            boot_id: None,
            request_id: None,
            queues: vec![name("default")],
            max: 100,
            wait_ms: 0,
            lease_ms: None,
            avoid: Vec::new(),
        };
        loop {
            let leases = self.client.claim(&claim).await.expect("a claim").leases;
            if leases.is_empty() {
                break;
            }
            for lease in &leases {
                assert!(done.insert(lease.id.to_string()), "{} was given twice", lease.id);
            }
            let settlements = leases.into_iter().map(|lease| Settlement {
                id: lease.id,
                epoch: lease.epoch,
                nonce: lease.nonce,
                outcome: Outcome::done(None),
            });
            let reply = self.client.settle(&SettleRequest { settlements: settlements.collect() }).await;
            assert!(reply.expect("an answer").results.iter().all(|one| one.error.is_none()));
        }
        assert_eq!(done, self.acknowledged);
        let queue = self.client.queue(&name("default")).await.expect("the queue");
        let counts = queue.counts;
        assert_eq!((counts.succeeded, counts.total()), (done.len() as i64, done.len() as i64), "{counts:?}");
    }
}

impl Answer {
    /// It is the refusal that callers can act on, and came in time.
    pub fn assert_refused(&self, fault: &str, code: &str) {
        let seen = (self.status, self.json["code"].as_str(), self.retry_after.as_deref());
        assert_eq!(seen, (503, Some(code), Some("1")), "{fault}: {:#}", self.json);
        assert!(self.took < REFUSED_WITHIN, "{fault}: refused after {:?}", self.took);
    }
}

/// An outage, from beginning to end: before it tasks are taken, during it callers are refused at once and readiness is
/// false, after it everything goes on with no restart, and what was refused is taken when it is repeated.
pub async fn outage<S>(
    front: &mut Front,
    servers: &mut S,
    (fault, code): (&str, &str),
    begin: impl AsyncFnOnce(&mut S),
    end: impl AsyncFnOnce(&mut S),
) {
    front.put_well(&format!("before-{fault}")).await;
    begin(servers).await;
    let during = format!("during-{fault}");
    front.put(&during).await.assert_refused(fault, code);
    front.until_ready(false).await;
    front.put(&during).await.assert_refused(fault, code);
    end(servers).await;
    let took = front.until_ready(true).await;
    front.put_until_taken(&during).await;
    println!("{fault}: ready {} ms after its end", took.as_millis());
}
