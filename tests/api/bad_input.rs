//! Bad input: a problem document with a stable code that has a page, nothing changed, and the server still up.

use std::path::Path;
use std::time::Duration;

use redrive_coordinator::CoordinatorConfig;
use redrive_shared::error::ErrorCode;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::server::{Reply, Server, read};

/// Tasks in every state, over all queues: what must not move.
async fn tasks(server: &Server) -> Value {
    let queues = server.get("/v1/queues").await.json;
    let views = queues["queues"].as_array().expect("queues");
    Value::from_iter(
        views.iter().map(|queue| (queue["name"].as_str().unwrap().to_owned(), queue["counts"].clone())),
    )
}

fn expect(reply: &Reply, status: u16, code: &str) {
    assert_eq!((reply.status, reply.code()), (status, code), "{:#}", reply.json);
    assert_eq!(reply.kind, "application/problem+json");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(reply.json["type"].as_str().unwrap());
    assert!(page.is_file(), "{} has no page", page.display());
    assert!(!reply.json["detail"].as_str().unwrap().is_empty());
}

/// A queue with one waiting task, so that there is something that could change.
async fn server_with_a_task() -> Server {
    let server = Server::start().await;
    let reply = server.post("/v1/tasks", &json!({"tasks": [{"id": "kept", "payload": {"n": 1}}]})).await;
    assert_eq!(reply.status, 200, "{:#}", reply.json);
    server
}

