//! One coordinator, on the embedded store.

use std::time::Duration;

use redrive_shared::lock::{Lost, Phase, Resource};
use redrive_shared::wire::{LockBreak, LockRequest};
use redrive_worker::client::Client;
use redrive_worker::lock::acquire;
use serde_json::json;

use super::{PATIENCE, code, owner, refs, release, renew, take, wish};
use crate::support::server::Server;
use crate::support::wait::eventually;

async fn start() -> (Server, Client) {
    let server = Server::start().await;
    let client = Client::new(&server.url("")).unwrap();
    (server, client)
}

#[tokio::test]
async fn a_lock_is_taken_renewed_shown_and_given_back() {
    let (_server, client) = start().await;
    let grant = take(&client, &wish("a", "report.md", 0)).await;
    let again = take(&client, &wish("a", "report.md", 0)).await;
    assert_eq!(again.token, grant.token, "the same wish again is the same lock");
    let busy = client.acquire_lock(&wish("b", "report.md", 0), 0).await.unwrap_err();
    assert!(busy.to_string().contains("`report.md` is held by `a`"), "{busy}");
    assert_eq!(code(busy), "lock_busy");
    let shown = client.locks().await.unwrap();
    assert_eq!((shown.locks.len(), shown.waiting.len(), shown.more), (1, 0, false));
    assert_eq!((&shown.locks[0].owner, shown.locks[0].phase), (&owner("a"), Phase::Held));
    assert_eq!(renew(&client, "b", &grant).await.lost, Some(Lost::NotYours));
    assert_eq!(release(&client, "b", &grant).await.lost, Some(Lost::NotYours));
    assert!(renew(&client, "a", &grant).await.until_ms.unwrap() >= grant.until_ms);
    assert_eq!(release(&client, "a", &grant).await.lost, None);
    assert_eq!(release(&client, "a", &grant).await.lost, Some(Lost::Unknown));
    assert!(take(&client, &wish("b", "report.md", 0)).await.token > grant.token);
}

#[tokio::test]
async fn who_waits_is_served_in_order_and_who_hangs_up_is_passed() {
    let (_server, client) = start().await;
    let first = take(&client, &wish("a", "f", 0)).await;
    let waits = |name: &str| {
        let (client, wish, name) = (client.clone(), wish(name, "f", 20_000), name.to_owned());
        tokio::spawn(async move {
            let grant = take(&client, &wish).await;
            let token = grant.token;
            release(&client, &name, &grant).await;
            token
        })
    };
    let in_line = async |count: usize| {
        let ask = async || (client.locks().await.unwrap().waiting.len() == count).then_some(());
        eventually("they stand in line", PATIENCE, ask).await;
    };
    let b = waits("b");
    in_line(1).await;
    let gone = waits("gone");
    in_line(2).await;
    let c = waits("c");
    in_line(3).await;
    // Its connection breaks.
    gone.abort();
    in_line(2).await;
    release(&client, "a", &first).await;
    let (b, c) = (b.await.unwrap(), c.await.unwrap());
    assert!(first.token < b && b < c, "{first:?} {b} {c}");
    assert!(client.locks().await.unwrap().locks.is_empty());
}

#[tokio::test]
async fn a_wait_that_is_over_is_an_answer() {
    let (_server, client) = start().await;
    take(&client, &wish("a", "f", 0)).await;
    let busy = client.acquire_lock(&wish("b", "f", 50), 50).await.unwrap_err();
    assert_eq!(code(busy), "lock_busy");
    let none = async || client.locks().await.unwrap().waiting.is_empty().then_some(());
    eventually("it left the line", PATIENCE, none).await;
}

#[tokio::test]
async fn a_lock_that_nobody_renews_ends_rests_and_goes_to_the_next() {
    let (_server, client) = start().await;
    let short = LockRequest { ttl_ms: Some(1_000), lock_delay_ms: Some(300), ..wish("a", "f", 0) };
    let late = take(&client, &short).await;
    let next = take(&client, &wish("b", "f", 20_000)).await;
    assert!(next.token > late.token);
    assert!(next.until_ms - next.ttl_ms as i64 >= late.until_ms + 300, "{next:?} rested after {late:?}");
    assert_eq!(renew(&client, "a", &late).await.lost, Some(Lost::Unknown));
}

#[tokio::test]
async fn a_holder_keeps_its_lock_for_long_and_learns_that_it_was_broken() {
    let (_server, client) = start().await;
    let short = LockRequest { ttl_ms: Some(1_000), ..wish("a", "f", 0) };
    let held = acquire(&client, &short).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_600)).await;
    assert!(!held.lost().is_cancelled(), "it was renewed");
    let broken =
        client.break_lock(&LockBreak { token: held.token(), reason: Some("a test".into()) }).await.unwrap();
    assert_eq!(broken.token, held.token());
    let rests = client.acquire_lock(&wish("b", "f", 0), 0).await;
    assert!(rests.is_err(), "its holder may be writing still");
    tokio::time::timeout(PATIENCE, held.lost().cancelled()).await.expect("the holder learns of it");
    assert!(!held.release().await.unwrap(), "it was lost; but nobody writes any more");
    take(&client, &wish("b", "f", 0)).await;
    let unknown = client.break_lock(&LockBreak { token: broken.token, reason: None }).await.unwrap_err();
    assert_eq!(code(unknown), "unknown_lock");
}

