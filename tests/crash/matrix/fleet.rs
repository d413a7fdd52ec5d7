//! Three coordinators and four workers as real processes, and how to hurt them.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use redrive_shared::clock::{Clock, SystemClock};
use redrive_worker::client::Client;
use tempfile::TempDir;
use tokio::process::Child;

use super::balancer::Balancer;
use crate::support::fast_directory;
use crate::support::port::Port;
use crate::support::process::{counted, kill, ready_line, redrive, resume, suspend};

const COORDINATORS: usize = 3;
const WORKERS: usize = 4;
/// Tasks that a worker runs at once.
const CONCURRENCY: &str = "4";
/// Lines of a coordinator's log that a report can carry.
const TAIL_LINES: usize = 12;

/// What all coordinators of a fleet are told.
#[derive(Clone)]
pub struct Store {
    pub url: String,
    pub wait_replicas: u32,
}

pub struct Coordinator {
    port: Port,
    store: Store,
    log: PathBuf,
    child: Child,
    client: Client,
}

impl Coordinator {
    pub async fn start(store: Store, log: PathBuf) -> Self {
        // Not one that the kernel gives away as an outgoing connection's while the coordinator is dead.
        let port = Port::free();
        let child = spawn(&port, &store, &log).await;
        let client = Client::new(&format!("http://127.0.0.1:{}", port.number())).expect("a client");
        Self { port, store, log, child, client }
    }

    pub fn client(&self) -> Client {
        self.client.clone()
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port.number()))
    }

    pub async fn kill(&mut self) {
        kill(&mut self.child).await;
    }

    pub async fn restart(&mut self) {
        self.child = spawn(&self.port, &self.store, &self.log).await;
    }

    pub fn suspend(&self) {
        suspend(&self.child);
    }

    pub fn resume(&self) {
        resume(&self.child);
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

async fn spawn(port: &Port, store: &Store, log: &PathBuf) -> Child {
    let output = File::options().create(true).append(true).open(log).expect("a log file");
    let mut child = redrive()
        .env("REDRIVE_LOG", "warn")
        // Redis itself is to say that it is full.
        .env("REDRIVE__COORDINATOR__STORE__MEMORY_LIMIT_PERCENT", "100")
        .args([
            "--json",
            "coordinator",
            "--allow-unsafe",
            "--create-queues",
            "--store",
            &store.url,
            "--listen",
        ])
        .arg(format!("127.0.0.1:{}", port.number()))
        .args(["--wait-replicas", &store.wait_replicas.to_string()])
        .stdout(Stdio::piped())
        .stderr(output)
        .spawn()
        .expect("the coordinator starts");
    ready_line(&mut child).await;
    child
}

pub struct Worker {
    pub agent: String,
    child: Child,
    /// From when to when it was suspended, in ms since the epoch.
    pub stopped_ms: Vec<(i64, i64)>,
}

impl Worker {
    pub fn suspend(&self) {
        suspend(&self.child);
    }

    pub fn resume(&self) {
        resume(&self.child);
    }
}

pub struct Fleet {
    coordinators: Vec<Coordinator>,
    pub workers: Vec<Worker>,
    /// Those that were killed.
    pub gone: Vec<Worker>,
    balancer: Balancer,
    endpoint: String,
    lease_ms: Option<u64>,
    made: usize,
    _logs: TempDir,
}

impl Fleet {
    /// Without `lease_ms` everything about leases is as it is by default.
    pub async fn start(store: &Store, endpoint: &str, lease_ms: Option<u64>) -> Self {
        let logs = fast_directory();
        let mut coordinators = Vec::new();
        for number in 0..COORDINATORS {
            let log = logs.path().join(format!("coordinator-{number}.log"));
            coordinators.push(Coordinator::start(store.clone(), log).await);
        }
        let balancer = Balancer::new(coordinators.iter().map(Coordinator::address).collect()).await;
        let endpoint = endpoint.to_owned();
        let (workers, gone, made) = (Vec::new(), Vec::new(), 0);
        let mut fleet = Self { coordinators, workers, gone, balancer, endpoint, lease_ms, made, _logs: logs };
        for _ in 0..WORKERS {
            fleet.hire();
        }
        fleet
    }

    /// Starts one more worker.
    pub fn hire(&mut self) {
        self.made += 1;
        let agent = format!("worker-{}", self.made);
        let mut command = redrive();
        if let Some(lease_ms) = self.lease_ms {
            command.env("REDRIVE__WORKER__LEASE_MS", lease_ms.to_string());
        }
        // Breakers have tests of their own: here, who gets work is decided by who is alive.
        command.env("REDRIVE__WORKER__BREAKER__FAILURE_RATE", "1.0");
        command.env("REDRIVE__WORKER__BREAKER__MIN_OUTCOMES", "10000");
        command.env("REDRIVE__WORKER__BREAKER__RECENT_OUTCOMES", "0");
        command.env("REDRIVE__WORKER__BREAKER__TRIP_MARGIN", "0");
        let child = command
            .args(["--url", &self.balancer.url(), "worker", "--agent", &agent, "--queues", "default"])
            .args(["--http", &self.endpoint, "--concurrency", CONCURRENCY])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the worker starts");
        self.workers.push(Worker { agent, child, stopped_ms: Vec::new() });
    }

    /// kill -9 of one, whose successor starts at once. Returns its name, and when.
    pub async fn replace_worker(&mut self, index: usize) -> (String, i64) {
        let mut worker = self.workers.remove(index);
        let at_ms = SystemClock.now_ms();
        kill(&mut worker.child).await;
        let agent = worker.agent.clone();
        self.gone.push(worker);
        self.hire();
        (agent, at_ms)
    }

    pub fn coordinator(&mut self, index: usize) -> &mut Coordinator {
        &mut self.coordinators[index]
    }

    /// A client of one that is not this one.
    pub fn client_beside(&self, index: usize) -> Client {
        self.coordinators[(index + 1) % COORDINATORS].client()
    }

    /// A client of all of them.
    pub fn client(&self) -> Client {
        Client::new(&self.balancer.url()).expect("a client")
    }

    /// Calls with a stale epoch that they refused since their last start.
    pub async fn stale_calls(&self) -> u64 {
        let mut refused = 0;
        for coordinator in &self.coordinators {
            let url = format!("http://{}/metrics", coordinator.address());
            // An error is a store that does not answer in time: its counter is then among those that did not survive.
            let Ok(answer) = reqwest::get(url).await else { continue };
            let metrics = answer.text().await.unwrap_or_default();
            refused += counted(&metrics, "redrive_stale_epochs_total");
        }
        refused
    }

    /// How many there are of each, for who picks one.
    pub fn sizes(&self) -> (usize, usize) {
        (self.coordinators.len(), self.workers.len())
    }

    /// What the coordinators logged last.
    pub fn logs(&self) -> String {
        self.coordinators.iter().map(Coordinator::log_tail).collect::<Vec<_>>().join("\n--\n")
    }
}
