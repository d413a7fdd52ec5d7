//! Publishing, confirmed: what RabbitMQ has said that it has, and what it may or may not have.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use redrive_link::amqp::{SessionError, State};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::weight::{self, HEADERS_MAX_BYTES};

/// For the confirmations of a batch. Longer than any hiccup of a broker that works; a connection that needs more is not
/// worth keeping.
const PATIENCE: Duration = Duration::from_secs(10);
/// `delivery_mode` of messages that outlive a restart of RabbitMQ.
pub(super) const PERSISTENT: u8 = 2;

/// A message to publish.
#[derive(Debug, Clone)]
pub(super) struct Message {
    /// Empty: the queue that the routing key names.
    pub exchange: ShortString,
    pub routing_key: ShortString,
    pub properties: BasicProperties,
    pub body: Vec<u8>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sent {
    /// RabbitMQ has it, in a queue.
    Confirmed,
    /// It never left: there is no connection.
    Unsent(String),
    /// RabbitMQ does not want it, and why.
    Refused(String),
    /// Nobody knows: it may arrive later.
    Unknown(String),
}

/// The connection that publishes. Another one consumes, so that a broker short of memory, which stops reading from those who
/// publish, still hears acknowledgements.
pub(super) struct Publisher {
    line: Mutex<Option<Arc<Line>>>,
    state: watch::Sender<State>,
}

/// One connection, for as long as it is good.
struct Line {
    connection: Connection,
    /// Channels that no batch uses.
    idle: Mutex<Vec<Channel>>,
    broken: CancellationToken,
}

impl Default for Publisher {
    fn default() -> Self {
        let down = State::Down("not connected yet".to_owned());
        Self { line: Mutex::default(), state: watch::Sender::new(down) }
    }
}

/// Takes a connection away from the publisher, however its session ends.
struct Serving<'a>(&'a Publisher);

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        *lock(&self.0.line) = None;
    }
}

impl Publisher {
    /// How its connection is.
    pub fn state(&self) -> &watch::Sender<State> {
        &self.state
    }

    /// Makes a connection the one that is published on, until it is found broken.
    pub async fn serve(&self, connection: Connection) -> Result<(), SessionError> {
        let blocked = connection.status().blocked();
        let line = Arc::new(Line { connection, idle: Mutex::default(), broken: CancellationToken::new() });
        *lock(&self.line) = Some(Arc::clone(&line));
        let _serving = Serving(self);
        self.state.send_if_modified(|state| {
            let up = !blocked && *state != State::Up;
            if up {
                *state = State::Up;
            }
            up
        });
        line.broken.cancelled().await;
        Err(SessionError::Broken("it was not confirmed in time that messages arrived".to_owned()))
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
        let mut sent = vec![None; batch.len()];
        for (message, place) in batch.iter().zip(&mut sent) {
            *place = too_heavy(message);
        }
        let Some(line) = lock(&self.line).clone() else {
            let unsent = || Sent::Unsent("there is no connection to RabbitMQ".to_owned());
            return sent.into_iter().map(|place| place.unwrap_or_else(unsent)).collect();
        };
        // What is confirmed counts although others are not: each answer is kept as it comes.
        let in_time = tokio::time::timeout(PATIENCE, line.publish(batch, &mut sent)).await.is_ok();
        // One that is blocked is as good as any: another one would be blocked as well, and this one not even closed.
        if !in_time && !line.connection.status().blocked() {
            line.broken.cancel();
        }
        let unknown = || Sent::Unknown(format!("not confirmed within {} s", PATIENCE.as_secs()));
        sent.into_iter().map(|place| place.unwrap_or_else(unknown)).collect()
    }
}

/// An answer, once there is one.
type Place = Option<Sent>;

impl Line {
    /// Publishes what has no answer yet, an exchange at a time: of one that is not there, or that may not be written to,
    /// RabbitMQ closes the channel, and what others are sent must not be lost, or sent twice, for that.
    async fn publish(&self, batch: &[Message], sent: &mut [Place]) {
        let mut exchanges: Vec<&ShortString> = batch.iter().map(|message| &message.exchange).collect();
        exchanges.sort_unstable();
        exchanges.dedup();
        for exchange in exchanges {
            let result = self.publish_to(exchange, batch, sent).await;
            let mut open: Vec<_> = batch
                .iter()
                .zip(sent.iter_mut())
                .filter(|(message, place)| message.exchange == *exchange && place.is_none())
                .collect();
            match result {
                Ok(()) => {}
                // One of them is to blame, and RabbitMQ does not say which: it is the one with which it closes a channel again.
                Err(error) if error.is_amqp_soft_error() && open.len() > 1 => {
                    for (message, place) in &mut open {
                        let (message, place) = (std::slice::from_ref(*message), std::slice::from_mut(*place));
                        if let Err(error) = self.publish_to(exchange, message, place).await {
                            place[0].get_or_insert_with(|| failed(&error));
                        }
                    }
                }
                Err(error) => open.iter_mut().for_each(|(_, place)| **place = Some(failed(&error))),
            }
        }
    }

