use redrive_shared::cost::Cost;
use redrive_shared::task::{FailureRecord, Ledger, Priority};

use super::*;

fn attempt(run: u32, end: AttemptEnd, started_at_ms: i64, ended_at_ms: i64) -> AttemptRecord {
    let (agent, failure, delay_ms, why) = (None, None, None, None);
    AttemptRecord {
        run,
        agent,
        route: 0,
        dependency: None,
        started_at_ms,
        ended_at_ms,
        end,
        failure,
        cost_usd: Cost::default(),
        delay_ms,
        why,
    }
}

fn failed(class: FailureClass, delay_ms: u64, attempt: AttemptRecord) -> AttemptRecord {
    let failure = FailureRecord {
        class,
        retryable: true,
        retry_after_ms: None,
        message: String::new(),
        fingerprint: String::new(),
    };
    AttemptRecord { failure: Some(failure), delay_ms: Some(delay_ms), ..attempt }
}

fn task(id: &str, state: TaskState, history: Vec<AttemptRecord>) -> TaskView {
    let failures = history.iter().filter(|attempt| attempt.failure.is_some()).count();
    TaskView {
        id: TaskId::new(id).unwrap(),
        state,
        queue: "q".parse().unwrap(),
        task_type: "q".parse().unwrap(),
        dependency: None,
        primary: None,
        route: 0,
        group: None,
        priority: Priority::Normal,
        enqueued_at_ms: 1_000,
        due_at_ms: 1_000,
        deadline_at_ms: 0,
        epoch: 0,
        agent: None,
        lease_until_ms: None,
        runs: 0,
        max_attempts: 5,
        ledger: Ledger { failed: u32::try_from(failures).unwrap(), ..Ledger::default() },
        retry: None,
        charges: Vec::new(),
        max_cost_usd: None,
        tokens: None,
        why: None,
        result: None,
        result_ref: None,
        last_failure: None,
        history,
        payload: None,
        payload_ref: None,
        labels: BTreeMap::new(),
        expires_at_ms: None,
    }
}

