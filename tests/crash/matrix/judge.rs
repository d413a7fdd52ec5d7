//! What must hold at the end of a scene, found from what producers were told, what the coordinators say of each task, and
//! what the endpoint saw.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use redrive::upstream::Entry;
use redrive_shared::id::TaskId;
use redrive_shared::task::{AttemptEnd, AttemptRecord, TaskState, TaskView};
use redrive_shared::wire::StatusRequest;
use redrive_worker::client::{Client, ClientError};

use super::kind::{Kind, On};
use super::load::{Acknowledged, lock};
use super::scene::{Scene, Strike};
use crate::support::sink::HANDOVER;
use crate::support::wait::eventually;

/// For everything that was acknowledged to end.
const PATIENCE: Duration = Duration::from_secs(90);
/// Ids in one question.
const CHUNK: usize = 500;
/// An epoch is the lease's beginning in µs; the history has it in ms.
const EPOCH_SLACK_MS: i64 = 2;
/// Violations that a report can carry.
const SHOWN_MAX: usize = 5;

/// What is counted for one kind of fault on one kind of server.
#[derive(Default)]
pub struct Row {
    pub faults: u64,
    pub acknowledged: u64,
    pub lost: u64,
    pub overlapping: u64,
    /// Settlements under a lease that was over, and how many of them were refused.
    pub late: u64,
    pub refused: u64,
    /// Executions whose lease was cut off.
    pub repeated: u64,
    /// Of those: while the process that began the first was suspended and could not end it, the next one ran.
    pub side_by_side: u64,
    pub recovery_ms: Vec<u64>,
    /// From the fault until a task that it cut off ran again.
    pub again_ms: Vec<u64>,
}

pub type Rows = BTreeMap<(On, Kind), Row>;

/// What a scene came to.
pub struct Judged {
    pub rows: Rows,
    pub executions: usize,
    /// Calls with a stale epoch, by the counters that survived.
    pub stale_calls: u64,
    pub violations: Vec<String>,
}

/// What is known of one execution and the lease behind it.
struct Run<'a> {
    entry: &'a Entry,
    /// On the wall clock.
    started_ms: i64,
    ended_ms: i64,
    /// Position in the history.
    lease: usize,
}

struct Judge<'a> {
    scene: &'a Scene,
    rows: Rows,
    violations: Vec<String>,
}

/// Ends a scene and judges it.
pub async fn judge(mut scene: Scene) -> Judged {
    let late = scene.end().await;
    let client = scene.fleet.client_beside(0);
    let acknowledged = lock(&scene.load.ledger).acknowledged.clone();
    let ids: Vec<TaskId> = acknowledged.iter().map(|task| task.id.clone()).collect();
    let views = until_all_end(&client, &ids, &scene).await;
    let log = scene.sink.handle.log();
    let mut executions: HashMap<&str, Vec<&Entry>> = HashMap::new();
    for entry in &log {
        executions.entry(entry.key.as_str()).or_default().push(entry);
    }
    let mut judge = Judge { scene: &scene, rows: Rows::new(), violations: Vec::new() };
    judge.violations.extend(lock(&scene.load.ledger).odd.iter().take(SHOWN_MAX).cloned());
    judge.count_faults(late);
    for task in &acknowledged {
        let runs = executions.get(task.id.as_str()).map(Vec::as_slice).unwrap_or_default();
        judge.task(&client, task, views.get(&task.id), runs).await;
    }
    let Judge { rows, violations, .. } = judge;
    let stale_calls = scene.fleet.stale_calls().await;
    if !violations.is_empty() {
        println!("{}", scene.fleet.logs());
    }
    Judged { rows, executions: log.len(), stale_calls, violations }
}

