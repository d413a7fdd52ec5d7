//! The coordinator's HTTP API, typed.
//!
//! One method an endpoint; requests and replies are those of [`redrive_shared::wire`]. No method of [`Client`] retries: whether and
//! when to repeat a call is for the caller to say ([`ClientError::is_retryable`], [`ClientError::retry_after`]).

mod attempt;
mod blobs;
mod checkpoints;
mod context;
mod error;
mod presence;
#[cfg(test)]
mod tests;

use std::time::Duration;

use redrive_shared::error::Problem;
use redrive_shared::id::{Name, TaskId};
use redrive_shared::lock::Resource;
use redrive_shared::task::{TaskState, TaskView};
use redrive_shared::wire::{
    ACTOR_HEADER, AgentsReply, BreakerCommand, BreakerCommandRequest, BreakersReply, ClaimReply,
    ClaimRequest, EnqueueReply, EnqueueRequest, ExtendReply, ExtendRequest, GateRequest, GateView,
    GatesReply, Heartbeat, HeartbeatReply, LockBreak, LockGrant, LockRefs, LockReply, LockRequest,
    LockResults, LockView, LocksReply, Page, QueueCreate, QueueVersionsReply, QueueView, QueuesPut,
    QueuesReply, ReportsRequest, SettleReply, SettleRequest, StatusReply, StatusRequest, TaskAction,
    TaskActionReply, TaskActionRequest,
};
use reqwest::header::HeaderValue;
use reqwest::{Method, RequestBuilder, Response, Url, header};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use blobs::Download;
pub(crate) use context::StopReply;
pub use context::{AskError, CONTEXT_URL, ContextClient};
pub use error::ClientError;
pub(crate) use error::error_chain;
pub use presence::Presence;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an ordinary call may take, from the first byte sent to the last received.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Silence on a connection before the kernel asks whether the peer is there, and between its questions: finds half-open
/// connections, on which an HTTP client would wait for ever.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// How long an unused connection is kept: less than the 30 s after which the coordinator closes it, so that no call goes out
/// on one that is being closed.
const POOL_IDLE: Duration = Duration::from_secs(20);
/// Bytes of a body that nobody can read that are shown in an error.
const EXCERPT_MAX_CHARS: usize = 200;

/// Which tasks to list.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Of this queue; of every queue when left out.
    pub queue: Option<Name>,
    /// In this state; in every state when left out.
    pub state: Option<TaskState>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// Tasks a page, 1 to 500; the coordinator decides when left out.
    pub limit: Option<u32>,
}

/// A client of one coordinator, or of a load balancer in front of several. Clones are cheap and share connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    actor: Option<HeaderValue>,
}

