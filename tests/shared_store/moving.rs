//! Slots of a cluster that move to another node while everybody works.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redrive_coordinator::store::redis::link::LinkOptions;
use redrive_coordinator::store::redis::{RedisConfig, RedisStore};
use redrive_coordinator::store::{Ending, Enqueue, Enqueued, Result, Settled, Store, StoreError};
use redrive_shared::clock::ManualClock;
use redrive_shared::task::{Lease, TaskState};

use crate::support::redis::{RedisCluster, RedisServer};
use crate::support::wait::eventually;
use crate::support::{START_MS, claim_of, id, redis_config, settle_of, task};

const SHARDS: u16 = 4;
const PATIENCE: Duration = Duration::from_secs(30);

/// One slot on its way from one master to another.
struct Move<'a> {
    cluster: &'a RedisCluster,
    slot: String,
    from: usize,
    to: usize,
}

impl<'a> Move<'a> {
    /// From here on the slot is neither's: nothing has moved yet.
    async fn begin(cluster: &'a RedisCluster, key: &str) -> Self {
        let from = cluster.master_of(key).await;
        let to = (from + 1) % 3;
        let slot = cluster.nodes()[from].command(&["CLUSTER", "KEYSLOT", key]).await;
        let this = Self { cluster, slot, from, to };
        let (source, target) = (this.source(), this.target());
        let ids = (source.command(&["CLUSTER", "MYID"]).await, target.command(&["CLUSTER", "MYID"]).await);
        target.command(&["CLUSTER", "SETSLOT", &this.slot, "IMPORTING", &ids.0]).await;
        source.command(&["CLUSTER", "SETSLOT", &this.slot, "MIGRATING", &ids.1]).await;
        this
    }

    fn source(&self) -> &RedisServer {
        &self.cluster.nodes()[self.from]
    }

    fn target(&self) -> &RedisServer {
        &self.cluster.nodes()[self.to]
    }

    async fn keys(&self) -> Vec<String> {
        let keys = self.source().command(&["CLUSTER", "GETKEYSINSLOT", &self.slot, "100000"]).await;
        keys.lines().map(str::to_owned).collect()
    }

    async fn carry(&self, key: &str) {
        let port = self.target().port().to_string();
        self.source().command(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]).await;
    }

    async fn end(&self) {
        let id = self.target().command(&["CLUSTER", "MYID"]).await;
        for node in [self.target(), self.source()] {
            node.command(&["CLUSTER", "SETSLOT", &self.slot, "NODE", &id]).await;
        }
    }
}

/// A caller that works, and notes what it was told.
struct Caller {
    store: RedisStore,
    /// Whether an enqueue was acknowledged.
    tasks: BTreeMap<String, bool>,
    leases: Vec<Lease>,
    done: BTreeSet<String>,
    refused: usize,
}

impl Caller {
    async fn start(url: &str, prefix: &str, wait_replicas: u32) -> Self {
        let link = LinkOptions { wait_replicas, ..LinkOptions::default() };
        let config = RedisConfig { prefix: prefix.into(), shards: Some(SHARDS), link, ..redis_config(url) };
        let clock = Arc::new(ManualClock::new(START_MS));
        let store = RedisStore::open(&config, Some(clock)).await.unwrap();
        Self { store, tasks: BTreeMap::new(), leases: Vec::new(), done: BTreeSet::new(), refused: 0 }
    }

