//! Which failures go on at another dependency, and at which.

use std::collections::BTreeSet;

use proptest::prelude::{Strategy as _, any, prop, prop_assert, prop_assert_eq, proptest};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::failure::FailureClass;
use crate::gate::{Barred, Standing};
use crate::id::Name;
use crate::retry::{
    ClassPolicy, Decision, DelayReason, EndReason, Failure, Fallback, LONG_HINT_MS, OnRoute, RetryPolicy,
    class_default,
};

const NOW_MS: i64 = 1_800_000_000_000;

/// (class, after how many failures on one route the next one is taken)
const TABLE: [(FailureClass, Option<u32>); 22] = [
    // Only by a long hint.
    (FailureClass::RateLimited, None),
    (FailureClass::Overloaded, Some(2)),
    (FailureClass::ServerError, Some(3)),
    (FailureClass::Timeout, Some(3)),
    (FailureClass::Network, None),
    (FailureClass::PartialResponse, None),
    (FailureClass::QuotaExhausted, Some(1)),
    (FailureClass::QuotaWindow, Some(1)),
    (FailureClass::Auth, Some(1)),
    (FailureClass::Permission, None),
    (FailureClass::ModelUnavailable, Some(1)),
    (FailureClass::ContextOverflow, Some(1)),
    (FailureClass::ContentPolicy, None),
    // Once for each task.
    (FailureClass::Refusal, Some(1)),
    (FailureClass::BadOutput, Some(2)),
    (FailureClass::Conflict, None),
    (FailureClass::InvalidRequest, None),
    (FailureClass::ToolError, None),
    (FailureClass::BusinessRule, None),
    (FailureClass::WorkerLost, None),
    (FailureClass::LockTimeout, None),
    (FailureClass::Unknown, None),
];

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn policy() -> RetryPolicy {
    let chain = vec![name("sonnet"), name("gpt")];
    RetryPolicy { fallbacks: [(name("opus"), chain)].into(), ..RetryPolicy::default() }
}

/// The `failed`th failure in a row of a class, on route 0 of a task of 50 attempts.
fn failure(class: FailureClass, primary: &Name, failed: u32) -> Failure<'_> {
    Failure {
        class,
        retryable: false,
        failed,
        failed_in_class: failed,
        max_attempts: Some(50),
        strategy: None,
        previous_delay_ms: None,
        hint_ms: None,
        now_ms: NOW_MS,
        deadline_ms: NOW_MS + 86_400_000,
        on: OnRoute { primary: Some(primary), called: Some(primary), failed, ..OnRoute::default() },
    }
}

fn decide(policy: &RetryPolicy, failure: &Failure<'_>) -> Decision {
    policy.decide(failure, &mut StdRng::seed_from_u64(1))
}

/// The route that is taken; none: the failure is judged on its own route.
fn taken(decision: Decision) -> Option<u32> {
    match decision {
        Decision::Retry { due_ms, delay_ms, reason: DelayReason::Fallback { route } } => {
            assert_eq!((due_ms, delay_ms), (NOW_MS, 0), "at once");
            Some(route)
        }
        _ => None,
    }
}

#[test]
fn each_class_takes_the_next_route_when_the_table_says() {
    let (policy, opus) = (policy(), name("opus"));
    let named: BTreeSet<FailureClass> = TABLE.iter().map(|row| row.0).collect();
    assert_eq!(named, FailureClass::ALL.into());
    for (class, after) in TABLE {
        for failed in 1..=6 {
            let expected = match class_default(class).fallback {
                Fallback::Once => failed == 1,
                _ => after.is_some_and(|after| failed >= after),
            };
            let decision = decide(&policy, &failure(class, &opus, failed));
            assert_eq!(taken(decision), expected.then_some(1), "{class}, failure {failed}: {decision:?}");
        }
    }
}

#[test]
fn a_rate_limit_goes_elsewhere_only_when_it_asks_for_more_than_a_minute() {
    let (policy, opus) = (policy(), name("opus"));
    for (hint_ms, expected) in [(None, None), (Some(LONG_HINT_MS), None), (Some(LONG_HINT_MS + 1), Some(1))] {
        let limited = failure(FailureClass::RateLimited, &opus, 1);
        let limited = Failure { hint_ms, retryable: true, ..limited };
        assert_eq!(taken(decide(&policy, &limited)), expected, "{hint_ms:?}");
    }
}

