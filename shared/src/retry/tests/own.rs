//! The backoff that a task brings with it, and the bounds that its queue sets.

use proptest::prelude::{any, prop, prop_assert, proptest};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::failure::FailureClass;
use crate::retry::{
    ClassPolicy, Decision, Failure, MAX_DELAY_MS, OnRoute, PolicyError, RetryPolicy, Strategy, class_default,
};

fn fixed(delay_ms: u64) -> Strategy {
    Strategy::Fixed { delay_ms }
}

fn failed(class: FailureClass, strategy: &Strategy) -> Failure<'_> {
    Failure {
        class,
        retryable: true,
        failed: 1,
        failed_in_class: 1,
        max_attempts: Some(50),
        strategy: Some(strategy),
        previous_delay_ms: None,
        hint_ms: None,
        now_ms: 0,
        deadline_ms: i64::MAX,
        on: OnRoute::default(),
    }
}

fn delay(policy: &RetryPolicy, failure: &Failure<'_>) -> Option<u64> {
    match policy.decide(failure, &mut StdRng::seed_from_u64(3)) {
        Decision::Retry { delay_ms, .. } => Some(delay_ms),
        Decision::Dead { .. } | Decision::Escalate { .. } => None,
    }
}

#[test]
fn it_takes_the_place_of_every_backoff_but_those_with_a_counter_of_their_own() {
    let (policy, own) = (RetryPolicy::default(), fixed(77_777));
    for class in FailureClass::ALL {
        let rule = class_default(class);
        let delay = delay(&policy, &failed(class, &own));
        match (rule.own_counter, rule.max_attempts) {
            (true, _) => assert!(delay.is_some_and(|delay_ms| delay_ms < 77_777), "{class}: {delay:?}"),
            (false, Some(1)) => assert_eq!(delay, None, "{class}"),
            (false, _) => assert_eq!(delay, Some(77_777), "{class}"),
        }
        let never = Failure { retryable: false, ..failed(class, &own) };
        if rule.retryable.is_none() {
            assert_eq!(self::delay(&policy, &never), None, "{class}: what is never retried stays so");
        }
    }
}

#[test]
fn a_hint_is_its_floor() {
    let own = fixed(2_000);
    let hinted = Failure { hint_ms: Some(60_000), ..failed(FailureClass::RateLimited, &own) };
    assert!(delay(&RetryPolicy::default(), &hinted).is_some_and(|delay_ms| delay_ms >= 60_000));
}

#[test]
fn a_queue_says_how_fast_and_how_slow_it_may_be() {
    let refused = |policy: &RetryPolicy, strategy: &Strategy| policy.check_own(strategy).unwrap_err();
    let plain = RetryPolicy::default();
    assert_eq!((plain.task_base_min(), plain.task_cap_max()), (1_000, MAX_DELAY_MS));
    assert_eq!(plain.check_own(&fixed(1_000)), Ok(()));
    let too_fast = refused(&plain, &fixed(999));
    assert_eq!(too_fast.field(), "retry.delay_ms");
    let said = too_fast.to_string();
    assert!(said.contains("is 999 ms, 1000 to 2592000000 ms are allowed"), "{said}");
    assert!(said.contains("task_base_min_ms"), "{said}");
    // A low cap is a low base.
    let capped = Strategy::FullJitter { base_ms: 60_000, min_ms: 0, max_ms: 5 };
    assert_eq!(refused(&plain, &capped).field(), "retry.base_ms");
    // Bounds of strategies hold here, too.
    let zero = Strategy::Decorrelated { base_ms: 0, cap_ms: 9 };
    assert!(matches!(refused(&plain, &zero), PolicyError::ZeroDelay { field } if field == "retry.base_ms"));
    let bounds = RetryPolicy { task_base_min_ms: Some(0), task_cap_max_ms: Some(60_000), ..plain };
    assert_eq!(bounds.check_own(&fixed(0)), Ok(()));
    let slow = Strategy::Exponential { multiplier_ms: 1_000, min_ms: 0, max_ms: 60_001 };
    assert_eq!(refused(&bounds, &slow).field(), "retry.max_ms");
    let listed = Strategy::Schedule { delays_ms: vec![5, 60_001] };
    assert_eq!(refused(&bounds, &listed).field(), "retry.delays_ms");
}

