//! Tasks that come in over RabbitMQ: as JSON, and as dead letters of other queues.

use lapin::BasicProperties;
use lapin::options::{BasicGetOptions, BasicRejectOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};

use super::{Bench, header, next};

#[tokio::test]
async fn one_task_or_many() {
    let bench = Bench::pushing([]).await;
    bench.peer.say("redrive.enqueue", "", &json!({ "id": "one", "queue": "a", "payload": { "n": 1 } })).await;
    let many = json!({ "tasks": [{ "id": "two" }, { "id": "three", "delay_ms": 60_000 }] });
    bench.peer.say("redrive.enqueue", "anything", &many).await;
    assert_eq!(bench.task_in("one", "scheduled").await["payload"], json!({ "n": 1 }));
    bench.task_in("two", "scheduled").await;
    bench.task_in("three", "scheduled").await;
}

#[tokio::test]
async fn a_message_that_comes_twice_is_one_task() {
    let bench = Bench::pushing([]).await;
    for _ in 0..3 {
        let properties = BasicProperties::default().with_message_id("m-1".into());
        bench.peer.publish("redrive.enqueue", "", br#"{"queue":"a","payload":1}"#, properties).await;
    }
    bench.peer.say("redrive.enqueue", "", &json!({ "id": "last" })).await;
    bench.task_in("last", "scheduled").await;
    bench.task_in("m-1", "scheduled").await;
    let queues = bench.server.get("/v1/queues").await.json;
    let a = queues["queues"].as_array().unwrap().iter().find(|queue| queue["name"] == "a").unwrap().clone();
    assert_eq!(a["counts"]["scheduled"], 1);
}

#[tokio::test]
async fn the_tasks_of_a_message_have_ids_of_its_own() {
    let bench = Bench::pushing([]).await;
    for _ in 0..2 {
        let properties = BasicProperties::default().with_message_id("m".into());
        bench
            .peer
            .publish("redrive.enqueue", "", br#"{"tasks":[{"queue":"a"},{"queue":"a"}]}"#, properties)
            .await;
        let odd = BasicProperties::default().with_message_id("no id: spaces".into());
        bench.peer.publish("redrive.enqueue", "", br#"{"queue":"a"}"#, odd).await;
    }
    bench.peer.say("redrive.enqueue", "", &json!({ "id": "last" })).await;
    for id in ["last", "m/0", "m/1"] {
        bench.task_in(id, "scheduled").await;
    }
    let queues = bench.server.get("/v1/queues").await.json;
    let a = queues["queues"].as_array().unwrap().iter().find(|queue| queue["name"] == "a").unwrap().clone();
    assert_eq!(a["counts"]["scheduled"], 3, "each once");
}

#[tokio::test]
async fn what_died_in_redrives_own_queues_is_no_dead_letter() {
    let bench = Bench::pushing([]).await;
    let dead_in = |queue: &str| {
        let mut death = FieldTable::default();
        for (name, value) in [("queue", queue), ("reason", "expired"), ("exchange", "")] {
            death.insert(name.into(), AMQPValue::LongString(value.into()));
        }
        let mut headers = FieldTable::default();
        let deaths = vec![AMQPValue::FieldTable(death)];
        headers.insert("x-death".into(), AMQPValue::FieldArray(deaths.into()));
        BasicProperties::default().with_headers(headers)
    };
    bench.peer.publish("redrive.enqueue", "", br#"{"id":"lease"}"#, dead_in("redrive.q.letters")).await;
    bench.peer.publish("redrive.enqueue", "", br#"{"id":"late"}"#, dead_in("redrive.ingress")).await;
    assert_eq!(bench.task_in("late", "scheduled").await["queue"], "default");
    assert_eq!(bench.server.get("/v1/tasks/lease").await.status, 404, "the store has its task");
}

#[tokio::test]
async fn a_task_that_is_refused_does_not_take_its_neighbours_along() {
    let bench = Bench::pushing([]).await;
    let mut rejected = bench.peer.consume("redrive.rejected").await;
    let many = json!({ "tasks": [{ "id": "good" }, { "id": "bad", "max_attempts": 1_000 }] });
    bench.peer.say("redrive.enqueue", "", &many).await;
    bench.task_in("good", "scheduled").await;
    let message = next(&mut rejected).await;
    assert_eq!(header(&message, "redrive-reason-code"), "invalid_value");
    assert!(header(&message, "redrive-reason").contains("tasks[1].max_attempts"), "which, and what");
    bench.peer.say("redrive.enqueue", "", &json!([1, 2])).await;
    assert_eq!(header(&next(&mut rejected).await, "redrive-read-from"), "redrive.ingress");
}

/// A queue of somebody's, whose dead letters come to Redrive; a message in it that a consumer rejects.
async fn dead_letter(bench: &Bench, body: &[u8], properties: BasicProperties) {
    bench.peer.declare("orders", &[("x-dead-letter-exchange", "redrive.enqueue")]).await;
    bench.peer.publish("", "orders", body, properties).await;
    let got = bench.peer.channel.basic_get("orders".into(), BasicGetOptions::default()).await.unwrap();
    got.expect("a message").delivery.reject(BasicRejectOptions::default()).await.unwrap();
}

#[tokio::test]
async fn a_dead_letter_is_a_task_that_failed_once() {
    let bench = Bench::pushing([]).await;
    let properties = BasicProperties::default()
        .with_message_id("order-7".into())
        .with_content_type("application/json".into())
        .with_correlation_id("c-1".into());
    dead_letter(&bench, br#"{ "order": 7.0 }"#, properties).await;
    let task = bench.task_in("orders/order-7", "scheduled").await;
    assert_eq!((&task["queue"], &task["task_type"]), (&json!("orders"), &json!("orders")));
    assert_eq!(task["ledger"]["failed"], 1);
    let failure = &task["last_failure"];
    assert!(failure["message"].as_str().unwrap().contains("rejected by a consumer of the queue `orders`"));
    let payload = &task["payload"];
    assert_eq!((&payload["exchange"], &payload["routing_key"]), (&json!(""), &json!("orders")));
    assert_eq!((&payload["encoding"], &payload["body"]), (&json!("json"), &json!({ "order": 7.0 })));
    assert_eq!(payload["correlation_id"], "c-1");
}

#[tokio::test]
async fn headers_say_what_a_dead_letter_is() {
    let bench = Bench::pushing([]).await;
    let mut headers = FieldTable::default();
    for (name, value) in [
        ("traceparent", "of another make"),
        ("redrive-id", "mine"),
        ("redrive-queue", "billing"),
        ("redrive-type", "charge"),
        ("redrive-dependency", "stripe/eu"),
        ("redrive-group", "tenant-1"),
        ("redrive-error", "HTTP 429 Too Many Requests"),
    ] {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    headers.insert("redrive-tokens".into(), AMQPValue::LongInt(12_000));
    dead_letter(&bench, &[0xff, 0x00], BasicProperties::default().with_headers(headers)).await;
    let task = bench.task_in("mine", "scheduled").await;
    assert_eq!((&task["queue"], &task["task_type"]), (&json!("billing"), &json!("charge")));
    assert_eq!((&task["dependency"], &task["group"]), (&json!("stripe/eu"), &json!("tenant-1")));
    assert_eq!(task["tokens"], 12_000);
    assert_eq!(task["last_failure"]["class"], "rate_limited");
    let payload: &Value = &task["payload"];
    assert_eq!((&payload["encoding"], &payload["body"]), (&json!("base64"), &json!("/wA=")));
}

#[tokio::test]
async fn a_dead_letter_that_cannot_be_a_task_is_kept_aside() {
    let bench = Bench::pushing([]).await;
    let mut rejected = bench.peer.consume("redrive.rejected").await;
    let mut headers = FieldTable::default();
    headers.insert("redrive-queue".into(), AMQPValue::LongString("no such/queue name!".into()));
    headers.insert("ballast".into(), AMQPValue::LongString("x".repeat(90_000).into()));
    dead_letter(&bench, b"{}", BasicProperties::default().with_headers(headers)).await;
    let message = next(&mut rejected).await;
    assert_eq!(header(&message, "redrive-reason-code"), "invalid_value");
    assert!(header(&message, "redrive-reason").contains("redrive-queue"));
    assert_eq!(message.data, b"{}");
}
