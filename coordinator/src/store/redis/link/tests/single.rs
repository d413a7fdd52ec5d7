use std::time::{Duration, Instant};

use redis::Value;

use super::server::{COUNT, SPIN, Server, count, open, quick, said, until, words};
use crate::store::StoreError;
use crate::store::redis::address::Address;
use crate::store::redis::link::{Link, LinkOptions};

/// A little more than the response timeout of [`quick`].
const SOON: Duration = Duration::from_millis(900);

#[tokio::test]
async fn scripts_commands_and_pipelines() {
    let server = Server::start(&[]).await;
    let link = open(&server.url(), quick()).await;
    for expected in 1..=3 {
        assert_eq!(count(&link, "k").await.unwrap(), expected);
    }
    assert_eq!(link.query(&words("GET k")).await.unwrap(), Value::BulkString(b"3".to_vec()));
    let mut pipe = redis::pipe();
    pipe.cmd("INCR").arg("k").cmd("INCR").arg("k");
    assert_eq!(link.pipeline(&pipe).await.unwrap(), [Value::Int(4), Value::Int(5)]);
}

#[tokio::test]
async fn lost_scripts_are_loaded_again() {
    let server = Server::start(&[]).await;
    let link = open(&server.url(), quick()).await;
    assert_eq!(count(&link, "k").await.unwrap(), 1);
    let () = server.ask(&words("SCRIPT FLUSH")).await.unwrap();
    assert_eq!(count(&link, "k").await.unwrap(), 2);
    let exists: Vec<bool> = server
        .ask(redis::cmd("SCRIPT").arg("EXISTS").arg(redis::Script::new(COUNT.source()).get_hash()))
        .await
        .unwrap();
    assert_eq!(exists, [true], "the second call loaded it");
}

#[tokio::test]
async fn a_server_that_was_killed_is_found_again() {
    let mut server = Server::start(&[]).await;
    let link = open(&server.url(), quick()).await;
    assert_eq!(count(&link, "k").await.unwrap(), 1);
    server.kill();
    let begun = Instant::now();
    let error = said(count(&link, "k").await);
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert!(error.contains(&format!("127.0.0.1:{}", server.port)), "{error}");
    let error = said(count(&link, "k").await);
    assert!(error.contains("refuses connections"), "{error}");
    server.start_again().await;
    until("it counts again", async || count(&link, "k").await.is_ok()).await;
}

#[tokio::test]
async fn a_server_that_hangs_fails_calls_in_time_and_is_used_again() {
    let server = Server::start(&[]).await;
    let link = open(&server.url(), quick()).await;
    assert_eq!(count(&link, "k").await.unwrap(), 1);
    server.signal("STOP");
    for _ in 0..3 {
        let begun = Instant::now();
        let error = said(count(&link, "k").await);
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        assert!(error.contains("127.0.0.1"), "{error}");
    }
    server.signal("CONT");
    until("it counts again", async || count(&link, "k").await.is_ok()).await;
}

#[tokio::test]
async fn connections_killed_under_load_cost_only_what_was_under_way() {
    let server = Server::start(&[]).await;
    let link = open(&server.url(), quick()).await;
    let mut done = 0;
    for _ in 0..5 {
        let calls = (0..200).map(|_| count(&link, "k"));
        let killing = async {
            let _: i64 = server.ask(&words("CLIENT KILL TYPE normal SKIPME yes")).await.unwrap();
        };
        let (results, ()) = tokio::join!(futures_util::future::join_all(calls), killing);
        done += results.iter().filter(|result| result.is_ok()).count();
        until("it counts again", async || count(&link, "k").await.is_ok()).await;
        done += 1;
    }
    let counted: usize = server.ask(&words("GET k")).await.unwrap();
    assert!(counted >= done, "{done} confirmed, {counted} made");
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let server = Server::start(&["--maxmemory", "3mb", "--maxmemory-policy", "noeviction"]).await;
    let link = open(&server.url(), quick()).await;
    let () = server.ask(&words("RPUSH list x")).await.unwrap();
    let error = count(&link, "list").await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Corrupt(said) if said.contains("something else under a key")),
        "{error}"
    );
    let mut spin = SPIN.on("k");
    spin.arg(2);
    let error = said(link.run(spin).await);
    assert!(error.contains("has not answered within"), "{error}");
    until("it is over", async || link.query(&words("PING")).await.is_ok()).await;
    let filler = "x".repeat(64 * 1024);
    let mut error = None;
    for n in 0..100 {
        error = link.query(redis::cmd("SET").arg(format!("f{n}")).arg(&filler)).await.err();
        if error.is_some() {
            break;
        }
    }
    assert!(matches!(&error, Some(StoreError::Full(said)) if said.contains("maxmemory")), "{error:?}");
    let () = server.ask(&words("CONFIG SET maxmemory 1mb")).await.unwrap();
    let error = count(&link, "k").await;
    assert!(matches!(&error, Err(StoreError::Full(_))), "a script's error too: {error:?}");
}

#[tokio::test]
async fn passwords_are_used_and_not_shown() {
    let server = Server::start(&["--requirepass", "hunter2"]).await;
    let with = |password: &str| format!("redis://{password}127.0.0.1:{}", server.port);
    let link = open(&with(":hunter2@"), quick()).await;
    assert_eq!(count(&link, "k").await.unwrap(), 1);
    let wrong: Address = with(":hunter3@").parse().unwrap();
    let error = said(Link::open(&wrong, quick()).await);
    assert!(error.contains("refuses the user or the password") && !error.contains("hunter"), "{error}");
    let none: Address = with("").parse().unwrap();
    let error = said(Link::open(&none, quick()).await);
    assert!(error.contains("asks for a password"), "{error}");
}

#[tokio::test]
async fn nobody_there_is_said_in_time() {
    let nobody: Address = "redis://127.0.0.1:1".parse().unwrap();
    let begun = Instant::now();
    let error = said(Link::open(&nobody, quick()).await);
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert!(error.contains("127.0.0.1:1: refuses connections"), "{error}");
    let options = LinkOptions { connect_timeout: Duration::from_millis(300), ..quick() };
    let hung = Server::start(&[]).await;
    hung.signal("STOP");
    let error = said(Link::open(&hung.url().parse().unwrap(), options).await);
    assert!(error.contains(&format!("127.0.0.1:{}", hung.port)), "{error}");
}

#[tokio::test]
async fn a_replica_is_refused() {
    let master = Server::start(&[]).await;
    let replica = Server::start(&["--replicaof", "127.0.0.1", &master.port.to_string()]).await;
    let error = said(Link::open(&replica.url().parse().unwrap(), quick()).await);
    assert!(error.contains("is a replica"), "{error}");
}
