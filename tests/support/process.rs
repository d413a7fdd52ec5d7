//! Real processes: this project's own binary, started, killed and started again.

use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use redrive_worker::client::Client;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::signal;

/// Far longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(30);

/// The binary under test.
pub const REDRIVE: &str = env!("CARGO_BIN_EXE_redrive");

/// A command that ends with the test, without the environment's own settings.
pub fn redrive() -> Command {
    let mut command = Command::new(REDRIVE);
    for name in ["REDRIVE_URL", "REDRIVE_CONFIG"] {
        command.env_remove(name);
    }
    command.env("REDRIVE_LOG", "error").stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// A worker whose handler is a shell command; in its environment the binary under test is `REDRIVE`.
pub fn exec_worker(coordinator: &str, agent: &str, handler: &str, settings: &[(&str, String)]) -> Child {
    redrive()
        .args(["--url", coordinator, "worker", "--agent", agent, "--queues", "default", "--exec", handler])
        .env("REDRIVE", REDRIVE)
        .envs(settings.iter().map(|(name, value)| (name, value)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the worker starts")
}

/// kill -9 of a worker and of its handlers, each with all that it started: as when their machine goes down.
pub async fn kill_with_handlers(worker: &mut Child) {
    let id = pid(worker);
    // So that it starts no other meanwhile.
    suspend(worker);
    let handlers = handlers_of(id);
    kill(worker).await;
    handlers.into_iter().for_each(signal::kill_group);
}

/// The handlers of a worker that run now: each leads a group of processes.
pub fn handlers_of(worker: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{worker}/task")).into_iter().flatten().flatten() {
        let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        found.extend(children.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
    }
    found
}

/// A coordinator that can be killed, suspended and started again at the same address.
pub struct Coordinator {
    /// How it is started, but for its address.
    command: Vec<OsString>,
    /// Of its environment.
    settings: Vec<(String, String)>,
    address: SocketAddr,
    child: Child,
}

impl Coordinator {
    /// `redrive dev`, on the embedded store.
    pub async fn start(data_dir: &Path) -> Self {
        Self::with(["dev".into(), "--data-dir".into(), data_dir.into()].to_vec()).await
    }

    /// `redrive coordinator`, on a shared store.
    pub async fn on(store: &str) -> Self {
        Self::with(["coordinator", "--allow-unsafe", "--store", store].map(OsString::from).to_vec()).await
    }

    /// The same, pushing to RabbitMQ; `push` as its flag takes it.
    pub async fn pushing(store: &str, amqp: &str, push: &str) -> Self {
        let (store, amqp) = (["--store", store], ["--amqp", amqp, "--push", push]);
        let command = [&["coordinator", "--allow-unsafe"][..], &store, &amqp].concat();
        Self::with(command.into_iter().map(OsString::from).collect()).await
    }

    async fn with(command: Vec<OsString>) -> Self {
        Self::configured(command, Vec::new()).await
    }

    /// Whatever it is, with such settings in its environment.
    pub async fn configured(command: Vec<OsString>, settings: Vec<(String, String)>) -> Self {
        let address = free_address();
        let child = Self::spawn(&command, &settings, address).await;
        Self { command, settings, address, child }
    }

    async fn spawn(command: &[OsString], settings: &[(String, String)], address: SocketAddr) -> Child {
        let mut child = redrive()
            .arg("--json")
            .args(command)
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .args(["--listen", &address.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the coordinator starts");
        ready_line(&mut child).await;
        child
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn client(&self) -> Client {
        Client::new(&self.url()).expect("a client")
    }

    /// kill -9.
    pub async fn kill(&mut self) {
        kill(&mut self.child).await;
    }

    /// SIGSTOP: the kernel goes on to accept its connections, and nobody answers.
    pub fn suspend(&self) {
        suspend(&self.child);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        resume(&self.child);
    }

    /// Starts it again on the same data at the same address.
    pub async fn restart(&mut self) {
        self.child = Self::spawn(&self.command, &self.settings, self.address).await;
    }
}

impl Coordinator {
    /// Calls with a stale epoch that it refused since its start.
    pub async fn stale_epochs(&self) -> u64 {
        self.metric("redrive_stale_epochs_total").await
    }

    /// A counter, over all its labels together; 0 before it was first counted.
    pub async fn metric(&self, name: &str) -> u64 {
        // It brings what makes TLS possible, without which there is no HTTP either.
        drop(self.client());
        let metrics = reqwest::get(format!("{}/metrics", self.url())).await.expect("an answer");
        let metrics = metrics.text().await.expect("a body");
        counted(&metrics, name)
    }
}

/// A counter in what `/metrics` says, over all its labels together.
pub fn counted(metrics: &str, name: &str) -> u64 {
    let series = metrics.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(['{', ' ']));
    series.filter_map(|rest| rest.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// Reads the line with which a process says that it is ready.
pub async fn ready_line(child: &mut Child) -> serde_json::Value {
    let stdout = child.stdout.take().expect("a piped stdout");
    let mut lines = BufReader::new(stdout).lines();
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("ready in time");
    let line = line.expect("readable").expect("a line before it ends");
    // Goes on reading, so that the process never finds its stdout closed.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    serde_json::from_str(&line).expect("JSON")
}

/// kill -9, and waits until it is gone.
pub async fn kill(child: &mut Child) {
    child.start_kill().expect("it can be killed");
    child.wait().await.expect("it ends");
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("an address")
}

/// A worker whose handler is an HTTP endpoint.
pub fn worker(coordinator: &str, agent: &str, endpoint: &str, concurrency: u32) -> Child {
    http_worker(redrive(), coordinator, agent, endpoint, concurrency)
}

/// Like [`worker`], with leases of this length and one task at a time.
pub fn worker_with_lease(coordinator: &str, agent: &str, endpoint: &str, lease_ms: u64) -> Child {
    let mut command = redrive();
    command.env("REDRIVE__WORKER__LEASE_MS", lease_ms.to_string());
    http_worker(command, coordinator, agent, endpoint, 1)
}

fn http_worker(
    mut command: Command,
    coordinator: &str,
    agent: &str,
    endpoint: &str,
    concurrency: u32,
) -> Child {
    command
        .args(["--url", coordinator, "worker", "--agent", agent, "--queues", "default", "--http", endpoint])
        .args(["--concurrency", &concurrency.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the worker starts")
}

/// SIGTERM.
pub fn terminate(child: &Child) {
    signal::send(pid(child), "-TERM");
}

/// SIGSTOP, and waits until it is in force.
pub fn suspend(child: &Child) {
    signal::suspend(pid(child));
}

/// SIGCONT.
pub fn resume(child: &Child) {
    signal::resume(pid(child));
}

/// Its number.
pub fn pid(child: &Child) -> u32 {
    child.id().expect("it runs")
}