/// The tasks that are known, once none of them waits or is leased.
async fn until_all_end(client: &Client, ids: &[TaskId], scene: &Scene) -> HashMap<TaskId, TaskView> {
    let mut known = HashMap::new();
    let waiting = async {
        for some in ids.chunks(CHUNK) {
            loop {
                let request = StatusRequest { ids: some.to_vec() };
                let reply = answered(async || client.status(&request).await).await;
                let Some(open) = reply.tasks.iter().find(|task| !task.state.is_settled()) else {
                    known.extend(reply.tasks.into_iter().map(|task| (task.id.clone(), task)));
                    break;
                };
                // The long poll on one that is open stands for all: it wakes when there is news.
                drop(client.task(&open.id, Some(1_000)).await);
            }
        }
    };
    let ended = tokio::time::timeout(PATIENCE, waiting).await.is_ok();
    assert!(ended, "{}: tasks do not end\n{}", scene.on.words(), scene.fleet.logs());
    known
}

/// An answer: on a busy machine a question may take longer than the coordinator waits for Redis, and is asked again.
async fn answered<T>(mut ask: impl AsyncFnMut() -> Result<T, ClientError>) -> T {
    eventually("a question is answered", PATIENCE, async || ask().await.ok()).await.0
}

impl<'a> Judge<'a> {
    fn count_faults(&mut self, late: Vec<Result<(), String>>) {
        for (strike, late) in self.scene.strikes.iter().zip(late) {
            let row = self.rows.entry((self.scene.on, strike.kind)).or_default();
            row.faults += 1;
            row.late += 1;
            row.recovery_ms.push(millis(strike.recovery));
            match late {
                Ok(()) => row.refused += 1,
                Err(said) => self.violations.push(said),
            }
        }
    }

    /// The row of this fault; before the first, that of the first.
    fn row(&mut self, strike: Option<&Strike>) -> &mut Row {
        let kind = strike.or(self.scene.strikes.first()).map(|strike| strike.kind);
        self.rows.entry((self.scene.on, kind.expect("a scene has a fault"))).or_default()
    }

    async fn task(&mut self, client: &Client, task: &Acknowledged, view: Option<&TaskView>, seen: &[&Entry]) {
        let scene = self.scene;
        let last = scene.strikes.iter().rev().find(|strike| strike.at_ms <= task.at_ms);
        self.row(last).acknowledged += 1;
        let Some(view) = view else {
            self.row(last).lost += 1;
            return self.violated(task, "it was acknowledged, and nobody knows it", &[], seen);
        };
        let wanted = if task.dies { TaskState::Dead } else { TaskState::Succeeded };
        let plain = view.runs == 1 && seen.len() == 1 && seen[0].epoch == u64::try_from(view.epoch).ok();
        if plain && view.state == wanted {
            return;
        }
        let history = answered(async || client.task(&task.id, None).await).await.history;
        if view.state != wanted {
            self.violated(task, &format!("it should be {wanted} and is {}", view.state), &history, seen);
        }
        self.leases(task, &history, seen);
        self.executions(task, &history, seen);
    }

    /// No two leases of a task were valid at once.
    fn leases(&mut self, task: &Acknowledged, history: &[AttemptRecord], seen: &[&Entry]) {
        for pair in history.windows(2) {
            if pair[1].started_at_ms < pair[0].ended_at_ms {
                let strike = befallen(&self.scene.strikes, &pair[0]);
                self.row(strike).overlapping += 1;
                self.violated(task, "two of its leases overlap", history, seen);
            }
        }
    }

