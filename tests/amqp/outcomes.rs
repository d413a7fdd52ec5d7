//! What consumers say of their tasks.

use lapin::BasicProperties;
use serde_json::json;

use super::{Bench, header, next, next_lease, room};

#[tokio::test]
async fn a_failure_is_judged_and_the_task_comes_again() {
    let bench = Bench::pushing([("letters", room(5))]).await;
    let mut consumer = bench.peer.consume("redrive.q.letters").await;
    bench.enqueue(json!([{ "id": "a", "queue": "letters" }])).await;
    let (_, first) = next_lease(&mut consumer).await;
    let failure = json!({ "http_status": 503, "headers": { "retry-after": "0" } });
    bench.peer.settle(&first, json!({ "retry": { "failure": failure } })).await;
    let (message, second) = next_lease(&mut consumer).await;
    assert_eq!((second.attempt, second.last_failure.unwrap().class.as_str()), (2, "overloaded"));
    assert_eq!(
        message.properties.headers().as_ref().unwrap().inner()["redrive-attempt"],
        lapin::types::AMQPValue::LongLongInt(2)
    );
}

#[tokio::test]
async fn what_is_said_twice_counts_once() {
    let bench = Bench::pushing([("letters", room(5))]).await;
    let mut consumer = bench.peer.consume("redrive.q.letters").await;
    bench.enqueue(json!([{ "id": "a", "queue": "letters" }])).await;
    let (_, lease) = next_lease(&mut consumer).await;
    bench.peer.settle(&lease, json!({ "done": { "result": 1 } })).await;
    bench.peer.settle(&lease, json!({ "done": { "result": 2 } })).await;
    bench.peer.settle(&lease, json!({ "dead": { "failure": { "exception": "no" } } })).await;
    // Something that is settled after them, so that they were read.
    bench.enqueue(json!([{ "id": "b", "queue": "letters" }])).await;
    let (_, lease) = next_lease(&mut consumer).await;
    bench.peer.settle(&lease, json!({ "done": {} })).await;
    bench.task_in("b", "succeeded").await;
    let task = bench.task_in("a", "succeeded").await;
    assert_eq!((&task["result"], task["history"].as_array().unwrap().len()), (&json!(1), 1));
    assert_eq!(bench.peer.look("redrive.rejected").await, Some((0, 0)), "a repeat is no error");
}

#[tokio::test]
async fn what_cannot_be_read_is_kept_aside_with_the_reason_and_holds_up_nobody() {
    let bench = Bench::pushing([("letters", room(5))]).await;
    let mut consumer = bench.peer.consume("redrive.q.letters").await;
    let mut rejected = bench.peer.consume("redrive.rejected").await;
    bench.enqueue(json!([{ "id": "a", "queue": "letters" }])).await;
    let (_, lease) = next_lease(&mut consumer).await;
    let properties = BasicProperties::default().with_expiration("60000".into()).with_app_id("fleet".into());
    bench.peer.publish("", "redrive.outcomes", b"\xff not json", properties).await;
    let nonsense = json!({ "id": "a", "epoch": 1, "nonce": "x", "outcome": { "done": {} } });
    bench.peer.say("", "redrive.outcomes", &nonsense).await;
    let snooze = json!({ "snooze": { "delay_ms": u64::MAX } });
    bench.peer.settle(&lease, snooze).await;
    bench.peer.settle(&lease, json!({ "done": {} })).await;
    bench.task_in("a", "succeeded").await;
    let first = next(&mut rejected).await;
    assert_eq!(first.data, b"\xff not json");
    assert_eq!(header(&first, "redrive-reason-code"), "invalid_utf8");
    assert_eq!(header(&first, "redrive-read-from"), "redrive.outcomes");
    assert_eq!(first.properties.app_id().as_ref().unwrap().as_str(), "fleet");
    assert!(first.properties.expiration().is_none(), "kept until somebody looks");
    let second = next(&mut rejected).await;
    assert!(header(&second, "redrive-reason").contains("nonce"), "{second:?}");
    let third = next(&mut rejected).await;
    assert_eq!(header(&third, "redrive-reason-code"), "invalid_value");
}
