//! Takes away what a coordinator declared, for names that were made to be used once.

use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use redrive_link::amqp::{SessionError, dial};

use super::config::AmqpConfig;
use super::topology;

/// Deletes the exchange and every queue of this configuration, with what is in them. What is not there is no error. A
/// coordinator that still runs declares them anew: end it before.
///
/// # Errors
/// RabbitMQ cannot be reached, or refuses; some of it may be deleted already.
pub async fn remove(config: &AmqpConfig) -> Result<(), SessionError> {
    let Some(address) = &config.url else { return Ok(()) };
    let connection = dial(address, "redrive-remove").await?;
    let channel = connection.create_channel().await?;
    // First of all, so that nothing comes in behind what is deleted.
    channel.exchange_delete(config.names().enqueue().into(), ExchangeDeleteOptions::default()).await?;
    for (queue, _) in topology::queues(config) {
        channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await?;
    }
    // All of it was confirmed; a farewell that fails changes nothing.
    let _ = connection.close(200, "done".into()).await;
    Ok(())
}
