//! A task's life over the API, as producers, workers and operators see it.

use serde_json::{Value, json};

use crate::support::server::Server;

async fn claim_one(server: &Server, agent: &str) -> Value {
    let reply = server
        .post("/v1/claims", &json!({"agent": agent, "queues": ["default"], "max": 1, "wait_ms": 10_000}))
        .await;
    assert_eq!(reply.status, 200, "{:#}", reply.json);
    reply.json["leases"][0].clone()
}

fn settlement(lease: &Value, outcome: Value) -> Value {
    json!({"settlements": [{"id": lease["id"], "epoch": lease["epoch"], "nonce": lease["nonce"], "outcome": outcome}]})
}

/// Makes retries come back at once, so that nothing here waits for a backoff.
async fn retry_at_once(server: &Server) {
    let at_once = json!({"strategy": "fixed", "delay_ms": 0});
    let policy = json!({"policy": {"strategy": at_once, "overrides": {
        "server_error": {"strategy": at_once}, "overloaded": {"strategy": at_once}, "rate_limited": {"strategy": at_once},
    }}});
    assert_eq!(server.put("/v1/queues/default", &policy).await.status, 200);
}

#[tokio::test]
async fn a_failure_is_enqueued_judged_retried_and_answered() {
    let server = Server::start().await;
    retry_at_once(&server).await;
    let failed = json!({
        "id": "call-1",
        "payload": {"prompt": "hello"},
        "dependency": "anthropic/acct/opus",
        "attempts_made": 1,
        "failure": {"http_status": 529, "body": "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}"},
        "labels": {"run": "7"},
    });
    let reply = server.post("/v1/tasks", &json!({"tasks": [failed]})).await;
    assert_eq!(reply.json["results"][0]["state"], "scheduled");

    let first = claim_one(&server, "a").await;
    assert_eq!(first["attempt"], 2, "the caller's own attempt counts");
    assert_eq!(first["last_failure"]["class"], "overloaded");
    assert_eq!(first["payload"], json!({"prompt": "hello"}));
    let started = server
        .post(
            "/v1/leases/extend",
            &json!({"leases": [{"id": first["id"], "epoch": first["epoch"], "nonce": first["nonce"]}]}),
        )
        .await;
    assert!(started.json["results"][0]["lease_until_ms"].is_i64(), "{:#}", started.json);
    let failure = json!({"retry": {"failure": {"http_status": 500, "body": "oops"}}});
    let settled = server.post("/v1/settlements", &settlement(&first, failure)).await;
    assert_eq!(settled.json["results"][0]["state"], "scheduled");

    let second = claim_one(&server, "b").await;
    assert!(second["epoch"].as_i64() > first["epoch"].as_i64());
    let late = server.post("/v1/settlements", &settlement(&first, json!({"done": {"result": "late"}}))).await;
    assert_eq!(late.json["results"][0]["error"]["code"], "stale_epoch", "the first worker is out");
    let done = settlement(&second, json!({"done": {"result": {"answer": 42}}}));
    assert_eq!(server.post("/v1/settlements", &done).await.json["results"][0]["state"], "succeeded");
    let again = server.post("/v1/settlements", &done).await;
    assert_eq!(again.json["results"][0]["repeated"], true, "repeating a settlement is safe");

    let task = server.get("/v1/tasks/call-1").await.json;
    assert_eq!((&task["state"], &task["result"]), (&json!("succeeded"), &json!({"answer": 42})));
    let ends: Vec<&str> =
        task["history"].as_array().unwrap().iter().map(|entry| entry["end"].as_str().unwrap()).collect();
    assert_eq!(ends, ["reported", "failed", "succeeded"]);
    assert_eq!(task["ledger"]["failed"], 2);
    assert_eq!(task["labels"]["run"], "7");
}

#[tokio::test]
async fn what_no_retry_can_mend_is_settled_at_once() {
    let server = Server::start().await;
    let tasks = json!({"tasks": [
        {"id": "bad", "failure": {"http_status": 400, "body": "{\"error\":{\"type\":\"invalid_request_error\",\"message\":\"messages: field required\"}}"}},
        {"id": "denied", "failure": {"http_status": 403, "body": "{\"error\":{\"type\":\"permission_error\",\"message\":\"no access\"}}"}},
    ]});
    let reply = server.post("/v1/tasks", &tasks).await;
    assert_eq!(reply.json["results"][0]["state"], "dead");
    assert_eq!(reply.json["results"][1]["state"], "escalated");
    let revived =
        server.post("/v1/tasks/retry", &json!({"ids": ["bad", "never-seen"], "reason": "fixed"})).await;
    assert_eq!(revived.json["results"][0]["state"], "scheduled");
    assert_eq!(revived.json["results"][1]["error"]["code"], "unknown_task");
    assert_eq!(claim_one(&server, "a").await["id"], "bad");
}

