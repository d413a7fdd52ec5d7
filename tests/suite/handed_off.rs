//! Tasks that were given back to where they came from: nobody reports on them any more, unless they fail again.

use redrive_coordinator::store::{Acted, Ending, Extended, Filter, Settled};
use redrive_shared::failure::FailureClass;
use redrive_shared::task::{AttemptEnd, Lease, TaskState};

use crate::support::{
    Bed, EnqueueExt, START_MS, claim_of, failure, fixed_policy, id, ids, name, raw, settle_of, task,
};

const PAYLOAD: &str = "{\"n\":17}";
const RETENTION_MS: i64 = 48 * 3_600_000;

/// A task that its lease handed off 100 ms after the start of time.
async fn handed_off(bed: &Bed) -> Lease {
    let lease = bed.put_and_take(task("t").payload(PAYLOAD)).await;
    bed.start(&lease).await;
    bed.advance(100);
    let after = bed.finish(&lease, Ending::HandedOff).await;
    assert_eq!(after.0, TaskState::HandedOff);
    lease
}

fn failed() -> Ending {
    Ending::Failed(failure(FailureClass::ServerError))
}

async fn listed(bed: &Bed) -> Vec<String> {
    let filter = Filter { state: Some(TaskState::HandedOff), limit: 10, ..Filter::default() };
    bed.list(filter).await.unwrap().tasks.iter().map(|task| task.id.to_string()).collect()
}

pub async fn a_task_handed_off_is_finished_and_keeps_its_payload(bed: Bed) {
    bed.put_all(vec![task("another").delay(1)]).await;
    let lease = handed_off(&bed).await;
    let view = bed.view("t").await;
    assert_eq!((view.state, view.agent, view.lease_until_ms), (TaskState::HandedOff, None, None));
    assert_eq!((view.payload.unwrap().get(), view.result.is_none()), (PAYLOAD, true));
    assert_eq!((view.epoch, view.expires_at_ms), (lease.epoch, Some(START_MS + 100 + RETENTION_MS)));
    let attempt = &view.history[0];
    assert_eq!((attempt.end, &attempt.agent), (AttemptEnd::HandedOff, &Some(name("a"))));
    assert_eq!((attempt.started_at_ms, attempt.ended_at_ms), (START_MS, START_MS + 100));
    assert_eq!(listed(&bed).await, ["t"]);
    assert_eq!(bed.status(ids(&["t"])).await.unwrap()[0].state, TaskState::HandedOff);
    assert_eq!(bed.queue("default").await.counts.handed_off, 1);
    bed.assert_counts_are_right().await;
}

pub async fn what_was_handed_off_is_not_handed_out_reaped_or_extended(bed: Bed) {
    let lease = handed_off(&bed).await;
    assert_eq!(bed.extend_one(&lease, None).await, Extended::Stale(TaskState::HandedOff));
    assert_eq!(bed.take_over(&lease, "b", "b-1").await, Extended::Stale(TaskState::HandedOff));
    bed.advance(RETENTION_MS - 1);
    assert!(bed.take(1).await.is_empty());
    let round = bed.reap(10).await.unwrap();
    assert!(round.reaped.is_empty() && round.too_late.is_empty());
    assert_eq!(bed.state("t").await, TaskState::HandedOff);
}

pub async fn a_failure_that_comes_back_reopens_the_task(mut bed: Bed) {
    let lease = handed_off(&bed).await;
    bed.reopen().await;
    bed.advance(900);
    let (state, due_ms) = bed.finish(&lease, failed()).await;
    assert_eq!((state, due_ms), (TaskState::Scheduled, START_MS + 11_000));
    let view = bed.view("t").await;
    assert_eq!((view.ledger.failed, view.runs, view.expires_at_ms), (1, 1, None));
    let attempt = &view.history[1];
    assert_eq!((attempt.end, attempt.run, &attempt.agent), (AttemptEnd::Failed, 1, &None));
    assert_eq!((attempt.started_at_ms, attempt.ended_at_ms), (START_MS + 1_000, START_MS + 1_000));
    bed.advance(10 * RETENTION_MS);
    assert_eq!(bed.forget(10).await.unwrap(), 0, "it waits");
    bed.advance(-10 * RETENTION_MS + 10_000);
    let next = bed.take_one().await;
    assert_eq!((next.attempt, next.payload.get()), (2, PAYLOAD));
    assert_eq!(next.last_failure, Some(failure(FailureClass::ServerError)));
    assert!(listed(&bed).await.is_empty());
    bed.assert_counts_are_right().await;
}

