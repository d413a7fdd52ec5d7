//! Publishing, confirmed: what RabbitMQ has said that it has, and what it may or may not have.

use std::time::Duration;

use futures_util::future::join_all;
use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use redrive_link::amqp::{SessionError, State};
use tokio::sync::{Notify, watch};

/// For the confirmations of a batch. Longer than any hiccup of a broker that works; a connection that needs more is not
/// worth keeping.
const PATIENCE: Duration = Duration::from_secs(10);
/// `delivery_mode` of messages that outlive a restart of RabbitMQ.
pub(super) const PERSISTENT: u8 = 2;
/// Between two tries to publish what must be.
const AGAIN: Duration = Duration::from_millis(500);

/// A message to publish.
#[derive(Debug, Clone)]
pub(super) struct Message {
    /// Empty: the queue that the routing key names.
    pub exchange: String,
    pub routing_key: String,
    pub properties: BasicProperties,
    pub body: Vec<u8>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sent {
    /// RabbitMQ has it, in a queue.
    Confirmed,
    /// RabbitMQ does not have it, and why.
    Refused(String),
    /// Nobody knows: it may arrive later.
    Unknown(String),
}

/// The connection that publishes. Another one consumes, so that a broker short of memory, which stops reading from those who
/// publish, still hears acknowledgements.
pub(super) struct Publisher {
    channel: watch::Sender<Option<Channel>>,
    state: watch::Sender<State>,
    broken: Notify,
}

impl Default for Publisher {
    fn default() -> Self {
        let down = State::Down("not connected yet".to_owned());
        Self { channel: watch::Sender::new(None), state: watch::Sender::new(down), broken: Notify::new() }
    }
}

impl Publisher {
    /// How its connection is.
    pub fn state(&self) -> &watch::Sender<State> {
        &self.state
    }

    /// Makes a connection the one that is published on, until it is found broken.
    pub async fn serve(&self, connection: &Connection, channel: Channel) -> Result<(), SessionError> {
        self.channel.send_replace(Some(channel));
        let blocked = connection.status().blocked();
        self.state.send_if_modified(|state| {
            let up = !blocked && *state != State::Up;
            if up {
                *state = State::Up;
            }
            up
        });
        self.broken.notified().await;
        Err(SessionError::Broken("it was not confirmed in time that messages arrived".to_owned()))
    }

    /// The connection is over.
    pub fn stop(&self) {
        self.channel.send_replace(None);
    }

    /// Waits until it can publish.
    pub async fn ready(&self) {
        // The sender lives as long as this does.
        let _ = self.state.subscribe().wait_for(|state| *state == State::Up).await;
    }

    /// Waits until it cannot publish.
    pub async fn not_ready(&self) {
        let _ = self.state.subscribe().wait_for(|state| *state != State::Up).await;
    }

    /// Whether it can publish now.
    pub fn is_ready(&self) -> bool {
        *self.state.borrow() == State::Up
    }

    /// Publishes a batch and waits for the confirmations. One answer a message, in order.
    pub async fn publish(&self, batch: &[Message]) -> Vec<Sent> {
        let Some(channel) = self.channel.borrow().clone() else {
            return vec![Sent::Refused("there is no connection to RabbitMQ".to_owned()); batch.len()];
        };
        let publishing = batch.iter().map(|message| publish(&channel, message));
        let mut sent: Vec<Option<Sent>> = vec![None; batch.len()];
        // What is confirmed counts although others are not: each answer is kept as it comes.
        let waiting = join_all(publishing.zip(&mut sent).map(|(publishing, place)| async {
            *place = Some(publishing.await);
        }));
        let in_time = tokio::time::timeout(PATIENCE, waiting).await.is_ok();
        if !in_time {
            self.broken.notify_one();
        }
        let unknown = || Sent::Unknown(format!("not confirmed within {} s", PATIENCE.as_secs()));
        sent.into_iter().map(|place| place.unwrap_or_else(unknown)).collect()
    }

    /// Publishes until it is confirmed. It may arrive more than once.
    pub async fn publish_surely(&self, message: Message) {
        loop {
            self.ready().await;
            match self.publish(std::slice::from_ref(&message)).await.pop() {
                Some(Sent::Confirmed) => return,
                Some(Sent::Refused(why) | Sent::Unknown(why)) => {
                    tracing::warn!(
                        why,
                        to = message.routing_key,
                        "a message could not be published; trying again"
                    );
                }
                None => {}
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

async fn publish(channel: &Channel, message: &Message) -> Sent {
    // Mandatory: what no queue takes comes back instead of vanishing.
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let (exchange, key) = (message.exchange.as_str().into(), message.routing_key.as_str().into());
    let published =
        channel.basic_publish(exchange, key, options, &message.body, message.properties.clone()).await;
    let confirmed = match published {
        Ok(confirmation) => confirmation.await,
        Err(error) => Err(error),
    };
    match confirmed {
        Ok(Confirmation::Ack(None)) => Sent::Confirmed,
        Ok(Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned))) => {
            Sent::Refused(format!("no queue takes it: {}", returned.reply_text))
        }
        Ok(Confirmation::Nack(None)) => Sent::Refused("RabbitMQ could not take it".to_owned()),
        Ok(Confirmation::NotRequested) => Sent::Unknown("confirmations are off".to_owned()),
        Err(error) => Sent::Unknown(error.to_string()),
    }
}
