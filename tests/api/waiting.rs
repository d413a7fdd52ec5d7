//! Long polls: who waits is woken when there is something, and only then.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::server::Server;

/// Far longer than anything here takes: a wait that ends by it is a failure.
const LONG_MS: u64 = 50_000;

fn claim(agent: &str, wait_ms: u64) -> Value {
    json!({"agent": agent, "queues": ["default"], "max": 10, "wait_ms": wait_ms})
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), what).await.expect("it comes soon")
}

#[tokio::test]
async fn a_waiting_claim_gets_what_is_enqueued() {
    let server = Server::start().await;
    let (waiting, waits) = (claim("a", LONG_MS), json!({"tasks": [{"id": "x"}]}));
    let (claimed, _) =
        soon(async { tokio::join!(server.post("/v1/claims", &waiting), server.post("/v1/tasks", &waits)) })
            .await;
    assert_eq!(claimed.json["leases"][0]["id"], "x");
}

#[tokio::test]
async fn a_waiting_claim_wakes_when_a_delay_is_over() {
    let server = Server::start().await;
    server
        .post(
            "/v1/tasks",
            &json!({"tasks": [{"id": "later", "delay_ms": 60_000}, {"id": "soon", "delay_ms": 150}]}),
        )
        .await;
    let claimed = soon(server.post("/v1/claims", &claim("a", LONG_MS))).await;
    assert_eq!(claimed.json["leases"].as_array().unwrap().len(), 1);
    assert_eq!(claimed.json["leases"][0]["id"], "soon");
}

#[tokio::test]
async fn nothing_due_is_an_empty_answer_after_the_wait() {
    let server = Server::start().await;
    let none = soon(server.post("/v1/claims", &claim("a", 50))).await;
    assert_eq!(none.json, json!({"leases": []}));
    assert_eq!(server.post("/v1/claims", &claim("a", 0)).await.json, json!({"leases": []}));
}

#[tokio::test]
async fn resuming_a_queue_wakes_those_who_wait() {
    let server = Server::start().await;
    assert_eq!(server.post("/v1/queues/default/pause", &json!({})).await.json["paused"], true);
    server.post("/v1/tasks", &json!({"tasks": [{"id": "x"}]})).await;
    assert_eq!(server.post("/v1/claims", &claim("a", 0)).await.json, json!({"leases": []}));
    let (body, nothing) = (claim("a", LONG_MS), json!({}));
    let (claimed, _) = soon(async {
        tokio::join!(server.post("/v1/claims", &body), server.post("/v1/queues/default/resume", &nothing))
    })
    .await;
    assert_eq!(claimed.json["leases"][0]["id"], "x");
}

#[tokio::test]
async fn one_task_goes_to_one_of_many_who_wait() {
    let server = Server::start().await;
    let claims = (0..20).map(|n| {
        let (server, body) = (&server, claim(&format!("a{n}"), 2_000));
        async move { server.post("/v1/claims", &body).await.json["leases"].as_array().unwrap().len() }
    });
    let enqueued = json!({"tasks": [{"id": "only"}]});
    let (taken, _) =
        tokio::join!(futures_util::future::join_all(claims), server.post("/v1/tasks", &enqueued));
    assert_eq!(taken.iter().sum::<usize>(), 1);
}

#[tokio::test]
async fn a_producer_waits_for_its_answer() {
    let server = Server::start().await;
    server.post("/v1/tasks", &json!({"tasks": [{"id": "x"}]})).await;
    let work = async {
        let lease = server.post("/v1/claims", &claim("a", LONG_MS)).await.json["leases"][0].clone();
        let done = json!({"settlements": [{"id": "x", "epoch": lease["epoch"], "nonce": lease["nonce"], "outcome": {"done": {"result": 1}}}]});
        server.post("/v1/settlements", &done).await;
    };
    let path = format!("/v1/tasks/x?wait_ms={LONG_MS}");
    let (answer, ()) = soon(async { tokio::join!(server.get(&path), work) }).await;
    assert_eq!((&answer.json["state"], &answer.json["result"]), (&json!("succeeded"), &json!(1)));
}

#[tokio::test]
async fn leases_for_a_worker_that_hung_up_are_handed_back() {
    let server = Server::start().await;
    let body = claim("gone", LONG_MS).to_string();
    let mut caller = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /v1/claims HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    caller.write_all(head.as_bytes()).await.unwrap();
    drop(caller);
    server.post("/v1/tasks", &json!({"tasks": [{"id": "x"}]})).await;
    let claimed = soon(server.post("/v1/claims", &claim("here", LONG_MS))).await;
    assert_eq!(claimed.json["leases"][0]["id"], "x", "within seconds, not at the end of a lease");
}

#[tokio::test]
async fn work_from_a_producer_that_hung_up_still_wakes_who_waits() {
    let server = Server::start().await;
    for round in 0..20 {
        let wish = claim("a", LONG_MS);
        let waiting = server.post("/v1/claims", &wish);
        let hang_up = async {
            let body = json!({"tasks": [{"id": format!("t{round}")}]}).to_string();
            let mut caller = TcpStream::connect(server.address).await.unwrap();
            let head = format!(
                "POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            caller.write_all(head.as_bytes()).await.unwrap();
        };
        let (claimed, ()) = soon(async { tokio::join!(waiting, hang_up) }).await;
        let lease = &claimed.json["leases"][0];
        assert_eq!(lease["id"], format!("t{round}"));
        let done = json!({"settlements": [{"id": lease["id"], "epoch": lease["epoch"], "nonce": lease["nonce"], "outcome": {"done": {}}}]});
        server.post("/v1/settlements", &done).await;
    }
}

#[tokio::test]
async fn a_presence_that_breaks_ends_the_leases_of_its_process() {
    let server = Server::start().await;
    server.post("/v1/tasks", &json!({"tasks": [{"id": "x"}]})).await;
    let mut presence =
        server.request(reqwest::Method::GET, "/v1/agents/a/presence?boot_id=boot-1").send().await.unwrap();
    assert!(soon(presence.chunk()).await.unwrap().is_some());
    let mut body = claim("a", LONG_MS);
    body["boot_id"] = json!("boot-1");
    let lease = server.post("/v1/claims", &body).await.json["leases"][0].clone();
    let fence = json!({"leases": [{"id": "x", "epoch": lease["epoch"], "nonce": lease["nonce"]}]});
    server.post("/v1/leases/extend", &fence).await;
    drop(presence);
    let again = soon(server.post("/v1/claims", &claim("b", LONG_MS))).await;
    assert_eq!(again.json["leases"][0]["id"], "x");
    assert_eq!(again.json["leases"][0]["ledger"]["lost"], 1);
}

#[tokio::test]
async fn a_stop_ends_waits_and_streams_at_once() {
    let server = Server::start().await;
    let url = server.url("");
    let http = reqwest::Client::new();
    let presence = http.get(format!("{url}/v1/agents/a/presence?boot_id=b")).send().await.unwrap();
    let waiting = http
        .post(format!("{url}/v1/claims"))
        .header("content-type", "application/json")
        .body(claim("a", LONG_MS).to_string())
        .send();
    let (answer, ()) = soon(async { tokio::join!(waiting, server.stop()) }).await;
    assert!(answer.is_err() || answer.unwrap().status().is_success());
    assert!(soon(presence.text()).await.is_ok());
}
