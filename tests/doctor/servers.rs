//! One server after the other, each with something wrong.

use std::time::Duration;

use redrive_coordinator::store::doctor::Verdict;
use redrive_coordinator::store::redis::{RedisConfig, RedisStore, doctor};
use redrive_coordinator::store::{Store, StoreError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{assert_found, config, examine, found, refused, replica_of};
use crate::support::redis::{AppendFsync, RedisCluster, RedisOptions, RedisSentinel, RedisServer};
use crate::support::wait::eventually;
use crate::support::{claim_of, task};

#[tokio::test]
async fn a_server_that_keeps_everything_is_fine() {
    let options = RedisOptions::default().append_only(AppendFsync::Everysec).maxmemory_bytes(64 << 20);
    let server = RedisServer::with(options).await;
    let report = examine(&server.url()).await;
    assert_eq!(refused(&report), [""; 0], "{report:#?}");
    for check in ["server", "eviction", "persistence", "memory", "replication", "clock", "layout", "scripts"]
    {
        assert_found(&report, check, Verdict::Ok, "");
    }
    for check in ["tls", "nodes", "clients", "access", "hints"] {
        assert_found(&report, check, Verdict::Ok, "");
    }
    assert_found(&report, "persistence", Verdict::Ok, "everysec");
    assert_eq!(server.command(&["DBSIZE"]).await, "0", "looking leaves nothing behind");
}

#[tokio::test]
async fn what_loses_tasks_is_refused() {
    let options = RedisOptions::default().maxmemory_bytes(64 << 20).set("maxmemory-policy", "allkeys-lru");
    let server = RedisServer::with(options).await;
    let mut config = config(&server.url());
    config.link.wait_replicas = 1;
    let report = doctor::examine(&config).await;
    assert_found(&report, "eviction", Verdict::Refused, "allkeys-lru");
    assert_found(&report, "persistence", Verdict::Refused, "nothing is kept on disk");
    assert_found(&report, "replication", Verdict::Refused, "wait_replicas is 1");
    assert_eq!(refused(&report), ["eviction", "persistence", "replication"]);

    server.command(&["CONFIG", "SET", "appendonly", "yes"]).await;
    server.command(&["CONFIG", "SET", "appendfsync", "no"]).await;
    assert_found(&examine(&server.url()).await, "persistence", Verdict::Warning, "appendfsync no");
    server.command(&["CONFIG", "SET", "appendfsync", "always"]).await;
    assert_found(&examine(&server.url()).await, "persistence", Verdict::Ok, "always");
    server.command(&["CONFIG", "SET", "appendonly", "no"]).await;
    server.command(&["CONFIG", "SET", "save", "900 1"]).await;
    assert_found(&examine(&server.url()).await, "persistence", Verdict::Warning, "snapshots only");
    server.command(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    assert_found(&examine(&server.url()).await, "replication", Verdict::Refused, "takes no writes");
    let shards = RedisConfig { shards: Some(4), ..self::config(&server.url()) };
    server.command(&["CONFIG", "SET", "min-replicas-to-write", "0"]).await;
    server.command(&["HSET", "rd:{*}:meta", "shards", "2", "layout", "2"]).await;
    assert_found(&doctor::examine(&shards).await, "layout", Verdict::Refused, "made with 2 shards");
}

#[tokio::test]
async fn a_master_without_its_replica_is_found() {
    let mut pair = RedisSentinel::with(RedisOptions::default().append_only(AppendFsync::Everysec)).await;
    let report = examine(&pair.url()).await;
    assert_found(&report, "replication", Verdict::Warning, "wait_replicas 0");
    assert!(found(&report, "nodes").found.contains("(replica)"), "{report:#?}");
    let mut config = config(&pair.url());
    config.link.wait_replicas = 1;
    let report = doctor::examine(&config).await;
    assert_found(&report, "replication", Verdict::Ok, "");
    assert_eq!(refused(&report), [""; 0], "{report:#?}");
    let replica = pair.replica().await;
    pair.server(replica).kill();
    let report = doctor::examine(&config).await;
    assert_found(&report, "replication", Verdict::Refused, "0 replicas in sync");
}

#[tokio::test]
async fn a_cluster_with_slots_that_nobody_serves_is_refused() {
    let mut cluster = RedisCluster::with(RedisOptions::default().append_only(AppendFsync::Everysec)).await;
    let report = examine(&cluster.url()).await;
    assert_found(&report, "cluster", Verdict::Ok, "3 masters");
    assert_eq!(refused(&report), [""; 0], "{report:#?}");
    one_full_master_is_enough(&cluster).await;
    cluster.node(3).kill();
    cluster.node(0).kill();
    eventually("the cluster knows that slots are lost", Duration::from_secs(30), async || {
        let state = cluster.nodes()[1].try_command(&["CLUSTER", "INFO"]).await.ok()?;
        state.contains("cluster_state:fail").then_some(())
    })
    .await;
    let report = examine(&cluster.url()).await;
    assert_found(&report, "cluster", Verdict::Refused, "cluster_state fail");
    assert_found(&report, "nodes", Verdict::Warning, "no answer from");
}

/// New tasks go to every master, so the fullest decides; and the refusal names it.
async fn one_full_master_is_enough(cluster: &RedisCluster) {
    let config = RedisConfig { memory_limit_percent: 1, ..config(&cluster.url()) };
    let store = RedisStore::open(&config, None).await.unwrap();
    let full = &cluster.nodes()[2];
    full.command(&["CONFIG", "SET", "maxmemory", "20mb"]).await;
    let refused = eventually("new tasks are refused", Duration::from_secs(20), async || {
        store.enqueue(vec![task("a")]).await.err()
    });
    let (refused, _) = refused.await;
    let named = format!("127.0.0.1:{} uses", full.port());
    assert!(matches!(&refused, StoreError::NearlyFull(said) if said.contains(&named)), "{refused:?}");
    assert_eq!(store.claim(vec![claim_of(1)], &[]).await.unwrap()[0].leases.len(), 1, "claims go on");
}

#[tokio::test]
async fn what_cannot_be_reached_or_is_no_redis_is_told() {
    let server = RedisServer::start().await;
    server.command(&["CONFIG", "SET", "requirepass", "right"]).await;
    let url = format!("redis://:wrong@127.0.0.1:{}", server.port());
    assert_found(&examine(&url).await, "connection", Verdict::Refused, "refuses the user or the password");
    let url = format!("redis://:right@127.0.0.1:{}", server.port());
    assert_found(&examine(&url).await, "scripts", Verdict::Ok, "");

    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = [0; 1_024];
                while stream.read(&mut asked).await.is_ok_and(|read| read > 0) {
                    if stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    assert_found(&examine(&url).await, "connection", Verdict::Refused, "127.0.0.1");
    assert_found(
        &examine("redis://127.0.0.1:1").await,
        "connection",
        Verdict::Refused,
        "refuses connections",
    );
}

#[tokio::test]
async fn a_server_that_hangs_ends_the_examination_in_time() {
    let server = RedisServer::with(RedisOptions::default().set("repl-diskless-sync-delay", "0")).await;
    let replica = replica_of(&server).await;
    replica.suspend();
    let report =
        tokio::time::timeout(Duration::from_secs(20), examine(&server.url())).await.expect("bounded");
    assert_found(&report, "nodes", Verdict::Warning, "no answer from replica");
    assert_found(&report, "scripts", Verdict::Ok, "");
    replica.resume();
}
