//! One scene: servers, a fleet under load, and faults, one after the other at random moments.

use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use redrive_shared::clock::{Clock, SystemClock};
use redrive_shared::retry::RetryPolicy;
use redrive_shared::wire::{EnqueueRequest, Outcome, QueueCreate, SettleRequest};
use redrive_worker::client::Client;
use tokio::task::JoinHandle;

use super::super::{Sink, sink};
use super::fleet::Fleet;
use super::kind::{Kind, On};
use super::load;
use super::load::{Load, lock};
use super::probe::{Rude, settle_until_answered, settlement, take_long_lease, until_it_works};
use super::servers::{Servers, drain, fill};
use crate::support::name;
use crate::support::proxy::Way;
use crate::support::redis::RedisServer;
use crate::support::wait::eventually;

/// Short, so that a fault outlasts it without the run taking for ever.
const LEASE_MS: u64 = 2_000;
/// How long processes are suspended: longer than a lease, and than the 2 s after which Redis counts as not answering.
const SUSPENDED: Duration = Duration::from_millis(2_500);
const PATIENCE: Duration = Duration::from_secs(60);
/// Executions between two faults, at random.
const BETWEEN: std::ops::Range<u64> = 10..60;
/// A worker's cut-off tasks run again before the next worker is killed, at default settings.
const BETWEEN_DEFAULTS: std::ops::Range<u64> = 60..90;
/// Tasks of one of the two producers under way: together a few times what the 16 slots hold. At default settings fewer than
/// they hold, so that a task that is due again does not wait for a slot.
const AHEAD: usize = 30;
const AHEAD_DEFAULTS: usize = 7;
/// Losses are what this is about: three of them must not end a task here, as they do by default.
const POLICY: &str = r#"{"overrides": {
    "server_error": {"strategy": {"strategy": "fixed", "delay_ms": 20}},
    "worker_lost": {"max_attempts": 100}
}}"#;

/// A fault that was done.
pub struct Strike {
    pub kind: Kind,
    pub at_ms: i64,
    /// Until tasks could be enqueued, claimed and settled again.
    pub recovery: Duration,
    /// Until all was as before.
    pub lasted: Duration,
    /// The worker that it befell.
    pub agent: Option<String>,
}

/// What has to be done once the queue works again.
enum Heal {
    Nothing,
    Start(usize),
    Continue(usize),
    ContinueWorker(usize),
    UntilHealthy,
    NoLimit,
}

/// A fault under way.
struct Begun {
    at_ms: i64,
    /// From when its recovery counts.
    since: Instant,
    client: Client,
    agent: Option<String>,
    heal: Heal,
}

pub struct Scene {
    pub on: On,
    servers: Servers,
    pub fleet: Fleet,
    pub sink: Sink,
    pub sink_started_ms: i64,
    pub load: Load,
    rng: StdRng,
    pub strikes: Vec<Strike>,
    late: Vec<JoinHandle<Result<(), String>>>,
}

impl Scene {
    pub async fn start(on: On, rng: StdRng) -> Self {
        let servers = Servers::start(on).await;
        let sink = sink().await;
        let sink_started_ms = SystemClock.now_ms();
        let lease_ms = (on != On::Defaults).then_some(LEASE_MS);
        let fleet = Fleet::start(&servers.store(), &sink.url, lease_ms).await;
        let policy: RetryPolicy = serde_json::from_str(POLICY).expect("a policy");
        fleet.client().put_queue(&name("default"), &QueueCreate::from(policy)).await.expect("a queue");
        let ahead = if on == On::Defaults { AHEAD_DEFAULTS } else { AHEAD };
        let load = Load::start(&fleet.client(), &sink.handle.progress(), ahead);
        Self { on, servers, fleet, sink, sink_started_ms, load, rng, strikes: Vec::new(), late: Vec::new() }
    }

    /// Does that many faults, of each kind in turn.
    pub async fn strike_all(&mut self, faults: usize) {
        let kinds = self.on.kinds();
        let first = self.rng.random_range(0..kinds.len());
        for number in 0..faults {
            let kind = kinds[(first + number) % kinds.len()];
            self.strike(kind, number).await;
            let Some(Strike { recovery, .. }) = self.strikes.last() else { continue };
            println!("{}, fault {}: {}, {recovery:.1?}", self.on.words(), number + 1, kind.words());
        }
    }

