//! A consumer of another make does not keep to the rules.

use std::time::{Duration, Instant};

use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use redrive_shared::limits::{RELEASE_SPREAD_MS, UNDELIVERED_DELAY_MS};
use redrive_shared::task::{Lease, TaskState};
use serde_json::json;

use super::load::{Figures, Hands};
use super::{LEASE, PLAIN, Peer, Rig, enqueue, probe, task, until_consumed};
use crate::amqp::next;
use crate::support::rabbit::shared;
use crate::support::sink::all_succeed;

/// Messages that the bad one takes: RabbitMQ gives it no more until it acknowledges some.
const TAKEN: u16 = 5;
const TASKS: usize = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_consumer_sits_on_goes_to_a_better_one_and_what_it_says_then_is_stale() {
    let rabbit = shared().await;
    let rig = Rig::at(&rabbit.url()).await;
    let bad = Peer::connect(&rabbit.url()).await;
    let channel = bad.connection.create_channel().await.unwrap();
    channel.basic_qos(TAKEN, BasicQosOptions::default()).await.unwrap();
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut sitting =
        channel.basic_consume("redrive.q.plain".into(), "".into(), options, arguments).await.unwrap();
    let hands = Hands::start(vec![rabbit.url()], PLAIN);
    until_consumed(&rabbit.url(), "redrive.q.plain", 2).await;
    let tasks = (0..TASKS).map(|n| task(&format!("t-{n}"), PLAIN, "ok"));
    let ids = enqueue(&rig.client, tasks.collect()).await;
    let mut leases: Vec<Lease> = Vec::new();
    for _ in 0..TAKEN {
        leases.push(serde_json::from_slice(&next(&mut sitting).await.data).unwrap());
    }
    let taken = Instant::now();
    let held: Vec<_> = leases.iter().map(|lease| lease.id.clone()).collect();
    assert!(all_succeed(&rig.client, &held).await.is_empty());
    let took = taken.elapsed();
    let figures = Figures::of(&rig.client, &ids, &hands.runs(), None).await;
    for lease in &leases {
        bad.settle(lease, json!({ "dead": { "failure": { "exception": "too late" } } })).await;
    }
    // Outcomes are read in order: once this one's is, the others were.
    probe(&rig.client, PLAIN, "after").await;
    for lease in &leases {
        let task = rig.client.task(&lease.id, None).await.unwrap();
        assert!(task.state == TaskState::Succeeded && task.epoch > lease.epoch, "{task:?}");
        let ledger = task.ledger;
        assert_eq!((ledger.undelivered, ledger.failed, ledger.lost, task.history.len()), (1, 0, 0, 2));
    }
    println!(
        "a consumer that sits on {TAKEN} of {TASKS}: {figures}; they are done by another after {took:.1?}; its outcomes \
         after that change nothing"
    );
    figures.check();
    // Not a speed test: the ends of leases, and of the delay after one that nobody started.
    let delays = Duration::from_millis(UNDELIVERED_DELAY_MS + RELEASE_SPREAD_MS);
    assert!((LEASE / 2..LEASE + delays + LEASE).contains(&took), "{took:?}");
}
