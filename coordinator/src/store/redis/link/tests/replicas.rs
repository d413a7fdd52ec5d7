//! Writes that wait for replicas, and what `nodes` lists.

use std::time::{Duration, Instant};

use super::server::{COUNT, Server, count, open, quick, said, until, words};
use crate::store::redis::link::{Link, LinkOptions, Script};

static NOTHING: Script = Script::new("nothing", "return redis.call('GET', KEYS[1])");

fn waiting() -> LinkOptions {
    let (response_timeout, wait_timeout) = (Duration::from_secs(3), Duration::from_millis(500));
    LinkOptions { wait_replicas: 1, response_timeout, wait_timeout, ..quick() }
}

pub(super) async fn replica_of(master: &Server) -> Server {
    let replica = Server::start(&["--replicaof", "127.0.0.1", &master.port.to_string()]).await;
    until("the replica is in sync", async || {
        // The replica's own word comes too early: its master counts it only after its first acknowledgement.
        let info: String = master.ask(&words("INFO replication")).await.unwrap_or_default();
        info.contains("state=online")
    })
    .await;
    replica
}

async fn master() -> Server {
    Server::start(&["--repl-diskless-sync-delay", "0"]).await
}

#[tokio::test]
async fn without_replicas_a_write_says_so_and_reads_go_on() {
    let server = master().await;
    let link = open(&server.url(), waiting()).await;
    let mut load = COUNT.on("k");
    load.arg(1);
    link.run(load).await.unwrap();
    let writes = futures_util::future::join_all((0..8).map(|_| count(&link, "k")));
    let begun = Instant::now();
    let reading = async {
        for _ in 0..20 {
            link.query(&words("GET k")).await.unwrap();
        }
        begun.elapsed()
    };
    let (writes, read_for) = tokio::join!(writes, reading);
    for write in writes {
        let error = said(write);
        assert!(error.contains("only 0 of 1 replicas have the write"), "{error}");
    }
    assert!(read_for < waiting().wait_timeout, "{read_for:?}");
}

#[tokio::test]
async fn a_write_returns_when_its_replica_has_it() {
    let server = master().await;
    let mut replica = replica_of(&server).await;
    let link = open(&server.url(), waiting()).await;
    // A replica that has just come writes all its data to disk first.
    until("the replica keeps up", async || count(&link, "k").await.is_ok()).await;
    let counted = count(&link, "k").await.unwrap();
    let there: i64 = replica.ask(&words("GET k")).await.unwrap();
    assert_eq!(there, counted);
    let all = futures_util::future::join_all((0..200).map(|_| count(&link, "k"))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    // A repeat that finds its work done writes nothing, and must not be told that replicas have what they have not.
    replica.signal("STOP");
    assert!(said(count(&link, "k").await).contains("only 0 of 1"));
    // On every connection, used before or not.
    for _ in 0..2 {
        let repeats = (0..4).map(|_| link.write(NOTHING.on("k")));
        for repeat in futures_util::future::join_all(repeats).await {
            assert!(said(repeat).contains("only 0 of 1"));
        }
    }
    replica.signal("CONT");
    until("the replica has caught up", async || count(&link, "k").await.is_ok()).await;
    replica.kill();
    assert!(said(count(&link, "k").await).contains("only 0 of 1"));
}

#[tokio::test]
async fn nodes_are_the_master_and_its_replicas() {
    let server = master().await;
    let mut replica = replica_of(&server).await;
    let link: Link = open(&server.url(), quick()).await;
    let mut nodes = link.nodes().await.unwrap();
    let found: Vec<_> = nodes.iter().map(|node| (node.address.clone(), node.role.clone())).collect();
    let expected = [(server.port, "master"), (replica.port, "replica")]
        .map(|(port, role)| (format!("127.0.0.1:{port}"), role.to_owned()));
    assert_eq!(found, expected);
    for node in &mut nodes {
        node.query(&words("PING")).await.unwrap();
    }
    replica.kill();
    assert!(nodes[1].query(&words("PING")).await.is_err());
}
