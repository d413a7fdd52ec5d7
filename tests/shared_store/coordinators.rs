//! Several coordinators on one Redis, as processes: none leads, and any of them may stop.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use redrive_shared::error::ErrorCode;
use redrive_shared::id::TaskId;
use redrive_shared::task::{Lease, TaskState};
use redrive_shared::wire::{ClaimRequest, EnqueueRequest, NewTask, Outcome, SettleRequest, Settlement};
use redrive_worker::client::Client;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::support::process::Coordinator;
use crate::support::redis::RedisServer;
use crate::support::wait::eventually;
use crate::support::{fixed_policy, id, name};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

async fn three(redis: &RedisServer) -> [Coordinator; 3] {
    let url = redis.url();
    let (one, two, three) = tokio::join!(Coordinator::on(&url), Coordinator::on(&url), Coordinator::on(&url));
    [one, two, three]
}

fn tasks(ids: impl Iterator<Item = String>) -> EnqueueRequest {
    let tasks = ids.map(|text| NewTask { id: Some(id(&text)), ..NewTask::default() });
    EnqueueRequest { tasks: tasks.collect() }
}

fn claim(agent: &str, max: u32, wait_ms: u64, lease_ms: u64) -> ClaimRequest {
    ClaimRequest {
        agent: name(agent),
        boot_id: None,
        request_id: None,
        queues: vec![name("default")],
        max,
        wait_ms,
        lease_ms: Some(lease_ms),
        avoid: Vec::new(),
    }
}

fn done(lease: &Lease) -> SettleRequest {
    let outcome = Outcome::done(None);
    let (epoch, nonce) = (lease.epoch, lease.nonce);
    SettleRequest { settlements: vec![Settlement { id: lease.id.clone(), epoch, nonce, outcome }] }
}

/// When a lease was held, as its worker saw it.
type Held = (TaskId, Instant, Instant);

