//! Checkpoints as Prometheus sees them.

use redrive_worker::client::Client;
use serde_json::{Value, json};

use crate::support::fast_directory;
use crate::support::process::{Coordinator, counted};

/// A call of a kind that no client makes by itself.
async fn call(coordinator: &Coordinator, method: reqwest::Method, path: &str, body: &Value) -> Value {
    drop(Client::new("http://127.0.0.1:1"));
    let call = reqwest::Client::new().request(method, format!("{}{path}", coordinator.url())).json(body);
    call.send().await.expect("an answer").json().await.expect("JSON")
}

#[tokio::test]
async fn what_is_saved_refused_resumed_and_stale_is_counted() {
    let directory = fast_directory();
    let coordinator = Coordinator::start(directory.path()).await;
    let post = async |path: &str, body: Value| call(&coordinator, reqwest::Method::POST, path, &body).await;
    let claim = async |request: &str| {
        let asked =
            json!({"agent": "w", "queues": ["default"], "max": 10, "wait_ms": 20_000, "request_id": request});
        post("/v1/claims", asked).await["leases"].clone()
    };
    let fence = |lease: &Value| json!({"id": lease["id"], "epoch": lease["epoch"], "nonce": lease["nonce"]});
    let save = async |lease: &Value, seq: u64| {
        let body = json!({"epoch": lease["epoch"], "nonce": lease["nonce"], "seq": seq, "step": "s"});
        let path = format!("/v1/tasks/{}/checkpoint", lease["id"].as_str().unwrap());
        call(&coordinator, reqwest::Method::PUT, &path, &body).await
    };
    let settle = async |lease: &Value, outcome: Value| {
        let mut settlement = fence(lease);
        settlement["outcome"] = outcome;
        post("/v1/settlements", json!({"settlements": [settlement]})).await
    };
    let tasks = json!({"tasks": [{"id": "warm"}, {"id": "cold"}]});
    post("/v1/tasks", tasks.clone()).await;
    post("/v1/tasks", tasks).await;
    let first = claim("one").await;
    let by_id = |leases: &Value, id: &str| {
        leases.as_array().unwrap().iter().find(|lease| lease["id"] == id).expect("its lease").clone()
    };
    let (warm, cold) = (by_id(&first, "warm"), by_id(&first, "cold"));
    assert_eq!(save(&warm, 1).await["seq"], 1);
    assert_eq!(save(&warm, 1).await["repeated"], true);
    assert_eq!(save(&warm, 2).await["seq"], 2);
    assert_eq!(save(&warm, 0).await["code"], "invalid_value");
    let mut other = warm.clone();
    other["id"] = json!("nobody");
    assert_eq!(save(&other, 3).await["code"], "unknown_task");
    for lease in [&warm, &cold] {
        settle(lease, json!({"snooze": {"delay_ms": 0}})).await;
    }
    let second = claim("two").await;
    let replayed = claim("two").await;
    assert_eq!(second, replayed, "the same leases, which count once");

    // Everything that is said under the first leases is too late.
    assert_eq!(save(&warm, 3).await["code"], "stale_epoch");
    settle(&warm, json!({"done": {}})).await;
    post("/v1/leases/extend", json!({"leases": [fence(&warm), fence(&cold)]})).await;
    let beat = json!({"agent": "w", "boot_id": "b", "capacity": 1, "in_flight": 1, "queues": ["default"],
        "leases": [fence(&warm)]});
    post("/v1/heartbeats", beat).await;

    let metrics = reqwest::get(format!("{}/metrics", coordinator.url())).await.unwrap().text().await.unwrap();
    let expected = [
        ("redrive_checkpoints_saved_total{queue=\"default\"}", 2),
        ("redrive_checkpoint_refusals_total{reason=\"invalid_value\"}", 1),
        ("redrive_checkpoint_refusals_total{reason=\"unknown_task\"}", 1),
        ("redrive_checkpoint_refusals_total{reason=\"stale_epoch\"}", 1),
        ("redrive_checkpoint_refusals_total", 3),
        ("redrive_stale_epochs_total{verb=\"checkpoint\"}", 1),
        ("redrive_stale_epochs_total{verb=\"settle\"}", 1),
        ("redrive_stale_epochs_total{verb=\"extend\"}", 2),
        ("redrive_stale_epochs_total{verb=\"heartbeat\"}", 1),
        ("redrive_stale_epochs_total", 5),
        ("redrive_enqueued_total{queue=\"default\",status=\"duplicate\"}", 2),
        ("redrive_resumes_total{queue=\"default\",kind=\"warm\"}", 1),
        ("redrive_resumes_total{queue=\"default\",kind=\"cold\"}", 1),
    ];
    for (name, count) in expected {
        assert_eq!(counted(&metrics, name), count, "{name}");
    }
}
