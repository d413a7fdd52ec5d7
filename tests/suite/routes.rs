//! Where a task goes on when its dependency fails, what attempts cost, and what a task has been through.

use redrive_coordinator::store::{Ending, Enqueue, Restriction, Settle, Settled};
use redrive_shared::cost::Cost;
use redrive_shared::failure::FailureClass;
use redrive_shared::gate::{Barred, Standing};
use redrive_shared::retry::RetryPolicy;
use redrive_shared::task::{FailureRecord, Lease, TaskState};

use crate::support::{
    Bed, EnqueueExt, claim_of, failure, fixed_policy, name, of_dependency, settle_of, task,
};

fn chained() -> RetryPolicy {
    let chain = vec![name("sonnet"), name("gpt")];
    RetryPolicy { fallbacks: [(name("opus"), chain)].into(), ..fixed_policy(10_000) }
}

async fn chain(bed: &Bed) {
    bed.put_queue(&name("default"), chained()).await.unwrap();
}

fn opus(text: &str) -> Enqueue {
    task(text).needs("opus")
}

/// The model is gone: no retry there can help.
fn gone() -> FailureRecord {
    FailureRecord { retryable: false, ..failure(FailureClass::ModelUnavailable) }
}

async fn fail(bed: &Bed, lease: &Lease) -> (TaskState, i64) {
    bed.finish(lease, Ending::Failed(gone())).await
}

fn shut(dependency: &str) -> Restriction {
    Restriction { scope: of_dependency(dependency), any: Some(0), retries: None }
}

fn barred(dependencies: &[(&str, Barred)]) -> Standing {
    Standing::new(dependencies.iter().map(|(text, how)| (name(text), *how)))
}

fn place(lease: &Lease) -> (u32, &str) {
    (lease.route, lease.dependency.as_deref().unwrap_or("none"))
}

pub async fn a_task_goes_on_in_the_lane_of_its_route(mut bed: Bed) {
    chain(&bed).await;
    let lease = bed.put_and_take(opus("t")).await;
    assert_eq!(place(&lease), (0, "opus"));
    assert_eq!(fail(&bed, &lease).await, (TaskState::Scheduled, bed.now_ms()), "at once");
    let held_back = bed.claim(vec![claim_of(2)], &[shut("sonnet")]).await.unwrap().remove(0);
    assert!(held_back.leases.is_empty() && held_back.held_back == [of_dependency("sonnet")]);
    bed.reopen().await;
    let through = bed.claim(vec![claim_of(2)], &[shut("opus")]).await.unwrap().remove(0);
    assert_eq!(place(&through.leases[0]), (1, "sonnet"), "the gate that is shut is another's");
    assert_eq!((through.leases[0].attempt, through.leases[0].ledger.failed), (2, 1), "charged as ever");
    fail(&bed, &through.leases[0]).await;
    let lease = bed.take_one().await;
    assert_eq!(place(&lease), (2, "gpt"));
    assert_eq!(fail(&bed, &lease).await.0, TaskState::Escalated, "the chain is at its end");
    let view = bed.view("t").await;
    let tried: Vec<_> = view.history.iter().map(|line| (line.route, line.dependency.as_deref())).collect();
    assert_eq!(tried, [(0, Some("opus")), (1, Some("sonnet")), (2, Some("gpt"))]);
    assert_eq!((view.route, view.dependency, view.primary), (2, Some(name("gpt")), Some(name("opus"))));
    bed.assert_counts_are_right().await;
}

pub async fn a_settlement_tells_where_its_attempt_went(bed: Bed) {
    chain(&bed).await;
    let first = bed.put_and_take(opus("t")).await;
    for (lease, expected) in [(first, "opus"), (bed_take_next(&bed).await, "sonnet")] {
        match bed.settle_one(&lease, Ending::Failed(gone())).await {
            Settled::Applied { dependency, .. } => assert_eq!(dependency, Some(name(expected))),
            other => panic!("{other:?}"),
        }
    }
}

/// Fails the task that was taken first, and takes it where it goes on.
async fn bed_take_next(bed: &Bed) -> Lease {
    // A second task, so that both settlements of the caller are its own.
    let lease = bed.put_and_take(opus("next")).await;
    fail(bed, &lease).await;
    bed.take_one().await
}

