//! What gates do to claims: lanes of a dependency that is restricted are passed over, and whoever asked is told.

use redrive_coordinator::store::{Claim, Claimed, Ending, Restriction};
use redrive_shared::failure::FailureClass;
use redrive_shared::gate::Scope;
use redrive_shared::task::{Priority, TaskState};

use crate::support::{
    Bed, EnqueueExt, START_MS, claim_of, failure, fixed_policy, ids, name, of_dependency, task,
};

fn at_most(dependency: &str, most: u32) -> Restriction {
    some_of(of_dependency(dependency), most)
}

fn some_of(scope: Scope, most: u32) -> Restriction {
    Restriction { scope, any: Some(most), retries: None }
}

fn shut(dependency: &str) -> Restriction {
    at_most(dependency, 0)
}

/// Of those that were tried before.
fn at_most_retries(dependency: &str, most: u32) -> Restriction {
    Restriction { scope: of_dependency(dependency), any: None, retries: Some(most) }
}

async fn claim(bed: &Bed, claim: Claim, gates: &[Restriction]) -> Claimed {
    bed.claim(vec![claim], gates).await.unwrap().remove(0)
}

/// Claims up to `max` tasks of the queue `default`.
async fn take(bed: &Bed, max: usize, gates: &[Restriction]) -> Claimed {
    claim(bed, claim_of(max), gates).await
}

fn given(claimed: &Claimed) -> Vec<&str> {
    let mut ids: Vec<&str> = claimed.leases.iter().map(|lease| &*lease.id).collect();
    ids.sort_unstable();
    ids
}

/// The dependencies that held something back.
fn held_back(claimed: &Claimed) -> Vec<&str> {
    claimed.held_back.iter().filter_map(|scope| Some(scope.dependency()?.as_str())).collect()
}

/// A task that failed once before it came, and is due.
fn retry(text: &str) -> redrive_coordinator::store::Enqueue {
    task(text).attempts_made(1)
}

pub async fn what_is_behind_a_shut_gate_waits_and_is_told_of(bed: Bed) {
    bed.put_all(vec![task("free"), task("sick").needs("sick"), task("well").needs("well")]).await;
    let claimed = take(&bed, 10, &[shut("sick")]).await;
    assert_eq!(given(&claimed), ["free", "well"]);
    assert_eq!(held_back(&claimed), ["sick"]);
    assert_eq!(claimed.next_due_ms, None, "no due time lets it through");
    let sick = bed.view("sick").await;
    assert_eq!((sick.state, sick.due_at_ms, sick.epoch), (TaskState::Scheduled, START_MS, START_MS * 1_000));
    let claimed = take(&bed, 10, &[]).await;
    assert_eq!((given(&claimed), held_back(&claimed)), (vec!["sick"], vec![]));
}

pub async fn nothing_is_told_of_a_gate_behind_which_nothing_waits(bed: Bed) {
    bed.put_queue(&name("other"), fixed_policy(1)).await.unwrap();
    bed.put_all(vec![task("well").needs("well"), task("elsewhere").on("other").needs("sick")]).await;
    let claimed = take(&bed, 10, &[shut("sick"), shut("unknown")]).await;
    assert_eq!((given(&claimed), held_back(&claimed)), (vec!["well"], vec![]));
    let queues = vec![name("default"), name("other")];
    assert_eq!(held_back(&claim(&bed, Claim { queues, ..claim_of(9) }, &[shut("sick")]).await), ["sick"]);
    assert!(bed.pause(&name("other"), true).await.unwrap());
    let queues = vec![name("other")];
    assert_eq!(held_back(&claim(&bed, Claim { queues, ..claim_of(9) }, &[shut("sick")]).await), [""; 0]);
}

pub async fn what_a_claim_avoids_is_not_held_back_from_it(bed: Bed) {
    bed.put_all(vec![task("a").needs("a"), task("b").needs("b")]).await;
    let avoiding = Claim { avoid: vec![name("a")], ..claim_of(9) };
    let claimed = claim(&bed, avoiding, &[shut("a"), shut("b")]).await;
    assert_eq!((given(&claimed), held_back(&claimed)), (vec![], vec!["b"]));
}

