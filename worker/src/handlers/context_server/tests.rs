//! The server as a handler's program sees it, over real sockets.

mod bodies;

use std::time::Duration;

use redrive_shared::checkpoint::STATES_MAX_BYTES;
use redrive_shared::id::Name;
use redrive_shared::lock::{Resource, Token};
use redrive_shared::task::Lease;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::super::document::tests::lease;
use super::*;
use crate::client::{AskError, ContextClient};
use crate::context::tests::{MAX_BLOB_BYTES, attempt, fake::FakeAttempts};
use crate::context::{CancelReason, Stop, Wanted};

struct Scene {
    link: Arc<FakeAttempts>,
    ctx: TaskContext,
    stop: Stop,
    server: ContextServer,
    opening: Opening,
}

impl Scene {
    async fn new() -> Self {
        Self::of(lease("{\"a\":  1}")).await
    }

    async fn of(task: Lease) -> Self {
        crate::client::install_tls_provider();
        let (link, server) = (FakeAttempts::new(), ContextServer::default());
        let (ctx, stop) = attempt(&link, &task);
        let opening = server.open(&task, &ctx).await.unwrap();
        Self { link, ctx, stop, server, opening }
    }

    async fn call(&self, method: Method, path: &str, body: impl Into<reqwest::Body>) -> (StatusCode, String) {
        call(&format!("{}{path}", self.opening.url), method, body).await
    }

    fn asking(&self) -> ContextClient {
        ContextClient::new(&self.opening.url).unwrap()
    }

    fn attempt(&self) -> Arc<Attempt> {
        self.opening.attempts.find(&self.opening.secret).unwrap()
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        self.call(Method::GET, path, "").await
    }

    async fn put(&self, path: &str, body: impl Into<reqwest::Body>) -> (StatusCode, String) {
        self.call(Method::PUT, path, body).await
    }
}

async fn call(url: &str, method: Method, body: impl Into<reqwest::Body>) -> (StatusCode, String) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let response = http.request(method, url).body(body).send().await.unwrap();
    (response.status(), response.text().await.unwrap())
}

