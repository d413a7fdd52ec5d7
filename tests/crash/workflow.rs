//! A workflow of three steps whose workers, handlers and coordinator are killed at random: what was acknowledged as done is not
//! done again, and every task ends.
//!
//! Each step appends a line before its effect, and its handler one after it was acknowledged, each with the attempt's epoch. An
//! attempt that has been overtaken and does not know it yet may still begin something (its save is refused); every later one
//! must not.
//!
//! `REDRIVE_WORKFLOW_KILLS` sets how often something is killed (20); 200 take three minutes, more than a test may take in the
//! suite: run the tests' binary itself then, with `--exact` and the test's name.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use rand::RngExt as _;
use redrive_shared::id::TaskId;
use redrive_shared::task::TaskState;
use redrive_shared::wire::{EnqueueRequest, NewTask, StatusRequest, TaskAction, TaskActionRequest};
use redrive_worker::client::Client;
use tokio::process::Child;

use crate::support::postgres::PostgresServer;
use crate::support::process::{Coordinator, exec_worker, handlers_of, kill_with_handlers, pid};
use crate::support::redis::RedisServer;
use crate::support::s3::S3Server;
use crate::support::{fast_directory, id, signal};

/// Kills where nobody says how many.
const KILLS: u32 = 20;
const WORKERS: usize = 2;
/// Tasks that are enqueued before each kill: there is always something to interrupt.
const TASKS_A_KILL: u32 = 2;
/// How long the last task may take after the last kill.
const PATIENCE: Duration = Duration::from_secs(110);

const WORKFLOW: &str = r#"
    for step in fetch read write; do
        "$REDRIVE" step $step -- sh -c '
            printf "%s %s %s begin\n" "$REDRIVE_TASK_ID" "$0" "$REDRIVE_EPOCH" >> "$SCENE/log"
            sleep 0.1
            printf "{\"of\": \"%s\"}" "$0"
        ' $step > /dev/null || exit 75
        printf "%s %s %s saved\n" "$REDRIVE_TASK_ID" $step "$REDRIVE_EPOCH" >> "$SCENE/log"
    done
"#;

struct Fleet {
    coordinator: Coordinator,
    client: Client,
    workers: Vec<Child>,
    scene: String,
    started: usize,
}

impl Fleet {
    fn new(coordinator: Coordinator, scene: &Path) -> Self {
        let (client, scene) = (coordinator.client(), scene.to_str().unwrap().to_owned());
        let mut fleet = Self { coordinator, client, workers: Vec::new(), scene, started: 0 };
        (0..WORKERS).for_each(|_| fleet.start_worker());
        fleet
    }

    fn start_worker(&mut self) {
        self.started += 1;
        let settings = [("SCENE", self.scene.clone())];
        let agent = format!("worker-{}", self.started);
        self.workers.push(exec_worker(&self.coordinator.url(), &agent, WORKFLOW, &settings));
    }

    async fn enqueue(&self, ids: &[TaskId]) {
        let tasks = ids.iter().map(|id| NewTask { id: Some(id.clone()), ..NewTask::default() });
        self.client.enqueue(&EnqueueRequest { tasks: tasks.collect() }).await.expect("they are enqueued");
    }

