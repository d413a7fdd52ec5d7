//! Central retries for queues that exist already: their dead letters come in, and go back when their time has come.

use lapin::options::{BasicAckOptions, BasicRejectOptions, ExchangeDeclareOptions, QueueBindOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Consumer, ExchangeKind};
use redrive_coordinator::CoordinatorConfig;
use redrive_coordinator::amqp::Republish;
use serde_json::json;

use super::{Bench, PATIENCE, coordinator, header, next, nothing};
use crate::support::name;
use crate::support::wait::eventually;

/// A coordinator that gives `orders` back that way, soon after each failure; and the queue, with its consumer.
pub async fn bench(way: Republish, max_attempts: u32) -> (Bench, Consumer) {
    let bench = Bench::with(|url| {
        let mut config: CoordinatorConfig = coordinator(url, []);
        config.amqp.republish = [(name("orders"), way)].into();
        config
    })
    .await;
    let soon = json!({ "strategy": "fixed", "delay_ms": 50 });
    let policy = json!({ "policy": { "max_attempts": max_attempts, "overrides": { "unknown": { "strategy": soon } } } });
    let made = bench.server.put("/v1/queues/orders", &policy).await;
    assert_eq!(made.status, 200, "{made:?}");
    bench.peer.declare("orders", &[("x-dead-letter-exchange", "redrive.enqueue")]).await;
    let consumer = bench.peer.consume("orders").await;
    (bench, consumer)
}

pub fn order() -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert("tenant".into(), AMQPValue::LongLongInt(7));
    BasicProperties::default()
        .with_message_id("order-1".into())
        .with_content_type("text/plain".into())
        .with_delivery_mode(2)
        .with_headers(headers)
}

#[tokio::test]
async fn a_consumer_that_fails_twice_sees_its_own_message_again_and_then_no_more() {
    let (bench, mut consumer) = bench(Republish::Exchange, 5).await;
    bench.peer.publish("", "orders", b" 3 apples ", order()).await;
    for attempt in 1..=3 {
        let message = next(&mut consumer).await;
        assert_eq!(message.data, b" 3 apples ", "attempt {attempt}");
        assert_eq!(message.properties.content_type().as_ref().unwrap().as_str(), "text/plain");
        assert_eq!(*message.properties.delivery_mode(), Some(2));
        let headers = message.properties.headers().as_ref().unwrap().inner();
        assert_eq!(headers["tenant"], AMQPValue::LongLongInt(7));
        if attempt == 1 {
            assert!(!headers.contains_key("redrive-id"));
        } else {
            assert_eq!(header(&message, "redrive-id"), "orders/order-1");
            assert_eq!(headers["redrive-attempt"], AMQPValue::LongLongInt(attempt));
            assert!(!headers.contains_key("x-death"), "a life of its own");
        }
        if attempt < 3 {
            message.reject(BasicRejectOptions::default()).await.unwrap();
        } else {
            message.ack(BasicAckOptions::default()).await.unwrap();
        }
    }
    let task = bench.task_in("orders/order-1", "handed_off").await;
    assert_eq!((&task["ledger"]["failed"], &task["runs"]), (&json!(2), &json!(2)));
    nothing(&mut consumer).await;
}

#[tokio::test]
async fn what_never_succeeds_ends_with_a_person_after_its_attempts() {
    let (bench, mut consumer) = bench(Republish::Exchange, 3).await;
    bench.peer.publish("", "orders", b"{}", order()).await;
    for _ in 0..3 {
        next(&mut consumer).await.reject(BasicRejectOptions::default()).await.unwrap();
    }
    let task = bench.task_in("orders/order-1", "escalated").await;
    assert_eq!(task["ledger"]["failed"], 3);
    nothing(&mut consumer).await;
}

