//! Every state and every event: where it leads, or why it does not.

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Claim,
    ClaimTooLate,
    Extend,
    Done,
    Failed,
    FailedForGood,
    NeedsPerson,
    Snoozed,
    Released,
    Undelivered,
    HandedOff,
    Lose,
    Cancel,
    RetryNow,
}

impl Event {
    const ALL: [Self; 14] = [
        Self::Claim,
        Self::ClaimTooLate,
        Self::Extend,
        Self::Done,
        Self::Failed,
        Self::FailedForGood,
        Self::NeedsPerson,
        Self::Snoozed,
        Self::Released,
        Self::Undelivered,
        Self::HandedOff,
        Self::Lose,
        Self::Cancel,
        Self::RetryNow,
    ];
}

/// Lets an event happen to a task under the fence of its last lease.
fn happen(record: &mut Record, fence: Fence, event: Event) -> Result<TaskState, Refused> {
    let seen = failure(FailureClass::ServerError);
    let ended = match event {
        Event::Claim => {
            record.claim(LEASE_MS, Nonce(9), &policy(), NOW_US)?;
            return Ok(record.state);
        }
        Event::ClaimTooLate => {
            let late_us = (record.deadline_ms + 1) * 1_000;
            record.claim(LEASE_MS, Nonce(9), &policy(), late_us)?;
            return Ok(record.state);
        }
        Event::Extend => {
            record.extend(fence, LEASE_MS, NOW_MS)?;
            return Ok(record.state);
        }
        Event::Lose => return Ok(record.lose(&policy(), NOW_US, &mut rng())?.state),
        Event::Cancel => {
            record.cancel(&policy(), NOW_US)?;
            return Ok(record.state);
        }
        Event::RetryNow => {
            record.retry_now(&policy(), NOW_US)?;
            return Ok(record.state);
        }
        Event::Done => Ended::Done,
        Event::Failed => Ended::Failed(&seen),
        Event::FailedForGood => Ended::FailedForGood(&seen),
        Event::NeedsPerson => Ended::NeedsPerson(&seen),
        Event::Snoozed => Ended::Snoozed { delay_ms: 1 },
        Event::Released => Ended::Released,
        Event::Undelivered => Ended::Undelivered,
        Event::HandedOff => Ended::HandedOff,
    };
    Ok(settle_at(record, fence, ended, NOW_MS)?.state)
}

/// The table. No catch-all arm: a new state or event does not build until its place is decided.
fn expected(state: TaskState, event: Event) -> Result<TaskState, Refused> {
    use TaskState::{Cancelled, Dead, Escalated, HandedOff, Leased, Scheduled, Succeeded};
    let wrong = Err(Refused::WrongState(state));
    match (event, state) {
        (Event::Claim, Scheduled) => Ok(Leased),
        (Event::ClaimTooLate, Scheduled) => Ok(Escalated),
        (
            Event::Claim | Event::ClaimTooLate,
            Leased | Succeeded | Dead | Escalated | Cancelled | HandedOff,
        ) => wrong,
        (Event::Lose, Leased) => Ok(Scheduled),
        (Event::Lose, Scheduled | Succeeded | Dead | Escalated | Cancelled | HandedOff) => wrong,
        (Event::Cancel, Scheduled | Leased | Dead | Escalated | Cancelled | HandedOff) => Ok(Cancelled),
        (Event::Cancel, Succeeded) => wrong,
        (Event::RetryNow, Scheduled | Dead | Escalated | Cancelled | HandedOff) => Ok(Scheduled),
        (Event::RetryNow, Leased | Succeeded) => wrong,
        (Event::Extend, Leased) => Ok(Leased),
        // Handed off: whatever comes back is settled once more, as if it were leased.
        (Event::Done, Leased | HandedOff) => Ok(Succeeded),
        (Event::FailedForGood, Leased | HandedOff) => Ok(Dead),
        (Event::NeedsPerson, Leased | HandedOff) => Ok(Escalated),
        (Event::Failed | Event::Snoozed | Event::Released | Event::Undelivered, Leased | HandedOff) => {
            Ok(Scheduled)
        }
        (Event::HandedOff, Leased) => Ok(HandedOff),
        // It is nobody's lease, and not handed off twice.
        (Event::Extend | Event::HandedOff, HandedOff) => Err(Refused::Repeated(state)),
        // Called off, and not settled by its holder.
        (
            Event::Extend
            | Event::Done
            | Event::Failed
            | Event::FailedForGood
            | Event::NeedsPerson
            | Event::Snoozed
            | Event::Released
            | Event::Undelivered
            | Event::HandedOff,
            Cancelled,
        ) => Err(Refused::Stale(state)),
        // Settled by its holder, and untouched since.
        (
            Event::Extend
            | Event::Done
            | Event::Failed
            | Event::FailedForGood
            | Event::NeedsPerson
            | Event::Snoozed
            | Event::Released
            | Event::Undelivered
            | Event::HandedOff,
            Scheduled | Succeeded | Dead | Escalated,
        ) => Err(Refused::Repeated(state)),
    }
}

#[test]
fn every_event_in_every_state_leads_where_the_table_says() {
    for state in TaskState::ALL {
        for event in Event::ALL {
            let (before, fence) = in_state(state);
            let mut record = before.clone();
            let outcome = happen(&mut record, fence, event);
            assert_eq!(outcome, expected(state, event), "{event:?} while {state}");
            match outcome {
                Ok(after) => assert_eq!(record.state, after),
                Err(_) => assert_eq!(record, before, "a refused {event:?} while {state} changes nothing"),
            }
        }
    }
}

