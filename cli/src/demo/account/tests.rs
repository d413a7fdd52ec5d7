use redrive_shared::breaker::BreakerState;
use redrive_shared::cost::Cost;
use redrive_shared::task::{Ledger, Priority};
use redrive_shared::wire::AgentStatus;

use super::*;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn task(id: &str, state: TaskState, failed: u32, class: FailureClass) -> TaskView {
    let last_failure = (failed > 0).then(|| record(class, "HTTP 529: {}", None));
    TaskView {
        id: TaskId::new(id).unwrap(),
        state,
        queue: name("q"),
        task_type: name("q"),
        dependency: None,
        primary: None,
        route: 0,
        group: None,
        priority: Priority::Normal,
        enqueued_at_ms: 0,
        due_at_ms: 0,
        deadline_at_ms: 0,
        epoch: 0,
        agent: None,
        lease_until_ms: None,
        runs: 1,
        max_attempts: 5,
        ledger: Ledger { failed, ..Ledger::default() },
        retry: None,
        charges: Vec::new(),
        max_cost_usd: None,
        tokens: None,
        why: None,
        result: None,
        result_ref: None,
        last_failure,
        history: Vec::new(),
        payload: None,
        payload_ref: None,
        labels: BTreeMap::new(),
        expires_at_ms: None,
    }
}

fn record(class: FailureClass, message: &str, retry_after_ms: Option<u64>) -> FailureRecord {
    let (message, fingerprint) = (message.to_owned(), String::new());
    FailureRecord { class, retryable: true, retry_after_ms, message, fingerprint }
}

fn attempt(
    run: u32,
    end: AttemptEnd,
    failure: Option<FailureRecord>,
    delay_ms: Option<u64>,
) -> AttemptRecord {
    AttemptRecord {
        run,
        agent: (run > 0).then(|| name("planner")),
        route: 0,
        dependency: None,
        started_at_ms: 1_000,
        ended_at_ms: 1_500,
        end,
        failure,
        cost_usd: Cost::default(),
        delay_ms,
        why: Some(if delay_ms.is_some() { "backoff" } else { "its attempts are used up" }.to_owned()),
    }
}

use FailureClass::{Overloaded, RateLimited, ServerError};
use TaskState::{Dead, Scheduled, Succeeded};