    /// A worker with its handlers, one handler, or the coordinator.
    async fn kill_something(&mut self) -> &'static str {
        let victim = rand::rng().random_range(0..WORKERS);
        match rand::rng().random_range(0..4) {
            0 | 1 => {
                kill_with_handlers(&mut self.workers.remove(victim)).await;
                self.start_worker();
                "worker"
            }
            2 => {
                handlers_of(pid(&self.workers[victim]))
                    .first()
                    .copied()
                    .into_iter()
                    .for_each(signal::kill_group);
                "handler"
            }
            _ => {
                self.coordinator.kill().await;
                self.coordinator.restart().await;
                "coordinator"
            }
        }
    }

    /// Waits until all have succeeded. Three losses end a task: a person sends it round again, and it goes on where it was.
    async fn all_succeed(&self, ids: &[TaskId]) -> u32 {
        let mut sent_again = 0;
        let waiting = async {
            loop {
                let mut open = false;
                for batch in ids.chunks(500) {
                    let status = self.client.status(&StatusRequest { ids: batch.to_vec() }).await.unwrap();
                    open |= status.tasks.iter().any(|task| task.state != TaskState::Succeeded);
                    let given_up = |state| matches!(state, TaskState::Dead | TaskState::Escalated);
                    let dead: Vec<_> = status.tasks.into_iter().filter(|task| given_up(task.state)).collect();
                    if !dead.is_empty() {
                        sent_again += dead.len() as u32;
                        let ids = dead.into_iter().map(|task| task.id).collect();
                        let request = TaskActionRequest { ids, reason: None };
                        self.client.act(TaskAction::Retry, &request).await.unwrap();
                    }
                }
                if !open {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("every task ends");
        sent_again
    }
}

/// What the log says.
#[derive(Debug, Default)]
struct Verdict {
    begun: usize,
    saved: usize,
    /// Steps that an attempt began although an earlier line says that they were done, by it or an earlier attempt.
    done_again: Vec<String>,
    /// Begun by attempts that had been overtaken, and did not know it.
    overtaken: usize,
}

fn judge(log: &str) -> Verdict {
    let (mut saved, mut verdict) = (HashMap::<(&str, &str), i64>::new(), Verdict::default());
    for line in log.lines() {
        let [task, step, epoch, what] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("torn: {line:?}")
        };
        let epoch: i64 = epoch.parse().unwrap();
        match (what, saved.get(&(task, step))) {
            ("saved", _) => {
                verdict.saved += 1;
                let first = saved.entry((task, step)).or_insert(epoch);
                *first = epoch.min(*first);
            }
            ("begin", Some(first)) if *first <= epoch => verdict.done_again.push(line.to_owned()),
            ("begin", Some(_)) => verdict.overtaken += 1,
            ("begin", None) => verdict.begun += 1,
            _ => panic!("{line:?}"),
        }
    }
    verdict
}

async fn run(name: &str, coordinator: Coordinator, scene: &Path) {
    let kills = std::env::var("REDRIVE_WORKFLOW_KILLS").ok().map_or(KILLS, |kills| kills.parse().unwrap());
    let (mut fleet, mut ids, mut killed) = (Fleet::new(coordinator, scene), Vec::new(), HashMap::new());
    for kill in 0..kills {
        let new: Vec<TaskId> = (0..TASKS_A_KILL).map(|n| id(&format!("task-{kill}-{n}"))).collect();
        fleet.enqueue(&new).await;
        ids.extend(new);
        let pause = rand::rng().random_range(200..1_500);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        *killed.entry(fleet.kill_something().await).or_insert(0) += 1;
    }
    let sent_again = fleet.all_succeed(&ids).await;
    let log = std::fs::read_to_string(scene.join("log")).unwrap();
    let verdict = judge(&log);
    println!(
        "{name}: {killed:?} killed, {} tasks, {} steps begun, {} saves acknowledged, done again after that: {}, begun by \
         overtaken attempts: {}, sent round again by hand: {sent_again}",
        ids.len(),
        verdict.begun,
        verdict.saved,
        verdict.done_again.len(),
        verdict.overtaken,
    );
    assert!(verdict.done_again.is_empty(), "{name}: {:#?}", verdict.done_again);
    let steps: HashSet<_> = log
        .lines()
        .filter_map(|line| line.strip_suffix(" saved")?.rsplit_once(' '))
        .map(|pair| pair.0)
        .collect();
    // A handler that was killed between the answer and its line has no line, and its step is done all the same.
    assert!(steps.len() <= 3 * ids.len());
    for task in [&ids[0], &ids[ids.len() - 1]] {
        let progress = fleet.client.progress(task).await.unwrap();
        let done: Vec<_> =
            progress.steps.iter().filter(|step| step.completed).map(|step| &*step.step).collect();
        assert_eq!(done, ["fetch", "read", "write"]);
    }
}

async fn on_the_embedded_store(name: &str, settings: &[(&'static str, &str)]) {
    let scene = fast_directory();
    let data = scene.path().join("data");
    let directory = scene.path().to_str().unwrap();
    let settings = settings
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.replace("SCENE", directory)))
        .collect();
    let command: Vec<OsString> = vec!["dev".into(), "--data-dir".into(), data.into()];
    run(name, Coordinator::configured(command, settings).await, scene.path()).await;
}

/// On Redis, with all states elsewhere.
async fn on_redis_with_states_at(name: &str, url: &str, settings: Vec<(String, String)>) {
    let (scene, redis) = (fast_directory(), RedisServer::start().await);
    let command = ["coordinator", "--allow-unsafe", "--store", &redis.url()].map(OsString::from).to_vec();
    let own = [ALL_STATES, (URL, url)].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let settings = settings.into_iter().chain(own).collect();
    run(name, Coordinator::configured(command, settings).await, scene.path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_saved_is_done_again_on_sqlite() {
    on_the_embedded_store("SQLite", &[]).await;
}

const ALL_STATES: (&str, &str) = ("REDRIVE__COORDINATOR__BLOBS__STATES_FROM_BYTES", "0");
const URL: &str = "REDRIVE__COORDINATOR__BLOBS__URL";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_saved_is_done_again_with_states_in_files() {
    on_the_embedded_store("files", &[ALL_STATES]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_saved_is_done_again_with_states_in_their_own_sqlite() {
    on_the_embedded_store("their own SQLite", &[ALL_STATES, (URL, "sqlite:SCENE/blobs.db")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_saved_is_done_again_with_states_in_object_storage() {
    on_the_embedded_store("object storage in a directory", &[ALL_STATES, (URL, "file://SCENE/objects")])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_saved_is_done_again_on_redis() {
    let (scene, redis) = (fast_directory(), RedisServer::start().await);
    run("Redis", Coordinator::on(&redis.url()).await, scene.path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_saved_is_done_again_with_states_in_postgres() {
    let postgres = PostgresServer::start().await;
    on_redis_with_states_at("PostgreSQL", &postgres.url(), Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_saved_is_done_again_with_states_in_s3() {
    let s3 = S3Server::start().await;
    on_redis_with_states_at("S3", &S3Server::url("workflow"), s3.environment()).await;
}

#[test]
fn the_judge_knows_what_was_done_again() {
    let log = "a fetch 5 begin\na fetch 5 saved\na fetch 4 begin\na read 5 begin\na fetch 7 begin\na read 7 begin\n";
    let verdict = judge(log);
    assert_eq!((verdict.begun, verdict.saved, verdict.overtaken), (3, 1, 1));
    assert_eq!(verdict.done_again, ["a fetch 7 begin"]);
}
