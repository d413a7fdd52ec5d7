//! A Redis cluster: three masters with a third of the slots each, and a replica for each of them.
//!
//! It is not formed by commands. Each node finds the finished cluster in its `nodes.conf`, as after a restart of all, so
//! that forming it takes the 2 s for which a master that boots does not trust its view (`CLUSTER_WRITABLE_DELAY`, which
//! no setting changes), and nothing more.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::server::{PORT_TRIES_MAX, RedisOptions, RedisServer};
use crate::support::fast_directory;
use crate::support::port::Port;
use crate::support::wait::eventually;

const MASTERS: usize = 3;
const NODES: usize = 2 * MASTERS;
const SLOTS: usize = 16_384;
/// Silence after which a node is suspected. Less would take a busy machine's pauses for deaths.
const NODE_TIMEOUT_MS: u32 = 2_000;
/// Forming takes 2 s and a failover up to 5 s, on a machine that is not too busy.
const PATIENCE: Duration = Duration::from_secs(40);
/// For a question that is asked again: one to a suspended node must not hold up the others.
const GLANCE: Duration = Duration::from_millis(250);

/// A cluster of six nodes that ends with the test. Nodes are told by their index: at first 0 to 2 are the masters, and
/// the replica of `n` is `n + 3`.
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
}

/// A master as a node sees it.
struct Seen {
    port: u16,
    epoch: u64,
}

impl RedisCluster {
    /// Without persistence. A master that is killed and back before its replica took over then empties its replica too.
    pub async fn start() -> Self {
        Self::with(RedisOptions::default()).await
    }

    /// Each node with these options.
    pub async fn with(options: RedisOptions) -> Self {
        let options = options
            .set("cluster-enabled", "yes")
            .set("cluster-config-file", "nodes.conf")
            .set("cluster-node-timeout", &NODE_TIMEOUT_MS.to_string())
            // A replica stands for election however old its data is, and stays with its master.
            .set("cluster-replica-validity-factor", "0")
            .set("cluster-migration-barrier", "9")
            .set("repl-diskless-sync-delay", "0");
        for _ in 0..PORT_TRIES_MAX {
            let ports: Vec<Port> = (0..NODES).map(|_| Port::free_with_bus()).collect();
            let numbers: Vec<u16> = ports.iter().map(Port::number).collect();
            let nodes = join_all(ports.into_iter().enumerate().map(|(index, port)| {
                let directory = fast_directory();
                let view = view_of(index, &numbers);
                std::fs::write(directory.path().join("nodes.conf"), view).expect("a file");
                RedisServer::on(port, directory, options.clone())
            }))
            .await;
            if let Ok(nodes) = nodes.into_iter().collect() {
                let cluster = Self { nodes };
                cluster.until_healthy().await;
                return cluster;
            }
        }
        panic!("a cluster found ports taken that were free before, {PORT_TRIES_MAX} times");
    }

    pub fn url(&self) -> String {
        let addresses: Vec<String> =
            self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("redis+cluster://{}", addresses.join(","))
    }

    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// A node, to kill, suspend or start again.
    pub fn node(&mut self, index: usize) -> &mut RedisServer {
        &mut self.nodes[index]
    }

    /// The node that serves this key, or served it last.
    pub async fn master_of(&self, key: &str) -> usize {
        let (master, _) = eventually("some node knows the key's master", PATIENCE, async || {
            let seen = join_all(self.nodes.iter().map(|node| timeout(GLANCE, seen_by(node, key)))).await;
            // Nodes learn of a failover one after the other; the higher epoch is the newer.
            let newest = seen.into_iter().flatten().flatten().max_by_key(|seen| seen.epoch)?;
            self.nodes.iter().position(|node| node.port() == newest.port)
        })
        .await;
        master
    }

    /// Waits until the key's slot takes writes, and says how long that was. Tried with a PERSIST: a key without expiry
    /// is as it was.
    pub async fn until_writable(&self, key: &str) -> Duration {
        let (_, took) = eventually(&format!("{key} can be written"), PATIENCE, async || {
            let master = self.master_of(key).await;
            timeout(GLANCE, self.nodes[master].try_command(&["PERSIST", key])).await.ok()?.ok()
        })
        .await;
        took
    }

    /// Waits until every node sees a working cluster and every replica follows its master.
    pub async fn until_healthy(&self) -> Duration {
        let mut took = Duration::ZERO;
        for node in &self.nodes {
            let what = format!("node {} is a healthy part of the cluster", node.port());
            took += eventually(&what, PATIENCE, async || is_healthy(node).await.then_some(())).await.1;
        }
        took
    }
}

async fn is_healthy(node: &RedisServer) -> bool {
    let Ok(cluster) = node.try_command(&["CLUSTER", "INFO"]).await else { return false };
    let Ok(nodes) = node.try_command(&["CLUSTER", "NODES"]).await else { return false };
    let Ok(replication) = node.try_command(&["INFO", "replication"]).await else { return false };
    let follows = if replication.contains("role:master") {
        replication.contains("connected_slaves:1") && replication.contains("state=online")
    } else {
        replication.contains("master_link_status:up")
    };
    cluster.contains("cluster_state:ok")
        && nodes.lines().count() == NODES
        && !nodes.contains("fail")
        && !nodes.contains("disconnected")
        && follows
}

/// The master of a key as this node sees it; none if it does not answer.
async fn seen_by(node: &RedisServer, key: &str) -> Option<Seen> {
    let slot: usize = node.try_command(&["CLUSTER", "KEYSLOT", key]).await.ok()?.parse().ok()?;
    let nodes = node.try_command(&["CLUSTER", "NODES"]).await.ok()?;
    nodes.lines().find_map(|line| {
        // id, address, flags, master, ping, pong, epoch, link, slots…
        let fields: Vec<&str> = line.split(' ').collect();
        let serves = fields.get(8..)?.iter().any(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            // A slot on the move, in brackets, is no number.
            matches!((first.parse(), last.parse()), (Ok(first), Ok(last)) if (first..=last).contains(&slot))
        });
        let port = fields[1].split(['@', ',']).next()?.rsplit(':').next()?;
        serves.then_some(Seen { port: port.parse().ok()?, epoch: fields[6].parse().ok()? })
    })
}

/// The cluster as the node of that index remembers it.
fn view_of(myself: usize, ports: &[u16]) -> String {
    let id = |index: usize| format!("{index:040x}");
    let mut view = String::new();
    for (index, port) in ports.iter().enumerate() {
        let me = if index == myself { "myself," } else { "" };
        let bus = Port::bus_of(*port);
        let role = if index < MASTERS {
            let (first, end) = (SLOTS * index / MASTERS, SLOTS * (index + 1) / MASTERS);
            format!("{me}master - 0 0 {} connected {first}-{}", index + 1, end - 1)
        } else {
            let master = index - MASTERS;
            format!("{me}slave {} 0 0 {} connected", id(master), master + 1)
        };
        view += &format!("{} 127.0.0.1:{port}@{bus} {role}\n", id(index));
    }
    view + &format!("vars currentEpoch {MASTERS} lastVoteEpoch 0\n")
}
