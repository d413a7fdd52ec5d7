//! The link to Redis: connections that look after themselves.
//!
//! A [`Link`] stays usable whatever happens to the servers: it finds the master again after a crash, a hang, a failover or
//! a partition, and loads scripts that were lost. Meanwhile every call ends within its timeout, with a [`StoreError`] that
//! names the address and says what is going on. A call that failed may or may not have happened.

mod dial;
mod fault;
mod gate;
mod hints;
mod nodes;
mod pool;
mod replicate;
mod script;
mod seat;
mod sentinel;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Pipeline, RedisResult, Value};
use tokio::time::Instant;

use self::dial::{Dialer, Wire};
pub(super) use self::fault::text as said;
pub use self::hints::{Hint, Hints};
pub use self::nodes::Node;
pub use self::replicate::MARK;
pub use self::script::{Call, Script};
use self::seat::{Route, Seat};
use super::address::{Address, Kind};
use crate::store::StoreError;

/// How long to wait, and for whom.
#[derive(Debug, Clone, Copy)]
pub struct LinkOptions {
    /// For a connection, TLS and login included.
    pub connect_timeout: Duration,
    /// For an answer. No call takes longer, but [`Link::write`] when it waits for replicas.
    pub response_timeout: Duration,
    /// Replicas that must have a write before [`Link::write`] returns.
    pub wait_replicas: u32,
    /// For these replicas, on top of the response timeout.
    pub wait_timeout: Duration,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(2),
            wait_replicas: 0,
            wait_timeout: Duration::from_secs(1),
        }
    }
}

impl LinkOptions {
    /// Connections for writes that wait for replicas.
    const fn writers(&self) -> usize {
        if self.wait_replicas == 0 { 0 } else { pool::WRITERS }
    }
}

/// A supervised link to the store's Redis. Cheap to clone; the connections end with the last clone.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    seat: Seat,
    dialer: Arc<Dialer>,
    options: LinkOptions,
    transactions: gate::Transactions,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("options", &self.0.options).finish_non_exhaustive()
    }
}

impl Link {
    /// Connects. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when there is no connection within the connect timeout; behind Sentinels, or in a
    /// cluster, within twice that.
    pub async fn open(address: &Address, options: LinkOptions) -> Result<Self, StoreError> {
        let dialer = Arc::new(Dialer { address: Arc::new(address.clone()), options });
        let seat = Seat::new(Arc::clone(&dialer));
        let rounds = if address.kind == Kind::Single { 1 } else { 2 };
        seat.route(Instant::now() + options.connect_timeout * rounds).await?;
        let transactions = gate::Transactions::default();
        Ok(Self(Arc::new(Inner { seat, dialer, options, transactions })))
    }

    /// Runs a script where its key is, and loads it where that is needed.
    ///
    /// # Errors
    /// When it failed, or there was no answer within the response timeout.
    pub async fn run(&self, call: Call) -> Result<Value, StoreError> {
        let call = &call;
        self.ask(|mut wire| async move {
            match call.by_hash().query_async(&mut wire).await {
                Err(error) if fault::no_script(&error) => call.with_source().query_async(&mut wire).await,
                reply => reply,
            }
        })
        .await
    }

    /// Like [`Link::run`], for scripts that write: returns when as many replicas have the write as the options ask for.
    /// Then it leaves a key beside the script's own, named like it with [`MARK`] at its end. A repeat that finds its work
    /// done returns only when replicas have that work, too.
    ///
    /// # Errors
    /// As [`Link::run`]; and [`StoreError::Unavailable`] when too few replicas confirmed within the wait timeout. The
    /// write is there then, but a failover may lose it.
    pub async fn write(&self, call: Call) -> Result<Value, StoreError> {
        let Inner { seat, options, .. } = &*self.0;
        if options.wait_replicas == 0 {
            return self.run(call).await;
        }
        let clock = Countdown::new(options.response_timeout + options.wait_timeout);
        let route = seat.route(clock.deadline).await?;
        let writer = tokio::time::timeout_at(clock.deadline, route.writers.take()).await.ok().flatten();
        let writer = writer.ok_or_else(|| {
            StoreError::Unavailable(format!("{}: earlier writes still wait for replicas", route.at))
        })?;
        let writing = replicate::replicate(&call, writer.wire(), options);
        let (reply, replicas) = self.attempt(&route, clock, writing).await?;
        if replicas < i64::from(options.wait_replicas) {
            return Err(StoreError::Unavailable(format!(
                "{}: only {replicas} of {} replicas have the write; until they do, a failover may lose it",
                route.at, options.wait_replicas
            )));
        }
        Ok(reply)
    }

