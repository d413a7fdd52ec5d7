//! Locks of an attempt.

use std::time::Duration;

use redrive_shared::failure::FailureClass;
use redrive_shared::lock::{Resource, Token};
use redrive_shared::wire::Outcome;

use super::super::{CancelReason, ContextError, Wanted};
use super::fake::FakeAttempts;
use super::next_attempt;

fn report() -> Wanted {
    Wanted { exclusive: vec![Resource::new("report.md").unwrap()], ..Wanted::default() }
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
async fn what_a_handler_leaves_behind_is_given_back_and_stops_nobody() {
    let link = FakeAttempts::new();
    let (ctx, stop) = next_attempt(&link);
    let kept = ctx.lock(report()).await.unwrap();
    drop(ctx.lock(report()).await.unwrap());
    let returned = ctx.lock(report()).await.unwrap();
    assert!(returned.release().await.unwrap());
    ctx.release_locks().await;
    let mut released = link.state().released.clone();
    released.sort_unstable();
    assert_eq!(released, [Token(1), Token(2), Token(3)], "each once");
    link.state().lock_lost = true;
    kept.lost().cancelled().await;
    assert_eq!(stop.reason(), None, "it was given back, not lost");
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