    /// Stops the load, and waits for those who come late. Returns what they found wrong, one entry a fault.
    pub async fn end(&mut self) -> Vec<Result<(), String>> {
        self.under_load(BETWEEN.start).await;
        self.load.stop().await;
        let mut late = Vec::new();
        for one in self.late.drain(..) {
            late.push(one.await.expect("it does not panic"));
        }
        late
    }

    async fn under_load(&self, executions: u64) {
        let mut progress = self.sink.handle.progress();
        let enough = progress.borrow().arrived + executions;
        let waiting = progress.wait_for(|seen| seen.arrived >= enough);
        let went_on = tokio::time::timeout(PATIENCE, waiting).await.is_ok();
        assert!(went_on, "{}: the load stands still\n{}", self.on.words(), self.evidence());
    }

    fn evidence(&self) -> String {
        let last = self.strikes.last().map(|strike| strike.kind);
        format!("last fault: {last:?}; odd: {:?}\n{}", lock(&self.load.ledger).odd, self.fleet.logs())
    }

    async fn strike(&mut self, kind: Kind, number: usize) {
        let between = if self.on == On::Defaults { BETWEEN_DEFAULTS } else { BETWEEN };
        let executions = self.rng.random_range(between);
        self.under_load(executions).await;
        let client = self.fleet.client();
        let rude = Rude::take(&client, number).await;
        let began = Instant::now();
        let begun = self.begin(kind, number).await;
        until_it_works(&begun.client, number).await;
        let recovery = begun.since.elapsed();
        self.heal(begun.heal, begun.since).await;
        self.late.push(tokio::spawn(rude.come_late(client)));
        let lasted = began.elapsed();
        self.strikes.push(Strike { kind, at_ms: begun.at_ms, recovery, lasted, agent: begun.agent });
    }

    async fn begin(&mut self, kind: Kind, number: usize) -> Begun {
        match kind {
            Kind::CoordinatorKilled
            | Kind::KilledAfterEnqueue
            | Kind::KilledAfterSettle
            | Kind::CoordinatorStopped => self.hurt_coordinator(kind, number).await,
            Kind::WorkerKilled | Kind::WorkerStopped => self.hurt_worker(kind).await,
            Kind::MasterKilled | Kind::MasterStopped => self.hurt_master(kind).await,
            Kind::RedisKilled
            | Kind::RedisStopped
            | Kind::ConnectionsReset
            | Kind::RequestCut
            | Kind::ResponseCut
            | Kind::ScriptsFlushed
            | Kind::MemoryFull => self.hurt_redis(kind).await,
        }
    }

    fn begun(&self, at_ms: i64, since: Instant, heal: Heal) -> Begun {
        Begun { at_ms, since, client: self.fleet.client_beside(0), agent: None, heal }
    }

    async fn hurt_coordinator(&mut self, kind: Kind, number: usize) -> Begun {
        let victim = self.rng.random_range(0..self.fleet.sizes().0);
        let soon = Duration::from_micros(self.rng.random_range(0..4_000));
        let beside = self.fleet.client_beside(victim);
        let to_victim = self.fleet.coordinator(victim).client();
        let tasks = load::sudden(number);
        let lease = match kind {
            Kind::KilledAfterSettle => Some(take_long_lease(&to_victim, number).await),
            _ => None,
        };
        // What is sent to the victim moments before its end; its fate is then unknown, and it is said again.
        let settlement = lease.map(|lease| settlement(&lease, Outcome::done(None)));
        let (sent_tasks, sent_settlement) = (tasks.clone(), settlement.clone());
        let sending = match kind {
            Kind::KilledAfterEnqueue => Some(tokio::spawn(async move {
                drop(to_victim.enqueue(&EnqueueRequest { tasks: sent_tasks }).await);
            })),
            Kind::KilledAfterSettle => Some(tokio::spawn(async move {
                let settlements = sent_settlement.into_iter().collect();
                drop(to_victim.settle(&SettleRequest { settlements }).await);
            })),
            _ => None,
        };
        tokio::time::sleep(soon).await;
        let (at_ms, since) = (SystemClock.now_ms(), Instant::now());
        let heal = if kind == Kind::CoordinatorStopped {
            self.fleet.coordinator(victim).suspend();
            Heal::Continue(victim)
        } else {
            self.fleet.coordinator(victim).kill().await;
            Heal::Start(victim)
        };
        if let Some(sending) = sending {
            sending.await.expect("it does not panic");
        }
        if kind == Kind::KilledAfterEnqueue {
            load::enqueue(&beside, tasks.clone(), &self.load.ledger).await;
            load::acknowledge(&tasks, &self.load.ledger);
        }
        if let Some(settlement) = settlement {
            let result = settle_until_answered(&beside, settlement).await;
            if result.error.is_some() {
                let said = format!("a settlement said again was refused: {result:?}");
                lock(&self.load.ledger).odd.push(said);
            }
        }
        Begun { at_ms, since, client: beside, agent: None, heal }
    }

