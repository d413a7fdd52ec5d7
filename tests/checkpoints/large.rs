//! What is too large for the store: uploaded as a blob, and referred to.

use redrive_shared::blob::BlobRef;
use redrive_worker::client::Client;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Stores, claim, enqueue, retry_at_once, save, settle};
use crate::support::id;
use crate::support::server::Server;

const MIB: usize = 1024 * 1024;

fn client(server: &Server) -> Client {
    Client::new(&format!("http://{}", server.address)).expect("a client")
}

/// A JSON string of so many bytes.
fn json_text(letter: char, bytes: usize) -> Vec<u8> {
    format!("\"{}\"", letter.to_string().repeat(bytes - 2)).into_bytes()
}

async fn upload(server: &Server, task: &str, json: Vec<u8>) -> BlobRef {
    client(server).upload_blob(&id(task), std::io::Cursor::new(json)).await.expect("it is kept")
}

/// What a coordinator says to the head of a request, before any of its body was sent.
async fn answer_to_head(server: &Server, method: &str, path: &str, bytes: usize) -> String {
    let mut stream = TcpStream::connect(server.address).await.expect("it listens");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n\
         content-length: {bytes}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("it is read");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

#[tokio::test]
async fn a_state_of_50_mib_is_refused_inline_and_taken_as_a_blob() {
    for (store, server) in &Stores::start().await.servers {
        retry_at_once(server).await;
        enqueue(server, json!({"id": "t"})).await;
        let lease = claim(server, "w").await;
        let refused = answer_to_head(server, "PUT", "/v1/tasks/t/checkpoint", 50 * MIB).await;
        assert!(refused.starts_with("HTTP/1.1 413"), "{store}: {refused}");
        assert!(refused.contains("body_too_large") && refused.contains("as a blob"), "{store}: {refused}");

        let state = json_text('s', 50 * MIB);
        let blob = upload(server, "t", state.clone()).await;
        assert_eq!(blob.bytes, state.len() as u64);
        let checkpoint = json!({"seq": 1, "step": "fetch", "state_ref": blob});
        let saved = save(server, &lease, checkpoint.clone()).await;
        assert_eq!((saved.status, saved.json), (200, json!({"seq": 1})), "{store}");
        let again = save(server, &lease, checkpoint).await;
        assert_eq!(again.json, json!({"seq": 1, "repeated": true}), "{store}");
        settle(server, &lease, super::failed()).await;
        let next = claim(server, "w").await;
        let step = &next["checkpoint"]["steps"][0];
        assert_eq!(step["state_ref"], json!(blob), "{store}: {step:#}");
        assert!(step.get("state").is_none(), "{store}");
        let download = client(server).download_blob(&id("t"), &blob).await.expect("it is there");
        assert!(download.whole().await.expect("whole") == state, "{store}: byte for byte");
    }
}

#[tokio::test]
async fn the_coordinator_moves_states_from_16_kib_on_into_blobs_by_itself() {
    for (store, server) in &Stores::start().await.servers {
        enqueue(server, json!({"id": "t"})).await;
        let lease = claim(server, "w").await;
        let state = |bytes: usize| "x".repeat(bytes - 2);
        let short = json!({"seq": 1, "step": "short", "state": state(16 * 1024 - 1)});
        assert_eq!(save(server, &lease, short).await.status, 200, "{store}");
        let long = json!({"seq": 2, "step": "long", "state": state(16 * 1024)});
        assert_eq!(save(server, &lease, long.clone()).await.json, json!({"seq": 2}), "{store}");
        let again = save(server, &lease, long).await;
        assert_eq!(again.json, json!({"seq": 2, "repeated": true}), "{store}: the same contents");
        let steps = server.get("/v1/tasks/t/steps").await.json;
        let (short, long) = (&steps["steps"][0], &steps["steps"][1]);
        assert!(short["state"].is_string() && short.get("state_ref").is_none(), "{store}");
        assert_eq!(
            (&long["state"], &long["state_ref"]["bytes"]),
            (&Value::Null, &json!(16 * 1024)),
            "{store}"
        );
    }
    // Where none are kept, they stay inline, up to what the store takes of a task.
    let server = Server::start().await;
    enqueue(&server, json!({"id": "t"})).await;
    let lease = claim(&server, "w").await;
    for seq in 1..=2 {
        let large = json!({"seq": seq, "step": format!("s{seq}"), "state": "x".repeat(128 * 1024 - 2)});
        assert_eq!(save(&server, &lease, large).await.status, 200);
    }
    let more = save(&server, &lease, json!({"seq": 3, "step": "s3", "state": 1})).await;
    assert_eq!((more.status, more.code()), (413, "payload_too_large"), "{:#}", more.json);
    assert_eq!(more.json["at"], "state");
    assert!(more.json["detail"].as_str().unwrap().contains("would have 262145 bytes"), "{:#}", more.json);
    let made_up =
        json!({"blob": "01975cc4-6c00-7a3e-b1f5-3d1c5a0e9b42", "bytes": 3, "sha256": "0".repeat(64)});
    let refused = save(&server, &lease, json!({"seq": 3, "step": "s", "state_ref": made_up})).await;
    assert_eq!((refused.status, refused.code()), (422, "no_blobs"));
    let refused = enqueue(&server, json!({"id": "p", "payload_ref": made_up})).await;
    assert_eq!(refused["error"]["code"], "no_blobs");
    assert_eq!(refused["error"]["at"], "tasks[0].payload_ref");
    assert_eq!(server.get("/v1/tasks/t/steps").await.json["seq"], 2, "nothing was changed");
}

#[tokio::test]
async fn payloads_and_results_that_are_blobs_come_and_go_by_reference() {
    for (store, server) in &Stores::start().await.servers {
        let payload = upload(server, "t", json_text('p', MIB)).await;
        let created = enqueue(server, json!({"id": "t", "payload_ref": payload})).await;
        assert_eq!(created["status"], "created", "{store}: {created:#}");
        // Uploaded again it has another name, and is the same.
        let again = upload(server, "t", json_text('p', MIB)).await;
        assert_ne!(again.blob, payload.blob);
        let duplicate = enqueue(server, json!({"id": "t", "payload_ref": again})).await;
        assert_eq!(duplicate["status"], "duplicate", "{store}: {duplicate:#}");
        let other = upload(server, "t", json_text('q', MIB)).await;
        for other in [json!({"id": "t", "payload_ref": other}), json!({"id": "t", "payload": 1})] {
            let reused = enqueue(server, other).await;
            assert_eq!(reused["error"]["code"], "id_reused", "{store}: {reused:#}");
        }
        let lease = claim(server, "w").await;
        assert_eq!((&lease["payload"], &lease["payload_ref"]), (&Value::Null, &json!(payload)), "{store}");
        let result = upload(server, "t", json_text('r', MIB)).await;
        let done = json!({"done": {"result_ref": result}});
        assert_eq!(settle(server, &lease, done.clone()).await["state"], "succeeded", "{store}");
        assert_eq!(settle(server, &lease, done).await["repeated"], true, "{store}");
        let task = server.get("/v1/tasks/t").await.json;
        assert_eq!(task["result_ref"], json!(result), "{store}: {task:#}");
        let duplicate = enqueue(server, json!({"id": "t", "payload_ref": again})).await;
        assert_eq!(duplicate["result_ref"], json!(result), "{store}: {duplicate:#}");
        assert!(duplicate.get("hint").is_none(), "{store}");
    }
}

#[tokio::test]
async fn references_to_what_is_not_there_are_refused_item_by_item() {
    for (store, server) in &Stores::start().await.servers {
        let blob = upload(server, "mine", json_text('p', MIB)).await;
        let mut short = blob;
        short.bytes -= 1;
        let tasks = json!({"tasks": [
            {"id": "other", "payload_ref": blob},
            {"id": "mine", "payload_ref": short},
            {"payload_ref": blob},
            {"id": "mine", "payload": 1, "payload_ref": blob},
            {"id": "mine", "payload_ref": blob},
        ]});
        let reply = server.post("/v1/tasks", &tasks).await.json;
        let seen: Vec<(&str, &str)> = reply["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|result| {
                let field = |name: &str| result["error"][name].as_str().unwrap_or("-");
                (field("code"), field("at"))
            })
            .collect();
        let expected = [
            ("unknown_blob", "tasks[0].payload_ref"),
            ("unknown_blob", "tasks[1].payload_ref"),
            ("invalid_value", "tasks[2].id"),
            ("invalid_value", "tasks[3].payload_ref"),
            ("-", "-"),
        ];
        assert_eq!(seen, expected, "{store}: {reply:#}");
        let lease = claim(server, "w").await;
        let other = upload(server, "other", json_text('r', MIB)).await;
        let refused = settle(server, &lease, json!({"done": {"result_ref": other}})).await;
        assert_eq!(refused["error"]["code"], "unknown_blob", "{store}: {refused:#}");
        assert_eq!(refused["error"]["at"], "settlements[0].outcome.done.result_ref");
        let refused = settle(server, &lease, json!({"done": {"result": 1, "result_ref": blob}})).await;
        assert_eq!(refused["error"]["code"], "invalid_value", "{store}: {refused:#}");
        let refused = save(server, &lease, json!({"seq": 1, "step": "s", "state_ref": other})).await;
        assert_eq!((refused.status, refused.code()), (404, "unknown_blob"), "{store}");
        assert_eq!(refused.json["at"], "state_ref");
        assert_eq!(server.get("/v1/tasks/mine/steps").await.json["seq"], 0, "{store}: nothing was saved");
        assert_eq!(server.get("/v1/tasks/mine").await.json["state"], "leased", "{store}");
    }
}

