//! The account: what is worth telling of what the API shows, and the words for it.
//!
//! Hundreds of tasks change their state within seconds, so most of it is left out: the first of each kind is told, records
//! are, and whatever a person would want to hear of (a breaker, a lost worker). Pure: views in, lines out.

use std::collections::{BTreeMap, HashMap};

use redrive_shared::breaker::{BreakerSnapshot, BreakerState};
use redrive_shared::failure::FailureClass;
use redrive_shared::id::{Name, TaskId};
use redrive_shared::task::{AttemptEnd, AttemptRecord, FailureRecord, TaskState, TaskView};
use redrive_shared::wire::{AgentView, OWN_BREAKER};

use super::push::PUSHER;
use crate::output::{duration, excerpt};

/// One more line about a task may be told each time that so many milliseconds have passed: somebody reads them.
const PACE_MS: i64 = 220;
/// … and so many lines at once, after a time without any.
const BURST: i64 = 4;
/// After so many milliseconds without a line about a task, whatever happens next is told.
const QUIET_MS: i64 = 1_500;
/// A task that has failed so often is told of, if none has failed more often before.
const MANY_FAILURES: u32 = 4;
/// Characters of what a server said.
const SAID_MAX: usize = 24;

/// How a line is meant, for its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As planned by whoever plays.
    Story,
    /// It works.
    Good,
    /// It will be tried again.
    Again,
    /// It is over, without success.
    Bad,
    /// A person must look.
    Person,
}

/// One line of the account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When it happened, in milliseconds since the epoch.
    pub at_ms: i64,
    /// To whom.
    pub subject: String,
    /// What, in a word or two.
    pub verb: &'static str,
    /// The rest.
    pub text: String,
    /// How it is meant.
    pub tone: Tone,
}

/// A change of a task that is worth a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noteworthy {
    /// The task: its history has the details.
    pub id: TaskId,
    topic: Topic,
    seen_at_ms: i64,
}

/// What a line is about; the first of each is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Topic {
    /// It came with a failure, and waits.
    Came(FailureClass),
    /// It failed at a worker, and waits.
    Failed(FailureClass),
    /// It is over. (The state is dead or escalated.)
    Ended(TaskState, FailureClass),
    /// It was done, without any failure.
    FirstTry,
    /// It was done after failures, the last of that class.
    Recovered(FailureClass),
    /// Its worker vanished.
    Lost,
    /// It has a worker again after that.
    RunsAgain,
    /// It was handed back, for a breaker was open.
    HandedBack,
}

/// What was known of a task at the last look.
#[derive(Debug, Clone, Copy)]
struct Seen {
    state: TaskState,
    failed: u32,
    lost: u32,
    released: u32,
    runs: u32,
    /// Whether a worker has it, and not RabbitMQ.
    at_worker: bool,
}

/// What has been seen and told so far.
#[derive(Debug)]
pub struct Account {
    tasks: HashMap<TaskId, Seen>,
    told: HashMap<Topic, usize>,
    /// When lines had last been paid for: each costs [`PACE_MS`].
    paid_until_ms: i64,
    most_failures: u32,
    breakers: HashMap<(Name, String), BreakerSnapshot>,
    /// From when to when each breaker was not closed.
    open_ms: Vec<(i64, i64)>,
    dependency_openings_told: bool,
}

