//! Values that go past a script: all of them or none, and never without the script.

use redis::Value;

use super::cluster::Cluster;
use super::server::{Server, open, quick, words};
use crate::store::redis::link::{Link, Script};

const KEY: &str = "{s}:k";
const GATE: &str = "{s}:gate";

/// Replaces the value.
static OPENS: Script =
    Script::new("opens", "redis.call('DEL', KEYS[1] .. ':k', KEYS[1] .. ':gate') return {'done'}");
/// Finds that something is not as it should be.
static DECLINES: Script = Script::new("declines", "return 0");
/// Goes wrong in the middle.
static FAILS: Script = Script::new("fails", "redis.call('SET', KEYS[1] .. ':x', 1) error('boom')");

async fn past(link: &Link, script: &'static Script, value: &[u8]) -> Option<Value> {
    link.gated(&script.on("{s}"), GATE, &[(KEY.to_owned(), value)]).await.unwrap()
}

async fn value(link: &Link) -> String {
    redis::from_redis_value(link.query(redis::cmd("GET").arg(KEY)).await.unwrap()).unwrap()
}

async fn check(link: &Link) {
    link.query(redis::cmd("SET").arg(KEY).arg("old")).await.unwrap();
    assert!(past(link, &DECLINES, b"new").await.is_none());
    assert!(link.gated(&FAILS.on("{s}"), GATE, &[(KEY.to_owned(), b"new")]).await.is_err());
    assert_eq!(value(link).await, "old");
    // The script is not loaded yet, and once it is.
    for new in ["first", "second"] {
        assert!(past(link, &OPENS, new.as_bytes()).await.is_some());
        assert_eq!(value(link).await, new);
    }
}

#[tokio::test]
async fn they_come_in_if_the_script_says_so() {
    let server = Server::start(&[]).await;
    check(&open(&server.url(), quick()).await).await;
}

#[tokio::test]
async fn they_come_in_on_a_cluster_as_well() {
    let cluster = Cluster::start().await;
    check(&open(&cluster.url(), quick()).await).await;
}

#[tokio::test]
async fn what_redis_refuses_it_refuses_as_a_whole() {
    let server = Server::start(&[]).await;
    let link = open(&server.url(), quick()).await;
    link.query(redis::cmd("SET").arg(KEY).arg("old")).await.unwrap();
    assert!(past(&link, &OPENS, b"old").await.is_some(), "the script is loaded");
    let set = async |name: &str, to: &str| {
        let done: String = server.ask(&words(&format!("CONFIG SET {name} {to}"))).await.unwrap();
        assert_eq!(done, "OK");
    };
    set("maxmemory", "1").await;
    assert!(past(&link, &OPENS, b"new").await.is_none());
    assert_eq!(value(&link).await, "old");
    set("maxmemory", "0").await;
    set("min-replicas-to-write", "1").await;
    assert!(past(&link, &OPENS, b"new").await.is_none());
    assert_eq!(value(&link).await, "old");
    set("min-replicas-to-write", "0").await;
    let rule = "ACL SETUSER default -msetnx";
    server.ask::<String>(&words(rule)).await.unwrap();
    assert!(past(&link, &OPENS, b"new").await.is_none());
    assert_eq!(value(&link).await, "old");
}

#[tokio::test]
async fn without_transactions_nothing_goes_past_a_script() {
    let server = Server::start(&[]).await;
    let link = open(&server.url(), quick()).await;
    link.query(redis::cmd("SET").arg(KEY).arg("old")).await.unwrap();
    server.ask::<String>(&words("ACL SETUSER default -multi")).await.unwrap();
    assert!(past(&link, &OPENS, b"new").await.is_none());
    assert_eq!(value(&link).await, "old");
    server.ask::<String>(&words("ACL SETUSER default +multi")).await.unwrap();
    let later = open(&server.url(), quick()).await;
    assert!(past(&later, &OPENS, b"new").await.is_some());
    // Forbidden while it is used: it was done, command by command, and is not tried again.
    server.ask::<String>(&words("ACL SETUSER default -multi")).await.unwrap();
    assert!(past(&later, &OPENS, b"newer").await.is_some());
    assert_eq!(value(&later).await, "newer");
    assert!(past(&later, &OPENS, b"newest").await.is_none());
    assert_eq!(value(&later).await, "newer");
}
