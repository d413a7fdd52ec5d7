//! Where a task goes on when its dependency fails, and what that costs it.

use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

use super::*;
use crate::gate::Barred;
use crate::retry::ClassPolicy;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn chained() -> RetryPolicy {
    RetryPolicy { fallbacks: [(name("opus"), vec![name("sonnet"), name("gpt")])].into(), ..policy() }
}

/// Runs the task once more, and lets it fail.
fn fail_once(record: &mut Record, class: FailureClass, policy: &RetryPolicy, standing: &Standing) -> Verdict {
    let (due_ms, opus) = (record.due_ms, name("opus"));
    let fence = claim_at(record, 1, due_ms * 1_000);
    let called = policy.dependency_at(Some(&opus), record.route);
    let terms = Terms { policy, primary: Some(&opus), called, standing };
    let seen = FailureRecord { retryable: class != FailureClass::Refusal, ..failure(class) };
    record.settle(fence, Ended::Failed(&seen), terms, due_ms, &mut rng()).unwrap()
}

#[test]
fn a_task_walks_its_chain_and_is_charged_as_ever() {
    let (policy, mut record) = (chained(), enqueued(&Start { max_attempts: Some(6), ..start() }));
    let mut routes = Vec::new();
    while record.state == TaskState::Scheduled {
        fail_once(&mut record, FailureClass::Overloaded, &policy, Standing::OPEN);
        routes.push(record.route);
    }
    assert_eq!(routes, [0, 1, 1, 2, 2, 2], "two failures each, and then no route is left");
    assert_eq!((record.state, record.ledger.failed), (TaskState::Dead, 6));
}

#[test]
fn the_bounds_of_a_class_hold_for_each_route() {
    let (policy, mut record) = (chained(), enqueued(&Start { max_attempts: Some(50), ..start() }));
    let mut failures = 0;
    while record.state == TaskState::Scheduled {
        fail_once(&mut record, FailureClass::Timeout, &policy, Standing::OPEN);
        failures += 1;
    }
    assert_eq!((failures, record.route, record.state), (9, 2, TaskState::Dead), "three on each of three");
    assert_eq!(record.ledger.failed, 9);
}

#[test]
fn a_refusal_is_tried_on_one_other_model() {
    let (policy, mut record) = (chained(), enqueued(&start()));
    let refused = FailureClass::Refusal;
    assert_eq!(fail_once(&mut record, refused, &policy, Standing::OPEN).state, TaskState::Scheduled);
    assert_eq!(record.route, 1);
    assert_eq!(fail_once(&mut record, refused, &policy, Standing::OPEN).state, TaskState::Escalated);
    assert_eq!((record.route, record.ledger.failed), (1, 2));
}

#[test]
fn an_isolated_dependency_charges_a_deferral_and_no_attempt() {
    let isolated = Standing::new([(name("opus"), Barred::Isolated)]);
    let policy = RetryPolicy { max_deferrals: Some(3), ..policy() };
    let mut record = enqueued(&Start { max_attempts: Some(1), ..start() });
    for times in 1..=2 {
        let before = record.due_ms;
        let verdict = fail_once(&mut record, FailureClass::Auth, &policy, &isolated);
        assert_eq!((verdict.state, verdict.end), (TaskState::Scheduled, AttemptEnd::Failed));
        assert!((0..=1_000).contains(&(record.due_ms - before)));
        assert_eq!((record.ledger.deferred, record.ledger.failed), (times, 0));
        assert!(record.class_failures.is_empty() && record.failed_on_route == 0);
    }
    let verdict = fail_once(&mut record, FailureClass::Auth, &policy, &isolated);
    assert_eq!((verdict.state, record.ledger.deferred), (TaskState::Escalated, 3));
    assert!(verdict.why.contains("put off"), "{}", verdict.why);
}

#[test]
fn a_failure_that_a_task_comes_with_can_send_it_elsewhere_at_once() {
    let (policy, opus, seen) = (chained(), name("opus"), failure(FailureClass::Overloaded));
    let terms =
        Terms { policy: &policy, primary: Some(&opus), called: Some(&opus), standing: Standing::OPEN };
    for (attempts_made, route) in [(1, 0), (2, 1)] {
        let given = Start { attempts_made, failure: Some(&seen), ..start() };
        let (record, verdict) = Record::enqueue(&given, terms, NOW_US, &mut rng());
        assert_eq!((record.route, record.ledger.failed), (route, attempts_made));
        assert_eq!(verdict.unwrap().delay_ms == Some(0), route == 1);
    }
    let begins_later = Start { attempts_made: 2, failure: Some(&seen), route: 1, ..start() };
    let sonnet = name("sonnet");
    let terms = Terms { called: Some(&sonnet), ..terms };
    assert_eq!(Record::enqueue(&begins_later, terms, NOW_US, &mut rng()).0.route, 2);
}

