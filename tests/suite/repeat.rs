//! A claim that is repeated with its request id after the deadline of what it was given: late work never starts.

use redrive_coordinator::store::{Claim, Claimed, Extended};
use redrive_shared::task::{AttemptEnd, TaskState};

use crate::support::{Bed, EnqueueExt, claim_of, fence, ids, name, task};

const DEADLINE_MS: u64 = 5_000;

async fn ask(bed: &Bed) -> Claimed {
    bed.claim_one(Claim { request_id: Some(name("r")), ..claim_of(2) }).await
}

/// Gives two tasks to a request; the deadline of `late` is soon.
async fn given(bed: &Bed) -> Claimed {
    bed.put_all(vec![task("late").deadline(DEADLINE_MS), task("in-time")]).await;
    let claimed = ask(bed).await;
    assert_eq!(claimed.leases.len(), 2);
    claimed
}

fn given_ids(claimed: &Claimed) -> Vec<&str> {
    let mut ids: Vec<&str> = claimed.leases.iter().map(|lease| &*lease.id).collect();
    ids.sort_unstable();
    ids
}

pub async fn a_repeated_request_starts_nothing_that_is_too_late_by_now(bed: Bed) {
    let first = given(&bed).await;
    bed.advance(DEADLINE_MS.cast_signed());
    assert_eq!(given_ids(&ask(&bed).await), ["in-time", "late"], "it may still start");
    bed.advance(1);
    let again = ask(&bed).await;
    assert!(again.replayed);
    assert_eq!((given_ids(&again), &again.too_late), (vec!["in-time"], &ids(&["late"])));
    let late = bed.view("late").await;
    assert_eq!((late.state, late.runs, late.ledger.undelivered), (TaskState::Escalated, 0, 0));
    let last = late.history.last().map(|entry| (entry.end, entry.run, entry.started_at_ms));
    assert_eq!(last, Some((AttemptEnd::Undelivered, 0, bed.now_ms())), "as if it had not been leased");
    // Who got the first answer after all starts nothing either.
    let lease = first.leases.iter().find(|lease| &*lease.id == "late").unwrap();
    assert_eq!(bed.extend_one(lease, None).await, Extended::Stale(TaskState::Escalated));
    assert!(ask(&bed).await.too_late.is_empty(), "said once");
    bed.assert_counts_are_right().await;
    let in_time = again.leases.into_iter().next().unwrap();
    assert!(first.leases.iter().any(|lease| fence(lease) == fence(&in_time)), "the same lease");
}

pub async fn a_repeated_request_gets_what_is_late_but_at_work(bed: Bed) {
    for lease in given(&bed).await.leases {
        bed.start(&lease).await;
    }
    bed.advance(DEADLINE_MS.cast_signed() + 1);
    let again = ask(&bed).await;
    assert!(again.replayed && again.too_late.is_empty());
    assert_eq!(given_ids(&again), ["in-time", "late"]);
}

pub async fn a_repeated_request_that_finds_all_too_late_stays_answered(bed: Bed) {
    bed.put_all(vec![task("late").deadline(DEADLINE_MS)]).await;
    assert_eq!(ask(&bed).await.leases.len(), 1);
    bed.advance(DEADLINE_MS.cast_signed() + 1);
    bed.put_all(vec![task("new")]).await;
    let again = ask(&bed).await;
    assert_eq!((again.replayed, again.leases.len(), again.too_late), (true, 0, ids(&["late"])));
    let again = ask(&bed).await;
    assert!(again.replayed && again.leases.is_empty(), "it is the same request");
    assert_eq!(bed.take_ids(2).await, ["new"]);
}
