//! What holders of a lease may do with it, and what nobody else may.

use redrive_coordinator::store::{Ending, Extend, Extended, Settle, Settled};
use redrive_shared::failure::FailureClass;
use redrive_shared::lifecycle::Fence;
use redrive_shared::retry::{RetryPolicy, Strategy};
use redrive_shared::task::{AttemptEnd, FailureRecord, Nonce, TaskState};

use crate::support::{
    Bed, EnqueueExt, START_MS, failure, fence, fixed_policy, id, name, raw, settle_of, task,
};

pub async fn a_snooze_past_the_deadline_escalates(bed: Bed) {
    bed.put(task("t").deadline(5_000)).await;
    let lease = bed.take_one().await;
    let settled = bed.finish(&lease, Ending::Snoozed { delay_ms: 5_001 }).await;
    assert_eq!(settled.0, TaskState::Escalated);
    assert!(bed.view("t").await.why.unwrap().contains("deadline"));
}

pub async fn an_extension_makes_a_lease_longer_and_never_shorter(bed: Bed) {
    let lease = bed.put_and_take(task("t")).await;
    assert_eq!(bed.extend_one(&lease, Some(60_000)).await, Extended::Until(START_MS + 60_000));
    bed.advance(1_000);
    assert_eq!(bed.extend_one(&lease, Some(1_000)).await, Extended::Until(START_MS + 60_000));
    bed.advance(50_000);
    assert_eq!(bed.extend_one(&lease, None).await, Extended::Until(START_MS + 81_000), "the policy's 30 s");
    assert_eq!(bed.view("t").await.lease_until_ms, Some(START_MS + 81_000));
}

pub async fn only_the_holder_can_extend(bed: Bed) {
    let lease = bed.put_and_take(task("t")).await;
    bed.put(task("waiting").delay(1)).await;
    let held = fence(&lease);
    let item = |text: &str, fence| Extend { id: id(text), fence, lease_ms: Some(90_000), run: None };
    let batch = vec![
        item("t", Fence { epoch: held.epoch - 1, ..held }),
        item("t", Fence { nonce: Nonce(held.nonce.0 ^ 1), ..held }),
        item("nowhere", held),
        item("waiting", held),
        item("t", held),
    ];
    let stale = |state| Extended::Stale(state);
    let answers = bed.extend(batch).await.unwrap();
    let expected = [
        stale(TaskState::Leased),
        stale(TaskState::Leased),
        Extended::Unknown,
        stale(TaskState::Scheduled),
        Extended::Until(START_MS + 90_000),
    ];
    assert_eq!(answers, expected);
}

pub async fn a_settled_lease_cannot_be_extended(bed: Bed) {
    let lease = bed.put_and_take(task("t")).await;
    bed.finish(&lease, Ending::Done(None)).await;
    assert_eq!(bed.extend_one(&lease, None).await, Extended::Stale(TaskState::Succeeded));
}

/// One of a claim's leases ended otherwise meanwhile: as many are settled as are left of it, and not the same.
pub async fn of_a_claim_only_those_that_are_settled_end(bed: Bed) {
    bed.put_all(["a", "b", "c"].map(task).into()).await;
    let leases = bed.take_by_id(3).await;
    bed.cancel_one("c").await;
    let batch = vec![settle_of(&leases[0], Ending::Done(None)), settle_of(&leases[2], Ending::Done(None))];
    let answers = bed.settle(batch).await.unwrap();
    assert!(matches!(answers[0], Settled::Applied { state: TaskState::Succeeded, .. }), "{answers:?}");
    assert_eq!(answers[1], Settled::Stale(TaskState::Cancelled));
    assert_eq!(bed.state("b").await, TaskState::Leased);
    assert_eq!(bed.finish(&leases[1], Ending::Done(None)).await.0, TaskState::Succeeded);
    bed.assert_counts_are_right().await;
}

