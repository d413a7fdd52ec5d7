//! A real coordinator on a free loopback port, in this process.

use std::net::SocketAddr;

use redrive_coordinator::CoordinatorConfig;
use redrive_worker::client::Client;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A coordinator that ends with the test.
pub struct Server {
    pub address: SocketAddr,
    http: reqwest::Client,
    task: JoinHandle<()>,
    shutdown: CancellationToken,
    _stop: DropGuard,
}

/// A reply as far as tests look at it.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub kind: String,
    pub json: Value,
}

impl Reply {
    /// The stable code of a problem document.
    pub fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or("(no code)")
    }
}

impl Server {
    /// In memory; queues must be made first.
    pub async fn start() -> Self {
        Self::with(CoordinatorConfig { in_memory: true, ..CoordinatorConfig::default() }).await
    }

    pub async fn with(config: CoordinatorConfig) -> Self {
        let config = CoordinatorConfig { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..config };
        let shutdown = CancellationToken::new();
        let (ready, address) = oneshot::channel();
        let running = redrive_coordinator::run(config, None, shutdown.clone(), ready);
        let task = tokio::spawn(async move { running.await.expect("the coordinator runs") });
        let address = address.await.expect("the coordinator gets ready");
        let _stop = shutdown.clone().drop_guard();
        // Also chooses the process's TLS provider, which a bare client asks for.
        drop(Client::new("http://127.0.0.1:1"));
        Self { address, http: reqwest::Client::new(), task, shutdown, _stop }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn get(&self, path: &str) -> Reply {
        read(self.http.get(self.url(path))).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.post_raw(path, body.to_string().into_bytes()).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Reply {
        read(self.http.put(self.url(path)).header("content-type", "application/json").body(body.to_string()))
            .await
    }

    pub async fn post_raw(&self, path: &str, body: Vec<u8>) -> Reply {
        read(self.http.post(self.url(path)).header("content-type", "application/json").body(body)).await
    }

    /// Any request.
    pub fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, self.url(path))
    }

    /// Stops it and waits for the end.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.expect("a clean stop");
    }
}

/// Sends a request and reads what comes back.
pub async fn read(request: reqwest::RequestBuilder) -> Reply {
    let response = request.send().await.expect("an answer");
    let header = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
    let kind = header("content-type").unwrap_or_default();
    let status = response.status().as_u16();
    let text = response.text().await.expect("a body");
    Reply { status, kind, json: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
}