pub async fn a_failure_that_a_task_comes_with_sends_it_elsewhere(bed: Bed) {
    chain(&bed).await;
    bed.put(opus("t").failed(gone())).await;
    let lease = bed.take_one().await;
    assert_eq!((place(&lease), lease.attempt), ((1, "sonnet"), 2));
    let view = bed.view("t").await;
    assert_eq!((view.history[0].route, view.history[0].dependency.as_deref()), (0, Some("opus")));
    bed.finish(&lease, Ending::Done(None)).await;
    let standing = barred(&[("sonnet", Barred::Shut)]);
    bed.put(Enqueue { standing, ..opus("u").failed(gone()) }).await;
    assert_eq!(place(&bed.take_one().await), (2, "gpt"), "past a gate that is shut");
}

pub async fn a_task_may_begin_on_a_later_route(bed: Bed) {
    chain(&bed).await;
    let mut given = opus("t").failed(gone());
    given.spec.route = 1;
    bed.put(given).await;
    let lease = bed.take_one().await;
    assert_eq!(place(&lease), (2, "gpt"));
    let view = bed.view("t").await;
    assert_eq!((view.history[0].route, view.history[0].dependency.as_deref()), (1, Some("sonnet")));
}

pub async fn routes_behind_shut_gates_are_skipped(bed: Bed) {
    chain(&bed).await;
    let lease = bed.put_and_take(opus("t")).await;
    let standing = barred(&[("sonnet", Barred::Isolated)]);
    let settle = Settle { standing, ..settle_of(&lease, Ending::Failed(gone())) };
    bed.settle(vec![settle]).await.unwrap();
    assert_eq!(place(&bed.take_one().await), (2, "gpt"));
}

pub async fn a_tool_transaction_stays_on_its_route(bed: Bed) {
    chain(&bed).await;
    let down = FailureRecord { retryable: true, ..gone() };
    let lease = bed.put_and_take(opus("t")).await;
    let settle = Settle { in_transaction: true, ..settle_of(&lease, Ending::Failed(down)) };
    bed.settle(vec![settle]).await.unwrap();
    bed.advance(10_000);
    let lease = bed.take_one().await;
    assert_eq!((place(&lease), lease.attempt), ((0, "opus"), 2));
}

pub async fn what_is_isolated_waits_uncharged(bed: Bed) {
    let auth = FailureRecord { retryable: false, ..failure(FailureClass::Auth) };
    let lease = bed.put_and_take(opus("t").max_attempts(1)).await;
    let standing = barred(&[("opus", Barred::Isolated)]);
    let settle = Settle { standing, ..settle_of(&lease, Ending::Failed(auth.clone())) };
    bed.settle(vec![settle]).await.unwrap();
    let view = bed.view("t").await;
    assert_eq!((view.state, view.ledger.deferred, view.ledger.failed), (TaskState::Scheduled, 1, 0));
    assert!((0..=1_000).contains(&(view.due_at_ms - bed.now_ms())));
    assert_eq!(view.last_failure.as_ref().map(|failure| failure.class), Some(FailureClass::Auth));
    bed.advance(1_000);
    let (state, _) = bed.finish(&bed.take_one().await, Ending::Failed(auth)).await;
    assert_eq!(state, TaskState::Escalated, "one agent's mistyped key stops nobody else");
}

pub async fn whatever_is_no_failure_keeps_the_route(bed: Bed) {
    chain(&bed).await;
    fail(&bed, &bed.put_and_take(opus("t")).await).await;
    let lease = bed.take_one().await;
    bed.finish(&lease, Ending::Snoozed { delay_ms: 5 }).await;
    bed.advance(5);
    let lease = bed.take_one().await;
    bed.finish(&lease, Ending::Released).await;
    bed.advance(1_000);
    let lease = bed.take_one().await;
    bed.start(&lease).await;
    bed.advance(30_000);
    let reaped = bed.reap(10).await.unwrap().reaped.remove(0);
    assert_eq!((reaped.dependency, reaped.retried), (Some(name("sonnet")), true));
    bed.advance(30_000);
    let lease = bed.take_one().await;
    assert_eq!((place(&lease), lease.ledger.lost), ((1, "sonnet"), 1));
}

