//! A plain client of RabbitMQ. Like a coordinator it has one connection to publish and another one to consume.

use anyhow::{Context, bail, ensure};
use futures_util::StreamExt;
use futures_util::stream::ReadyChunks;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, Consumer};
use redrive_link::amqp::{AmqpAddress, dial};

/// Messages that RabbitMQ may hand over unacknowledged: some batches, so that it need not wait for acknowledgements.
const PREFETCH: u16 = 2_000;
/// Most of them that are looked at together.
const TOGETHER_MAX: usize = 1_000;

/// A message, without the place that it goes to.
#[derive(Clone)]
pub(super) struct Message {
    pub properties: BasicProperties,
    pub body: Vec<u8>,
}

/// Its two connections.
pub(super) struct Peer {
    publishing: Channel,
    consuming: Connection,
    /// What is published on.
    _connection: Connection,
}

impl Peer {
    pub async fn connect(address: &AmqpAddress) -> anyhow::Result<Self> {
        let connection = dial(address, "redrive-bench-publish").await?;
        let publishing = connection.create_channel().await?;
        publishing.confirm_select(ConfirmSelectOptions::default()).await?;
        let consuming = dial(address, "redrive-bench-consume").await?;
        Ok(Self { publishing, consuming, _connection: connection })
    }

    /// What callers publish on.
    pub fn publisher(&self) -> Channel {
        self.publishing.clone()
    }

    /// Declares a queue like those that are pushed.
    pub async fn declare(&self, queue: &str) -> anyhow::Result<()> {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("classic".into()));
        self.publishing.queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments).await?;
        Ok(())
    }

    /// Begins to consume a queue.
    pub async fn consume(&self, queue: &str) -> anyhow::Result<Arrivals> {
        let channel = self.consuming.create_channel().await?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumer = channel.basic_consume(queue.into(), "".into(), options, arguments).await?;
        Ok(Arrivals { batches: consumer.ready_chunks(TOGETHER_MAX), channel })
    }
}

/// What has arrived, in batches.
pub(super) struct Arrivals {
    batches: ReadyChunks<Consumer>,
    channel: Channel,
}

impl Arrivals {
    /// What has arrived: at least one message. May be given up.
    pub async fn next(&mut self) -> anyhow::Result<Vec<Delivery>> {
        let batch = self.batches.next().await.context("RabbitMQ cancelled the consumer")?;
        Ok(batch.into_iter().collect::<lapin::Result<_>>()?)
    }

    /// Ends it. What was not acknowledged goes back.
    pub async fn close(self) -> anyhow::Result<()> {
        Ok(self.channel.close(200, "done".into()).await?)
    }
}

/// Acknowledges a batch, and with it all that came before.
pub(super) async fn acknowledge(batch: &[Delivery]) -> anyhow::Result<()> {
    let Some(last) = batch.last() else { return Ok(()) };
    ensure!(last.acker.ack(BasicAckOptions { multiple: true }).await?, "the channel is closed");
    Ok(())
}

/// Publishes a message so many times, and waits until RabbitMQ has them all in that queue.
pub(super) async fn publish(
    channel: &Channel,
    queue: &str,
    message: &Message,
    count: usize,
) -> anyhow::Result<()> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let mut confirming = Vec::with_capacity(count);
    for _ in 0..count {
        let properties = message.properties.clone();
        let published = channel.basic_publish("".into(), queue.into(), options, &message.body, properties);
        confirming.push(published.await?);
    }
    for confirmation in confirming {
        match confirmation.await? {
            Confirmation::Ack(None) => {}
            Confirmation::Ack(Some(_)) | Confirmation::Nack(_) | Confirmation::NotRequested => {
                bail!("RabbitMQ did not take a message into `{queue}`")
            }
        }
    }
    Ok(())
}