#[test]
fn a_policy_decides_otherwise() {
    let opus = name("opus");
    let with = |class, after| {
        let rule = ClassPolicy { fallback_after: Some(after), ..ClassPolicy::default() };
        RetryPolicy { overrides: [(class, rule)].into(), ..policy() }
    };
    let filtered = failure(FailureClass::ContentPolicy, &opus, 1);
    assert_eq!(taken(decide(&with(FailureClass::ContentPolicy, 1), &filtered)), Some(1));
    let never = with(FailureClass::ServerError, 0);
    assert_eq!(taken(decide(&never, &failure(FailureClass::ServerError, &opus, 40))), None);
    let first = with(FailureClass::RateLimited, 1);
    assert_eq!(taken(decide(&first, &failure(FailureClass::RateLimited, &opus, 1))), Some(1));
}

#[test]
fn routes_whose_gates_are_shut_are_skipped_and_without_an_open_one_nothing_changes() {
    let (policy, opus) = (policy(), name("opus"));
    let unavailable = |standing, route| {
        let failed = failure(FailureClass::ModelUnavailable, &opus, 1);
        let failed = Failure { on: OnRoute { standing, route, ..failed.on }, ..failed };
        decide(&policy, &failed)
    };
    let first_shut = Standing::new([(name("sonnet"), Barred::Shut)]);
    let both_shut = Standing::new([(name("sonnet"), Barred::Shut), (name("gpt"), Barred::Isolated)]);
    assert_eq!(taken(unavailable(&first_shut, 0)), Some(2));
    assert_eq!(taken(unavailable(Standing::OPEN, 1)), Some(2));
    let as_without = Decision::Escalate { reason: EndReason::Unretryable };
    assert_eq!(unavailable(&both_shut, 0), as_without);
    assert_eq!(unavailable(Standing::OPEN, 2), as_without, "the chain is at its end");
    assert_eq!(unavailable(Standing::OPEN, 9), as_without, "it was longer once");
}

#[test]
fn a_chain_that_was_changed_under_a_task_does_not_lead_back_to_what_failed() {
    let (opus, sonnet) = (name("opus"), name("sonnet"));
    let changed = |chain: &[&str]| RetryPolicy {
        fallbacks: [(opus.clone(), chain.iter().map(|text| name(text)).collect())].into(),
        ..RetryPolicy::default()
    };
    // It called sonnet, which was route 1 then.
    let limited =
        Failure { hint_ms: Some(3_600_000), retryable: true, ..failure(FailureClass::RateLimited, &opus, 1) };
    let on = OnRoute { route: 1, called: Some(&sonnet), ..limited.on };
    let limited = Failure { on, ..limited };
    assert_eq!(taken(decide(&changed(&["haiku", "sonnet", "gpt"]), &limited)), Some(3));
    match decide(&changed(&["haiku", "sonnet"]), &limited) {
        Decision::Retry { delay_ms, reason: DelayReason::Hint, .. } => assert!(delay_ms >= 3_600_000),
        other => panic!("{other:?}"),
    }
    let isolated = |text| Standing::new([(name(text), Barred::Isolated)]);
    let auth = |standing: Standing| {
        let failed = failure(FailureClass::Auth, &opus, 1);
        let on = OnRoute { primary: Some(&opus), called: Some(&sonnet), standing: &standing, ..on };
        decide(&changed(&["haiku"]), &Failure { on, ..failed })
    };
    let waits = |decision| matches!(decision, Decision::Retry { reason: DelayReason::Gate, .. });
    assert!(waits(auth(isolated("sonnet"))), "the one that was called");
    assert!(!waits(auth(isolated("haiku"))), "not the one that has its place now");
}

#[test]
fn a_transaction_is_not_torn_apart_and_attempts_are_not_exceeded() {
    let (policy, opus) = (policy(), name("opus"));
    let down = failure(FailureClass::ServerError, &opus, 3);
    let within = Failure { on: OnRoute { in_transaction: true, ..down.on }, retryable: true, ..down };
    assert!(matches!(decide(&policy, &within), Decision::Retry { reason: DelayReason::Policy, .. }));
    let last = Failure { max_attempts: Some(3), retryable: true, ..down };
    assert_eq!(decide(&policy, &last), Decision::Dead { reason: EndReason::Exhausted });
    let late = Failure { deadline_ms: NOW_MS - 1, ..down };
    assert_eq!(decide(&policy, &late), Decision::Escalate { reason: EndReason::PastDeadline });
}

