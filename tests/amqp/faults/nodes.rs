//! RabbitMQ itself is killed.

use std::time::{Duration, Instant};

use redrive_coordinator::CoordinatorConfig;
use redrive_coordinator::amqp::{PushConfig, QueueType};

use super::load::{Figures, Hands, Load};
use super::{
    LETTERS, OUTSTANDING, PLAIN, Rig, coordinator, enqueue, probe, room, task, under_load, until_succeeded,
};
use crate::support::id;
use crate::support::rabbit::{RabbitCluster, RabbitServer, VHOST};

/// Tasks done before a fault and after it, of each queue.
const SOME: i64 = 60;

/// Producers and consumers of all kinds that find RabbitMQ there.
fn everything(rig: &Rig, urls: &[String]) -> (Load, Hands) {
    let load = Load::new()
        .over_http(&rig.client, LETTERS, "letter")
        .over_http(&rig.client, PLAIN, "plain")
        .over_amqp(urls, &rig.client, PLAIN);
    (load, Hands::start(urls.to_vec(), PLAIN))
}

async fn both_under_load(rig: &Rig) {
    tokio::join!(under_load(&rig.client, LETTERS, SOME), under_load(&rig.client, PLAIN, SOME));
}

/// How long each way of pushing takes to be itself again.
async fn recovery(rig: &Rig) -> String {
    let (letters, plain) =
        tokio::join!(probe(&rig.client, LETTERS, "probe-l"), probe(&rig.client, PLAIN, "probe-p"));
    format!("a new task is done by a worker after {letters:.1?}, by another consumer after {plain:.1?}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_loses_nothing_that_was_acknowledged() {
    let mut node = RabbitServer::start().await;
    let urls = [node.url()];
    let rig = Rig::at(&urls[0]).await;
    let _workers = [rig.worker("one", &urls[0]), rig.worker("two", &urls[0])];
    let (load, hands) = everything(&rig, &urls);
    both_under_load(&rig).await;
    node.flush_quorum_queues().await;
    both_under_load(&rig).await;
    node.kill();
    let killed = Instant::now();
    // Who speaks HTTP notices nothing.
    enqueue(&rig.client, vec![task("meanwhile", PLAIN, "ok")]).await;
    assert!(killed.elapsed() < Duration::from_secs(1));
    node.restart().await;
    let away = killed.elapsed();
    let recovery = recovery(&rig).await;
    both_under_load(&rig).await;
    let ids = load.stop().await;
    let figures = Figures::of(&rig.client, &ids, &hands.runs(), Some(&rig.sink)).await;
    until_succeeded(&rig.client, &id("meanwhile")).await;
    println!("a lone node killed -9, back after {away:.1?}: {figures}; once it is back, {recovery}");
    figures.check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_loses_the_leader_of_its_queues_loses_nothing_that_was_acknowledged() {
    let mut cluster = RabbitCluster::start().await;
    let urls = cluster.urls();
    let hosts: Vec<&str> = urls.iter().filter_map(|url| url.split(['@', '/']).nth(3)).collect();
    let all = urls[0].replace(hosts[0], &hosts.join(","));
    let push = [(LETTERS, PushConfig::default()), (PLAIN, room(OUTSTANDING))];
    let mut config: CoordinatorConfig = coordinator(&all, push);
    config.amqp.queue_type = QueueType::Quorum;
    let rig = Rig::with(config).await;
    let _workers = [rig.worker("one", &all), rig.worker("two", &all)];
    let (load, hands) = everything(&rig, &urls);
    both_under_load(&rig).await;
    let leader = cluster.leader_of(VHOST, "redrive.outcomes").await;
    cluster.kill(leader);
    let killed = Instant::now();
    let recovery = recovery(&rig).await;
    let took = killed.elapsed();
    both_under_load(&rig).await;
    let ids = load.stop().await;
    let figures = Figures::of(&rig.client, &ids, &hands.runs(), Some(&rig.sink)).await;
    println!("the leader of three nodes killed -9: {figures}; {recovery}, {took:.1?} after the kill");
    figures.check();
}
