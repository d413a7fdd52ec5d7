//! Parts of the store that cannot be reached for a while: what ended meanwhile proves nothing, and the others go on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redrive_coordinator::store::redis::link::LinkOptions;
use redrive_coordinator::store::redis::{RedisConfig, RedisStore};
use redrive_coordinator::store::{Claim, Claimed, Ending, Extended, Reap, Restriction, Settled, Store};
use redrive_shared::clock::{Clock, ManualClock};
use redrive_shared::id::TaskId;
use redrive_shared::task::{Lease, TaskState};
use redrive_shared::wire::Heartbeat;

use crate::support::proxy::{Fault, Proxy};
use crate::support::redis::{RedisCluster, RedisOptions, RedisServer};
use crate::support::wait::eventually;
use crate::support::{
    EnqueueExt, START_MS, beat_with, claim_of, id, name, of_dependency, redis_config, settle_of, task,
};

const PATIENCE: Duration = Duration::from_secs(30);
/// How long this store waits for an answer.
const GIVES_UP: Duration = Duration::from_secs(1);
/// And for a connection: the client of a cluster that connects to one node holds up calls to others.
const CONNECTS_WITHIN: Duration = Duration::from_millis(500);

async fn open(url: &str, shards: u16) -> (RedisStore, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(START_MS));
    let link = LinkOptions {
        response_timeout: GIVES_UP,
        connect_timeout: CONNECTS_WITHIN,
        ..LinkOptions::default()
    };
    let config = RedisConfig { shards: Some(shards), link, ..redis_config(url) };
    (RedisStore::open(&config, Some(Arc::clone(&clock) as _)).await.unwrap(), clock)
}

async fn put(store: &RedisStore, numbers: std::ops::Range<usize>) {
    let tasks = numbers.map(|number| task(&format!("t-{number}"))).collect();
    store.enqueue(tasks).await.unwrap();
}

async fn take(store: &RedisStore, claim: Claim) -> Claimed {
    store.claim(vec![claim], &[]).await.unwrap().remove(0)
}

fn beat_of(agent: &str, leases: &[Lease]) -> Heartbeat {
    beat_with(agent, "b", &leases.iter().collect::<Vec<_>>())
}

/// Reaps as soon as that looks at all shards.
async fn reap_when_reached(store: &RedisStore, clock: &ManualClock) -> Reap {
    let reaped = async || {
        let round = store.reap(100).await.ok()?;
        // It would look again for one that it could not reach.
        round.next_ms.is_none_or(|next_ms| next_ms > clock.now_ms() + 1_000).then_some(round)
    };
    eventually("it is reached again", PATIENCE, reaped).await.0
}

#[tokio::test]
async fn an_outage_costs_no_living_worker_its_lease_and_a_dead_one_is_still_found() {
    let redis = RedisServer::start().await;
    let (store, clock) = open(&redis.url(), 4).await;
    put(&store, 0..40).await;
    let claim = |agent: &str| Claim { agent: name(agent), boot_id: Some(name("b")), ..claim_of(20) };
    let living = take(&store, claim("living")).await.leases;
    let dead = take(&store, claim("dead")).await.leases;
    assert_eq!((living.len(), dead.len()), (20, 20));
    // Long after the store was opened, all is well.
    for _ in 0..4 {
        clock.advance_ms(5_000);
        for (agent, leases) in [("living", &living), ("dead", &dead)] {
            store.heartbeat(beat_of(agent, leases)).await.unwrap();
        }
        assert!(store.reap(100).await.unwrap().reaped.is_empty());
    }
    redis.suspend();
    clock.advance_ms(5_000);
    assert!(store.heartbeat(beat_of("living", &living)).await.is_err());
    assert!(store.reap(100).await.is_err());
    // Longer than silence may last, and than a lease.
    clock.advance_ms(40_000);
    assert!(store.reap(100).await.is_err());
    redis.resume();
    let round = reap_when_reached(&store, &clock).await;
    assert_eq!((round.reaped.len(), round.gone.len()), (0, 0), "nobody could report");
    clock.advance_ms(5_000);
    assert_eq!(store.reap(100).await.unwrap().reaped.len(), 0, "they are given a little time");
    let extended = store.heartbeat(beat_of("living", &living)).await.unwrap().leases;
    assert!(extended.iter().all(|one| matches!(one, Extended::Until(_))), "{extended:?}");
    // The other one does not come back: its leases are over, and then it is gone.
    clock.advance_ms(5_001);
    let round = store.reap(100).await.unwrap();
    let lost: BTreeSet<_> = round.reaped.iter().map(|reaped| &reaped.id).collect();
    assert_eq!(lost, dead.iter().map(|lease| &lease.id).collect());
    assert!(round.gone.is_empty());
    store.heartbeat(beat_of("living", &living)).await.unwrap();
    clock.advance_ms(5_001);
    assert_eq!(store.reap(100).await.unwrap().gone, [name("dead")]);
    let settlements = living.iter().map(|lease| settle_of(lease, Ending::Done(None))).collect();
    let settled = store.settle(settlements).await.unwrap();
    assert!(settled.iter().all(|one| matches!(one, Settled::Applied { .. })), "{settled:?}");
}