pub async fn a_person_who_retries_begins_with_the_own_dependency(bed: Bed) {
    chain(&bed).await;
    fail(&bed, &bed.put_and_take(opus("t")).await).await;
    bed.cancel_one("t").await;
    assert!(bed.take(5).await.is_empty(), "it left the lane that it waited in");
    bed.retry_one("t").await;
    let lease = bed.take_one().await;
    assert_eq!((place(&lease), lease.attempt), ((0, "opus"), 1));
    bed.finish(&lease, Ending::Done(None)).await;
    bed.assert_counts_are_right().await;
}

pub async fn a_chain_that_changes_moves_nobody_before_the_next_turn(bed: Bed) {
    chain(&bed).await;
    for text in ["t", "u"] {
        fail(&bed, &bed.put_and_take(opus(text)).await).await;
        fail(&bed, &bed.take_one().await).await;
        let wish = claim_of(1);
        assert_eq!(bed.claim(vec![wish], &[shut("gpt")]).await.unwrap()[0].leases.len(), 0);
        let lease = bed.take_one().await;
        bed.finish(&lease, Ending::Snoozed { delay_ms: 60_000 }).await;
    }
    let shorter = RetryPolicy { fallbacks: [(name("opus"), vec![name("haiku")])].into(), ..chained() };
    bed.put_queue(&name("default"), shorter).await.unwrap();
    // Whoever waits is where it waits, and can be called off there.
    bed.cancel_one("u").await;
    bed.advance(60_000);
    let lease = bed.take_one().await;
    assert_eq!(place(&lease), (1, "gpt"), "waiting for it, on what is the last route now");
    bed.finish(&lease, Ending::Snoozed { delay_ms: 0 }).await;
    assert_eq!(place(&bed.take_one().await), (1, "haiku"));
    bed.assert_counts_are_right().await;
}

pub async fn costs_are_kept_of_each_attempt_and_bound_the_whole(mut bed: Bed) {
    let cents = |cents: u64| Cost::from_micros(cents * 10_000);
    let mut given = opus("t");
    given.spec.max_cost_usd = Some(cents(100));
    bed.put_all(vec![given]).await;
    let seen = failure(FailureClass::ServerError);
    let mut states = Vec::new();
    for cost in [cents(30), cents(0), cents(69), cents(1)] {
        let lease = bed.take_one().await;
        let settle = Settle { cost, ..settle_of(&lease, Ending::Failed(seen.clone())) };
        match bed.settle(vec![settle]).await.unwrap().remove(0) {
            Settled::Applied { state, .. } => states.push(state),
            other => panic!("{other:?}"),
        }
        bed.reopen().await;
        bed.advance(10_000);
    }
    use TaskState::{Escalated, Scheduled};
    assert_eq!(states, [Scheduled, Scheduled, Scheduled, Escalated]);
    let view = bed.view("t").await;
    assert_eq!((view.ledger.cost_usd, view.max_cost_usd), (cents(100), Some(cents(100))));
    let each: Vec<u64> = view.history.iter().map(|line| line.cost_usd.micros()).collect();
    assert_eq!(each, [300_000, 0, 690_000, 10_000]);
    assert!(view.why.unwrap().contains("cost"));
}

pub async fn every_kind_of_charge_is_shown_and_bounded(bed: Bed) {
    let policy = RetryPolicy { max_deferrals: Some(2), max_releases: Some(2), ..fixed_policy(0) };
    bed.put_queue(&name("default"), policy).await.unwrap();
    let waited = || Ending::Failed(failure(FailureClass::LockTimeout));
    let lease = bed.put_and_take(task("locks").max_attempts(1)).await;
    bed.finish(&lease, waited()).await;
    bed.advance(5_000);
    let lease = bed.take_one().await;
    assert_eq!((lease.ledger.lock_waits, lease.ledger.failed, lease.attempt), (1, 0, 1));
    bed.finish(&lease, Ending::Done(None)).await;
    for (text, ending) in [("off", Ending::Snoozed { delay_ms: 0 }), ("back", Ending::Released)] {
        let lease = bed.put_and_take(task(text)).await;
        assert_eq!(bed.finish(&lease, ending.clone()).await.0, TaskState::Scheduled);
        bed.advance(1_000);
        let lease = bed.take_one().await;
        assert_eq!(bed.finish(&lease, ending).await.0, TaskState::Escalated);
        let view = bed.view(text).await;
        assert_eq!(view.ledger.deferred + view.ledger.released, 2);
        assert!(view.why.unwrap().contains("as often as it may"));
    }
}
