//! The same id again: answered with what is known of it, result included, for as long as its queue remembers it.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Stores, claim, enqueue, settle};
use crate::support::fast_directory;
use crate::support::process::{Coordinator, redrive};
use crate::support::redis::RedisServer;
use crate::support::wait::eventually;

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_duplicate_of_a_finished_task_is_answered_with_its_state_and_result() {
    for (store, server) in &Stores::start().await.servers {
        let task = json!({"id": "order-17", "payload": {"n": 1}});
        assert_eq!(enqueue(server, task.clone()).await["status"], "created", "{store}");
        let waiting = enqueue(server, task.clone()).await;
        assert_eq!((&waiting["status"], &waiting["state"]), (&json!("duplicate"), &json!("scheduled")));
        let lease = claim(server, "w").await;
        settle(server, &lease, json!({"done": {"result": {"sent": 1.50}}})).await;
        let again = enqueue(server, task).await;
        assert_eq!(
            (&again["status"], &again["state"], &again["result"]),
            (&json!("duplicate"), &json!("succeeded"), &json!({"sent": 1.50})),
            "{store}: {again:#}"
        );
        let other = enqueue(server, json!({"id": "order-17", "payload": {"n": 2}})).await;
        assert_eq!(other["error"]["code"], "id_reused", "{store}");
        assert!(other.get("result").is_none(), "{store}: what another's task returned is not told");
        // One that never succeeded has no result, and nothing is hinted at.
        let bad = json!({"id": "bad", "failure": {"http_status": 400, "body": "invalid_request_error"}});
        enqueue(server, bad.clone()).await;
        let dead = enqueue(server, bad).await;
        assert_eq!(dead["status"], "duplicate", "{store}");
        assert!(dead.get("result").is_none() && dead.get("hint").is_none(), "{store}: {dead:#}");
    }
}

#[tokio::test]
async fn results_that_do_not_fit_into_one_reply_are_left_out_and_it_says_so() {
    const TASKS: usize = 20;
    for (store, server) in &Stores::start().await.servers {
        let ids: Vec<String> = (0..TASKS).map(|n| format!("t{n}")).collect();
        for id in &ids {
            enqueue(server, json!({ "id": id })).await;
            let lease = claim(server, "w").await;
            let settled = settle(server, &lease, json!({"done": {"result": "x".repeat(250 * 1024)}})).await;
            assert_eq!(settled["state"], "succeeded", "{store}: {settled:#}");
        }
        // The same one several times in a batch counts each time, too.
        let tasks: Vec<Value> = ids.iter().chain(&ids).map(|id| json!({ "id": id })).collect();
        let reply = server.post("/v1/tasks", &json!({ "tasks": tasks })).await.json;
        let results = reply["results"].as_array().expect("results");
        assert_eq!(results.len(), 2 * TASKS);
        let (told, left): (Vec<&Value>, Vec<&Value>) =
            results.iter().partition(|result| result["result"].is_string());
        assert_eq!(told.len(), 4 * 1024 / 250, "{store}");
        for result in left {
            assert_eq!(result["state"], "succeeded", "{store}");
            let hint = result["hint"].as_str().expect("a hint");
            assert!(hint.ends_with(&format!("GET /v1/tasks/{}", result["id"].as_str().unwrap())), "{hint}");
        }
    }
}

#[tokio::test]
async fn an_id_is_remembered_for_the_retention_that_its_queue_was_given_and_then_runs_again() {
    let (redis, directory) = (RedisServer::start().await, fast_directory());
    let coordinator = Coordinator::on(&redis.url()).await;
    let file = directory.path().join("queues.toml");
    std::fs::write(&file, "[queues.default]\nretention = \"4s\"\n").unwrap();
    let command = async |arguments: &[&str]| {
        let call = redrive().args(["--url", &coordinator.url(), "--json"]).args(arguments).output();
        let output = call.await.expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    command(&["queues", "apply", "--yes", file.to_str().unwrap()]).await;
    let shown: Value = serde_json::from_str(&command(&["queues", "show", "default"]).await).expect("JSON");
    assert_eq!(shown["policy"]["retention_ms"], 4_000, "{shown:#}");

    let client = coordinator.client();
    let enqueue = async || -> Value {
        let task = redrive_shared::wire::NewTask {
            id: Some(crate::support::id("t")),
            ..redrive_shared::wire::NewTask::default()
        };
        let request = redrive_shared::wire::EnqueueRequest { tasks: vec![task] };
        serde_json::to_value(&client.enqueue(&request).await.expect("an answer").results[0]).unwrap()
    };
    let lease = async || {
        let asked = json!({"agent": "w", "queues": ["default"], "max": 1, "wait_ms": 20_000});
        let leases: Value = client.post(&["v1", "claims"], &asked, 20_000).await.expect("an answer");
        leases["leases"][0].clone()
    };
    assert_eq!(enqueue().await["status"], "created");
    let first = lease().await;
    let settlement = json!({"id": "t", "epoch": first["epoch"], "nonce": first["nonce"], "outcome": {"done": {"result": 7}}});
    let settled: Value = client
        .post(&["v1", "settlements"], &json!({"settlements": [settlement]}), 0)
        .await
        .expect("an answer");
    assert_eq!(settled["results"][0]["state"], "succeeded");
    let again = enqueue().await;
    assert_eq!((&again["status"], &again["result"]), (&json!("duplicate"), &json!(7)), "{again:#}");
    let shown = command(&["enqueue", "--id", "t"]).await;
    assert_eq!(serde_json::from_str::<Value>(&shown).expect("JSON")["result"], 7, "{shown}");
    let created = async || (enqueue().await["status"] == "created").then_some(());
    let (_, after) = eventually("its id is free again", PATIENCE, created).await;
    assert!(after < Duration::from_secs(20), "{after:?}");
    assert_eq!(lease().await["run"], 1, "from the beginning");
}
