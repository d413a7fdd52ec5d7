//! What is said of queues once for all, and what coordinators and shards know of it: whatever went astray, they learn it.

use std::time::Duration;

use redrive_coordinator::store::redis::{RedisConfig, RedisStore};
use redrive_coordinator::store::{Claim, Store};

use crate::support::proxy::{Fault, Proxy};
use crate::support::redis::RedisServer;
use crate::support::wait::eventually;
use crate::support::{claim_of, fixed_policy, name, redis_config, task};

/// Everyone looks once a second; the rest is for a busy machine.
const LEARNT: Duration = Duration::from_secs(3);
const SHARDS: u16 = 4;

fn config(url: &str) -> RedisConfig {
    RedisConfig { shards: Some(SHARDS), ..redis_config(url) }
}

async fn open(redis: &RedisServer) -> RedisStore {
    RedisStore::open(&config(&redis.url()), None).await.expect("the store opens")
}

async fn lease_ms(store: &RedisStore) -> u64 {
    let queues = store.queues().await.expect("queues");
    queues.into_iter().find(|queue| &*queue.name == "default").expect("it is there").policy.lease_ms
}

/// Whether the queue `default` is paused in that shard.
async fn shows_paused(redis: &RedisServer, shard: u16) -> bool {
    redis.command(&["SISMEMBER", &format!("rd:{{{shard}}}:p"), "default"]).await == "1"
}

async fn learns(redis: &RedisServer, shard: u16, paused: bool) {
    let shown = async || (shows_paused(redis, shard).await == paused).then_some(());
    eventually(&format!("shard {shard} shows the truth"), LEARNT, shown).await;
}

async fn paused_everywhere(redis: &RedisServer, paused: bool) -> bool {
    let mut same = true;
    for shard in 0..SHARDS {
        same &= shows_paused(redis, shard).await == paused;
    }
    same
}

/// Enqueues enough for every shard.
async fn fill(store: &RedisStore) -> usize {
    let tasks: Vec<_> = (0..40).map(|number| task(&format!("t{number}"))).collect();
    store.enqueue(tasks).await.expect("taken").len()
}

/// Takes all that there is, in one claim after the other, until it has that many.
async fn take(store: &RedisStore, wanted: usize) {
    let mut taken = 0;
    let all = async || {
        let claim = Claim { max: 100, ..claim_of(1) };
        taken += store.claim(vec![claim], &[]).await.expect("a claim")[0].leases.len();
        (taken == wanted).then_some(())
    };
    eventually("everything is given out", LEARNT, all).await;
}

#[tokio::test]
async fn what_changed_is_learnt_though_the_number_of_the_change_went_back() {
    let redis = RedisServer::start().await;
    let (a, b) = (open(&redis).await, open(&redis).await);
    for _ in 0..5 {
        a.put_queue(&name("default"), fixed_policy(1_000)).await.expect("changed");
    }
    // As a replica that lagged behind has it, or what was restored: an earlier change, and what was said then.
    let earlier = serde_json::to_string(&fixed_policy(2_000)).expect("JSON");
    redis.command(&["HSET", "rd:{*}:queues", "earlier", &earlier]).await;
    redis.command(&["SET", "rd:{*}:changes", "2"]).await;
    for store in [&a, &b] {
        let known = async || store.has_queue(&name("earlier")).then_some(());
        eventually("the queue is known", LEARNT, known).await;
    }
    // And what is said from then on.
    let mut policy = fixed_policy(1_000);
    policy.lease_ms = 77_000;
    b.put_queue(&name("default"), policy).await.expect("changed");
    let known = async || (lease_ms(&a).await == 77_000).then_some(());
    eventually("the policy is known", LEARNT, known).await;
    let change: i64 = redis.command(&["GET", "rd:{*}:changes"]).await.parse().expect("a number");
    a.put_queue(&name("default"), fixed_policy(1_000)).await.expect("changed");
    let next: i64 = redis.command(&["GET", "rd:{*}:changes"]).await.parse().expect("a number");
    assert!(next > change && change > 1_000_000_000_000_000, "{change} {next}: never one that was before");
}