pub async fn what_comes_back_is_settled_by_any_ending(bed: Bed) {
    let seen = || failure(FailureClass::ServerError);
    let endings = [
        ("done", Ending::Done(Some(raw("{\"by\":\"hand\"}").into())), TaskState::Succeeded),
        ("dead", Ending::FailedForGood(seen()), TaskState::Dead),
        ("asked", Ending::NeedsPerson(seen()), TaskState::Escalated),
        ("snoozed", Ending::Snoozed { delay_ms: 5_000 }, TaskState::Scheduled),
        ("released", Ending::Released, TaskState::Scheduled),
    ];
    bed.put_all(endings.iter().map(|(id, ..)| task(id).payload(PAYLOAD)).collect()).await;
    let leases = bed.take(9).await;
    bed.settle(leases.iter().map(|lease| settle_of(lease, Ending::HandedOff)).collect()).await.unwrap();
    assert_eq!(bed.queue("default").await.counts.handed_off, 5);
    for (id, ending, expected) in endings {
        let lease = leases.iter().find(|lease| &*lease.id == id).expect("it was given");
        assert_eq!(bed.finish(lease, ending).await.0, expected, "{id}");
    }
    assert_eq!(bed.view("done").await.result.unwrap().get(), "{\"by\":\"hand\"}");
    bed.assert_counts_are_right().await;
    bed.advance(10 * RETENTION_MS);
    assert_eq!(bed.forget(10).await.unwrap(), 2, "done and dead");
    bed.assert_counts_are_right().await;
}

pub async fn what_was_handed_off_is_settled_once_more_and_not_twice(bed: Bed) {
    let lease = handed_off(&bed).await;
    let again = bed.settle_one(&lease, Ending::HandedOff).await;
    assert!(matches!(again, Settled::Repeated { state: TaskState::HandedOff, .. }), "{again:?}");
    let (_, due_ms) = bed.finish(&lease, failed()).await;
    for ending in [failed(), Ending::Done(None), Ending::HandedOff] {
        let again = bed.settle_one(&lease, ending).await;
        assert_eq!(again, Settled::Repeated { state: TaskState::Scheduled, due_ms });
    }
    assert_eq!(bed.view("t").await.history.len(), 2);
}

pub async fn within_one_batch_it_is_handed_off_and_comes_back(bed: Bed) {
    let lease = bed.put_and_take(task("t")).await;
    let batch = [Ending::HandedOff, failed(), Ending::HandedOff];
    let answers = bed.settle(batch.map(|ending| settle_of(&lease, ending)).into()).await.unwrap();
    assert!(matches!(answers[0], Settled::Applied { state: TaskState::HandedOff, .. }), "{answers:?}");
    assert!(matches!(answers[1], Settled::Applied { state: TaskState::Scheduled, .. }), "{answers:?}");
    assert!(matches!(answers[2], Settled::Repeated { state: TaskState::Scheduled, .. }), "{answers:?}");
    bed.assert_counts_are_right().await;
}

pub async fn only_the_lease_that_handed_it_off_is_heard(bed: Bed) {
    let first = bed.put_and_take(task("t")).await;
    bed.finish(&first, Ending::Released).await;
    bed.advance(1_000);
    let second = bed.take_one().await;
    bed.finish(&second, Ending::HandedOff).await;
    let mut forged = second.clone();
    forged.nonce.0 ^= 1;
    for stranger in [&first, &forged] {
        assert_eq!(bed.settle_one(stranger, failed()).await, Settled::Stale(TaskState::HandedOff));
    }
    assert_eq!(bed.finish(&second, failed()).await.0, TaskState::Scheduled);
}