#[tokio::test]
async fn bad_bodies_are_refused_and_change_nothing() {
    let server = server_with_a_task().await;
    let before = tasks(&server).await;
    let deep = format!("{{\"tasks\":[{{\"payload\":{}{}}}]}}", "[".repeat(200), "]".repeat(200));
    let unfinished = b"{\"tasks\":[{\"id\":\"x\"}".to_vec();
    let cases: Vec<(Vec<u8>, u16, &str)> = vec![
        (b"not json".to_vec(), 400, "malformed_json"),
        (Vec::new(), 400, "malformed_json"),
        (unfinished, 400, "malformed_json"),
        (b"{\"tasks\":[{\"id\":\"\xff\xfe\"}]}".to_vec(), 400, "invalid_utf8"),
        (deep.into_bytes(), 422, "json_too_deep"),
        (br#"{"tasks":[]}"#.to_vec(), 422, "batch_size"),
        (br#"{"tasks":[{"pririty":"high"}]}"#.to_vec(), 422, "unknown_field"),
        (br#"{"tasks":[{"priority":-1}]}"#.to_vec(), 422, "invalid_value"),
        (br#"{"tasks":[{"priority":"urgent"}]}"#.to_vec(), 422, "invalid_value"),
        (br#"{"tasks":[{"delay_ms":-5}]}"#.to_vec(), 422, "invalid_value"),
        (br#"{"tasks":[{"delay_ms":"5s"}]}"#.to_vec(), 422, "invalid_value"),
        (br#"{"tasks":[{"id":"has space"}]}"#.to_vec(), 422, "invalid_value"),
        (br#"{"tasks":[{"id":"x"},{"failure":{"http_status":99999}}]}"#.to_vec(), 422, "invalid_value"),
        (json!({"tasks": vec![json!({}); 1_001]}).to_string().into_bytes(), 422, "batch_size"),
        (vec![b' '; 5 * 1024 * 1024], 413, "body_too_large"),
    ];
    for (body, status, code) in cases {
        expect(&server.post_raw("/v1/tasks", body).await, status, code);
    }
    assert_eq!(tasks(&server).await, before);
}

#[tokio::test]
async fn bad_tasks_are_refused_one_by_one_and_say_where() {
    let server = server_with_a_task().await;
    let before = tasks(&server).await;
    let large = "x".repeat(300 * 1024);
    let cases = [
        (json!({"queue": "nowhere"}), 404, "unknown_queue", "tasks[0]"),
        (json!({"queue": "defualt"}), 404, "unknown_queue", "tasks[0]"),
        (json!({"payload": large}), 413, "payload_too_large", "tasks[0].payload"),
        (json!({"delay_ms": 1_000_000_000_000_u64}), 422, "invalid_value", "tasks[0].delay_ms"),
        (json!({"max_attempts": 0}), 422, "invalid_value", "tasks[0].max_attempts"),
        (json!({"tokens": 0}), 422, "invalid_value", "tasks[0].tokens"),
        (json!({"tokens": 10_000_001}), 422, "invalid_value", "tasks[0].tokens"),
        (json!({"max_cost_usd": 0}), 422, "invalid_value", "tasks[0].max_cost_usd"),
        (json!({"max_cost_usd": 10_000.01}), 422, "invalid_value", "tasks[0].max_cost_usd"),
        (
            json!({"retry": {"strategy": "fixed", "delay_ms": 999}}),
            422,
            "invalid_value",
            "tasks[0].retry.delay_ms",
        ),
        (
            json!({"retry": {"strategy": "full_jitter", "max_ms": 0}}),
            422,
            "invalid_value",
            "tasks[0].retry.max_ms",
        ),
        (json!({"deadline_ms": 0}), 422, "invalid_value", "tasks[0].deadline_ms"),
        (json!({"delay_ms": 10, "deadline_ms": 5}), 422, "invalid_value", "tasks[0].delay_ms"),
        (
            json!({"attempts_made": 0, "failure": {"http_status": 500}}),
            422,
            "invalid_value",
            "tasks[0].attempts_made",
        ),
        (json!({"traceparent": "00-zz"}), 422, "invalid_value", "tasks[0].traceparent"),
        (json!({"id": "kept", "payload": {"n": 2}}), 422, "id_reused", "tasks[0]"),
    ];
    for (task, status, code, at) in cases {
        let reply = server.post("/v1/tasks", &json!({"tasks": [task]})).await;
        expect(&reply, status, code);
        assert_eq!(reply.json["at"], at);
        assert_eq!(reply.json["results"][0]["status"], "refused");
    }
    assert_eq!(tasks(&server).await, before);
    let near = server.post("/v1/tasks", &json!({"tasks": [{"queue": "defualt"}]})).await;
    assert!(near.json["detail"].as_str().unwrap().contains("did you mean `default`?"), "{:#}", near.json);

    let mixed = server.post("/v1/tasks", &json!({"tasks": [{"queue": "nowhere"}, {"id": "fine"}]})).await;
    assert_eq!(mixed.status, 200, "one good item is taken");
    assert_eq!(mixed.json["results"][0]["error"]["code"], "unknown_queue");
    assert_eq!(mixed.json["results"][1]["status"], "created");
}

#[tokio::test]
async fn bad_claims_extensions_and_settlements_are_refused() {
    let server = server_with_a_task().await;
    let before = tasks(&server).await;
    let claim = |patch: Value| {
        let mut claim = json!({"agent": "a", "queues": ["default"], "max": 1});
        claim.as_object_mut().unwrap().extend(patch.as_object().unwrap().clone());
        claim
    };
    let cases = [
        (claim(json!({"max": 0})), 422, "invalid_value"),
        (claim(json!({"max": 1_000_000_000})), 422, "invalid_value"),
        (claim(json!({"max": -1})), 422, "invalid_value"),
        (claim(json!({"wait_ms": 56_000})), 422, "invalid_value"),
        (claim(json!({"lease_ms": 10})), 422, "invalid_value"),
        (claim(json!({"queues": []})), 422, "invalid_value"),
        (claim(json!({"queues": ["nowhere"]})), 404, "unknown_queue"),
        (claim(json!({"agent": ""})), 422, "invalid_value"),
        (claim(json!({"extra": 1})), 422, "unknown_field"),
    ];
    for (body, status, code) in cases {
        expect(&server.post("/v1/claims", &body).await, status, code);
    }
    let forged = json!({"id": "kept", "epoch": 1, "nonce": "0000000000000001"});
    for (given, missing) in [("agent", "boot_id"), ("boot_id", "agent")] {
        let reply = server.post("/v1/leases/extend", &json!({"leases": [forged], given: "b"})).await;
        expect(&reply, 422, "invalid_value");
        assert_eq!(reply.json["at"], missing);
    }
    let reply = server.post("/v1/leases/extend", &json!({"leases": [forged]})).await;
    assert_eq!(reply.json["results"][0]["error"]["code"], "stale_epoch");
    let settle = |id: &str| json!({"settlements": [{"id": id, "epoch": 1, "nonce": "0000000000000001", "outcome": {"done": {}}}]});
    let stale = server.post("/v1/settlements", &settle("kept")).await;
    assert_eq!(stale.json["results"][0]["error"]["code"], "stale_epoch");
    let unknown = server.post("/v1/settlements", &settle("never-seen")).await;
    assert_eq!(unknown.json["results"][0]["error"]["code"], "unknown_task");
    let mut dear = settle("kept");
    dear["settlements"][0]["outcome"]["done"]["cost_usd"] = json!(10_001);
    let refused = server.post("/v1/settlements", &dear).await.json["results"][0]["error"].clone();
    assert_eq!(
        (&refused["code"], &refused["at"]),
        (&"invalid_value".into(), &"settlements[0].outcome.cost_usd".into())
    );
    dear["settlements"][0]["outcome"]["done"]["cost_usd"] = json!(-1);
    assert_eq!(server.post("/v1/settlements", &dear).await.status, 422);
    let nonce =
        json!({"settlements": [{"id": "kept", "epoch": 1, "nonce": "xyz", "outcome": {"release": {}}}]});
    expect(&server.post("/v1/settlements", &nonce).await, 422, "invalid_value");
    let outcome = json!({"settlements": [{"id": "kept", "epoch": 1, "nonce": "0000000000000001", "outcome": {"won": {}}}]});
    let reply = server.post("/v1/settlements", &outcome).await;
    assert_eq!(reply.status, 422, "{:#}", reply.json);
    assert_eq!(tasks(&server).await, before);
    expect(&server.get("/v1/tasks/never-seen").await, 404, "unknown_task");
}

#[tokio::test]
async fn bad_policies_are_refused_and_the_old_one_stays() {
    let server = Server::start().await;
    let before = server.get("/v1/queues/default").await.json;
    let strategy = |patch: Value| json!({"policy": {"strategy": patch}});
    let cases = [
        (strategy(json!({"strategy": "full_jitter", "min_ms": 500, "max_ms": 100})), "invalid_policy"),
        (strategy(json!({"strategy": "fixed", "delay_ms": 1_000_000_000_000_000_000_u64})), "invalid_policy"),
        (json!({"policy": {"max_attempts": 0}}), "invalid_policy"),
        (json!({"policy": {"fallbacks": {"a": ["b", "a"]}}}), "invalid_policy"),
        (json!({"policy": {"overrides": {"worker_lost": {"fallback_after": 1}}}}), "invalid_policy"),
        (json!({"policy": {"max_atempts": 3}}), "unknown_field"),
        (json!({"policy": {"overrides": {"no_such_class": {}}}}), "invalid_value"),
    ];
    for (body, code) in cases {
        let reply = server.put("/v1/queues/default", &body).await;
        expect(&reply, 422, code);
    }
    assert_eq!(server.get("/v1/queues/default").await.json, before);
    expect(&server.get("/v1/queues/nowhere").await, 404, "unknown_queue");
    let bad_name = server.put("/v1/queues/a%20b", &json!({})).await;
    expect(&bad_name, 422, "invalid_value");
}

#[tokio::test]
async fn wrong_paths_methods_kinds_and_hosts_are_problems_too() {
    let server = Server::start().await;
    expect(&server.get("/v2/anything").await, 404, "unknown_path");
    expect(&read(server.request(Method::DELETE, "/v1/tasks")).await, 405, "method_not_allowed");
    let form = server.request(Method::POST, "/v1/tasks").body("{}");
    expect(&read(form).await, 415, "unsupported_media_type");
    let rebound = server.request(Method::GET, "/v1/queues").header("host", "evil.example:7878");
    expect(&read(rebound).await, 403, "forbidden_host");
    let foreign = server.request(Method::GET, "/v1/queues").header("origin", "https://evil.example");
    expect(&read(foreign).await, 403, "forbidden_host");
    expect(&server.get("/v1/tasks?state=lost").await, 422, "invalid_value");
    expect(&server.get("/v1/tasks?stat=dead").await, 422, "unknown_field");
    expect(&server.get("/v1/tasks?limit=0").await, 422, "invalid_value");
    expect(&server.get("/v1/tasks?cursor=abc").await, 422, "invalid_value");
    expect(&server.get("/v1/tasks?queue=nowhere").await, 404, "unknown_queue");
    expect(&server.get("/v1/tasks/kept?wait_ms=99999999").await, 422, "invalid_value");
    assert_eq!(server.get("/livez").await.status, 200);
    assert_eq!(server.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_given_up() {
    let config = CoordinatorConfig { in_memory: true, body_timeout_ms: 100, ..CoordinatorConfig::default() };
    let server = Server::with(config).await;
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    let head = "POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"tasks\":";
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), async {
        let mut chunk = [0; 4096];
        while !String::from_utf8_lossy(&answer).contains("request_timeout") {
            let count = slow.read(&mut chunk).await.unwrap();
            assert!(count > 0, "closed without an answer");
            answer.extend_from_slice(&chunk[..count]);
        }
    });
    read.await.expect("an answer in time");
    assert!(answer.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(server.get("/livez").await.status, 200);
}

#[test]
fn every_code_has_a_page_and_every_page_a_code() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/errors");
    let mut pages: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "README.md")
        .map(|name| name.trim_end_matches(".md").to_owned())
        .collect();
    pages.sort();
    let mut codes: Vec<String> = ErrorCode::ALL.iter().map(ToString::to_string).collect();
    codes.sort();
    assert_eq!(pages, codes);
}
