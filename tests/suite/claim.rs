//! How due tasks go to workers: in which order, how many, and until when.

use redrive_coordinator::store::{Claim, Ending};
use redrive_shared::failure::FailureClass;
use redrive_shared::task::{Priority, TaskState};

use crate::support::redis::RedisServer;
use crate::support::{Bed, EnqueueExt, RedisBackend, START_MS, claim_of, failure, fixed_policy, name, task};

pub async fn tasks_of_a_lane_are_given_in_order_of_due_time(bed: Bed) {
    bed.put_all(vec![task("c").delay(30), task("a").delay(10), task("b").delay(20), task("d").delay(40)])
        .await;
    bed.advance(30);
    bed.assert_order(bed.take_ids(10).await, &["a", "b", "c"]);
    bed.advance(10);
    assert_eq!(bed.take_ids(10).await, ["d"]);
}

pub async fn equal_due_times_are_given_in_order_of_arrival(bed: Bed) {
    bed.put_all((0..20).map(|number| task(&format!("t{number:02}"))).collect()).await;
    let expected: Vec<String> = (0..20).map(|number| format!("t{number:02}")).collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    bed.assert_order(bed.take_ids(20).await, &expected);
}

pub async fn higher_priority_goes_first(bed: Bed) {
    let batch = vec![
        task("low").priority(Priority::Low),
        task("normal"),
        task("high").priority(Priority::High).delay(5),
        task("not-due").priority(Priority::High).delay(60_000),
    ];
    bed.put_all(batch).await;
    bed.advance(5);
    bed.assert_order(bed.take_ids(10).await, &["high", "normal", "low"]);
}

pub async fn a_tenant_with_thousands_does_not_starve_one_with_three(bed: Bed) {
    bed.put_all((0..3_000).map(|number| task(&format!("big{number}")).group("big")).collect()).await;
    bed.put_all((0..3).map(|number| task(&format!("small{number}")).group("small")).collect()).await;
    // Ten of each shard: every shard gives both groups their turn.
    let wanted = 10 * usize::from(bed.shards());
    let first = bed.take_ids(wanted).await;
    assert_eq!(first.len(), wanted, "what one group cannot fill goes to the others");
    assert_eq!(first.iter().filter(|text| text.starts_with("small")).count(), 3, "{first:?}");
}

pub async fn single_claims_rotate_over_groups(bed: Bed) {
    for group in ["x", "y", "z"] {
        bed.put_all((0..100).map(|number| task(&format!("{group}{number}")).group(group)).collect()).await;
    }
    let mut served = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..30 {
        *served.entry(bed.take_ids(1).await[0][..1].to_owned()).or_default() += 1;
    }
    let (least, most) = (served.values().min().unwrap(), served.values().max().unwrap());
    assert!(served.len() == 3 && served.values().sum::<u32>() == 30, "{served:?}");
    // Of a whole number of rounds in one shard, each gets its part; a shard in the middle of a round adds one.
    let uneven = if bed.order_is_exact() { 0 } else { u32::from(bed.shards()) };
    assert!(most - least <= uneven, "{served:?}");
}

pub async fn avoided_dependencies_are_left_alone(bed: Bed) {
    bed.put_all(vec![task("free"), task("sick").needs("dep/sick"), task("well").needs("dep/well")]).await;
    let avoid = vec![name("dep/sick")];
    let claimed = bed.claim_one(Claim { avoid, ..claim_of(10) }).await;
    let mut given: Vec<_> = claimed.leases.iter().map(|lease| &*lease.id).collect();
    given.sort_unstable();
    assert_eq!(given, ["free", "well"]);
    assert_eq!(bed.view("sick").await.due_at_ms, START_MS, "not moved, only passed over");
    assert_eq!(bed.take_ids(10).await, ["sick"]);
}

pub async fn avoided_lanes_hide_no_other_however_many_there_are(bed: Bed) {
    let sick = |number: u32| task(&format!("s{number}")).needs("dep").group(&format!("g{number}"));
    bed.put_all((0..1_500).map(sick).collect()).await;
    bed.advance(1);
    bed.put(task("well")).await;
    let claimed = bed.claim_one(Claim { avoid: vec![name("dep")], ..claim_of(1) }).await;
    assert_eq!(claimed.leases.len(), 1);
    assert_eq!(&*claimed.leases[0].id, "well");
}

