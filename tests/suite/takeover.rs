//! A start by another run than the one that claimed: the lease is its own from then on.

use redrive_coordinator::store::{Claim, Ending, Extended, Settled};
use redrive_shared::failure::FailureClass;
use redrive_shared::task::{AttemptEnd, Lease, TaskState};

use crate::support::{Bed, START_MS, beat, beat_with, claim_of, failure, name, raw, settle_of, task};

/// Far longer than anything here takes.
const LEASE_MS: u64 = 600_000;

/// Leases of these tasks that the run `a`, `a-1` claimed at once, in order of the ids.
async fn claimed(bed: &Bed, ids: &[&str]) -> Vec<Lease> {
    bed.put_all(ids.iter().map(|id| task(id)).collect()).await;
    let claim = Claim { lease_ms: Some(LEASE_MS), ..claim_of(ids.len()) };
    let mut leases = bed.claim_one(claim).await.leases;
    leases.sort_by(|one, other| one.id.cmp(&other.id));
    leases
}

/// One of two leases of a claim, taken over by the run `b`, `b-1`; and the other, which was started as usual.
async fn taken(bed: &Bed) -> (Lease, Lease) {
    let mut leases = claimed(bed, &["own", "taken"]).await;
    let (taken, own) = (leases.remove(1), leases.remove(0));
    bed.start(&own).await;
    assert!(matches!(bed.take_over(&taken, "b", "b-1").await, Extended::Until(_)));
    (taken, own)
}

/// How many leases end with the presence of a run.
async fn depart(bed: &Bed, agent: &str, boot_id: &str) -> usize {
    let arrival = bed.arrive(&name(agent), &name(boot_id)).await.unwrap();
    bed.expire_leases(&name(agent), &name(boot_id), arrival).await.unwrap()
}

async fn reaped(bed: &Bed) -> Vec<String> {
    bed.reap(10).await.unwrap().reaped.iter().map(|lost| lost.id.to_string()).collect()
}

pub async fn a_lease_taken_over_is_started_and_shown_as_its_takers(bed: Bed) {
    let leases = claimed(&bed, &["t"]).await;
    assert_eq!(bed.take_over(&leases[0], "b", "b-1").await, Extended::Until(START_MS + 600_000));
    assert_eq!(bed.view("t").await.agent, Some(name("b")));
    bed.advance(600_000);
    let round = bed.reap(10).await.unwrap();
    assert!(round.reaped[0].started, "its work began");
    let attempt = &bed.view("t").await.history[0];
    assert_eq!((attempt.end, &attempt.agent), (AttemptEnd::Lost, &Some(name("b"))));
}

pub async fn a_settlement_names_the_taker(mut bed: Bed) {
    for reopened in [false, true] {
        let ids = if reopened { ["c", "d"] } else { ["a", "b"] };
        let leases = claimed(&bed, &ids).await;
        for lease in &leases {
            bed.take_over(lease, "b", "b-1").await;
        }
        if reopened {
            bed.reopen().await;
        }
        let failed = Ending::Failed(failure(FailureClass::ServerError));
        let batch =
            vec![settle_of(&leases[0], Ending::Done(Some(raw("1").into()))), settle_of(&leases[1], failed)];
        let answers = bed.settle(batch).await.unwrap();
        assert!(matches!(answers[0], Settled::Applied { state: TaskState::Succeeded, .. }), "{answers:?}");
        assert!(matches!(answers[1], Settled::Applied { state: TaskState::Scheduled, .. }), "{answers:?}");
        for id in ids {
            let view = bed.view(id).await;
            assert_eq!((view.agent, &view.history[0].agent), (None, &Some(name("b"))));
        }
    }
    bed.assert_counts_are_right().await;
}

pub async fn of_one_claim_each_lease_is_put_down_to_its_own_holder(bed: Bed) {
    let leases = claimed(&bed, &["own", "x", "y"]).await;
    bed.start(&leases[0]).await;
    bed.take_over(&leases[1], "b", "b-1").await;
    bed.take_over(&leases[2], "c", "c-1").await;
    bed.settle(leases.iter().map(|lease| settle_of(lease, Ending::Done(None))).collect()).await.unwrap();
    for (id, agent) in [("own", "a"), ("x", "b"), ("y", "c")] {
        assert_eq!(bed.view(id).await.history[0].agent, Some(name(agent)), "{id}");
    }
    bed.assert_counts_are_right().await;
}

