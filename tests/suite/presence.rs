//! `arrive` and `expire_leases`: a run whose presence is over loses its leases, unless it came back elsewhere.

use redrive_coordinator::store::{Arrival, Claim};
use redrive_shared::limits::AGENT_REMEMBERED_MS;
use redrive_shared::task::{Lease, TaskState};

use crate::support::{Bed, beat_with, claim_of, name, task};

/// A started lease of the run `a`, `a-1`, long enough for what is done here.
async fn leased(bed: &Bed) -> Lease {
    bed.put_all(vec![task("t")]).await;
    let claim = Claim { lease_ms: Some(100_000_000), ..claim_of(1) };
    let lease = bed.claim_one(claim).await.leases.remove(0);
    bed.start(&lease).await;
    lease
}

/// Whether the run's leases end when the presence that began so is over.
async fn ends(bed: &Bed, arrival: Arrival) -> bool {
    bed.expire_leases(&name("a"), &name("a-1"), arrival).await.unwrap() > 0
}

async fn arrive(bed: &Bed) -> Arrival {
    bed.arrive(&name("a"), &name("a-1")).await.unwrap()
}

pub async fn the_leases_of_a_run_whose_presence_is_over_end(bed: Bed) {
    leased(&bed).await;
    let arrival = arrive(&bed).await;
    bed.advance(2_000);
    assert!(ends(&bed, arrival).await);
    assert_eq!(bed.reap(10).await.unwrap().reaped.len(), 1);
    assert_eq!(bed.view("t").await.ledger.lost, 1);
}

pub async fn a_run_that_arrived_again_since_keeps_its_leases(bed: Bed) {
    leased(&bed).await;
    let first = arrive(&bed).await;
    bed.advance(1_000);
    arrive(&bed).await;
    bed.advance(1_000);
    assert!(!ends(&bed, first).await);
    // However late the end of the first connection is noticed.
    bed.advance(900_000);
    assert!(!ends(&bed, first).await);
    assert_eq!(bed.state("t").await, TaskState::Leased);
}

pub async fn whoever_knows_the_last_arrival_ends_the_leases(bed: Bed) {
    leased(&bed).await;
    let (first, second) = (arrive(&bed).await, arrive(&bed).await);
    bed.advance(2_000);
    assert!(!ends(&bed, first).await);
    assert!(ends(&bed, second).await);
}

pub async fn an_arrival_is_one_run_s_own(bed: Bed) {
    leased(&bed).await;
    let arrival = arrive(&bed).await;
    bed.arrive(&name("a"), &name("a-2")).await.unwrap();
    bed.arrive(&name("b"), &name("a-1")).await.unwrap();
    assert!(ends(&bed, arrival).await);
}

pub async fn arrivals_of_one_moment_differ(bed: Bed) {
    let mut arrivals = vec![arrive(&bed).await, arrive(&bed).await];
    // Nor does a clock that steps back repeat one.
    bed.advance(-1);
    arrivals.push(arrive(&bed).await);
    assert!(arrivals[0] != arrivals[1] && arrivals[1] != arrivals[2] && arrivals[0] != arrivals[2]);
}

pub async fn a_heartbeat_before_the_break_saves_no_leases(bed: Bed) {
    let lease = leased(&bed).await;
    let arrival = arrive(&bed).await;
    bed.advance(60_000);
    bed.heartbeat(beat_with("a", "a-1", &[&lease])).await.unwrap();
    bed.advance(2_000);
    assert!(ends(&bed, arrival).await);
}

pub async fn an_arrival_that_is_forgotten_by_now_still_ends_leases(bed: Bed) {
    let lease = leased(&bed).await;
    let arrival = arrive(&bed).await;
    bed.advance(AGENT_REMEMBERED_MS.cast_signed() + 1);
    bed.heartbeat(beat_with("a", "a-1", &[&lease])).await.unwrap();
    bed.forget(10).await.unwrap();
    assert!(ends(&bed, arrival).await);
}