pub async fn a_paused_queue_hands_out_nothing_until_it_is_resumed(bed: Bed) {
    bed.put(task("t")).await;
    assert!(bed.pause(&name("default"), true).await.unwrap());
    let claimed = bed.claim_one(claim_of(1)).await;
    assert!(claimed.leases.is_empty());
    assert_eq!(claimed.next_due_ms, None, "nothing there will come due by waiting");
    assert!(bed.pause(&name("default"), false).await.unwrap());
    assert_eq!(bed.take_ids(1).await, ["t"]);
}

pub async fn a_claim_gets_no_more_than_it_asked_for(bed: Bed) {
    bed.put_all((0..5).map(|number| task(&format!("t{number}")).group(&format!("g{number}"))).collect())
        .await;
    assert_eq!(bed.take(2).await.len(), 2);
    assert_eq!(bed.take(2).await.len(), 2);
    assert_eq!(bed.take(2).await.len(), 1);
    assert_eq!(bed.queue("default").await.counts.leased, 5);
}

pub async fn a_thousand_tasks_fit_into_one_claim(bed: Bed) {
    bed.put_all((0..1_000).map(|number| task(&format!("t{number}"))).collect()).await;
    let leases = bed.take(1_000).await;
    let ids: std::collections::BTreeSet<_> = leases.iter().map(|lease| &*lease.id).collect();
    assert_eq!(ids.len(), 1_000);
}

pub async fn an_unknown_queue_has_nothing_due(bed: Bed) {
    bed.put(task("t")).await;
    let queues = vec![name("nowhere"), name("default")];
    assert_eq!(bed.claim_one(Claim { queues, ..claim_of(5) }).await.leases.len(), 1);
    let claimed = bed.claim_one(Claim { queues: vec![name("nowhere")], ..claim_of(5) }).await;
    assert!(claimed.leases.is_empty() && claimed.next_due_ms.is_none());
}

pub async fn a_claim_takes_from_its_own_queues_only(bed: Bed) {
    for queue in ["x", "y"] {
        bed.put_queue(&name(queue), fixed_policy(1)).await.unwrap();
        bed.put(task(&format!("in-{queue}")).on(queue)).await;
    }
    bed.put(task("in-default")).await;
    let claimed = bed.claim_one(Claim { queues: vec![name("x"), name("y")], ..claim_of(5) }).await;
    let mut given: Vec<_> = claimed.leases.iter().map(|lease| (&*lease.id, &*lease.queue)).collect();
    given.sort_unstable();
    assert_eq!(given, [("in-x", "x"), ("in-y", "y")]);
}

pub async fn a_claim_learns_when_to_come_back(bed: Bed) {
    assert_eq!(bed.claim_one(claim_of(1)).await.next_due_ms, None);
    bed.put_all(vec![task("late").delay(9_000), task("sick").delay(10).needs("dep"), task("now")]).await;
    let claimed = bed.claim_one(Claim { avoid: vec![name("dep")], ..claim_of(2) }).await;
    assert_eq!((claimed.leases.len(), claimed.next_due_ms), (1, Some(START_MS + 9_000)));
    assert_eq!(bed.claim_one(claim_of(1)).await.next_due_ms, Some(START_MS + 10));
    bed.advance(10);
    let filled = bed.claim_one(claim_of(1)).await;
    assert_eq!((filled.leases.len(), filled.next_due_ms), (1, None));
}

pub async fn claims_of_one_batch_share_nothing(bed: Bed) {
    bed.put_all((0..3).map(|number| task(&format!("t{number}"))).collect()).await;
    let claimed = bed.claim(vec![claim_of(2), claim_of(2), claim_of(2)], &[]).await.unwrap();
    let ids: std::collections::BTreeSet<_> =
        claimed.iter().flat_map(|one| &one.leases).map(|lease| &*lease.id).collect();
    let shares: Vec<_> = claimed.iter().map(|one| one.leases.len()).collect();
    assert_eq!((ids.len(), shares.iter().sum::<usize>()), (3, 3));
    assert!(!bed.order_is_exact() || shares == [2, 1, 0], "who came first is served first: {shares:?}");
}

