//! Where Redis itself loses what it has acknowledged: measured, not judged.

use std::time::Duration;

use redrive_shared::id::TaskId;
use redrive_shared::wire::{EnqueueRequest, NewTask, StatusRequest};
use redrive_worker::client::Client;
use tokio_util::sync::CancellationToken;

use super::fleet::{Coordinator, Store};
use super::probe::until_it_works;
use crate::support::fast_directory;
use crate::support::proxy::{Fault, Proxy};
use crate::support::redis::{AppendFsync, RedisOptions, RedisSentinel, RedisServer};
use crate::support::wait::eventually;

const PATIENCE: Duration = Duration::from_secs(60);
/// How often each is done.
const TIMES: usize = 3;
/// Acknowledged before the blow, at least.
const TASKS: usize = 1_000;
const BATCH: usize = 20;

/// One line of the table.
pub struct Loss {
    pub what: String,
    pub times: usize,
    pub acknowledged: usize,
    pub lost: usize,
    pub most: usize,
}

impl Loss {
    fn new(what: String) -> Self {
        Self { what, times: 0, acknowledged: 0, lost: 0, most: 0 }
    }

    async fn count(&mut self, client: &Client, acknowledged: &[TaskId]) {
        let mut lost = 0;
        for some in acknowledged.chunks(500) {
            let request = StatusRequest { ids: some.to_vec() };
            let ask = async || client.status(&request).await.ok();
            lost += eventually("tasks can be asked after", PATIENCE, ask).await.0.unknown.len();
        }
        self.times += 1;
        self.acknowledged += acknowledged.len();
        self.lost += lost;
        self.most = self.most.max(lost);
    }
}

pub async fn measure() -> Vec<Loss> {
    let mut losses = vec![everysec().await];
    let lags = [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(500)];
    for (wait_replicas, lag) in [(0, lags[0]), (0, lags[1]), (0, lags[2]), (1, lags[1])] {
        losses.push(failover(wait_replicas, lag).await);
    }
    losses
}

async fn everysec() -> Loss {
    let mut loss =
        Loss::new("`appendfsync everysec`, redis-server killed with -9 and started again".to_owned());
    let mut redis = RedisServer::with(RedisOptions::default().append_only(AppendFsync::Everysec)).await;
    let logs = fast_directory();
    let store = Store { url: redis.url(), wait_replicas: 0 };
    let coordinator = Coordinator::start(store, logs.path().join("log")).await;
    for time in 0..TIMES {
        let producer = Producer::start(&coordinator.client(), format!("everysec-{time}"));
        producer.until_enough().await;
        redis.kill();
        let acknowledged = producer.stop().await;
        redis.restart().await;
        until_it_works(&coordinator.client(), time).await;
        loss.count(&coordinator.client(), &acknowledged).await;
    }
    loss
}

/// The master is killed while its replica lags behind by so much.
async fn failover(wait_replicas: u32, lag: Duration) -> Loss {
    let words = match lag.as_millis() {
        0 => "the replica right behind".to_owned(),
        ms => format!("the replica {ms} ms behind"),
    };
    let mut loss = Loss::new(format!("failover, `wait_replicas = {wait_replicas}`, {words}"));
    for time in 0..TIMES {
        let mut pair = RedisSentinel::with(RedisOptions::default().append_only(AppendFsync::Always)).await;
        let logs = fast_directory();
        let store = Store { url: pair.url(), wait_replicas };
        let coordinator = Coordinator::start(store, logs.path().join("log")).await;
        let link = Proxy::to_port(pair.servers()[0].port()).await;
        if !lag.is_zero() {
            let replica = &pair.servers()[1];
            replica.command(&["REPLICAOF", "127.0.0.1", &link.port().to_string()]).await;
            eventually("the replica follows through the proxy", PATIENCE, async || {
                let said = replica.try_command(&["INFO", "replication"]).await.ok()?;
                said.contains("master_link_status:up").then_some(())
            })
            .await;
            link.set(Fault::Latency(lag));
        }
        let producer = Producer::start(&coordinator.client(), format!("failover-{time}"));
        producer.until_enough().await;
        link.reset_all();
        pair.server(0).kill();
        let acknowledged = producer.stop().await;
        pair.until_failed_over(0).await;
        pair.restart_as_replica(0).await;
        until_it_works(&coordinator.client(), time).await;
        loss.count(&coordinator.client(), &acknowledged).await;
    }
    loss
}

/// Enqueues as fast as it is acknowledged.
struct Producer {
    acknowledged: tokio::sync::watch::Receiver<Vec<TaskId>>,
    stop: CancellationToken,
    work: tokio::task::JoinHandle<()>,
}

impl Producer {
    fn start(client: &Client, prefix: String) -> Self {
        let (sender, acknowledged) = tokio::sync::watch::channel(Vec::new());
        let (stop, client) = (CancellationToken::new(), client.clone());
        let stopped = stop.clone();
        let work = tokio::spawn(async move {
            for batch in 0.. {
                let id = |n| TaskId::new(format!("{prefix}-{batch}-{n}")).expect("an id");
                let ids: Vec<TaskId> = (0..BATCH).map(id).collect();
                let task = |id: &TaskId| NewTask { id: Some(id.clone()), ..NewTask::default() };
                let request = EnqueueRequest { tasks: ids.iter().map(task).collect() };
                let asked = stopped.run_until_cancelled(client.enqueue(&request)).await;
                match asked {
                    Some(Ok(_)) => sender.send_modify(|all| all.extend(ids)),
                    // The blow has fallen.
                    Some(Err(_)) | None => return,
                }
            }
        });
        Self { acknowledged, stop, work }
    }

    async fn until_enough(&self) {
        let mut acknowledged = self.acknowledged.clone();
        let enough = acknowledged.wait_for(|all| all.len() >= TASKS);
        tokio::time::timeout(PATIENCE, enough).await.expect("enough in time").expect("it goes on");
    }

    async fn stop(self) -> Vec<TaskId> {
        self.stop.cancel();
        self.work.await.expect("it does not panic");
        self.acknowledged.borrow().clone()
    }
}
