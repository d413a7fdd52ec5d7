//! Policies are changed by somebody, for a reason, all of them or none, and what was in force before is not forgotten.

use redrive_coordinator::store::{NewPolicy, PolicyChange, PolicyPut, Store};
use redrive_shared::limits::POLICY_VERSIONS_KEPT;
use redrive_shared::retry::{RetryPolicy, Strategy};
use redrive_shared::wire::PolicyVersion;

use crate::support::{Bed, START_MS, fixed_policy, name};

fn new(queue: &str, policy: RetryPolicy, version: impl Into<Option<u64>>) -> NewPolicy {
    NewPolicy { queue: name(queue), policy, version: version.into() }
}

/// A change by nobody in particular.
fn change(queues: Vec<NewPolicy>) -> PolicyChange {
    PolicyChange { queues, ..PolicyChange::default() }
}

async fn put(store: &dyn Store, queues: Vec<NewPolicy>) -> PolicyPut {
    store.put_queues(change(queues)).await.unwrap()
}

async fn versions(store: &dyn Store, queue: &str) -> Vec<PolicyVersion> {
    store.policy_versions(&name(queue)).await.unwrap()
}

async fn numbers(store: &dyn Store, queue: &str) -> Vec<u64> {
    versions(store, queue).await.iter().map(|version| version.version).collect()
}

fn conflict(queues: &[(&str, u64)]) -> PolicyPut {
    PolicyPut::Conflict(queues.iter().map(|(queue, version)| (name(queue), *version)).collect())
}

pub async fn a_change_is_kept_with_who_made_it_when_and_why(bed: Bed) {
    let (actor, reason) = (Some(name("ada@laptop")), Some("it was\n\"too\" slow, see a/b".to_owned()));
    let queues = vec![new("made", fixed_policy(1), 0)];
    let made = PolicyChange { queues, actor: actor.clone(), reason: reason.clone() };
    assert_eq!(bed.put_queues(made).await.unwrap(), PolicyPut::Done);
    bed.advance(5_000);
    assert_eq!(put(&*bed, vec![new("made", fixed_policy(2), 1)]).await, PolicyPut::Done);
    let first = PolicyVersion { version: 1, at_ms: START_MS, actor, reason, policy: fixed_policy(1) };
    let (at_ms, policy) = (START_MS + 5_000, fixed_policy(2));
    let second = PolicyVersion { version: 2, at_ms, actor: None, reason: None, policy };
    assert_eq!(versions(&*bed, "made").await, [second, first]);
    let view = bed.queue("made").await;
    assert_eq!((view.version, view.policy), (2, fixed_policy(2)));
}

pub async fn a_queue_that_was_never_changed_is_at_version_0(bed: Bed) {
    bed.make_queue(&name("named")).await.unwrap();
    assert_eq!((bed.queue("named").await.version, numbers(&*bed, "named").await), (0, vec![]));
    assert_eq!(numbers(&*bed, "nowhere").await, Vec::<u64>::new());
    // What it was is kept with its first change.
    assert_eq!(put(&*bed, vec![new("named", fixed_policy(1), 0)]).await, PolicyPut::Done);
    let kept = versions(&*bed, "named").await;
    assert_eq!(kept.iter().map(|version| version.version).collect::<Vec<_>>(), [1, 0]);
    assert_eq!((&kept[1].policy, &kept[1].actor), (&RetryPolicy::default(), &None));
    assert_eq!(bed.queue("named").await.version, 1);
    bed.make_queue(&name("named")).await.unwrap();
    assert_eq!(bed.queue("named").await.policy, fixed_policy(1), "what is there is not made anew");
}

pub async fn the_policy_in_force_again_makes_no_version(bed: Bed) {
    put(&*bed, vec![new("a", fixed_policy(1), None)]).await;
    for version in [None, Some(1), Some(0), Some(7)] {
        assert_eq!(
            put(&*bed, vec![new("a", fixed_policy(1), version)]).await,
            PolicyPut::Done,
            "{version:?}"
        );
    }
    assert_eq!(numbers(&*bed, "a").await, [1]);
    // Beside a change, too.
    put(&*bed, vec![new("a", fixed_policy(1), 0), new("b", fixed_policy(1), 0)]).await;
    assert_eq!((numbers(&*bed, "a").await, numbers(&*bed, "b").await), (vec![1], vec![1]));
}

pub async fn a_change_made_from_another_version_is_refused(bed: Bed) {
    put(&*bed, vec![new("a", fixed_policy(1), 0)]).await;
    put(&*bed, vec![new("a", fixed_policy(2), 1)]).await;
    for version in [0, 1, 3] {
        assert_eq!(put(&*bed, vec![new("a", fixed_policy(3), version)]).await, conflict(&[("a", 2)]));
    }
    assert_eq!(put(&*bed, vec![new("nowhere", fixed_policy(3), 1)]).await, conflict(&[("nowhere", 0)]));
    assert_eq!((bed.queue("a").await.policy, numbers(&*bed, "a").await), (fixed_policy(2), vec![2, 1]));
    assert!(!bed.has_queue(&name("nowhere")), "nothing was made");
    // Where nobody asks, the last one wins.
    assert_eq!(put(&*bed, vec![new("a", fixed_policy(3), None)]).await, PolicyPut::Done);
    assert_eq!(bed.queue("a").await.version, 3);
}

