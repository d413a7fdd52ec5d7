//! Everything that runs in the demo: a coordinator, the flaky upstream, workers, and one more in a process of its own.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use redrive_coordinator::{AmqpConfig, CoordinatorConfig, CoordinatorError};
use redrive_shared::clock::{Clock as _, SystemClock};
use redrive_shared::id::Name;
use redrive_worker::client::Client;
use redrive_worker::handlers::HttpHandler;
use redrive_worker::{Summary, WorkerConfig, WorkerError};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::scenario::{self, AGENTS, Agent, CRASHY, CRASHY_CONCURRENCY, REPORTS};
use crate::upstream::{Upstream, UpstreamHandle};

/// Time between heartbeats, in milliseconds: what breakers do is seen in them.
const HEARTBEAT_MS: u64 = 200;
/// How long a worker may go on at the end, in milliseconds. Nothing runs then if all went well.
const DRAIN_MS: u64 = 1_000;
/// What the crashing worker says, in the directory of the demo.
const CRASHY_LOG: &str = "crashy.log";

/// How long everything may take to end: more than a coordinator's grace.
const DISMISSAL: Duration = Duration::from_secs(8);
/// A coordinator looks once a second who has room for what is pushed. A play that began before would tell of that.
const PUSH_SETTLES: Duration = Duration::from_millis(1_200);

/// Everything that runs in this process, so that all of it can be ended, however far the play has come.
#[derive(Debug, Default)]
pub struct Crew {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Crew {
    /// Ends what still runs, and waits until it has.
    pub async fn dismiss(self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(DISMISSAL, self.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.tasks.len(), "some of the demo does not end");
        }
    }
}

/// What runs. Dropping it ends the other process too.
pub struct Stage {
    /// The coordinator's API.
    pub client: Client,
    /// The upstream's log and outages.
    pub upstream: UpstreamHandle,
    upstream_url: String,
    upstream_since_ms: i64,
    /// Where work comes from, if it is pushed.
    amqp: AmqpConfig,
    tasks: TaskTracker,
    coordinator: JoinHandle<Result<(), CoordinatorError>>,
    workers: JoinSet<Result<Summary, WorkerError>>,
    workers_stop: CancellationToken,
    stop: CancellationToken,
    scratch: PathBuf,
}

impl Stage {
    /// Starts the coordinator and the upstream. `scratch` is a directory for what is thrown away.
    pub async fn open(config: CoordinatorConfig, scratch: &Path, crew: &Crew) -> anyhow::Result<Self> {
        let (stop, tasks) = (crew.stop.clone(), crew.tasks.clone());
        let amqp = config.amqp.clone();
        let upstream = Upstream::bind(SocketAddr::from(([127, 0, 0, 1], 0)));
        let upstream = upstream.await.context("cannot start the flaky upstream")?;
        let (handle, upstream_url, upstream_since_ms) =
            (upstream.handle(), upstream.url(), SystemClock.now_ms());
        tasks.spawn(upstream.run(stop.clone()));
        let (ready, listening) = oneshot::channel();
        let mut coordinator = tasks.spawn(redrive_coordinator::run(config, None, stop.clone(), ready));
        let address = tokio::select! {
            address = listening => address.ok(),
            ended = &mut coordinator => { ended??; None }
        };
        let address = match address {
            Some(address) => address,
            None => {
                coordinator.await??;
                anyhow::bail!("the coordinator ended before it was ready");
            }
        };
        Ok(Self {
            client: Client::new(&format!("http://{address}"))?,
            upstream: handle,
            upstream_url,
            upstream_since_ms,
            amqp,
            tasks,
            coordinator,
            workers: JoinSet::new(),
            workers_stop: stop.child_token(),
            stop,
            scratch: scratch.to_owned(),
        })
    }

    /// The upstream's address.
    pub fn upstream_url(&self) -> &str {
        &self.upstream_url
    }

    /// When each task's work was asked for, in order (ms since the epoch).
    pub fn calls_ms(&self) -> BTreeMap<String, Vec<i64>> {
        let mut calls = BTreeMap::<String, Vec<i64>>::new();
        for entry in self.upstream.log() {
            calls
                .entry(entry.key)
                .or_default()
                .push(self.upstream_since_ms.saturating_add_unsigned(entry.started_ms));
        }
        calls
    }

    /// Starts the workers of this process. Each speaks HTTP to the coordinator and to the upstream, as it would from
    /// another machine, and AMQP to RabbitMQ if that brings its work.
    pub fn start_workers(&mut self) -> anyhow::Result<()> {
        for agent in AGENTS {
            let config = self.worker(agent)?;
            let handler = Arc::new(HttpHandler::new(&self.upstream_url)?);
            let link = config.connect(&self.workers_stop)?;
            let worker = redrive_worker::run(config, handler, link, self.workers_stop.clone());
            self.workers.spawn(self.tasks.track_future(worker));
        }
        Ok(())
    }

    /// Waits until the coordinator has seen who takes what it pushes.
    pub async fn wait_for_push(&self) {
        if self.amqp.url.is_some() {
            tokio::time::sleep(PUSH_SETTLES).await;
        }
    }

    fn worker(&self, agent: Agent) -> anyhow::Result<WorkerConfig> {
        let queues = agent.queues.iter().map(|name| Name::new(*name)).collect::<Result<_, _>>()?;
        Ok(WorkerConfig {
            url: self.client.url().to_owned(),
            agent: Name::new(agent.name)?,
            queues,
            concurrency: agent.concurrency,
            link: self.amqp.url.clone(),
            link_prefix: self.amqp.prefix.clone(),
            drain_ms: DRAIN_MS,
            heartbeat_ms: Some(HEARTBEAT_MS),
            breaker: scenario::breaker(),
            ..WorkerConfig::default()
        })
    }

    /// Starts our own executable as a worker: something that can be killed with nobody left to clean up after it.
    pub fn start_crashy(&self) -> anyhow::Result<Child> {
        let log = File::create(self.scratch.join(CRASHY_LOG))
            .context("cannot write the log of the worker process")?;
        let executable = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new(executable);
        // What the user has set is meant for other workers than this one.
        let foreign = std::env::vars_os().map(|(name, _)| name);
        for name in foreign.filter(|name| name.to_string_lossy().starts_with("REDRIVE_")) {
            command.env_remove(name);
        }
        if let Some(address) = &self.amqp.url {
            // Arguments can be read by everyone on this machine; the address may hold a password.
            command
                .env("REDRIVE__WORKER__LINK", address.reveal())
                .env("REDRIVE__WORKER__LINK_PREFIX", &self.amqp.prefix);
        }
        command
            .args(["worker", "--agent", CRASHY, "--queues", REPORTS])
            .args(["--concurrency", &CRASHY_CONCURRENCY.to_string()])
            .args(["--http", &self.upstream_url, "--url", self.client.url()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true);
        command.spawn().context("cannot start the worker process")
    }

    /// The last thing that the crashing worker said, for those who wonder why it did not come up.
    pub fn crashy_said(&self) -> Option<String> {
        let log = std::fs::read_to_string(self.scratch.join(CRASHY_LOG)).ok()?;
        log.lines().rfind(|line| !line.trim().is_empty()).map(str::to_owned)
    }

    /// Ends the workers, then the coordinator and the upstream, and says what went wrong on the way.
    pub async fn close(mut self) -> anyhow::Result<()> {
        self.workers_stop.cancel();
        while let Some(ended) = self.workers.join_next().await {
            ended??;
        }
        self.stop.cancel();
        (&mut self.coordinator).await??;
        Ok(())
    }
}
