//! A Redis Cluster.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::server::{Server, count, free_port, open, quick, said, until, words};
use crate::store::redis::address::Address;
use crate::store::redis::link::{Link, LinkOptions};

/// Three masters, each with a replica.
pub(super) struct Cluster {
    nodes: Vec<Server>,
}

impl Cluster {
    pub(super) async fn start() -> Self {
        let options = [
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "1000",
            "--repl-diskless-sync-delay",
            "0",
            "--appendfsync",
            "no",
        ];
        let mut nodes = Vec::new();
        for _ in 0..6 {
            let port = free_port();
            nodes.push(Server::start_on(port, &["--port", &port.to_string()], &options).await);
        }
        let places = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port));
        let done = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(places)
            .args(["--cluster-replicas", "1", "--cluster-yes"])
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(done.success());
        let all = Self { nodes };
        until("every node is in sync", async || {
            for node in &all.nodes {
                let info: String = node.ask(&words("CLUSTER INFO")).await.unwrap_or_default();
                let role: String = node.ask(&words("INFO replication")).await.unwrap_or_default();
                let synced = role.contains("master_link_status:up") || role.contains("state=online");
                if !info.contains("cluster_state:ok") || !synced {
                    return false;
                }
            }
            true
        })
        .await;
        all
    }

    pub(super) fn url(&self) -> String {
        let hosts: Vec<_> = self.nodes.iter().take(3).map(|one| format!("127.0.0.1:{}", one.port)).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// Which of the first three nodes has a key.
    async fn owner(&self, key: &str) -> usize {
        for (n, node) in self.nodes.iter().enumerate().take(3) {
            if node.ask::<Option<String>>(redis::cmd("GET").arg(key)).await.is_ok() {
                return n;
            }
        }
        panic!("nobody has {key}");
    }
}

#[tokio::test]
async fn a_cluster_s_dead_and_hung_masters_are_replaced() {
    let mut cluster = Cluster::start().await;
    let options = LinkOptions {
        wait_replicas: 1,
        response_timeout: Duration::from_secs(1),
        connect_timeout: Duration::from_secs(2),
        wait_timeout: Duration::from_millis(500),
    };
    let link = open(&cluster.url(), LinkOptions { wait_replicas: 0, ..options }).await;
    let safe = open(&cluster.url(), options).await;
    let keys = ["{a}k", "{b}k", "{c}k", "{d}k", "{e}k", "{f}k"];
    for key in keys {
        assert_eq!(count(&link, key).await.unwrap(), 1, "{key}");
        assert_eq!(count(&safe, key).await.unwrap(), 2, "{key}: WAIT runs on the node of its key");
    }
    until("the nodes have heard of each other's roles", async || {
        let nodes = link.nodes().await.unwrap();
        assert!(nodes.iter().all(|node| node.connection.is_ok()));
        let roles: Vec<_> = nodes.iter().map(|node| node.role.as_str()).collect();
        roles == ["master", "master", "master", "replica", "replica", "replica"]
    })
    .await;

    let dead = cluster.owner(keys[0]).await;
    cluster.nodes[dead].kill();
    let begun = Instant::now();
    until("the dead master's replica counts", async || {
        let asked = Instant::now();
        let result = count(&link, keys[0]).await;
        assert!(asked.elapsed() < Duration::from_millis(1_500), "{:?}: {result:?}", asked.elapsed());
        result.is_ok()
    })
    .await;
    println!("dead master replaced after {:?}", begun.elapsed());
    let error = said(count(&safe, keys[0]).await);
    assert!(error.contains("only 0 of 1"), "{error}");
    for key in keys {
        count(&link, key).await.unwrap();
    }
    cluster.nodes[dead].start_again().await;
    until("it is a replica now", async || count(&safe, keys[0]).await.is_ok()).await;

    let stopped = &cluster.nodes[(dead + 1) % 3];
    let mut its_key = None;
    for key in keys {
        if stopped.ask::<Option<String>>(redis::cmd("GET").arg(key)).await.is_ok() {
            its_key = Some(key);
        }
    }
    let its_key = its_key.expect("six keys, three masters");
    stopped.signal("STOP");
    let begun = Instant::now();
    until("the hung master's replica counts", async || {
        let asked = Instant::now();
        let result = count(&link, its_key).await;
        assert!(asked.elapsed() < Duration::from_millis(1_500), "{:?}: {result:?}", asked.elapsed());
        result.is_ok()
    })
    .await;
    println!("hung master replaced after {:?}", begun.elapsed());
    // A new link finds its way around the node that hangs.
    let new = Link::open(&cluster.url().parse().unwrap(), options).await.unwrap();
    new.query(redis::cmd("GET").arg(its_key)).await.unwrap();
    for key in keys {
        until(key, async || count(&link, key).await.is_ok()).await;
    }
}

#[tokio::test]
async fn a_wrong_kind_of_address_is_said() {
    let single = Server::start(&[]).await;
    let as_cluster: Address = format!("redis+cluster://127.0.0.1:{}", single.port).parse().unwrap();
    let error = said(Link::open(&as_cluster, quick()).await);
    assert!(error.contains("is no cluster"), "{error}");
    let node = Server::start(&["--cluster-enabled", "yes"]).await;
    let error = said(Link::open(&node.url().parse().unwrap(), quick()).await);
    assert!(error.contains("redis+cluster://"), "{error}");
}
