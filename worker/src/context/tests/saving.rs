//! Steps, checkpoints and their states.

use std::sync::atomic::{AtomicU32, Ordering};

use redrive_shared::checkpoint::STATES_MAX_BYTES;
use redrive_shared::error::ErrorCode;
use redrive_shared::failure::FailureClass;
use redrive_shared::wire::Outcome;
use serde_json::{Value, json};

use super::super::{CancelReason, ContextError};
use super::fake::FakeAttempts;
use super::{MAX_BLOB_BYTES, next_attempt};

fn seqs(link: &FakeAttempts) -> Vec<u64> {
    link.state().arrived.iter().map(|request| request.seq).collect()
}

#[tokio::test]
async fn what_was_done_is_not_done_again_by_the_next_attempt() {
    let (link, runs) = (FakeAttempts::new(), AtomicU32::new(0));
    for _ in 0..2 {
        let (ctx, _) = next_attempt(&link);
        let work = || async {
            runs.fetch_add(1, Ordering::Relaxed);
            Ok::<_, ContextError>(vec![1, 2, 3])
        };
        assert_eq!(ctx.step("fetch", work).await.unwrap(), [1, 2, 3]);
        assert_eq!(ctx.completed::<Value>("fetch").await.unwrap(), Some(json!([1, 2, 3])));
        assert_eq!(ctx.completed::<Value>("write").await.unwrap(), None);
    }
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    assert_eq!(seqs(&link), [1]);
}

#[tokio::test]
async fn a_step_that_fails_saves_nothing() {
    let link = FakeAttempts::new();
    let (ctx, _) = next_attempt(&link);
    let failed: Result<u32, Outcome> = ctx.step("fetch", || async { Err(Outcome::release()) }).await;
    assert!(failed.is_err());
    assert!(link.state().progress.is_empty());
}

#[tokio::test]
async fn progress_is_no_completion_and_can_be_read_back() {
    let link = FakeAttempts::new();
    let (ctx, _) = next_attempt(&link);
    ctx.progress("fetch", &7).await.unwrap();
    let (ctx, _) = next_attempt(&link);
    assert_eq!(ctx.completed::<u32>("fetch").await.unwrap(), None);
    assert_eq!(ctx.reached::<u32>("fetch").await.unwrap(), Some(7));
    ctx.checkpoint("fetch", &9).await.unwrap();
    assert_eq!(ctx.reached::<u32>("fetch").await.unwrap(), Some(9));
    assert_eq!(seqs(&link), [1, 2], "the second attempt counts on");
}

#[tokio::test]
async fn the_plan_goes_with_the_next_checkpoint_and_once() {
    let link = FakeAttempts::new();
    let (ctx, _) = next_attempt(&link);
    ctx.plan(&["fetch", "read", "write"]).unwrap();
    ctx.checkpoint("fetch", &1).await.unwrap();
    ctx.checkpoint("read", &1).await.unwrap();
    let planned: Vec<_> = link.state().arrived.iter().map(|request| request.pending.is_some()).collect();
    assert_eq!(planned, [true, false]);
    assert_eq!(link.state().progress.pending.iter().map(|step| &**step).collect::<Vec<_>>(), ["write"]);
    assert!(matches!(ctx.plan(&["a step"]), Err(ContextError::Invalid(_))));
}

