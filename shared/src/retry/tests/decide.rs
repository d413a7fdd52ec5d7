//! Decisions: hints, deadlines, counters, endings.

use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::failure::FailureClass;
use crate::retry::{
    ClassPolicy, Decision, DelayReason, EndReason, Ending, Failure, MAX_DELAY_MS, OnRoute, RetryPolicy, Risk,
    Strategy, class_default,
};

const NOW_MS: i64 = 1_800_000_000_000;

/// A first, retryable failure with a day left.
fn first(class: FailureClass) -> Failure<'static> {
    Failure {
        class,
        retryable: true,
        failed: 1,
        failed_in_class: 1,
        max_attempts: None,
        strategy: None,
        previous_delay_ms: None,
        hint_ms: None,
        now_ms: NOW_MS,
        deadline_ms: NOW_MS + 86_400_000,
        on: OnRoute::default(),
    }
}

fn decide(policy: &RetryPolicy, failure: &Failure) -> Decision {
    policy.decide(failure, &mut StdRng::seed_from_u64(1))
}

fn with_strategy(strategy: Strategy) -> RetryPolicy {
    RetryPolicy { strategy, ..RetryPolicy::default() }
}

fn with_override(class: FailureClass, rule: ClassPolicy) -> RetryPolicy {
    RetryPolicy { overrides: [(class, rule)].into(), ..RetryPolicy::default() }
}

#[test]
fn without_a_hint_the_delay_is_the_strategys() {
    let policy = with_strategy(Strategy::Fixed { delay_ms: 4_200 });
    assert_eq!(
        decide(&policy, &first(FailureClass::ServerError)),
        Decision::Retry { due_ms: NOW_MS + 4_200, delay_ms: 4_200, reason: DelayReason::Policy }
    );
    let zero_hint = Failure { hint_ms: Some(0), ..first(FailureClass::ServerError) };
    assert_eq!(decide(&policy, &zero_hint), decide(&policy, &first(FailureClass::ServerError)));
}

#[test]
fn the_longer_of_hint_and_delay_is_the_reason() {
    let policy = with_strategy(Strategy::Fixed { delay_ms: 5_000 });
    for (hint_ms, expected) in
        [(4_999, DelayReason::Policy), (5_000, DelayReason::Hint), (60_000, DelayReason::Hint)]
    {
        let failure = Failure { hint_ms: Some(hint_ms), ..first(FailureClass::ServerError) };
        match decide(&policy, &failure) {
            Decision::Retry { reason, .. } => assert_eq!(reason, expected, "hint {hint_ms}"),
            other => panic!("hint {hint_ms}: {other:?}"),
        }
    }
}