/// Values of this size go past the script, where all is as expected; here it is not.
pub async fn of_large_tasks_those_settle_that_are_still_held(bed: Bed) {
    let large = |name| task(name).payload(&format!("\"{}\"", "x".repeat(3_000)));
    bed.put_all(["a", "b", "c", "d"].map(large).into()).await;
    let leases = bed.take_by_id(4).await;
    let settle = |place: usize, ending| settle_of(&leases[place], ending);
    let failed = || Ending::Failed(failure(FailureClass::ServerError));
    bed.cancel_one("b").await;
    let answers = bed.settle(vec![settle(0, failed()), settle(1, failed())]).await.unwrap();
    assert!(matches!(answers[0], Settled::Applied { state: TaskState::Scheduled, .. }), "{answers:?}");
    assert_eq!(answers[1], Settled::Stale(TaskState::Cancelled));
    // The rest of the claim, as a whole and in two ways.
    let answers = bed.settle(vec![settle(2, failed()), settle(3, Ending::Done(None))]).await.unwrap();
    let states = [TaskState::Scheduled, TaskState::Succeeded];
    for (answer, expected) in answers.iter().zip(states) {
        assert!(matches!(answer, Settled::Applied { state, .. } if *state == expected), "{answers:?}");
    }
    bed.advance(10_000);
    let again = bed.take_by_id(4).await;
    assert_eq!(again.iter().map(|lease| lease.id.as_str()).collect::<Vec<_>>(), ["a", "c"]);
    assert!(again.iter().all(|lease| lease.payload.get().len() == 3_002), "the payload is what it was");
    bed.assert_counts_are_right().await;
}

pub async fn a_lease_has_nothing_of_the_extension_of_the_one_before(bed: Bed) {
    bed.put_all(["a", "b"].map(task).into()).await;
    let leases = bed.take_by_id(2).await;
    bed.extend_one(&leases[0], Some(600_000)).await;
    let failed = |lease| settle_of(lease, Ending::Failed(failure(FailureClass::ServerError)));
    bed.settle(leases.iter().map(failed).collect()).await.unwrap();
    bed.advance(10_000);
    for lease in bed.take_by_id(2).await {
        assert_eq!(lease.lease_until_ms, bed.now_ms() + 30_000);
    }
}

pub async fn done_keeps_the_result(bed: Bed) {
    let lease = bed.put_and_take(task("t")).await;
    bed.start(&lease).await;
    bed.advance(700);
    let answer = bed.settle_one(&lease, Ending::Done(Some(raw("{ \"sum\": 3 }").into()))).await;
    assert!(
        matches!(answer, Settled::Applied { state: TaskState::Succeeded, ref queue, .. } if &**queue == "default")
    );
    let view = bed.view("t").await;
    assert_eq!(view.result.unwrap().get(), "{ \"sum\": 3 }");
    assert_eq!((view.state, view.agent, view.lease_until_ms), (TaskState::Succeeded, None, None));
    assert_eq!(view.expires_at_ms, Some(START_MS + 700 + 48 * 3_600_000), "twice the deadline of 24 h");
    let attempt = &view.history[0];
    assert_eq!((attempt.run, attempt.end, &attempt.agent), (1, AttemptEnd::Succeeded, &Some(name("a"))));
    assert_eq!((attempt.started_at_ms, attempt.ended_at_ms), (START_MS, START_MS + 700));
}

pub async fn done_without_a_result_is_done(bed: Bed) {
    let lease = bed.put_and_take(task("t")).await;
    bed.finish(&lease, Ending::Done(None)).await;
    let view = bed.view("t").await;
    assert!(view.state == TaskState::Succeeded && view.result.is_none());
}

