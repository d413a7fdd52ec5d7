//! Checkpoints that are refused: what, where, what to do instead; and nothing was saved.

use serde_json::{Value, json};

use super::{Stores, claim, enqueue, save, under};
use crate::support::server::Server;

const KIB: usize = 1024;

fn text(bytes: usize) -> String {
    "x".repeat(bytes - 2)
}

async fn refused(server: &Server, lease: &Value, checkpoint: Value) -> (u16, String, String, String) {
    let reply = save(server, lease, checkpoint).await;
    let field = |name: &str| reply.json[name].as_str().unwrap_or_default().to_owned();
    (reply.status, field("code"), field("at"), field("detail"))
}

#[tokio::test]
async fn what_may_not_be_saved_is_refused_and_changes_nothing() {
    let blob = json!({"blob": "01975cc4-6c00-7a3e-b1f5-3d1c5a0e9b42", "bytes": 3, "sha256": "0".repeat(64)});
    for (store, server) in &Stores::start().await.servers {
        enqueue(server, json!({"id": "t"})).await;
        let lease = claim(server, "w").await;
        let deep: Value = serde_json::from_str(&format!("{}{}", "[".repeat(64), "]".repeat(64))).unwrap();
        let many: Vec<String> = (0..257).map(|n| format!("step-{n}")).collect();
        let cases = [
            (json!({"seq": 0, "step": "s"}), 422, "invalid_value", "seq", "from 1 to"),
            (
                json!({"seq": 9_007_199_254_740_992_u64, "step": "s"}),
                422,
                "invalid_value",
                "seq",
                "from 1 to",
            ),
            (json!({"seq": -1, "step": "s"}), 422, "invalid_value", "seq", "-1"),
            (json!({"step": "s"}), 422, "invalid_value", "", "missing field `seq`"),
            (json!({"seq": 1, "step": "a b"}), 422, "invalid_value", "step", "contains ' '"),
            (json!({"seq": 1, "stpe": "s"}), 422, "unknown_field", "stpe", "did you mean `step`"),
            (json!({"seq": 1, "step": "s", "state": deep}), 422, "json_too_deep", "", "nested"),
            (json!({"seq": 1, "step": "s", "pending": many}), 422, "invalid_value", "pending", "0 to 256"),
            (
                json!({"seq": 1, "step": "s", "state": 1, "state_ref": blob}),
                422,
                "invalid_value",
                "state_ref",
                "both `state` and `state_ref`",
            ),
            (
                json!({"seq": 1, "step": "s", "state": text(256 * KIB + 1)}),
                413,
                "payload_too_large",
                "state",
                "upload it as a blob",
            ),
        ];
        for (checkpoint, status, code, at, said) in cases {
            let shown: String = checkpoint.to_string().chars().take(80).collect();
            let seen = refused(server, &lease, checkpoint).await;
            assert_eq!((seen.0, seen.1.as_str()), (status, code), "{store}: {shown}: {seen:?}");
            assert!(at.is_empty() || seen.2 == at, "{store}: {shown}: {seen:?}");
            assert!(seen.3.contains(said), "{store}: {shown}: {seen:?}");
        }
        let half = under(&lease, json!({"seq": 1, "step": "s", "state": "HALF"}));
        let half = half.to_string().replace("HALF", "\\ud800");
        let call = server.request(reqwest::Method::PUT, "/v1/tasks/t/checkpoint");
        let half = call.header("content-type", "application/json").body(half).send().await.unwrap();
        assert_eq!(half.status(), 422, "{store}: half of a surrogate pair");
        let unknown = under(&lease, json!({"seq": 1, "step": "s"}));
        let unknown = server.put("/v1/tasks/nobody/checkpoint", &unknown).await;
        assert_eq!((unknown.status, unknown.code()), (404, "unknown_task"), "{store}");
        let steps = server.get("/v1/tasks/t/steps").await.json;
        assert_eq!(steps, json!({"seq": 0, "steps": [], "pending": []}), "{store}");
    }
}
