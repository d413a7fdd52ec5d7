//! Connections that are kept up: whatever happens to one, the next begins from nothing. What was under way on the old one is
//! left to RabbitMQ (deliveries come again) and to its caller (what was not confirmed was not sent).

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::{Connection, Event};
use rand::RngExt;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{AmqpAddress, DialError, dial};

/// Between two tries: at first, and at most.
const DELAY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A session that lasted this long was a good one: the next try after it comes soon.
const GOOD_AFTER: Duration = Duration::from_secs(10);
/// For a session to end what it has under way, once it is told to. Longer than a batch waits for its confirmations.
const CLOSE_PATIENCE: Duration = Duration::from_secs(15);

/// How a connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// There is none, and why.
    Down(String),
    /// It works.
    Up,
    /// RabbitMQ reads nothing that is published on it, and why: it is short of memory or disk.
    Blocked(String),
}

/// Why a session ended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SessionError {
    /// It did not begin.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The connection, or a channel of it.
    #[error("{0}")]
    Lapin(#[from] lapin::Error),
    /// RabbitMQ took a consumer away: its queue was deleted, or lost its node.
    #[error("RabbitMQ cancelled the consumer of `{0}`")]
    Cancelled(String),
    /// It is no use as it is.
    #[error("{0}")]
    Broken(String),
}

/// Runs `session` on a connection, and after it ends or the connection breaks on another one, until `shutdown`. Delays
/// between tries grow from 100 ms to 5 s, with jitter. `state` hears how it is. A session is never cut off before it had
/// 15 s to end what it has under way: its token says when it must.
pub async fn keep<S>(
    address: &AmqpAddress,
    name: &str,
    state: &watch::Sender<State>,
    shutdown: &CancellationToken,
    session: impl Fn(Connection, CancellationToken) -> S,
) where
    S: Future<Output = Result<(), SessionError>>,
{
    let mut delay = DELAY.0;
    while !shutdown.is_cancelled() {
        let started = Instant::now();
        let Err(error) = one(address, name, state, shutdown, &session).await else { break };
        if started.elapsed() >= GOOD_AFTER {
            delay = DELAY.0;
        }
        let wait = delay.mul_f64(rand::rng().random_range(0.5..=1.0));
        delay = (delay * 2).min(DELAY.1);
        tracing::warn!(%error, connection = name, retry_in_ms = wait.as_millis(), "the way to RabbitMQ is interrupted");
        state.send_replace(State::Down(error.to_string()));
        let _ = tokio::time::timeout(wait, shutdown.cancelled()).await;
    }
    state.send_replace(State::Down("stopped".to_owned()));
}

/// One connection from its beginning to its end.
async fn one<S>(
    address: &AmqpAddress,
    name: &str,
    state: &watch::Sender<State>,
    shutdown: &CancellationToken,
    session: impl Fn(Connection, CancellationToken) -> S,
) -> Result<(), SessionError>
where
    S: Future<Output = Result<(), SessionError>>,
{
    let Some(connection) = shutdown.run_until_cancelled(dial(address, name)).await else { return Ok(()) };
    let connection = connection?;
    let mut events = Box::pin(connection.events_listener());
    let watching = async {
        while let Some(event) = events.next().await {
            match event {
                Event::ConnectionBlocked(reason) => {
                    tracing::warn!(connection = name, reason, "RabbitMQ takes nothing for now");
                    state.send_replace(State::Blocked(reason));
                }
                Event::ConnectionUnblocked => drop(state.send_replace(State::Up)),
                // Of one channel: whoever uses it is told there.
                Event::Error(error) if error.is_amqp_soft_error() => {}
                Event::Error(error) => return Err(SessionError::Lapin(error)),
                _ => {}
            }
        }
        Err(SessionError::Broken("the connection ended".to_owned()))
    };
    let over = shutdown.child_token();
    let mut running = pin!(session(connection, over.clone()));
    let ended = tokio::select! {
        ended = &mut running => return ended,
        ended = watching => ended,
        () = shutdown.cancelled() => Ok(()),
    };
    if let Err(error) = &ended {
        state.send_replace(State::Down(error.to_string()));
    }
    // The connection closes when the session drops it.
    over.cancel();
    let _ = tokio::time::timeout(CLOSE_PATIENCE, running).await;
    ended
}
