//! `count_lost`: what vanished with a worker is told to the breakers of the agent's other runs.

use redrive_coordinator::store::{Claim, LOST_KEPT_MS, LostAttempt};
use redrive_shared::limits::AGENT_REMEMBERED_MS;
use redrive_shared::wire::WorkerLost;

use crate::support::{Bed, beat, claim_of, name, task};

fn attempt(agent: &str, boot_id: &str, dependency: Option<&str>) -> LostAttempt {
    LostAttempt { agent: name(agent), boot_id: Some(name(boot_id)), dependency: dependency.map(name) }
}

async fn heard(bed: &Bed, agent: &str, boot_id: &str) -> Vec<WorkerLost> {
    bed.heartbeat(beat(agent, boot_id)).await.unwrap().lost
}

fn counts(lost: &[WorkerLost]) -> Vec<(&str, u32)> {
    lost.iter().map(|one| (one.breaker.as_str(), one.count)).collect()
}

pub async fn what_a_run_vanished_with_is_told_to_the_others_for_a_minute(bed: Bed) {
    assert!(heard(&bed, "a", "a-2").await.is_empty());
    let all = vec![attempt("a", "a-1", Some("llm")), attempt("b", "b-1", None), attempt("a", "a-1", None)];
    bed.count_lost(all).await.unwrap();
    let told = heard(&bed, "a", "a-2").await;
    assert_eq!(counts(&told), [("*", 2), ("llm", 1)]);
    assert!(told.iter().all(|one| one.age_ms < 1_000) && told[0].number < told[1].number, "{told:?}");
    assert!(heard(&bed, "a", "a-1").await.is_empty(), "its own it knows better");
    bed.advance(LOST_KEPT_MS - 1_000);
    bed.count_lost(vec![attempt("a", "a-2", None)]).await.unwrap();
    let later = heard(&bed, "a", "a-3").await;
    assert_eq!(later.iter().map(|one| one.number).collect::<Vec<_>>()[..2], [told[0].number, told[1].number]);
    assert_eq!(counts(&later), [("*", 2), ("llm", 1), ("*", 1)], "every run is told, and again");
    assert!(later[0].age_ms >= LOST_KEPT_MS.unsigned_abs() - 1_000 && later[2].age_ms < 1_000, "{later:?}");
    bed.advance(1_000);
    assert_eq!(counts(&heard(&bed, "a", "a-3").await), [("*", 1)]);
    assert!(heard(&bed, "b", "b-2").await.is_empty(), "a minute is over");
}

pub async fn the_run_that_held_a_lost_lease_is_told_with_it(bed: Bed) {
    bed.put(task("claimed")).await;
    bed.put(task("taken-over")).await;
    let claimed =
        bed.claim_one(Claim { boot_id: Some(name("boot-1")), ..claim_of(1) }).await.leases.remove(0);
    bed.start(&claimed).await;
    let taken = bed.claim_one(Claim { boot_id: None, ..claim_of(1) }).await.leases.remove(0);
    bed.take_over(&taken, "other", "boot-2").await;
    bed.advance(60_000);
    let round = bed.reap(10).await.unwrap();
    let mut runs: Vec<_> =
        round.reaped.iter().map(|one| (one.started, one.agent.clone(), one.boot_id.clone())).collect();
    runs.sort();
    assert_eq!(
        runs,
        [(true, Some(name("a")), Some(name("boot-1"))), (true, Some(name("other")), Some(name("boot-2")))]
    );
}

pub async fn losses_counted_at_once_are_all_kept(bed: Bed) {
    let boots: Vec<String> = (0..8).map(|n| format!("a-{n}")).collect();
    let counted = boots.iter().map(|boot_id| bed.count_lost(vec![attempt("a", boot_id, None)]));
    assert!(futures_util::future::join_all(counted).await.iter().all(Result::is_ok));
    let told = heard(&bed, "a", "next").await;
    assert_eq!(counts(&told), [("*", 1); 8]);
    assert!(told.windows(2).all(|pair| pair[0].number < pair[1].number), "no two are one: {told:?}");
}

pub async fn losses_are_forgotten_with_the_agent(bed: Bed) {
    heard(&bed, "a", "a-1").await;
    bed.count_lost(vec![attempt("a", "a-1", None)]).await.unwrap();
    bed.advance(20_000);
    bed.reap(10).await.unwrap();
    bed.advance(AGENT_REMEMBERED_MS as i64 + 1);
    bed.forget(10).await.unwrap();
    // A clock that is set back to where it would be told shows whether it is still kept.
    bed.advance(-(AGENT_REMEMBERED_MS as i64) - 20_001);
    assert!(heard(&bed, "a", "a-2").await.is_empty());
}

pub async fn losses_are_still_told_when_the_store_is_opened_again(mut bed: Bed) {
    bed.count_lost(vec![attempt("a", "a-1", Some("llm"))]).await.unwrap();
    bed.reopen().await;
    assert_eq!(counts(&heard(&bed, "a", "a-2").await), [("*", 1), ("llm", 1)]);
}
