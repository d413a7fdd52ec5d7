//! Policies over the API: versions, conflicts, batches, who and why; and what a task may ask for itself.

use redrive_shared::error::ErrorCode;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::server::{Reply, Server, read};

async fn put_as(server: &Server, actor: &[u8], path: &str, body: &Value) -> Reply {
    let call = server.request(Method::PUT, path).header("x-redrive-actor", actor);
    read(call.header("content-type", "application/json").body(body.to_string())).await
}

fn refused(reply: &Reply, code: ErrorCode, at: &str) {
    assert_eq!((reply.status, reply.code()), (code.status(), code.as_str()), "{:#}", reply.json);
    assert_eq!(reply.json["at"], at, "{:#}", reply.json);
}

async fn version(server: &Server, queue: &str) -> Value {
    server.get(&format!("/v1/queues/{queue}")).await.json["version"].clone()
}

#[tokio::test]
async fn a_change_is_kept_with_its_actor_and_its_reason() {
    let server = Server::start().await;
    let body = json!({"policy": {"risk": "high"}, "version": 0, "reason": "charges twice"});
    let reply = put_as(&server, "zoë@laptop".as_bytes(), "/v1/queues/emails", &body).await;
    assert_eq!((reply.status, &reply.json["version"]), (200, &json!(1)), "{:#}", reply.json);
    server.put("/v1/queues/emails", &json!({"policy": {"risk": "low"}})).await;
    let kept = server.get("/v1/queues/emails/versions").await.json;
    assert_eq!(kept["name"], "emails");
    let [second, first] = &kept["versions"].as_array().unwrap()[..] else { panic!("{kept:#}") };
    assert_eq!((&second["version"], &second["policy"]["risk"]), (&json!(2), &json!("low")));
    assert!(second.get("actor").is_none() && second.get("reason").is_none(), "{second:#}");
    assert_eq!((&first["version"], &first["actor"]), (&json!(1), &json!("zoë@laptop")));
    assert_eq!((&first["reason"], &first["policy"]["max_attempts"]), (&json!("charges twice"), &json!(3)));
    assert!(first["at_ms"].as_i64().unwrap() > 1_700_000_000_000);
}

#[tokio::test]
async fn a_change_made_from_another_version_is_a_conflict_and_changes_nothing() {
    let server = Server::start().await;
    server.put("/v1/queues/emails", &json!({})).await;
    server.put("/v1/queues/emails", &json!({"policy": {"risk": "low"}})).await;
    let stale = json!({"policy": {"risk": "high"}, "version": 1});
    let reply = server.put("/v1/queues/emails", &stale).await;
    refused(&reply, ErrorCode::VersionConflict, "version");
    assert!(reply.json["detail"].as_str().unwrap().contains("`emails` is at version 2"), "{:#}", reply.json);
    let batch = json!({"queues": [{"name": "new", "version": 0}, {"name": "emails", "policy": {"risk": "high"}, "version": 1}]});
    refused(&server.put("/v1/queues", &batch).await, ErrorCode::VersionConflict, "queues[1].version");
    assert_eq!(server.get("/v1/queues/new").await.status, 404);
    assert_eq!(version(&server, "emails").await, 2);
    // What is in force already is no conflict: the call may be a repeat.
    let same = json!({"policy": {"risk": "low"}, "version": 1});
    assert_eq!(server.put("/v1/queues/emails", &same).await.json["version"], 2);
}