    /// Each execution had a lease of its own, which was valid when it began.
    fn executions(&mut self, task: &Acknowledged, history: &[AttemptRecord], seen: &[&Entry]) {
        let mut runs: Vec<Run<'_>> = Vec::new();
        for entry in seen {
            let begun_ms = i64::try_from(entry.epoch.unwrap_or_default() / 1_000).unwrap_or(i64::MAX);
            let of_epoch = |lease: &AttemptRecord| (begun_ms - lease.started_at_ms).abs() <= EPOCH_SLACK_MS;
            let Some(lease) = history.iter().position(of_epoch) else {
                self.violated(task, "it ran under a lease that is not in its history", history, seen);
                continue;
            };
            if runs.iter().any(|run| run.lease == lease) {
                self.violated(task, "it ran twice under one lease", history, seen);
            }
            let wall_ms = |ms: u64| self.scene.sink_started_ms.saturating_add_unsigned(ms);
            let (started_ms, ended_ms) =
                (wall_ms(entry.started_ms), entry.ended_ms.map_or(i64::MAX, wall_ms));
            runs.push(Run { entry, started_ms, ended_ms, lease });
        }
        for (index, run) in runs.iter().enumerate() {
            let lease = &history[run.lease];
            if !is_cut_off(lease.end) {
                continue;
            }
            let strike = befallen(&self.scene.strikes, lease);
            let next = runs[index + 1..].iter().min_by_key(|next| next.started_ms);
            let row = self.row(strike);
            row.repeated += 1;
            let Some(next) = next else { continue };
            if let Some(strike) = strike.filter(|strike| strike.at_ms >= lease.started_at_ms) {
                row.again_ms.push(next.started_ms.abs_diff(strike.at_ms));
            }
            let beside_ms = run.ended_ms.min(next.ended_ms) - next.started_ms;
            if beside_ms <= i64::try_from(HANDOVER.as_millis()).unwrap_or(0) {
                continue;
            }
            row.side_by_side += 1;
            if !self.was_suspended(lease, next.started_ms) {
                let said = format!("call {} ran on beside call {}", run.entry.seq, next.entry.seq);
                self.violated(task, &said, history, seen);
            }
        }
    }

    /// Whether the worker that held this lease could not know that it had ended.
    fn was_suspended(&self, lease: &AttemptRecord, at_ms: i64) -> bool {
        let fleet = &self.scene.fleet;
        fleet.workers.iter().chain(&fleet.gone).any(|worker| {
            lease.agent.as_deref() == Some(worker.agent.as_str())
                && worker.stopped_ms.iter().any(|(from_ms, to_ms)| (*from_ms..*to_ms).contains(&at_ms))
        })
    }

    fn violated(&mut self, task: &Acknowledged, what: &str, history: &[AttemptRecord], seen: &[&Entry]) {
        if self.violations.len() >= SHOWN_MAX {
            return;
        }
        let near = |strike: &&Strike| (strike.at_ms - task.at_ms).abs() < 15_000;
        let faults: Vec<String> = self.scene.strikes.iter().filter(near).map(told).collect();
        let leases: Vec<String> = history.iter().map(|lease| format!("{lease:?}")).collect();
        let calls: Vec<String> = seen.iter().map(|entry| format!("{entry:?}")).collect();
        self.violations.push(format!(
            "{}: task {}, acknowledged at {}: {what}\n  faults around:\n    {}\n  history:\n    {}\n  at the endpoint, \
             whose clock began at {}:\n    {}",
            self.scene.on.words(),
            task.id,
            task.at_ms,
            faults.join("\n    "),
            leases.join("\n    "),
            self.scene.sink_started_ms,
            calls.join("\n    "),
        ));
    }
}

fn told(strike: &Strike) -> String {
    format!(
        "{} {} {:?}, works after {:.1?}",
        strike.at_ms,
        strike.kind.words(),
        strike.agent,
        strike.recovery
    )
}

/// Whether an attempt ended before its outcome was known. What it did may be done again.
const fn is_cut_off(end: AttemptEnd) -> bool {
    match end {
        AttemptEnd::Lost | AttemptEnd::Undelivered | AttemptEnd::Released => true,
        AttemptEnd::Succeeded
        | AttemptEnd::Failed
        | AttemptEnd::Snoozed
        | AttemptEnd::Cancelled
        | AttemptEnd::Reported
        | AttemptEnd::Redriven
        | AttemptEnd::HandedOff => false,
    }
}

/// The fault that cut this lease off: what befell its own worker, else what lasted longest in its time, else the last before
/// it.
fn befallen<'a>(strikes: &'a [Strike], lease: &AttemptRecord) -> Option<&'a Strike> {
    let agent = lease.agent.as_deref();
    let within = |strike: &&Strike| (lease.started_at_ms..=lease.ended_at_ms).contains(&strike.at_ms);
    let own =
        strikes.iter().filter(within).find(|strike| agent.is_some() && strike.agent.as_deref() == agent);
    let general = strikes.iter().filter(within).filter(|strike| strike.agent.is_none());
    let before = strikes.iter().rev().find(|strike| strike.at_ms <= lease.started_at_ms);
    own.or(general.max_by_key(|strike| strike.lasted)).or(before)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
