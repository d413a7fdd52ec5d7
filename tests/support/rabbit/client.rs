//! A client that asks for confirmations and acknowledges what it got, and does nothing beyond that.

use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Error};

/// The delivery mode of messages that outlive the broker.
const PERSISTENT: u8 = 2;

/// A connection of a test, with one channel.
pub struct RabbitClient {
    channel: Channel,
    _connection: Connection,
}

impl RabbitClient {
    pub async fn connect(url: &str) -> Self {
        Self::try_connect(url).await.unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    pub async fn try_connect(url: &str) -> Result<Self, Error> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Self { channel, _connection: connection })
    }

    /// Declares a durable queue, of the type `classic` or `quorum`.
    pub async fn declare(&self, queue: &str, kind: &str) {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
        self.channel
            .queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments)
            .await
            .unwrap_or_else(|error| panic!("{queue} is declared: {error}"));
    }

    /// Publishes a persistent message to a queue, which must be confirmed.
    pub async fn publish(&self, queue: &str, body: &str) {
        let confirmed = self.try_publish(queue, body).await;
        assert_eq!(confirmed.expect("an answer"), Confirmation::Ack(None), "{body} in {queue}");
    }

    /// Publishes a persistent message to a queue.
    pub async fn try_publish(&self, queue: &str, body: &str) -> Result<Confirmation, Error> {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        self.channel.basic_publish("".into(), queue.into(), options, body.as_bytes(), properties).await?.await
    }

    /// Takes the first message off a queue.
    pub async fn take(&self, queue: &str) -> Option<String> {
        let got =
            self.channel.basic_get(queue.into(), BasicGetOptions::default()).await.expect("an answer")?;
        got.delivery.ack(BasicAckOptions::default()).await.expect("acknowledged");
        Some(String::from_utf8(got.delivery.data.clone()).expect("UTF-8"))
    }
}