fn close(tasks: &[TaskView], effects: &[(&str, u64)], change: impl FnOnce(&mut Evidence<'_>)) -> Books {
    close_seen(tasks, effects, &[], change)
}

/// With calls that the upstream saw.
fn close_seen(
    tasks: &[TaskView],
    effects: &[(&str, u64)],
    calls_ms: &[(&str, &[i64])],
    change: impl FnOnce(&mut Evidence<'_>),
) -> Books {
    let enqueued: Vec<TaskId> = tasks.iter().map(|task| task.id.clone()).collect();
    let effects = effects.iter().map(|(id, times)| ((*id).to_owned(), *times)).collect();
    let calls_ms = calls_ms.iter().map(|(id, calls)| ((*id).to_owned(), calls.to_vec())).collect();
    let mut counters = StateCounts::default();
    for task in tasks {
        *counters.of(task.state) += 1;
    }
    let mut evidence = Evidence {
        enqueued: &enqueued,
        tasks,
        counters,
        effects: &effects,
        calls_ms: &calls_ms,
        overlapping_calls: 0,
        breakers_open_ms: &[],
        killed_at_ms: None,
    };
    change(&mut evidence);
    Books::close(&evidence)
}

use AttemptEnd::{Failed, Lost, Released, Reported, Succeeded};
use FailureClass::{Overloaded, ServerError, WorkerLost};

/// One that came failed and recovered, one that was well, one that ended dead on another class than it began with.
fn three() -> Vec<TaskView> {
    vec![
        task(
            "a",
            TaskState::Succeeded,
            vec![
                failed(Overloaded, 200, attempt(0, Reported, 1_000, 1_000)),
                attempt(1, Succeeded, 1_205, 1_300),
            ],
        ),
        task("b", TaskState::Succeeded, vec![attempt(1, Succeeded, 1_001, 1_100)]),
        task(
            "c",
            TaskState::Dead,
            vec![
                failed(Overloaded, 100, attempt(1, Failed, 1_002, 1_010)),
                failed(Overloaded, 100, attempt(2, Failed, 1_110, 1_120)),
                failed(ServerError, 0, attempt(3, Failed, 1_221, 1_230)),
            ],
        ),
    ]
}

#[test]
fn everything_is_counted_once() {
    let books = close(&three(), &[("a", 1), ("b", 1)], |_| {});
    assert!(books.balance(), "{:?}", books.problems);
    assert_eq!((books.enqueued, books.succeeded, books.dead), (3, 2, 1));
    assert_eq!((books.attempts, books.first_try, books.recovered), (6, 1, 1));
    assert_eq!(
        books.classes,
        [
            ClassRow { failures: 3, tasks: 2, recovered: 1, ..ClassRow::new(Overloaded) },
            ClassRow { failures: 1, tasks: 1, dead: 1, ..ClassRow::new(ServerError) },
        ]
    );
}

#[test]
fn a_task_that_is_missing_or_in_another_state_does_not_balance() {
    let tasks = three();
    let effects = [("a", 1), ("b", 1)];
    let lost = close(&tasks, &effects, |evidence| evidence.tasks = &evidence.tasks[..2]);
    assert_eq!(
        lost.problems,
        ["3 tasks were acknowledged, and 2 are known", "0 tasks are dead, and the queues count 1"]
    );
    let miscounted = close(&tasks, &effects, |evidence| evidence.counters.succeeded = 5);
    assert_eq!(miscounted.problems, ["2 tasks are succeeded, and the queues count 5"]);
}

#[test]
fn a_success_needs_work_that_was_done() {
    let books = close(&three(), &[("a", 2)], |_| {});
    assert_eq!(books.problems, ["b succeeded, and the upstream never did its work"]);
    assert_eq!(books.done_twice, 1);
}

#[test]
fn leases_that_overlap_are_found() {
    let history = vec![attempt(1, Lost, 1_000, 2_000), attempt(2, Succeeded, 1_999, 2_500)];
    let books = close(&[task("a", TaskState::Succeeded, history)], &[("a", 1)], |_| {});
    assert_eq!(books.overlapping_leases, 1);
    assert!(!books.balance());
}

#[test]
fn running_work_is_unfinished() {
    let books = close(&[task("a", TaskState::Leased, Vec::new())], &[], |_| {});
    assert_eq!((books.waiting, books.problems.len()), (1, 1));
}

#[test]
fn lateness_counts_from_the_due_time_and_keeps_open_breakers_apart() {
    let books = close(&three(), &[("a", 1), ("b", 1)], |evidence| {
        evidence.breakers_open_ms = &[(1_150, 1_210)];
    });
    // Due 1200 and claimed 1205 while a breaker was open; the others 1, 2, 0 and 1 ms late (due 1000, 1000, 1110, 1220).
    assert_eq!(books.lateness_breaker_open_ms, Lateness { claims: 1, p50: 5, p99: 5, max: 5 });
    assert_eq!(books.lateness_ms, Lateness { claims: 4, p50: 1, p99: 2, max: 2 });
    assert_eq!(books.work_lateness_ms, Lateness::default(), "nobody saw a call");
    assert_eq!(Lateness::of((1..=200).collect()), Lateness { claims: 200, p50: 100, p99: 198, max: 200 });
}

#[test]
fn work_is_late_until_it_is_called_for_and_a_lease_without_a_call_says_nothing() {
    let calls: [(&str, &[i64]); 2] = [("a", &[1_210]), ("c", &[1_006, 1_123, 1_229])];
    let books = close_seen(&three(), &[("a", 1), ("b", 1)], &calls, |_| {});
    // Called for 10, 6 and 9 ms after they were due. The call at 1123 came when that lease was over: it is nobody's.
    assert_eq!(books.work_lateness_ms, Lateness { claims: 3, p50: 9, p99: 10, max: 10 });
}

#[test]
fn what_was_handed_back_is_no_attempt() {
    let back = AttemptRecord { delay_ms: Some(40), ..attempt(1, Released, 1_000, 1_001) };
    let books = close(
        &[task("a", TaskState::Succeeded, vec![back, attempt(2, Succeeded, 1_041, 1_100)])],
        &[("a", 1)],
        |_| {},
    );
    assert_eq!((books.attempts, books.handed_back, books.first_try), (1, 1, 1));
    assert_eq!(books.lateness_ms.max, 0);
}

#[test]
fn the_crash_is_timed_from_the_kill() {
    let lost = |id, again_ms| {
        let lost = AttemptRecord { delay_ms: Some(100), ..attempt(1, Lost, 1_000, 4_000) };
        let mut task =
            task(id, TaskState::Succeeded, vec![lost, attempt(2, Succeeded, again_ms, again_ms + 9)]);
        task.ledger.lost = 1;
        task
    };
    let tasks = [lost("a", 4_100), lost("b", 4_350)];
    let calls: [(&str, &[i64]); 2] = [("a", &[1_003, 4_104]), ("b", &[1_003, 4_351])];
    let books = close_seen(&tasks, &[("a", 1), ("b", 1)], &calls, |evidence| {
        evidence.killed_at_ms = Some(2_000);
    });
    assert_eq!(books.crash, Crash { tasks: 2, again: 2, first_ms: Some(2_104), last_ms: Some(2_351) });
    assert_eq!(
        books.classes,
        [ClassRow { failures: 2, tasks: 2, recovered: 2, ..ClassRow::new(WorkerLost) }]
    );
    assert_eq!(books.recovered, 2);
}