#[tokio::test]
async fn an_agent_that_reports_while_its_silence_is_judged_keeps_its_leases() {
    let redis = RedisServer::start().await;
    let proxy = Proxy::to_port(redis.port()).await;
    let clock = Arc::new(ManualClock::new(START_MS));
    let open = async |port: u16| {
        let link = LinkOptions { response_timeout: PATIENCE, ..LinkOptions::default() };
        let config = RedisConfig { link, ..redis_config(&format!("redis://127.0.0.1:{port}")) };
        RedisStore::open(&config, Some(Arc::clone(&clock) as _)).await.unwrap()
    };
    let (judging, other) = (open(proxy.port()).await, open(redis.port()).await);
    put(&other, 0..1).await;
    let claim = Claim { agent: name("a"), boot_id: Some(name("b")), lease_ms: Some(60_000), ..claim_of(1) };
    let leases = take(&other, claim).await.leases;
    clock.advance_ms(20_000);
    other.heartbeat(beat_of("a", &leases)).await.unwrap();
    clock.advance_ms(15_001);
    redis.command(&["CONFIG", "RESETSTAT"]).await;
    // A second from when Redis says who is silent to when it hears what comes of that.
    proxy.set(Fault::Latency(Duration::from_millis(500)));
    let reporting = async {
        let told = async || {
            let statistics = redis.command(&["INFO", "commandstats"]).await;
            statistics.contains("cmdstat_zrangebyscore").then_some(())
        };
        eventually("Redis has said who is silent", PATIENCE, told).await;
        let beaten = other.heartbeat(beat_of("a", &leases)).await.unwrap();
        proxy.set(Fault::None);
        beaten
    };
    let (round, beaten) = tokio::join!(judging.reap(100), reporting);
    let round = round.unwrap();
    assert_eq!((round.reaped, round.gone), (Vec::new(), Vec::new()));
    assert!(matches!(beaten.leases[0], Extended::Until(_)), "{beaten:?}");
    let settled = other.settle(vec![settle_of(&leases[0], Ending::Done(None))]).await.unwrap();
    assert!(matches!(settled[0], Settled::Applied { .. }), "{settled:?}");
}

/// The tasks on a node.
async fn tasks_on(node: &RedisServer) -> BTreeSet<String> {
    let keys = node.command(&["KEYS", "rd:*:t:*"]).await;
    keys.lines().filter_map(|key| key.rsplit(':').next()).map(str::to_owned).collect()
}

fn ids_of(leases: &[Lease]) -> BTreeSet<String> {
    leases.iter().map(|lease| lease.id.to_string()).collect()
}

