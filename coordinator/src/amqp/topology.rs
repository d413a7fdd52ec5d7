//! The exchanges and queues that Redrive needs, declared at the beginning of every connection: what is there stays as it is.

use std::pin::pin;
use std::time::Duration;

use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ErrorKind, ExchangeKind};
use redrive_link::amqp::{AmqpAddress, SessionError, dial};
use redrive_shared::id::Name;

use super::config::{AmqpConfig, QueueType};
use super::publisher::PERSISTENT;

/// For a turn to be confirmed. A broker that works has no hiccups as long as this: what needs more never comes.
const TURN_PATIENCE: Duration = Duration::from_secs(10);
/// Until a broker that takes nothing is looked at again.
const BLOCKED_LOOK: Duration = Duration::from_millis(500);

/// Declares everything.
///
/// # Errors
/// Something of that name is there and is not as it must be: names it, and says what differs.
pub(super) async fn declare(channel: &Channel, config: &AmqpConfig) -> Result<(), SessionError> {
    let names = config.names();
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let exchange = names.enqueue();
    channel
        .exchange_declare(exchange.as_str().into(), ExchangeKind::Fanout, durable, FieldTable::default())
        .await
        .map_err(|error| conflict("exchange", &exchange, error))?;
    for (queue, arguments) in queues(config) {
        queue_of(channel, &queue, arguments).await?;
    }
    let binding = QueueBindOptions::default();
    channel
        .queue_bind(names.ingress().into(), exchange.into(), "".into(), binding, FieldTable::default())
        .await?;
    Ok(())
}

/// Puts a message into turn queues, for one coordinator at a time to hold. Every coordinator does so whenever it begins to
/// consume: of those that nobody holds, the queue keeps one. It takes a connection of its own, because a broker short of
/// memory reads nothing more from one that publishes, not even acknowledgements.
pub(super) async fn put_turns(
    address: &AmqpAddress,
    config: &AmqpConfig,
    queues: impl Iterator<Item = &Name>,
) -> Result<(), SessionError> {
    let mut queues = queues.peekable();
    if queues.peek().is_none() {
        return Ok(());
    }
    let connection = dial(address, "redrive-turn").await?;
    for queue in queues {
        put_turn(&connection, &config.names().turn(queue)).await?;
    }
    Ok(())
}

/// Puts a message into one turn queue. A quorum queue whose node was killed soon after it was made may come back in a state in
/// which it takes nothing for ever (seen with RabbitMQ 3.10): it is made anew, which costs nobody anything but a turn.
async fn put_turn(connection: &Connection, turn: &str) -> Result<(), SessionError> {
    for _ in 0..2 {
        // Of its own: what was not confirmed before says nothing of what is published next.
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        queue_of(&channel, turn, turn_arguments()).await?;
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        let (key, options) = (turn.into(), BasicPublishOptions::default());
        let confirmed = channel.basic_publish("".into(), key, options, b"", properties).await?;
        let mut confirmed = pin!(confirmed);
        loop {
            if let Ok(confirmed) = tokio::time::timeout(TURN_PATIENCE, &mut confirmed).await {
                return confirmed.map(|_| ()).map_err(SessionError::from);
            }
            if !connection.status().blocked() {
                break;
            }
            // It is short of memory, and takes nothing from anybody. A connection that is closed now would stay for as long.
            while connection.status().blocked() {
                tokio::time::sleep(BLOCKED_LOOK).await;
            }
        }
        tracing::warn!(queue = turn, "RabbitMQ takes nothing for this queue; it is made anew");
        channel.queue_delete(turn.into(), QueueDeleteOptions::default()).await?;
    }
    Err(SessionError::Broken(format!("RabbitMQ takes nothing for the queue `{turn}`")))
}

fn turn_arguments() -> FieldTable {
    let mut arguments = arguments(QueueType::Quorum);
    arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
    arguments
}

/// Every queue that is needed, and how it must be.
pub(super) fn queues(config: &AmqpConfig) -> Vec<(String, FieldTable)> {
    let names = config.names();
    let own = [names.ingress(), names.outcomes(), names.rejected()];
    let mut queues: Vec<_> = own.into_iter().map(|name| (name, arguments(QueueType::Quorum))).collect();
    for queue in config.push.keys() {
        queues.push((names.pushed(queue), arguments(config.queue_type)));
        queues.push((names.turn(queue), turn_arguments()));
    }
    queues
}

/// Most deliveries of a message of our own queues. RabbitMQ 4 drops what was delivered more than 20 times, unless told otherwise,
/// and every connection that breaks counts as one.
const DELIVERIES_MAX: i32 = 1_000_000_000;

/// Declares a queue.
pub(super) async fn queue_of(
    channel: &Channel,
    name: &str,
    arguments: FieldTable,
) -> Result<(), SessionError> {
    let durable = QueueDeclareOptions::durable();
    let declared = channel.queue_declare(name.into(), durable, arguments).await;
    declared.map(|_| ()).map_err(|error| conflict("queue", name, error))
}

fn arguments(queue_type: QueueType) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(queue_type.as_str().into()));
    if queue_type == QueueType::Quorum {
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(DELIVERIES_MAX));
    }
    arguments
}

/// RabbitMQ says what differs; which thing it is and what to do comes from here.
fn conflict(what: &str, name: &str, error: lapin::Error) -> SessionError {
    let ErrorKind::ProtocolError(refusal) = error.kind() else { return error.into() };
    let said = refusal.get_message().as_str().to_owned();
    if said.contains("PRECONDITION_FAILED") {
        return SessionError::Broken(format!(
            "the {what} `{name}` is there and is not as Redrive needs it: {said}; delete it once it is empty, and it is made \
             anew, or give Redrive names of its own with coordinator.amqp.prefix"
        ));
    }
    if said.contains("ACCESS_REFUSED") {
        return SessionError::Broken(format!(
            "the {what} `{name}` may not be declared: {said}; allow the user to configure, write and read what begins with \
             the prefix"
        ));
    }
    error.into()
}
