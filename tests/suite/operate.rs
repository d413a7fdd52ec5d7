//! What operators and time do to tasks.

use redrive_coordinator::store::{Acted, Ending, Enqueued, Extended, Settled};
use redrive_shared::failure::FailureClass;
use redrive_shared::gate::Standing;
use redrive_shared::retry::RetryPolicy;
use redrive_shared::task::{AttemptEnd, FailureRecord, TaskState};

use crate::support::{Bed, EnqueueExt, START_MS, failure, fixed_policy, id, ids, name, raw, task};

/// Retention of the policy that most tests run under: twice the deadline of 24 h.
const RETENTION_MS: i64 = 48 * 3_600_000;

fn for_good(class: FailureClass) -> FailureRecord {
    FailureRecord { retryable: false, ..failure(class) }
}

/// One task in each state, named after it.
async fn one_of_each(bed: &Bed) {
    bed.put_all(vec![task("leased"), task("succeeded"), task("dead"), task("escalated"), task("cancelled")])
        .await;
    let leases = bed.take(5).await;
    let lease = |text: &str| leases.iter().find(|lease| &*lease.id == text).unwrap();
    bed.finish(lease("succeeded"), Ending::Done(Some(raw("1").into()))).await;
    bed.finish(lease("dead"), Ending::FailedForGood(failure(FailureClass::ServerError))).await;
    bed.finish(lease("escalated"), Ending::NeedsPerson(failure(FailureClass::ServerError))).await;
    bed.cancel_one("cancelled").await;
    bed.put_all(vec![task("scheduled").delay(60_000)]).await;
}

pub async fn what_is_not_done_can_be_called_off(bed: Bed) {
    one_of_each(&bed).await;
    let texts = ["scheduled", "leased", "dead", "escalated", "cancelled", "succeeded", "nowhere"];
    let answers = bed.cancel(ids(&texts), Some("not wanted".into())).await.unwrap();
    for (text, answer) in texts.iter().zip(&answers) {
        let as_expected = match *text {
            "succeeded" => *answer == Acted::WrongState(TaskState::Succeeded),
            "nowhere" => *answer == Acted::Unknown,
            _ => matches!(answer, Acted::Now { state: TaskState::Cancelled, .. }),
        };
        assert!(as_expected, "{text}: {answer:?}");
    }
    bed.advance(60_000);
    assert!(bed.take(9).await.is_empty());
    assert!(bed.reap(9).await.unwrap().reaped.is_empty());
    let attempt = bed.view("scheduled").await.history.pop().unwrap();
    assert_eq!((attempt.end, attempt.why.as_deref()), (AttemptEnd::Cancelled, Some("not wanted")));
    assert_eq!(bed.view("dead").await.expires_at_ms, Some(START_MS + RETENTION_MS));
    bed.assert_counts_are_right().await;
}

pub async fn calling_off_twice_changes_nothing_more(bed: Bed) {
    bed.put(task("t")).await;
    bed.cancel_one("t").await;
    let before = serde_json::to_string(&bed.view("t").await).unwrap();
    bed.advance(1_000);
    assert!(matches!(bed.cancel_one("t").await, Acted::Now { state: TaskState::Cancelled, .. }));
    assert_eq!(serde_json::to_string(&bed.view("t").await).unwrap(), before);
}

pub async fn the_worker_of_a_task_called_off_can_do_no_more_with_it(bed: Bed) {
    let lease = bed.put_and_take(task("t")).await;
    bed.start(&lease).await;
    bed.cancel_one("t").await;
    assert_eq!(bed.extend_one(&lease, None).await, Extended::Stale(TaskState::Cancelled));
    assert_eq!(bed.settle_one(&lease, Ending::Done(None)).await, Settled::Stale(TaskState::Cancelled));
    let view = bed.view("t").await;
    assert_eq!((view.state, view.agent, view.lease_until_ms), (TaskState::Cancelled, None, None));
    let attempt = view.history.last().unwrap();
    assert_eq!((attempt.end, &attempt.agent), (AttemptEnd::Cancelled, &Some(name("a"))));
}