    /// An error that says what goes on, and passes.
    fn heard<T>(&mut self, answer: Result<T>) -> Option<T> {
        match answer {
            Ok(answer) => Some(answer),
            Err(StoreError::Unavailable(said)) => {
                assert!(said.contains("moving these slots"), "{said}");
                self.refused += 1;
                None
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    async fn put(&mut self, number: usize) {
        let name = format!("t-{number}");
        let new: Enqueue = task(&name);
        let answer = self.store.enqueue(vec![new]).await;
        let told = self.heard(answer);
        let known = self.tasks.entry(name).or_default();
        match told.map(|answers| answers[0]) {
            Some(Enqueued::Created { .. }) => assert!(!std::mem::replace(known, true), "created twice"),
            Some(Enqueued::Duplicate { .. }) => *known = true,
            Some(other) => panic!("{other:?}"),
            None => {}
        }
    }

    async fn take(&mut self, max: usize) -> bool {
        let answer = self.store.claim(vec![claim_of(max)], &[]).await;
        let leases = self.heard(answer).map(|mut answers| answers.remove(0).leases).unwrap_or_default();
        let got = !leases.is_empty();
        self.leases.extend(leases);
        got
    }

    async fn finish(&mut self, lease: Lease) {
        let answer = self.store.settle(vec![settle_of(&lease, Ending::Done(None))]).await;
        match self.heard(answer).map(|mut answers| answers.remove(0)) {
            Some(Settled::Applied { .. }) => {
                assert!(self.done.insert(lease.id.to_string()), "{} was done twice", lease.id);
            }
            Some(Settled::Repeated { state, .. }) => {
                assert_eq!(state, TaskState::Succeeded);
                self.done.insert(lease.id.to_string());
            }
            Some(other) => panic!("{}: {other:?}", lease.id),
            None => self.leases.push(lease),
        }
    }

    /// What was acknowledged is there, whichever node has it.
    async fn look(&mut self) {
        let sure: Vec<String> =
            self.tasks.iter().filter(|(_, sure)| **sure).map(|(name, _)| name.clone()).collect();
        for name in sure.iter().step_by(17) {
            let answer = self.store.get(&id(name)).await;
            assert!(self.heard(answer).is_none_or(|found| found.is_some()), "{name} is gone");
        }
    }

    /// A bit of everything.
    async fn work(&mut self, round: usize) {
        for number in 0..8 {
            self.put(1_000 + round * 8 + number).await;
        }
        self.take(6).await;
        for lease in self.leases.split_off(self.leases.len() / 2) {
            self.finish(lease).await;
        }
        self.store.reap(100).await.ok();
        self.look().await;
    }

    /// Repeats what was refused, and does all that is left: every task is done once, and nothing else is there.
    async fn finish_all(&mut self) {
        let refused = std::mem::take(&mut self.refused);
        println!("{refused} calls were refused, {} tasks were done meanwhile", self.done.len());
        for number in self
            .tasks
            .iter()
            .filter(|(_, sure)| !**sure)
            .map(|(name, _)| name[2..].parse().unwrap())
            .collect::<Vec<_>>()
        {
            self.put(number).await;
        }
        while self.take(100).await || !self.leases.is_empty() {
            for lease in std::mem::take(&mut self.leases) {
                self.finish(lease).await;
            }
        }
        assert_eq!(self.refused, 0, "all is well again");
        let all: BTreeSet<String> = self.tasks.keys().cloned().collect();
        assert_eq!(self.done, all);
        let counts = self.store.queues().await.unwrap()[0].counts;
        assert_eq!((counts.succeeded, counts.total()), (all.len() as i64, all.len() as i64), "{counts:?}");
        assert!(refused > 0, "the move was noticed");
    }
}

async fn a_slot_moves(cluster: &RedisCluster, prefix: &str, wait_replicas: u32) {
    let mut caller = Caller::start(&cluster.url(), prefix, wait_replicas).await;
    for number in 0..200 {
        caller.put(number).await;
    }
    caller.take(60).await;
    assert_eq!((caller.refused, caller.leases.len()), (0, 60));
    let moving = Move::begin(cluster, &format!("{prefix}:{{2}}:o")).await;
    caller.work(0).await;
    // The shard's own keys first: whoever looks at them alone finds lanes whose tasks are all missing.
    let (tasks, others): (Vec<_>, Vec<_>) =
        moving.keys().await.into_iter().partition(|key| key.contains("}:t:"));
    assert!(tasks.len() > 20 && others.len() > 5, "{others:?}");
    for key in &others {
        moving.carry(key).await;
    }
    for round in 1..4 {
        caller.work(round).await;
    }
    // And now with everybody at work all the time.
    let over = AtomicBool::new(false);
    let carrying = async {
        for (number, key) in tasks.iter().enumerate() {
            moving.carry(key).await;
            if number % 5 == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        assert!(moving.keys().await.is_empty(), "nobody made a key at the source meanwhile");
        moving.end().await;
        over.store(true, Ordering::Relaxed);
    };
    let working = async {
        let mut round = 4;
        while !over.load(Ordering::Relaxed) {
            caller.work(round).await;
            round += 1;
        }
    };
    tokio::join!(carrying, working);
    let served = async || caller.store.check().await.is_ok().then_some(());
    eventually("the slot is served again", PATIENCE, served).await;
    caller.finish_all().await;
}

#[tokio::test]
async fn a_slot_that_moves_is_refused_and_loses_nothing() {
    let cluster = RedisCluster::start().await;
    a_slot_moves(&cluster, "plain", 0).await;
    a_slot_moves(&cluster, "safe", 1).await;
}