#[tokio::test]
async fn a_dead_master_stops_only_its_own_shards() {
    let options = RedisOptions::default().set("cluster-require-full-coverage", "no");
    let cluster = RedisCluster::with(options).await;
    let (store, clock) = open(&cluster.url(), 16).await;
    put(&store, 0..200).await;
    let leased = take(&store, claim_of(40)).await.leases;
    // Long after the start, and reported so that nobody is silent.
    clock.advance_ms(20_000);
    store.heartbeat(beat_of("a", &leased)).await.unwrap();
    assert!(store.reap(100).await.unwrap().reaped.is_empty());
    let once = cluster.master_of("rd:{*}:meta").await;
    let dead = (once + 1) % 3;
    let cut_off = tasks_on(&cluster.nodes()[dead]).await;
    assert!((20..180).contains(&cut_off.len()), "{}", cut_off.len());
    for node in [dead, dead + 3] {
        cluster.nodes()[node].suspend();
    }
    // The first one finds out, with what the others have. The store says what is done: while calls to the dead hold up the
    // others, an answer of the living may be too late, and what it tells of was done all the same.
    let mut taken = BTreeSet::new();
    let living: Vec<TaskId> = (0..200)
        .map(|n| format!("t-{n}"))
        .filter(|task| !cut_off.contains(task))
        .map(|task| id(&task))
        .collect();
    let all_are = async |state| {
        let views = store.status(living.clone()).await.ok()?;
        views.iter().all(|task| task.state == state).then_some(())
    };
    let all = async || {
        let claimed = take(&store, claim_of(200)).await;
        assert_eq!(claimed.next_due_ms, Some(clock.now_ms() + 1_000), "it comes again for the rest");
        taken.extend(ids_of(&claimed.leases));
        all_are(TaskState::Leased).await
    };
    eventually("all that can be reached is taken", PATIENCE, all).await;
    assert!(taken.is_disjoint(&cut_off));
    store.forget(100).await.unwrap();
    assert!(store.reap(500).await.unwrap().next_ms.unwrap() <= clock.now_ms() + 1_000);
    // Their leases end there, by their time.
    clock.advance_ms(31_000);
    let mut lost = BTreeSet::new();
    let reaped = async || {
        // Where an answer was late in this very moment, a grace begins.
        clock.advance_ms(2_000);
        lost.extend(store.reap(500).await.unwrap().reaped.into_iter().map(|one| one.id.to_string()));
        all_are(TaskState::Scheduled).await
    };
    eventually("leases of living shards end", PATIENCE, reaped).await;
    assert!(!lost.is_empty() && lost.is_disjoint(&cut_off));
    for node in [dead, dead + 3] {
        cluster.nodes()[node].resume();
    }
    let served = async || store.check().await.is_ok().then_some(());
    eventually("the dead shards are served again", PATIENCE, served).await;
    let round = reap_when_reached(&store, &clock).await;
    assert!(round.reaped.is_empty(), "nobody could report there");
    for lease in leased.iter().filter(|lease| cut_off.contains(&*lease.id)) {
        let settled = store.settle(vec![settle_of(lease, Ending::Done(None))]).await.unwrap();
        assert!(matches!(settled[0], Settled::Applied { .. }), "{settled:?}");
    }
    finish(&store, &clock).await;
}

#[tokio::test]
async fn a_dead_master_is_waited_for_once_where_shards_are_asked_one_after_another() {
    let options = RedisOptions::default().set("cluster-require-full-coverage", "no");
    let cluster = RedisCluster::with(options).await;
    let (store, clock) = open(&cluster.url(), 16).await;
    let tasks = (0..200).map(|number| task(&format!("t-{number}")).needs("d")).collect();
    store.enqueue(tasks).await.unwrap();
    let dead = (cluster.master_of("rd:{*}:meta").await + 1) % 3;
    let cut_off = tasks_on(&cluster.nodes()[dead]).await;
    for node in [dead, dead + 3] {
        cluster.nodes()[node].suspend();
    }
    let restricted = [Restriction { scope: of_dependency("d"), any: Some(1_000), retries: None }];
    let asked = Instant::now();
    let claimed = store.claim(vec![claim_of(200)], &restricted).await.unwrap().remove(0);
    let took = asked.elapsed();
    for node in [dead, dead + 3] {
        cluster.nodes()[node].resume();
    }
    assert!(ids_of(&claimed.leases).is_disjoint(&cut_off));
    assert_eq!(claimed.next_due_ms, Some(clock.now_ms() + 1_000), "it comes again for the rest");
    // A third of the shards is there, more or less: to wait for each of them takes twelve times as long as for one.
    assert!(took < GIVES_UP * 8, "{took:?}");
}

/// Every task is done in the end, and the counters say so.
async fn finish(store: &RedisStore, clock: &ManualClock) {
    let done = async || {
        clock.advance_ms(31_000);
        store.reap(500).await.ok()?;
        clock.advance_ms(31_000);
        let leases = store.claim(vec![claim_of(500)], &[]).await.ok()?.remove(0).leases;
        let settlements = leases.iter().map(|lease| settle_of(lease, Ending::Done(None))).collect();
        store.settle(settlements).await.ok()?;
        let counts = store.queues().await.ok()?[0].counts;
        (counts.succeeded == 200 && counts.total() == 200).then_some(())
    };
    eventually("all tasks are done", PATIENCE, done).await;
    assert!(store.get(&id("t-0")).await.unwrap().is_some());
}
