//! Tests of the state machine: its table, its charges, and what holds for every sequence of events.

mod bounds;
mod charges;
mod handed_off;
mod properties;
mod routes;
mod table;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;
use crate::failure::FailureClass;
use crate::retry::Strategy;

const NOW_MS: i64 = 1_760_000_000_000;
const NOW_US: i64 = NOW_MS * 1_000;
const LEASE_MS: u64 = 30_000;

fn rng() -> SmallRng {
    SmallRng::seed_from_u64(7)
}

/// A server error waits exactly 10 s.
fn policy() -> RetryPolicy {
    RetryPolicy { strategy: Strategy::Fixed { delay_ms: 10_000 }, ..RetryPolicy::default() }
}

fn failure(class: FailureClass) -> FailureRecord {
    FailureRecord {
        class,
        retryable: true,
        retry_after_ms: None,
        message: String::new(),
        fingerprint: String::new(),
    }
}

fn start() -> Start<'static> {
    Start {
        attempts_made: 0,
        failure: None,
        max_attempts: None,
        strategy: None,
        max_cost: None,
        route: 0,
        delay_ms: 0,
        deadline_ms: None,
    }
}

fn enqueued(start: &Start<'_>) -> Record {
    Record::enqueue(start, &policy(), NOW_US, &mut rng()).0
}

/// Claims a task at an instant, and returns what its holder must show.
fn claim_at(record: &mut Record, nonce: u64, now_us: i64) -> Fence {
    let claimed = record.claim(LEASE_MS, Nonce(nonce), &policy(), now_us);
    assert_eq!(claimed, Ok(None));
    Fence { epoch: record.epoch, nonce: record.nonce }
}

fn settle_at(record: &mut Record, fence: Fence, ended: Ended<'_>, now_ms: i64) -> Result<Verdict, Refused> {
    record.settle(fence, ended, &policy(), now_ms, &mut rng())
}

/// A task in a state, as it most often comes there, with the fence of its last lease.
fn in_state(state: TaskState) -> (Record, Fence) {
    let seen = failure(FailureClass::ServerError);
    let mut record = enqueued(&start());
    let fence = claim_at(&mut record, 1, NOW_US);
    let ended = match state {
        TaskState::Leased => return (record, fence),
        TaskState::Cancelled => {
            record.cancel(&policy(), NOW_US).unwrap();
            return (record, fence);
        }
        TaskState::Scheduled => Ended::Snoozed { delay_ms: 0 },
        TaskState::Succeeded => Ended::Done,
        TaskState::Dead => Ended::FailedForGood(&seen),
        TaskState::Escalated => Ended::NeedsPerson(&seen),
        TaskState::HandedOff => Ended::HandedOff,
    };
    settle_at(&mut record, fence, ended, NOW_MS).unwrap();
    assert_eq!(record.state, state);
    (record, fence)
}