impl Account {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            tasks: HashMap::new(),
            told: HashMap::new(),
            paid_until_ms: i64::MIN,
            most_failures: MANY_FAILURES - 1,
            breakers: HashMap::new(),
            open_ms: Vec::new(),
            dependency_openings_told: false,
        }
    }

    /// Looks at tasks (without their history), and says which changes are worth a line.
    pub fn look(&mut self, tasks: &[TaskView], now_ms: i64) -> Vec<Noteworthy> {
        let mut noteworthy = Vec::new();
        for task in tasks {
            let seen = Seen {
                state: task.state,
                failed: task.ledger.failed,
                lost: task.ledger.lost,
                released: task.ledger.released,
                runs: task.runs,
                at_worker: is_at_worker(task),
            };
            let before = self.tasks.insert(task.id.clone(), seen);
            if let Some(topic) = topic(task, before)
                && self.tells(topic, task, now_ms)
            {
                noteworthy.push(Noteworthy { id: task.id.clone(), topic, seen_at_ms: now_ms });
            }
        }
        noteworthy
    }

    /// Whether there is room for that line, and counts it if so.
    fn tells(&mut self, topic: Topic, task: &TaskView, now_ms: i64) -> bool {
        let times = self.told.get(&topic).copied().unwrap_or(0);
        let (often, urgent) = match topic {
            Topic::Lost | Topic::RunsAgain => (2, true),
            Topic::Came(_)
            | Topic::Failed(_)
            | Topic::Ended(..)
            | Topic::FirstTry
            | Topic::Recovered(_)
            | Topic::HandedBack => (1, false),
        };
        let failures = task.ledger.failed;
        let record = failures > self.most_failures && matches!(topic, Topic::Failed(_) | Topic::Recovered(_));
        let paid_ms = self.paid_until_ms.max(now_ms - BURST * PACE_MS) + PACE_MS;
        // Other lines are worth more than the umpteenth of their kind, but silence is worth less.
        let quiet = now_ms.saturating_sub(self.paid_until_ms) > QUIET_MS;
        if !(record || quiet || times < often) || !(urgent || paid_ms <= now_ms) {
            return false;
        }
        if record {
            self.most_failures = failures;
        }
        *self.told.entry(topic).or_default() += 1;
        self.paid_until_ms = paid_ms;
        true
    }

    /// How many tasks are in each state, of those seen.
    pub fn counts(&self) -> BTreeMap<TaskState, usize> {
        let mut counts: BTreeMap<TaskState, usize> =
            TaskState::ALL.into_iter().map(|state| (state, 0)).collect();
        for seen in self.tasks.values() {
            *counts.entry(seen.state).or_default() += 1;
        }
        counts
    }

    /// The ids of those that are not settled as far as is known.
    pub fn unsettled<'a>(&self, ids: &'a [TaskId]) -> Vec<&'a TaskId> {
        ids.iter().filter(|id| self.tasks.get(*id).is_none_or(|seen| !seen.state.is_settled())).collect()
    }

    /// Looks at agents; returns what their breakers did.
    pub fn look_at_agents(&mut self, agents: &[AgentView]) -> Vec<Line> {
        let mut lines = Vec::new();
        for agent in agents {
            for (key, now) in &agent.breakers {
                let before = self.breakers.insert((agent.agent.clone(), key.clone()), *now);
                self.count_open(before, *now);
                let Some(line) = breaker_line(&agent.agent, before, *now) else { continue };
                if key == OWN_BREAKER {
                    lines.push(line);
                } else if before.is_none_or(|before| before.openings < now.openings)
                    && !self.dependency_openings_told
                {
                    self.dependency_openings_told = true;
                    let (failures, outcomes) = (now.failures, now.outcomes);
                    let text =
                        format!("for {key} alone: {failures} of {outcomes} calls failed; the rest goes on");
                    lines.push(Line { text, ..line });
                }
            }
        }
        lines
    }

    fn count_open(&mut self, before: Option<BreakerSnapshot>, now: BreakerSnapshot) {
        let was_open = before.and_then(|before| before.not_closed_since_ms);
        if let (Some(from_ms), BreakerState::Closed) = (was_open, now.state) {
            self.open_ms.push((from_ms, now.since_ms.unwrap_or(from_ms)));
        }
    }

    /// When breakers were not closed, those included that still are at `now_ms`.
    pub fn breakers_open_ms(&self, now_ms: i64) -> Vec<(i64, i64)> {
        let still = self.breakers.values().filter_map(|breaker| Some((breaker.not_closed_since_ms?, now_ms)));
        self.open_ms.iter().copied().chain(still).collect()
    }

    /// How often breakers opened: agents' own, and those of their dependencies.
    pub fn openings(&self) -> (u64, u64) {
        let sum = |own: bool| {
            let kind = self.breakers.iter().filter(|((_, key), _)| (key == OWN_BREAKER) == own);
            kind.map(|(_, breaker)| breaker.openings).sum()
        };
        (sum(true), sum(false))
    }

    /// Each agent's own breaker, by name.
    pub fn own_breakers(&self) -> BTreeMap<&str, BreakerState> {
        let own = self.breakers.iter().filter(|((_, key), _)| key == OWN_BREAKER);
        own.map(|((agent, _), breaker)| (agent.as_str(), breaker.state)).collect()
    }
}

