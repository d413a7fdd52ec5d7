//! Limits in tokens a minute: heavy tasks and light ones, over several workers and coordinators, on both stores.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redrive_shared::gate::Settings;
use redrive_shared::task::TaskState;
use redrive_shared::wire::{EnqueueRequest, GateAction, GateRequest, GateView, NewTask};
use redrive_worker::client::Client;
use tokio::task::JoinSet;

use super::{DEPENDENCY, change, claim, done, enqueue, gate, settle, task};
use crate::support::process::Coordinator;
use crate::support::redis::RedisServer;
use crate::support::wait::eventually;
use crate::support::{id, name};

const PER_MINUTE: u64 = 60_000;
/// What passes in a second, and at once.
const PER_SECOND: i64 = PER_MINUTE as i64 / 60;
/// Tasks of each kind, and what one uses.
const KINDS: [(usize, u32); 3] = [(40, 20), (8, 300), (2, 4_000)];
const WORKERS: usize = 4;
/// What is taken is used within a second or given back. Coordinators note times by their estimate of the store's clock.
const KEPT_MS: i64 = 1_500;
const PATIENCE: Duration = Duration::from_secs(120);

async fn limit_tokens(client: &Client, settings: Settings) -> GateView {
    let request = GateRequest::new(name(DEPENDENCY), GateAction::Set);
    client.change_gate(&GateRequest { settings: Some(settings), ..request }).await.expect("done")
}

fn per_minute(tokens: u64) -> Settings {
    Settings { tokens_per_minute: Some(tokens), ..Settings::default() }
}

async fn owed(client: &Client) -> Option<u64> {
    gate(client, DEPENDENCY).await.and_then(|gate| gate.tokens_owed)
}

async fn enqueue_using(client: &Client, id: &str, tokens: Option<u32>) {
    let tasks = vec![NewTask { tokens, ..task(id, DEPENDENCY) }];
    let reply = client.enqueue(&EnqueueRequest { tasks }).await.expect("an answer");
    assert!(reply.results[0].error.is_none(), "{reply:?}");
}

/// Every kind of task, mixed; returns their ids and what they use.
async fn enqueue_all(client: &Client) -> Vec<(String, u32)> {
    let mut all = Vec::new();
    for (kind, (count, tokens)) in KINDS.into_iter().enumerate() {
        all.extend((0..count).map(|number| (format!("{kind}-{number}"), tokens)));
    }
    // The first of each kind, then the second of each: light ones are what is left at the end.
    all.sort_by_key(|(id, _)| id.split_once('-').and_then(|(_, number)| number.parse::<usize>().ok()));
    let tasks = all.iter().map(|(id, tokens)| NewTask { tokens: Some(*tokens), ..task(id, DEPENDENCY) });
    let reply = client.enqueue(&EnqueueRequest { tasks: tasks.collect() }).await.expect("an answer");
    assert!(reply.results.iter().all(|one| one.error.is_none()), "{reply:?}");
    all
}

