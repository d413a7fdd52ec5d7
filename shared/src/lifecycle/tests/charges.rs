//! What each event costs a task, and how it is judged.

use super::*;

fn ledger(record: &Record) -> [u32; 5] {
    let Ledger { failed, lost, undelivered, deferred, released, .. } = record.ledger;
    [failed, lost, undelivered, deferred, released]
}

/// Claims when due, starts where asked, and loses the lease.
fn lose_once(record: &mut Record, started: bool) -> Verdict {
    let due_ms = record.due_ms;
    let fence = claim_at(record, 3, due_ms * 1_000);
    if started {
        record.extend(fence, LEASE_MS, due_ms).unwrap();
    }
    record.lose(&policy(), record.lease_until_ms * 1_000, &mut rng()).unwrap()
}

#[test]
fn a_lease_that_started_is_lost_and_one_that_did_not_is_undelivered() {
    let mut record = enqueued(&start());
    let verdict = lose_once(&mut record, false);
    assert_eq!((verdict.end, verdict.state), (AttemptEnd::Undelivered, TaskState::Scheduled));
    assert_eq!(ledger(&record), [0, 0, 1, 0, 0]);
    let verdict = lose_once(&mut record, true);
    assert_eq!((verdict.end, verdict.state), (AttemptEnd::Lost, TaskState::Scheduled));
    assert_eq!(ledger(&record), [0, 1, 1, 0, 0]);
}

#[test]
fn the_third_loss_is_poison() {
    let mut record = enqueued(&Start { max_attempts: Some(100), ..start() });
    assert_eq!(lose_once(&mut record, true).state, TaskState::Scheduled);
    assert_eq!(lose_once(&mut record, true).state, TaskState::Scheduled);
    let verdict = lose_once(&mut record, true);
    assert_eq!((verdict.state, verdict.end), (TaskState::Dead, AttemptEnd::Lost));
    assert!(verdict.why.contains("poison"), "{}", verdict.why);
    assert!(record.expires_ms.is_some());
}

#[test]
fn losses_do_not_use_up_attempts() {
    let mut record = enqueued(&Start { max_attempts: Some(1), ..start() });
    assert_eq!(lose_once(&mut record, true).state, TaskState::Scheduled);
    assert_eq!(lose_once(&mut record, true).state, TaskState::Scheduled);
    assert_eq!(ledger(&record), [0, 2, 0, 0, 0]);
}

#[test]
fn undelivered_leases_only_delay_however_many_there_are() {
    let mut record = enqueued(&start());
    for times in 1..=100 {
        let verdict = lose_once(&mut record, false);
        assert_eq!(verdict.state, TaskState::Scheduled);
        assert!((1_000..=2_000).contains(&verdict.delay_ms.unwrap()));
        assert_eq!(ledger(&record), [0, 0, times, 0, 0]);
    }
}

#[test]
fn a_loss_that_the_worker_reports_is_the_same_kind_of_loss() {
    let killed = failure(FailureClass::WorkerLost);
    let mut record = enqueued(&start());
    lose_once(&mut record, true);
    for expected in [TaskState::Scheduled, TaskState::Dead] {
        let due_ms = record.due_ms;
        let fence = claim_at(&mut record, 4, due_ms * 1_000);
        let verdict = settle_at(&mut record, fence, Ended::Failed(&killed), due_ms).unwrap();
        assert_eq!(verdict.state, expected);
    }
    assert_eq!(ledger(&record), [0, 3, 0, 0, 0]);
}

#[test]
fn a_failure_charges_one_attempt_and_the_last_one_is_death() {
    let seen = failure(FailureClass::ServerError);
    let mut record = enqueued(&Start { max_attempts: Some(3), ..start() });
    for failed in 1..=3 {
        let due_ms = record.due_ms;
        let fence = claim_at(&mut record, 4, due_ms * 1_000);
        let verdict = settle_at(&mut record, fence, Ended::Failed(&seen), due_ms).unwrap();
        assert_eq!(ledger(&record), [failed, 0, 0, 0, 0]);
        if failed < 3 {
            assert_eq!((verdict.state, record.due_ms), (TaskState::Scheduled, due_ms + 10_000));
        } else {
            assert_eq!((verdict.state, verdict.delay_ms), (TaskState::Dead, None));
        }
    }
}