/// Claims at one coordinator and settles at another, until all that there is was done.
async fn work(number: usize, at: Client, settle_at: Client, all: usize) -> Vec<Held> {
    let mut held = Vec::new();
    let counts = async || at.queue(&name("default")).await.expect("the queue").counts;
    while counts().await.succeeded < all as i64 {
        let leases = at.claim(&claim(&format!("w{number}"), 7, 100, 30_000)).await.expect("a claim").leases;
        let given = Instant::now();
        for lease in leases {
            let reply = settle_at.settle(&done(&lease)).await.expect("an answer");
            assert!(reply.results[0].error.is_none(), "{:?}", reply.results);
            held.push((lease.id, given, Instant::now()));
        }
    }
    held
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_task_is_given_once_whoever_gives_it_and_settled_anywhere() {
    const PRODUCERS: usize = 6;
    const EACH: usize = 60;
    let redis = RedisServer::start().await;
    let coordinators = three(&redis).await;
    let client = |number: usize| coordinators[number % 3].client();
    let mut workers = JoinSet::new();
    for number in 0..6 {
        workers.spawn(work(number, client(number), client(number + 1), PRODUCERS * EACH));
    }
    let mut producers = JoinSet::new();
    for number in 0..PRODUCERS {
        let at = client(number);
        producers.spawn(async move {
            for batch in 0..EACH / 10 {
                let ids = (0..10).map(|task| format!("p{number}-{batch}-{task}"));
                at.enqueue(&tasks(ids)).await.expect("taken");
            }
        });
    }
    producers.join_all().await;
    let held = timeout(PATIENCE, workers.join_all()).await.expect("all is done in time").concat();
    let ids: HashSet<_> = held.iter().map(|(task, ..)| task).collect();
    assert_eq!((held.len(), ids.len()), (PRODUCERS * EACH, PRODUCERS * EACH), "each once");
}

/// How long a claim that waits at one coordinator takes to hear of a task that comes in at another.
async fn wakes(at: &Coordinator, waiting: &Coordinator, rounds: usize) -> Vec<Duration> {
    let (producer, worker) = (at.client(), waiting.client());
    let mut took = Vec::new();
    for round in 0..rounds {
        let claiming = tokio::spawn({
            let worker = worker.clone();
            async move { (worker.claim(&claim("a", 1, 20_000, 30_000)).await.expect("a claim"), Instant::now()) }
        });
        let waits = async || (waiting_claims(waiting).await == 1).then_some(());
        eventually("the claim waits", PATIENCE, waits).await;
        let put = Instant::now();
        producer.enqueue(&tasks(std::iter::once(format!("wake-{round}")))).await.expect("taken");
        let (reply, woke) = claiming.await.expect("no panic");
        assert_eq!(reply.leases.len(), 1);
        took.push(woke - put);
        worker.settle(&done(&reply.leases[0])).await.expect("settled");
    }
    took.sort_unstable();
    took
}

async fn waiting_claims(coordinator: &Coordinator) -> u64 {
    coordinator.metric("redrive_claims_waiting").await
}

#[tokio::test]
async fn a_claim_wakes_at_once_for_what_comes_in_at_another_coordinator() {
    let redis = RedisServer::start().await;
    let (a, b) = (Coordinator::on(&redis.url()).await, Coordinator::on(&redis.url()).await);
    let took = wakes(&a, &b, 7).await;
    println!("woken by a hint after {took:?}");
    assert!(took[3] < Duration::from_millis(100), "{took:?}");
}

#[tokio::test]
async fn a_claim_wakes_within_a_look_where_hints_do_not_come() {
    let redis = RedisServer::start().await;
    let a = Coordinator::on(&redis.url()).await;
    // This one may not hear of anything; what it does itself it may publish.
    redis.command(&["ACL", "SETUSER", "deaf", "on", ">pw", "~*", "&*", "+@all", "-subscribe"]).await;
    let b = Coordinator::on(&format!("redis://deaf:pw@127.0.0.1:{}", redis.port())).await;
    let took = wakes(&a, &b, 3).await;
    println!("woken by a look after {took:?}");
    assert!(took[2] < Duration::from_millis(1_500), "{took:?}");
}

#[tokio::test]
async fn what_is_done_to_a_queue_at_one_coordinator_is_in_force_at_all() {
    let redis = RedisServer::start().await;
    let (a, b) = (Coordinator::on(&redis.url()).await, Coordinator::on(&redis.url()).await);
    let (a, b) = (a.client(), b.client());
    let made = redrive_shared::wire::QueueCreate::from(fixed_policy(70_000));
    a.put_queue(&name("made"), &made).await.expect("made");
    let on_it = |text: &str| {
        let task = NewTask { id: Some(id(text)), queue: Some(name("made")), ..NewTask::default() };
        EnqueueRequest { tasks: vec![task] }
    };
    b.enqueue(&on_it("t")).await.expect("known at once");
    a.pause(&name("made")).await.expect("paused");
    let wish = ClaimRequest { queues: vec![name("made")], ..claim("a", 1, 0, 30_000) };
    assert!(b.claim(&wish).await.expect("a claim").leases.is_empty(), "paused at once");
    a.resume(&name("made")).await.expect("resumed");
    let waits = ClaimRequest { wait_ms: 20_000, ..wish.clone() };
    let lease = b.claim(&waits).await.expect("a claim").leases.remove(0);
    let fails = |lease: &Lease| SettleRequest {
        settlements: vec![Settlement {
            id: lease.id.clone(),
            epoch: lease.epoch,
            nonce: lease.nonce,
            outcome: Outcome::retry(serde_json::from_str(r#"{"http_status": 500}"#).expect("a failure")),
        }],
    };
    let before = lease.due_at_ms;
    let settled = b.settle(&fails(&lease)).await.expect("settled");
    assert!(settled.results[0].due_at_ms.is_some_and(|due_ms| due_ms >= before + 70_000), "{settled:?}");
    // Another policy: in force as soon as the other coordinator has heard of it.
    a.put_queue(&name("made"), &fixed_policy(5_000_000).into()).await.expect("changed");
    let mut number = 0;
    let changed = async || {
        number += 1;
        b.enqueue(&on_it(&format!("t{number}"))).await.expect("taken");
        let lease = b.claim(&waits).await.expect("a claim").leases.remove(0);
        let settled = b.settle(&fails(&lease)).await.expect("settled");
        settled.results[0].due_at_ms.is_some_and(|due_ms| due_ms > lease.due_at_ms + 4_000_000).then_some(())
    };
    eventually("the new policy is in force", Duration::from_secs(2), changed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_was_stopped_changes_nothing_that_it_no_longer_owns() {
    const TASKS: usize = 100;
    let redis = RedisServer::start().await;
    let (stopped, other) = (Coordinator::on(&redis.url()).await, Coordinator::on(&redis.url()).await);
    let (at_stopped, at_other) = (stopped.client(), other.client());
    at_other.enqueue(&tasks((0..TASKS).map(|number| format!("t{number}")))).await.expect("taken");
    let leases = at_stopped.claim(&claim("first", 100, 0, 1_000)).await.expect("a claim").leases;
    assert_eq!(leases.len(), TASKS);
    // Settlements on their way, and a claim that waits, when it is stopped; and more settlements that come after.
    let settle = |lease: Lease| {
        let client = at_stopped.clone();
        async move {
            loop {
                match client.settle(&done(&lease)).await {
                    Ok(reply) => return (reply, lease),
                    // Its time was up when the coordinator woke: the outcome is unknown, so it is repeated.
                    Err(error) => assert!(error.is_retryable(), "{error}"),
                }
            }
        }
    };
    let (mut settling, mut leases) = (JoinSet::new(), leases);
    let later = leases.split_off(TASKS / 2);
    leases.into_iter().for_each(|lease| drop(settling.spawn(settle(lease))));
    let waiting = tokio::spawn({
        let client = at_stopped.clone();
        async move { client.claim(&claim("waits", 1, 500, 30_000)).await.map(|reply| reply.leases.len()) }
    });
    let mut settled = vec![settling.join_next().await.expect("one is answered").expect("no panic")];
    stopped.suspend();
    later.into_iter().for_each(|lease| drop(settling.spawn(settle(lease))));
    // Whatever was not settled ends, and is done by another worker.
    let mut heir = BTreeMap::new();
    let finished = async || {
        for lease in at_other.claim(&claim("heir", 100, 200, 30_000)).await.expect("a claim").leases {
            let reply = at_other.settle(&done(&lease)).await.expect("an answer");
            assert!(reply.results[0].error.is_none());
            heir.insert(lease.id.clone(), lease.epoch);
        }
        let counts = at_other.queue(&name("default")).await.expect("the queue").counts;
        (counts.succeeded == TASKS as i64).then_some(())
    };
    eventually("all is done without it", PATIENCE, finished).await;
    stopped.resume();
    settled.extend(timeout(PATIENCE, settling.join_all()).await.expect("answered in time"));
    assert!(!matches!(waiting.await.expect("no panic"), Ok(1..)), "nothing was left to give");
    let mut refused = 0;
    for (reply, lease) in settled {
        let task = at_other.task(&lease.id, None).await.expect("the task");
        assert_eq!(task.state, TaskState::Succeeded);
        match &reply.results[0].error {
            None => assert_eq!(task.epoch, lease.epoch, "settled by the first"),
            Some(problem) => {
                refused += 1;
                assert_eq!(problem.code, ErrorCode::StaleEpoch, "{problem:?}");
                assert_eq!(heir.get(&lease.id), Some(&task.epoch), "still as the heir left it");
            }
        }
    }
    assert!(refused == heir.len() && refused >= TASKS / 2, "{refused}");
    assert_eq!(stopped.metric("redrive_stale_epochs_total").await, refused as u64);
    println!("stale settlements refused: {refused} of {TASKS}");
}

#[tokio::test]
async fn whoever_waits_at_a_coordinator_that_is_killed_goes_on_at_another() {
    let redis = RedisServer::start().await;
    let (mut killed, other) = (Coordinator::on(&redis.url()).await, Coordinator::on(&redis.url()).await);
    let (at_killed, at_other) = (killed.client(), other.client());
    let wish = |request: &str, wait_ms| ClaimRequest {
        request_id: Some(name(request)),
        ..claim("a", 2, wait_ms, 30_000)
    };
    // One that was answered, and whose answer its worker never got, and one that waits.
    at_other.enqueue(&tasks(["a".to_owned(), "b".to_owned()].into_iter())).await.expect("taken");
    let lost = at_killed.claim(&wish("lost", 0)).await.expect("a claim").leases;
    let waiting = tokio::spawn({
        let (client, wish) = (at_killed.clone(), wish("waits", 20_000));
        async move { client.claim(&wish).await }
    });
    let waits = async || (waiting_claims(&killed).await == 1).then_some(());
    eventually("the claim waits", PATIENCE, waits).await;
    killed.kill().await;
    let error = waiting.await.expect("no panic").expect_err("its coordinator is gone");
    assert!(error.is_retryable(), "{error}");
    let again = at_other.claim(&wish("lost", 0)).await.expect("a claim").leases;
    let fences = |leases: &[Lease]| -> Vec<_> {
        leases.iter().map(|lease| (lease.id.clone(), lease.epoch, lease.nonce)).collect()
    };
    assert_eq!(fences(&again), fences(&lost), "the same leases");
    let wish = wish("waits", 20_000);
    let goes_on = at_other.claim(&wish);
    let put = async { at_other.enqueue(&tasks(std::iter::once("c".to_owned()))).await.expect("taken") };
    let (leases, _) = tokio::join!(goes_on, put);
    assert_eq!(leases.expect("a claim").leases.len(), 1);
}
