//! Masters that die, and replicas that take over: with `wait_replicas = 1`, nothing that was acknowledged is lost.

use std::time::Duration;

use super::front::{Front, outage};
use crate::support::redis::{RedisCluster, RedisOptions, RedisSentinel, RedisServer};
use crate::support::wait::eventually;

const UNAVAILABLE: &str = "store_unavailable";
/// A failover takes up to 5 s here.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn without_its_replica_nothing_is_acknowledged_and_with_it_all_goes_on() {
    let at_once = || RedisOptions::default().set("repl-diskless-sync-delay", "0");
    let (master, mut replica) = (RedisServer::with(at_once()).await, RedisServer::with(at_once()).await);
    let port = master.port().to_string();
    let follow = async |replica: &mut RedisServer| {
        replica.command(&["REPLICAOF", "127.0.0.1", &port]).await;
        // Online, and it has confirmed all there is: from then on it answers at once when it is waited for.
        let follows = async || {
            let state = master.command(&["INFO", "replication"]).await;
            let offset = state.lines().find_map(|line| line.trim().strip_prefix("master_repl_offset:"))?;
            state.contains(&format!("state=online,offset={offset},")).then_some(())
        };
        eventually("the replica follows", PATIENCE, follows).await;
    };
    follow(&mut replica).await;
    let front = &mut Front::start(&master.url(), 1).await;
    let leave = async |replica: &mut RedisServer| drop(replica.command(&["REPLICAOF", "NO", "ONE"]).await);
    outage(front, &mut replica, ("no-replica", UNAVAILABLE), leave, follow).await;
    front.finish().await;
}

#[tokio::test]
async fn a_cluster_s_dead_master_is_replaced_and_loses_nothing() {
    let cluster = &mut RedisCluster::start().await;
    let front = &mut Front::start(&cluster.url(), 1).await;
    let key = "redrive:{0}:check";
    let master = cluster.master_of(key).await;
    let die = async |cluster: &mut RedisCluster| cluster.node(master).kill();
    let take_over = async |cluster: &mut RedisCluster| {
        cluster.until_writable(key).await;
        cluster.node(master).restart().await;
        cluster.until_healthy().await;
    };
    outage(front, cluster, ("cluster-master", UNAVAILABLE), die, take_over).await;
    front.finish().await;
}

#[tokio::test]
async fn a_master_under_sentinel_is_replaced_and_loses_nothing() {
    let pair = &mut RedisSentinel::start().await;
    let front = &mut Front::start(&pair.url(), 1).await;
    let master = pair.master().await;
    let die = async |pair: &mut RedisSentinel| pair.server(master).kill();
    let take_over = async |pair: &mut RedisSentinel| {
        let replaced = async || (pair.master().await != master).then_some(());
        eventually("the replica is the master", PATIENCE, replaced).await;
        pair.restart_as_replica(master).await;
    };
    outage(front, pair, ("sentinel-master", UNAVAILABLE), die, take_over).await;
    front.finish().await;
}
