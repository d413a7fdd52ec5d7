//! `/v1/breakers`: what agents report, what operators want of it, and what they are told when there is no such thing.

use redrive_shared::wire::Heartbeat;
use serde_json::{Value, json};

use crate::support::beat;
use crate::support::server::Server;

/// A server that has heard of `planner`, whose breakers are its own and one for a dependency.
async fn server() -> Server {
    let server = Server::start().await;
    heartbeat(&server, "planner", &json!({"*": snapshot("closed"), "openai/a/gpt": snapshot("open")})).await;
    server
}

fn snapshot(state: &str) -> Value {
    let not_closed_since_ms = (state != "closed").then_some(1);
    json!({"state": state, "since_ms": 1, "not_closed_since_ms": not_closed_since_ms, "trips": 1, "openings": 2,
           "open_until_ms": 99, "failures": 6, "slow_calls": 0, "outcomes": 6})
}

/// Reports breakers; returns the commands that come back.
async fn heartbeat(server: &Server, agent: &str, breakers: &Value) -> Vec<Value> {
    let breakers = serde_json::from_value(breakers.clone()).expect("snapshots");
    let beat = Heartbeat { breakers, ..beat(agent, "boot") };
    let reply = server.post("/v1/heartbeats", &serde_json::to_value(&beat).unwrap()).await;
    assert_eq!(reply.status, 200, "{:#}", reply.json);
    reply.json["breaker_commands"].as_array().cloned().unwrap_or_default()
}

async fn breakers(server: &Server) -> Vec<Value> {
    server.get("/v1/breakers").await.json["breakers"].as_array().expect("breakers").clone()
}

#[tokio::test]
async fn a_command_is_pending_until_the_agent_says_that_it_was_carried_out() {
    let server = server().await;
    let before = breakers(&server).await;
    assert_eq!(before.len(), 2);
    assert_eq!((&before[0]["breaker"], &before[1]["breaker"]), (&json!("*"), &json!("openai/a/gpt")));
    assert_eq!((&before[1]["snapshot"]["state"], &before[1]["pending"]), (&json!("open"), &json!(false)));

    let wanted =
        json!({"agent": "planner", "dependency": "openai/a/gpt", "action": "close", "reason": "it is up"});
    let given = server.post("/v1/breakers/commands", &wanted).await;
    assert_eq!((given.status, &given.json["breaker"]), (200, &json!("openai/a/gpt")), "{:#}", given.json);
    let again = server.post("/v1/breakers/commands", &wanted).await;
    assert_eq!(again.json, given.json, "the same command again is the one that stands");
    let pending = breakers(&server).await;
    assert_eq!(
        (&pending[1]["pending"], &pending[1]["command"]["reason"]),
        (&json!(true), &json!("it is up"))
    );

    let commands = heartbeat(&server, "planner", &json!({"*": snapshot("closed")})).await;
    assert_eq!(commands, std::slice::from_ref(&given.json));
    let mut closed = snapshot("closed");
    closed["command"] = given.json["number"].clone();
    let none = heartbeat(&server, "planner", &json!({"*": snapshot("closed"), "openai/a/gpt": closed})).await;
    assert!(none.is_empty(), "{none:?}");
    assert_eq!(breakers(&server).await[1]["pending"], json!(false));
}

#[tokio::test]
async fn what_is_not_there_is_told_with_what_may_have_been_meant_and_changes_nothing() {
    let server = server().await;
    let before = breakers(&server).await;
    let reason = "x".repeat(2_049);
    for (wanted, status, code, says) in [
        (json!({"agent": "planer", "action": "isolate"}), 404, "unknown_agent", "did you mean `planner`?"),
        (json!({"agent": "zzz", "action": "isolate"}), 404, "unknown_agent", "redrive agents list"),
        (
            json!({"agent": "planner", "dependency": "openai/a/gtp", "action": "reset"}),
            404,
            "unknown_breaker",
            "did you mean `openai/a/gpt`?",
        ),
        (
            json!({"agent": "planner", "dependency": "zzz", "action": "reset"}),
            404,
            "unknown_breaker",
            "redrive breakers",
        ),
        (json!({"agent": "planner", "action": "open"}), 422, "invalid_value", "isolate"),
        (json!({"agent": "planner", "action": "close", "why": "x"}), 422, "unknown_field", "reason"),
        (json!({"agent": "planner", "action": "close", "reason": reason}), 422, "invalid_value", "2048"),
    ] {
        let reply = server.post("/v1/breakers/commands", &wanted).await;
        assert_eq!((reply.status, reply.code()), (status, code), "{:#}", reply.json);
        assert!(reply.json["detail"].as_str().unwrap().contains(says), "{:#}", reply.json);
    }
    assert_eq!(breakers(&server).await, before);
}

#[tokio::test]
async fn nobody_is_told_for_an_agent_that_is_gone() {
    let server = server().await;
    let farewell = Heartbeat { draining: true, ..beat("planner", "boot") };
    server.post("/v1/heartbeats", &serde_json::to_value(&farewell).unwrap()).await;
    let reply = server.post("/v1/breakers/commands", &json!({"agent": "planner", "action": "isolate"})).await;
    assert_eq!((reply.status, reply.code()), (404, "unknown_agent"), "{:#}", reply.json);
    assert!(reply.json["detail"].as_str().unwrap().contains("is gone"), "{:#}", reply.json);
}