#[tokio::test]
async fn a_release_without_versions_reads_policies_and_what_it_changes_is_not_lost() {
    let redis = RedisServer::start().await;
    let store = open(&redis).await;
    store.put_queue(&name("default"), fixed_policy(1)).await.expect("changed");
    // It reads policies alone, and refuses what it does not know in them.
    let stored = redis.command(&["HGET", "rd:{*}:queues", "default"]).await;
    assert_eq!(stored, serde_json::to_string(&fixed_policy(1)).expect("JSON"));
    let theirs = serde_json::to_string(&fixed_policy(2)).expect("JSON");
    redis.command(&["HSET", "rd:{*}:queues", "default", &theirs]).await;
    redis.command(&["INCR", "rd:{*}:changes"]).await;
    store.put_queue(&name("default"), fixed_policy(3)).await.expect("changed");
    let versions = store.policy_versions(&name("default")).await.expect("versions");
    let kept: Vec<_> = versions.iter().map(|kept| (kept.version, kept.policy.clone())).collect();
    let expected = [(3, fixed_policy(3)), (2, fixed_policy(2)), (1, fixed_policy(1)), (0, <_>::default())];
    assert_eq!(kept, expected);
    assert_eq!(versions[1].reason.as_deref(), Some("found in force when it was changed next"));
    let shown = store.queues().await.expect("queues");
    assert_eq!(shown[0].version, 3);
}

#[tokio::test]
async fn a_shard_that_lost_a_pause_is_paused_again() {
    let redis = RedisServer::start().await;
    let store = open(&redis).await;
    store.pause(&name("default"), true).await.expect("paused");
    assert!(paused_everywhere(&redis, true).await, "when it returns");
    redis.command(&["SREM", "rd:{2}:p", "default"]).await;
    // The whole shard, as after a failover.
    redis.command(&["DEL", "rd:{3}:p", "rd:{3}:shown"]).await;
    learns(&redis, 2, true).await;
    learns(&redis, 3, true).await;
    fill(&store).await;
    let other = open(&redis).await;
    for store in [&store, &other] {
        let claimed = store.claim(vec![Claim { max: 100, ..claim_of(1) }], &[]).await.expect("a claim");
        assert!(claimed[0].leases.is_empty());
    }
}

#[tokio::test]
async fn a_shard_that_missed_a_resumption_is_resumed() {
    let redis = RedisServer::start().await;
    let store = open(&redis).await;
    store.pause(&name("default"), true).await.expect("paused");
    store.pause(&name("default"), false).await.expect("resumed");
    assert!(paused_everywhere(&redis, false).await, "when it returns");
    redis.command(&["SADD", "rd:{1}:p", "default"]).await;
    let put = fill(&store).await;
    take(&store, put).await;
    assert!(paused_everywhere(&redis, false).await);
}

#[tokio::test]
async fn a_pause_that_failed_in_the_middle_is_finished_later() {
    let redis = RedisServer::start().await;
    let keys = |allowed: &'static [&str]| [&["ACL", "SETUSER", "limited"], allowed].concat();
    redis.command(&keys(&["on", ">pw", "&*", "+@all", "~*"])).await;
    let url = format!("redis://limited:pw@127.0.0.1:{}", redis.port());
    let store = RedisStore::open(&config(&url), None).await.expect("the store opens");
    for paused in [true, false] {
        // It reaches the truth, and not every shard.
        let all_but_one = ["resetkeys", "~rd:{\\*}:*", "~rd:{0}:*", "~rd:{1}:*", "~rd:{3}:*"];
        redis.command(&[&["ACL", "SETUSER", "limited"], all_but_one.as_slice()].concat()).await;
        store.pause(&name("default"), paused).await.expect_err("a shard cannot be reached");
        for shard in [0, 1, 3] {
            assert_eq!(shows_paused(&redis, shard).await, paused, "shard {shard}");
        }
        assert_eq!(shows_paused(&redis, 2).await, !paused);
        redis.command(&keys(&["~*"])).await;
        learns(&redis, 2, paused).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_mends_late_undoes_no_pause_and_no_resumption() {
    const ROUNDS: usize = 20;
    const LOOKS: usize = 20;
    let redis = RedisServer::start().await;
    let quick = open(&redis).await;
    quick.make_queue(&name("other")).await.expect("made");
    let proxy = Proxy::to_port(redis.port()).await;
    let slow = RedisStore::open(&config(&format!("redis://127.0.0.1:{}", proxy.port())), None).await;
    let slow = slow.expect("the store opens");
    // What it writes was true when it looked, and a good deal has happened since.
    proxy.set(Fault::Latency(Duration::from_millis(15)));
    let pausing = async {
        for round in 0..ROUNDS {
            let paused = round % 2 == 0;
            quick.pause(&name("default"), paused).await.expect("an answer");
            for look in 0..LOOKS {
                assert!(paused_everywhere(&redis, paused).await, "round {round}, look {look}");
            }
        }
    };
    let mending = async {
        for round in 0_usize.. {
            // It may be told that others were faster all the time.
            let _ = slow.pause(&name("other"), round.is_multiple_of(2)).await;
        }
    };
    tokio::select! {
        () = pausing => {}
        () = mending => {}
    }
}
