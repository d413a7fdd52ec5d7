//! Policies that a newer release wrote, beside an older one: it goes on with what it knows of them, and with every other queue.

use redrive_coordinator::store::{Ending, PolicyChange, PolicyPut};
use redrive_shared::failure::FailureClass;
use redrive_shared::retry::RetryPolicy;
use redrive_shared::task::TaskState;
use redrive_shared::wire::{Heartbeat, UNREAD_ALL};
use rusqlite::Connection;

use crate::support::redis::RedisServer;
use crate::support::{
    Bed, EnqueueExt, RedisBackend, SqliteBackend, claim_of, failure, fixed_policy, name, task,
};

const NEWER: &str = r#"{"max_attempts": 2, "hedge": {"after_ms": 5}, "strategy": {"strategy": "fixed", "delay_ms": 7000, "spread": 2},
    "overrides": {"asleep": {"max_attempts": 1}, "timeout": {"max_attempts": 1, "hedge": true}}}"#;

/// Makes the queues of these tests.
async fn queues(bed: &Bed) {
    for text in ["default", "broken", "newer"] {
        bed.put_queue(&name(text), fixed_policy(10_000)).await.unwrap();
    }
}

/// Everything goes on, as far as it is known.
async fn goes_on(bed: &Bed) {
    let (newer, broken, calm) =
        (bed.queue("newer").await, bed.queue("broken").await, bed.queue("default").await);
    let mut unread = newer.unread.clone();
    unread.sort();
    assert_eq!(unread, ["hedge", "overrides.asleep", "overrides.timeout.hedge", "strategy.spread"]);
    assert_eq!(newer.policy.rule(FailureClass::Timeout).max_attempts, Some(1));
    assert_eq!((broken.unread, broken.policy), (vec![UNREAD_ALL.to_owned()], RetryPolicy::default()));
    assert!(calm.unread.is_empty());
    for (queue, delays) in [("newer", 7_000..=7_000), ("broken", 100..=1_000), ("default", 10_000..=10_000)] {
        bed.put(task(queue).on(queue)).await;
        let claim = redrive_coordinator::store::Claim { queues: vec![name(queue)], ..claim_of(1) };
        let lease = bed.claim_one(claim).await.leases.remove(0);
        let (state, due_ms) = bed.finish(&lease, Ending::Failed(failure(FailureClass::ServerError))).await;
        assert_eq!(state, TaskState::Scheduled);
        assert!(delays.contains(&(due_ms - bed.now_ms())), "{queue}: {}", due_ms - bed.now_ms());
        assert_eq!(bed.view(queue).await.max_attempts, if queue == "newer" { 2 } else { 5 });
    }
    bed.pause(&name("newer"), true).await.unwrap();
    assert!(bed.queue("newer").await.paused);
    bed.pause(&name("newer"), false).await.unwrap();
    assert_eq!(bed.queue("newer").await.unread.len(), 4, "a pause leaves the policy as it is");
    // Whoever changes it puts in force what is known here; what was there stays in the history.
    let change = PolicyChange::of(name("newer"), fixed_policy(1));
    assert_eq!(bed.put_queues(change).await.unwrap(), PolicyPut::Done);
    let versions = bed.policy_versions(&name("newer")).await.unwrap();
    assert_eq!(versions.len(), 3, "the first, the one that was found, and this one");
    assert_eq!(versions[1].policy.max_attempts, 2);
    assert!(bed.queue("newer").await.unread.is_empty());
}

fn beat(agent: &str) -> Heartbeat {
    serde_json::from_value(serde_json::json!({
        "agent": agent, "boot_id": "b", "queues": ["default"], "capacity": 1, "in_flight": 0, "leases": []
    }))
    .unwrap()
}

/// A heartbeat as a newer release keeps it.
fn newer_beat() -> String {
    let mut kept = serde_json::to_value(beat("a")).unwrap();
    kept["mood"] = "good".into();
    kept.to_string()
}

async fn agents(bed: &Bed) -> Vec<String> {
    bed.agents().await.unwrap().iter().map(|view| view.agent.to_string()).collect()
}

#[tokio::test]
async fn on_sqlite_a_policy_of_a_newer_release_hides_no_queue() {
    let backend = SqliteBackend::new();
    let file = backend.path().join("redrive.sqlite");
    let mut bed = Bed::open(backend).await;
    queues(&bed).await;
    for agent in ["a", "b"] {
        bed.heartbeat(beat(agent)).await.unwrap();
    }
    let behind = Connection::open(&file).unwrap();
    for (queue, policy) in [("newer", NEWER), ("broken", "{")] {
        behind.execute("UPDATE queues SET policy = ?2 WHERE name = ?1", [queue, policy]).unwrap();
    }
    behind.execute("UPDATE agents SET beat = ?1 WHERE agent = 'a'", [newer_beat()]).unwrap();
    behind.execute("UPDATE agents SET beat = '{' WHERE agent = 'b'", []).unwrap();
    drop(behind);
    bed.reopen().await;
    goes_on(&bed).await;
    assert_eq!(agents(&bed).await, ["a"]);
}

#[tokio::test]
async fn on_redis_a_policy_of_a_newer_release_hides_no_queue() {
    let redis = RedisServer::start().await;
    let mut bed = Bed::open(RedisBackend::at(&redis.url(), "rd", 1)).await;
    queues(&bed).await;
    for agent in ["a", "b"] {
        bed.heartbeat(beat(agent)).await.unwrap();
    }
    for (queue, policy) in [("newer", NEWER), ("broken", "{")] {
        redis.command(&["HSET", "rd:{*}:queues", queue, policy]).await;
    }
    let seen = bed.now_ms();
    for (agent, beat) in [("a", newer_beat()), ("b", "{".to_owned())] {
        redis.command(&["HSET", "rd:{*}:agents", &format!("{agent}|b"), &format!("{seen} 0 {beat}")]).await;
    }
    bed.reopen().await;
    goes_on(&bed).await;
    assert_eq!(agents(&bed).await, ["a"]);
}