pub async fn a_failure_runs_again_after_the_policys_delay(bed: Bed) {
    let lease = bed.put_and_take(task("t")).await;
    bed.advance(100);
    let after = bed.finish(&lease, Ending::Failed(failure(FailureClass::ServerError))).await;
    assert_eq!(after, (TaskState::Scheduled, START_MS + 10_100));
    let view = bed.view("t").await;
    assert_eq!((view.ledger.failed, view.runs), (1, 1));
    assert_eq!(view.history[0].failure, Some(failure(FailureClass::ServerError)));
    assert_eq!((view.history[0].end, view.history[0].delay_ms), (AttemptEnd::Failed, Some(10_000)));
    bed.advance(9_999);
    assert!(bed.take(1).await.is_empty());
    bed.advance(1);
    assert_eq!(bed.take_ids(1).await, ["t"]);
}

pub async fn a_hint_is_the_floor_of_every_delay(bed: Bed) {
    let lease = bed.put_and_take(task("t")).await;
    let hinted = FailureRecord { retry_after_ms: Some(90_000), ..failure(FailureClass::RateLimited) };
    let (_, due_ms) = bed.finish(&lease, Ending::Failed(hinted)).await;
    assert!((90_000..=100_000).contains(&(due_ms - START_MS)), "{due_ms}");
}

pub async fn a_task_whose_attempts_are_used_up_is_dead(bed: Bed) {
    bed.put(task("t").max_attempts(3)).await;
    for expected in [TaskState::Scheduled, TaskState::Scheduled, TaskState::Dead] {
        let lease = bed.take_one().await;
        let after = bed.finish(&lease, Ending::Failed(failure(FailureClass::ServerError))).await;
        assert_eq!(after.0, expected);
        bed.advance(10_000);
    }
    assert!(bed.take(1).await.is_empty());
    assert_eq!(bed.view("t").await.ledger.failed, 3);
}

pub async fn failures_of_one_class_are_counted_across_leases(mut bed: Bed) {
    bed.put(task("t").max_attempts(50)).await;
    let mut states = Vec::new();
    for class in
        [FailureClass::Timeout, FailureClass::ServerError, FailureClass::Timeout, FailureClass::Timeout]
    {
        let lease = bed.take_one().await;
        states.push(bed.finish(&lease, Ending::Failed(failure(class))).await.0);
        bed.advance(10_000);
        bed.reopen().await;
    }
    // Two retries after time-outs are the default; what else failed does not count with them.
    assert_eq!(states, [TaskState::Scheduled, TaskState::Scheduled, TaskState::Scheduled, TaskState::Dead]);
}

pub async fn a_tasks_own_backoff_takes_the_place_of_the_queues(mut bed: Bed) {
    let own = Strategy::Schedule { delays_ms: vec![20_000, 33_000] };
    let mut given = task("t");
    given.spec.retry = Some(own.clone());
    bed.put_all(vec![given, task("other")]).await;
    for lease in bed.take_by_id(2).await {
        let expected = if &*lease.id == "t" { 20_000 } else { 10_000 };
        let (_, due_ms) = bed.finish(&lease, Ending::Failed(failure(FailureClass::RateLimited))).await;
        if &*lease.id == "t" {
            assert_eq!(due_ms - bed.now_ms(), expected, "also where the class has one of its own");
        }
    }
    bed.reopen().await;
    assert_eq!((bed.view("t").await.retry, bed.view("other").await.retry), (Some(own), None));
    bed.cancel_one("other").await;
    bed.advance(20_000);
    let lease = bed.take_one().await;
    let hinted = FailureRecord { retry_after_ms: Some(90_000), ..failure(FailureClass::ServerError) };
    let (_, due_ms) = bed.finish(&lease, Ending::Failed(hinted)).await;
    assert!(due_ms - bed.now_ms() >= 90_000, "a hint is its floor");
    // An owner's bounds hold for what is there already.
    let bounds = RetryPolicy { task_cap_max_ms: Some(30_000), ..fixed_policy(10_000) };
    bed.put_queue(&name("default"), bounds).await.unwrap();
    bed.advance(110_000);
    let lease = bed.take_one().await;
    let (_, due_ms) = bed.finish(&lease, Ending::Failed(failure(FailureClass::ServerError))).await;
    assert_eq!(due_ms - bed.now_ms(), 10_000);
}

