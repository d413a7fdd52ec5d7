//! A flaky upstream: a real HTTP/1.1 server on loopback that fails as LLM and tool APIs do.
//!
//! ```text
//! POST /any/path                                       Idempotency-Key: invoice-17 (or "key" in the body)
//! {"script": ["429_retry_after:2", "529", "ok@120"], "input": {…}}
//! ```
//!
//! A Redrive worker wraps that into a task: the body may also be `{…, "payload": {"script": …}}`.
//!
//! The n-th call with one key gets the n-th reply of the script that it carries, and `ok` beyond the script's end, so a
//! client that just sends the same request again meets the faults in order. The names are those of [`Reply`]; `@120`
//! delays a reply by 120 ms. While an outage is on, every request gets the outage's reply and no script advances.
//!
//! What makes it useful in tests is the [log](Entry): each request that arrived, when it was being served, and how it
//! ended. `effects` counts completed work per key, so that work done twice shows; `overlaps` finds calls of one key that
//! were served at the same time, so that two workers on one task show. A client that leaves during a delay ends its call,
//! and its work is not done; one that leaves while the answer is on its way has had its work done.
//!
//! `GET /health` answers 200 and `GET /log` gives the log as JSON lines; neither is logged nor part of an outage.
//!
//! Deliberately absent: TLS, HTTP/2, authentication (so bind it to loopback) and a wall clock (so no `date` header).

mod answer;
mod bucket;
mod connection;
mod http;
mod limits;
mod log;
mod reply;
mod request;
mod state;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use log::{Entry, Outcome, Overlap};
pub use reply::{ParseReplyError, REPLY_NAMES, Reply, Step};
pub use state::{Progress, UpstreamHandle};

use connection::Connection;
use state::Shared;

/// An outage known in advance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduledOutage {
    /// Its start, counted from the arrival of the first request.
    pub from: Duration,
    /// Its end, counted likewise; not included.
    pub to: Duration,
    /// What every request gets meanwhile.
    pub reply: Reply,
}

/// A rate limit over all requests: a token bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateLimit {
    /// Requests a second in the long run, above 0.
    pub per_s: f64,
    /// Requests at once after a pause.
    pub burst: u32,
    /// What those beyond it get.
    pub reply: Reply,
}

/// How an upstream behaves beyond what requests ask for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Outages; the first that is on counts, and one begun by a handle comes before them all.
    pub outages: Vec<ScheduledOutage>,
    /// A limit that is enforced. Outages come before it. Default: none.
    pub rate_limit: Option<RateLimit>,
    /// How long `hang` hangs if the client does not give up. Default and maximum: 60 s.
    pub hang_max: Duration,
    /// How long a request's head may take to arrive. Default: 10 s.
    pub head_timeout: Duration,
    /// Connections served at once; more wait. Default: 1,024.
    pub connections_max: usize,
    /// Requests kept in the log. Default and maximum: 200,000.
    pub log_entries_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            outages: Vec::new(),
            rate_limit: None,
            hang_max: limits::HANG_MAX,
            head_timeout: limits::HEAD_TIMEOUT,
            connections_max: limits::CONNECTIONS_MAX,
            log_entries_max: limits::LOG_ENTRIES_MAX,
        }
    }
}

/// A flaky upstream that listens, and serves once it is [run](Self::run).
#[derive(Debug)]
pub struct Upstream {
    listener: TcpListener,
    addr: SocketAddr,
    shared: Arc<Shared>,
    options: Options,
}

impl Upstream {
    /// Listens on `addr`; port 0 picks a free one.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn bind(addr: SocketAddr) -> io::Result<Self> {
        Self::bind_with(addr, Options::default()).await
    }

    /// Listens on `addr`, with options.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn bind_with(addr: SocketAddr, options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        Ok(Upstream { listener, addr, shared: Arc::new(Shared::new(&options)), options })
    }

    /// Its base URL, without a slash at the end: `http://127.0.0.1:49152`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The address that it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// A handle to its log and outages.
    pub fn handle(&self) -> UpstreamHandle {
        UpstreamHandle { shared: Arc::clone(&self.shared) }
    }

    /// Serves until `shutdown`, then closes every connection, those that are hanging too; their calls are logged as
    /// [`Outcome::Stopped`]. Dropping the future does the same.
    pub async fn run(self, shutdown: CancellationToken) {
        let Upstream { listener, shared, options, .. } = self;
        let hang_max = options.hang_max.min(limits::HANG_MAX);
        let mut connections = JoinSet::new();
        let mut connection_id = 0;
        loop {
            let room = connections.len() < options.connections_max;
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept(), if room => match accepted {
                    Ok((stream, _)) => {
                        connection_id += 1;
                        let shared = Arc::clone(&shared);
                        let head_timeout = options.head_timeout;
                        let connection = Connection::new(stream, shared, connection_id, hang_max, head_timeout);
                        connections.spawn(connection.serve());
                    }
                    Err(_) => tokio::time::sleep(limits::ACCEPT_PAUSE).await,
                },
            }
        }
        connections.shutdown().await;
    }
}