#[tokio::test(start_paused = true)]
async fn while_the_coordinator_is_away_the_same_checkpoint_is_sent_again() {
    for carried_out in [false, true] {
        let link = FakeAttempts::new();
        let (ctx, _) = next_attempt(&link);
        (link.state().away, link.state().carried_out) = (5, carried_out);
        ctx.checkpoint("fetch", &json!({"pages": 7})).await.unwrap();
        assert_eq!(seqs(&link), [1; 6]);
        ctx.checkpoint("write", &1).await.unwrap();
        assert_eq!(link.state().progress.seq, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_ends_the_waiting() {
    let link = FakeAttempts::new();
    let (ctx, stop) = next_attempt(&link);
    link.state().away = u32::MAX;
    let (saved, ()) = tokio::join!(ctx.checkpoint("fetch", &1), async {
        tokio::time::sleep(std::time::Duration::from_secs(20)).await;
        stop.now(CancelReason::LeaseLost);
    });
    assert!(matches!(saved, Err(ContextError::Stopped(CancelReason::LeaseLost))), "{saved:?}");
    let before = seqs(&link).len();
    assert!(ctx.checkpoint("write", &1).await.is_err());
    assert_eq!(seqs(&link).len(), before, "nothing more is sent under a lease that is over");
}

#[tokio::test]
async fn a_stale_epoch_stops_the_handler() {
    let link = FakeAttempts::new();
    let (ctx, stop) = next_attempt(&link);
    link.state().stale = true;
    let saved = ctx.checkpoint("fetch", &1).await;
    assert!(matches!(saved, Err(ContextError::Stopped(CancelReason::LeaseLost))), "{saved:?}");
    assert_eq!(stop.reason(), Some(CancelReason::LeaseLost));
    assert_eq!(ctx.completed::<u32>("fetch").await.unwrap(), None);
}

#[tokio::test]
async fn a_handler_that_is_to_stop_may_still_save_what_it_has() {
    for reason in [CancelReason::Draining, CancelReason::Timeout, CancelReason::LockLost] {
        let link = FakeAttempts::new();
        let (ctx, stop) = next_attempt(&link);
        stop.now(reason);
        ctx.progress("fetch", &3).await.unwrap();
        assert_eq!(link.state().progress.seq, 1, "{reason:?}");
    }
}

#[tokio::test]
async fn a_large_state_becomes_a_blob_and_comes_back() {
    let link = FakeAttempts::new();
    let (ctx, _) = next_attempt(&link);
    let large = "x".repeat(STATES_MAX_BYTES + 1);
    ctx.checkpoint("fetch", &large).await.unwrap();
    let (ctx, _) = next_attempt(&link);
    assert_eq!(link.state().blobs.len(), 1);
    assert_eq!(ctx.completed::<String>("fetch").await.unwrap(), Some(large));
}

#[tokio::test]
async fn states_that_are_too_large_together_become_blobs() {
    let link = FakeAttempts::new();
    let (ctx, _) = next_attempt(&link);
    let half = "x".repeat(STATES_MAX_BYTES * 2 / 3);
    for step in ["one", "two", "three"] {
        ctx.checkpoint(step, &half).await.unwrap();
    }
    assert_eq!(link.state().blobs.len(), 2);
    for step in ["one", "two", "three"] {
        assert_eq!(ctx.completed::<String>(step).await.unwrap().as_ref(), Some(&half), "{step}");
    }
}

/// The coordinator makes blobs of states, has room for more than lies here inline, and says nothing of it.
#[tokio::test]
async fn what_was_acknowledged_is_known_however_the_coordinator_keeps_it() {
    let link = FakeAttempts::new();
    link.state().states_from_bytes = Some(16 * 1024);
    let (ctx, _) = next_attempt(&link);
    let page = "x".repeat(STATES_MAX_BYTES / 10);
    for step in 0..20 {
        let step = format!("page-{step}");
        ctx.checkpoint(&step, &page).await.unwrap();
        assert_eq!(ctx.completed::<String>(&step).await.unwrap().as_ref(), Some(&page), "{step}");
    }
    // Together that is more than there is room for here. A small one is no blob for that.
    let rows = "x".repeat(STATES_MAX_BYTES / 30);
    for part in 0..5 {
        let step = format!("part-{part}");
        ctx.progress(&step, &rows).await.unwrap();
        assert_eq!(ctx.reached::<String>(&step).await.unwrap().as_ref(), Some(&rows), "{step}");
    }
    assert_eq!(link.state().blobs.len(), 20);
}

#[tokio::test]
async fn what_comes_garbled_is_fetched_again_and_never_taken_for_whole() {
    let link = FakeAttempts::new();
    let (ctx, _) = next_attempt(&link);
    let large = "x".repeat(STATES_MAX_BYTES + 1);
    ctx.checkpoint("fetch", &large).await.unwrap();
    link.state().garbled = 2;
    assert_eq!(ctx.completed::<String>("fetch").await.unwrap(), Some(large));
    (link.state().garbled, link.state().transfers) = (3, 0);
    let error = ctx.completed::<String>("fetch").await.unwrap_err();
    assert!(error.to_string().contains("should have 262147 bytes"), "{error}");
    assert_eq!(link.state().transfers, 3, "not without end");
    link.state().garbled = 0;
    link.state().blobs.clear();
    let gone = ctx.completed::<String>("fetch").await.unwrap_err();
    assert!(matches!(&gone, ContextError::Refused(problem) if problem.code == ErrorCode::UnknownBlob));
}

#[tokio::test]
async fn more_than_may_be_kept_is_refused_before_it_is_sent() {
    let link = FakeAttempts::new();
    let (ctx, _) = next_attempt(&link);
    let error = ctx.checkpoint("fetch", &"x".repeat(MAX_BLOB_BYTES as usize)).await.unwrap_err();
    assert!(error.to_string().contains("worker.max_blob_bytes"), "{error}");
    let Outcome::Retry { failure, .. } = error.into() else { panic!("a failure") };
    assert_eq!(failure.class, Some(FailureClass::InvalidRequest));
    assert!(link.state().arrived.is_empty() && link.state().blobs.is_empty());
}

#[tokio::test]
async fn what_is_not_what_was_expected_says_so() {
    let link = FakeAttempts::new();
    let (ctx, _) = next_attempt(&link);
    ctx.checkpoint("fetch", &"text").await.unwrap();
    let error = ctx.completed::<u32>("fetch").await.unwrap_err();
    assert!(error.to_string().starts_with("the state of \"fetch\" cannot be used"), "{error}");
}

#[tokio::test]
async fn a_call_that_was_dropped_is_never_taken_for_the_next() {
    let link = FakeAttempts::new();
    let (ctx, _) = next_attempt(&link);
    link.state().away = u32::MAX;
    let dropped = tokio::time::timeout(std::time::Duration::from_millis(20), ctx.checkpoint("fetch", &1));
    assert!(dropped.await.is_err());
    link.state().away = 0;
    ctx.checkpoint("write", &2).await.unwrap();
    let state = link.state();
    let last = state.arrived.last().unwrap();
    assert_eq!((last.seq, &*last.step), (2, "write"));
}

#[test]
fn side_effects_are_named_by_task_and_step_alone() {
    let link = FakeAttempts::new();
    let (ctx, _) = next_attempt(&link);
    assert_eq!(ctx.side_effect_key("charge"), "task:charge");
}
