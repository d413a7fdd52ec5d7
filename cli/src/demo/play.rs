//! The play: follows the timeline, watches through the API, and tells what happens.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use redrive_shared::clock::{Clock as _, SystemClock};
use redrive_shared::id::{Name, TaskId};
use redrive_shared::task::{StateCounts, TaskState, TaskView};
use redrive_shared::wire::{
    AgentStatus, EnqueueRequest, EnqueueStatus, NewTask, QueueCreate, StatusRequest, TaskAction,
    TaskActionRequest,
};
use redrive_worker::client::Client;
use tokio::process::Child;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::account::{Account, Line, Tone, tell};
use super::push::PUSHER;
use super::scenario::{
    Act, CRASHY, CRASHY_CONCURRENCY, CRASHY_UP_BY, KILL_AFTER, LEFT_WAITING_MS, OUTAGE_REPLY, PLAY_MAX,
    REPORTS_AT, TIMELINE, Work, queues,
};
use super::screen::{Screen, Standing};
use super::stage::Stage;

/// Time between two looks at the API.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Tasks fetched at once at the end.
const FETCHES: usize = 16;

/// A play under way.
pub struct Play<'a> {
    stage: &'a Stage,
    screen: &'a Screen,
    account: Account,
    work: Work,
    total: usize,
    enqueued: Vec<TaskId>,
    crash: Crash,
    outage: bool,
    /// When the waiting tasks are due, from the last look.
    due_ms: BTreeMap<TaskId, i64>,
    /// Lines that wait for the next look, to be told in order.
    untold: Vec<Line>,
    mishaps: Vec<String>,
}

/// How far the crash has come.
enum Crash {
    /// The process was started.
    Starting { child: Child },
    /// It takes part; its tasks are enqueued.
    Working { child: Child, full_since: Option<Instant> },
    /// It was killed then (ms since the epoch).
    Killed { at_ms: i64 },
    /// It never came up.
    Failed,
}

/// What the play leaves to the books.
pub struct Outcome {
    /// Ids that were acknowledged.
    pub enqueued: Vec<TaskId>,
    /// When breakers were not closed.
    pub breakers_open_ms: Vec<(i64, i64)>,
    /// Openings of agents' own breakers, and of those of their dependencies.
    pub openings: (u64, u64),
    /// When the worker was killed.
    pub killed_at_ms: Option<i64>,
    /// What did not go as planned.
    pub mishaps: Vec<String>,
}

impl<'a> Play<'a> {
    /// Takes its place, and starts the process that will be killed.
    pub fn prepare(stage: &'a Stage, screen: &'a Screen, work: Work) -> anyhow::Result<Self> {
        let total = work.waves.iter().map(Vec::len).sum::<usize>() + work.reports.len();
        let child = stage.start_crashy()?;
        Ok(Self {
            stage,
            screen,
            account: Account::new(),
            work,
            total,
            enqueued: Vec::with_capacity(total),
            crash: Crash::Starting { child },
            outage: false,
            due_ms: BTreeMap::new(),
            untold: Vec::new(),
            mishaps: Vec::new(),
        })
    }