#[tokio::test]
async fn a_return_that_comes_twice_counts_once() {
    let (bench, mut consumer) = bench(Republish::Exchange, 9).await;
    bench.peer.publish("", "orders", b"{}", order()).await;
    next(&mut consumer).await.reject(BasicRejectOptions::default()).await.unwrap();
    let second = next(&mut consumer).await;
    bench.task_in("orders/order-1", "handed_off").await;
    // As RabbitMQ would deliver it after a lost acknowledgement: the same dead letter again.
    second.reject(BasicRejectOptions::default()).await.unwrap();
    let third = next(&mut consumer).await;
    let mut headers = second.properties.headers().clone().unwrap();
    let mut death = FieldTable::default();
    for (name, value) in [("queue", "orders"), ("reason", "rejected"), ("exchange", "")] {
        death.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    headers.insert("x-death".into(), AMQPValue::FieldArray(vec![AMQPValue::FieldTable(death)].into()));
    let again = second.properties.clone().with_headers(headers);
    bench.peer.publish("redrive.enqueue", "", &second.data, again).await;
    third.ack(BasicAckOptions::default()).await.unwrap();
    nothing(&mut consumer).await;
    assert_eq!(bench.task_in("orders/order-1", "handed_off").await["ledger"]["failed"], 2);
}

#[tokio::test]
async fn an_id_that_is_used_again_loses_no_message() {
    let (bench, mut consumer) = bench(Republish::Exchange, 5).await;
    // The first one lives on; the second has its id and another body; the third is like the first, after that one's end.
    for (body, id) in [("1", "orders/order-1"), ("2", "orders/order-1/")] {
        bench.peer.publish("", "orders", body.as_bytes(), order()).await;
        next(&mut consumer).await.reject(BasicRejectOptions::default()).await.unwrap();
        let again = next(&mut consumer).await;
        assert_eq!(again.data, body.as_bytes());
        assert!(header(&again, "redrive-id").starts_with(id), "{again:?}");
        again.ack(BasicAckOptions::default()).await.unwrap();
    }
    bench.task_in("orders/order-1", "handed_off").await;
    bench.peer.publish("", "orders", b"1", order()).await;
    next(&mut consumer).await.reject(BasicRejectOptions::default()).await.unwrap();
    let again = next(&mut consumer).await;
    assert!(header(&again, "redrive-id").starts_with("orders/order-1/"), "a life of its own");
    again.ack(BasicAckOptions::default()).await.unwrap();
    nothing(&mut consumer).await;
}

#[tokio::test]
async fn what_is_redrives_own_is_not_written_to_by_tasks() {
    let (bench, _consumer) = bench(Republish::Exchange, 5).await;
    for (id, exchange, key) in [("a", "", "redrive.outcomes"), ("b", "redrive.enqueue", "")] {
        let payload = json!({ "exchange": exchange, "routing_key": key, "queue": "orders", "encoding": "text", "body": "x" });
        bench.enqueue(json!([{ "id": id, "queue": "orders", "payload": payload }])).await;
        let task = bench.task_in(id, "escalated").await;
        assert!(task["last_failure"]["message"].as_str().unwrap().contains("Redrive's own"), "{task}");
    }
}

#[tokio::test]
async fn a_message_that_cannot_be_sent_does_not_keep_its_neighbours() {
    let (bench, mut consumer) = bench(Republish::Exchange, 1).await;
    let payload = |exchange: &str, key: &str, headers: &serde_json::Value| {
        json!({ "exchange": exchange, "routing_key": key, "queue": "orders", "headers": headers, "encoding": "text",
                "body": key })
    };
    let (none, heavy) = (json!({ "CC": ["redrive.outcomes"] }), json!({ "x": "y".repeat(120_000) }));
    bench.server.post("/v1/queues/orders/pause", &json!({})).await;
    bench
        .enqueue(json!([
            { "id": "gone", "queue": "orders", "payload": payload("gone", "orders", &none) },
            { "id": "heavy", "queue": "orders", "payload": payload("", "orders", &heavy) },
            { "id": "long", "queue": "orders", "payload": payload("", &"k".repeat(300), &none) },
            { "id": "nowhere", "queue": "orders", "payload": payload("", "nowhere", &none) },
            { "id": "good", "queue": "orders", "payload": payload("", "orders", &none) },
        ]))
        .await;
    bench.server.post("/v1/queues/orders/resume", &json!({})).await;
    assert_eq!(next(&mut consumer).await.data, b"orders");
    bench.task_in("good", "handed_off").await;
    for (id, why) in [
        ("gone", "no exchange 'gone'"),
        ("heavy", "its headers have"),
        ("long", "routing_key"),
        ("nowhere", "no queue takes it"),
    ] {
        failed_with(&bench, id, why).await;
    }
    nothing(&mut consumer).await;
}

#[tokio::test]
async fn a_queue_alone_gets_it_again_where_that_is_asked_for() {
    let (bench, mut consumer) = bench(Republish::Queue, 5).await;
    let (channel, arguments) = (&bench.peer.channel, FieldTable::default);
    channel
        .exchange_declare("shop".into(), ExchangeKind::Fanout, ExchangeDeclareOptions::default(), arguments())
        .await
        .unwrap();
    bench.peer.declare("copies", &[]).await;
    for queue in ["orders", "copies"] {
        let options = QueueBindOptions::default();
        channel.queue_bind(queue.into(), "shop".into(), "".into(), options, arguments()).await.unwrap();
    }
    let mut copies = bench.peer.consume("copies").await;
    bench.peer.publish("shop", "", b"{}", order()).await;
    next(&mut copies).await.ack(BasicAckOptions::default()).await.unwrap();
    next(&mut consumer).await.reject(BasicRejectOptions::default()).await.unwrap();
    next(&mut consumer).await.ack(BasicAckOptions::default()).await.unwrap();
    nothing(&mut copies).await;
}

#[tokio::test]
async fn what_cannot_go_back_is_told_and_stops_nothing() {
    let (bench, mut consumer) = bench(Republish::Exchange, 1).await;
    // It was no message.
    bench.enqueue(json!([{ "id": "plain", "queue": "orders", "payload": { "n": 1 } }])).await;
    let task = bench.task_in("plain", "escalated").await;
    assert!(task["last_failure"]["message"].as_str().unwrap().contains("no message"), "{task}");
    // Its exchange is gone.
    let gone =
        json!({ "exchange": "gone", "routing_key": "x", "queue": "orders", "encoding": "json", "body": {} });
    bench.enqueue(json!([{ "id": "gone", "queue": "orders", "payload": gone }])).await;
    failed_with(&bench, "gone", "no exchange 'gone'").await;
    // No queue takes it.
    let lost = json!({ "exchange": "", "routing_key": "nowhere", "queue": "nowhere", "encoding": "text", "body": "x" });
    bench.enqueue(json!([{ "id": "lost", "queue": "orders", "payload": lost }])).await;
    failed_with(&bench, "lost", "no queue takes it").await;
    let good = json!({ "exchange": "", "routing_key": "orders", "queue": "orders", "encoding": "text", "body": "x" });
    bench.enqueue(json!([{ "id": "good", "queue": "orders", "payload": good }])).await;
    assert_eq!(next(&mut consumer).await.data, b"x");
    bench.task_in("good", "handed_off").await;
}

/// Waits until a task has failed, and that was why.
async fn failed_with(bench: &Bench, id: &str, why: &str) {
    let (message, _) = eventually(&format!("{id} has failed"), PATIENCE, async || {
        let task = bench.server.get(&format!("/v1/tasks/{id}")).await.json;
        task["last_failure"]["message"].as_str().map(str::to_owned)
    })
    .await;
    assert!(message.contains(why), "{id}: {message}");
}