pub async fn the_claimers_silence_ends_its_own_and_not_what_was_taken_over(bed: Bed) {
    bed.heartbeat(beat("a", "a-1")).await.unwrap();
    let (taken, _) = taken(&bed).await;
    bed.advance(10_000);
    bed.heartbeat(beat("b", "b-1")).await.unwrap();
    bed.advance(5_001);
    let round = bed.reap(10).await.unwrap();
    assert_eq!(round.gone, [name("a")]);
    assert_eq!(round.reaped.iter().map(|lost| &*lost.id).collect::<Vec<_>>(), ["own"]);
    assert_eq!(bed.view("taken").await.lease_until_ms, Some(START_MS + 600_000));
    bed.finish(&taken, Ending::Done(None)).await;
}

pub async fn the_takers_silence_ends_what_it_took_over(bed: Bed) {
    bed.heartbeat(beat("b", "b-1")).await.unwrap();
    taken(&bed).await;
    bed.advance(10_000);
    bed.heartbeat(beat("a", "a-1")).await.unwrap();
    bed.advance(5_001);
    let round = bed.reap(10).await.unwrap();
    assert_eq!(round.gone, [name("b")]);
    assert_eq!(round.reaped.iter().map(|lost| &*lost.id).collect::<Vec<_>>(), ["taken"]);
    assert_eq!(bed.view("taken").await.ledger.lost, 1);
}

pub async fn the_presence_that_counts_is_the_takers(bed: Bed) {
    taken(&bed).await;
    assert_eq!(depart(&bed, "b", "b-2").await, 0, "another run of it");
    assert_eq!(depart(&bed, "b", "b-1").await, 1);
    assert_eq!(depart(&bed, "b", "b-1").await, 0);
    assert_eq!(reaped(&bed).await, ["taken"]);
    assert_eq!(depart(&bed, "a", "a-1").await, 1);
    assert_eq!(reaped(&bed).await, ["own"]);
}

pub async fn the_presence_of_the_claimer_ends_nothing_that_was_taken_over(bed: Bed) {
    let (taken, _) = taken(&bed).await;
    assert_eq!(depart(&bed, "a", "a-1").await, 1);
    assert_eq!(reaped(&bed).await, ["own"]);
    bed.finish(&taken, Ending::Done(None)).await;
    bed.assert_counts_are_right().await;
}

pub async fn what_a_run_took_over_ends_with_it_in_whatever_claims_it_was(bed: Bed) {
    let (mut first, second) = (claimed(&bed, &["p", "q"]).await, claimed(&bed, &["r", "s"]).await);
    first.extend(second);
    for lease in &first[1..3] {
        bed.take_over(lease, "b", "b-1").await;
    }
    assert_eq!(depart(&bed, "b", "b-1").await, 2);
    let mut ended = reaped(&bed).await;
    ended.sort_unstable();
    assert_eq!(ended, ["q", "r"]);
    assert_eq!(bed.queue("default").await.counts.leased, 2);
}

pub async fn a_stale_fence_takes_nothing_over(bed: Bed) {
    let leases = claimed(&bed, &["t"]).await;
    let forged = Lease { epoch: leases[0].epoch + 1, ..leases[0].clone() };
    assert_eq!(bed.take_over(&forged, "b", "b-1").await, Extended::Stale(TaskState::Leased));
    let view = bed.view("t").await;
    assert_eq!((view.agent, view.lease_until_ms), (Some(name("a")), Some(START_MS + 600_000)));
    bed.finish(&leases[0], Ending::Done(None)).await;
    assert_eq!(bed.take_over(&leases[0], "b", "b-1").await, Extended::Stale(TaskState::Succeeded));
    assert_eq!(bed.view("t").await.history[0].agent, Some(name("a")));
}

pub async fn who_started_it_first_has_the_lease(bed: Bed) {
    let leases = claimed(&bed, &["t", "u"]).await;
    for _ in 0..2 {
        assert!(
            matches!(bed.take_over(&leases[0], "b", "b-1").await, Extended::Until(_)),
            "as often as it likes"
        );
    }
    // A message that came twice, to somebody else.
    for (agent, boot_id) in [("c", "c-1"), ("a", "a-1"), ("b", "b-2")] {
        assert_eq!(
            bed.take_over(&leases[0], agent, boot_id).await,
            Extended::Stale(TaskState::Leased),
            "{agent}"
        );
        assert_eq!(bed.view("t").await.agent, Some(name("b")));
        assert_eq!(
            depart(&bed, agent, boot_id).await,
            usize::from(agent == "a"),
            "{agent} has what it claimed"
        );
    }
    assert_eq!(depart(&bed, "b", "b-1").await, 1);
}