    /// Plays it to its end.
    pub async fn run(mut self) -> anyhow::Result<Outcome> {
        let started = Instant::now();
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut acts = TIMELINE.iter();
        let mut next = acts.next();
        loop {
            let act_at = next.map(|(at_ms, _)| started + Duration::from_millis(*at_ms));
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(act_at.unwrap_or(started)), if act_at.is_some() => {
                    if let Some((_, act)) = next {
                        self.act(*act).await?;
                    }
                    next = acts.next();
                }
                _ = looks.tick() => {
                    self.look().await?;
                    self.drive_crash(started).await?;
                    if next.is_none() && self.is_over() {
                        break;
                    }
                }
            }
            if started.elapsed() > PLAY_MAX {
                let (unfinished, seconds) = (self.unfinished(), PLAY_MAX.as_secs());
                self.mishaps.push(format!("{unfinished} tasks were not settled after {seconds} s"));
                break;
            }
        }
        Ok(self.outcome())
    }

    fn outcome(self) -> Outcome {
        let killed_at_ms = match self.crash {
            Crash::Killed { at_ms } => Some(at_ms),
            Crash::Starting { .. } | Crash::Working { .. } | Crash::Failed => None,
        };
        Outcome {
            breakers_open_ms: self.account.breakers_open_ms(SystemClock.now_ms()),
            openings: self.account.openings(),
            enqueued: self.enqueued,
            killed_at_ms,
            mishaps: self.mishaps,
        }
    }

    /// How many tasks are neither settled nor due long after the end.
    fn unfinished(&self) -> usize {
        let later_ms = SystemClock.now_ms() + LEFT_WAITING_MS;
        let waits = |id: &TaskId| self.due_ms.get(id).is_some_and(|due_ms| *due_ms > later_ms);
        self.account.unsettled(&self.enqueued).into_iter().filter(|id| !waits(id)).count()
    }

    fn is_over(&self) -> bool {
        matches!(self.crash, Crash::Killed { .. } | Crash::Failed) && self.unfinished() == 0
    }

    // ── what happens ─────────────────────────────────────────────────────────────────────────────────────────────────

    async fn act(&mut self, act: Act) -> anyhow::Result<()> {
        match act {
            Act::Wave(wave) => {
                let tasks = self.work.waves.get(wave).cloned().unwrap_or_default();
                self.enqueue(tasks).await
            }
            Act::Duplicate => self.enqueue_again(None).await,
            Act::ReuseId => self.enqueue_again(Some("other work")).await,
            Act::Cancel => self.cancel().await,
            Act::OutageBegins => {
                self.outage = true;
                self.stage.upstream.begin_outage(OUTAGE_REPLY);
                self.story(
                    "upstream",
                    "OUTAGE",
                    &format!("from now on it answers every call with {OUTAGE_REPLY}"),
                );
                Ok(())
            }
            Act::OutageEnds => {
                self.outage = false;
                self.stage.upstream.end_outage();
                self.story("upstream", "works again", "nobody is told: the breakers' probes find out");
                Ok(())
            }
        }
    }

    async fn enqueue(&mut self, tasks: Vec<NewTask>) -> anyhow::Result<()> {
        let failed = tasks.iter().filter(|task| task.failure.is_some()).count();
        let count = tasks.len();
        let reply = self.stage.client.enqueue(&EnqueueRequest { tasks }).await?;
        for result in reply.results {
            match (result.status, result.id, result.error) {
                (EnqueueStatus::Created, Some(id), _) => self.enqueued.push(id),
                (_, id, error) => {
                    let id = id.as_deref().unwrap_or("a task").to_owned();
                    let why =
                        error.map_or_else(|| "it was there before".to_owned(), |problem| problem.to_string());
                    self.mishaps.push(format!("{id} was not taken: {why}"));
                }
            }
        }
        let text = match failed {
            0 => format!("{count} tasks that nobody has tried yet"),
            _ => format!("{count} tasks, {failed} of which have failed at their caller"),
        };
        self.story("producer", "enqueues", &text);
        Ok(())
    }

    /// Sends the first task once more: as it was, or with another payload.
    async fn enqueue_again(&mut self, other: Option<&str>) -> anyhow::Result<()> {
        let Some(mut task) = self.work.waves.first().and_then(|wave| wave.first()).cloned() else {
            return Ok(());
        };
        if let Some(other) = other {
            task.payload = Some(serde_json::value::to_raw_value(other)?);
        }
        let id = task.id.as_deref().unwrap_or_default().to_owned();
        // A batch of one that is refused is refused as a whole: the answer is then an error.
        let (verb, text) = match self.stage.client.enqueue(&EnqueueRequest { tasks: vec![task] }).await {
            Ok(reply) => match reply.results.into_iter().next().map(|result| (result.status, result.state)) {
                Some((EnqueueStatus::Duplicate, state)) => {
                    let state = state.map_or("known", TaskState::as_str);
                    (
                        "duplicate",
                        format!("the same id and payload again: it is {state}, and nothing changes"),
                    )
                }
                other => {
                    self.mishaps.push(format!("{id} was enqueued again, and the answer was {other:?}"));
                    return Ok(());
                }
            },
            Err(error) => match error.code() {
                Some(code) => {
                    ("refused", format!("the same id for other work: {code}", code = code.as_str()))
                }
                None => return Err(error.into()),
            },
        };
        self.story(&id, verb, &text);
        Ok(())
    }

    async fn cancel(&mut self) -> anyhow::Result<()> {
        let id = self.work.called_off.clone();
        let request =
            TaskActionRequest { ids: vec![id.clone()], reason: Some("called off in the demo".to_owned()) };
        let reply = self.stage.client.act(TaskAction::Cancel, &request).await?;
        match reply.results.into_iter().next().and_then(|result| result.state) {
            Some(TaskState::Cancelled) => self.story(&id, "cancelled", "while it was waiting: it never runs"),
            state => self.mishaps.push(format!("{id} could not be cancelled; it is {state:?}")),
        }
        Ok(())
    }

    // ── the crash ────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Takes the crash one step further, when its time has come.
    async fn drive_crash(&mut self, started: Instant) -> anyhow::Result<()> {
        self.crash = match std::mem::replace(&mut self.crash, Crash::Failed) {
            Crash::Starting { child } if started.elapsed() >= REPORTS_AT && self.crashy_is_here().await? => {
                self.enqueue(self.work.reports.clone()).await?;
                Crash::Working { child, full_since: None }
            }
            Crash::Starting { .. } if started.elapsed() > CRASHY_UP_BY => {
                let said = self.stage.crashy_said().unwrap_or_else(|| "it said nothing".to_owned());
                self.mishaps.push(format!("the worker process did not come up: {said}"));
                Crash::Failed
            }
            Crash::Working { child, full_since } => self.kill_when_full(child, full_since).await?,
            other => other,
        };
        Ok(())
    }

    async fn crashy_is_here(&self) -> anyhow::Result<bool> {
        let agents = self.stage.client.agents().await?.agents;
        Ok(agents.iter().any(|agent| agent.agent.as_str() == CRASHY && agent.status == AgentStatus::Alive))
    }

    /// Kills it once it has been in the middle of tasks for a while.
    async fn kill_when_full(
        &mut self,
        mut child: Child,
        full_since: Option<Instant>,
    ) -> anyhow::Result<Crash> {
        let reports = self.reports().await?;
        let at = |agent: &str| reports.iter().filter(|task| task.agent.as_deref() == Some(agent)).count();
        let (held, unbegun) = (at(CRASHY), at(PUSHER));
        let left = reports.iter().filter(|task| !task.state.is_settled()).count();
        if left == 0 {
            self.mishaps.push("the worker process was to be killed, and had nothing to do".to_owned());
            return Ok(Crash::Failed);
        }
        let full_since = (held > 0).then(|| full_since.unwrap_or_else(Instant::now));
        if full_since.is_none_or(|since| since.elapsed() < KILL_AFTER) {
            return Ok(Crash::Working { child, full_since });
        }
        child.start_kill().context("cannot kill the worker process")?;
        let at_ms = SystemClock.now_ms();
        child.wait().await.context("cannot wait for the worker process")?;
        let mut text =
            format!("kill -9 in the middle of {held} tasks (it had room for {CRASHY_CONCURRENCY})");
        if unbegun > 0 {
            text.push_str(&format!(
                "; of {unbegun} more that nobody has begun, RabbitMQ gives its share to others"
            ));
        }
        self.story(CRASHY, "KILLED", &text);
        Ok(Crash::Killed { at_ms })
    }

    /// How the long tasks are.
    async fn reports(&self) -> anyhow::Result<Vec<TaskView>> {
        let ids = self.work.reports.iter().filter_map(|task| task.id.clone()).collect();
        Ok(self.stage.client.status(&StatusRequest { ids }).await?.tasks)
    }

    // ── what is seen ─────────────────────────────────────────────────────────────────────────────────────────────────

    /// Asks the API how everything is, and tells what is new.
    async fn look(&mut self) -> anyhow::Result<()> {
        let client = &self.stage.client;
        let ids: Vec<TaskId> = self.account.unsettled(&self.enqueued).into_iter().cloned().collect();
        let tasks = match ids.is_empty() {
            true => Vec::new(),
            false => client.status(&StatusRequest { ids }).await?.tasks,
        };
        let agents = client.agents().await?.agents;
        let waiting = tasks.iter().filter(|task| task.state == TaskState::Scheduled);
        self.due_ms = waiting.map(|task| (task.id.clone(), task.due_at_ms)).collect();
        let mut lines = std::mem::take(&mut self.untold);
        lines.extend(self.account.look_at_agents(&agents));
        for noteworthy in self.account.look(&tasks, SystemClock.now_ms()) {
            let task = client.task(&noteworthy.id, None).await?;
            lines.extend(tell(&noteworthy, &task));
        }
        lines.sort_by_key(|line| line.at_ms);
        lines.iter().for_each(|line| self.screen.tell(line));
        self.screen.stand(&Standing {
            counts: &self.account.counts(),
            breakers: self.account.own_breakers(),
            outage: self.outage,
            total: self.total,
        });
        Ok(())
    }

    fn story(&mut self, subject: &str, verb: &'static str, text: &str) {
        let at_ms = SystemClock.now_ms();
        let (subject, text) = (subject.to_owned(), text.to_owned());
        self.untold.push(Line { at_ms, subject, verb, text, tone: Tone::Story });
    }
}

