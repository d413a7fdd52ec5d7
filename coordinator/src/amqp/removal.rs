//! Taking away what was declared: for installations that last no longer than a demonstration or a measurement.

use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use redrive_link::amqp::{SessionError, dial};

use super::config::AmqpConfig;
use super::topology;

/// Deletes every exchange and queue that a coordinator of this configuration declares, with all that is in them and whoever
/// uses them. What is not there is no error, and without an address there is nothing to do. A coordinator that still runs
/// declares them again.
///
/// # Errors
/// RabbitMQ cannot be reached, or refuses: some of it may still be there, and the call can be repeated.
pub async fn remove(config: &AmqpConfig) -> Result<(), SessionError> {
    let Some(address) = &config.url else { return Ok(()) };
    let connection = dial(address, "redrive-remove").await?;
    let channel = connection.create_channel().await?;
    // First of all: nothing more goes where nobody reads.
    let exchange = config.names().enqueue();
    channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await?;
    for (queue, _) in topology::queues(config) {
        channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await?;
    }
    Ok(())
}