#[test]
fn every_transition_raises_the_epoch_but_a_settlement_does_not() {
    for state in TaskState::ALL {
        for event in Event::ALL {
            let (before, fence) = in_state(state);
            let mut record = before.clone();
            if happen(&mut record, fence, event).is_err() {
                continue;
            }
            let raised = match event {
                Event::Claim | Event::ClaimTooLate | Event::Lose | Event::RetryNow => true,
                Event::Cancel => state != TaskState::Cancelled,
                Event::Extend
                | Event::Done
                | Event::Failed
                | Event::FailedForGood
                | Event::NeedsPerson
                | Event::Snoozed
                | Event::Released
                | Event::Undelivered
                | Event::HandedOff => false,
            };
            assert_eq!(record.epoch > before.epoch, raised, "{event:?} while {state}");
            assert_eq!(record.epoch == before.epoch, !raised, "{event:?} while {state}");
        }
    }
}

#[test]
fn a_fence_that_does_not_fit_changes_nothing_in_any_state() {
    for state in TaskState::ALL {
        let (before, fence) = in_state(state);
        let forged = [
            Fence { epoch: fence.epoch - 1, ..fence },
            Fence { epoch: i64::MAX, ..fence },
            Fence { nonce: Nonce(fence.nonce.0 + 1), ..fence },
            Fence { nonce: Nonce(0), ..fence },
            Fence { epoch: 0, nonce: Nonce(0) },
        ];
        for fence in forged {
            let mut record = before.clone();
            assert_eq!(record.extend(fence, LEASE_MS, NOW_MS), Err(Refused::Stale(state)));
            assert_eq!(settle_at(&mut record, fence, Ended::Done, NOW_MS), Err(Refused::Stale(state)));
            assert_eq!(record, before, "{fence:?} while {state}");
        }
    }
}

#[test]
fn what_everyone_can_see_of_a_task_is_never_a_fence() {
    let fresh = enqueued(&start());
    let (mut reaped, _) = in_state(TaskState::Leased);
    reaped.lose(&policy(), NOW_US, &mut rng()).unwrap();
    let (mut retried, _) = in_state(TaskState::Dead);
    retried.retry_now(&policy(), NOW_US).unwrap();
    let (cancelled, _) = in_state(TaskState::Cancelled);
    for mut record in [fresh, reaped, retried, cancelled] {
        for nonce in [Nonce(0), Nonce(1)] {
            let fence = Fence { epoch: record.epoch, nonce };
            let refused = Err(Refused::Stale(record.state));
            assert_eq!(settle_at(&mut record, fence, Ended::Done, NOW_MS), refused);
        }
    }
}

#[test]
fn a_settlement_is_repeated_only_until_something_else_happens() {
    let repeat = |record: &mut Record, fence| settle_at(record, fence, Ended::Done, NOW_MS);
    let (mut record, fence) = in_state(TaskState::Scheduled);
    assert_eq!(repeat(&mut record, fence), Err(Refused::Repeated(TaskState::Scheduled)));
    let second = claim_at(&mut record, 2, NOW_US);
    assert_eq!(repeat(&mut record, fence), Err(Refused::Stale(TaskState::Leased)));
    record.lose(&policy(), NOW_US, &mut rng()).unwrap();
    assert_eq!(repeat(&mut record, second), Err(Refused::Stale(TaskState::Scheduled)));

    let (mut dead, fence) = in_state(TaskState::Dead);
    assert_eq!(repeat(&mut dead, fence), Err(Refused::Repeated(TaskState::Dead)));
    dead.retry_now(&policy(), NOW_US).unwrap();
    assert_eq!(repeat(&mut dead, fence), Err(Refused::Stale(TaskState::Scheduled)));

    let (mut escalated, fence) = in_state(TaskState::Escalated);
    escalated.cancel(&policy(), NOW_US).unwrap();
    assert_eq!(repeat(&mut escalated, fence), Err(Refused::Stale(TaskState::Cancelled)));
}

#[test]
fn a_task_that_is_not_due_cannot_be_claimed() {
    let mut record = enqueued(&Start { delay_ms: 5, ..start() });
    let before = record.clone();
    let early = record.claim(LEASE_MS, Nonce(1), &policy(), NOW_US + 4_999);
    assert_eq!(early, Err(Refused::WrongState(TaskState::Scheduled)));
    assert_eq!(record, before);
    claim_at(&mut record, 1, NOW_US + 5_000);
}

#[test]
fn an_epoch_rises_though_the_clock_goes_back() {
    let (mut record, first) = in_state(TaskState::Scheduled);
    record.due_ms = 0;
    let second = claim_at(&mut record, 2, NOW_US - 3_600_000_000);
    assert_eq!(second.epoch, first.epoch + 1);
    record.cancel(&policy(), 0).unwrap();
    assert_eq!(record.epoch, first.epoch + 2);
}

#[test]
fn an_epoch_is_the_stores_time_where_that_is_later() {
    let mut record = enqueued(&start());
    assert_eq!(record.epoch, NOW_US);
    assert_eq!(claim_at(&mut record, 1, NOW_US + 77).epoch, NOW_US + 77);
}

#[test]
fn only_what_is_finished_is_forgotten() {
    for state in TaskState::ALL {
        let (record, _) = in_state(state);
        let forgotten_ms = match state {
            TaskState::Succeeded | TaskState::Dead | TaskState::Cancelled | TaskState::HandedOff => {
                Some(NOW_MS.saturating_add_unsigned(policy().retention_ms))
            }
            TaskState::Scheduled | TaskState::Leased | TaskState::Escalated => None,
        };
        assert_eq!(record.expires_ms, forgotten_ms, "{state}");
    }
}