pub async fn gates_are_told_of_in_their_order_and_once(bed: Bed) {
    let needing = |text: &str| task(text).needs(text);
    bed.put_all(["c", "a", "b"].map(needing).to_vec()).await;
    bed.put_all(vec![task("a-2").needs("a").group("g"), task("a-3").needs("a").priority(Priority::Low)])
        .await;
    let gates = [shut("b"), shut("c"), at_most("d", 3), shut("a"), shut("b")];
    assert_eq!(held_back(&take(&bed, 9, &gates).await), ["b", "c", "a"]);
}

pub async fn what_becomes_due_behind_a_shut_gate_is_noticed_then(bed: Bed) {
    bed.put_all(vec![task("t").needs("sick").delay(5_000), task("later").delay(60_000)]).await;
    let claimed = take(&bed, 9, &[shut("sick")]).await;
    assert_eq!((held_back(&claimed), claimed.next_due_ms), (vec![], Some(START_MS + 5_000)));
    bed.advance(5_000);
    let claimed = take(&bed, 9, &[shut("sick")]).await;
    assert_eq!((held_back(&claimed), claimed.next_due_ms), (vec!["sick"], Some(START_MS + 60_000)));
    assert_eq!(given(&take(&bed, 9, &[]).await), ["t"]);
}

pub async fn a_gate_lets_so_many_through_and_no_more(bed: Bed) {
    let sick = |number: u32| task(&format!("s{number:02}")).needs("sick").group(&format!("g{}", number % 7));
    bed.put_all((0..40).map(sick).collect()).await;
    bed.put_all((0..5).map(|number| task(&format!("w{number}"))).collect()).await;
    let claimed = take(&bed, 100, &[at_most("sick", 11)]).await;
    assert_eq!(claimed.leases.len(), 16);
    assert_eq!(given(&claimed).iter().filter(|id| id.starts_with('s')).count(), 11);
    assert_eq!((held_back(&claimed), claimed.next_due_ms), (vec!["sick"], None));
    let claimed = take(&bed, 5, &[at_most("sick", 11)]).await;
    assert_eq!(claimed.leases.len(), 5, "it wanted no more");
    let claimed = take(&bed, 100, &[at_most("sick", 24)]).await;
    assert_eq!((claimed.leases.len(), held_back(&claimed)), (24, vec![]), "nothing waits any more");
    bed.assert_counts_are_right().await;
}

pub async fn claims_of_one_call_share_what_a_gate_lets_through(bed: Bed) {
    bed.put_all((0..30).map(|number| task(&format!("s{number}")).needs("sick")).collect()).await;
    bed.put_all((0..4).map(|number| task(&format!("w{number}"))).collect()).await;
    let gates = [at_most("sick", 7), shut("another")];
    let claims = vec![claim_of(5), claim_of(5), claim_of(5), claim_of(5)];
    let claimed = bed.claim(claims, &gates).await.unwrap();
    let ids: std::collections::BTreeSet<&str> = claimed.iter().flat_map(given).collect();
    assert_eq!(ids.iter().filter(|id| id.starts_with('s')).count(), 7);
    assert_eq!(ids.len(), 11, "and everything else");
    assert!(claimed.iter().any(|one| held_back(one) == ["sick"]));
    let unfilled = claimed.iter().filter(|one| one.leases.len() < 5);
    assert!(unfilled.into_iter().all(|one| one.next_due_ms.is_none()), "nobody is to ask at once again");
}

pub async fn held_lanes_hide_no_other_however_many_there_are(bed: Bed) {
    let sick = |number: u32| task(&format!("s{number}")).needs("sick").group(&format!("g{number}"));
    bed.put_all((0..1_500).map(sick).collect()).await;
    bed.advance(1);
    bed.put(task("well")).await;
    let claimed = take(&bed, 1, &[shut("sick")]).await;
    assert_eq!((given(&claimed), held_back(&claimed)), (vec!["well"], vec!["sick"]));
    bed.put(task("next")).await;
    let claimed = take(&bed, 3, &[at_most("sick", 1)]).await;
    assert_eq!(claimed.leases.len(), 2);
    assert!(given(&claimed).contains(&"next"));
}