pub async fn what_its_claimer_has_started_is_nobody_elses(bed: Bed) {
    let leases = claimed(&bed, &["t"]).await;
    bed.start(&leases[0]).await;
    assert_eq!(bed.take_over(&leases[0], "b", "b-1").await, Extended::Stale(TaskState::Leased));
    bed.finish(&leases[0], Ending::Done(None)).await;
    assert_eq!(bed.view("t").await.history[0].agent, Some(name("a")));
}

pub async fn a_claimer_may_take_its_own_lease(bed: Bed) {
    let leases = claimed(&bed, &["t"]).await;
    bed.take_over(&leases[0], "a", "a-1").await;
    assert_eq!(depart(&bed, "a", "a-1").await, 1);
    assert_eq!(reaped(&bed).await, ["t"]);
}

pub async fn a_heartbeat_extends_what_was_taken_over_and_leaves_it_where_it_is(bed: Bed) {
    let lease = bed.put_and_take(task("t")).await;
    bed.take_over(&lease, "b", "b-1").await;
    for _ in 0..5 {
        bed.advance(10_000);
        let beaten = bed.heartbeat(beat_with("b", "b-1", &[&lease])).await.unwrap();
        assert_eq!(beaten.leases, [Extended::Until(bed.now_ms() + 30_000)]);
        assert!(bed.reap(10).await.unwrap().reaped.is_empty());
    }
    assert_eq!(bed.view("t").await.agent, Some(name("b")));
    assert_eq!(depart(&bed, "b", "b-1").await, 1);
}

pub async fn a_run_that_is_gone_and_takes_over_has_until_the_leases_end(bed: Bed) {
    bed.heartbeat(beat("b", "b-1")).await.unwrap();
    bed.advance(15_001);
    assert_eq!(bed.reap(10).await.unwrap().gone, [name("b")]);
    let lease = bed.put_and_take(task("t")).await;
    bed.take_over(&lease, "b", "b-1").await;
    bed.advance(29_999);
    assert!(reaped(&bed).await.is_empty());
    bed.advance(1);
    assert_eq!(reaped(&bed).await, ["t"]);
}

pub async fn a_repeated_request_gets_nothing_that_another_took_over(bed: Bed) {
    bed.put_all(vec![task("own"), task("taken")]).await;
    let ask = async || bed.claim_one(Claim { request_id: Some(name("r")), ..claim_of(2) }).await;
    let first = ask().await;
    let of = |id: &str| first.leases.iter().find(|lease| &*lease.id == id).expect("it was given");
    bed.take_over(of("taken"), "b", "b-1").await;
    let again = ask().await;
    assert!(again.replayed && again.too_late.is_empty());
    assert_eq!(again.leases.iter().map(|lease| &*lease.id).collect::<Vec<_>>(), ["own"]);
}

pub async fn a_task_taken_over_can_be_called_off(bed: Bed) {
    let (taken, own) = taken(&bed).await;
    bed.cancel_one("taken").await;
    let view = bed.view("taken").await;
    assert_eq!((view.state, &view.history[0].agent), (TaskState::Cancelled, &Some(name("b"))));
    assert_eq!(bed.settle_one(&taken, Ending::Done(None)).await, Settled::Stale(TaskState::Cancelled));
    bed.finish(&own, Ending::Done(None)).await;
    bed.assert_counts_are_right().await;
}

pub async fn the_lease_after_has_nothing_of_who_took_the_one_before_over(bed: Bed) {
    let lease = bed.put_and_take(task("t")).await;
    bed.take_over(&lease, "b", "b-1").await;
    bed.finish(&lease, Ending::Released).await;
    bed.advance(1_000);
    let next = bed.take_one().await;
    assert_eq!(bed.view("t").await.agent, Some(name("a")));
    assert_eq!(depart(&bed, "b", "b-1").await, 0);
    bed.start(&next).await;
    assert_eq!(depart(&bed, "a", "a-1").await, 1);
}

pub async fn who_took_over_what_is_still_known_when_the_store_is_opened_again(mut bed: Bed) {
    taken(&bed).await;
    bed.reopen().await;
    assert_eq!(bed.view("taken").await.agent, Some(name("b")));
    assert_eq!(depart(&bed, "b", "b-1").await, 1);
    // Leases from before it was opened are left alone for a while.
    bed.advance(10_000);
    assert_eq!(reaped(&bed).await, ["taken"]);
}