#[tokio::test]
async fn storage_that_fails_is_a_503_and_changes_nothing() {
    let stores = Stores::start().await;
    for ((store, server), place) in stores.servers.iter().zip(stores.blobs()) {
        let blob = upload(server, "p", json_text('p', MIB)).await;
        enqueue(server, json!({"id": "t"})).await;
        let lease = claim(server, "w").await;
        let whole = place.with_extension("away");
        std::fs::rename(&place, &whole).expect("it was there");
        std::fs::write(&place, "in its place").expect("a file");
        let large = json!({"seq": 1, "step": "s", "state": "x".repeat(20 * 1024)});
        let failed = save(server, &lease, large.clone()).await;
        assert_eq!((failed.status, failed.code()), (503, "blobs_unavailable"), "{store}: {:#}", failed.json);
        assert!(failed.json["retry_after_ms"].is_u64(), "{store}");
        let refused = enqueue(server, json!({"id": "p", "payload_ref": blob})).await;
        assert_eq!(refused["error"]["code"], "blobs_unavailable", "{store}: {refused:#}");
        let small = json!({"seq": 1, "step": "small", "state": 1});
        assert_eq!(save(server, &lease, small).await.status, 200, "{store}: what needs no storage goes on");
        std::fs::remove_file(&place).expect("it goes");
        std::fs::rename(&whole, &place).expect("it is back");
        let large = json!({"seq": 2, "step": "s", "state": "x".repeat(20 * 1024)});
        assert_eq!(save(server, &lease, large).await.json, json!({"seq": 2}), "{store}");
        assert_eq!(server.get("/v1/tasks/p").await.code(), "unknown_task", "{store}");
    }
}