pub async fn what_happens_to_a_waiting_task_is_not_put_down_to_an_agent(bed: Bed) {
    let lease = bed.put_and_take(task("t")).await;
    bed.finish(&lease, Ending::Snoozed { delay_ms: 60_000 }).await;
    bed.retry_one("t").await;
    bed.cancel_one("t").await;
    let agents: Vec<_> = bed.view("t").await.history.into_iter().map(|attempt| attempt.agent).collect();
    assert_eq!(agents, [Some(name("a")), None, None]);
}

pub async fn a_settled_failure_that_is_retried_gets_its_attempts_back(bed: Bed) {
    bed.put(task("t").max_attempts(2).failed(failure(FailureClass::ServerError))).await;
    bed.advance(10_000);
    let first = bed.take_one().await;
    bed.finish(&first, Ending::Failed(failure(FailureClass::ServerError))).await;
    assert_eq!(bed.state("t").await, TaskState::Dead);
    bed.advance(1_000);
    let now_ms = bed.now_ms();
    let answer = bed.retry(ids(&["t"]), Some("fixed it".into()), Standing::OPEN).await.unwrap();
    assert_eq!(answer, [Acted::Now { state: TaskState::Scheduled, due_ms: now_ms, ended: None }]);
    let view = bed.view("t").await;
    assert_eq!((view.ledger.failed, view.expires_at_ms), (0, None));
    let attempt = view.history.last().unwrap();
    assert_eq!((attempt.end, attempt.why.as_deref()), (AttemptEnd::Redriven, Some("fixed it")));
    assert_eq!(bed.settle_one(&first, Ending::Done(None)).await, Settled::Stale(TaskState::Scheduled));
    let second = bed.take_one().await;
    assert_eq!(second.attempt, 1);
    let after = bed.finish(&second, Ending::Failed(failure(FailureClass::ServerError))).await;
    assert_eq!(after.0, TaskState::Scheduled, "one of its two attempts is left");
}

pub async fn poison_that_is_retried_has_its_losses_forgiven(bed: Bed) {
    bed.put(task("t")).await;
    for round in 0..2 {
        for losses in 1..=3 {
            let lease = bed.take_one().await;
            bed.start(&lease).await;
            bed.advance(30_000);
            let state = bed.reap(1).await.unwrap().reaped[0].state;
            assert_eq!(state == TaskState::Dead, losses == 3, "loss {losses} of round {round}");
            bed.advance(30_000);
        }
        bed.retry_one("t").await;
    }
}

pub async fn a_waiting_task_that_is_retried_becomes_due(bed: Bed) {
    bed.put_all(vec![task("later").delay(600_000), task("now"), task("soon").delay(300_000)]).await;
    bed.advance(5);
    let due_ms = START_MS + 5;
    assert_eq!(bed.retry_one("later").await, Acted::Now { state: TaskState::Scheduled, due_ms, ended: None });
    assert_eq!(
        bed.retry_one("now").await,
        Acted::Now { state: TaskState::Scheduled, due_ms: START_MS, ended: None }
    );
    bed.assert_order(bed.take_ids(9).await, &["now", "later"]);
}

pub async fn what_runs_or_is_done_cannot_be_retried(bed: Bed) {
    one_of_each(&bed).await;
    let answers = bed.retry(ids(&["leased", "succeeded", "nowhere"]), None, Standing::OPEN).await.unwrap();
    let expected =
        [Acted::WrongState(TaskState::Leased), Acted::WrongState(TaskState::Succeeded), Acted::Unknown];
    assert_eq!(answers, expected);
    assert_eq!(bed.view("succeeded").await.result.unwrap().get(), "1");
}

pub async fn every_settled_failure_can_be_retried(bed: Bed) {
    one_of_each(&bed).await;
    for text in ["dead", "escalated", "cancelled"] {
        let due_ms = bed.now_ms();
        assert_eq!(
            bed.retry_one(text).await,
            Acted::Now { state: TaskState::Scheduled, due_ms, ended: None },
            "{text}"
        );
    }
    assert_eq!(bed.take(9).await.len(), 3);
    bed.assert_counts_are_right().await;
}

pub async fn a_task_retried_after_its_deadline_gets_a_new_one(bed: Bed) {
    bed.put(task("t").deadline(1_000)).await;
    bed.advance(1_001);
    assert!(bed.take(1).await.is_empty());
    assert_eq!(bed.state("t").await, TaskState::Escalated);
    bed.retry_one("t").await;
    assert_eq!(bed.take_ids(1).await, ["t"]);
    assert_eq!(bed.view("t").await.deadline_at_ms, START_MS + 1_001 + 24 * 3_600_000);
}