pub async fn what_failed_before_waits_apart(bed: Bed) {
    bed.put_all(vec![task("first").needs("d"), retry("second").needs("d"), retry("free")]).await;
    let claimed = take(&bed, 9, &[at_most_retries("d", 0)]).await;
    assert_eq!((given(&claimed), held_back(&claimed)), (vec!["first", "free"], vec!["d"]));
    for lease in &claimed.leases {
        bed.finish(lease, Ending::Failed(failure(FailureClass::ServerError))).await;
    }
    bed.advance(10_000);
    let claimed = take(&bed, 9, &[at_most_retries("d", 0)]).await;
    assert_eq!((given(&claimed), held_back(&claimed)), (vec!["free"], vec!["d"]), "it is a retry now");
    let claimed = take(&bed, 9, &[at_most_retries("d", 1)]).await;
    assert_eq!((claimed.leases.len(), held_back(&claimed)), (1, vec!["d"]));
    assert_eq!(take(&bed, 9, &[]).await.leases.len(), 1);
    bed.assert_counts_are_right().await;
}

pub async fn what_a_worker_vanished_with_is_a_retry_and_what_nobody_started_is_none(bed: Bed) {
    bed.put_all(["lost", "undelivered"].map(|text| task(text).needs("d")).to_vec()).await;
    for lease in bed.take(9).await {
        if &*lease.id == "lost" {
            bed.start(&lease).await;
        }
    }
    bed.advance(30_000);
    assert_eq!(bed.reap(9).await.unwrap().reaped.len(), 2);
    bed.advance(60_000);
    let claimed = take(&bed, 9, &[at_most_retries("d", 0)]).await;
    assert_eq!((given(&claimed), held_back(&claimed)), (vec!["undelivered"], vec!["d"]));
}

pub async fn a_snooze_or_a_release_leaves_a_task_among_its_own(bed: Bed) {
    let all = ["first-released", "first-snoozed"].map(|text| task(text).needs("d"));
    let tried = ["tried-released", "tried-snoozed"].map(|text| retry(text).needs("d"));
    bed.put_all([all, tried].concat()).await;
    for lease in bed.take(9).await {
        let released = lease.id.ends_with("released");
        bed.finish(&lease, if released { Ending::Released } else { Ending::Snoozed { delay_ms: 7 } }).await;
    }
    bed.advance(1_000);
    let claimed = take(&bed, 9, &[at_most_retries("d", 0)]).await;
    assert_eq!((given(&claimed), held_back(&claimed)), (vec!["first-released", "first-snoozed"], vec!["d"]));
    assert_eq!(given(&take(&bed, 9, &[]).await), ["tried-released", "tried-snoozed"]);
}

pub async fn a_retry_by_hand_makes_it_a_first_attempt_again(bed: Bed) {
    let lease = bed.put_and_take(task("t").needs("d").max_attempts(1)).await;
    assert_eq!(bed.finish(&lease, Ending::Failed(failure(FailureClass::Timeout))).await.0, TaskState::Dead);
    bed.retry_one("t").await;
    assert_eq!(given(&take(&bed, 9, &[at_most_retries("d", 0)]).await), ["t"]);
}

pub async fn waiting_retries_can_be_called_off_hurried_and_be_too_late(bed: Bed) {
    let waiting = |text: &str| retry(text).needs("d").delay(5_000).deadline(20_000);
    bed.put_all(["off", "now", "late"].map(waiting).to_vec()).await;
    bed.cancel_one("off").await;
    bed.retry_one("now").await;
    let claimed = take(&bed, 9, &[at_most_retries("d", 0)]).await;
    assert_eq!((given(&claimed), held_back(&claimed)), (vec![], vec!["d"]));
    assert_eq!(given(&take(&bed, 9, &[]).await), ["now"], "its attempt counts as what it is");
    bed.advance(20_001);
    assert_eq!(bed.reap(9).await.unwrap().too_late, ids(&["late"]));
    assert_eq!(bed.state("off").await, TaskState::Cancelled);
    bed.assert_counts_are_right().await;
}

