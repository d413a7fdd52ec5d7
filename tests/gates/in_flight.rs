//! How many tasks of a dependency or of a queue are out at once, where that is limited: over several workers and coordinators,
//! while some of them die.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use redrive_shared::gate::Settings;
use redrive_shared::retry::RetryPolicy;
use redrive_shared::task::{Lease, TaskState, TaskView};
use redrive_shared::wire::{
    ClaimRequest, GateAction, GateRequest, Outcome, SettleRequest, Settlement, TaskAction, TaskActionRequest,
};
use redrive_worker::client::Client;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{DEPENDENCY, claim, done, enqueue, gate, settle};
use crate::support::process::Coordinator;
use crate::support::redis::RedisServer;
use crate::support::wait::eventually;
use crate::support::{id, name};

const MOST: u32 = 3;
const WORKERS: usize = 10;
const TASKS: usize = 120;
/// Leases, and what an attempt may take after them: what is lost with a coordinator counts for as long as both.
const LEASE_MS: u64 = 2_000;
/// Longer than everything that comes back by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is limited.
#[derive(Clone, Copy)]
pub enum Limited {
    Dependency,
    /// The queue `default`: its tasks need nothing.
    Queue,
}

impl Limited {
    async fn to(self, client: &Client, most: u32) {
        let settings = Settings { max_in_flight: Some(most), ..Settings::default() };
        let request = match self {
            Self::Dependency => GateRequest {
                settings: Some(settings),
                ..GateRequest::new(name(DEPENDENCY), GateAction::Set)
            },
            Self::Queue => GateRequest::of_queue(name("default"), settings),
        };
        client.change_gate(&request).await.expect("done");
    }

    async fn enqueue(self, client: &Client, prefix: &str, count: usize) {
        match self {
            Self::Dependency => enqueue(client, prefix, count, DEPENDENCY).await,
            Self::Queue => super::enqueue_to(client, prefix, count, "default", None).await,
        }
    }

    async fn out(self, client: &Client) -> Option<u32> {
        let view = match self {
            Self::Dependency => gate(client, DEPENDENCY).await,
            Self::Queue => super::queue_gate(client, "default").await,
        };
        view.and_then(|view| view.in_flight)
    }
}

/// Short attempts, so that what nobody hears of any more is soon over.
pub async fn short_attempts(client: &Client, queue: &str) {
    let policy = RetryPolicy { timeout_ms: LEASE_MS, lease_ms: LEASE_MS, ..RetryPolicy::default() };
    client.put_queue(&name(queue), &policy.into()).await.expect("done");
}

async fn all_are_back(client: &Client, limited: Limited) {
    let back = async || (limited.out(client).await == Some(0)).then_some(());
    eventually("nothing is out", PATIENCE, back).await;
}

/// What ten workers see of each other.
#[derive(Default)]
struct Crew {
    running: AtomicUsize,
    most: AtomicUsize,
    done: AtomicUsize,
    stop: AtomicBool,
}

fn of_worker(number: usize, max: u32, wait_ms: u64) -> ClaimRequest {
    ClaimRequest {
        agent: name(&format!("w{number}")),
        boot_id: None,
        request_id: None,
        queues: vec![name("default")],
        max,
        wait_ms,
        lease_ms: Some(LEASE_MS),
        avoid: Vec::new(),
    }
}

/// Works until there is nothing more to do, at whatever coordinator answers; one task in eight it forgets, as a worker does that
/// is killed.
async fn work(crew: Arc<Crew>, clients: Vec<Client>, number: usize) {
    let mut turn = number;
    while !crew.stop.load(Ordering::Relaxed) {
        turn += 1;
        let request = of_worker(number, 2, 500);
        let asked = Instant::now();
        let client = &clients[turn % clients.len()];
        let Ok(reply) = client.claim(&request).await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        for lease in reply.leases {
            if (turn + number).is_multiple_of(8) && lease.run == 1 {
                continue;
            }
            // Half of it is far longer than the work takes. Where less is left, on a machine that is very busy, it may be over
            // before the work is, and somebody else at work on the same task: that says nothing of the limit.
            let holds = asked.elapsed() < Duration::from_millis(LEASE_MS / 2);
            finish(&crew, &clients, turn, &lease, holds).await;
        }
    }
}