async fn work(client: Client, number: usize, finished: Arc<AtomicUsize>, all: usize) {
    while finished.load(Ordering::SeqCst) < all {
        for lease in claim(&client, &format!("w{number}"), 8, 500).await {
            assert!(lease.tokens.is_some(), "{lease:?}");
            settle(&client, &lease, done()).await;
            finished.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// When each task was leased, in order, and what it uses.
async fn leased(client: &Client, all: &[(String, u32)]) -> Vec<(i64, i64)> {
    let mut leased = Vec::new();
    for (text, tokens) in all {
        let task = client.task(&id(text), None).await.expect("there");
        assert_eq!((task.state, task.runs, task.tokens), (TaskState::Succeeded, 1, Some(*tokens)));
        leased.push((task.history[0].started_at_ms, i64::from(*tokens)));
    }
    leased.sort_unstable();
    leased
}

/// Whenever something is leased, what was leased before it has been paid off, from whatever moment on one counts. So in no
/// stretch of time is more leased than its tokens, those of a second, and what is leased last.
fn assert_within_the_limit(leased: &[(i64, i64)]) {
    for (place, (last_ms, _)) in leased.iter().enumerate() {
        let mut sum = 0;
        for (from_ms, tokens) in leased[..place].iter().rev().filter(|(at_ms, _)| *at_ms <= last_ms - KEPT_MS)
        {
            sum += tokens;
            let room = PER_SECOND + (last_ms - from_ms) * PER_SECOND / 1_000;
            assert!(sum <= room, "{sum} of {room} in the {} ms up to {place}: {leased:?}", last_ms - from_ms);
        }
    }
}

/// Of the dependency that all of them need, or of the queue that they are on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Dependency,
    Queue,
}

/// What the queue owes; none: it has no limit of tokens.
async fn queue_owes(client: &Client) -> Option<u64> {
    let queues = client.gates().await.expect("an answer").queues;
    queues.into_iter().find(|gate| gate.queue == Some(name("default")))?.tokens_owed
}

async fn heavy_and_light_ones_share_a_limit(clients: &[Client], whose: Whose) {
    if whose == Whose::Queue {
        let request = GateRequest::of_queue(name("default"), per_minute(PER_MINUTE));
        clients[0].change_gate(&request).await.expect("done");
    } else {
        limit_tokens(&clients[0], per_minute(PER_MINUTE)).await;
    }
    for client in clients {
        let known = async || {
            let owed = if whose == Whose::Queue { queue_owes(client).await } else { owed(client).await };
            (owed == Some(0)).then_some(())
        };
        eventually("the limit is known", PATIENCE, known).await;
    }
    let all = enqueue_all(&clients[0]).await;
    let finished = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for number in 0..WORKERS {
        let client = clients[number % clients.len()].clone();
        workers.spawn(work(client, number, Arc::clone(&finished), all.len()));
    }
    let worked = async { while workers.join_next().await.transpose().expect("no panic").is_some() {} };
    tokio::time::timeout(PATIENCE, worked).await.expect("every task is done");
    let leased = leased(&clients[0], &all).await;
    assert_within_the_limit(&leased);
    // The heavy ones come early: by the last light ones they are paid off, but for what passes at once.
    let heavy: i64 = leased.iter().map(|(_, tokens)| tokens).filter(|tokens| **tokens > 20).sum();
    let took_ms = leased[leased.len() - 1].0 - leased[0].0;
    assert!(took_ms * PER_SECOND / 1_000 >= heavy - PER_SECOND, "{took_ms} ms for {heavy} tokens");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_and_light_tasks_are_held_to_the_limit_embedded() {
    let data = tempfile::tempdir().expect("a directory");
    let coordinator = Coordinator::start(data.path()).await;
    heavy_and_light_ones_share_a_limit(&[coordinator.client()], Whose::Dependency).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_and_light_tasks_are_held_to_the_limit_by_two_coordinators() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let (a, b) = tokio::join!(Coordinator::on(&url), Coordinator::on(&url));
    heavy_and_light_ones_share_a_limit(&[a.client(), b.client()], Whose::Dependency).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_and_light_tasks_of_a_queue_are_held_to_its_limit_by_two_coordinators() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let (a, b) = tokio::join!(Coordinator::on(&url), Coordinator::on(&url));
    heavy_and_light_ones_share_a_limit(&[a.client(), b.client()], Whose::Queue).await;
}

/// A task that is larger than the limit passes alone, and nothing else until it is paid off, whoever asks and whoever dies; what
/// needs something else goes on.
async fn one_that_is_larger_is_paid_off(coordinator: &mut Coordinator) {
    let client = coordinator.client();
    limit_tokens(&client, per_minute(6_000)).await;
    enqueue_using(&client, "large", Some(100_000)).await;
    let lease = claim(&client, "w", 10, 20_000).await.remove(0);
    settle(&client, &lease, done()).await;
    enqueue_using(&client, "light", Some(1)).await;
    enqueue(&client, "other", 3, "tool/pdf").await;
    assert_eq!(claim(&client, "w", 10, 5_000).await.len(), 3, "what needs something else");
    assert!(claim(&client, "w", 10, 0).await.is_empty());
    // It is answered when everything up to it is written.
    limit_tokens(&client, per_minute(6_000)).await;
    coordinator.kill().await;
    coordinator.restart().await;
    let client = coordinator.client();
    let known = async || owed(&client).await;
    let (owes, _) = eventually("the gate is known", PATIENCE, known).await;
    assert!((90_000..100_000).contains(&owes), "{owes}");
    assert!(claim(&client, "w", 10, 300).await.is_empty());
    // The debt is the same in tokens, and paid off at the new rate.
    limit_tokens(&client, per_minute(6_000_000)).await;
    assert_eq!(claim(&client, "w", 10, 30_000).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_larger_than_the_limit_is_paid_off_embedded() {
    let data = tempfile::tempdir().expect("a directory");
    one_that_is_larger_is_paid_off(&mut Coordinator::start(data.path()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_larger_than_the_limit_is_paid_off_shared() {
    let redis = RedisServer::start().await;
    one_that_is_larger_is_paid_off(&mut Coordinator::on(&redis.url()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_gives_no_estimate_counts_as_it_is_set_and_goes_where_nothing_is() {
    let data = tempfile::tempdir().expect("a directory");
    let coordinator = Coordinator::start(data.path()).await;
    let client = coordinator.client();
    limit_tokens(&client, per_minute(60)).await;
    enqueue(&client, "free", 30, DEPENDENCY).await;
    let mut given = 0;
    while given < 30 {
        given += claim(&client, "w", 30, 20_000).await.len();
    }
    assert_eq!(owed(&client).await, Some(0), "they count nothing");
    limit_tokens(&client, Settings { tokens_default: Some(6_000), ..per_minute(60) }).await;
    enqueue_using(&client, "unknown", None).await;
    assert_eq!(claim(&client, "w", 1, 20_000).await.len(), 1);
    assert!(owed(&client).await.is_some_and(|owed| (5_900..6_000).contains(&owed)));
    change(&client, DEPENDENCY, GateAction::Reset).await;
    enqueue_using(&client, "late", None).await;
    assert!(claim(&client, "w", 1, 300).await.is_empty(), "a reset forgets no debt");
    limit_tokens(&client, Settings::default()).await;
    assert_eq!(claim(&client, "w", 1, 20_000).await.len(), 1, "without a limit nothing is owed");
}
