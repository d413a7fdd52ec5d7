//! Every kind of charge has its own bound, and says so when it is reached.

use super::*;

fn again(record: &mut Record, ended: Ended<'_>, policy: &RetryPolicy) -> Verdict {
    let due_ms = record.due_ms;
    let fence = claim_at(record, 1, due_ms * 1_000);
    record.settle(fence, ended, policy, due_ms, &mut rng()).unwrap()
}

#[test]
fn a_person_is_asked_when_a_task_was_put_off_or_handed_back_too_often() {
    let policy = RetryPolicy { max_deferrals: Some(3), max_releases: Some(2), ..policy() };
    for (ended, most, words) in
        [(Ended::Snoozed { delay_ms: 5 }, 3, "put off"), (Ended::Released, 2, "handed back")]
    {
        let mut record = enqueued(&start());
        for _ in 1..most {
            assert_eq!(again(&mut record, ended, &policy).state, TaskState::Scheduled);
        }
        let verdict = again(&mut record, ended, &policy);
        assert_eq!((verdict.state, verdict.delay_ms), (TaskState::Escalated, None));
        assert!(verdict.why.contains(words), "{}", verdict.why);
        record.retry_now(&policy, NOW_US).unwrap();
        assert_eq!(again(&mut record, ended, &policy).state, TaskState::Scheduled, "it counts anew");
    }
}

#[test]
fn lock_waits_are_counted_apart_and_the_twentieth_asks_a_person() {
    let waited = failure(FailureClass::LockTimeout);
    let mut record = enqueued(&Start { max_attempts: Some(1), ..start() });
    for times in 1..=19 {
        assert_eq!(again(&mut record, Ended::Failed(&waited), &policy()).state, TaskState::Scheduled);
        assert_eq!((record.ledger.lock_waits, record.ledger.failed), (times, 0));
    }
    let verdict = again(&mut record, Ended::Failed(&waited), &policy());
    assert_eq!(verdict.state, TaskState::Escalated);
    assert!(verdict.why.contains("locks"), "{}", verdict.why);
    record.retry_now(&policy(), NOW_US).unwrap();
    assert_eq!(record.ledger.lock_waits, 0);
}

#[test]
fn a_failure_that_leaves_a_task_at_its_cost_asks_a_person_and_success_does_not() {
    let seen = failure(FailureClass::ServerError);
    let dollars = |usd: u64| Cost::from_micros(usd * 1_000_000);
    let given = Start { max_cost: Some(dollars(5)), ..start() };
    let spend = |record: &mut Record, ended, usd| {
        let due_ms = record.due_ms;
        let fence = claim_at(record, 1, due_ms * 1_000);
        let attempt = Attempt { cost: dollars(usd), ..Ended::into(ended) };
        record.settle(fence, attempt, &policy(), due_ms, &mut rng()).unwrap()
    };
    let mut record = enqueued(&given);
    assert_eq!(spend(&mut record, Ended::Failed(&seen), 4).state, TaskState::Scheduled);
    let verdict = spend(&mut record, Ended::Failed(&seen), 1);
    assert_eq!((verdict.state, record.ledger.cost_usd), (TaskState::Escalated, dollars(5)));
    assert!(verdict.why.contains("cost"), "{}", verdict.why);
    // A person may let it try once more.
    record.retry_now(&policy(), NOW_US).unwrap();
    assert_eq!(record.ledger.cost_usd, dollars(5), "it was spent");
    assert_eq!(spend(&mut record, Ended::Done, 9).state, TaskState::Succeeded);
    assert_eq!(record.ledger.cost_usd, dollars(14));
    // What ends otherwise ends as it would.
    let mut record = enqueued(&given);
    let unretryable = FailureRecord { retryable: false, ..failure(FailureClass::InvalidRequest) };
    assert_eq!(spend(&mut record, Ended::Failed(&unretryable), 6).state, TaskState::Dead);
}

#[test]
fn what_the_coordinator_takes_back_is_undelivered_and_has_no_bound() {
    let policy = RetryPolicy { max_releases: Some(2), ..policy() };
    let mut record = enqueued(&start());
    for times in 1..=50 {
        let verdict = again(&mut record, Ended::Undelivered, &policy);
        assert_eq!((verdict.state, verdict.end), (TaskState::Scheduled, AttemptEnd::Undelivered));
        assert!(verdict.delay_ms.is_some_and(|delay_ms| delay_ms <= 1_000));
        assert_eq!((record.ledger.undelivered, record.ledger.released), (times, 0));
    }
    assert_eq!(again(&mut record, Ended::Released, &policy).state, TaskState::Scheduled);
    assert!(!record.was_called());
}

#[test]
fn what_is_put_off_or_handed_back_and_was_paid_for_counts_against_the_cost() {
    let dollar = Cost::from_micros(1_000_000);
    for ended in [Ended::Snoozed { delay_ms: 5 }, Ended::Released] {
        let mut record = enqueued(&Start { max_cost: Some(dollar), ..start() });
        let again = |record: &mut Record, cost| {
            let due_ms = record.due_ms;
            let fence = claim_at(record, 1, due_ms * 1_000);
            record.settle(fence, Attempt { cost, ..ended.into() }, &policy(), due_ms, &mut rng()).unwrap()
        };
        assert_eq!(again(&mut record, Cost::default()).state, TaskState::Scheduled);
        let verdict = again(&mut record, dollar);
        assert_eq!((verdict.state, record.ledger.cost_usd), (TaskState::Escalated, dollar));
        assert!(verdict.why.contains("cost"), "{}", verdict.why);
        record.retry_now(&policy(), NOW_US).unwrap();
        assert_eq!(again(&mut record, Cost::default()).state, TaskState::Scheduled, "it cost nothing more");
    }
}

#[test]
fn a_call_is_remembered_whatever_becomes_of_the_ledger() {
    let (waited, seen) = (failure(FailureClass::LockTimeout), failure(FailureClass::ServerError));
    let came = |attempts_made, failure| enqueued(&Start { attempts_made, failure, ..start() }).was_called();
    assert!(!came(0, None) && came(1, None) && came(1, Some(&seen)));
    assert!(came(0, Some(&seen)), "it is one of them, however they were counted");
    assert!(!came(0, Some(&waited)) && !came(1, Some(&waited)), "no lock, no call");
    assert!(came(2, Some(&waited)));
    let mut record = enqueued(&start());
    for none in [Ended::Snoozed { delay_ms: 5 }, Ended::Released, Ended::Undelivered, Ended::Failed(&waited)]
    {
        again(&mut record, none, &policy());
        assert!(!record.was_called(), "{none:?}");
    }
    again(&mut record, Ended::FailedForGood(&seen), &policy());
    record.retry_now(&policy(), NOW_US).unwrap();
    assert!(
        record.was_called() && !record.ledger.was_tried(),
        "a person's retry forgives, and was called all the same"
    );
    let mut lost = enqueued(&start());
    let fence = claim_at(&mut lost, 1, NOW_US);
    lost.clone().lose(&policy(), NOW_US, &mut rng()).unwrap();
    lost.extend(fence, LEASE_MS, NOW_MS).unwrap();
    lost.lose(&policy(), NOW_US, &mut rng()).unwrap();
    assert!(lost.called);
}