    /// Runs a script that writes values without having them pass through it, which costs more than all else: they follow it
    /// in the same transaction, and are let in only if the script opens the gate. `gate` is a key beside the script's own.
    /// None: nothing was done, because the script would not, or because it cannot be done this way now; the caller runs a
    /// script that takes the values itself, which says why.
    ///
    /// # Errors
    /// As [`Link::run`].
    pub async fn gated(
        &self,
        call: &Call,
        gate: &str,
        values: &[(String, &[u8])],
    ) -> Result<Option<Value>, StoreError> {
        if self.0.options.wait_replicas > 0 {
            return Ok(None);
        }
        let transactions = &self.0.transactions;
        if transactions.allowed().is_none() {
            transactions.learn(self.pipeline(&gate::probe(gate)).await?.first());
        }
        let mut sent = call.by_hash().clone();
        while transactions.allowed() == Some(true) {
            let replies = self.pipeline(&gate::transaction(&sent, gate, values)).await?;
            transactions.learn(replies.first());
            match gate::outcome(replies) {
                gate::Outcome::NoScript => sent = call.with_source(),
                gate::Outcome::Refused => return Ok(None),
                gate::Outcome::Done(reply) => return Ok(Some(reply)),
                gate::Outcome::Failed(error) => return Err(fault::explain(self.hosts(), &error)),
            }
        }
        Ok(None)
    }

    /// Sends a command; in a cluster to where its key is.
    ///
    /// # Errors
    /// When it failed, or there was no answer within the response timeout.
    pub async fn query(&self, cmd: &Cmd) -> Result<Value, StoreError> {
        self.ask(|mut wire| async move { cmd.query_async(&mut wire).await }).await
    }

    /// Sends commands together; in a cluster all their keys must be in one slot. With [`Pipeline::ignore_errors`] what
    /// failed is among the values, as [`Value::ServerError`].
    ///
    /// # Errors
    /// When one of them failed, or there were not all answers within the response timeout.
    pub async fn pipeline(&self, pipe: &Pipeline) -> Result<Vec<Value>, StoreError> {
        self.ask(|mut wire| async move { pipe.query_async(&mut wire).await }).await
    }

    /// Subscribes to a channel, now and again after every loss. The subscription keeps the link alive.
    pub fn hints(&self, channel: &str) -> Hints {
        Hints::new(Arc::clone(&self.0), channel)
    }

    /// Tells whoever is subscribed to a channel now.
    ///
    /// # Errors
    /// When it failed, or there was no answer within the response timeout.
    pub async fn publish(&self, channel: &str, payload: &[u8]) -> Result<(), StoreError> {
        self.query(redis::cmd("PUBLISH").arg(channel).arg(payload)).await.map(|_| ())
    }

    /// The address's hosts, for messages.
    pub fn hosts(&self) -> &str {
        self.0.seat.hosts()
    }

    /// Every server that can be found behind the address, masters first, each with a plain connection of its own, for
    /// diagnosis.
    ///
    /// # Errors
    /// When nobody says which servers there are. A server that cannot be reached is listed, with the reason.
    pub async fn nodes(&self) -> Result<Vec<Node>, StoreError> {
        nodes::nodes(&self.0).await
    }

    /// Makes one call on the current connection, all within the response timeout.
    async fn ask<T, F>(&self, call: impl FnOnce(Wire) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let clock = Countdown::new(self.0.options.response_timeout);
        let route = self.0.seat.route(clock.deadline).await?;
        self.attempt(&route, clock, call(route.wire.clone())).await
    }

    /// Waits for one call, and draws conclusions about its connection.
    async fn attempt<T>(
        &self,
        route: &Route,
        clock: Countdown,
        call: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, StoreError> {
        let sent = Instant::now();
        match tokio::time::timeout_at(clock.deadline, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                if fault::is_suspicious(&error) {
                    self.0.seat.suspect(route.generation);
                }
                Err(fault::explain(&route.at, &error))
            }
            Err(_) => {
                // One that had to wait for a connection has not given it much time.
                if clock.deadline - sent >= clock.whole / 2 {
                    self.0.seat.suspect(route.generation);
                }
                Err(fault::late(&route.at, clock.whole))
            }
        }
    }
}

/// A caller's time.
#[derive(Clone, Copy)]
struct Countdown {
    whole: Duration,
    deadline: Instant,
}

impl Countdown {
    fn new(whole: Duration) -> Self {
        Self { whole, deadline: Instant::now() + whole }
    }
}
