//! Checkpoints, as workers and operators meet them: over the API of real coordinators, on both stores.

mod bad_input;
mod command;
mod crash;
mod duplicates;
mod large;
mod metrics;
mod saving;

use std::path::PathBuf;

use redrive_coordinator::config::BlobsConfig;
use redrive_coordinator::{CoordinatorConfig, StoreConfig};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::fast_directory;
use crate::support::redis::RedisServer;
use crate::support::server::{Reply, Server};

/// A coordinator on the embedded store, on disk, and one on Redis; both keep blobs in files.
struct Stores {
    servers: [(&'static str, Server); 2],
    directory: TempDir,
    _redis: RedisServer,
}

impl Stores {
    async fn start() -> Self {
        let (directory, redis) = (fast_directory(), RedisServer::start().await);
        let embedded =
            CoordinatorConfig { data_dir: directory.path().join("data"), ..CoordinatorConfig::default() };
        let url = Some(redis.url().parse().expect("an address"));
        let store = StoreConfig { url, allow_unsafe: true, ..StoreConfig::default() };
        let url = format!("files:{}", directory.path().join("shared").display());
        let blobs = BlobsConfig { url: Some(url.parse().expect("an address")), ..BlobsConfig::default() };
        let shared = CoordinatorConfig { store, blobs, ..CoordinatorConfig::default() };
        let servers = [("SQLite", Server::with(embedded).await), ("Redis", Server::with(shared).await)];
        Self { servers, directory, _redis: redis }
    }

    /// Where the blobs of each are.
    fn blobs(&self) -> [PathBuf; 2] {
        [self.directory.path().join("data").join("blobs"), self.directory.path().join("shared")]
    }
}

/// Makes what failed or was lost come back at once.
async fn retry_at_once(server: &Server) {
    let at_once = json!({"strategy": {"strategy": "fixed", "delay_ms": 0}});
    let policy = json!({"policy": {"overrides": {"server_error": at_once, "worker_lost": at_once}}});
    assert_eq!(server.put("/v1/queues/default", &policy).await.status, 200);
}

async fn enqueue(server: &Server, task: Value) -> Value {
    let reply = server.post("/v1/tasks", &json!({"tasks": [task]})).await;
    reply.json["results"][0].clone()
}

/// The next lease, by an agent of that name.
async fn claim(server: &Server, agent: &str) -> Value {
    let asked = json!({"agent": agent, "queues": ["default"], "max": 1, "wait_ms": 20_000});
    let reply = server.post("/v1/claims", &asked).await;
    assert!(reply.json["leases"][0].is_object(), "{:#}", reply.json);
    reply.json["leases"][0].clone()
}

/// The fence of a lease, with more.
fn under(lease: &Value, more: Value) -> Value {
    let mut all = json!({"epoch": lease["epoch"], "nonce": lease["nonce"]});
    let fields = all.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    all
}

/// Saves a checkpoint under a lease.
async fn save(server: &Server, lease: &Value, checkpoint: Value) -> Reply {
    let path = format!("/v1/tasks/{}/checkpoint", lease["id"].as_str().expect("an id"));
    server.put(&path, &under(lease, checkpoint)).await
}

/// Ends the attempt.
async fn settle(server: &Server, lease: &Value, outcome: Value) -> Value {
    let settlement = under(lease, json!({"id": lease["id"], "outcome": outcome}));
    server.post("/v1/settlements", &json!({"settlements": [settlement]})).await.json["results"][0].clone()
}

fn failed() -> Value {
    json!({"retry": {"failure": {"http_status": 500, "body": "oops"}}})
}
