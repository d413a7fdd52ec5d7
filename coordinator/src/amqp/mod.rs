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
mod topology;

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, try_join_all};
use lapin::Connection;
use lapin::options::ConfirmSelectOptions;
use redrive_link::amqp::{AmqpAddress, Names, SessionError, State, dial, keep};
use redrive_shared::id::Name;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::config::{AmqpConfig, PushConfig, QueueType, Republish};
use self::publisher::Publisher;
use self::push::Pusher;
use self::republish::Republisher;
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
    agent: Name,
    boot_id: Name,
}

impl Amqp {
    /// For this engine; [`Amqp::run`] makes it work. Nothing without an address.
    pub fn new(engine: Arc<Engine>, config: AmqpConfig) -> Self {
        let name =
            |text: String| Name::new(text).unwrap_or_else(|_| unreachable!("a word or a UUID is a name"));
        Self {
            engine,
            names: config.names(),
            config,
            publisher: Publisher::default(),
            consuming: watch::Sender::new(State::Down("not connected yet".to_owned())),
            agent: name(AGENT.to_owned()),
            boot_id: name(redrive_shared::id::TaskId::generate().to_string()),
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

    /// Works until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let Some(address) = &self.config.url else { return shutdown.cancelled().await };
        tokio::join!(self.keep_publishing(address, &shutdown), self.keep_consuming(address, &shutdown));
    }

    async fn keep_publishing(&self, address: &AmqpAddress, shutdown: &CancellationToken) {
        keep(address, "redrive-publish", self.publisher.state(), shutdown, async |connection: Connection| {
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            topology::declare(&channel, &self.config).await?;
            topology::put_turns(&channel, &self.config).await?;
            let ended = self.publisher.serve(&connection, channel).await;
            self.publisher.stop();
            ended
        })
        .await;
    }

    async fn keep_consuming(&self, address: &AmqpAddress, shutdown: &CancellationToken) {
        keep(address, "redrive-consume", &self.consuming, shutdown, async |connection: Connection| {
            let channel = connection.create_channel().await?;
            topology::declare(&channel, &self.config).await?;
            let mut parts: Vec<BoxFuture<'_, Result<(), SessionError>>> = vec![
                outcomes::run(self, connection.create_channel().await?).boxed(),
                ingress::run(self, connection.create_channel().await?).boxed(),
            ];
            for (queue, config) in &self.config.push {
                self.engine.make_pushed(queue).await;
                let channel = connection.create_channel().await?;
                let pusher = Pusher::new(self, channel, queue, *config);
                parts.push(async move { pusher.run().await }.boxed());
            }
            for (queue, way) in &self.config.republish {
                self.engine.make_pushed(queue).await;
                let republisher = Republisher::new(self, &connection, queue, *way);
                parts.push(async move { republisher.run().await }.boxed());
            }
            self.consuming.send_replace(State::Up);
            tracing::info!(%address, "RabbitMQ is used");
            // The first that fails ends all: the next connection begins from nothing.
            try_join_all(parts).await.map(|_| ())
        })
        .await;
    }
}