pub async fn decorrelated_delays_build_on_the_one_before(mut bed: Bed) {
    bed.put_queue(&name("default"), fixed_policy(50_000)).await.unwrap();
    bed.put_all((0..10).map(|number| task(&format!("t{number}"))).collect()).await;
    for lease in bed.take(10).await {
        bed.finish(&lease, Ending::Failed(failure(FailureClass::ServerError))).await;
    }
    let strategy = Strategy::Decorrelated { base_ms: 1, cap_ms: 1_000_000 };
    bed.put_queue(&name("default"), RetryPolicy { strategy, ..RetryPolicy::default() }).await.unwrap();
    bed.reopen().await;
    bed.advance(50_000);
    let mut delays_ms = Vec::new();
    for lease in bed.take(10).await {
        let (_, due_ms) = bed.finish(&lease, Ending::Failed(failure(FailureClass::ServerError))).await;
        delays_ms.push(due_ms - bed.now_ms());
    }
    // Each is drawn from 1 ms to 150 s; were the one before forgotten, from 1 ms to 3 ms.
    assert!(delays_ms.iter().all(|delay_ms| (1..=150_000).contains(delay_ms)), "{delays_ms:?}");
    assert!(delays_ms.iter().any(|delay_ms| *delay_ms > 3), "{delays_ms:?}");
}

pub async fn a_handler_can_rule_out_a_retry_or_ask_for_a_person(bed: Bed) {
    bed.put_all(vec![task("dead"), task("asked")]).await;
    let leases = bed.take_by_id(2).await;
    let seen = || failure(FailureClass::ServerError);
    assert_eq!(bed.finish(&leases[0], Ending::NeedsPerson(seen())).await.0, TaskState::Escalated);
    assert_eq!(bed.finish(&leases[1], Ending::FailedForGood(seen())).await.0, TaskState::Dead);
    let (dead, asked) = (bed.view("dead").await, bed.view("asked").await);
    assert_eq!((dead.ledger.failed, asked.ledger.failed), (1, 1));
    assert!(dead.expires_at_ms.is_some() && asked.expires_at_ms.is_none());
    assert_eq!(asked.last_failure, Some(seen()));
}

pub async fn an_unretryable_failure_ends_the_task_at_its_first_attempt(bed: Bed) {
    let lease = bed.put_and_take(task("t")).await;
    let for_good = FailureRecord { retryable: false, ..failure(FailureClass::InvalidRequest) };
    assert_eq!(bed.finish(&lease, Ending::Failed(for_good)).await.0, TaskState::Dead);
}

pub async fn a_snooze_charges_no_attempt(bed: Bed) {
    let lease = bed.put_and_take(task("t")).await;
    let after = bed.finish(&lease, Ending::Snoozed { delay_ms: 123_456 }).await;
    assert_eq!(after, (TaskState::Scheduled, START_MS + 123_456));
    let ledger = bed.view("t").await.ledger;
    assert_eq!((ledger.failed, ledger.deferred), (0, 1));
}

pub async fn a_released_task_is_due_within_a_second_and_charges_no_attempt(bed: Bed) {
    bed.put(task("t").max_attempts(1)).await;
    for times in 1..=10 {
        let lease = bed.take_one().await;
        let (state, due_ms) = bed.finish(&lease, Ending::Released).await;
        assert_eq!(state, TaskState::Scheduled);
        assert!((0..=1_000).contains(&(due_ms - bed.now_ms())));
        let ledger = bed.view("t").await.ledger;
        assert_eq!((ledger.failed, ledger.released), (0, times));
        bed.advance(1_000);
    }
}