/// What the change since the last look is about.
fn topic(task: &TaskView, before: Option<Seen>) -> Option<Topic> {
    let class = task.last_failure.as_ref().map_or(FailureClass::Unknown, |failure| failure.class);
    let state_before = before.map(|before| before.state);
    let ledger = task.ledger;
    let rose = |now: u32, then: fn(&Seen) -> u32| now > before.as_ref().map_or(0, then);
    match task.state {
        state if Some(state) != state_before && state.is_settled() => match state {
            TaskState::Succeeded if ledger.failed + ledger.lost == 0 => Some(Topic::FirstTry),
            TaskState::Succeeded if ledger.lost > 0 => None,
            TaskState::Succeeded => Some(Topic::Recovered(class)),
            TaskState::Dead | TaskState::Escalated => Some(Topic::Ended(state, class)),
            // Whoever called it off says so.
            TaskState::Scheduled | TaskState::Leased | TaskState::Cancelled | TaskState::HandedOff => None,
        },
        TaskState::Scheduled | TaskState::Leased => {
            if rose(ledger.lost, |seen| seen.lost) {
                Some(Topic::Lost)
            } else if ledger.lost > 0 && begins(task, before) {
                Some(Topic::RunsAgain)
            } else if rose(ledger.failed, |seen| seen.failed) {
                Some(if task.runs == 0 { Topic::Came(class) } else { Topic::Failed(class) })
            } else if rose(ledger.released, |seen| seen.released) {
                Some(Topic::HandedBack)
            } else {
                None
            }
        }
        TaskState::Succeeded
        | TaskState::Dead
        | TaskState::Escalated
        | TaskState::Cancelled
        | TaskState::HandedOff => None,
    }
}

/// Whether a worker has a lease. One that was pushed is the coordinator's own until a worker begins.
fn is_at_worker(task: &TaskView) -> bool {
    task.state == TaskState::Leased && task.agent.as_deref().is_some_and(|agent| agent != PUSHER)
}

/// Whether a worker has it that did not have it at the last look.
fn begins(task: &TaskView, before: Option<Seen>) -> bool {
    is_at_worker(task) && before.is_none_or(|before| before.runs < task.runs || !before.at_worker)
}

/// The line about a change, told from the task with its history.
pub fn tell(noteworthy: &Noteworthy, task: &TaskView) -> Option<Line> {
    let last = |ends: &[AttemptEnd]| task.history.iter().rfind(|attempt| ends.contains(&attempt.end));
    let line = |at_ms, verb, tone, text| Some(Line { at_ms, subject: task.id.to_string(), verb, text, tone });
    match noteworthy.topic {
        Topic::Came(_) => {
            let came = last(&[AttemptEnd::Reported])?;
            let text = format!("with {} → {}", failure(came), again(task, came));
            line(came.ended_at_ms, "enqueued", Tone::Again, text)
        }
        Topic::Failed(_) => {
            let failed = last(&[AttemptEnd::Failed])?;
            line(
                failed.ended_at_ms,
                "failed",
                Tone::Again,
                format!("{} → {}", failure(failed), again(task, failed)),
            )
        }
        Topic::Ended(state, _) => {
            let failed = last(&[AttemptEnd::Failed, AttemptEnd::Reported, AttemptEnd::Lost])?;
            let (verb, tone) = match state {
                TaskState::Escalated => ("escalated", Tone::Person),
                _ => ("dead", Tone::Bad),
            };
            let why = failed.why.as_deref().unwrap_or("no reason given");
            line(failed.ended_at_ms, verb, tone, format!("{}: {why}", failure(failed)))
        }
        Topic::FirstTry => {
            let done = last(&[AttemptEnd::Succeeded])?;
            line(done.ended_at_ms, "succeeded", Tone::Good, format!("at the first try{}", at_agent(done)))
        }
        Topic::Recovered(_) => {
            let done = last(&[AttemptEnd::Succeeded])?;
            let text = format!(
                "at attempt {}{}, after {}",
                task.ledger.failed + 1,
                at_agent(done),
                went_through(task)
            );
            line(done.ended_at_ms, "recovered", Tone::Good, text)
        }
        Topic::Lost => {
            let lost = last(&[AttemptEnd::Lost])?;
            let held_ms = u64::try_from(lost.ended_at_ms - lost.started_at_ms).unwrap_or(0);
            let text =
                format!("{} after {}: {}", at_agent(lost).trim(), duration(held_ms), again(task, lost));
            line(lost.ended_at_ms, "lease lost", Tone::Bad, text)
        }
        Topic::RunsAgain => {
            let lost = last(&[AttemptEnd::Lost])?;
            let agent = task.agent.as_ref().map_or_else(String::new, |agent| format!(" at {agent}"));
            let due_ms = lost.ended_at_ms.saturating_add_unsigned(lost.delay_ms.unwrap_or(0));
            // When it began is not written anywhere: between these two.
            let at_ms = due_ms.max(noteworthy.seen_at_ms);
            line(at_ms, "runs again", Tone::Good, format!("lease {}{agent}, under a new epoch", task.runs))
        }
        Topic::HandedBack => {
            let back = last(&[AttemptEnd::Released])?;
            // A lease that was pushed and that nobody began is still the coordinator's.
            let by = if back.agent.as_deref() == Some(PUSHER) {
                " by the worker that it was pushed to".to_owned()
            } else {
                by_agent(back)
            };
            let text = format!("untouched{by}, whose breaker is open: no attempt is charged");
            line(back.ended_at_ms, "handed back", Tone::Story, text)
        }
    }
}