#[tokio::test]
async fn a_cancelled_lease_is_over_and_its_worker_hears_of_it() {
    let server = Server::start().await;
    server.post("/v1/tasks", &json!({"tasks": [{"id": "x"}]})).await;
    let lease = claim_one(&server, "a").await;
    let beat = json!({"agent": "a", "boot_id": "b1", "capacity": 1, "in_flight": 1, "queues": ["default"],
        "leases": [{"id": lease["id"], "epoch": lease["epoch"], "nonce": lease["nonce"]}]});
    let alive = server.post("/v1/heartbeats", &beat).await;
    assert!(alive.json["leases"][0]["lease_until_ms"].is_i64(), "{:#}", alive.json);
    let cancelled = server.post("/v1/tasks/cancel", &json!({"ids": ["x"]})).await;
    assert_eq!(cancelled.json["results"][0]["state"], "cancelled");
    let told = server.post("/v1/heartbeats", &beat).await;
    assert_eq!(told.json["cancelled"], json!(["x"]));
    let late = server.post("/v1/settlements", &settlement(&lease, json!({"done": {}}))).await;
    assert_eq!(late.json["results"][0]["error"]["code"], "stale_epoch");
    let agents = server.get("/v1/agents").await.json;
    assert_eq!(agents["agents"][0]["status"], "alive");
}

#[tokio::test]
async fn who_starts_a_lease_that_another_claimed_for_it_has_it() {
    let server = Server::start().await;
    server.post("/v1/tasks", &json!({"tasks": [{"id": "t"}]})).await;
    let lease = claim_one(&server, "giver").await;
    let lease = json!({"id": "t", "epoch": lease["epoch"], "nonce": lease["nonce"]});
    let start = json!({"leases": [lease], "agent": "worker", "boot_id": "worker-1"});
    let reply = server.post("/v1/leases/extend", &start).await;
    assert_eq!(reply.status, 200, "{:#}", reply.json);
    assert_eq!(server.get("/v1/tasks/t").await.json["agent"], "worker");
}

#[tokio::test]
async fn batches_of_status_and_pages_of_lists() {
    let server = Server::start().await;
    let tasks: Vec<Value> = (0..30).map(|n| json!({"id": format!("t{n}")})).collect();
    server.post("/v1/tasks", &json!({"tasks": tasks})).await;
    let status = server.post("/v1/tasks/status", &json!({"ids": ["t3", "nope", "t1"]})).await.json;
    assert_eq!(status["tasks"][0]["id"], "t3");
    assert_eq!(status["unknown"], json!(["nope"]));
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = server.get(&format!("/v1/tasks?state=scheduled&limit=7{cursor}")).await.json;
        seen.extend(
            page["tasks"].as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    let newest_first: Vec<String> = (0..30).rev().map(|n| format!("t{n}")).collect();
    assert_eq!(seen, newest_first);
}

#[tokio::test]
async fn the_openapi_document_names_every_route_and_resolves() {
    let server = Server::start().await;
    let document = server.get("/openapi.json").await.json;
    for path in [
        "/v1/tasks",
        "/v1/tasks/{id}",
        "/v1/tasks/status",
        "/v1/tasks/cancel",
        "/v1/tasks/retry",
        "/v1/claims",
        "/v1/leases/extend",
        "/v1/settlements",
        "/v1/heartbeats",
        "/v1/reports",
        "/v1/agents",
        "/v1/agents/{agent}/presence",
        "/v1/breakers",
        "/v1/breakers/commands",
        "/v1/queues",
        "/v1/queues/{name}",
        "/v1/queues/{name}/pause",
        "/v1/queues/{name}/resume",
        "/livez",
        "/readyz",
        "/metrics",
        "/openapi.json",
    ] {
        assert!(document["paths"][path].is_object(), "{path} is missing");
    }
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer} leads nowhere");
    }
}

#[tokio::test]
async fn first_attempts_are_reported_in_bulk() {
    let server = Server::start().await;
    let good =
        json!({"agent": "a", "reports": [{"dependency": "openai/main/gpt", "attempts": 100, "failures": 3}]});
    assert_eq!(server.post("/v1/reports", &good).await.status, 204);
    let gates = server.get("/v1/gates").await.json;
    let minute = &gates["gates"][0]["last_minute"];
    assert_eq!((&minute["firsts"], &minute["successes"]), (&json!(100), &json!(97)), "{gates}");
    let bad = json!({"agent": "a", "reports": [{"dependency": "x", "attempts": 1, "failures": 3}]});
    assert_eq!(server.post("/v1/reports", &bad).await.code(), "invalid_value");
}
