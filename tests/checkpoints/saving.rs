//! What is saved, who may save, and what comes back.

use serde_json::{Value, json};

use super::{Stores, claim, enqueue, failed, retry_at_once, save, settle, under};
use crate::support::server::Server;

#[tokio::test]
async fn what_was_saved_comes_with_the_next_lease_and_is_shown() {
    for (store, server) in &Stores::start().await.servers {
        retry_at_once(server).await;
        enqueue(server, json!({"id": "a/b", "payload": 1})).await;
        let lease = claim(server, "w").await;
        assert!(lease.get("checkpoint").is_none(), "{store}: {lease:#}");
        let path = "/v1/tasks/a%2Fb/checkpoint";
        let first = under(
            &lease,
            json!({"seq": 1, "step": "fetch", "state": {"rows": 1.50}, "pending": ["parse", "write"]}),
        );
        let saved = server.put(path, &first).await;
        assert_eq!((saved.status, saved.json), (200, json!({"seq": 1})), "{store}");
        let again = server.put(path, &first).await;
        assert_eq!(again.json, json!({"seq": 1, "repeated": true}), "{store}");
        // Numbers may have gaps, and a step may be saved halfway.
        let halfway =
            under(&lease, json!({"seq": 5, "step": "parse", "completed": false, "state": "page 7"}));
        assert_eq!(server.put(path, &halfway).await.json, json!({"seq": 5}), "{store}");
        settle(server, &lease, failed()).await;

        let next = claim(server, "w").await;
        let checkpoint = &next["checkpoint"];
        assert_eq!(checkpoint["seq"], 5, "{store}: {next:#}");
        assert_eq!(checkpoint["pending"], json!(["parse", "write"]));
        let step = |place: usize| {
            let mut step = checkpoint["steps"][place].clone();
            let saved_at_ms = step.as_object_mut().unwrap().remove("saved_at_ms");
            assert!(saved_at_ms.is_some_and(|at| at.as_i64().unwrap() > 1_700_000_000_000), "{store}");
            step
        };
        assert_eq!(
            step(0),
            json!({"step": "fetch", "seq": 1, "completed": true, "state": {"rows": 1.50}}),
            "{store}"
        );
        assert_eq!(
            step(1),
            json!({"step": "parse", "seq": 5, "completed": false, "state": "page 7"}),
            "{store}"
        );
        assert_eq!(server.get("/v1/tasks/a%2Fb/steps").await.json, *checkpoint, "{store}");
        let done = under(&next, json!({"seq": 6, "step": "parse", "pending": []}));
        assert_eq!(server.put(path, &done).await.status, 200, "{store}");
        settle(server, &next, json!({"done": {"result": "r"}})).await;
        let steps = server.get("/v1/tasks/a%2Fb/steps").await.json;
        assert_eq!(steps["seq"], 6, "{store}: it is there as long as the task is known: {steps:#}");
    }
}

/// The document of a task, which always has its seven fields and no others.
async fn document(server: &Server, id: &str) -> Value {
    let document = server.get(&format!("/v1/tasks/{id}/checkpoint")).await.json;
    let fields: Vec<&String> = document.as_object().expect("an object").keys().collect();
    let expected = [
        "completed_steps",
        "last_checkpoint",
        "last_error",
        "pending_steps",
        "retry_count",
        "status",
        "task_id",
    ];
    assert_eq!(fields, expected, "{document:#}");
    document
}