#[test]
fn what_waits_for_a_person_waits_behind_an_isolated_gate_and_only_there() {
    let (policy, opus) = (policy(), name("opus"));
    let barred = |how: Barred| {
        ["opus", "sonnet", "gpt"].map(|text| (name(text), if text == "opus" { how } else { Barred::Shut }))
    };
    let (isolated, shut) = (Standing::new(barred(Barred::Isolated)), Standing::new(barred(Barred::Shut)));
    for class in FailureClass::ALL {
        let failed = failure(class, &opus, 1);
        let at =
            |standing| Failure { on: OnRoute { standing, ..failed.on }, max_attempts: Some(1), ..failed };
        let waits = matches!(
            decide(&policy, &at(&isolated)),
            Decision::Retry { reason: DelayReason::Gate, delay_ms: 0..=1_000, .. }
        );
        assert_eq!(waits, matches!(class, FailureClass::Auth | FailureClass::QuotaExhausted), "{class}");
        let judged = decide(&policy, &at(&shut));
        assert!(!matches!(judged, Decision::Retry { reason: DelayReason::Gate, .. }), "{class}");
    }
    let quota = Failure { hint_ms: Some(60_000), ..failure(FailureClass::QuotaExhausted, &opus, 1) };
    let hinted = |deadline_ms| {
        let on = OnRoute { standing: &isolated, ..quota.on };
        decide(&policy, &Failure { on, deadline_ms, max_attempts: Some(1), ..quota })
    };
    match hinted(quota.deadline_ms) {
        Decision::Retry { due_ms, delay_ms: 60_000..=67_000, reason: DelayReason::Gate } => {
            assert!(due_ms >= NOW_MS + 60_000, "the later of both");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(hinted(NOW_MS + 59_999), Decision::Escalate { reason: EndReason::PastDeadline });
    let auth = failure(FailureClass::Auth, &opus, 1);
    let others_open = Standing::new([(opus.clone(), Barred::Isolated)]);
    let elsewhere = Failure { on: OnRoute { standing: &others_open, ..auth.on }, ..auth };
    assert_eq!(taken(decide(&policy, &elsewhere)), Some(1), "another account first");
}

/// Who stands in instead of a wait for a person; none: it waits where it is, or ends.
fn stands_in(decision: Decision) -> Option<u32> {
    match decision {
        Decision::Retry { due_ms: NOW_MS, delay_ms: 0, reason: DelayReason::StandIn { route } } => {
            Some(route)
        }
        _ => None,
    }
}

#[test]
fn a_retry_that_would_wait_for_a_person_goes_past_the_isolated_one() {
    let (policy, opus) = (policy(), name("opus"));
    let barred = |how: &[(&str, Barred)]| Standing::new(how.iter().map(|(text, how)| (name(text), *how)));
    let after = |class, standing: &Standing| {
        let failed = Failure { retryable: true, hint_ms: Some(9_000), ..failure(class, &opus, 1) };
        decide(&policy, &Failure { on: OnRoute { standing, ..failed.on }, ..failed })
    };
    use Barred::{Isolated, Shut};
    let network = FailureClass::Network;
    assert_eq!(stands_in(after(network, &barred(&[("opus", Isolated)]))), Some(1), "its hint binds no other");
    let first_too = barred(&[("opus", Isolated), ("sonnet", Isolated)]);
    assert_eq!(stands_in(after(network, &first_too)), Some(2));
    let first_shut = barred(&[("opus", Isolated), ("sonnet", Shut), ("gpt", Shut)]);
    assert_eq!(stands_in(after(network, &first_shut)), Some(1), "that one opens by itself");
    assert_eq!(stands_in(after(FailureClass::Auth, &first_shut)), Some(1), "sooner than a person");
    assert_eq!(stands_in(after(network, &barred(&[("opus", Shut)]))), None);
    let all = barred(&[("opus", Isolated), ("sonnet", Isolated), ("gpt", Isolated)]);
    assert_eq!(stands_in(after(network, &all)), None);
    // What may not leave: a transaction, the last attempt, what a filter refused.
    let alone = barred(&[("opus", Isolated)]);
    let down = Failure { retryable: true, ..failure(network, &opus, 1) };
    let within = OnRoute { standing: &alone, in_transaction: true, ..down.on };
    assert_eq!(stands_in(decide(&policy, &Failure { on: within, ..down })), None);
    let kept = OnRoute { standing: &alone, kept: true, ..down.on };
    assert_eq!(stands_in(decide(&policy, &Failure { on: kept, ..down })), None);
    let on = OnRoute { standing: &alone, ..down.on };
    let last = Failure { on, max_attempts: Some(1), ..down };
    assert_eq!(decide(&policy, &last), Decision::Dead { reason: EndReason::Exhausted });
    let vanished = after(FailureClass::WorkerLost, &alone);
    assert!(matches!(vanished, Decision::Retry { reason: DelayReason::Hint, .. }), "{vanished:?}");
    let never = ClassPolicy { fallback_after: Some(0), ..ClassPolicy::default() };
    let never = RetryPolicy { overrides: [(FailureClass::Auth, never)].into(), ..policy.clone() };
    let auth = Failure { on, ..failure(FailureClass::Auth, &opus, 1) };
    assert!(matches!(decide(&never, &auth), Decision::Retry { reason: DelayReason::Gate, .. }));
}

#[test]
fn backoff_begins_anew_on_another_route() {
    let (policy, opus) = (policy(), name("opus"));
    let down = Failure { retryable: true, ..failure(FailureClass::Network, &opus, 9) };
    let there = Failure { on: OnRoute { route: 1, failed: 1, ..down.on }, ..down };
    for seed in 0..50 {
        match policy.decide(&there, &mut StdRng::seed_from_u64(seed)) {
            Decision::Retry { delay_ms, .. } => assert!(delay_ms <= 1_000, "{delay_ms}"),
            other => panic!("{other:?}"),
        }
    }
}

proptest! {
    /// Never past the chain's end, never back, never onto a dependency that is barred, and the first that is open.
    #[test]
    fn a_route_that_is_taken_is_the_first_open_one_behind(
        class in prop::sample::select(FailureClass::ALL.to_vec()),
        barred in prop::collection::vec(any::<bool>(), 0..6),
        (route, failed, attempts) in (0..8_u32, 1..8_u32, 1..8_u32),
        (in_transaction, hint_ms) in (any::<bool>(), prop::option::of(0..200_000_u64)),
    ) {
        let opus = name("opus");
        let gone = name("gone");
        let chain: Vec<Name> = (1..=barred.len()).map(|place| name(&format!("d{place}"))).collect();
        let closed = chain.iter().zip(&barred).filter(|(_, barred)| **barred);
        let standing = Standing::new(closed.map(|(name, _)| (name.clone(), Barred::Shut)));
        let policy = RetryPolicy { fallbacks: [(opus.clone(), chain)].into(), ..RetryPolicy::default() };
        let called = Some(&gone);
        let failure = Failure {
            hint_ms,
            max_attempts: Some(attempts),
            on: OnRoute { primary: Some(&opus), called, route, failed, in_transaction, kept: false, standing: &standing },
            ..failure(class, &opus, failed)
        };
        if let Some(taken) = taken(decide(&policy, &failure)) {
            prop_assert!(taken > route && taken as usize <= barred.len());
            prop_assert!(!barred[taken as usize - 1]);
            prop_assert!(barred[route as usize..taken as usize - 1].iter().all(|barred| *barred));
            prop_assert!(!in_transaction && failed < attempts);
            prop_assert_eq!(policy.route_at(Some(&opus), taken), taken);
        }
    }

    /// However a chain was changed under a task: what failed just now is not what stands in for it, and the first other one
    /// that is open does.
    #[test]
    fn what_failed_never_stands_in_for_itself(
        class in prop::sample::select(FailureClass::ALL.to_vec()),
        chain in prop::sample::subsequence(vec!["a", "b", "c", "d", "e"], 1..=5).prop_shuffle(),
        barred in prop::sample::subsequence(vec!["a", "b", "c", "d", "e"], 0..=5),
        (called, route, failed) in (prop::sample::select(vec!["a", "b", "c", "opus"]), 0..7_u32, 1..8_u32),
        hint_ms in prop::option::of(0..200_000_u64),
    ) {
        let (opus, called) = (name("opus"), name(called));
        let chain: Vec<Name> = chain.into_iter().map(name).collect();
        let standing = Standing::new(barred.into_iter().map(|text| (name(text), Barred::Shut)));
        let policy = RetryPolicy { fallbacks: [(opus.clone(), chain.clone())].into(), ..RetryPolicy::default() };
        let on = OnRoute { primary: Some(&opus), called: Some(&called), route, failed, standing: &standing, ..OnRoute::default() };
        let failure = Failure { hint_ms, on, ..failure(class, &opus, failed) };
        let open = |name: &&Name| **name != called && standing.is_open(name);
        if let Some(taken) = taken(decide(&policy, &failure)) {
            let place = taken as usize - 1;
            prop_assert!(taken > route && open(&&chain[place]), "{} of {:?}", taken, chain);
            prop_assert!(!chain[route as usize..place].iter().any(|name| open(&name)));
        }
    }
}