#[test]
fn endings_that_the_handler_decides_charge_their_failure() {
    let seen = failure(FailureClass::ServerError);
    for ended in [Ended::FailedForGood(&seen), Ended::NeedsPerson(&seen)] {
        let (mut record, fence) = in_state(TaskState::Leased);
        settle_at(&mut record, fence, ended, NOW_MS).unwrap();
        assert_eq!(ledger(&record), [1, 0, 0, 0, 0]);
    }
}

#[test]
fn snoozes_and_releases_charge_no_attempt() {
    let mut record = enqueued(&Start { max_attempts: Some(1), ..start() });
    for times in 1..=20 {
        let due_ms = record.due_ms;
        let fence = claim_at(&mut record, 5, due_ms * 1_000);
        let snoozed = settle_at(&mut record, fence, Ended::Snoozed { delay_ms: 60_000 }, due_ms).unwrap();
        assert_eq!((snoozed.state, record.due_ms), (TaskState::Scheduled, due_ms + 60_000));
        let due_ms = record.due_ms;
        let fence = claim_at(&mut record, 6, due_ms * 1_000);
        let released = settle_at(&mut record, fence, Ended::Released, due_ms).unwrap();
        assert_eq!(released.state, TaskState::Scheduled);
        assert!((0..=1_000).contains(&(record.due_ms - due_ms)));
        assert_eq!(ledger(&record), [0, 0, 0, times, times]);
    }
    assert_eq!(record.runs, 40);
}

#[test]
fn an_unretryable_failure_settles_at_once_by_its_class() {
    let cases = [(FailureClass::InvalidRequest, TaskState::Dead), (FailureClass::Auth, TaskState::Escalated)];
    for (class, expected) in cases {
        let seen = FailureRecord { retryable: false, ..failure(class) };
        let (mut record, fence) = in_state(TaskState::Leased);
        assert_eq!(settle_at(&mut record, fence, Ended::Failed(&seen), NOW_MS).unwrap().state, expected);
        let (record, verdict) =
            Record::enqueue(&Start { failure: Some(&seen), ..start() }, &policy(), NOW_US, &mut rng());
        assert_eq!((record.state, verdict.unwrap().end), (expected, AttemptEnd::Reported));
    }
}

#[test]
fn attempts_made_by_the_caller_are_counted_exactly_once() {
    let seen = failure(FailureClass::ServerError);
    for (attempts_made, with_failure, failed) in
        [(0, false, 0), (3, false, 3), (0, true, 1), (1, true, 1), (4, true, 4)]
    {
        let given = Start { attempts_made, failure: with_failure.then_some(&seen), ..start() };
        let record = enqueued(&given);
        assert_eq!(ledger(&record), [failed, 0, 0, 0, 0], "{attempts_made} with failure: {with_failure}");
        assert_eq!((record.state, record.runs), (TaskState::Scheduled, 0));
    }
    let used_up = enqueued(&Start { attempts_made: 5, failure: Some(&seen), ..start() });
    assert_eq!((used_up.state, used_up.ledger.failed), (TaskState::Dead, 5));
    let without = enqueued(&Start { attempts_made: 5, ..start() });
    assert_eq!((without.state, without.ledger.failed), (TaskState::Dead, 5));
}

#[test]
fn the_longer_of_delay_and_backoff_decides_when_a_reported_failure_runs() {
    let seen = failure(FailureClass::ServerError);
    for (delay_ms, due_after_ms) in [(0, 10_000), (9_999, 10_000), (10_001, 10_001)] {
        let record = enqueued(&Start { failure: Some(&seen), delay_ms, ..start() });
        assert_eq!(record.due_ms, NOW_MS + due_after_ms);
    }
}