#[test]
fn the_first_of_each_kind_is_told_and_then_only_records() {
    let mut account = Account::new();
    let mut told = |id: &str, failed, class, now_ms| {
        account
            .look(&[task(id, Scheduled, failed, class)], now_ms)
            .into_iter()
            .map(|n| n.id.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(told("a", 1, Overloaded, 0), ["a"]);
    assert_eq!(told("b", 1, Overloaded, 500), [""; 0]);
    assert_eq!(told("c", 1, ServerError, 500), ["c"]);
    assert_eq!(told("b", 4, Overloaded, 1_000), ["b"], "nothing has failed so often before");
    assert_eq!(told("c", 4, ServerError, 1_500), [""; 0]);
}

#[test]
fn a_change_is_seen_once() {
    let mut account = Account::new();
    let tasks = [task("a", Scheduled, 1, Overloaded)];
    assert_eq!(account.look(&tasks, 0).len(), 1);
    assert!(account.look(&tasks, 60_000).is_empty());
    let ids = [TaskId::new("a").unwrap(), TaskId::new("b").unwrap()];
    assert_eq!(account.unsettled(&ids).len(), 2);
    account.look(&[task("a", Dead, 2, Overloaded)], 60_000);
    assert_eq!(account.unsettled(&ids), [&ids[1]]);
    assert_eq!(account.counts()[&Dead], 1);
}

#[test]
fn not_everything_is_told_at_once_and_silence_is_broken() {
    let mut account = Account::new();
    let tasks: Vec<TaskView> = FailureClass::ALL
        .iter()
        .enumerate()
        .map(|(number, class)| task(&format!("t{number}"), Scheduled, 1, *class))
        .collect();
    let told = account.look(&tasks, 0);
    assert_eq!(told.len(), usize::try_from(BURST).unwrap());
    assert!(account.look(&[task("x", Scheduled, 1, told_class(&told))], 100).is_empty());
    assert_eq!(account.look(&[task("y", Scheduled, 1, told_class(&told))], 10_000).len(), 1);
}

fn told_class(told: &[Noteworthy]) -> FailureClass {
    match told[0].topic {
        Topic::Failed(class) => class,
        other => panic!("{other:?}"),
    }
}

fn text(topic: Topic, view: &TaskView) -> String {
    let line = tell(&Noteworthy { id: view.id.clone(), topic, seen_at_ms: 0 }, view).unwrap();
    format!("{}: {}", line.verb, line.text)
}

#[test]
fn lines_say_what_failed_and_when_it_runs_again() {
    let mut view = task("a", Scheduled, 2, Overloaded);
    view.history = vec![
        attempt(
            0,
            AttemptEnd::Reported,
            Some(record(RateLimited, "HTTP 429: slow down", Some(1_000))),
            Some(1_400),
        ),
        attempt(1, AttemptEnd::Failed, Some(record(Overloaded, "HTTP 529: {}", None)), Some(640)),
    ];
    assert_eq!(
        text(Topic::Came(RateLimited), &view),
        "enqueued: with rate_limited (HTTP 429) → again in 1.4s (server's hint 1s + jitter)"
    );
    assert_eq!(
        text(Topic::Failed(Overloaded), &view),
        "failed: overloaded (HTTP 529) → again in 640ms (failure 2 of 5)"
    );
    let last = record(ServerError, "ConnectionResetError: [Errno 104]", None);
    view.history.push(attempt(2, AttemptEnd::Failed, Some(last), None));
    assert_eq!(
        text(Topic::Ended(Dead, ServerError), &view),
        "dead: server_error (ConnectionResetError): its attempts are used up"
    );
}

#[test]
fn a_recovery_names_what_it_took() {
    let mut view = task("a", Succeeded, 3, Overloaded);
    let overloaded = || Some(record(Overloaded, "HTTP 529: {}", None));
    view.history = vec![
        attempt(0, AttemptEnd::Reported, Some(record(RateLimited, "", None)), Some(1)),
        attempt(1, AttemptEnd::Failed, overloaded(), Some(1)),
        attempt(2, AttemptEnd::Failed, overloaded(), Some(1)),
        attempt(3, AttemptEnd::Succeeded, None, None),
    ];
    assert_eq!(
        text(Topic::Recovered(Overloaded), &view),
        "recovered: at attempt 4 at planner, after rate_limited, then overloaded (2 times)"
    );
}

#[test]
fn a_lost_worker_is_told_however_much_else_happens() {
    let mut account = Account::new();
    let before: Vec<TaskView> = FailureClass::ALL
        .iter()
        .take(9)
        .enumerate()
        .map(|(n, class)| task(&format!("t{n}"), Scheduled, 1, *class))
        .collect();
    account.look(&before, 0);
    let mut lost = task("a", Scheduled, 0, Overloaded);
    lost.ledger.lost = 1;
    lost.history = vec![attempt(1, AttemptEnd::Lost, None, Some(130))];
    let noteworthy = account.look(&[lost.clone()], 0);
    assert_eq!(
        text(noteworthy[0].topic, &lost),
        "lease lost: at planner after 500ms: again in 130ms (no failure is charged)"
    );
    let again = TaskView { state: TaskState::Leased, runs: 2, agent: Some(name("writer")), ..lost };
    let noteworthy = account.look(std::slice::from_ref(&again), 0);
    assert_eq!(text(noteworthy[0].topic, &again), "runs again: lease 2 at writer, under a new epoch");
}

#[test]
fn what_was_pushed_runs_again_when_a_worker_has_begun() {
    let mut account = Account::new();
    let mut view = task("a", Scheduled, 0, Overloaded);
    view.ledger.lost = 1;
    view.history = vec![attempt(1, AttemptEnd::Lost, None, Some(130))];
    account.look(&[view.clone()], 0);
    let pushed = TaskView { state: TaskState::Leased, runs: 2, agent: Some(name(PUSHER)), ..view };
    assert!(account.look(std::slice::from_ref(&pushed), 100).is_empty());
    let begun = TaskView { agent: Some(name("writer")), ..pushed };
    let noteworthy = account.look(std::slice::from_ref(&begun), 2_000);
    let line = tell(&noteworthy[0], &begun).unwrap();
    assert_eq!((line.at_ms, line.verb), (2_000, "runs again"));
    assert!(line.text.contains("at writer"), "{}", line.text);
    assert!(account.look(&[begun], 9_000).is_empty());
}

#[test]
fn who_hands_back_what_was_pushed_is_a_worker() {
    let mut view = task("a", Scheduled, 0, Overloaded);
    let back = attempt(1, AttemptEnd::Released, None, Some(130));
    view.history = vec![AttemptRecord { agent: Some(name(PUSHER)), ..back.clone() }];
    let pushed = "handed back: untouched by the worker that it was pushed to, whose breaker is open: no attempt is charged";
    assert_eq!(text(Topic::HandedBack, &view), pushed);
    view.history = vec![back];
    assert!(text(Topic::HandedBack, &view).starts_with("handed back: untouched by planner, whose"));
}

fn breaker(state: BreakerState, openings: u64, since_ms: i64) -> BreakerSnapshot {
    BreakerSnapshot {
        state,
        since_ms: Some(since_ms),
        not_closed_since_ms: (state != BreakerState::Closed).then_some(1_000),
        trips: 1,
        openings,
        open_until_ms: (state == BreakerState::Open).then_some(since_ms + 900),
        failures: 9,
        slow_calls: 0,
        outcomes: 12,
        command: None,
    }
}

fn agent(key: &str, breaker: BreakerSnapshot) -> AgentView {
    AgentView {
        agent: name("planner"),
        boot_id: name("b"),
        status: AgentStatus::Alive,
        queues: Vec::new(),
        capacity: 1,
        in_flight: 0,
        pushed: false,
        breakers: BTreeMap::from([(key.to_owned(), breaker)]),
        breaker_commands: Vec::new(),
        seen_at_ms: 0,
    }
}

#[test]
fn a_breakers_story_is_told_from_its_snapshots() {
    let mut account = Account::new();
    let mut verbs = |state, openings, since_ms| {
        let lines = account.look_at_agents(&[agent("*", breaker(state, openings, since_ms))]);
        lines.into_iter().map(|line| format!("{}: {}", line.verb, line.text)).collect::<Vec<_>>()
    };
    assert!(verbs(BreakerState::Closed, 0, 0).is_empty());
    assert_eq!(
        verbs(BreakerState::Open, 1, 1_000),
        ["breaker open: 9 of 12 calls failed: it takes nothing for 900ms"]
    );
    assert!(verbs(BreakerState::Open, 1, 1_000).is_empty());
    assert_eq!(
        verbs(BreakerState::Open, 2, 2_000),
        ["breaker open: half-open, and its probe failed: nothing for 900ms more"]
    );
    assert_eq!(verbs(BreakerState::Closed, 2, 3_000).len(), 1);
    assert_eq!(account.openings(), (2, 0));
    assert_eq!(account.breakers_open_ms(9_000), [(1_000, 3_000)]);
}

#[test]
fn of_the_dependencies_breakers_only_the_first_opening_is_told() {
    let mut account = Account::new();
    let lines = account.look_at_agents(&[agent("llm/a", breaker(BreakerState::Open, 1, 1_000))]);
    assert_eq!(lines[0].text, "for llm/a alone: 9 of 12 calls failed; the rest goes on");
    assert!(account.look_at_agents(&[agent("llm/b", breaker(BreakerState::Open, 1, 1_000))]).is_empty());
    assert_eq!(account.openings(), (0, 2));
    assert_eq!(account.breakers_open_ms(4_000), [(1_000, 4_000), (1_000, 4_000)]);
}
