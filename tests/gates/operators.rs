//! What operators do, and what is refused.

use serde_json::json;

use crate::support::process::{Coordinator, redrive};
use crate::support::server::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_request_is_said_and_changes_nothing() {
    let server = Server::start().await;
    let long = "x".repeat(129);
    let set = |settings: serde_json::Value| json!({"dependency": "d", "action": "set", "settings": settings});
    let cases = [
        (json!({"dependency": "a b", "action": "open"}), "invalid_value", "contains ' '"),
        (json!({"dependency": long, "action": "open"}), "invalid_value", "at most 128"),
        (json!({"dependency": "d", "action": "opn"}), "invalid_value", "open"),
        (json!({"dependency": "d", "action": "shut"}), "invalid_value", "missing"),
        (json!({"dependency": "d", "action": "shut", "for_ms": 0}), "invalid_value", "isolate"),
        (json!({"dependency": "d", "action": "shut", "for_ms": -5}), "invalid_value", "-5"),
        (json!({"dependency": "d", "action": "open", "for_ms": 5}), "invalid_value", "goes with"),
        (json!({"dependency": "d", "action": "set"}), "invalid_value", "no limits"),
        (set(json!({"requests_per_minute": 0})), "invalid_value", "1 to 10000000"),
        (set(json!({"requests_per_minute": -1})), "invalid_value", "-1"),
        (set(json!({"max_in_flight": 0})), "invalid_value", "1 to 1000000"),
        (set(json!({"max_in_flight": 1_000_001})), "invalid_value", "1000001"),
        (set(json!({"max_in_flight": 1.5})), "invalid_value", "1.5"),
        (set(json!({"tokens_per_minute": 0})), "invalid_value", "1 to 10000000000"),
        (set(json!({"tokens_per_minute": 10_000_000_001_u64})), "invalid_value", "10000000001"),
        (set(json!({"tokens_per_minute": 5, "tokens_default": 0})), "invalid_value", "1 to 10000000"),
        (set(json!({"tokens_default": 5})), "invalid_value", "left out without `tokens_per_minute`"),
        (set(json!({"budget": {"ratio": -0.5}})), "invalid_value", "0 to 10"),
        (set(json!({"requests_per_hour": 5})), "unknown_field", "requests_per_minute"),
        (json!({"dependency": "d", "action": "open", "why": "x"}), "unknown_field", "why"),
    ];
    for (request, code, says) in cases {
        let reply = server.post("/v1/gates", &request).await;
        assert_eq!(reply.code(), code, "{request}: {reply:?}");
        assert!(reply.json["detail"].as_str().unwrap().contains(says), "{request}: {reply:?}");
    }
    assert_eq!(server.get("/v1/gates").await.json, json!({"gates": []}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_see_and_move_gates_from_the_command_line() {
    let data = tempfile::tempdir().expect("a directory");
    let coordinator = Coordinator::start(data.path()).await;
    let gates = async |arguments: &[&str]| {
        let mut command = redrive();
        command.args(["--url", &coordinator.url(), "gates"]).args(arguments);
        let output = command.output().await.expect("it runs");
        let text = [&output.stdout[..], &output.stderr[..]].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    let (code, text) = gates(&["list"]).await;
    assert!(code == Some(0) && text.contains("no dependency was called"), "{text}");
    let (code, text) = gates(&["shut", "tool/pdf", "--for", "20m"]).await;
    assert!(code == Some(0) && text.contains("shut") && text.contains("operator"), "{text}");
    let (_, text) = gates(&["limit", "openai/main/gpt", "--requests-per-minute", "600"]).await;
    assert!(text.contains("600"), "{text}");
    let (_, text) = gates(&["list"]).await;
    assert!(
        text.contains("tool/pdf") && text.contains("in 19m") && text.contains("openai/main/gpt"),
        "{text}"
    );
    let (_, text) = gates(&["list", "--json"]).await;
    let listed: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(listed["gates"].as_array().map(Vec::len), Some(2));
    let (code, text) = gates(&["limit", "tool/pdf", "--max-in-flight", "8"]).await;
    assert!(code == Some(0) && text.contains("IN FLIGHT") && text.contains("0/8"), "{text}");
    let limit = ["limit", "tool/pdf", "--tokens-per-minute", "200000", "--tokens-default", "900"];
    let (code, text) = gates(&limit).await;
    assert!(code == Some(0) && text.contains("TOKENS/MIN") && text.contains("200000"), "{text}");
    let (code, text) = gates(&["limit", "tool/pdf", "--tokens-per-minute", "0"]).await;
    assert!(code == Some(1) && text.contains("1 to 10000000000"), "{text}");
    let (code, text) = gates(&["limit", "tool/pdf", "--max-in-flight", "0"]).await;
    assert!(code == Some(1) && text.contains("1 to 1000000"), "{text}");
    let (code, text) = gates(&["limit", "tool/pdf", "--retry-ratio", "99"]).await;
    assert!(code == Some(1) && text.contains("0 to 10"), "{text}");
    let (code, text) = gates(&["shut", "tool/pdf", "--for", "-5m"]).await;
    assert!(code == Some(2) && text.contains("negative"), "{text}");
    // What chooses the process's TLS provider, which a bare client asks for.
    drop(coordinator.client());
    assert_eq!(coordinator.metric("redrive_gate_state{dependency=\"tool/pdf\"}").await, 3);
}