pub async fn a_failure_that_comes_back_uses_up_attempts(bed: Bed) {
    bed.put(task("t").max_attempts(2)).await;
    for expected in [TaskState::Scheduled, TaskState::Dead] {
        let lease = bed.take_one().await;
        bed.finish(&lease, Ending::HandedOff).await;
        assert_eq!(bed.finish(&lease, failed()).await.0, expected);
        bed.advance(10_000);
    }
    assert_eq!(bed.view("t").await.ledger.failed, 2);
}

pub async fn what_was_handed_off_is_forgotten_after_its_retention(bed: Bed) {
    let lease = handed_off(&bed).await;
    bed.advance(RETENTION_MS - 1);
    assert_eq!(bed.forget(10).await.unwrap(), 0);
    bed.advance(1);
    assert_eq!(bed.forget(10).await.unwrap(), 1);
    assert!(bed.get(&id("t")).await.unwrap().is_none());
    assert_eq!(bed.settle_one(&lease, failed()).await, Settled::Unknown);
    bed.assert_counts_are_right().await;
    bed.put_all(vec![task("t")]).await;
    assert_eq!(bed.take_ids(2).await, ["t"], "the id is free");
}

pub async fn what_was_handed_off_can_be_called_off(bed: Bed) {
    let lease = handed_off(&bed).await;
    assert!(matches!(bed.cancel_one("t").await, Acted::Now { state: TaskState::Cancelled, .. }));
    assert_eq!(bed.settle_one(&lease, failed()).await, Settled::Stale(TaskState::Cancelled));
    bed.assert_counts_are_right().await;
}

pub async fn what_was_handed_off_can_be_sent_round_again(bed: Bed) {
    bed.put_queue(&name("default"), fixed_policy(0)).await.unwrap();
    bed.put(task("t").payload(PAYLOAD).max_attempts(2)).await;
    let first = bed.take_one().await;
    bed.finish(&first, failed()).await;
    let second = bed.take_one().await;
    bed.finish(&second, Ending::HandedOff).await;
    let due_ms = bed.now_ms();
    assert_eq!(bed.retry_one("t").await, Acted::Now { state: TaskState::Scheduled, due_ms, ended: None });
    assert_eq!(bed.settle_one(&second, failed()).await, Settled::Stale(TaskState::Scheduled));
    let third = bed.take_one().await;
    assert_eq!((third.attempt, third.run, third.payload.get()), (1, 3, PAYLOAD), "its attempts are back");
    bed.assert_counts_are_right().await;
}

pub async fn of_a_claim_some_are_handed_off_and_others_not(bed: Bed) {
    // One large enough that its value goes past the script.
    let large = format!("\"{}\"", "x".repeat(3_000));
    bed.put_all(vec![task("a").payload(&large), task("b"), task("c").payload(&large)]).await;
    let leases = bed.claim_one(claim_of(3)).await.leases;
    let ending = |lease: &Lease| if &*lease.id == "b" { Ending::Done(None) } else { Ending::HandedOff };
    bed.settle(leases.iter().map(|lease| settle_of(lease, ending(lease))).collect()).await.unwrap();
    let handed_off = leases.iter().filter(|lease| &*lease.id != "b");
    let batch = handed_off.map(|lease| settle_of(lease, failed())).collect();
    for answer in bed.settle(batch).await.unwrap() {
        assert!(matches!(answer, Settled::Applied { state: TaskState::Scheduled, .. }), "{answer:?}");
    }
    bed.advance(10_000);
    for lease in bed.take(9).await {
        assert_eq!(lease.payload.get(), large);
    }
    bed.assert_counts_are_right().await;
}