pub async fn what_is_taken_back_is_undelivered_and_due_within_a_second(bed: Bed) {
    bed.put(task("t").max_attempts(1)).await;
    for times in 1..=3 {
        let lease = bed.take_one().await;
        let (state, due_ms) = bed.finish(&lease, Ending::Undelivered).await;
        assert_eq!(state, TaskState::Scheduled);
        assert!((0..=1_000).contains(&(due_ms - bed.now_ms())));
        bed.advance(1_000);
        let view = bed.view("t").await;
        assert_eq!((view.ledger.failed, view.ledger.released, view.ledger.undelivered), (0, 0, times));
        assert_eq!(view.history.last().map(|line| line.end), Some(AttemptEnd::Undelivered));
    }
}

pub async fn only_the_first_call_of_a_task_is_no_retry(bed: Bed) {
    use redrive_coordinator::store::Settled;
    let retried = |settled: Settled| match settled {
        Settled::Applied { retried, .. } => retried,
        other => panic!("the lease holds: {other:?}"),
    };
    bed.put(task("t")).await;
    let no_calls = [
        Ending::Released,
        Ending::Undelivered,
        Ending::Snoozed { delay_ms: 0 },
        Ending::Failed(failure(FailureClass::LockTimeout)),
    ];
    let calls = [Ending::FailedForGood(failure(FailureClass::ServerError)), Ending::Done(None)];
    for ending in no_calls.iter().chain(&calls[..1]) {
        let lease = bed.take_one().await;
        assert!(!retried(bed.settle_one(&lease, ending.clone()).await), "{ending:?}");
        bed.advance(60_000);
    }
    // A person's retry forgives its failures; it was called all the same.
    bed.retry_one("t").await;
    let lease = bed.take_one().await;
    assert!(retried(bed.settle_one(&lease, calls[1].clone()).await));
}

pub async fn a_stale_or_forged_fence_changes_nothing(bed: Bed) {
    let lease = bed.put_and_take(task("t")).await;
    let before = serde_json::to_string(&bed.view("t").await).unwrap();
    let held = fence(&lease);
    let forged = [
        Fence { epoch: held.epoch - 1, ..held },
        Fence { epoch: held.epoch + 1, ..held },
        Fence { nonce: Nonce(held.nonce.0 ^ 1), ..held },
        Fence { nonce: Nonce(0), ..held },
        Fence { epoch: 0, nonce: Nonce(0) },
    ];
    for fence in forged {
        let settle = Settle::new(id("t"), fence, Ending::Done(None));
        assert_eq!(bed.settle(vec![settle]).await.unwrap(), [Settled::Stale(TaskState::Leased)]);
    }
    assert_eq!(serde_json::to_string(&bed.view("t").await).unwrap(), before);
    bed.finish(&lease, Ending::Done(None)).await;
}

pub async fn a_task_that_was_never_leased_cannot_be_settled(bed: Bed) {
    bed.put(task("t")).await;
    // What anyone can see of a task must not be enough to claim that it was settled.
    for nonce in [Nonce(0), Nonce(7)] {
        let fence = Fence { epoch: bed.view("t").await.epoch, nonce };
        let settle = Settle::new(id("t"), fence, Ending::Done(None));
        assert_eq!(bed.settle(vec![settle]).await.unwrap(), [Settled::Stale(TaskState::Scheduled)]);
    }
}

pub async fn an_unknown_task_cannot_be_settled(bed: Bed) {
    let lease = bed.put_and_take(task("t")).await;
    let settle = Settle { id: id("nowhere"), ..settle_of(&lease, Ending::Done(None)) };
    assert_eq!(bed.settle(vec![settle]).await.unwrap(), [Settled::Unknown]);
    assert!(bed.get(&id("nowhere")).await.unwrap().is_none(), "and is not created by it");
}

