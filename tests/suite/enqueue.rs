//! How tasks come onto their queues.

use redrive_coordinator::store::{Claim, Ending, Enqueued};
use redrive_shared::failure::FailureClass;
use redrive_shared::task::{AttemptEnd, FailureRecord, Priority, TaskState};

use crate::support::{Bed, EnqueueExt, START_MS, claim_of, failure, fixed_policy, id, name, task};

const CREATED: Enqueued = Enqueued::Created { state: TaskState::Scheduled, due_ms: START_MS };

pub async fn a_new_task_is_due_at_once(bed: Bed) {
    assert_eq!(bed.put(task("t")).await, CREATED);
    let view = bed.view("t").await;
    assert_eq!((view.state, view.due_at_ms, view.enqueued_at_ms), (TaskState::Scheduled, START_MS, START_MS));
    assert_eq!((view.runs, view.ledger.failed, view.history.len()), (0, 0, 0));
    assert_eq!(bed.queue("default").await.counts.scheduled, 1);
}

pub async fn a_delayed_task_is_not_due_before_its_delay(bed: Bed) {
    let due_ms = START_MS + 5_000;
    assert_eq!(
        bed.put(task("t").delay(5_000)).await,
        Enqueued::Created { state: TaskState::Scheduled, due_ms }
    );
    bed.advance(4_999);
    assert!(bed.take(1).await.is_empty());
    bed.advance(1);
    assert_eq!(bed.take_ids(1).await, ["t"]);
}

pub async fn the_same_task_again_is_a_duplicate(bed: Bed) {
    bed.put(task("t").delay(5_000)).await;
    bed.advance(1_000);
    let again = Enqueued::Duplicate { state: TaskState::Scheduled, due_ms: START_MS + 5_000 };
    assert_eq!(bed.put(task("t")).await, again);
    assert_eq!(bed.queue("default").await.counts.total(), 1);
}

pub async fn a_duplicate_of_a_finished_task_says_so_and_does_not_run_it_again(bed: Bed) {
    let lease = bed.put_and_take(task("t")).await;
    bed.finish(&lease, Ending::Done(None)).await;
    assert!(matches!(bed.put(task("t")).await, Enqueued::Duplicate { state: TaskState::Succeeded, .. }));
    assert!(bed.take(1).await.is_empty());
}