#[tokio::test]
async fn the_document_has_exactly_its_seven_fields_in_every_state() {
    for (store, server) in &Stores::start().await.servers {
        retry_at_once(server).await;
        enqueue(server, json!({"id": "report-17"})).await;
        let expected = json!({
            "task_id": "report-17", "status": "in_progress", "completed_steps": [], "pending_steps": [],
            "retry_count": 0, "last_error": null, "last_checkpoint": null,
        });
        assert_eq!(document(server, "report-17").await, expected, "{store}: it waits");
        let lease = claim(server, "w").await;
        let saved = json!({"seq": 1, "step": "fetch", "pending": ["fetch", "parse"]});
        assert_eq!(save(server, &lease, saved).await.status, 200, "{store}");
        let begun = json!({"seq": 2, "step": "parse", "completed": false});
        assert_eq!(save(server, &lease, begun).await.status, 200, "{store}");
        settle(server, &lease, failed()).await;
        let seen = document(server, "report-17").await;
        let at = seen["last_checkpoint"].as_str().expect("a moment").to_owned();
        let saved_at_ms = server.get("/v1/tasks/report-17/steps").await.json["steps"][1]["saved_at_ms"]
            .as_i64()
            .expect("a moment");
        let moment = at.parse::<jiff::Timestamp>().expect("RFC 3339").as_millisecond();
        assert_eq!((moment, at.len()), (saved_at_ms, "2026-01-02T03:04:05.678Z".len()), "{store}: {at}");
        let error = seen["last_error"].as_str().expect("what failed").to_owned();
        assert!(error.contains("oops"), "{store}: {error}");
        let expected = json!({
            "task_id": "report-17", "status": "in_progress", "completed_steps": ["fetch"],
            "pending_steps": ["parse"], "retry_count": 1, "last_error": error, "last_checkpoint": at,
        });
        assert_eq!(seen, expected, "{store}");
        let next = claim(server, "w").await;
        settle(server, &next, json!({"done": {}})).await;
        assert_eq!(document(server, "report-17").await["status"], "succeeded", "{store}");
        let unknown = server.get("/v1/tasks/nobody/checkpoint").await;
        assert_eq!((unknown.status, unknown.code()), (404, "unknown_task"), "{store}");
    }
}

#[tokio::test]
async fn whoever_lost_the_lease_saves_nothing_and_numbers_only_rise() {
    for (store, server) in &Stores::start().await.servers {
        retry_at_once(server).await;
        enqueue(server, json!({"id": "t"})).await;
        // A worker that goes silent while it works.
        let asked = json!({"agent": "silent", "queues": ["default"], "max": 1, "lease_ms": 1_000});
        let lost = server.post("/v1/claims", &asked).await.json["leases"][0].clone();
        let lease = json!({"id": lost["id"], "epoch": lost["epoch"], "nonce": lost["nonce"]});
        let started = server.post("/v1/leases/extend", &json!({"leases": [lease], "lease_ms": 1_000})).await;
        assert!(started.json["results"][0]["error"].is_null(), "{store}: {:#}", started.json);
        assert_eq!(save(server, &lost, json!({"seq": 1, "step": "fetch"})).await.status, 200, "{store}");

        let heir = claim(server, "heir").await;
        assert_eq!(heir["checkpoint"]["seq"], 1, "{store}: the heir goes on from there");
        let late = save(server, &lost, json!({"seq": 2, "step": "late"})).await;
        assert_eq!((late.status, late.code()), (409, "stale_epoch"), "{store}: {:#}", late.json);
        let other = under(&heir, json!({"seq": 2, "step": "made-up"}));
        let mut made_up = other.clone();
        made_up["nonce"] = json!("0000000000000001");
        let made_up = server.put("/v1/tasks/t/checkpoint", &made_up).await;
        assert_eq!(made_up.code(), "stale_epoch", "{store}: the epoch alone is no fence");
        let steps = server.get("/v1/tasks/t/steps").await.json;
        assert_eq!((&steps["seq"], steps["steps"].as_array().unwrap().len()), (&json!(1), 1), "{store}");

        assert_eq!(save(server, &heir, json!({"seq": 4, "step": "parse"})).await.status, 200, "{store}");
        for (seq, step) in [(4, "write"), (3, "write"), (1, "write")] {
            let behind = save(server, &heir, json!({"seq": seq, "step": step})).await;
            assert_eq!((behind.status, behind.code()), (409, "stale_checkpoint"), "{store}: {seq}");
            assert_eq!(behind.json["at"], "seq");
            let detail = behind.json["detail"].as_str().unwrap();
            assert!(detail.ends_with("which is 4"), "{store}: {detail}");
        }
        assert_eq!(server.get("/v1/tasks/t/steps").await.json["steps"].as_array().unwrap().len(), 2);
    }
}
