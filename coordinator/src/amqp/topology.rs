//! The exchanges and queues that Redrive needs, declared at the beginning of every connection: what is there stays as it is.

use lapin::options::{BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, ErrorKind, ExchangeKind};
use redrive_link::amqp::SessionError;
use redrive_shared::id::Name;

use super::config::{AmqpConfig, QueueType};

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
    for queue in [names.ingress(), names.outcomes(), names.rejected()] {
        queue_of(channel, &queue, arguments(QueueType::Quorum)).await?;
    }
    let binding = QueueBindOptions::default();
    channel
        .queue_bind(names.ingress().into(), exchange.into(), "".into(), binding, FieldTable::default())
        .await?;
    for queue in config.push.keys() {
        queue_of(channel, &names.pushed(queue), arguments(config.queue_type)).await?;
        turn_queue(channel, config, queue).await?;
    }
    Ok(())
}

/// A queue with one message in it, which one consumer holds at a time.
async fn turn_queue(channel: &Channel, config: &AmqpConfig, queue: &Name) -> Result<(), SessionError> {
    let name = config.names().turn(queue);
    let mut arguments = arguments(QueueType::Quorum);
    arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
    // Every coordinator puts one in: those that nobody holds must not add up.
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
    queue_of(channel, &name, arguments).await?;
    let properties = BasicProperties::default().with_delivery_mode(2);
    let _unconfirmed = channel
        .basic_publish("".into(), name.into(), BasicPublishOptions::default(), b"", properties)
        .await?;
    Ok(())
}

async fn queue_of(channel: &Channel, name: &str, arguments: FieldTable) -> Result<(), SessionError> {
    let durable = QueueDeclareOptions::durable();
    let declared = channel.queue_declare(name.into(), durable, arguments).await;
    declared.map(|_| ()).map_err(|error| conflict("queue", name, error))
}

fn arguments(queue_type: QueueType) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(queue_type.as_str().into()));
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
