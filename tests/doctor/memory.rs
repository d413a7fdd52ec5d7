//! A Redis that fills up: new tasks are refused while there is still room to end those that are there.

use std::time::Duration;

use redrive_coordinator::{CoordinatorConfig, StoreConfig};
use serde_json::{Value, json};

use crate::support::redis::{RedisOptions, RedisServer};
use crate::support::server::{Reply, Server};
use crate::support::wait::eventually;

const MAXMEMORY: u64 = 20 << 20;
const PAYLOAD: usize = 8_000;
const BATCH: usize = 100;

async fn coordinator(redis: &RedisServer, memory_limit_percent: u8) -> Server {
    let store = StoreConfig {
        url: Some(redis.url().parse().unwrap()),
        allow_unsafe: true,
        memory_limit_percent,
        ..StoreConfig::default()
    };
    Server::with(CoordinatorConfig { store, ..CoordinatorConfig::default() }).await
}

async fn enqueue(server: &Server, from: usize) -> Reply {
    let text = "x".repeat(PAYLOAD);
    let tasks: Vec<Value> =
        (from..from + BATCH).map(|n| json!({"id": format!("t{n}"), "payload": text})).collect();
    server.post("/v1/tasks", &json!({ "tasks": tasks })).await
}

/// Claims and settles until nothing is left; returns how many that were.
async fn drain(server: &Server) -> usize {
    let mut done = 0;
    loop {
        let claim = json!({"agent": "drain", "queues": ["default"], "max": 200, "wait_ms": 0});
        let reply = server.post("/v1/claims", &claim).await;
        assert_eq!(reply.status, 200, "{:#}", reply.json);
        let leases = reply.json["leases"].as_array().unwrap();
        if leases.is_empty() {
            return done;
        }
        let settlements: Vec<Value> = leases
            .iter()
            .map(|lease| {
                json!({"id": lease["id"], "epoch": lease["epoch"], "nonce": lease["nonce"],
                       "outcome": {"done": {"result": "ok"}}})
            })
            .collect();
        let reply = server.post("/v1/settlements", &json!({ "settlements": settlements })).await;
        let results = reply.json["results"].as_array().unwrap();
        assert!(results.iter().all(|result| result["state"] == "succeeded"), "{:#}", reply.json);
        done += results.len();
    }
}

#[tokio::test]
async fn a_redis_that_fills_up_takes_no_new_tasks_and_drains_to_the_end() {
    let redis = RedisServer::with(RedisOptions::default().maxmemory_bytes(MAXMEMORY)).await;
    let server = coordinator(&redis, 85).await;
    let mut taken = 0;
    let refused = loop {
        let reply = enqueue(&server, taken).await;
        if reply.status != 200 {
            break reply;
        }
        taken += BATCH;
        assert!(taken < 10_000, "it is never full");
    };
    assert_eq!((refused.status, refused.code()), (429, "store_nearly_full"), "{:#}", refused.json);
    assert_eq!(refused.json["retry_after_ms"], 5_000);
    assert!(refused.json["detail"].as_str().unwrap().contains("maxmemory"), "{:#}", refused.json);
    let used: u64 = memory(&redis, "used_memory").await;
    assert!(used < MAXMEMORY * 95 / 100, "there is room left to work in: {used}");
    let absent = server.get(&format!("/v1/tasks/t{taken}")).await;
    assert_eq!(absent.code(), "unknown_task", "a refused batch leaves nothing");

    assert_eq!(drain(&server).await, taken, "every task that was taken runs");
    let (_, took) = eventually("tasks are taken again", Duration::from_secs(20), async || {
        (enqueue(&server, taken).await.status == 200).then_some(())
    })
    .await;
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(drain(&server).await, BATCH);
    server.stop().await;
}

#[tokio::test]
async fn the_limit_can_be_set_and_memory_is_not_asked_for_each_request() {
    let redis = RedisServer::with(RedisOptions::default().maxmemory_bytes(MAXMEMORY)).await;
    let server = coordinator(&redis, 1).await;
    let refused = eventually(
        "what is above the limit from the start is refused",
        Duration::from_secs(20),
        async || {
            let reply = enqueue(&server, 0).await;
            (reply.status == 429).then_some(reply)
        },
    );
    assert_eq!(refused.await.0.code(), "store_nearly_full");
    server.stop().await;
    let server = coordinator(&redis, 100).await;
    redis.command(&["CONFIG", "RESETSTAT"]).await;
    for n in 0..200 {
        let task = json!({"tasks": [{"id": format!("small{n}")}]});
        assert_eq!(server.post("/v1/tasks", &task).await.status, 200);
    }
    let stats = redis.command(&["INFO", "commandstats"]).await;
    let asked = stats.lines().find(|line| line.starts_with("cmdstat_info:calls=")).unwrap_or_default();
    let asked: u32 = asked.split(['=', ',']).nth(1).unwrap_or("0").parse().unwrap();
    assert!((1..=60).contains(&asked), "{asked} looks for 200 requests");
    server.stop().await;
}

async fn memory(redis: &RedisServer, name: &str) -> u64 {
    let info = redis.command(&["INFO", "memory"]).await;
    let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap().trim().parse().unwrap()
}