#[tokio::test]
async fn locks_of_a_task_are_those_of_its_lease() {
    let (server, client) = start().await;
    server.put("/v1/queues/default", &json!({})).await;
    let task = json!({"tasks": [{"id": "t", "queue": "default", "payload": {}}]});
    let enqueued = server.post("/v1/tasks", &task).await;
    assert_eq!(enqueued.status, 200, "{enqueued:?}");
    let reply = server.post("/v1/claims", &json!({"agent": "w", "queues": ["default"], "max": 1})).await;
    let epoch = reply.json["leases"][0]["epoch"].as_i64().unwrap_or_else(|| panic!("{reply:?}"));
    let body = |task: &str, epoch: i64| json!({"owner": {"task": task, "epoch": epoch}, "exclusive": ["f"]});
    let held = server.post("/v1/locks", &body("t", epoch)).await;
    assert_eq!(held.status, 200, "{held:?}");
    assert!(held.json["lock"]["token"].is_i64());
    let stale = server.post("/v1/locks", &body("t", epoch - 1)).await;
    assert_eq!((stale.status, stale.code()), (409, "stale_epoch"));
    let unknown = server.post("/v1/locks", &body("u", epoch)).await;
    assert_eq!((unknown.status, unknown.code()), (404, "unknown_task"));
    drop(client);
}

#[tokio::test]
async fn bad_input_is_refused_and_changes_nothing() {
    let (server, client) = start().await;
    let owner = json!({"name": "a"});
    let many: Vec<String> = (0..65).map(|number| format!("f{number}")).collect();
    for (body, at) in [
        (json!({"owner": owner}), "exclusive"),
        (json!({"owner": owner, "exclusive": many}), "exclusive"),
        (json!({"owner": owner, "exclusive": ["../etc/passwd"]}), "exclusive[0]"),
        (json!({"owner": owner, "exclusive": [""]}), "exclusive[0]"),
        (json!({"owner": owner, "exclusive": ["a/./b"]}), "exclusive[0]"),
        (json!({"owner": owner, "exclusive": ["x".repeat(1_025)]}), "exclusive[0]"),
        (json!({"owner": owner, "exclusive": ["a\u{0}b"]}), "exclusive[0]"),
        (json!({"owner": owner, "exclusive": ["f"], "ttl_ms": 0}), "ttl_ms"),
        (json!({"owner": owner, "exclusive": ["f"], "ttl_ms": 31_536_000_000_u64}), "ttl_ms"),
        (json!({"owner": owner, "exclusive": ["f"], "wait_ms": 3_600_001}), "wait_ms"),
        (json!({"owner": owner, "exclusive": ["f"], "lock_delay_ms": 60_001}), "lock_delay_ms"),
    ] {
        let refused = server.post("/v1/locks", &body).await;
        assert_eq!((refused.status, refused.code()), (422, "invalid_value"), "{body}: {refused:?}");
        assert_eq!(refused.json["at"], at, "{body}: {refused:?}");
    }
    for (owner, code, says) in [
        (json!({"name": "a", "ttl_ms": 5_000}), "unknown_field", "there is no field `ttl_ms` here"),
        (json!({"task": "t", "epohc": 5}), "unknown_field", "did you mean `epoch`"),
        (json!({"task": "t", "epoch": 5, "name": "a"}), "invalid_value", "not both"),
        (json!({"task": "t"}), "invalid_value", "`epoch` is missing"),
        (json!({"epoch": 5}), "invalid_value", "`task` is missing"),
        (json!({}), "invalid_value", "an owner is missing"),
        (json!({"name": "a b"}), "invalid_value", "contains ' '"),
    ] {
        for (path, body) in [
            ("/v1/locks", json!({"owner": owner, "exclusive": ["f"]})),
            ("/v1/locks/renew", json!({"locks": [{"token": 1, "owner": owner}]})),
        ] {
            let refused = server.post(path, &body).await;
            assert_eq!((refused.status, refused.code()), (422, code), "{body}: {refused:?}");
            assert!(refused.json["detail"].as_str().unwrap().contains(says), "{body}: {refused:?}");
        }
    }
    let overlap = json!({"owner": owner, "exclusive": ["f"]});
    assert_eq!(server.post("/v1/locks", &overlap).await.status, 200);
    let more = server.post("/v1/locks", &json!({"owner": owner, "exclusive": ["f", "g"]})).await;
    assert_eq!((more.status, more.code()), (409, "lock_overlap"));
    let none = server.post("/v1/locks/renew", &json!({"locks": []})).await;
    assert_eq!((none.status, none.code()), (422, "batch_size"));
    assert_eq!(client.locks().await.unwrap().locks.len(), 1);
    let unknown = refs("a", &take(&client, &wish("z", "z", 0)).await);
    assert_eq!(client.release_locks(&unknown).await.unwrap().locks[0].lost, Some(Lost::NotYours));
}

#[tokio::test]
async fn what_concerns_one_resource_is_found_among_all() {
    let (server, client) = start().await;
    for number in 0..20 {
        take(&client, &wish(&format!("holds-{number}"), &format!("dir/f {number}&x"), 0)).await;
    }
    let found = client.locks_of(&Resource::new("dir/f 7&x").unwrap()).await.unwrap();
    assert_eq!((found.locks.len(), found.waiting.len(), found.more), (1, 0, false));
    assert_eq!(found.locks[0].owner, owner("holds-7"));
    let none = server.get("/v1/locks?resource=nobody-has-it").await;
    assert_eq!(none.json, json!({"locks": [], "waiting": [], "more": false}));
    for (query, code) in
        [("resource=../x", "invalid_value"), ("resource=", "invalid_value"), ("name=x", "unknown_field")]
    {
        let refused = server.get(&format!("/v1/locks?{query}")).await;
        assert_eq!((refused.status, refused.code()), (422, code), "{query}: {refused:?}");
    }
}