#[test]
fn a_hint_is_a_floor_for_the_first_delay_and_every_other() {
    let hinted = FailureRecord { retry_after_ms: Some(90_000), ..failure(FailureClass::RateLimited) };
    let reported = enqueued(&Start { failure: Some(&hinted), ..start() });
    let (mut settled, fence) = in_state(TaskState::Leased);
    settle_at(&mut settled, fence, Ended::Failed(&hinted), NOW_MS).unwrap();
    for record in [reported, settled] {
        assert!((90_000..=100_000).contains(&(record.due_ms - NOW_MS)), "{}", record.due_ms);
    }
}

#[test]
fn a_claim_after_the_deadline_escalates_and_one_at_it_does_not() {
    let given = Start { deadline_ms: Some(1_000), ..start() };
    claim_at(&mut enqueued(&given), 1, NOW_US + 1_000_999);
    let mut late = enqueued(&given);
    let verdict = late.claim(LEASE_MS, Nonce(1), &policy(), NOW_US + 1_001_000).unwrap().unwrap();
    assert_eq!((verdict.state, late.runs), (TaskState::Escalated, 0));
    assert_eq!(ledger(&late), [0; 5]);
}

#[test]
fn a_retry_that_would_come_after_the_deadline_escalates() {
    let seen = failure(FailureClass::ServerError);
    for (deadline_ms, expected) in [(9_999, TaskState::Escalated), (10_000, TaskState::Scheduled)] {
        let given = Start { failure: Some(&seen), deadline_ms: Some(deadline_ms), ..start() };
        assert_eq!(enqueued(&given).state, expected);
    }
}

#[test]
fn retry_now_gives_attempts_back_and_makes_a_waiting_task_due() {
    let seen = failure(FailureClass::Timeout);
    let mut record = enqueued(&Start { attempts_made: 5, failure: Some(&seen), ..start() });
    let later_us = NOW_US + 48 * 3_600_000_000;
    record.retry_now(&policy(), later_us).unwrap();
    assert_eq!((record.state, record.due_ms), (TaskState::Scheduled, later_us / 1_000));
    assert_eq!(ledger(&record), [0; 5]);
    assert!(record.class_failures.is_empty() && record.expires_ms.is_none());
    assert_eq!(record.deadline_ms, (later_us / 1_000).saturating_add_unsigned(policy().deadline_ms));

    let mut waiting = enqueued(&Start { attempts_made: 2, delay_ms: 60_000, ..start() });
    waiting.retry_now(&policy(), NOW_US).unwrap();
    assert_eq!((waiting.due_ms, waiting.ledger.failed), (NOW_MS, 2));
    waiting.retry_now(&policy(), NOW_US + 5_000_000).unwrap();
    assert_eq!(waiting.due_ms, NOW_MS, "a task that is due already keeps its place");
}

#[test]
fn an_extension_starts_the_lease_and_never_shortens_it() {
    let (mut record, fence) = in_state(TaskState::Leased);
    assert!(!record.started);
    record.extend(fence, 1_000, NOW_MS).unwrap();
    assert_eq!((record.started, record.lease_until_ms), (true, NOW_MS + 30_000));
    record.extend(fence, 60_000, NOW_MS + 5).unwrap();
    assert_eq!(record.lease_until_ms, NOW_MS + 60_005);
    let before = record.clone();
    record.extend(fence, 60_000, NOW_MS - 3_600_000).unwrap();
    assert_eq!(record, before, "a clock that went back takes nothing away");
}

#[test]
fn calling_off_twice_changes_nothing_more() {
    let (mut record, _) = in_state(TaskState::Cancelled);
    let before = record.clone();
    record.cancel(&policy(), NOW_US + 1_000_000).unwrap();
    assert_eq!(record, before);
}