pub async fn settling_again_returns_the_first_settlement(bed: Bed) {
    let lease = bed.put_and_take(task("t")).await;
    let (_, due_ms) = bed.finish(&lease, Ending::Failed(failure(FailureClass::ServerError))).await;
    bed.advance(3_000);
    for ending in [Ending::Failed(failure(FailureClass::ServerError)), Ending::Done(Some(raw("1").into()))] {
        let again = bed.settle_one(&lease, ending).await;
        assert_eq!(again, Settled::Repeated { state: TaskState::Scheduled, due_ms });
    }
    let view = bed.view("t").await;
    assert_eq!((view.ledger.failed, view.history.len()), (1, 1));
    assert!(view.result.is_none());
}

pub async fn settling_done_again_keeps_the_first_result(bed: Bed) {
    let lease = bed.put_and_take(task("t")).await;
    bed.finish(&lease, Ending::Done(Some(raw("1").into()))).await;
    let again = bed.settle_one(&lease, Ending::Done(Some(raw("2").into()))).await;
    assert!(matches!(again, Settled::Repeated { state: TaskState::Succeeded, .. }));
    assert_eq!(bed.view("t").await.result.unwrap().get(), "1");
}

pub async fn the_holder_before_cannot_settle_the_lease_after(bed: Bed) {
    let first = bed.put_and_take(task("t")).await;
    bed.finish(&first, Ending::Failed(failure(FailureClass::ServerError))).await;
    bed.advance(10_000);
    let second = bed.take_one().await;
    assert_eq!(bed.settle_one(&first, Ending::Done(None)).await, Settled::Stale(TaskState::Leased));
    assert_eq!(bed.extend_one(&first, None).await, Extended::Stale(TaskState::Leased));
    bed.finish(&second, Ending::Done(None)).await;
    assert_eq!(bed.settle_one(&first, Ending::Done(None)).await, Settled::Stale(TaskState::Succeeded));
}

pub async fn one_stale_item_does_not_fail_its_neighbours(bed: Bed) {
    bed.put_all(vec![task("a"), task("b")]).await;
    let leases = bed.take(2).await;
    let mut forged = settle_of(&leases[0], Ending::Done(None));
    forged.fence.epoch += 1;
    let batch = vec![
        forged,
        settle_of(&leases[1], Ending::Done(None)),
        settle_of(&leases[1], Ending::Done(None)),
        settle_of(&leases[0], Ending::Released),
    ];
    let answers = bed.settle(batch).await.unwrap();
    assert_eq!(answers[0], Settled::Stale(TaskState::Leased));
    assert!(matches!(answers[1], Settled::Applied { state: TaskState::Succeeded, .. }));
    assert!(matches!(answers[2], Settled::Repeated { state: TaskState::Succeeded, .. }));
    assert!(matches!(answers[3], Settled::Applied { state: TaskState::Scheduled, .. }));
    bed.assert_counts_are_right().await;
}

pub async fn a_retry_that_would_come_too_late_escalates(bed: Bed) {
    let lease = bed.put_and_take(task("t").deadline(5_000)).await;
    let after = bed.finish(&lease, Ending::Failed(failure(FailureClass::ServerError))).await;
    assert_eq!(after.0, TaskState::Escalated);
    assert!(bed.view("t").await.why.unwrap().contains("deadline"));
}

pub async fn a_task_can_fail_while_another_of_its_lane_waits(bed: Bed) {
    // A retry that is due later than what waits must not hide it, and one that is due earlier must come first.
    bed.put_all(vec![task("first"), task("second").delay(20_000), task("third").delay(5_000)]).await;
    let lease = bed.take_one().await;
    bed.finish(&lease, Ending::Failed(failure(FailureClass::ServerError))).await;
    bed.advance(5_000);
    assert_eq!(bed.take_ids(9).await, ["third"]);
    bed.advance(15_000);
    bed.assert_order(bed.take_ids(9).await, &["first", "second"]);
}
