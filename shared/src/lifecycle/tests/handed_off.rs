//! What was given back to where it came from, and what may still be heard of it.

use super::*;

/// Every ending but the one that handed it off.
fn endings(seen: &FailureRecord) -> [Ended<'_>; 7] {
    [
        Ended::Done,
        Ended::Failed(seen),
        Ended::FailedForGood(seen),
        Ended::NeedsPerson(seen),
        Ended::Snoozed { delay_ms: 77 },
        Ended::Released,
        Ended::Undelivered,
    ]
}

#[test]
fn what_comes_back_is_judged_exactly_as_if_the_task_were_leased() {
    let seen = failure(FailureClass::ServerError);
    for ended in endings(&seen) {
        let (mut leased, fence) = in_state(TaskState::Leased);
        let mut handed_off = leased.clone();
        let verdict = settle_at(&mut handed_off, fence, Ended::HandedOff, NOW_MS).unwrap();
        assert_eq!((verdict.state, verdict.end), (TaskState::HandedOff, AttemptEnd::HandedOff));
        let later_ms = NOW_MS + 3_600_000;
        let verdict = settle_at(&mut handed_off, fence, ended, later_ms);
        assert_eq!(verdict, settle_at(&mut leased, fence, ended, later_ms), "{ended:?}");
        assert_eq!(handed_off, leased, "{ended:?}");
    }
}

#[test]
fn it_is_settled_once_more_and_not_twice() {
    let seen = failure(FailureClass::ServerError);
    for ended in endings(&seen) {
        let (mut record, fence) = in_state(TaskState::HandedOff);
        let state = settle_at(&mut record, fence, ended, NOW_MS).unwrap().state;
        let before = record.clone();
        for again in endings(&seen).into_iter().chain([Ended::HandedOff]) {
            assert_eq!(settle_at(&mut record, fence, again, NOW_MS), Err(Refused::Repeated(state)));
        }
        assert_eq!(record, before);
    }
}

#[test]
fn handing_it_off_again_is_a_repeat_that_changes_nothing() {
    let (mut record, fence) = in_state(TaskState::HandedOff);
    let before = record.clone();
    let again = settle_at(&mut record, fence, Ended::HandedOff, NOW_MS + 1);
    assert_eq!(again, Err(Refused::Repeated(TaskState::HandedOff)));
    assert_eq!(record, before);
}

#[test]
fn whoever_sends_it_round_again_voids_the_fence_that_it_left_with() {
    let (mut record, fence) = in_state(TaskState::HandedOff);
    record.retry_now(&policy(), NOW_US).unwrap();
    assert_eq!((record.state, record.expires_ms), (TaskState::Scheduled, None));
    let late = settle_at(&mut record, fence, Ended::Done, NOW_MS);
    assert_eq!(late, Err(Refused::Stale(TaskState::Scheduled)));
}

#[test]
fn a_failure_that_comes_back_uses_up_attempts() {
    let seen = failure(FailureClass::ServerError);
    let mut record = enqueued(&Start { max_attempts: Some(2), ..start() });
    for expected in [TaskState::Scheduled, TaskState::Dead] {
        let due_ms = record.due_ms;
        let fence = claim_at(&mut record, 3, due_ms * 1_000);
        settle_at(&mut record, fence, Ended::HandedOff, due_ms).unwrap();
        assert_eq!(settle_at(&mut record, fence, Ended::Failed(&seen), due_ms).unwrap().state, expected);
    }
    assert_eq!(record.ledger.failed, 2);
}