#[tokio::test]
async fn queues_are_put_together() {
    let server = Server::start().await;
    let batch = json!({"queues": [{"name": "b", "policy": {"risk": "high"}}, {"name": "a", "version": 0}], "reason": "both"});
    let reply = put_as(&server, b"ada", "/v1/queues", &batch).await;
    assert_eq!(reply.status, 200, "{:#}", reply.json);
    let names: Vec<&str> = reply.json["queues"]
        .as_array()
        .unwrap()
        .iter()
        .map(|queue| queue["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["a", "b"], "those that were put, and no others");
    for queue in ["a", "b"] {
        let kept = server.get(&format!("/v1/queues/{queue}/versions")).await.json;
        assert_eq!(
            (&kept["versions"][0]["actor"], &kept["versions"][0]["reason"]),
            (&json!("ada"), &json!("both"))
        );
    }
}

#[tokio::test]
async fn bad_changes_are_refused_where_they_are_wrong_and_change_nothing() {
    let server = Server::start().await;
    let before = server.get("/v1/queues").await.json;
    let one = |patch: Value| json!({"queues": [{"name": "a"}, patch]});
    let long = "x".repeat(513);
    let cases = [
        (json!({"queues": []}), ErrorCode::BatchSize, "queues"),
        (json!({"queues": vec![json!({"name": "a"}); 1_001]}), ErrorCode::BatchSize, "queues"),
        (one(json!({"name": "a"})), ErrorCode::InvalidValue, "queues[1].name"),
        (one(json!({"name": "a b"})), ErrorCode::InvalidValue, "queues[1].name"),
        (
            one(json!({"name": "b", "policy": {"max_attempts": 0}})),
            ErrorCode::InvalidPolicy,
            "queues[1].policy",
        ),
        (
            one(json!({"name": "b", "policy": {"max_attempts": -1}})),
            ErrorCode::InvalidValue,
            "queues[1].policy.max_attempts",
        ),
        (one(json!({"name": "b", "versoin": 1})), ErrorCode::UnknownField, "queues[1].versoin"),
        (one(json!({"name": "b", "version": -1})), ErrorCode::InvalidValue, "queues[1].version"),
        (json!({"queues": [{"name": "a"}], "reason": long}), ErrorCode::InvalidValue, "reason"),
    ];
    for (body, code, at) in &cases {
        refused(&server.put("/v1/queues", body).await, *code, at);
    }
    let named = json!({"queues": [{"name": "a"}]});
    for actor in [&b"ada lovelace"[..], b"", &[b'x'; 129], b"\xff"] {
        refused(
            &put_as(&server, actor, "/v1/queues", &named).await,
            ErrorCode::InvalidValue,
            "x-redrive-actor",
        );
        refused(
            &put_as(&server, actor, "/v1/queues/a", &json!({})).await,
            ErrorCode::InvalidValue,
            "x-redrive-actor",
        );
    }
    let reason = json!({"reason": long});
    refused(&server.put("/v1/queues/a", &reason).await, ErrorCode::InvalidValue, "reason");
    assert_eq!(server.get("/v1/queues").await.json, before);
    assert_eq!(server.get("/v1/queues/nowhere/versions").await.code(), "unknown_queue");
    assert_eq!(server.get("/v1/queues/default/versions").await.json["versions"], json!([]));
}

#[tokio::test]
async fn a_task_shows_the_attempts_that_the_queues_risk_lets_it_have() {
    let server = Server::start().await;
    server.put("/v1/queues/careful", &json!({"policy": {"risk": "high"}})).await;
    server.put("/v1/queues/plain", &json!({})).await;
    for (queue, wanted, allowed) in [("careful", 50, 3), ("careful", 2, 2), ("plain", 50, 50)] {
        let task = json!({"queue": queue, "max_attempts": wanted});
        let reply = server.post("/v1/tasks", &json!({"tasks": [task]})).await;
        let id = reply.json["results"][0]["id"].as_str().unwrap().to_owned();
        assert_eq!(server.get(&format!("/v1/tasks/{id}")).await.json["max_attempts"], allowed, "{queue}");
    }
}

#[tokio::test]
async fn the_openapi_document_tells_of_versions_and_the_actor() {
    let server = Server::start().await;
    let document = server.get("/openapi.json").await.json;
    let put = &document["paths"]["/v1/queues"]["put"];
    assert_eq!(put["parameters"][0]["name"], "x-redrive-actor");
    assert_eq!(put["parameters"][0]["in"], "header");
    assert!(document["paths"]["/v1/queues/{name}/versions"]["get"].is_object());
    assert!(document["components"]["schemas"]["PolicyVersion"].is_object());
}