pub async fn an_id_with_other_contents_is_refused(bed: Bed) {
    bed.put_queue(&name("other"), fixed_policy(1)).await.unwrap();
    bed.put(task("t").payload(r#"{"a":1}"#)).await;
    for other in [task("t").payload(r#"{"a": 1}"#), task("t").on("other"), task("t").of_type("other")] {
        assert_eq!(bed.put(other).await, Enqueued::IdReused);
    }
    assert_eq!(bed.queue("default").await.counts.total() + bed.queue("other").await.counts.total(), 1);
}

pub async fn an_unknown_queue_is_refused(bed: Bed) {
    assert_eq!(bed.put(task("t").on("nowhere")).await, Enqueued::UnknownQueue);
    assert!(bed.get(&id("t")).await.unwrap().is_none());
}

pub async fn a_batch_is_answered_item_by_item(bed: Bed) {
    bed.put(task("old")).await;
    let batch = vec![
        task("new"),
        task("old"),
        task("old").payload("7"),
        task("lost").on("nowhere"),
        task("new"),
        task("late").delay(9),
    ];
    let answers = bed.enqueue(batch).await.unwrap();
    let duplicate = Enqueued::Duplicate { state: TaskState::Scheduled, due_ms: START_MS };
    let late = Enqueued::Created { state: TaskState::Scheduled, due_ms: START_MS + 9 };
    assert_eq!(answers, [CREATED, duplicate, Enqueued::IdReused, Enqueued::UnknownQueue, duplicate, late]);
    assert_eq!(bed.queue("default").await.counts.scheduled, 3);
    bed.assert_counts_are_right().await;
}

pub async fn a_failure_waits_for_the_policys_delay(bed: Bed) {
    let answer = bed.put(task("t").failed(failure(FailureClass::ServerError))).await;
    assert_eq!(answer, Enqueued::Created { state: TaskState::Scheduled, due_ms: START_MS + 10_000 });
    let view = bed.view("t").await;
    assert_eq!(view.ledger.failed, 1);
    assert_eq!(view.last_failure, Some(failure(FailureClass::ServerError)));
    assert_eq!(view.history.len(), 1);
    assert_eq!((view.history[0].run, view.history[0].end), (0, AttemptEnd::Reported));
    assert_eq!(view.history[0].delay_ms, Some(10_000));
}

pub async fn a_delay_longer_than_the_policys_wins(bed: Bed) {
    let failed = |text| task(text).failed(failure(FailureClass::ServerError));
    bed.put_all(vec![failed("longer").delay(60_000), failed("shorter").delay(1)]).await;
    assert_eq!(bed.view("longer").await.due_at_ms, START_MS + 60_000);
    assert_eq!(bed.view("shorter").await.due_at_ms, START_MS + 10_000);
}

pub async fn a_hint_is_the_floor_of_the_first_delay(bed: Bed) {
    for number in 0..20 {
        let hinted = FailureRecord { retry_after_ms: Some(60_000), ..failure(FailureClass::RateLimited) };
        let text = format!("t{number}");
        bed.put(task(&text).failed(hinted)).await;
        // At most min(1 s + a tenth of the hint, 30 s) on top.
        let wait_ms = bed.view(&text).await.due_at_ms - START_MS;
        assert!((60_000..=67_000).contains(&wait_ms), "{wait_ms}");
    }
}

pub async fn attempts_made_elsewhere_are_counted_once(bed: Bed) {
    bed.put(task("t").failed(failure(FailureClass::ServerError)).attempts_made(3)).await;
    bed.put(task("unsaid").failed(failure(FailureClass::ServerError))).await;
    bed.put(task("plain").attempts_made(2).delay(10_000)).await;
    for (text, failed) in [("t", 3), ("unsaid", 1), ("plain", 2)] {
        assert_eq!(bed.view(text).await.ledger.failed, failed, "{text}");
    }
    bed.advance(10_000);
    let leases = bed.take(3).await;
    let mut attempts: Vec<_> = leases.iter().map(|lease| (&*lease.id, lease.attempt, lease.run)).collect();
    attempts.sort_unstable();
    assert_eq!(attempts, [("plain", 3, 1), ("t", 4, 1), ("unsaid", 2, 1)]);
}

pub async fn attempts_used_up_elsewhere_end_the_task_at_once(bed: Bed) {
    let answer = bed.put(task("t").failed(failure(FailureClass::ServerError)).attempts_made(5)).await;
    assert!(matches!(answer, Enqueued::Created { state: TaskState::Dead, .. }));
    let view = bed.view("t").await;
    assert_eq!((view.state, view.ledger.failed), (TaskState::Dead, 5));
    assert!(view.expires_at_ms.is_some());
}

pub async fn attempts_used_up_elsewhere_end_the_task_even_without_a_failure(bed: Bed) {
    let answer = bed.put(task("t").attempts_made(5)).await;
    assert!(matches!(answer, Enqueued::Created { state: TaskState::Dead, .. }), "{answer:?}");
    assert!(bed.take(1).await.is_empty());
}

pub async fn a_failure_that_no_retry_can_mend_settles_at_once(bed: Bed) {
    let for_good = |class| FailureRecord { retryable: false, ..failure(class) };
    let batch = vec![
        task("wrong").failed(for_good(FailureClass::InvalidRequest)),
        task("locked-out").failed(for_good(FailureClass::Auth)),
    ];
    let answers = bed.enqueue(batch).await.unwrap();
    assert!(matches!(answers[0], Enqueued::Created { state: TaskState::Dead, .. }), "{answers:?}");
    assert!(matches!(answers[1], Enqueued::Created { state: TaskState::Escalated, .. }), "{answers:?}");
    bed.advance(3_600_000);
    assert!(bed.take(2).await.is_empty());
    let counts = bed.queue("default").await.counts;
    assert_eq!((counts.scheduled, counts.dead, counts.escalated), (0, 1, 1));
}

pub async fn a_hint_past_the_deadline_escalates(bed: Bed) {
    let hinted = FailureRecord { retry_after_ms: Some(60_000), ..failure(FailureClass::RateLimited) };
    let answer = bed.put(task("t").failed(hinted).deadline(30_000)).await;
    assert!(matches!(answer, Enqueued::Created { state: TaskState::Escalated, .. }), "{answer:?}");
}

pub async fn everything_given_is_kept(bed: Bed) {
    let payload = "{ \"b\" : 1.50,\n \"a\":\"ü\\u0000\", \"big\":123456789012345678901234567890 }";
    let mut given = task("t").of_type("render").payload(payload).group("tenant").needs("openai/acct/gpt");
    given = given.priority(Priority::High).max_attempts(7).deadline(90_000);
    given.spec.type_version = Some(3);
    given.spec.route = 2;
    given.spec.traceparent = Some("00-aa-bb-01".into());
    given.spec.labels.insert("team".into(), "a \"b\"".into());
    bed.put(given).await;
    let view = bed.view("t").await;
    assert_eq!(view.payload.unwrap().get(), payload);
    assert_eq!((&*view.queue, &*view.task_type), ("default", "render"));
    assert_eq!((view.group, view.dependency), (Some(name("tenant")), Some(name("openai/acct/gpt"))));
    assert_eq!(
        (view.priority, view.max_attempts, view.deadline_at_ms),
        (Priority::High, 7, START_MS + 90_000)
    );
    assert_eq!(view.labels["team"], "a \"b\"");
    let lease = bed.take_one().await;
    assert_eq!(lease.payload.get(), payload);
    assert_eq!((lease.group, lease.dependency), (Some(name("tenant")), Some(name("openai/acct/gpt"))));
    assert_eq!((&*lease.queue, &*lease.task_type, lease.priority), ("default", "render", Priority::High));
    assert_eq!((lease.type_version, lease.route, lease.max_attempts), (Some(3), 2, 7));
    assert_eq!((lease.traceparent.as_deref(), &*lease.labels["team"]), (Some("00-aa-bb-01"), "a \"b\""));
    assert_eq!(
        (lease.deadline_at_ms, lease.due_at_ms, lease.timeout_ms),
        (START_MS + 90_000, START_MS, 600_000)
    );
}

pub async fn what_an_attempt_uses_is_told_with_each_of_them(mut bed: Bed) {
    let mut given = task("t").needs("openai/acct/gpt");
    given.spec.tokens = Some(10_000_000);
    bed.put_all(vec![given, task("u").delay(600_000)]).await;
    for run in 1..=3 {
        let request = Claim { request_id: Some(name(&format!("r-{run}"))), ..claim_of(1) };
        let lease = bed.claim_one(request.clone()).await.leases.remove(0);
        assert_eq!((&*lease.id, lease.run, lease.tokens), ("t", run, Some(10_000_000)));
        let again = bed.claim_one(request).await;
        assert!(again.replayed && again.leases[0].tokens == lease.tokens);
        bed.finish(&lease, Ending::Failed(failure(FailureClass::ServerError))).await;
        bed.reopen().await;
        assert_eq!(bed.view("t").await.tokens, Some(10_000_000));
        bed.advance(60_000);
    }
    let mut listed: Vec<_> = bed.everything().await.into_iter().map(|task| (task.id, task.tokens)).collect();
    listed.sort();
    assert_eq!(listed, [(id("t"), Some(10_000_000)), (id("u"), None)], "who says nothing has none");
    bed.cancel_one("t").await;
    bed.advance(600_000);
    assert_eq!(bed.take_one().await.tokens, None);
}