pub async fn retries_count_within_what_a_gate_lets_through(bed: Bed) {
    bed.put_all((0..10).map(|number| task(&format!("f{number}")).needs("d")).collect()).await;
    bed.put_all((0..10).map(|number| retry(&format!("r{number}")).needs("d")).collect()).await;
    let gate = Restriction { scope: of_dependency("d"), any: Some(15), retries: Some(3) };
    let claimed = take(&bed, 100, std::slice::from_ref(&gate)).await;
    let retries = given(&claimed).iter().filter(|id| id.starts_with('r')).count();
    assert_eq!((claimed.leases.len(), retries), (13, 3), "all first attempts, and some retries");
    assert_eq!(held_back(&claimed), ["d"]);
    let claimed = take(&bed, 100, &[Restriction { any: Some(2), ..gate }]).await;
    assert_eq!((claimed.leases.len(), held_back(&claimed)), (2, vec!["d"]));
}

pub async fn a_repeated_request_is_neither_restricted_nor_counted(bed: Bed) {
    bed.put_all((0..6).map(|number| task(&format!("t{number}")).needs("d")).collect()).await;
    let request = Claim { request_id: Some(name("r-1")), ..claim_of(2) };
    let first = claim(&bed, request.clone(), &[at_most("d", 2)]).await;
    let again = claim(&bed, request.clone(), &[shut("d")]).await;
    assert_eq!((given(&again), held_back(&again)), (given(&first), vec![]));
    let claimed = bed.claim(vec![request, claim_of(9)], &[at_most("d", 3)]).await.unwrap();
    assert!(claimed[0].replayed);
    assert_eq!((claimed[0].leases.len(), claimed[1].leases.len()), (2, 3));
}

pub async fn what_is_too_late_uses_nothing_up(bed: Bed) {
    let late = |number: u32| task(&format!("late{number}")).needs("d").deadline(10);
    bed.put_all((0..5).map(late).collect()).await;
    bed.advance(11);
    bed.put_all(vec![task("fine").needs("d")]).await;
    let claimed = take(&bed, 9, &[at_most("d", 1)]).await;
    assert_eq!(given(&claimed), ["fine"]);
    assert!(claimed.too_late.len() <= 5);
}

pub async fn a_settlement_tells_whose_and_what_it_was(bed: Bed) {
    use redrive_coordinator::store::Settled;
    bed.put_all(vec![task("t").needs("d"), task("free")]).await;
    let told = |settled: Settled| match settled {
        Settled::Applied { dependency, agent, retried, .. } => {
            (dependency.map(|name| name.to_string()), agent.map(|name| name.to_string()), retried)
        }
        other => panic!("the lease holds: {other:?}"),
    };
    let expected = |dependency: &str, agent: &str, retried| {
        ((!dependency.is_empty()).then(|| dependency.to_owned()), Some(agent.to_owned()), retried)
    };
    let fails = || Ending::Failed(failure(FailureClass::ServerError));
    for lease in bed.take(9).await {
        let dependency = if &*lease.id == "t" { "d" } else { "" };
        assert_eq!(told(bed.settle_one(&lease, fails()).await), expected(dependency, "a", false));
    }
    bed.advance(10_000);
    let claimed = bed.claim_one(Claim { agent: name("b"), ..claim_of(9) }).await;
    for lease in claimed.leases {
        let (dependency, done) = if &*lease.id == "t" { ("d", fails()) } else { ("", Ending::Done(None)) };
        assert_eq!(told(bed.settle_one(&lease, done).await), expected(dependency, "b", true));
    }
    bed.advance(10_000);
    let lease = bed.take_one().await;
    bed.take_over(&lease, "taker", "taker-1").await;
    assert_eq!(told(bed.settle_one(&lease, Ending::HandedOff).await), expected("d", "taker", true));
    let after = told(bed.settle_one(&lease, fails()).await);
    assert_eq!(after, (Some("d".into()), None, true), "who it was handed to is not known");
}

pub async fn retries_wait_apart_when_the_store_is_opened_again(mut bed: Bed) {
    bed.put_all(vec![task("first").needs("d"), retry("second").needs("d")]).await;
    bed.reopen().await;
    let claimed = take(&bed, 9, &[at_most_retries("d", 0)]).await;
    assert_eq!((given(&claimed), held_back(&claimed)), (vec!["first"], vec!["d"]));
}
