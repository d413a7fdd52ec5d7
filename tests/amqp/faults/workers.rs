//! A worker that is pushed to is killed.

use std::time::{Duration, Instant};

use redrive_shared::limits::PRESENCE_GRACE_MS;
use redrive_shared::task::{AttemptEnd, TaskState};
use redrive_shared::wire::StatusRequest;

use super::load::Figures;
use super::{LETTERS, PATIENCE, Rig, enqueue, task, until_consumed, until_succeeded};
use crate::support::process::{kill, suspend};
use crate::support::rabbit::{SharedRabbit, shared};
use crate::support::sink::all_succeed;
use crate::support::wait::eventually;
use crate::support::{id, name};

/// Tasks that the victim works on when it is killed: half of its room.
const STARTED: usize = 4;
/// Tasks that come while it hangs: some of them are delivered to it, and it does not start them.
const MORE: usize = 60;
/// Not a speed test: their leases would hold for longer than that.
const AT_ONCE: Duration = Duration::from_millis(1_500);

/// Messages that RabbitMQ has given to somebody who has not said that it has them.
async fn unacknowledged(rabbit: &SharedRabbit, queue: &str) -> usize {
    let question = format!(
        "{{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"{}\">>, queue, <<\"redrive.q.{queue}\">>)), \
         [{{_, Count}}] = rabbit_amqqueue:info(Queue, [messages_unacknowledged]), Count.",
        rabbit.vhost()
    );
    rabbit.evaluate(&question).await.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_worker_had_not_started_goes_to_another_at_once_and_the_rest_after_the_grace() {
    let rabbit = shared().await;
    let rig = Rig::at(&rabbit.url()).await;
    let mut victim = rig.worker("victim", &rabbit.url());
    until_consumed(&rabbit.url(), "redrive.q.letters", 1).await;
    let long = (0..STARTED).map(|n| task(&format!("started-{n}"), LETTERS, "ok@20000 ok@5"));
    let started = enqueue(&rig.client, long.collect()).await;
    let mut progress = rig.sink.handle.progress();
    let arrived = progress.wait_for(|seen| seen.arrived >= STARTED as u64);
    tokio::time::timeout(PATIENCE, arrived).await.unwrap().unwrap();
    // It hangs, so that what is delivered to it from here on is not started.
    suspend(&victim);
    let _heir = rig.worker("heir", &rabbit.url());
    until_consumed(&rabbit.url(), "redrive.q.letters", 2).await;
    let short = (0..MORE).map(|n| task(&format!("other-{n}"), LETTERS, "ok@5"));
    let others = enqueue(&rig.client, short.collect()).await;
    let (stuck, _) = eventually("only what the victim has is left", PATIENCE, async || {
        let counts = rig.client.queue(&name(LETTERS)).await.unwrap().counts;
        let stuck = unacknowledged(&rabbit, LETTERS).await;
        (stuck > 0 && counts.scheduled == 0 && counts.leased as usize == STARTED + stuck).then_some(stuck)
    })
    .await;
    kill(&mut victim).await;
    let killed = Instant::now();
    assert!(all_succeed(&rig.client, &others).await.is_empty());
    let unstarted_took = killed.elapsed();
    assert!(all_succeed(&rig.client, &started).await.is_empty());
    let started_took = killed.elapsed();
    let ids = [started.clone(), others.clone()].concat();
    let figures = Figures::of(&rig.client, &ids, &[], Some(&rig.sink)).await;
    println!(
        "a pushed worker killed -9: {figures}; {stuck} not started are done after {unstarted_took:.1?}, \
         {STARTED} started ones after {started_took:.1?}"
    );
    figures.check();
    assert_eq!(figures.repeats, STARTED, "only what was cut off runs twice");
    assert!(unstarted_took < AT_ONCE, "{unstarted_took:?}");
    assert!(started_took < Duration::from_millis(PRESENCE_GRACE_MS) + PATIENCE / 6, "{started_took:?}");
    let reply = rig.client.status(&StatusRequest { ids: others }).await.unwrap();
    let charged = reply.tasks.iter().find(|task| task.ledger.lost + task.ledger.undelivered > 0);
    assert!(charged.is_none(), "a message that goes to another is no loss: {charged:?}");
    let cut_off = until_succeeded(&rig.client, &id("started-0")).await;
    assert_eq!(cut_off.history[0].end, AttemptEnd::Lost);
    assert_eq!((cut_off.state, cut_off.ledger.failed), (TaskState::Succeeded, 0));
}