    /// On a channel that has nothing else under way, so that what RabbitMQ says there is about these messages alone.
    async fn publish_to(
        &self,
        exchange: &ShortString,
        batch: &[Message],
        sent: &mut [Place],
    ) -> lapin::Result<()> {
        let channel = self.channel().await?;
        let mut confirmations = Vec::with_capacity(batch.len());
        // Mandatory: what no queue takes comes back instead of vanishing.
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let of_it = batch.iter().zip(sent.iter_mut()).filter(|(message, _)| message.exchange == *exchange);
        for (message, place) in of_it.filter(|(_, place)| place.is_none()) {
            let (key, properties) = (message.routing_key.clone(), message.properties.clone());
            let publishing = channel.basic_publish(exchange.clone(), key, options, &message.body, properties);
            confirmations.push((place, publishing.await?));
        }
        let (mut returned, mut refuses) = (Vec::new(), false);
        let mut ended = Ok(());
        for (place, confirmation) in confirmations {
            let (answer, back) = match confirmation.await {
                Ok(Confirmation::Ack(back)) => (Sent::Confirmed, back),
                Ok(Confirmation::Nack(back)) => {
                    refuses = true;
                    (Sent::Refused("RabbitMQ could not take it".to_owned()), back)
                }
                Ok(Confirmation::NotRequested) => (Sent::Unknown("confirmations are off".to_owned()), None),
                Err(error) => {
                    ended = Err(error);
                    continue;
                }
            };
            *place = Some(answer);
            returned.extend(back);
        }
        returned.iter().for_each(|back| refuse_returned(back, batch, sent));
        // One that refused may go on with that: when a quorum queue's leader is lost, it can happen that RabbitMQ refuses what comes
        // by a channel from before for as long as that is open, and takes it by any other.
        if ended.is_ok() && !refuses {
            lock(&self.idle).push(channel);
        }
        ended
    }

    async fn channel(&self) -> lapin::Result<Channel> {
        while let Some(channel) = { lock(&self.idle).pop() } {
            if channel.status().connected() {
                return Ok(channel);
            }
        }
        let channel = self.connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    }
}

/// An error of the channel is about what was said on it; any other one leaves everything open.
fn failed(error: &lapin::Error) -> Sent {
    if error.is_amqp_soft_error() {
        Sent::Refused(error.to_string())
    } else {
        Sent::Unknown(error.to_string())
    }
}

/// lapin hands a message that came back over with whichever confirmation is next, so it is looked for among those of the
/// batch: by all that there is, since where headers route, of two with one body one may come back and the other not.
fn refuse_returned(back: &BasicReturnMessage, batch: &[Message], sent: &mut [Place]) {
    let like = |message: &Message| {
        message.routing_key == back.delivery.routing_key
            && message.exchange == back.delivery.exchange
            && message.body == back.delivery.data
    };
    let same = |message: &Message| like(message) && message.properties == back.delivery.properties;
    let open = |place: &Place| !matches!(place, Some(Sent::Refused(_)));
    let place_of = |is_it: &dyn Fn(&Message) -> bool| {
        batch.iter().zip(&*sent).position(|(message, place)| open(place) && is_it(message))
    };
    match place_of(&same).or_else(|| place_of(&like)) {
        Some(place) => sent[place] = Some(Sent::Refused(format!("no queue takes it: {}", back.reply_text))),
        None => tracing::warn!(to = %back.delivery.routing_key, "a message came back that was not sent"),
    }
}

fn too_heavy(message: &Message) -> Place {
    let bytes = weight::headers(&message.properties);
    (bytes > HEADERS_MAX_BYTES).then(|| {
        Sent::Refused(format!(
            "its headers have {bytes} bytes; RabbitMQ takes no more than {HEADERS_MAX_BYTES} safely"
        ))
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
