//! A subscription that comes back by itself.
//!
//! Redis forgets what it published to nobody. So every time that a subscription begins, and whenever the reader fell
//! behind, there is a [`Hint::Gap`]: anything may have happened, look at the truth.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, RedisError, Value};
use redrive_link::address::show;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::dial::OnPush;
use super::seat::{Backoff, Told};
use super::{Inner, fault};
use crate::store::StoreError;

/// Messages that wait for the reader. One that is further behind had better look at everything once.
const WAITING: usize = 1_024;
/// A quiet subscription is asked this often whether it still lives.
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// One that lived so long begins again with the shortest wait.
const HEALTHY_AFTER: Duration = Duration::from_secs(2);

/// What a subscription brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// Published on the channel.
    Message(Vec<u8>),
    /// The subscription has just begun, or the reader fell behind: messages may have been lost before this.
    Gap,
}

/// A supervised subscription. Ends when dropped.
pub struct Hints {
    messages: mpsc::Receiver<Hint>,
    lost: Arc<AtomicBool>,
    _keeper: AbortOnDropHandle<()>,
}

impl std::fmt::Debug for Hints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hints").field("waiting", &self.messages.len()).finish_non_exhaustive()
    }
}

impl Hints {
    /// Subscribes, now and again after every loss. Keeps the link alive.
    pub(super) fn new(link: Arc<Inner>, channel: &str) -> Self {
        let (sender, messages) = mpsc::channel(WAITING);
        let lost = Arc::new(AtomicBool::new(false));
        let outlet = Outlet { sender, lost: Arc::clone(&lost) };
        let keeper = Keeper { link, channel: channel.to_owned(), outlet };
        Self { messages, lost, _keeper: AbortOnDropHandle::new(tokio::spawn(keeper.run())) }
    }

    /// The next hint. Waits for ever when there is none. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Hint {
        if self.lost.swap(false, Ordering::AcqRel) {
            return Hint::Gap;
        }
        match self.messages.recv().await {
            Some(hint) => hint,
            // Its keeper lives as long as this does: it can only have ended with the whole runtime.
            None => std::future::pending().await,
        }
    }
}

/// Where hints go. Never blocks, since it is called by the connection itself.
#[derive(Clone)]
struct Outlet {
    sender: mpsc::Sender<Hint>,
    lost: Arc<AtomicBool>,
}

impl Outlet {
    fn send(&self, hint: Hint) {
        if self.sender.try_send(hint).is_err() {
            self.lost.store(true, Ordering::Release);
        }
    }
}

struct Keeper {
    link: Arc<Inner>,
    channel: String,
    outlet: Outlet,
}

impl Keeper {
    async fn run(self) {
        let mut backoff = Backoff::default();
        let mut told = Told::default();
        let mut turn = 0;
        loop {
            let since = Instant::now();
            let Err(error) = self.subscribe(turn).await;
            if told.is_news(&error.to_string()) {
                tracing::warn!(channel = self.channel, %error, "no subscription; subscribing until it works");
            }
            turn = turn.wrapping_add(1);
            if since.elapsed() >= HEALTHY_AFTER + self.link.options.response_timeout {
                backoff = Backoff::default();
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// Holds a subscription for as long as it lives.
    async fn subscribe(&self, turn: usize) -> Result<std::convert::Infallible, StoreError> {
        let Inner { seat, dialer, options, .. } = &*self.link;
        let route = seat.route(Instant::now() + options.connect_timeout).await?;
        let (host, port) = match &route.host {
            Some((host, port)) => (host.clone(), *port),
            // A cluster passes messages to all of its nodes: any will do, the next one after a failure.
            None => dialer.address.nodes[turn % dialer.address.nodes.len()].clone(),
        };
        let at = show(&host, port);
        let ended = Arc::new(tokio::sync::Notify::new());
        let on_push = self.on_push(Arc::clone(&ended));
        let mut connection =
            dialer.node(&host, port, Some(on_push)).await.map_err(|error| fault::explain(&at, &error))?;
        let subscribing = connection.subscribe(&self.channel);
        within(options.response_timeout, &at, subscribing).await?;
        self.outlet.send(Hint::Gap);
        tokio::select! {
            () = ended.notified() => Err(StoreError::Unavailable(format!("{at}: the connection ended"))),
            // The master is another one now, or was lost: be where it is.
            () = seat.changed_from(route.generation) => Err(StoreError::Unavailable(format!("{at} was left"))),
            error = probe(connection.clone(), options.response_timeout, &at) => Err(error),
        }
    }

    fn on_push(&self, ended: Arc<tokio::sync::Notify>) -> OnPush {
        let outlet = self.outlet.clone();
        Arc::new(move |push: PushInfo| match push.kind {
            PushKind::Message => {
                if let Some(Value::BulkString(payload)) = push.data.into_iter().nth(1) {
                    outlet.send(Hint::Message(payload));
                }
            }
            PushKind::Disconnection => ended.notify_one(),
            _ => {}
        })
    }
}

/// Returns when the connection no longer answers.
async fn probe(mut connection: MultiplexedConnection, limit: Duration, at: &str) -> StoreError {
    loop {
        tokio::time::sleep(PROBE_EVERY).await;
        let ping = redis::cmd("PING");
        if let Err(error) = within(limit, at, ping.query_async::<()>(&mut connection)).await {
            return error;
        }
    }
}

async fn within<T>(
    limit: Duration,
    at: &str,
    work: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done.map_err(|error| fault::explain(at, &error)),
        Err(_) => Err(fault::late(at, limit)),
    }
}