    async fn hurt_worker(&mut self, kind: Kind) -> Begun {
        let victim = self.rng.random_range(0..self.fleet.sizes().1);
        let since = Instant::now();
        if kind == Kind::WorkerKilled {
            let (agent, at_ms) = self.fleet.replace_worker(victim).await;
            return Begun { agent: Some(agent), ..self.begun(at_ms, since, Heal::Nothing) };
        }
        let worker = &mut self.fleet.workers[victim];
        let (at_ms, agent) = (SystemClock.now_ms(), worker.agent.clone());
        worker.stopped_ms.push((at_ms, i64::MAX));
        worker.suspend();
        Begun { agent: Some(agent), ..self.begun(at_ms, since, Heal::ContinueWorker(victim)) }
    }

    async fn hurt_master(&mut self, kind: Kind) -> Begun {
        let key = format!("key-{}", self.rng.random_range(0..1_000));
        let by: fn(&mut RedisServer) = match kind {
            Kind::MasterKilled => RedisServer::kill,
            _ => |server: &mut RedisServer| server.suspend(),
        };
        let (at_ms, since) = (SystemClock.now_ms(), Instant::now());
        let fallen = self.servers.fell_master(key, by).await;
        self.servers.until_replaced(&fallen).await;
        // Its successor has no replica but this one: until it is back, nothing can be acknowledged.
        match kind {
            Kind::MasterKilled => self.servers.restart(&fallen).await,
            _ => self.servers.resume(&fallen),
        }
        self.begun(at_ms, since, Heal::UntilHealthy)
    }

    async fn hurt_redis(&mut self, kind: Kind) -> Begun {
        let down = Duration::from_millis(self.rng.random_range(0..800));
        let bytes = self.rng.random_range(1..1_500);
        let at_ms = SystemClock.now_ms();
        let mut heal = Heal::Nothing;
        match kind {
            Kind::RedisKilled => {
                self.servers.redis().kill();
                tokio::time::sleep(down).await;
                self.servers.redis().restart().await;
            }
            Kind::RedisStopped => {
                self.servers.redis().suspend();
                tokio::time::sleep(SUSPENDED).await;
                self.servers.redis().resume();
            }
            Kind::ConnectionsReset => self.servers.proxy().reset_all(),
            Kind::RequestCut | Kind::ResponseCut => {
                let way = if kind == Kind::RequestCut { Way::Requests } else { Way::Responses };
                let proxy = self.servers.proxy();
                proxy.cut(way, bytes);
                let cut = async || (!proxy.is_cut_pending()).then_some(());
                eventually("the load's own bytes are cut", PATIENCE, cut).await;
            }
            Kind::MemoryFull => {
                let client = self.fleet.client_beside(0);
                let redis = self.servers.redis();
                let fillers = fill(redis, &client).await;
                drain(redis, &fillers).await;
                heal = Heal::NoLimit;
            }
            _ => self.servers.flush_scripts().await,
        }
        // The server is back: from here on it is the queue's turn.
        self.begun(at_ms, Instant::now(), heal)
    }

    async fn heal(&mut self, heal: Heal, since: Instant) {
        let rest = SUSPENDED.saturating_sub(since.elapsed());
        match heal {
            Heal::Nothing => {}
            Heal::Start(victim) => self.fleet.coordinator(victim).restart().await,
            Heal::Continue(victim) => {
                tokio::time::sleep(rest).await;
                self.fleet.coordinator(victim).resume();
            }
            Heal::ContinueWorker(victim) => {
                tokio::time::sleep(rest).await;
                let worker = &mut self.fleet.workers[victim];
                worker.resume();
                if let Some(stopped) = worker.stopped_ms.last_mut() {
                    stopped.1 = SystemClock.now_ms();
                }
            }
            Heal::UntilHealthy => self.servers.until_healthy().await,
            Heal::NoLimit => {
                self.servers.redis().command(&["CONFIG", "SET", "maxmemory", "0"]).await;
            }
        }
    }
}