impl Client {
    /// A client of the coordinator at `base_url`, such as `http://127.0.0.1:7878`; a path in it is kept. Nothing is
    /// sent yet. Installs the ring provider for TLS when the process has none.
    pub fn new(base_url: &str) -> Result<Self, ClientError> {
        install_tls_provider();
        let refused = |detail: String| ClientError::Address { url: base_url.to_owned(), detail };
        let base = Url::parse(base_url).map_err(|error| refused(error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            return Err(refused("it must look like http://HOST:PORT".to_owned()));
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("redrive/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .tcp_keepalive(KEEPALIVE)
            .tcp_keepalive_interval(KEEPALIVE)
            .tcp_keepalive_retries(3)
            .pool_idle_timeout(POOL_IDLE)
            // A redirect would turn a POST into a GET; a coordinator never sends one.
            .redirect(reqwest::redirect::Policy::none());
        if is_loopback(&base) {
            // HTTP_PROXY is meant for the world outside, whoever forgot NO_PROXY.
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| refused(error_chain(&error)))?;
        Ok(Self { http, base, actor: None })
    }

    /// The same client, which says who changes something: for the record of those changes.
    #[must_use]
    pub fn acting_as(self, actor: &Name) -> Self {
        // Names have no control characters, which is all that a header may not have.
        Self { actor: HeaderValue::from_bytes(actor.as_bytes()).ok(), ..self }
    }

    /// The coordinator's address.
    pub fn url(&self) -> &str {
        self.base.as_str()
    }

    /// Puts tasks on their queues, durably. Repeating it is safe for tasks that carry their own id.
    pub async fn enqueue(&self, request: &EnqueueRequest) -> Result<EnqueueReply, ClientError> {
        self.post(&["v1", "tasks"], request, 0).await
    }

    /// One task. With `wait_ms`, the answer comes when it is settled, or after that time as it then is.
    pub async fn task(&self, id: &TaskId, wait_ms: Option<u64>) -> Result<TaskView, ClientError> {
        let mut url = self.endpoint(&["v1", "tasks", id])?;
        if let Some(wait_ms) = wait_ms {
            url.query_pairs_mut().append_pair("wait_ms", &wait_ms.to_string());
        }
        self.call(self.request(Method::GET, &url).timeout(long_poll(wait_ms.unwrap_or(0))), &url).await
    }

    /// A page of tasks, newest first.
    pub async fn tasks(&self, query: &ListQuery) -> Result<Page, ClientError> {
        let mut url = self.endpoint(&["v1", "tasks"])?;
        let limit = query.limit.map(|limit| limit.to_string());
        let pairs = [
            ("queue", query.queue.as_deref()),
            ("state", query.state.map(TaskState::as_str)),
            ("cursor", query.cursor.as_deref()),
            ("limit", limit.as_deref()),
        ];
        for (key, value) in pairs {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(key, value);
            }
        }
        self.call(self.request(Method::GET, &url), &url).await
    }

    /// Many tasks by their ids.
    pub async fn status(&self, request: &StatusRequest) -> Result<StatusReply, ClientError> {
        self.post(&["v1", "tasks", "status"], request, 0).await
    }

    /// Calls tasks off, or runs them again.
    pub async fn act(
        &self,
        action: TaskAction,
        request: &TaskActionRequest,
    ) -> Result<TaskActionReply, ClientError> {
        let verb = match action {
            TaskAction::Cancel => "cancel",
            TaskAction::Retry => "retry",
        };
        self.post(&["v1", "tasks", verb], request, 0).await
    }

    /// Asks for work; waits up to `request.wait_ms` for some to become due.
    pub async fn claim(&self, request: &ClaimRequest) -> Result<ClaimReply, ClientError> {
        self.post(&["v1", "claims"], request, request.wait_ms).await
    }

    /// Starts leases (the first time), or makes them longer.
    pub async fn extend(&self, request: &ExtendRequest) -> Result<ExtendReply, ClientError> {
        self.post(&["v1", "leases", "extend"], request, 0).await
    }

    /// Says how attempts ended. Repeating it is safe: the first settlement of a lease stands.
    pub async fn settle(&self, request: &SettleRequest) -> Result<SettleReply, ClientError> {
        self.post(&["v1", "settlements"], request, 0).await
    }

    /// Says that an agent lives, and extends its leases.
    pub async fn heartbeat(&self, request: &Heartbeat) -> Result<HeartbeatReply, ClientError> {
        self.post(&["v1", "heartbeats"], request, 0).await
    }

    /// Reports first attempts that a client made itself.
    pub async fn reports(&self, request: &ReportsRequest) -> Result<(), ClientError> {
        let url = self.endpoint(&["v1", "reports"])?;
        self.send(self.request(Method::POST, &url).json(request), &url).await.map(drop)
    }

    /// Every queue.
    pub async fn queues(&self) -> Result<QueuesReply, ClientError> {
        self.get(&["v1", "queues"]).await
    }

    /// One queue.
    pub async fn queue(&self, name: &Name) -> Result<QueueView, ClientError> {
        self.get(&["v1", "queues", name]).await
    }

    /// Makes a queue, or changes its policy.
    pub async fn put_queue(&self, name: &Name, queue: &QueueCreate) -> Result<QueueView, ClientError> {
        let url = self.endpoint(&["v1", "queues", name])?;
        self.call(self.request(Method::PUT, &url).json(queue), &url).await
    }

    /// Makes queues, or changes their policies: all of them or none. Answers with those queues.
    pub async fn put_queues(&self, queues: &QueuesPut) -> Result<QueuesReply, ClientError> {
        let url = self.endpoint(&["v1", "queues"])?;
        self.call(self.request(Method::PUT, &url).json(queues), &url).await
    }

    /// How a queue's policy came about, newest version first.
    pub async fn queue_versions(&self, name: &Name) -> Result<QueueVersionsReply, ClientError> {
        self.get(&["v1", "queues", name, "versions"]).await
    }

    /// Stops a queue from handing out work.
    pub async fn pause(&self, name: &Name) -> Result<QueueView, ClientError> {
        let url = self.endpoint(&["v1", "queues", name, "pause"])?;
        self.call(self.request(Method::POST, &url), &url).await
    }

    /// Lets a queue hand out work again.
    pub async fn resume(&self, name: &Name) -> Result<QueueView, ClientError> {
        let url = self.endpoint(&["v1", "queues", name, "resume"])?;
        self.call(self.request(Method::POST, &url), &url).await
    }

    /// Every gate.
    pub async fn gates(&self) -> Result<GatesReply, ClientError> {
        self.get(&["v1", "gates"]).await
    }

    /// Opens, shuts, isolates, resets or limits a gate.
    pub async fn change_gate(&self, request: &GateRequest) -> Result<GateView, ClientError> {
        self.post(&["v1", "gates"], request, 0).await
    }

    /// Asks for a lock, and waits for up to `wait_ms` for it. None: it is waited for still, ask again.
    pub async fn acquire_lock(
        &self,
        request: &LockRequest,
        wait_ms: u64,
    ) -> Result<Option<LockGrant>, ClientError> {
        let reply: LockReply = self.post(&["v1", "locks"], request, wait_ms).await?;
        Ok(reply.lock)
    }

    /// Makes locks last.
    pub async fn renew_locks(&self, request: &LockRefs) -> Result<LockResults, ClientError> {
        self.post(&["v1", "locks", "renew"], request, 0).await
    }

    /// Gives locks back.
    pub async fn release_locks(&self, request: &LockRefs) -> Result<LockResults, ClientError> {
        self.post(&["v1", "locks", "release"], request, 0).await
    }

    /// Locks, and who waits for one.
    pub async fn locks(&self) -> Result<LocksReply, ClientError> {
        self.get(&["v1", "locks"]).await
    }

    /// Who has a resource, and who waits for it.
    pub async fn locks_of(&self, resource: &Resource) -> Result<LocksReply, ClientError> {
        let mut url = self.endpoint(&["v1", "locks"])?;
        url.query_pairs_mut().append_pair("resource", resource.as_str());
        self.call(self.request(Method::GET, &url), &url).await
    }

    /// Ends somebody's lock.
    pub async fn break_lock(&self, request: &LockBreak) -> Result<LockView, ClientError> {
        self.post(&["v1", "locks", "break"], request, 0).await
    }

    /// Every agent that is known.
    pub async fn agents(&self) -> Result<AgentsReply, ClientError> {
        self.get(&["v1", "agents"]).await
    }

    /// Every breaker of every agent.
    pub async fn breakers(&self) -> Result<BreakersReply, ClientError> {
        self.get(&["v1", "breakers"]).await
    }

    /// Isolates, closes or resets a breaker: its worker does so with its next heartbeat. Repeating it is safe.
    pub async fn command_breaker(
        &self,
        request: &BreakerCommandRequest,
    ) -> Result<BreakerCommand, ClientError> {
        self.post(&["v1", "breakers", "commands"], request, 0).await
    }

    /// Whether the coordinator is there and takes work.
    pub async fn ready(&self) -> bool {
        let Ok(url) = self.endpoint(&["readyz"]) else { return false };
        self.send(self.request(Method::GET, &url), &url).await.is_ok()
    }

    /// Opens the connection that shows that this boot of the agent lives.
    pub async fn presence(&self, agent: &Name, boot_id: &Name) -> Result<Presence, ClientError> {
        let mut url = self.endpoint(&["v1", "agents", agent, "presence"])?;
        url.query_pairs_mut().append_pair("boot_id", boot_id);
        // No time-out for the whole: it stays open as long as the process lives. Only its beginning has one.
        let opening = self.http.get(url.clone()).send();
        let response = match tokio::time::timeout(CALL_TIMEOUT, opening).await {
            Ok(answer) => answer.map_err(|source| unreachable(&url, source))?,
            Err(_) => return Err(protocol(&url, None, "presence did not open in time".to_owned())),
        };
        Ok(Presence::new(url.to_string(), self.checked(response, &url).await?))
    }

    async fn get<R: DeserializeOwned>(&self, path: &[&str]) -> Result<R, ClientError> {
        let url = self.endpoint(path)?;
        self.call(self.request(Method::GET, &url), &url).await
    }

    /// Posts to an endpoint, by the segments of its path, what the caller's own types say of request and reply: for those
    /// who send or need less than the methods above. The coordinator may hold the reply back for `wait_ms`.
    pub async fn post<R: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
        wait_ms: u64,
    ) -> Result<R, ClientError> {
        let url = self.endpoint(path)?;
        let call = self.request(Method::POST, &url).json(body).timeout(long_poll(wait_ms));
        self.call(call, &url).await
    }

    /// The address of an endpoint, each segment percent-encoded.
    fn endpoint(&self, path: &[&str]) -> Result<Url, ClientError> {
        let mut url = self.base.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => segments.pop_if_empty().extend(path),
            Err(()) => {
                let (url, detail) = (self.base.to_string(), "it takes no path".to_owned());
                return Err(ClientError::Address { url, detail });
            }
        };
        Ok(url)
    }

