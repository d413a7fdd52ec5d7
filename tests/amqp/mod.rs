//! RabbitMQ, a real one: tasks pushed to consumers, outcomes and tasks that come in, and what goes wrong on the way.

mod faults;
mod ingress;
mod outcomes;
mod push;
mod python;
mod republish;
mod tls;
mod topology;

use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer};
use redrive_coordinator::amqp::PushConfig;
use redrive_coordinator::{AmqpConfig, CoordinatorConfig};
use redrive_shared::task::Lease;
use serde_json::{Value, json};

use crate::support::name;
use crate::support::rabbit::{SharedRabbit, shared};
use crate::support::server::Server;
use crate::support::wait::eventually;

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// For what must not happen: long beside the second in which a coordinator looks again.
const A_WHILE: Duration = Duration::from_millis(2_500);

/// A coordinator on a virtual host of its own.
struct Bench {
    rabbit: SharedRabbit,
    server: Server,
    /// The test's own connection.
    peer: Peer,
}

impl Bench {
    /// One that pushes these queues.
    async fn pushing<const N: usize>(queues: [(&str, PushConfig); N]) -> Self {
        Self::with(|url| coordinator(url, queues)).await
    }

    /// One that is configured so.
    async fn with(config: impl FnOnce(&str) -> CoordinatorConfig) -> Self {
        let rabbit = shared().await;
        let peer = Peer::connect(&rabbit.url()).await;
        let server = Server::with(config(&rabbit.url())).await;
        let bench = Self { rabbit, server, peer };
        bench.until_consumed("redrive.outcomes", 1).await;
        bench.until_consumed("redrive.ingress", 1).await;
        bench
    }

    /// Waits until so many consume a queue.
    async fn until_consumed(&self, queue: &str, consumers: u32) {
        let what = format!("{queue} has {consumers} consumers");
        eventually(&what, PATIENCE, async || {
            let found = Peer::connect(&self.rabbit.url()).await.look(queue).await;
            (found.map(|(_, consumers)| consumers) == Some(consumers)).then_some(())
        })
        .await;
    }

    async fn enqueue(&self, tasks: Value) {
        let reply = self.server.post("/v1/tasks", &json!({ "tasks": tasks })).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let refused = reply.json["results"].as_array().unwrap().iter().find(|one| one["status"] != "created");
        assert!(refused.is_none(), "{refused:?}");
    }

    /// Waits until an agent works on a task.
    async fn agent_has(&self, id: &str, agent: &str) {
        let path = format!("/v1/tasks/{id}");
        eventually(&format!("{agent} has {id}"), PATIENCE, async || {
            (self.server.get(&path).await.json["agent"] == agent).then_some(())
        })
        .await;
    }

    /// A task once it is in that state.
    async fn task_in(&self, id: &str, state: &str) -> Value {
        let what = format!("{id} is {state}");
        let path = format!("/v1/tasks/{}", id.replace('/', "%2F"));
        let (task, _) = eventually(&what, PATIENCE, async || {
            let reply = self.server.get(&path).await;
            (reply.json["state"] == state).then_some(reply.json)
        })
        .await;
        task
    }
}

fn coordinator<const N: usize>(url: &str, queues: [(&str, PushConfig); N]) -> CoordinatorConfig {
    let push = queues.into_iter().map(|(queue, config)| (name(queue), config)).collect();
    let amqp = AmqpConfig { url: Some(url.parse().unwrap()), push, ..AmqpConfig::default() };
    CoordinatorConfig { in_memory: true, create_queues: true, amqp, ..CoordinatorConfig::default() }
}

/// Room for so many at consumers of another make.
fn room(max_outstanding: u32) -> PushConfig {
    PushConfig { max_outstanding, lease_ms: None }
}

/// Somebody who speaks AMQP and knows nothing of Redrive.
struct Peer {
    channel: Channel,
    connection: Connection,
}

impl Peer {
    async fn connect(url: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        Self { channel, connection }
    }

    /// Publishes, and waits until a queue has it.
    async fn publish(&self, exchange: &str, key: &str, body: &[u8], properties: BasicProperties) {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let published = self.channel.basic_publish(exchange.into(), key.into(), options, body, properties);
        assert_eq!(published.await.unwrap().await.unwrap(), Confirmation::Ack(None), "{exchange} {key}");
    }

    async fn say(&self, exchange: &str, key: &str, body: &Value) {
        self.publish(exchange, key, body.to_string().as_bytes(), BasicProperties::default()).await;
    }

    /// How a lease ended.
    async fn settle(&self, lease: &Lease, outcome: Value) {
        self.say("", "redrive.outcomes", &settlement(lease, outcome)).await;
    }

    async fn consume(&self, queue: &str) -> Consumer {
        let channel = self.connection.create_channel().await.unwrap();
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        channel.basic_consume(queue.into(), "".into(), options, arguments).await.unwrap()
    }

    /// Messages that nobody took, and consumers; none: there is no such queue.
    async fn look(&self, queue: &str) -> Option<(u32, u32)> {
        let channel = self.connection.create_channel().await.unwrap();
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare(queue.into(), passive, FieldTable::default()).await.ok()?;
        Some((queue.message_count(), queue.consumer_count()))
    }

    async fn declare(&self, queue: &str, arguments: &[(&str, &str)]) {
        let mut table = FieldTable::default();
        for (argument, value) in arguments {
            table.insert((*argument).into(), AMQPValue::LongString((*value).into()));
        }
        self.channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), table).await.unwrap();
    }
}

fn settlement(lease: &Lease, outcome: Value) -> Value {
    json!({ "id": lease.id, "epoch": lease.epoch, "nonce": lease.nonce, "outcome": outcome })
}

/// The next message.
async fn next(consumer: &mut Consumer) -> Delivery {
    tokio::time::timeout(PATIENCE, consumer.next()).await.expect("a message in time").unwrap().unwrap()
}

/// The next message, taken off its queue, and the lease in it.
async fn next_lease(consumer: &mut Consumer) -> (Delivery, Lease) {
    let delivery = next(consumer).await;
    delivery.ack(BasicAckOptions::default()).await.unwrap();
    let lease = serde_json::from_slice(&delivery.data).unwrap();
    (delivery, lease)
}

/// No message for a while.
async fn nothing(consumer: &mut Consumer) {
    let next = tokio::time::timeout(A_WHILE, consumer.next()).await;
    assert!(next.is_err(), "{next:?}");
}

fn header(delivery: &Delivery, name: &str) -> String {
    match delivery.properties.headers().as_ref().and_then(|headers| headers.inner().get(name)) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        other => panic!("{name}: {other:?}"),
    }
}
