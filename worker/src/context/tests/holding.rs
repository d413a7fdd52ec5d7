//! Locks of an attempt.

use std::time::Duration;

use redrive_shared::failure::FailureClass;
use redrive_shared::lock::{Resource, Token};
use redrive_shared::wire::Outcome;

use super::super::{CancelReason, ContextError, Wanted};
use super::fake::FakeAttempts;
use super::next_attempt;

fn of(resources: &[&str]) -> Wanted {
    let exclusive = resources.iter().map(|name| Resource::new(*name).unwrap()).collect();
    Wanted { exclusive, ..Wanted::default() }
}

fn report() -> Wanted {
    of(&["report.md"])
}

#[tokio::test(start_paused = true)]
async fn a_lost_lock_stops_the_handler() {
    let link = FakeAttempts::new();
    let (ctx, stop) = next_attempt(&link);
    let held = ctx.lock(report()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(stop.reason(), None, "it is renewed");
    link.state().lock_lost = true;
    assert_eq!(stop.wait().await, CancelReason::LockLost);
    held.lost().cancelled().await;
    ctx.release_locks().await;
    assert!(link.state().released.is_empty(), "what is lost is not given back");
}

#[tokio::test(start_paused = true)]
async fn what_a_handler_leaves_behind_is_held_to_the_end_and_then_given_back() {
    let link = FakeAttempts::new();
    let (ctx, stop) = next_attempt(&link);
    let kept = ctx.lock(of(&["a"])).await.unwrap();
    drop(ctx.lock(of(&["b"])).await.unwrap());
    assert!(ctx.lock(of(&["c"])).await.unwrap().release().await.unwrap());
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(link.state().released, [Token(3)]);
    assert!([1, 2].iter().all(|token| link.state().is_held(*token)), "they are renewed");
    ctx.release_locks().await;
    assert_eq!(link.state().released, [Token(3), Token(1), Token(2)], "each once");
    kept.lost().cancelled().await;
    assert_eq!(stop.reason(), None, "it was given back, not lost");
}

#[tokio::test(start_paused = true)]
async fn the_loss_of_a_lock_that_was_dropped_stops_the_handler_too() {
    let link = FakeAttempts::new();
    let (ctx, stop) = next_attempt(&link);
    drop(ctx.lock(report()).await.unwrap());
    link.state().lock_lost = true;
    assert_eq!(stop.wait().await, CancelReason::LockLost);
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_for_twice_is_given_back_by_the_second_release() {
    let link = FakeAttempts::new();
    let (ctx, stop) = next_attempt(&link);
    let outer = ctx.lock(of(&["a", "b"])).await.unwrap();
    let inner = ctx.lock(Wanted { ttl: Some(Duration::from_secs(1)), ..of(&["a"]) }).await.unwrap();
    assert_eq!(outer.token(), inner.token());
    assert!(inner.release().await.unwrap());
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(link.state().is_held(1), "the time that was asked for last counts, and it is renewed within");
    assert_eq!((stop.reason(), outer.lost().is_cancelled()), (None, false));
    assert!(outer.release().await.unwrap());
    assert_eq!(link.state().released, [Token(1)]);
}

#[tokio::test(start_paused = true)]
async fn what_is_granted_again_while_it_is_given_back_is_not_taken_for_held() {
    let link = FakeAttempts::new();
    let (ctx, stop) = next_attempt(&link);
    let outer = ctx.lock(report()).await.unwrap();
    link.state().slow_grants = 1;
    let (again, released) = tokio::join!(ctx.lock(report()), async {
        tokio::task::yield_now().await;
        outer.release().await
    });
    assert!(released.unwrap());
    let again = again.unwrap();
    assert_eq!(again.token(), Token(2), "the first is gone");
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(link.state().is_held(2) && stop.reason().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_release_that_fails_is_repeated_when_the_attempt_ends() {
    let link = FakeAttempts::new();
    let (ctx, stop) = next_attempt(&link);
    let held = ctx.lock(report()).await.unwrap();
    link.state().releases_away = 1;
    assert!(matches!(held.release().await, Err(ContextError::Unavailable(_))));
    assert!(link.state().released.is_empty());
    ctx.release_locks().await;
    assert_eq!(link.state().released, [Token(1)]);
    assert_eq!(stop.reason(), None);
}

#[tokio::test(start_paused = true)]
async fn a_lock_whose_call_was_dropped_after_its_grant_is_given_back() {
    let link = FakeAttempts::new();
    let (ctx, _) = next_attempt(&link);
    link.state().renewals_hang = 1;
    let waits = Wanted { wait: Duration::from_secs(5), ..report() };
    let dropped = tokio::time::timeout(Duration::from_secs(1), ctx.lock(waits)).await;
    assert!(dropped.is_err(), "it was granted, and is not confirmed yet");
    ctx.release_locks().await;
    assert_eq!(link.state().released, [Token(1)]);
}

#[tokio::test(start_paused = true)]
async fn where_the_work_may_go_on_locks_end_by_themselves() {
    let link = FakeAttempts::new();
    let (ctx, stop) = next_attempt(&link);
    let held = ctx.lock(report()).await.unwrap();
    ctx.leave_locks();
    assert!(held.lost().is_cancelled() && link.state().is_held(1));
    tokio::time::sleep(Duration::from_secs(31)).await;
    ctx.release_locks().await;
    assert!(!link.state().is_held(1) && link.state().released.is_empty());
    assert_eq!(stop.reason(), None);
}

#[tokio::test(start_paused = true)]
async fn who_outlives_the_attempt_gets_no_lock() {
    let link = FakeAttempts::new();
    let (ctx, _) = next_attempt(&link);
    ctx.lock(report()).await.unwrap();
    ctx.leave_locks();
    let error = ctx.lock(report()).await.unwrap_err();
    assert!(matches!(error, ContextError::Stopped(CancelReason::LeaseLost)), "{error}");
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert!(!link.state().is_held(1) && link.state().released.is_empty(), "it ends by itself");
}

#[tokio::test]
async fn a_lease_that_is_over_stops_who_asks_for_a_lock() {
    let link = FakeAttempts::new();
    let (ctx, stop) = next_attempt(&link);
    link.state().stale = true;
    let error = ctx.lock(report()).await.unwrap_err();
    assert!(matches!(error, ContextError::Stopped(CancelReason::LeaseLost)), "{error}");
    assert_eq!(stop.reason(), Some(CancelReason::LeaseLost));
}

#[tokio::test]
async fn a_lock_that_is_not_had_charges_a_wait_and_no_attempt() {
    let link = FakeAttempts::new();
    let (ctx, _) = next_attempt(&link);
    link.state().lock_busy = true;
    let error = ctx.lock(report()).await.unwrap_err();
    assert!(matches!(error, ContextError::LockBusy(_)));
    let Outcome::Retry { failure, .. } = error.into() else { panic!("the policy decides") };
    assert_eq!(failure.class, Some(FailureClass::LockTimeout));
}

#[tokio::test]
async fn a_handler_that_is_to_stop_gets_no_lock() {
    let link = FakeAttempts::new();
    let (ctx, stop) = next_attempt(&link);
    stop.now(CancelReason::Draining);
    let error = ctx.lock(report()).await.unwrap_err();
    assert!(matches!(error, ContextError::Stopped(CancelReason::Draining)));
    assert_eq!(link.state().granted, 0);
}
