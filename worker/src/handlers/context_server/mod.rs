//! The context of an attempt for handlers that are not Rust: HTTP on loopback, at an address that each attempt is given.
//!
//! The address ends with 128 random bits: who has it may speak for the attempt, so nothing else has to be proved, and nobody else
//! can guess it. It leads nowhere before its attempt begins and after it has ended; what is under way then is cut off.

mod body;
mod reply;
mod routes;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redrive_shared::blob::BlobRef;
use redrive_shared::task::Lease;
use serde_json::value::RawValue;
use tokio::net::TcpListener;
use tokio::sync::{OnceCell, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::context::TaskContext;

/// Most requests under way for one attempt.
const REQUESTS_MAX: usize = 32;
/// Most of those beside them that wait: for a lock, or until the handler is to stop. They hold next to nothing.
const WAITS_MAX: usize = 256;
/// Most bodies above [`redrive_shared::checkpoint::STATES_MAX_BYTES`] that are held in memory, over all attempts.
const LARGE_BODIES_MAX: usize = 2;

/// The server, begun with the first attempt that needs it. Clones are of the same.
#[derive(Debug, Clone, Default)]
pub(super) struct ContextServer(Arc<OnceCell<Running>>);

#[derive(Debug)]
struct Running {
    address: SocketAddr,
    attempts: Arc<Attempts>,
    _serving: AbortOnDropHandle<()>,
}

/// The attempts that run, by their secrets.
#[derive(Debug)]
struct Attempts {
    table: Mutex<HashMap<String, Arc<Attempt>>>,
    large_bodies: Arc<Semaphore>,
}

/// One attempt, as its requests see it.
#[derive(Debug)]
struct Attempt {
    ctx: TaskContext,
    payload: Payload,
    requests: Semaphore,
    waits: Semaphore,
    large_bodies: Arc<Semaphore>,
    ended: CancellationToken,
}

#[derive(Debug)]
enum Payload {
    Inline(Box<RawValue>),
    /// Fetched anew by who asks for it: it may be large.
    Blob(BlobRef),
}

/// An attempt's address. Dropped, it leads nowhere.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) url: String,
    secret: String,
    attempts: Arc<Attempts>,
}

impl ContextServer {
    /// Gives an attempt its address.
    pub(super) async fn open(&self, task: &Lease, ctx: &TaskContext) -> io::Result<Opening> {
        let running = self.0.get_or_try_init(Running::start).await?;
        // 122 bits of a random UUID are not 128.
        let secret = format!("{:032x}", rand::random::<u128>());
        let payload = match &task.payload_ref {
            Some(blob) => Payload::Blob(*blob),
            None => Payload::Inline(task.payload.clone()),
        };
        let attempt = Attempt {
            ctx: ctx.clone(),
            payload,
            requests: Semaphore::new(REQUESTS_MAX),
            waits: Semaphore::new(WAITS_MAX),
            large_bodies: Arc::clone(&running.attempts.large_bodies),
            ended: CancellationToken::new(),
        };
        running.attempts.table().insert(secret.clone(), Arc::new(attempt));
        let url = format!("http://{}/{secret}", running.address);
        Ok(Opening { url, secret, attempts: Arc::clone(&running.attempts) })
    }
}

impl Running {
    async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let large_bodies = Arc::new(Semaphore::new(LARGE_BODIES_MAX));
        let attempts = Arc::new(Attempts { table: Mutex::default(), large_bodies });
        let app = routes::router(Arc::clone(&attempts));
        let serving = tokio::spawn(async move {
            // It never ends by itself: what fails with one connection is over with it.
            if let Err(error) = axum::serve(listener, app).await {
                tracing::error!(%error, "handlers cannot reach their contexts any more");
            }
        });
        tracing::info!(%address, "handlers reach their contexts");
        Ok(Self { address, attempts, _serving: AbortOnDropHandle::new(serving) })
    }
}

impl Attempts {
    fn find(&self, secret: &str) -> Option<Arc<Attempt>> {
        self.table().get(secret).cloned()
    }

    /// A poisoned lock only says that some thread panicked; every change here is complete or not begun.
    fn table(&self) -> MutexGuard<'_, HashMap<String, Arc<Attempt>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(attempt) = self.attempts.table().remove(&self.secret) {
            attempt.ended.cancel();
        }
    }
}
