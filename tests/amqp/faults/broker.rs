//! RabbitMQ is well, but what lies in it is gone, or it takes nothing.

use std::time::{Duration, Instant};

use lapin::options::{BasicConsumeOptions, BasicQosOptions, QueueDeleteOptions, QueuePurgeOptions};
use lapin::types::FieldTable;
use redrive_shared::wire::StatusRequest;

use super::load::{Figures, Hands, Load};
use super::{
    LETTERS, OUTSTANDING, PATIENCE, PLAIN, Peer, Rig, enqueue, probe, pull, task, under_load, until_consumed,
};
use crate::amqp::{A_WHILE, next};
use crate::support::name;
use crate::support::rabbit::{RabbitServer, shared};
use crate::support::wait::eventually;

async fn set_memory_limit(node: &RabbitServer, share: f64) {
    node.evaluate(&format!("vm_memory_monitor:set_vm_memory_high_watermark({share}).")).await;
    let alarms = if share < 0.001 { "1" } else { "0" };
    eventually("the node knows how much memory it has", PATIENCE, async || {
        (node.evaluate("length(rabbit_alarm:get_alarms()).").await == alarms).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_rabbitmq_takes_nothing_tasks_stay_in_the_store_and_pull_goes_on() {
    let node = RabbitServer::start().await;
    let rig = Rig::at(&node.url()).await;
    let hands = Hands::start(vec![node.url()], PLAIN);
    let load = Load::new().over_http(&rig.client, PLAIN, "plain");
    under_load(&rig.client, PLAIN, 100).await;
    // Of the coordinator, which names its own.
    let connections = async || {
        let listed =
            node.ctl(&["list_connections", "--quiet", "--no-table-headers", "client_properties"]).await;
        listed.lines().filter(|one| one.contains("redrive-publish")).count()
    };
    let before = connections().await;
    set_memory_limit(&node, 0.0001).await;
    let began = Instant::now();
    pull(&rig.client, "pulled-at-once").await;
    // What was on its way when it began comes back; from then on nothing is leased.
    let counts = async || rig.client.queue(&name(PLAIN)).await.unwrap().counts;
    eventually("everything is in the store", PATIENCE, async || {
        let counts = counts().await;
        (counts.leased == 0 && counts.scheduled > i64::from(OUTSTANDING)).then_some(())
    })
    .await;
    let stored = began.elapsed();
    let leased = eventually("something is leased all the same", A_WHILE, async || {
        (counts().await.leased > 0).then_some(())
    });
    let leased = tokio::time::timeout(A_WHILE - Duration::from_millis(100), leased).await;
    assert!(leased.is_err(), "it stays in the store");
    pull(&rig.client, "pulled-meanwhile").await;
    // A batch that is not confirmed in 10 s is no reason to make another connection, which would be blocked as well.
    tokio::time::sleep_until((began + Duration::from_secs(12)).into()).await;
    assert_eq!(connections().await, before, "connections");
    set_memory_limit(&node, 0.4).await;
    let recovery = probe(&rig.client, PLAIN, "probe").await;
    under_load(&rig.client, PLAIN, 100).await;
    let ids = load.stop().await;
    let figures = Figures::of(&rig.client, &ids, &hands.runs(), None).await;
    println!(
        "a memory alarm: {figures}; after {stored:.1?} everything is in the store, pull goes on; once it is over, a new task \
         is done after {recovery:.1?}"
    );
    figures.check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_purged_comes_again_when_its_lease_ends_and_has_not_failed() {
    let rabbit = shared().await;
    let rig = Rig::at(&rabbit.url()).await;
    let peer = Peer::connect(&rabbit.url()).await;
    let channel = peer.connection.create_channel().await.unwrap();
    channel.basic_qos(1, BasicQosOptions::default()).await.unwrap();
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut holder =
        channel.basic_consume("redrive.q.plain".into(), "".into(), options, arguments).await.unwrap();
    let tasks = (0..OUTSTANDING).map(|n| task(&format!("t-{n}"), PLAIN, "ok"));
    let ids = enqueue(&rig.client, tasks.collect()).await;
    // One is with the holder; the others lie there.
    let _held = next(&mut holder).await;
    eventually("the others lie in RabbitMQ", PATIENCE, async || {
        (peer.look("redrive.q.plain").await == Some((OUTSTANDING - 1, 1))).then_some(())
    })
    .await;
    let purged =
        peer.channel.queue_purge("redrive.q.plain".into(), QueuePurgeOptions::default()).await.unwrap();
    let purged = usize::try_from(purged).unwrap();
    let began = Instant::now();
    assert!(purged > 0);
    let hands = Hands::start(vec![rabbit.url()], PLAIN);
    channel.close(200, "enough".into()).await.unwrap();
    let figures = Figures::of(&rig.client, &ids, &hands.runs(), None).await;
    let took = began.elapsed();
    println!("{purged} dispatched messages purged: {figures}; all are done after {took:.1?}");
    figures.check();
    let tasks = rig.client.status(&StatusRequest { ids }).await.unwrap().tasks;
    let again = tasks.iter().filter(|task| task.ledger.undelivered > 0).count();
    assert!(again >= purged, "{again}");
    let charged = tasks.iter().find(|task| task.ledger.failed + task.ledger.lost > 0);
    assert!(charged.is_none(), "{charged:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_is_kept_although_the_queue_for_it_was_deleted() {
    let rabbit = shared().await;
    let _rig = Rig::at(&rabbit.url()).await;
    let peer = Peer::connect(&rabbit.url()).await;
    peer.channel.queue_delete("redrive.rejected".into(), QueueDeleteOptions::default()).await.unwrap();
    peer.publish("", "redrive.outcomes", b"no outcome", lapin::BasicProperties::default()).await;
    eventually("it is kept", PATIENCE, async || {
        (peer.look("redrive.rejected").await == Some((1, 0))).then_some(())
    })
    .await;
    eventually("it is read no more", PATIENCE, async || {
        (peer.look("redrive.outcomes").await.is_some_and(|(messages, _)| messages == 0)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_that_are_deleted_under_load_are_made_again_and_everybody_goes_on() {
    let rabbit = shared().await;
    let rig = Rig::at(&rabbit.url()).await;
    let _workers = [rig.worker("one", &rabbit.url()), rig.worker("two", &rabbit.url())];
    let hands = Hands::start(vec![rabbit.url()], PLAIN);
    let load = Load::new().over_http(&rig.client, LETTERS, "letter").over_http(&rig.client, PLAIN, "plain");
    until_consumed(&rabbit.url(), "redrive.q.letters", 2).await;
    let peer = Peer::connect(&rabbit.url()).await;
    let mut took = Vec::new();
    for (number, deleted) in ["q.letters", "q.plain", "turn.letters", "turn.plain"].into_iter().enumerate() {
        tokio::join!(under_load(&rig.client, LETTERS, 30), under_load(&rig.client, PLAIN, 30));
        let queue = format!("redrive.{deleted}");
        peer.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
        let (letter, plain) = (format!("probe-l-{number}"), format!("probe-p-{number}"));
        let (letters, plain) =
            tokio::join!(probe(&rig.client, LETTERS, &letter), probe(&rig.client, PLAIN, &plain));
        took.push(format!("{deleted} {:.1?}", letters.max(plain)));
    }
    tokio::join!(under_load(&rig.client, LETTERS, 30), under_load(&rig.client, PLAIN, 30));
    let ids = load.stop().await;
    let figures = Figures::of(&rig.client, &ids, &hands.runs(), Some(&rig.sink)).await;
    println!("queues deleted: {figures}; new tasks are done after {}", took.join(", "));
    figures.check();
}
