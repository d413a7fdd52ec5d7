//! RabbitMQ: tasks pushed to consumers, outcomes taken from them, and tasks taken from fleets that use it already.
//!
//! The store stays the truth. Losing everything that is in RabbitMQ loses no task: leases end, and their tasks are due again.
//! What comes in is acknowledged when the store has it. While RabbitMQ is away, tasks simply stay where they are, and pull
//! goes on.

mod claims;
mod config;
mod dead_letter;
pub mod doctor;
mod envelope;
mod inbox;
mod ingress;
mod outcomes;
mod publisher;
mod push;
pub mod removal;
mod republish;
mod takers;
mod topology;
mod weight;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use lapin::{Channel, Connection};
use redrive_link::amqp::{AmqpAddress, Names, SessionError, State, dial, keep};
use redrive_shared::id::Name;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::config::{AmqpConfig, PushConfig, QueueType, Republish};
use self::publisher::Publisher;
use self::push::Pusher;
use self::republish::Republisher;
use self::takers::Workers;
use crate::engine::Engine;

/// Who claims what is pushed. A worker that starts a task takes it over.
const AGENT: &str = "amqp";

/// The coordinator's side of RabbitMQ.
pub struct Amqp {
    engine: Arc<Engine>,
    config: AmqpConfig,
    names: Names,
    publisher: Publisher,
    consuming: watch::Sender<State>,
    workers: Workers,
    agent: Name,
    boot_id: Name,
    /// Nothing new is begun any more.
    stopping: CancellationToken,
}

impl Amqp {
    /// For this engine; [`Amqp::run`] makes it work. Nothing without an address.
    pub fn new(engine: Arc<Engine>, config: AmqpConfig, stopping: CancellationToken) -> Self {
        let name =
            |text: String| Name::new(text).unwrap_or_else(|_| unreachable!("a word or a UUID is a name"));
        Self {
            workers: Workers::new(Arc::clone(&engine)),
            engine,
            names: config.names(),
            config,
            publisher: Publisher::default(),
            consuming: watch::Sender::new(State::Down("not connected yet".to_owned())),
            agent: name(AGENT.to_owned()),
            boot_id: name(redrive_shared::id::TaskId::generate().to_string()),
            stopping,
        }
    }

    /// Declares what is needed, before anything else is begun. A RabbitMQ that cannot be reached now may be later.
    ///
    /// # Errors
    /// Something of that name is there and is not as it must be.
    pub async fn prepare(&self) -> Result<(), SessionError> {
        self.config.check().map_err(SessionError::Broken)?;
        let Some(address) = &self.config.url else { return Ok(()) };
        let declared = async {
            let connection = dial(address, "redrive-prepare").await?;
            topology::declare(&connection.create_channel().await?, &self.config).await
        };
        match declared.await {
            Err(SessionError::Broken(conflict)) => Err(SessionError::Broken(conflict)),
            Err(error) => {
                tracing::warn!(%error, "RabbitMQ cannot be used for now: tasks stay in the store, and pull goes on");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Works until it is told to stop, and ends what is under way then: what was claimed is published or handed back.
    pub async fn run(self) {
        let Some(address) = &self.config.url else { return self.stopping.cancelled().await };
        let all_consumed = CancellationToken::new();
        let consuming = async {
            self.keep_consuming(address).await;
            all_consumed.cancel();
        };
        // What is consumed may have to be published: the connection for that is there for longer.
        let working = async { tokio::join!(self.keep_publishing(address, &all_consumed), consuming) };
        tokio::select! {
            _ = working => {}
            () = show(self.publisher.state(), "publish") => {}
            () = show(&self.consuming, "consume") => {}
        }
    }

    async fn keep_publishing(&self, address: &AmqpAddress, shutdown: &CancellationToken) {
        let state = self.publisher.state();
        keep(address, "redrive-publish", state, shutdown, async |connection: Connection, over| {
            let channel = connection.create_channel().await?;
            topology::declare(&channel, &self.config).await?;
            over.run_until_cancelled(self.publisher.serve(connection)).await.unwrap_or(Ok(()))
        })
        .await;
    }

    async fn keep_consuming(&self, address: &AmqpAddress) {
        keep(address, "redrive-consume", &self.consuming, &self.stopping, async |connection, over| {
            self.consume(address, &connection, over).await
        })
        .await;
    }

    /// All that reads, until one part of it fails: then the others end what they have under way, and the next connection
    /// begins from nothing.
    async fn consume(
        &self,
        address: &AmqpAddress,
        connection: &Connection,
        over: CancellationToken,
    ) -> Result<(), SessionError> {
        let channel = connection.create_channel().await?;
        topology::declare(&channel, &self.config).await?;
        let mut parts = Vec::<BoxFuture<'_, Result<(), SessionError>>>::new();
        parts.push(outcomes::run(self, connection.create_channel().await?, &over).boxed());
        parts.push(ingress::run(self, connection.create_channel().await?, &over).boxed());
        parts.push(self.keep_declared(address, channel, &over).boxed());
        for (queue, config) in &self.config.push {
            self.engine.make_configured(queue).await;
            let pusher = Pusher::open(self, connection, queue, *config).await?;
            let over = &over;
            parts.push(async move { pusher.run(over).await }.boxed());
        }
        for (queue, way) in &self.config.republish {
            self.engine.make_configured(queue).await;
            let (republisher, over) = (Republisher::new(self, queue, *way), &over);
            parts.push(async move { republisher.run(over).await }.boxed());
        }
        self.consuming.send_replace(State::Up);
        tracing::info!(%address, "RabbitMQ is used");
        let mut result = Ok(());
        let mut parts: FuturesUnordered<_> = parts.into_iter().collect();
        while let Some(ended) = parts.next().await {
            result = result.and(ended);
            if result.is_err() {
                over.cancel();
            }
        }
        result
    }

    /// Puts a message into each turn queue, in every session anew, since queues that were deleted were made again without
    /// one. Then declares everything from time to time: that an exchange or a binding is gone nobody is told.
    async fn keep_declared(
        &self,
        address: &AmqpAddress,
        channel: Channel,
        over: &CancellationToken,
    ) -> Result<(), SessionError> {
        const AGAIN: Duration = Duration::from_secs(2);
        const DECLARED_EVERY: Duration = Duration::from_secs(60);
        let keeping = async {
            while let Err(error) = topology::put_turns(address, &self.config, self.config.push.keys()).await {
                tracing::warn!(%error, "RabbitMQ does not take whose turn it is to push; trying again");
                tokio::time::sleep(AGAIN).await;
            }
            loop {
                tokio::time::sleep(DECLARED_EVERY).await;
                topology::declare(&channel, &self.config).await?;
            }
        };
        over.run_until_cancelled(keeping).await.unwrap_or(Ok(()))
    }
}

/// Tells the metrics how a connection is, for ever.
async fn show(state: &watch::Sender<State>, connection: &'static str) {
    let mut state = state.subscribe();
    loop {
        let (up, blocked) = match &*state.borrow_and_update() {
            State::Up => (1.0, 0.0),
            State::Blocked(_) => (1.0, 1.0),
            State::Down(_) => (0.0, 0.0),
        };
        metrics::gauge!("redrive_amqp_connected", "connection" => connection).set(up);
        metrics::gauge!("redrive_amqp_blocked", "connection" => connection).set(blocked);
        if state.changed().await.is_err() {
            return;
        }
    }
}