#[test]
fn by_default_it_is_no_faster_than_the_fastest_that_the_queue_has_itself() {
    let rule = |delay_ms| ClassPolicy { strategy: Some(fixed(delay_ms)), ..ClassPolicy::default() };
    let policy = RetryPolicy {
        strategy: fixed(9_000),
        overrides: [(FailureClass::Conflict, rule(4_000)), (FailureClass::LockTimeout, rule(5))].into(),
        ..RetryPolicy::default()
    };
    assert_eq!(policy.task_base_min(), 4_000, "how long a lock is waited for says nothing about a server");
}

#[test]
fn bounds_that_are_set_later_hold_for_tasks_that_are_there() {
    let (own, class) = (fixed(3_000), FailureClass::ServerError);
    let policy = RetryPolicy { strategy: fixed(1_000), ..RetryPolicy::default() };
    assert_eq!(delay(&policy, &failed(class, &own)), Some(3_000));
    let slower = RetryPolicy { task_base_min_ms: Some(5_000), ..policy.clone() };
    assert_eq!(delay(&slower, &failed(class, &own)), Some(1_000), "the queue's own");
    let shorter = RetryPolicy { task_cap_max_ms: Some(2_000), ..policy };
    assert_eq!(delay(&shorter, &failed(class, &own)), Some(1_000));
}

#[test]
fn bounds_are_checked_themselves() {
    let with = |least, most| RetryPolicy {
        task_base_min_ms: least,
        task_cap_max_ms: most,
        ..RetryPolicy::default()
    };
    assert_eq!(with(Some(0), Some(0)).validate(), Ok(()));
    let fields = |policy: RetryPolicy| policy.validate().unwrap_err().field().to_owned();
    assert_eq!(fields(with(Some(MAX_DELAY_MS + 1), None)), "task_base_min_ms");
    assert_eq!(fields(with(None, Some(MAX_DELAY_MS + 1))), "task_cap_max_ms");
    assert_eq!(fields(with(Some(2), Some(1))), "task_base_min_ms");
    // Where the least base is not set, it is that of the queue's own strategies.
    assert_eq!(with(None, Some(1_000)).validate(), Ok(()));
    assert_eq!(fields(with(None, Some(999))), "task_cap_max_ms");
    let said = with(None, Some(999)).validate().unwrap_err().to_string();
    assert!(said.contains("1000") && said.contains("set `task_base_min_ms` lower"), "{said}");
}

proptest! {
    /// Whatever is let in: no delay is above the cap that the queue allows, nor above what the strategy says itself.
    #[test]
    fn what_is_let_in_stays_below_its_cap(
        kind in 0..7_u8,
        (one, two, three) in (0..200_000_u64, 0..200_000_u64, 0..200_000_u64),
        (attempt, previous, seed) in (1..40_u32, prop::option::of(0..200_000_u64), any::<u64>()),
        most in 1..200_000_u64,
    ) {
        let own = match kind {
            0 => fixed(one),
            1 => Strategy::Exponential { multiplier_ms: one, min_ms: two, max_ms: three },
            2 => Strategy::ExponentialJitter { base_ms: one, jitter_ms: two, max_ms: three },
            3 => Strategy::FullJitter { base_ms: one, min_ms: two, max_ms: three },
            4 => Strategy::EqualJitter { base_ms: one, min_ms: two, max_ms: three },
            5 => Strategy::Decorrelated { base_ms: one, cap_ms: two },
            _ => Strategy::Schedule { delays_ms: vec![one, two, three] },
        };
        let policy = RetryPolicy {
            task_base_min_ms: Some(0),
            task_cap_max_ms: Some(most),
            ..RetryPolicy::default()
        };
        let delay_ms = own.delay_ms(attempt, previous, &mut StdRng::seed_from_u64(seed));
        if policy.check_own(&own).is_ok() {
            prop_assert!(delay_ms <= most, "{} of {:?}", delay_ms, own);
            prop_assert!(own.base_ms() <= own.cap_ms() && own.cap_ms() <= most);
        }
    }
}