pub async fn a_repeated_request_gets_the_same_leases(bed: Bed) {
    bed.put_all((0..4).map(|number| task(&format!("t{number}"))).collect()).await;
    let request = Claim { request_id: Some(name("r-1")), ..claim_of(2) };
    let mut first = bed.claim_one(request.clone()).await.leases;
    bed.advance(500);
    let again = bed.claim_one(request.clone()).await;
    assert!(again.replayed);
    let mut second = again.leases;
    if !bed.order_is_exact() {
        first.sort_by(|one, other| one.id.cmp(&other.id));
        second.sort_by(|one, other| one.id.cmp(&other.id));
    }
    let as_json = |leases: &Vec<_>| serde_json::to_string(leases).unwrap();
    assert_eq!(as_json(&first), as_json(&second));
    assert_eq!(bed.queue("default").await.counts.leased, 2);
    bed.finish(&first[0], Ending::Done(None)).await;
    let third = bed.claim_one(request.clone()).await.leases;
    assert_eq!(as_json(&third), as_json(&first[1..].to_vec()), "only the lease that holds");
    let other_agent = Claim { agent: name("b"), ..request };
    assert_eq!(
        bed.claim_one(other_agent).await.leases.len(),
        2,
        "another agent's request is another request"
    );
}

pub async fn a_claim_with_a_request_is_filled_and_gets_no_task_twice(bed: Bed) {
    bed.put_all((0..40).map(|n| task(&format!("t{n}"))).collect()).await;
    let mut all = Vec::new();
    for (number, size) in [7, 7, 7, 7, 7, 5].into_iter().enumerate() {
        let request = Claim { request_id: Some(name(&format!("r-{number}"))), ..claim_of(7) };
        let mut ids: Vec<String> = Vec::new();
        for _repeated in 0..2 {
            let leases = bed.claim_one(request.clone()).await.leases;
            let mut given: Vec<String> = leases.iter().map(|lease| lease.id.to_string()).collect();
            given.sort();
            assert_eq!(given.len(), size);
            assert!(ids.is_empty() || ids == given, "the repeated request got {given:?} and not {ids:?}");
            ids = given;
        }
        all.extend(ids);
    }
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 40, "each was given once");
}

/// A claim asks the shards that gave it something again, for what the others could not give.
#[tokio::test]
async fn a_claim_over_several_shards_gets_no_task_twice() {
    let server = RedisServer::start().await;
    let sharded = RedisBackend::at(&server.url(), "rd", 4);
    a_claim_with_a_request_is_filled_and_gets_no_task_twice(Bed::new(sharded).await).await;
}

pub async fn a_repeated_request_does_not_get_a_lease_that_was_lost_and_given_again(bed: Bed) {
    bed.put(task("t")).await;
    let request = Claim { request_id: Some(name("r-1")), ..claim_of(1) };
    assert_eq!(bed.claim_one(request.clone()).await.leases.len(), 1);
    bed.advance(30_000);
    bed.reap(10).await.unwrap();
    bed.advance(5_000);
    assert_eq!(bed.take_ids(1).await, ["t"]);
    assert!(bed.claim_one(request).await.leases.is_empty());
}

pub async fn a_request_that_got_nothing_may_get_something_later(bed: Bed) {
    let request = Claim { request_id: Some(name("r-1")), ..claim_of(1) };
    assert!(bed.claim_one(request.clone()).await.leases.is_empty());
    bed.put(task("t")).await;
    assert_eq!(bed.claim_one(request).await.leases.len(), 1);
}

pub async fn a_delay_does_not_use_up_the_policys_deadline(bed: Bed) {
    const TWO_DAYS_MS: i64 = 48 * 60 * 60 * 1_000;
    bed.put(task("t").delay(TWO_DAYS_MS.unsigned_abs())).await;
    bed.advance(TWO_DAYS_MS);
    assert!(bed.reap(10).await.unwrap().too_late.is_empty());
    assert_eq!(bed.take_ids(9).await, ["t"]);
}

pub async fn a_task_past_its_deadline_is_escalated_and_not_run(bed: Bed) {
    bed.put_all(vec![task("late").deadline(1_000), task("just").deadline(1_001), task("fine")]).await;
    bed.advance(1_001);
    let claimed = bed.claim_one(claim_of(10)).await;
    bed.assert_order(claimed.leases.iter().map(|lease| lease.id.to_string()).collect(), &["just", "fine"]);
    assert_eq!(claimed.too_late.iter().map(|task| &**task).collect::<Vec<_>>(), ["late"]);
    let late = bed.view("late").await;
    assert_eq!((late.state, late.runs, late.agent), (TaskState::Escalated, 0, None));
    assert!(late.why.unwrap().contains("deadline"));
    assert_eq!(late.expires_at_ms, None, "it waits for a person, however long");
    bed.assert_counts_are_right().await;
}