#[test]
fn jitter_over_a_hint_uses_its_whole_range_and_no_more() {
    let policy = with_strategy(Strategy::Fixed { delay_ms: 0 });
    let mut rng = StdRng::seed_from_u64(3);
    // (hint, min(1 s + 0.1·hint, 30 s))
    for (hint_ms, most_ms) in
        [(1, 1_000), (9, 1_000), (10, 1_001), (20_000, 3_000), (290_000, 30_000), (900_000, 30_000)]
    {
        let failure = Failure { hint_ms: Some(hint_ms), ..first(FailureClass::ServerError) };
        let jitters: Vec<u64> = (0..20_000)
            .map(|_| match policy.decide(&failure, &mut rng) {
                Decision::Retry { delay_ms, .. } => delay_ms - hint_ms,
                other => panic!("{other:?}"),
            })
            .collect();
        let (least, most) = (jitters.iter().min().unwrap(), jitters.iter().max().unwrap());
        assert!(*most <= most_ms, "hint {hint_ms}: jitter {most}");
        assert!(*most >= most_ms - most_ms / 100, "hint {hint_ms}: jitter reaches only {most} of {most_ms}");
        assert!(*least <= most_ms / 100, "hint {hint_ms}: jitter starts at {least}");
        let mean = jitters.iter().sum::<u64>() as f64 / jitters.len() as f64;
        let middle = most_ms as f64 / 2.0;
        assert!((mean - middle).abs() < middle * 0.03, "hint {hint_ms}: mean jitter {mean}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_retry_is_never_before_the_hint_nor_after_the_deadline(
        class in proptest::sample::select(FailureClass::ALL.to_vec()),
        (retryable, failed, failed_in_class) in (any::<bool>(), 0..8_u32, 0..8_u32),
        max_attempts in proptest::option::of(any::<u32>()),
        previous_delay_ms in proptest::option::of(any::<u64>()),
        hint_ms in proptest::option::of(proptest::prop_oneof![0..600_000_u64, any::<u64>()]),
        now_ms in proptest::prop_oneof![
            proptest::strategy::Just(NOW_MS), proptest::strategy::Just(i64::MIN),
            proptest::strategy::Just(i64::MAX), any::<i64>(),
        ],
        left_ms in proptest::prop_oneof![-10_000..1_000_000_i64, any::<i64>()],
        seed in any::<u64>(),
    ) {
        let deadline_ms = now_ms.saturating_add(left_ms);
        let failure = Failure {
            class, retryable, failed, failed_in_class, max_attempts, previous_delay_ms, hint_ms, now_ms, deadline_ms,
            strategy: None,
            on: OnRoute::default(),
        };
        let policy = RetryPolicy::default();
        let decision = policy.decide(&failure, &mut StdRng::seed_from_u64(seed));
        prop_assert_eq!(decision, policy.decide(&failure, &mut StdRng::seed_from_u64(seed)));
        if let Decision::Retry { due_ms, delay_ms, reason } = decision {
            prop_assert!(class_default(class).retryable.unwrap_or(retryable));
            prop_assert!(due_ms <= deadline_ms);
            prop_assert_eq!(i128::from(due_ms), i128::from(now_ms) + i128::from(delay_ms));
            let hint_ms = hint_ms.unwrap_or(0);
            prop_assert!(delay_ms >= hint_ms);
            let most_jitter_ms = if hint_ms == 0 { 0 } else { (1_000 + hint_ms / 10).min(30_000) };
            match reason {
                DelayReason::Hint => prop_assert!(delay_ms <= hint_ms + most_jitter_ms),
                DelayReason::Policy => prop_assert!(delay_ms <= MAX_DELAY_MS + most_jitter_ms),
                DelayReason::Fallback { .. } | DelayReason::StandIn { .. } | DelayReason::Gate => {
                    prop_assert!(false, "it has no other route and no gate");
                }
            }
        }
    }

    #[test]
    fn past_the_deadline_a_person_decides(
        delay_ms in 0..200_000_u64, hint_ms in proptest::option::of(1..200_000_u64), left_ms in -1_000..200_000_i64,
        seed in any::<u64>(),
    ) {
        let policy = with_strategy(Strategy::Fixed { delay_ms });
        let deadline_ms = NOW_MS + left_ms;
        let failure = Failure { hint_ms, deadline_ms, ..first(FailureClass::Network) };
        let floor_ms = i64::try_from(delay_ms.max(hint_ms.unwrap_or(0))).unwrap();
        match policy.decide(&failure, &mut StdRng::seed_from_u64(seed)) {
            Decision::Retry { due_ms, .. } => prop_assert!(due_ms <= deadline_ms && floor_ms <= left_ms),
            Decision::Escalate { reason } => {
                prop_assert_eq!(reason, EndReason::PastDeadline);
                let most_jitter_ms = hint_ms.map_or(0, |hint_ms| i64::try_from((1_000 + hint_ms / 10).min(30_000)).unwrap());
                prop_assert!(floor_ms + most_jitter_ms > left_ms);
            }
            Decision::Dead { reason } => prop_assert!(false, "dead: {:?}", reason),
        }
    }
}

#[test]
fn a_retry_due_at_the_deadline_is_kept_and_one_millisecond_later_is_escalated() {
    let policy = with_strategy(Strategy::Fixed { delay_ms: 1_000 });
    let at = |left_ms| Failure { deadline_ms: NOW_MS + left_ms, ..first(FailureClass::Network) };
    assert!(matches!(decide(&policy, &at(1_000)), Decision::Retry { .. }));
    assert_eq!(decide(&policy, &at(999)), Decision::Escalate { reason: EndReason::PastDeadline });
}

#[test]
fn a_hint_beyond_the_end_of_time_is_escalated() {
    let failure =
        Failure { hint_ms: Some(u64::MAX), deadline_ms: i64::MAX, ..first(FailureClass::RateLimited) };
    let past = Decision::Escalate { reason: EndReason::PastDeadline };
    assert_eq!(decide(&RetryPolicy::default(), &failure), past);
}

#[test]
fn the_attempt_that_reaches_the_maximum_is_the_last() {
    let policy = RetryPolicy::default();
    for (failed, max_attempts, retried) in [
        (4, None, true),
        (5, None, false),
        (1, Some(2), true),
        (2, Some(2), false),
        (6, Some(7), true),
        (1, Some(1), false),
        (1, Some(0), false),
        (99, Some(u32::MAX), true),
        (100, Some(u32::MAX), false),
    ] {
        let failure = Failure { failed, max_attempts, ..first(FailureClass::ServerError) };
        match decide(&policy, &failure) {
            Decision::Retry { .. } => assert!(retried, "{failed} of {max_attempts:?}"),
            other => {
                assert!(!retried, "{failed} of {max_attempts:?}");
                assert_eq!(other, Decision::Dead { reason: EndReason::Exhausted });
            }
        }
    }
}

#[test]
fn a_task_cannot_go_above_its_queues_risk() {
    let policy = RetryPolicy { risk: Some(Risk::High), max_attempts: 2, ..RetryPolicy::default() };
    assert_eq!(policy.attempts_allowed(None), 2);
    assert_eq!(policy.attempts_allowed(Some(10)), 3);
    assert_eq!(policy.attempts_allowed(Some(1)), 1);
    let third = Failure { failed: 3, max_attempts: Some(10), ..first(FailureClass::ServerError) };
    assert_eq!(decide(&policy, &third), Decision::Dead { reason: EndReason::Exhausted });
}

#[test]
fn losses_and_lock_timeouts_use_up_no_attempt_and_count_their_own_backoff() {
    let doubling = Strategy::Exponential { multiplier_ms: 1_000, min_ms: 0, max_ms: 300_000 };
    for class in [FailureClass::WorkerLost, FailureClass::LockTimeout] {
        let rule = ClassPolicy { strategy: Some(doubling.clone()), ..ClassPolicy::default() };
        let failure = Failure { failed: 5, failed_in_class: 2, ..first(class) };
        assert_eq!(
            decide(&with_override(class, rule), &failure),
            Decision::Retry { due_ms: NOW_MS + 2_000, delay_ms: 2_000, reason: DelayReason::Policy }
        );
    }
    // Any other class backs off by all of the task's failures.
    let failure = Failure { failed: 4, ..first(FailureClass::Network) };
    let policy = with_strategy(doubling);
    assert!(matches!(decide(&policy, &failure), Decision::Retry { delay_ms: 8_000, .. }));
}

#[test]
fn the_previous_delay_reaches_the_strategy() {
    let policy = with_strategy(Strategy::Decorrelated { base_ms: 1_000, cap_ms: 300_000 });
    let mut rng = StdRng::seed_from_u64(5);
    let failure = Failure { previous_delay_ms: Some(50_000), ..first(FailureClass::Network) };
    let longest = (0..1_000).map(|_| match policy.decide(&failure, &mut rng) {
        Decision::Retry { delay_ms, .. } => delay_ms,
        other => panic!("{other:?}"),
    });
    assert!((140_000..=150_000).contains(&longest.max().unwrap()));
}

#[test]
fn overrides_decide_over_defaults_and_over_the_classifier() {
    let class = FailureClass::Refusal;
    let policy = with_override(
        class,
        ClassPolicy {
            strategy: Some(Strategy::Fixed { delay_ms: 7 }),
            max_attempts: Some(2),
            retryable: Some(true),
            when_unretryable: Some(Ending::Escalate),
            when_exhausted: Some(Ending::Dead),
            fallback_after: None,
        },
    );
    let refused = Failure { retryable: false, ..first(class) };
    assert!(matches!(decide(&policy, &refused), Decision::Retry { delay_ms: 7, .. }));
    let again = Failure { failed: 2, failed_in_class: 2, ..refused };
    assert_eq!(decide(&policy, &again), Decision::Dead { reason: EndReason::ClassExhausted });

    let class = FailureClass::Network;
    let never = ClassPolicy {
        retryable: Some(false),
        when_unretryable: Some(Ending::Escalate),
        ..ClassPolicy::default()
    };
    let policy = with_override(class, never);
    let ended = Decision::Escalate { reason: EndReason::Unretryable };
    assert_eq!(decide(&policy, &first(class)), ended);
    // The other classes keep their defaults.
    assert!(matches!(decide(&policy, &first(FailureClass::ServerError)), Decision::Retry { .. }));
}
