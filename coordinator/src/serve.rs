//! Running a coordinator: store, engine, duties and API, from start to a clean stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use redrive_shared::clock::{Clock, SystemClock};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::amqp::Amqp;
use crate::api::Api;
use crate::blobs::{BlobError, Depot};
use crate::config::CoordinatorConfig;
use crate::connections::serve;
use crate::duties::{Forgetter, Listener, Reaper, Sweeper};
use crate::engine::Engine;
use crate::store::doctor::{Report, Verdict};
use crate::store::redis::link::Link;
use crate::store::redis::{RedisConfig, RedisStore, doctor};
use crate::store::sqlite::SqliteStore;
use crate::store::{Store, StoreError};

/// How often the metrics recorder tidies up; without it, histograms grow.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Why a coordinator did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// Only loopback is safe without keys.
    #[error(
        "will not listen on {0}: anyone who reaches it could read and change every task, and there are no API keys yet; \
         listen on 127.0.0.1 and put an authenticating proxy before it"
    )]
    NotLoopback(SocketAddr),
    /// The address is taken or not this machine's.
    #[error(
        "cannot listen on {address}: {source}; choose another address with --listen, or port 0 for any that is free"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store would lose tasks.
    #[error(
        "will not start on a store that would lose tasks, or cannot work, unless allow_unsafe is set: {}",
        refusals(.0)
    )]
    Unsafe(Report),
    /// The storage of blobs cannot be opened.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// RabbitMQ has something of that name that is not as it must be.
    #[error("cannot use RabbitMQ: {0}")]
    Amqp(String),
    /// A background duty failed in a way that it must not.
    #[error(
        "a background duty failed: {0}; this is a defect, its trace is in the log; start the coordinator again"
    )]
    Defect(String),
}

/// Runs a coordinator until shutdown. `ready` hears where it listens.
pub async fn run(
    config: CoordinatorConfig,
    metrics: Option<PrometheusHandle>,
    shutdown: CancellationToken,
    ready: oneshot::Sender<SocketAddr>,
) -> Result<(), CoordinatorError> {
    if !config.listen.ip().is_loopback() {
        return Err(CoordinatorError::NotLoopback(config.listen));
    }
    let listen = |source| CoordinatorError::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let store = open(&config).await?;
    let clock = store.clock().unwrap_or_else(|| Arc::new(SystemClock));
    let depot = Depot::open(&config, &*store, Arc::clone(&clock)).await?.map(Arc::new);
    let engine = Engine::new(store, depot, clock, config.create_queues, config.gates, shutdown.clone());
    engine.learn_gates().await;
    let mut duties = start_duties(&engine, metrics.as_ref(), &shutdown);
    if let Some(sweeper) = Sweeper::new(Arc::clone(&engine), config.blobs.sweep_every_ms) {
        let stop = shutdown.clone();
        duties.spawn(async move { sweeper.run(stop).await });
    }
    if config.amqp.url.is_some() {
        let amqp = Amqp::new(Arc::clone(&engine), config.amqp.clone(), shutdown.clone());
        amqp.prepare().await.map_err(|error| CoordinatorError::Amqp(error.to_string()))?;
        duties.spawn(async move { amqp.run().await });
    }
    let body_timeout = Duration::from_millis(config.body_timeout_ms);
    let router = Api::new(engine, metrics, body_timeout, shutdown.clone()).router();
    tracing::info!(%address, in_memory = config.in_memory, "ready");
    // Whoever asked may have gone; the coordinator serves all the same.
    let _ = ready.send(address);
    let grace = Duration::from_millis(config.shutdown_grace_ms);
    // A duty ends by itself only through a defect: then nothing would be dispatched or reaped, so the whole stops.
    let defect = tokio::select! {
        () = serve(listener, router, &shutdown, grace) => None,
        Some(ended) = duties.join_next(), if !shutdown.is_cancelled() => ended.err(),
    };
    shutdown.cancel();
    while duties.join_next().await.is_some() {}
    tracing::info!("stopped");
    defect.map_or(Ok(()), |error| Err(CoordinatorError::Defect(error.to_string())))
}

/// What keeps a coordinator from starting.
fn refusals(report: &Report) -> String {
    report.refused().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Opens the store that the configuration names.
async fn open(config: &CoordinatorConfig) -> Result<Arc<dyn Store>, CoordinatorError> {
    if let Some(shared) = config.store.redis() {
        examine(&shared, config.store.allow_unsafe).await?;
        return Ok(Arc::new(RedisStore::open(&shared, None).await?));
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Ok(Arc::new(if config.in_memory {
        SqliteStore::in_memory(clock)?
    } else {
        SqliteStore::open(&config.data_dir, clock)?
    }))
}

/// The checks of `redrive doctor`, before anything is written.
async fn examine(shared: &RedisConfig, allow_unsafe: bool) -> Result<(), CoordinatorError> {
    let link = Link::open(&shared.address, shared.link).await?;
    let report = doctor::examine_over(&link, shared).await;
    if !allow_unsafe && report.verdict() == Verdict::Refused {
        return Err(CoordinatorError::Unsafe(report));
    }
    for finding in report.findings() {
        match finding.verdict {
            Verdict::Ok => tracing::debug!(%finding, "the store was checked"),
            Verdict::Skipped => tracing::info!(%finding, "the store could not be checked"),
            Verdict::Warning => tracing::warn!(%finding, "the store was checked"),
            Verdict::Refused => tracing::warn!(%finding, "unsafe, and allowed"),
        }
    }
    Ok(())
}

fn start_duties(
    engine: &Arc<Engine>,
    metrics: Option<&PrometheusHandle>,
    shutdown: &CancellationToken,
) -> JoinSet<()> {
    let mut duties = JoinSet::new();
    let (dispatching, stop) = (Arc::clone(engine), shutdown.clone());
    duties.spawn(async move { dispatching.dispatcher().run(stop).await });
    let (keeping, stop) = (Arc::clone(engine), shutdown.clone());
    duties.spawn(async move { keeping.keep_gates(stop).await });
    let (keeping, stop) = (Arc::clone(engine), shutdown.clone());
    duties.spawn(async move { keeping.keep_locks(stop).await });
    let (reaper, stop) = (Reaper::new(Arc::clone(engine)), shutdown.clone());
    duties.spawn(async move { reaper.run(stop).await });
    let (forgetter, stop) = (Forgetter::new(Arc::clone(engine)), shutdown.clone());
    duties.spawn(async move { forgetter.run(stop).await });
    if let Some(hints) = engine.store().hints() {
        let (listener, stop) = (Listener::new(Arc::clone(engine), hints), shutdown.clone());
        duties.spawn(async move { listener.run(stop).await });
    }
    if let Some(recorder) = metrics.cloned() {
        let stop = shutdown.clone();
        duties.spawn(async move {
            let mut ticks = tokio::time::interval(UPKEEP_EVERY);
            while stop.run_until_cancelled(ticks.tick()).await.is_some() {
                recorder.run_upkeep();
            }
        });
    }
    duties
}
