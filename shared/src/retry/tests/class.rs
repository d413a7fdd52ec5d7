//! What every class gets by default.

use std::collections::BTreeSet;

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::failure::FailureClass;
use crate::retry::{Decision, EndReason, Ending, Failure, OnRoute, RetryPolicy, Strategy, class_default};

/// (class, where unretryable, where exhausted, failures of the class allowed on one task)
const TABLE: [(FailureClass, Ending, Ending, Option<u32>); 22] = [
    (FailureClass::RateLimited, Ending::Dead, Ending::Dead, None),
    (FailureClass::Overloaded, Ending::Dead, Ending::Dead, None),
    (FailureClass::ServerError, Ending::Dead, Ending::Dead, None),
    (FailureClass::Timeout, Ending::Dead, Ending::Dead, Some(3)),
    (FailureClass::Network, Ending::Dead, Ending::Dead, None),
    (FailureClass::PartialResponse, Ending::Dead, Ending::Dead, Some(3)),
    (FailureClass::QuotaExhausted, Ending::Escalate, Ending::Escalate, None),
    (FailureClass::QuotaWindow, Ending::Escalate, Ending::Dead, None),
    (FailureClass::Auth, Ending::Escalate, Ending::Escalate, None),
    (FailureClass::Permission, Ending::Escalate, Ending::Escalate, None),
    (FailureClass::ModelUnavailable, Ending::Escalate, Ending::Escalate, None),
    (FailureClass::ContextOverflow, Ending::Dead, Ending::Dead, None),
    (FailureClass::ContentPolicy, Ending::Escalate, Ending::Escalate, None),
    (FailureClass::Refusal, Ending::Escalate, Ending::Escalate, None),
    (FailureClass::BadOutput, Ending::Dead, Ending::Dead, Some(2)),
    (FailureClass::Conflict, Ending::Dead, Ending::Dead, Some(4)),
    (FailureClass::InvalidRequest, Ending::Dead, Ending::Dead, None),
    (FailureClass::ToolError, Ending::Dead, Ending::Dead, Some(4)),
    (FailureClass::BusinessRule, Ending::Escalate, Ending::Escalate, None),
    (FailureClass::WorkerLost, Ending::Dead, Ending::Dead, Some(3)),
    (FailureClass::LockTimeout, Ending::Escalate, Ending::Escalate, Some(20)),
    (FailureClass::Unknown, Ending::Escalate, Ending::Escalate, Some(3)),
];

fn ended(ending: Ending, reason: EndReason) -> Decision {
    match ending {
        Ending::Dead => Decision::Dead { reason },
        Ending::Escalate => Decision::Escalate { reason },
    }
}

fn decide(class: FailureClass, retryable: bool, failed: u32, failed_in_class: u32) -> Decision {
    let failure = Failure {
        class,
        retryable,
        failed,
        failed_in_class,
        max_attempts: Some(100),
        strategy: None,
        previous_delay_ms: None,
        hint_ms: None,
        now_ms: 0,
        deadline_ms: 365 * 86_400_000,
        on: OnRoute::default(),
    };
    RetryPolicy::default().decide(&failure, &mut StdRng::seed_from_u64(1))
}

#[test]
fn the_table_names_every_class_once() {
    let named: BTreeSet<FailureClass> = TABLE.iter().map(|row| row.0).collect();
    assert_eq!(named, FailureClass::ALL.into());
}

#[test]
fn an_unretryable_failure_ends_where_its_class_says() {
    for (class, unretryable, _, _) in TABLE.into_iter().filter(|row| class_default(row.0).retryable.is_none())
    {
        assert_eq!(decide(class, false, 1, 1), ended(unretryable, EndReason::Unretryable), "{class}");
    }
}

#[test]
fn a_tool_that_failed_is_tried_again_whatever_the_classifier_thinks() {
    assert!(matches!(decide(FailureClass::ToolError, false, 1, 1), Decision::Retry { .. }));
}

#[test]
fn a_retryable_failure_is_retried_as_often_as_its_class_allows() {
    for (class, _, exhausted, allowed) in TABLE {
        let last_retry = allowed.unwrap_or(100) - 1;
        for failed in 1..=last_retry {
            let decision = decide(class, true, failed, failed);
            assert!(matches!(decision, Decision::Retry { .. }), "{class}, failure {failed}: {decision:?}");
        }
        let reason = match (class, allowed) {
            (FailureClass::WorkerLost, _) => EndReason::Poison,
            (FailureClass::LockTimeout, _) => EndReason::LockWaits,
            (_, Some(_)) => EndReason::ClassExhausted,
            (_, None) => EndReason::Exhausted,
        };
        let past = last_retry + 1;
        assert_eq!(decide(class, true, past, past), ended(exhausted, reason), "{class}");
    }
}

#[test]
fn a_tasks_last_attempt_ends_where_the_class_of_its_last_failure_says() {
    for (class, _, exhausted, _) in TABLE {
        if !class_default(class).own_counter {
            assert_eq!(decide(class, true, 100, 1), ended(exhausted, EndReason::Exhausted), "{class}");
        }
    }
}

#[test]
fn overload_waits_from_five_seconds_and_conflicts_are_short() {
    for (class, base, max) in [
        (FailureClass::RateLimited, 5_000, 300_000),
        (FailureClass::Overloaded, 5_000, 300_000),
        (FailureClass::Conflict, 200, 5_000),
        (FailureClass::LockTimeout, 200, 5_000),
        (FailureClass::WorkerLost, 1_000, 30_000),
    ] {
        match class_default(class).strategy {
            Some(Strategy::FullJitter { base_ms, max_ms, .. }) => {
                assert_eq!((base_ms, max_ms), (base, max), "{class}");
            }
            other => panic!("{class}: {other:?}"),
        }
    }
}

#[test]
fn default_strategies_of_classes_pass_validation() {
    for class in FailureClass::ALL {
        if let Some(strategy) = class_default(class).strategy {
            let policy = RetryPolicy { strategy, ..RetryPolicy::default() };
            assert_eq!(policy.validate(), Ok(()), "{class}");
        }
    }
}