pub async fn policies_change_together_or_not_at_all(bed: Bed) {
    put(&*bed, vec![new("a", fixed_policy(1), 0), new("b", fixed_policy(1), 0)]).await;
    put(&*bed, vec![new("b", fixed_policy(2), 1)]).await;
    let all =
        |b| vec![new("a", fixed_policy(5), 1), new("b", fixed_policy(5), b), new("c", fixed_policy(5), 0)];
    assert_eq!(put(&*bed, all(1)).await, conflict(&[("b", 2)]));
    assert_eq!((bed.queue("a").await.policy, bed.queue("a").await.version), (fixed_policy(1), 1));
    assert!(!bed.has_queue(&name("c")));
    assert_eq!(put(&*bed, all(2)).await, PolicyPut::Done);
    for (queue, version) in [("a", 2), ("b", 3), ("c", 1)] {
        let view = bed.queue(queue).await;
        assert_eq!((view.policy, view.version), (fixed_policy(5), version), "{queue}");
    }
    // Also of many.
    let many = |policy: fn(u64) -> RetryPolicy, version| {
        (0..300).map(|number| new(&format!("q{number}"), policy(number), version)).collect::<Vec<_>>()
    };
    assert_eq!(put(&*bed, many(fixed_policy, 0)).await, PolicyPut::Done);
    put(&*bed, vec![new("q299", fixed_policy(7), 1)]).await;
    assert_eq!(put(&*bed, many(|number| fixed_policy(number + 1), 1)).await, conflict(&[("q299", 2)]));
    assert_eq!(bed.queue("q0").await.version, 1);
}

pub async fn a_change_that_was_carried_out_can_be_repeated(bed: Bed) {
    let both = || vec![new("a", fixed_policy(1), 0), new("b", fixed_policy(1), 0)];
    assert_eq!(put(&*bed, both()).await, PolicyPut::Done);
    assert_eq!(put(&*bed, both()).await, PolicyPut::Done);
    assert_eq!((numbers(&*bed, "a").await, bed.queue("a").await.version), (vec![1], 1));
}

pub async fn the_last_fifty_versions_are_kept(bed: Bed) {
    let last = POLICY_VERSIONS_KEPT as u64 + 5;
    for version in 1..=last {
        put(&*bed, vec![new("a", fixed_policy(version), version - 1)]).await;
    }
    put(&*bed, vec![new("b", fixed_policy(1), 0)]).await;
    let kept = versions(&*bed, "a").await;
    assert_eq!((kept.len(), kept[0].version, kept[POLICY_VERSIONS_KEPT - 1].version), (50, last, 6));
    assert!(kept.iter().all(|kept| kept.policy == fixed_policy(kept.version)));
    assert_eq!((bed.queue("a").await.version, numbers(&*bed, "b").await), (last, vec![1]));
}

pub async fn of_changes_at_once_one_is_made_from_what_was_in_force(bed: Bed) {
    let changes = (1..=8).map(|ms| put(&*bed, vec![new("a", fixed_policy(ms), 0)]));
    let outcomes = futures_util::future::join_all(changes).await;
    let done = outcomes.iter().filter(|outcome| **outcome == PolicyPut::Done).count();
    assert_eq!(done, 1, "{outcomes:?}");
    assert!(
        outcomes.iter().filter(|outcome| **outcome != PolicyPut::Done).all(|o| *o == conflict(&[("a", 1)]))
    );
    assert_eq!(numbers(&*bed, "a").await, [1]);
}

pub async fn versions_are_still_there_when_the_store_is_opened_again(mut bed: Bed) {
    let strategy = Strategy::Schedule { delays_ms: vec![1, 2, 3] };
    let policy = RetryPolicy { strategy, ..RetryPolicy::default() };
    put(&*bed, vec![new("a", fixed_policy(1), 0)]).await;
    put(&*bed, vec![new("a", policy.clone(), 1)]).await;
    let before = versions(&*bed, "a").await;
    bed.reopen().await;
    assert_eq!(versions(&*bed, "a").await, before);
    assert_eq!(before[0].policy, policy);
    assert_eq!(put(&*bed, vec![new("a", fixed_policy(3), 2)]).await, PolicyPut::Done);
}

pub async fn a_pause_is_no_change_of_a_policy(bed: Bed) {
    put(&*bed, vec![new("a", fixed_policy(1), 0)]).await;
    bed.pause(&name("a"), true).await.unwrap();
    assert_eq!(bed.queue("a").await.version, 1);
    assert_eq!(put(&*bed, vec![new("a", fixed_policy(2), 1)]).await, PolicyPut::Done);
    assert!(bed.queue("a").await.paused, "and a change of its policy resumes nothing");
}