#[test]
fn a_person_who_sends_it_round_again_begins_with_its_own_dependency() {
    let (policy, mut record) = (chained(), enqueued(&start()));
    fail_once(&mut record, FailureClass::ModelUnavailable, &policy, Standing::OPEN);
    record.retry_now(&policy, record.due_ms * 1_000).unwrap();
    assert_eq!(record.route, 1, "what waits stays where it is");
    record.cancel(&policy, NOW_US).unwrap();
    record.retry_now(&policy, NOW_US).unwrap();
    assert_eq!((record.route, record.failed_on_route, record.ledger.failed), (0, 0, 0));
}

fn isolated(dependencies: &[&str]) -> Standing {
    Standing::new(dependencies.iter().map(|text| (name(text), Barred::Isolated)))
}

#[test]
fn a_task_begins_past_what_is_isolated_and_nothing_is_charged() {
    let (policy, opus, standing) = (chained(), name("opus"), isolated(&["opus", "sonnet"]));
    let terms = Terms { policy: &policy, primary: Some(&opus), called: Some(&opus), standing: &standing };
    let given = Start { attempts_made: 2, delay_ms: 700, ..start() };
    let (record, verdict) = Record::enqueue(&given, terms, NOW_US, &mut rng());
    let verdict = verdict.unwrap();
    assert_eq!((record.route, record.failed_on_route, record.ledger.failed), (2, 0, 2));
    assert_eq!((verdict.why, verdict.delay_ms, record.due_ms), (STANDS_IN, Some(700), NOW_MS + 700));
    let open = Terms { standing: Standing::OPEN, ..terms };
    let (record, verdict) = Record::enqueue(&given, open, NOW_US, &mut rng());
    assert_eq!((record.route, record.failed_on_route, verdict), (0, 2, None));
}

#[test]
fn what_one_filter_refused_or_two_models_declined_is_taken_nowhere_unasked() {
    let rule = |class| (class, ClassPolicy { retryable: Some(true), ..ClassPolicy::default() });
    let again = [rule(FailureClass::ContentPolicy), rule(FailureClass::Refusal)];
    let policy = RetryPolicy { overrides: again.into(), ..chained() };
    let (opus, standing) = (name("opus"), isolated(&["opus"]));
    let terms = Terms { policy: &policy, primary: Some(&opus), called: Some(&opus), standing: &standing };
    for (class, failures, stays) in [
        (FailureClass::ContentPolicy, 1, true),
        (FailureClass::Refusal, 2, true),
        (FailureClass::ServerError, 2, false),
    ] {
        let mut record = enqueued(&start());
        for _ in 0..failures {
            record.charge(class, &policy);
        }
        let mut handed_back = record.clone();
        let fence = claim_at(&mut handed_back, 1, NOW_US);
        handed_back.settle(fence, Ended::Released, terms, NOW_MS, &mut rng()).unwrap();
        assert_eq!(handed_back.route == 0, stays, "{class}");
        // Nor if it fails for another reason afterwards.
        let fence = claim_at(&mut record, 1, NOW_US);
        let seen = failure(FailureClass::Network);
        record.settle(fence, Ended::Failed(&seen), terms, NOW_MS, &mut rng()).unwrap();
        assert_eq!(record.route == 0, stays, "{class}");
    }
}

proptest! {
    /// Whatever fails: every failure charges exactly one thing, routes only grow, and attempts bound the whole.
    #[test]
    fn routes_take_nothing_from_the_bounds(
        classes in prop::collection::vec(prop::sample::select(FailureClass::ALL.to_vec()), 1..40),
        barred in any::<[Option<bool>; 3]>(),
        max_attempts in 1..12_u32,
    ) {
        let policy = chained();
        let how = |isolated: bool| if isolated { Barred::Isolated } else { Barred::Shut };
        let barred = ["opus", "sonnet", "gpt"].into_iter().zip(barred);
        let standing = Standing::new(barred.filter_map(|(text, barred)| Some((name(text), how(barred?)))));
        let mut record = enqueued(&Start { max_attempts: Some(max_attempts), ..start() });
        for class in classes {
            if record.state != TaskState::Scheduled {
                break;
            }
            let before = record.clone();
            fail_once(&mut record, class, &policy, &standing);
            let charges = |ledger: &Ledger| ledger.failed + ledger.lost + ledger.deferred + ledger.lock_waits;
            prop_assert_eq!(charges(&record.ledger), charges(&before.ledger) + 1);
            prop_assert!(record.route >= before.route && record.route <= 2);
            prop_assert!(record.ledger.failed <= max_attempts && record.ledger.lost <= 3);
            if record.route != before.route {
                let dependency = policy.dependency_at(Some(&name("opus")), record.route).cloned();
                let left = policy.dependency_at(Some(&name("opus")), before.route).cloned();
                // It waits for a gate that opens by itself only in place of one that a person has to open.
                let waits = left.is_some_and(|left| standing.is_isolated(&left));
                let taken = |to: Name| standing.is_open(&to) || (waits && !standing.is_isolated(&to));
                prop_assert!(dependency.is_some_and(taken));
                prop_assert_eq!(record.failed_on_route, 0);
            }
        }
    }
}