/// Makes the demo's queues, with their policies.
pub async fn make_queues(client: &Client) -> anyhow::Result<()> {
    for (name, policy) in queues() {
        client.put_queue(&Name::new(name)?, &QueueCreate::from(policy)).await?;
    }
    Ok(())
}

/// Every task with its history. Those that are not known are left out, which the books will find.
pub async fn whole_tasks(client: &Client, ids: &[TaskId]) -> anyhow::Result<Vec<TaskView>> {
    let mut tasks = Vec::with_capacity(ids.len());
    for some in ids.chunks(FETCHES) {
        let mut fetches = JoinSet::new();
        for id in some {
            let (client, id) = (client.clone(), id.clone());
            fetches.spawn(async move { client.task(&id, None).await });
        }
        while let Some(fetched) = fetches.join_next().await {
            match fetched? {
                Ok(task) => tasks.push(task),
                Err(error) if error.code() == Some(redrive_shared::error::ErrorCode::UnknownTask) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(tasks)
}

/// The counters of the demo's queues, added up.
pub async fn counters(client: &Client) -> anyhow::Result<StateCounts> {
    let ours = queues().map(|(name, _)| name);
    let mut sum = StateCounts::default();
    for queue in client.queues().await?.queues {
        if ours.contains(&queue.name.as_str()) {
            let mut counts = queue.counts;
            for state in TaskState::ALL {
                *sum.of(state) += *counts.of(state);
            }
        }
    }
    Ok(sum)
}