/// Does one task, and tells another coordinator than the one that gave it. It counts as running where its lease surely holds.
async fn finish(crew: &Crew, clients: &[Client], turn: usize, lease: &Lease, holds: bool) {
    let counted = usize::from(holds);
    let running = crew.running.fetch_add(counted, Ordering::SeqCst) + counted;
    crew.most.fetch_max(running, Ordering::SeqCst);
    sleep(Duration::from_millis(10 + (turn as u64 * 7) % 40)).await;
    crew.running.fetch_sub(counted, Ordering::SeqCst);
    let settlement =
        Settlement { id: lease.id.clone(), epoch: lease.epoch, nonce: lease.nonce, outcome: done() };
    for again in 1..=20 {
        let client = &clients[(turn + again) % clients.len()];
        match client.settle(&SettleRequest { settlements: vec![settlement.clone()] }).await {
            Ok(reply) => {
                crew.done.fetch_add(usize::from(reply.results[0].error.is_none()), Ordering::SeqCst);
                return;
            }
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Lets ten workers do everything, while `meanwhile` happens; returns how many of them were at work at once, at most.
async fn work_through(clients: Vec<Client>, meanwhile: impl Future<Output = ()>) -> usize {
    let crew = Arc::new(Crew::default());
    let mut workers = JoinSet::new();
    for number in 0..WORKERS {
        workers.spawn(work(Arc::clone(&crew), clients.clone(), number));
    }
    meanwhile.await;
    let finished = async || (crew.done.load(Ordering::SeqCst) >= TASKS).then_some(());
    eventually("every task is done", PATIENCE, finished).await;
    crew.stop.store(true, Ordering::Relaxed);
    while let Some(worker) = workers.join_next().await {
        worker.expect("no panic");
    }
    crew.most.load(Ordering::SeqCst)
}

/// When each lease of so many tasks began and ended, as the store has noted it.
pub async fn leased(client: &Client, prefix: &str, count: usize) -> Vec<(i64, i64)> {
    let mut leased = Vec::new();
    for number in 0..count {
        let task: TaskView = client.task(&id(&format!("{prefix}-{number}")), None).await.expect("there");
        assert_eq!(task.state, TaskState::Succeeded, "{task:?}");
        leased.extend(
            task.history.iter().filter(|one| one.run > 0).map(|one| (one.started_at_ms, one.ended_at_ms)),
        );
    }
    assert!(leased.len() >= count);
    leased
}

/// Most leases at once.
pub fn most_at_once(leased: &[(i64, i64)]) -> i32 {
    // In the millisecond in which one ends and another begins, the end came first. A coordinator notes ends by its estimate of
    // the store's clock, which may be a little ahead.
    let ends = leased.iter().map(|(from_ms, until_ms)| ((until_ms - 2).max(*from_ms), -1));
    let mut changes: Vec<(i64, i32)> = leased.iter().map(|(from_ms, _)| (*from_ms, 1)).chain(ends).collect();
    changes.sort_unstable();
    let (mut now, mut most) = (0, 0);
    for (_, change) in changes {
        now += change;
        most = most.max(now);
    }
    most
}

async fn never_more_than_three(limited: Limited, clients: Vec<Client>, meanwhile: impl Future<Output = ()>) {
    let client = clients[clients.len() - 1].clone();
    short_attempts(&client, "default").await;
    limited.to(&client, MOST).await;
    limited.enqueue(&client, "t", TASKS).await;
    let ran = work_through(clients, meanwhile).await;
    let most = most_at_once(&leased(&client, "t", TASKS).await);
    assert!((2..=MOST as i32).contains(&most), "{most} were leased at once by the store, {ran} ran");
    assert!(ran <= MOST as usize, "{ran} ran at once, and {most} were leased");
    all_are_back(&client, limited).await;
    limited.enqueue(&client, "more", 10).await;
    // In parts, now and then. A claim that is held back asks its coordinator for more, and what it asked for is taken as soon as
    // there is room, also where its worker has gone by then: at another coordinator, in the very moment in which the last lease
    // ended here. That one keeps it for as long as something taken may lie unused, and gives it back: until then it counts as
    // out, so that this claim gets one place of three, and the other two half a second later.
    let mut given = 0;
    while given < MOST as usize {
        let leases = claim(&client, "w", 10, 10_000).await.len();
        assert!(leases > 0, "the limit is whole again: {given} are out");
        given += leases;
    }
    assert_eq!(given, MOST as usize, "and no more than that");
    assert!(claim(&client, "w", 10, 0).await.is_empty());
}

/// Over three coordinators, one of which dies.
pub async fn never_more_than_three_shared(limited: Limited) {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let (mut a, b, c) = tokio::join!(Coordinator::on(&url), Coordinator::on(&url), Coordinator::on(&url));
    let clients = vec![a.client(), b.client(), c.client()];
    never_more_than_three(limited, clients, async {
        sleep(Duration::from_millis(1_200)).await;
        a.kill().await;
        sleep(Duration::from_millis(500)).await;
        a.restart().await;
    })
    .await;
}

/// With one coordinator, which dies.
pub async fn never_more_than_three_embedded(limited: Limited) {
    let data = tempfile::tempdir().expect("a directory");
    let mut coordinator = Coordinator::start(data.path()).await;
    let client = coordinator.client();
    never_more_than_three(limited, vec![client], async {
        sleep(Duration::from_millis(1_200)).await;
        coordinator.kill().await;
        sleep(Duration::from_millis(200)).await;
        coordinator.restart().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_are_leased_at_once_than_may_be_whoever_dies_shared() {
    never_more_than_three_shared(Limited::Dependency).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_are_leased_at_once_than_may_be_whoever_dies_embedded() {
    never_more_than_three_embedded(Limited::Dependency).await;
}

/// Every way in which a lease ends makes room for another, at once or with its time.
pub async fn every_end_makes_room(client: &Client, limited: Limited) {
    limited.to(client, 1).await;
    limited.enqueue(client, "e", 8).await;
    let next = async |why: &str| {
        let mut leases = claim(client, "w", 5, 10_000).await;
        assert_eq!((leases.len(), limited.out(client).await), (1, Some(1)), "{why}");
        assert_eq!(claim(client, "other", 5, 0).await.len(), 0, "{why}");
        leases.remove(0)
    };
    let lease = next("the first").await;
    settle(client, &lease, done()).await;
    let lease = next("one is done").await;
    settle(client, &lease, Outcome::release()).await;
    let lease = next("one was released").await;
    settle(client, &lease, Outcome::Snooze { delay_ms: 60_000 }).await;
    let lease = next("one was put off").await;
    settle(client, &lease, super::unauthorized()).await;
    let lease = next("one has failed").await;
    let ids = vec![lease.id.clone()];
    client.act(TaskAction::Cancel, &TaskActionRequest { ids, reason: None }).await.expect("done");
    let short = ClaimRequest { lease_ms: Some(1_000), ..of_worker(0, 5, 10_000) };
    assert_eq!(client.claim(&short).await.expect("an answer").leases.len(), 1, "one was called off");
    next("one was lost").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_end_of_a_lease_makes_room_embedded() {
    let data = tempfile::tempdir().expect("a directory");
    let coordinator = Coordinator::start(data.path()).await;
    every_end_makes_room(&coordinator.client(), Limited::Dependency).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_end_of_a_lease_makes_room_shared() {
    let redis = RedisServer::start().await;
    let coordinator = Coordinator::on(&redis.url()).await;
    every_end_makes_room(&coordinator.client(), Limited::Dependency).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_waits_at_one_coordinator_gets_what_ends_at_another() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let (a, b) = tokio::join!(Coordinator::on(&url), Coordinator::on(&url));
    let (one, a, b) = (&a, a.client(), b.client());
    Limited::Dependency.to(&a, 1).await;
    enqueue(&a, "e", 3, DEPENDENCY).await;
    let lease = claim(&a, "w", 5, 10_000).await.remove(0);
    assert_eq!(one.metric(&format!("redrive_gate_in_flight{{dependency=\"{DEPENDENCY}\"}}")).await, 1);
    let known = async || (Limited::Dependency.out(&b).await == Some(1)).then_some(());
    eventually("the other knows", PATIENCE, known).await;
    let waiting = tokio::spawn(async move { claim(&b, "w", 5, 20_000).await });
    sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished());
    settle(&a, &lease, done()).await;
    assert_eq!(waiting.await.expect("no panic").len(), 1);
}