fn code((status, body): &(StatusCode, String)) -> (u16, String) {
    let problem: Value = serde_json::from_str(body).unwrap();
    (status.as_u16(), problem["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_step_is_saved_and_read_back_byte_for_byte() {
    let scene = Scene::new().await;
    assert_eq!(code(&scene.get("/steps/fetch").await), (404, "unknown_step".to_owned()));
    let saved = scene.put("/steps/fetch?pending=read,write", "{\"b\": 1.0e2,  \"a\":[]}").await;
    assert_eq!(saved, (StatusCode::OK, r#"{"seq":1}"#.to_owned()));
    assert_eq!(scene.get("/steps/fetch").await, (StatusCode::OK, "{\"b\": 1.0e2,  \"a\":[]}".to_owned()));
    let (_, progress) = scene.get("").await;
    let progress: Value = serde_json::from_str(&progress).unwrap();
    assert_eq!((&progress["seq"], &progress["pending"]), (&json!(1), &json!(["read", "write"])));
    assert_eq!(scene.get("/").await.0, StatusCode::OK);
}

#[tokio::test]
async fn names_with_slashes_and_states_that_are_nothing() {
    let scene = Scene::new().await;
    assert_eq!(scene.put("/steps/pages/7", "").await.0, StatusCode::OK);
    assert_eq!(scene.get("/steps/pages%2F7").await.1, "null");
    assert_eq!(scene.put("/steps/read?completed=false", "3").await.1, r#"{"seq":2}"#);
    assert_eq!(scene.get("/steps/read").await.0, StatusCode::NOT_FOUND);
    assert_eq!(scene.get("/steps/read?completed=false").await.1, "3");
}

#[tokio::test]
async fn a_large_state_becomes_a_blob_and_too_large_a_one_is_refused() {
    let scene = Scene::new().await;
    let large = format!("\"{}\"", "x".repeat(STATES_MAX_BYTES));
    assert_eq!(scene.put("/steps/fetch", large.clone()).await.0, StatusCode::OK);
    assert_eq!(scene.link.state().blobs.len(), 1);
    assert_eq!(scene.get("/steps/fetch").await.1, large);
    let too_large = format!("\"{}\"", "x".repeat(MAX_BLOB_BYTES as usize));
    assert_eq!(code(&scene.put("/steps/read", too_large).await), (413, "body_too_large".to_owned()));
    assert_eq!(scene.link.state().arrived.len(), 1);
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_and_changes_nothing() {
    let scene = Scene::new().await;
    for (path, body, told) in [
        ("/steps/fetch", &b"{\"a\":"[..], (400, "malformed_json")),
        ("/steps/fetch", b"\"\xff\"", (400, "invalid_utf8")),
        ("/steps/a%20step", b"1", (422, "invalid_value")),
        ("/steps/fetch?complete=false", b"1", (422, "invalid_value")),
        ("/steps/fetch?pending=a%20b", b"1", (422, "invalid_value")),
    ] {
        let answer = scene.put(path, body).await;
        assert_eq!(code(&answer), (told.0, told.1.to_owned()), "{path}: {answer:?}");
    }
    let post = scene.call(Method::POST, "/steps/fetch", "1").await;
    assert_eq!(code(&post), (405, "method_not_allowed".to_owned()));
    assert!(scene.link.state().arrived.is_empty());
}

#[tokio::test]
async fn an_address_is_good_for_its_attempt_and_for_as_long_as_it_runs() {
    let scene = Scene::new().await;
    let url = scene.opening.url.clone();
    let (server, secret) = url.rsplit_once('/').unwrap();
    assert_eq!(secret.len(), 32);
    let nowhere = (404, "unknown_path".to_owned());
    let wrong = format!("{server}/{}/steps/fetch", "0".repeat(32));
    assert_eq!(code(&call(&wrong, Method::PUT, "1").await), nowhere);
    assert_eq!(code(&call(server, Method::GET, "").await), nowhere);
    let (other, _) = attempt(&scene.link, &lease("1"));
    let other = scene.server.open(&lease("1"), &other).await.unwrap();
    assert_ne!(other.url, url);
    drop(scene.opening);
    assert_eq!(code(&call(&format!("{url}/steps/fetch"), Method::PUT, "1").await), nowhere);
    assert_eq!(call(&other.url, Method::GET, "").await.0, StatusCode::OK);
    assert!(scene.link.state().arrived.is_empty());
}

#[tokio::test]
async fn what_is_under_way_when_the_attempt_ends_is_cut_off() {
    let scene = Scene::new().await;
    let (link, opening, _server) = (scene.link, scene.opening, scene.server);
    link.state().away = u32::MAX;
    let url = format!("{}/steps/fetch", opening.url);
    let saving = tokio::spawn(async move { call(&url, Method::PUT, "1").await });
    while link.state().arrived.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(opening);
    assert_eq!(code(&saving.await.unwrap()), (404, "unknown_path".to_owned()));
}

#[tokio::test]
async fn after_the_lease_nothing_is_saved() {
    let scene = Scene::new().await;
    scene.link.state().stale = true;
    let stale = (409, "stale_epoch".to_owned());
    assert_eq!(code(&scene.put("/steps/fetch", "1").await), stale);
    assert_eq!(scene.stop.reason(), Some(CancelReason::LeaseLost));
    assert_eq!(code(&scene.put("/steps/read", "1").await), stale);
    assert_eq!(scene.link.state().arrived.len(), 1, "the second was not even sent");
}

#[tokio::test]
async fn locks_are_taken_given_back_and_left_behind() {
    let scene = Scene::new().await;
    let wanted = r#"{"exclusive": ["report.md"], "wait_ms": 1000, "ttl_ms": 20000}"#;
    let (status, grant) = scene.call(Method::POST, "/locks", wanted).await;
    assert_eq!(status, StatusCode::OK, "{grant}");
    assert_eq!(serde_json::from_str::<Value>(&grant).unwrap()["token"], 1);
    assert_eq!(scene.call(Method::DELETE, "/locks/1", "").await.1, r#"{"released":true}"#);
    for token in ["1", "x"] {
        let answer = scene.call(Method::DELETE, &format!("/locks/{token}"), "").await;
        assert_eq!(code(&answer), (404, "unknown_lock".to_owned()));
    }
    let unknown = scene.call(Method::POST, "/locks", r#"{"owner": {"name": "me"}}"#).await;
    assert_eq!(code(&unknown), (422, "invalid_value".to_owned()));
    assert_eq!(scene.call(Method::POST, "/locks", wanted).await.0, StatusCode::OK);
    scene.ctx.release_locks().await;
    assert_eq!(scene.link.state().released, [Token(1), Token(2)]);
    scene.link.state().lock_busy = true;
    let busy = scene.call(Method::POST, "/locks", wanted).await;
    assert_eq!(code(&busy), (409, "lock_busy".to_owned()));
}

#[tokio::test]
async fn what_is_taken_twice_is_given_back_twice_and_can_be_again() {
    let scene = Scene::new().await;
    for wanted in [r#"{"exclusive": ["a", "b"]}"#, r#"{"exclusive": ["a"]}"#] {
        let (_, grant) = scene.call(Method::POST, "/locks", wanted).await;
        assert_eq!(serde_json::from_str::<Value>(&grant).unwrap()["token"], 1);
    }
    assert_eq!(scene.call(Method::DELETE, "/locks/1", "").await.1, r#"{"released":false}"#);
    assert!(scene.link.state().released.is_empty());
    scene.link.state().releases_away = 1;
    let failed = scene.call(Method::DELETE, "/locks/1", "").await;
    assert_eq!(code(&failed), (503, "store_unavailable".to_owned()));
    assert_eq!(scene.call(Method::DELETE, "/locks/1", "").await.1, r#"{"released":true}"#);
    assert_eq!(scene.link.state().released, [Token(1)]);
}

#[tokio::test]
async fn a_lock_under_a_lease_that_is_over_stops_the_handler() {
    let scene = Scene::new().await;
    scene.link.state().stale = true;
    let stale = scene.call(Method::POST, "/locks", r#"{"exclusive": ["a"]}"#).await;
    assert_eq!(code(&stale), (409, "stale_epoch".to_owned()));
    assert_eq!(scene.stop.reason(), Some(CancelReason::LeaseLost));
}

#[tokio::test]
async fn the_payload_can_be_asked_for() {
    assert_eq!(Scene::new().await.get("/payload").await.1, "{\"a\":  1}");
}

#[tokio::test]
async fn a_program_whose_turn_it_is_not_waits_for_it() {
    let scene = Scene::new().await;
    let (asking, attempt, step) = (scene.asking(), scene.attempt(), Name::new("fetch").unwrap());
    let state = format!("\"{}\"", "x".repeat(3 * STATES_MAX_BYTES));
    let saving = asking.save(&step, true, None, state.clone().into_bytes());
    tokio::pin!(saving);
    {
        let _others = attempt.requests.try_acquire_many(REQUESTS_MAX as u32).unwrap();
        let refused = scene.get("").await;
        assert_eq!(code(&refused), (429, "overloaded".to_owned()));
        let early = tokio::time::timeout(Duration::from_millis(300), &mut saving).await;
        assert!(early.is_err(), "{early:?}");
        // What is refused long before it was sent learns of it, too.
        let long = asking.save(&step, true, None, vec![b' '; 64 * 1024 * 1024]);
        let early = tokio::time::timeout(Duration::from_millis(1_500), long).await;
        assert!(early.is_err(), "{early:?}");
    }
    assert_eq!(saving.await.unwrap().seq, 1);
    assert_eq!(asking.completed(&step).await.unwrap().unwrap(), state.as_bytes());
}

#[tokio::test]
async fn who_waits_for_a_lock_takes_nobody_elses_place() {
    let scene = Scene::new().await;
    scene.link.state().lock_waits = true;
    let attempt = scene.attempt();
    let url = format!("{}/locks", scene.opening.url);
    let wanted = r#"{"exclusive": ["report.md"], "wait_ms": 8000}"#;
    let waiting: Vec<_> = (0..=REQUESTS_MAX)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move { call(&url, Method::POST, wanted).await })
        })
        .collect();
    while attempt.waits.available_permits() > WAITS_MAX - waiting.len() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(scene.put("/steps/fetch", "1").await.0, StatusCode::OK);
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_program_takes_a_lock_and_learns_when_it_is_to_stop() {
    let scene = Scene::new().await;
    let (asking, report) = (scene.asking(), Resource::new("report.md").unwrap());
    let wanted = Wanted { exclusive: vec![report.clone()], ..Wanted::default() };
    let grant = asking.lock(&wanted).await.unwrap();
    assert_eq!((grant.exclusive, grant.ttl_ms), (vec![report], 30_000));
    assert!(asking.unlock(grant.token).await.unwrap());
    assert!(!asking.unlock(grant.token).await.unwrap(), "it is given back already");
    let stopped = asking.stopped();
    tokio::pin!(stopped);
    let early = tokio::time::timeout(Duration::from_millis(100), &mut stopped).await;
    assert!(early.is_err(), "{early:?}");
    scene.stop.now(CancelReason::LockLost);
    assert_eq!(stopped.await.unwrap(), CancelReason::LockLost);
}

#[tokio::test]
async fn the_secret_is_in_no_error() {
    let scene = Scene::new().await;
    let (asking, secret, step) = (scene.asking(), scene.opening.secret.clone(), Name::new("fetch").unwrap());
    let stopped = asking.stopped();
    drop(scene.opening);
    let over = asking.completed(&step).await.unwrap_err();
    assert!(matches!(over, AskError::Refused(_)), "{over:?}");
    assert!(stopped.await.is_err());
    drop(scene.server);
    let gone = loop {
        // The server ends when it is next scheduled.
        match asking.completed(&step).await.unwrap_err() {
            AskError::Refused(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            gone => break gone,
        }
    };
    assert!(gone.to_string().starts_with("no answer from the worker: "), "{gone}");
    let address = ContextClient::new(&format!("nothing:/{secret}")).unwrap_err();
    for error in [over, gone, address] {
        assert!(!format!("{error} {error:?}").contains(&secret), "{error:?}");
    }
}