    fn request(&self, method: Method, url: &Url) -> RequestBuilder {
        let call = self.http.request(method, url.clone()).timeout(CALL_TIMEOUT);
        match &self.actor {
            Some(actor) => call.header(ACTOR_HEADER, actor),
            None => call,
        }
    }

    async fn call<R: DeserializeOwned>(&self, call: RequestBuilder, url: &Url) -> Result<R, ClientError> {
        let response = self.send(call, url).await?;
        self.read(response, url).await
    }

    async fn read<R: DeserializeOwned>(&self, response: Response, url: &Url) -> Result<R, ClientError> {
        let status = response.status().as_u16();
        let body = response.bytes().await.map_err(|source| unreachable(url, source))?;
        let unreadable =
            |error: String| protocol(url, Some(status), format!("{error} in {:?}", excerpt(&body)));
        // Looked at once as a whole: from bytes, each string in it would be.
        let text = std::str::from_utf8(&body).map_err(|error| unreadable(error.to_string()))?;
        serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))
    }

    async fn send(&self, call: RequestBuilder, url: &Url) -> Result<Response, ClientError> {
        let response = call.send().await.map_err(|source| unreachable(url, source))?;
        self.checked(response, url).await
    }

    /// A 2xx passes; anything else becomes the problem that its body describes.
    async fn checked(&self, response: Response, url: &Url) -> Result<Response, ClientError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let retry_after = retry_after(&response);
        let body = response.bytes().await.map_err(|source| unreachable(url, source))?;
        if let Ok(mut problem) = serde_json::from_slice::<Problem>(&body) {
            let header_ms = retry_after.and_then(|after| u64::try_from(after.as_millis()).ok());
            problem.retry_after_ms = problem.retry_after_ms.or(header_ms);
            return Err(ClientError::Problem(Box::new(problem)));
        }
        let detail = format!("status {status} with {:?}", excerpt(&body));
        Err(ClientError::Protocol {
            url: url.to_string(),
            status: Some(status.as_u16()),
            detail,
            retry_after,
        })
    }
}

/// Installs ring as the process's TLS provider, unless `main` has chosen one already.
pub(crate) fn install_tls_provider() {
    // An error says that there is one: exactly what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Whether the address is this machine, for which no proxy is asked.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn long_poll(wait_ms: u64) -> Duration {
    Duration::from_millis(wait_ms).saturating_add(CALL_TIMEOUT)
}

/// Only the form in seconds: the coordinator sends no dates.
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

fn unreachable(url: &Url, source: reqwest::Error) -> ClientError {
    ClientError::Unreachable { url: url.to_string(), source: source.without_url() }
}

fn protocol(url: &Url, status: Option<u16>, detail: String) -> ClientError {
    ClientError::Protocol { url: url.to_string(), status, detail, retry_after: None }
}

fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().take(EXCERPT_MAX_CHARS).collect()
}