/// `overloaded (HTTP 529)`, or the words of whoever failed.
fn failure(attempt: &AttemptRecord) -> String {
    attempt.failure.as_ref().map_or_else(|| "no details".to_owned(), said)
}

fn said(failure: &FailureRecord) -> String {
    let class = failure.class;
    let status = failure.message.strip_prefix("HTTP ").map(|rest| rest.split_once(':').unwrap_or((rest, "")));
    match status {
        Some((status, _)) if !status.starts_with('2') => format!("{class} (HTTP {status})"),
        // A document is for machines; its class says what is wrong with it.
        Some((status, text)) if text.trim().starts_with(['{', '<']) => format!("{class} (HTTP {status})"),
        Some((_, text)) => format!("{class} ({})", gist(text)),
        None => format!("{class} ({})", gist(&failure.message)),
    }
}

/// What comes before the first colon: the kind of exception, or the outermost of several causes.
fn gist(text: &str) -> String {
    let text = text.trim();
    excerpt(text.split_once(": ").map_or(text, |(head, _)| head), SAID_MAX)
}

/// When it runs again, and why then.
fn again(task: &TaskView, attempt: &AttemptRecord) -> String {
    let Some(delay_ms) = attempt.delay_ms else { return "not again".to_owned() };
    let hint = attempt.failure.as_ref().and_then(|failure| failure.retry_after_ms);
    let why = match (hint, attempt.end) {
        (Some(hint_ms), _) => format!("server's hint {} + jitter", duration(hint_ms)),
        (None, AttemptEnd::Lost) => "no failure is charged".to_owned(),
        (None, _) => format!("failure {} of {}", failures_up_to(task, attempt), task.max_attempts),
    };
    format!("again in {} ({why})", duration(delay_ms))
}

/// How many failures were charged when this attempt had ended.
fn failures_up_to(task: &TaskView, attempt: &AttemptRecord) -> usize {
    let charged = task.history.iter().take_while(|one| one.run <= attempt.run);
    charged.filter(|one| matches!(one.end, AttemptEnd::Failed | AttemptEnd::Reported)).count()
}

fn at_agent(attempt: &AttemptRecord) -> String {
    attempt.agent.as_ref().map_or_else(String::new, |agent| format!(" at {agent}"))
}

fn by_agent(attempt: &AttemptRecord) -> String {
    attempt.agent.as_ref().map_or_else(String::new, |agent| format!(" by {agent}"))
}

/// The failures that it has behind it: `overloaded, then server_error (3 times)`.
fn went_through(task: &TaskView) -> String {
    let mut runs: Vec<(FailureClass, usize)> = Vec::new();
    for class in task.history.iter().filter_map(|attempt| Some(attempt.failure.as_ref()?.class)) {
        match runs.last_mut() {
            Some((last, times)) if *last == class => *times += 1,
            Some(_) | None => runs.push((class, 1)),
        }
    }
    let name = |(class, times): &(FailureClass, usize)| {
        if *times == 1 { class.to_string() } else { format!("{class} ({times} times)") }
    };
    runs.iter().map(name).collect::<Vec<_>>().join(", then ")
}

/// What a breaker did since the last look, if anything.
fn breaker_line(agent: &Name, before: Option<BreakerSnapshot>, now: BreakerSnapshot) -> Option<Line> {
    let state_before = before.map_or(BreakerState::Closed, |before| before.state);
    let opened = now.openings > before.map_or(0, |before| before.openings);
    if state_before == now.state && !opened {
        return None;
    }
    let at_ms = now.since_ms.unwrap_or_default();
    let wait = now.open_until_ms.map_or_else(String::new, |until_ms| {
        duration(u64::try_from(until_ms.saturating_sub(at_ms)).unwrap_or(0))
    });
    let (verb, tone, text) = match now.state {
        BreakerState::Open if state_before == BreakerState::Closed => {
            let text =
                format!("{} of {} calls failed: it takes nothing for {wait}", now.failures, now.outcomes);
            ("breaker open", Tone::Bad, text)
        }
        BreakerState::Open => {
            ("breaker open", Tone::Bad, format!("half-open, and its probe failed: nothing for {wait} more"))
        }
        BreakerState::HalfOpen => {
            ("half-open", Tone::Again, "the wait is over: one task goes as a probe".to_owned())
        }
        BreakerState::Closed => (
            "breaker closed",
            Tone::Good,
            "half-open, and its probe succeeded: it takes work again".to_owned(),
        ),
        BreakerState::Isolated => ("isolated", Tone::Person, "a person shut it".to_owned()),
    };
    Some(Line { at_ms, subject: agent.to_string(), verb, text, tone })
}

#[cfg(test)]
mod tests;
