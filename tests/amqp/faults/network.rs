//! The way between a coordinator and RabbitMQ fails; RabbitMQ and its consumers are well.

use std::time::{Duration, Instant};

use rand::RngExt;
use serde_json::json;

use super::load::{Figures, Hands, Load};
use super::{PATIENCE, PLAIN, Rig, behind, probe, pull, under_load, until_consumed};
use crate::amqp::settlement;
use crate::support::name;
use crate::support::proxy::{Fault, Way};
use crate::support::rabbit::shared;
use crate::support::wait::eventually;

/// Two heartbeats of 5 s are missed, on a machine that is busy.
const NOTICED: Duration = Duration::from_secs(20);
/// A coordinator's connections: one publishes, one consumes.
const CONNECTIONS: u64 = 2;
/// How often connections are cut. Delays between tries double each time: many more would be a test of patience.
const CUTS: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_is_noticed_and_costs_leases_and_no_tasks() {
    let rabbit = shared().await;
    let (proxy, through) = behind(&rabbit).await;
    let rig = Rig::at(&through).await;
    let hands = Hands::start(vec![rabbit.url()], PLAIN);
    let load =
        Load::new().over_http(&rig.client, PLAIN, "plain").over_amqp(&[rabbit.url()], &rig.client, PLAIN);
    under_load(&rig.client, PLAIN, 100).await;
    let before = proxy.connections();
    proxy.set(Fault::BlackHole(Way::Both));
    let began = Instant::now();
    pull(&rig.client, "pulled-at-once").await;
    let again = async || (proxy.connections() >= before + CONNECTIONS).then_some(());
    eventually("both connections are given up", PATIENCE, again).await;
    let noticed = began.elapsed();
    // What was leased when it began: the leases end, and their tasks wait for a way.
    eventually("nothing is out any more", PATIENCE, async || {
        let counts = rig.client.queue(&name(PLAIN)).await.unwrap().counts;
        (counts.leased == 0 && counts.scheduled > 0).then_some(())
    })
    .await;
    let back = began.elapsed();
    pull(&rig.client, "pulled-meanwhile").await;
    proxy.set(Fault::None);
    let recovery = probe(&rig.client, PLAIN, "probe").await;
    under_load(&rig.client, PLAIN, 100).await;
    let ids = load.stop().await;
    let figures = Figures::of(&rig.client, &ids, &hands.runs(), None).await;
    println!(
        "a black hole before RabbitMQ: {figures}; given up after {noticed:.1?}, all leases back after {back:.1?}, pull \
         goes on; once it is over, a new task is done after {recovery:.1?}"
    );
    figures.check();
    assert!(noticed < NOTICED, "{noticed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outcomes_that_come_twice_or_late_change_nothing_while_connections_break() {
    let rabbit = shared().await;
    let (proxy, through) = behind(&rabbit).await;
    let rig = Rig::at(&through).await;
    // First somebody who held the task before, it says; then the one that has it, twice.
    let hands = Hands::saying(vec![rabbit.url()], PLAIN, |lease| {
        let dead = json!({ "dead": { "failure": { "exception": "too late" } } });
        let mut stale = settlement(lease, dead);
        stale["epoch"] = json!(lease.epoch - 1);
        let done = settlement(lease, json!({ "done": {} }));
        vec![stale, done.clone(), done]
    });
    let load =
        Load::new().over_http(&rig.client, PLAIN, "plain").over_amqp(&[rabbit.url()], &rig.client, PLAIN);
    under_load(&rig.client, PLAIN, 50).await;
    let mut slowest = Duration::ZERO;
    for number in 0..CUTS {
        // Within what confirms a batch, and within a batch.
        let way = if number % 2 == 0 { Way::Responses } else { Way::Requests };
        proxy.cut(way, rand::rng().random_range(1..1_500));
        let cut = async || (!proxy.is_cut_pending()).then_some(());
        eventually("a connection is cut", PATIENCE, cut).await;
        if number == CUTS / 2 {
            proxy.reset_all();
        }
        slowest = slowest.max(probe(&rig.client, PLAIN, &format!("probe-{number}")).await);
        under_load(&rig.client, PLAIN, 50).await;
    }
    let ids = load.stop().await;
    let figures = Figures::of(&rig.client, &ids, &hands.runs(), None).await;
    until_consumed(&rabbit.url(), "redrive.outcomes", 1).await;
    println!(
        "connections cut {CUTS} times, every outcome said twice and a stale one before it: {figures}; a new task is done \
         {slowest:.1?} after a cut at most"
    );
    figures.check();
    let counts = rig.client.queue(&name(PLAIN)).await.unwrap().counts;
    assert_eq!((counts.dead, counts.escalated), (0, 0), "what came too late changed something");
}