pub async fn a_finished_task_is_forgotten_after_its_retention_and_not_before(bed: Bed) {
    let lease = bed.put_and_take(task("t").payload("1")).await;
    bed.finish(&lease, Ending::Done(Some(raw("2").into()))).await;
    bed.advance(RETENTION_MS - 1);
    assert_eq!(bed.forget(10).await.unwrap(), 0);
    assert!(matches!(bed.put(task("t").payload("1")).await, Enqueued::Duplicate { .. }));
    bed.advance(1);
    assert_eq!(bed.forget(10).await.unwrap(), 1);
    assert!(bed.get(&id("t")).await.unwrap().is_none());
    assert_eq!(bed.settle_one(&lease, Ending::Done(None)).await, Settled::Unknown);
    assert_eq!(bed.queue("default").await.counts.total(), 0);
}

pub async fn a_forgotten_id_runs_again_from_the_start(bed: Bed) {
    let first = bed.put_and_take(task("t").payload("1")).await;
    bed.finish(&first, Ending::Done(Some(raw("2").into()))).await;
    bed.advance(RETENTION_MS);
    bed.forget(10).await.unwrap();
    // Other contents are as good as the old ones: nothing is left to compare them with.
    assert!(matches!(bed.put(task("t").payload("3")).await, Enqueued::Created { .. }));
    let second = bed.take_one().await;
    assert_eq!((second.payload.get(), second.run, second.attempt), ("3", 1, 1));
    assert_eq!(bed.settle_one(&first, Ending::Done(None)).await, Settled::Stale(TaskState::Leased));
    let view = bed.view("t").await;
    assert!(view.result.is_none() && view.history.is_empty());
    bed.assert_counts_are_right().await;
}

pub async fn what_is_not_finished_is_never_forgotten(bed: Bed) {
    one_of_each(&bed).await;
    bed.advance(10 * RETENTION_MS);
    assert_eq!(bed.forget(100).await.unwrap(), 3);
    let mut left: Vec<_> = bed.everything().await.into_iter().map(|task| task.id.to_string()).collect();
    left.sort_unstable();
    assert_eq!(left, ["escalated", "leased", "scheduled"]);
    bed.assert_counts_are_right().await;
}

pub async fn a_dead_task_that_is_retried_is_not_forgotten(bed: Bed) {
    bed.put(task("t").failed(for_good(FailureClass::InvalidRequest))).await;
    bed.retry_one("t").await;
    bed.advance(10 * RETENTION_MS);
    assert_eq!(bed.forget(10).await.unwrap(), 0);
    assert_eq!(bed.state("t").await, TaskState::Scheduled);
}

pub async fn forgetting_is_bounded(bed: Bed) {
    let failed = |number: u32| task(&format!("t{number}")).failed(for_good(FailureClass::InvalidRequest));
    bed.put_all((0..5).map(failed).collect()).await;
    bed.advance(RETENTION_MS);
    let mut forgotten = Vec::new();
    for _ in 0..4 {
        forgotten.push(bed.forget(2).await.unwrap());
    }
    assert_eq!(forgotten, [2, 2, 1, 0]);
}

pub async fn a_lane_comes_back_after_all_its_tasks_were_forgotten(bed: Bed) {
    let first = bed.put_and_take(task("t1").group("g")).await;
    bed.finish(&first, Ending::Done(None)).await;
    bed.advance(RETENTION_MS);
    bed.forget(10).await.unwrap();
    bed.put_all(vec![task("t2").group("g"), task("t3").group("h")]).await;
    let mut given = bed.take_ids(9).await;
    given.sort_unstable();
    assert_eq!(given, ["t2", "t3"]);
}

pub async fn a_queues_own_retention_holds(bed: Bed) {
    let policy = RetryPolicy { retention_ms: 1_000, ..fixed_policy(1) };
    bed.put_queue(&name("short"), policy).await.unwrap();
    bed.put(task("t").on("short").failed(for_good(FailureClass::InvalidRequest))).await;
    bed.advance(1_000);
    assert_eq!(bed.forget(10).await.unwrap(), 1);
}