pub async fn tasks_past_their_deadline_do_not_use_up_a_claim(bed: Bed) {
    bed.put_all((0..50).map(|number| task(&format!("late{number}")).deadline(10)).collect()).await;
    bed.advance(11);
    bed.put(task("fine")).await;
    let claimed = bed.claim_one(claim_of(1)).await;
    assert_eq!(claimed.leases.len(), 1);
    // Shards that were not needed any more were not looked into.
    let left = usize::from(!bed.order_is_exact()) * 50;
    assert!((50 - left..=50).contains(&claimed.too_late.len()), "{}", claimed.too_late.len());
}

pub async fn large_payloads_bound_a_reply(bed: Bed) {
    let large = format!("\"{}\"", "x".repeat(256 * 1024 - 2));
    for number in 0..20 {
        bed.put(task(&format!("t{number:02}")).payload(&large)).await;
    }
    let mut given = Vec::new();
    loop {
        let leases = bed.take(1_000).await;
        if leases.is_empty() {
            break;
        }
        let bytes: usize = leases.iter().map(|lease| lease.payload.get().len()).sum();
        assert!(bytes <= 4 * 1024 * 1024, "{bytes}");
        given.extend(leases.into_iter().map(|lease| lease.id.to_string()));
    }
    let expected: Vec<String> = (0..20).map(|number| format!("t{number:02}")).collect();
    bed.assert_order(given, &expected.iter().map(String::as_str).collect::<Vec<_>>());
}

pub async fn the_claim_or_else_the_policy_sets_the_leases_length(bed: Bed) {
    bed.put_all(vec![task("a"), task("b")]).await;
    assert_eq!(bed.take(1).await[0].lease_until_ms, START_MS + 30_000);
    let claimed = bed.claim_one(Claim { lease_ms: Some(7_000), ..claim_of(1) }).await;
    assert_eq!(claimed.leases[0].lease_until_ms, START_MS + 7_000);
    let view = bed.view(&claimed.leases[0].id).await;
    assert_eq!((view.lease_until_ms, view.agent), (Some(START_MS + 7_000), Some(name("a"))));
}

pub async fn every_lease_of_a_task_has_a_higher_epoch(bed: Bed) {
    bed.put(task("t")).await;
    let (mut epochs, mut nonces) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let lease = bed.take_one().await;
        epochs.push(lease.epoch);
        nonces.push(lease.nonce.0);
        bed.finish(&lease, Ending::Released).await;
        // Backwards, so that the store's clock alone would give the same epochs again.
        bed.advance(1_000 - 60_000);
        bed.retry_one("t").await;
    }
    assert!(epochs.is_sorted_by(|a, b| a < b), "{epochs:?}");
    nonces.sort_unstable();
    nonces.dedup();
    assert_eq!(nonces.len(), 5);
}

pub async fn a_lease_tells_its_handler_what_happened_before(bed: Bed) {
    let first = bed.put_and_take(task("t")).await;
    assert!(first.last_failure.is_none());
    assert_eq!((first.attempt, first.run), (1, 1));
    bed.finish(&first, Ending::Failed(failure(FailureClass::ServerError))).await;
    bed.advance(10_000);
    let second = bed.take_one().await;
    assert_eq!(second.last_failure, Some(failure(FailureClass::ServerError)));
    assert_eq!((second.attempt, second.run, second.ledger.failed), (2, 2, 1));
    bed.finish(&second, Ending::Snoozed { delay_ms: 0 }).await;
    let third = bed.take_one().await;
    assert_eq!(third.last_failure, Some(failure(FailureClass::ServerError)));
    assert_eq!((third.attempt, third.run, third.ledger.deferred), (2, 3, 1));
}

pub async fn callers_at_once_never_share_a_lease(bed: Bed) {
    let bed = std::sync::Arc::new(bed);
    bed.put_all((0..300).map(|number| task(&format!("t{number}"))).collect()).await;
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let bed = std::sync::Arc::clone(&bed);
        callers.spawn(async move {
            let mut done = Vec::new();
            loop {
                let leases = bed.take(7).await;
                if leases.is_empty() {
                    return done;
                }
                for lease in &leases {
                    assert_eq!(bed.finish(lease, Ending::Done(None)).await.0, TaskState::Succeeded);
                }
                done.extend(leases.into_iter().map(|lease| lease.id.to_string()));
            }
        });
    }
    let mut done = callers.join_all().await.concat();
    done.sort_unstable();
    done.dedup();
    assert_eq!(done.len(), 300);
    assert_eq!(bed.queue("default").await.counts.succeeded, 300);
}
