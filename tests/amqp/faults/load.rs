//! Tasks that come in and are done while something breaks, and what can be said of them afterwards.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use redrive_shared::clock::{Clock, SystemClock};
use redrive_shared::id::TaskId;
use redrive_shared::task::{AttemptEnd, AttemptRecord, Lease};
use redrive_shared::wire::{EnqueueRequest, NewTask};
use redrive_worker::client::Client;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{PATIENCE, task};
use crate::amqp::settlement;
use crate::support::name;
use crate::support::sink::{Sink, all_succeed};

const BATCH: usize = 10;
/// Tasks of a queue that are not done yet: some times what may be out at once.
const AHEAD: i64 = 100;
/// Messages that a consumer of another make works on at once.
const HANDS: u16 = 10;
/// How long such a consumer works.
const WORK: Duration = Duration::from_millis(5);
/// Between two looks at what is left to do.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Between two tries to connect.
const AGAIN: Duration = Duration::from_millis(100);
/// For one connection attempt, or one confirmation. Who waits longer begins anew.
const ANSWER: Duration = Duration::from_secs(5);

/// What was acknowledged.
#[derive(Default)]
struct Known {
    ids: Vec<TaskId>,
    by_queue: BTreeMap<&'static str, i64>,
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Producers, and what was acknowledged to them.
pub struct Load {
    known: Arc<Mutex<Known>>,
    stop: CancellationToken,
    producers: JoinSet<()>,
}

impl Load {
    pub fn new() -> Self {
        Self { known: Arc::default(), stop: CancellationToken::new(), producers: JoinSet::new() }
    }

    /// One more producer, which speaks HTTP.
    pub fn over_http(mut self, client: &Client, queue: &'static str, prefix: &'static str) -> Self {
        let producer = self.producer(client, queue, prefix);
        self.producers.spawn(producer.over_http());
        self
    }

    /// One more producer, which publishes at any of these. `client` says how much there is still to do.
    pub fn over_amqp(mut self, urls: &[String], client: &Client, queue: &'static str) -> Self {
        let producer = self.producer(client, queue, "published");
        self.producers.spawn(producer.over_amqp(urls.to_vec()));
        self
    }

    fn producer(&self, client: &Client, queue: &'static str, prefix: &'static str) -> Producer {
        let (known, stop) = (Arc::clone(&self.known), self.stop.clone());
        Producer { client: client.clone(), queue, prefix, number: 0, known, stop }
    }

    /// No more comes in. What was acknowledged.
    pub async fn stop(mut self) -> Vec<TaskId> {
        self.stop.cancel();
        while let Some(ended) = timeout(PATIENCE, self.producers.join_next()).await.expect("they end") {
            ended.expect("they do not panic");
        }
        std::mem::take(&mut lock(&self.known).ids)
    }
}

/// Makes batches, one after the other; one that was not acknowledged is said again, with its ids.
struct Producer {
    client: Client,
    queue: &'static str,
    prefix: &'static str,
    number: usize,
    known: Arc<Mutex<Known>>,
    stop: CancellationToken,
}

impl Producer {
    async fn over_http(mut self) {
        let before = self.succeeded().await.unwrap_or(0);
        while self.until_few(before).await {
            let request = EnqueueRequest { tasks: self.batch() };
            match self.client.enqueue(&request).await {
                Ok(_) => self.acknowledged(),
                Err(_) => sleep(AGAIN).await,
            }
        }
    }

    async fn over_amqp(mut self, urls: Vec<String>) {
        let before = self.succeeded().await.unwrap_or(0);
        for turn in 0.. {
            let session = self.publish(&urls[turn % urls.len()], before);
            if session.await.is_ok() || self.stop.is_cancelled() {
                return;
            }
            sleep(AGAIN).await;
        }
    }

    /// One batch a message, on one connection.
    async fn publish(&mut self, url: &str, before: i64) -> Result<(), String> {
        let (_connection, channel) = connect(url).await?;
        while self.until_few(before).await {
            let body = json!({ "tasks": self.batch() });
            surely(&channel, "redrive.enqueue", "", &format!("{}-{}", self.prefix, self.number), body)
                .await?;
            self.acknowledged();
        }
        Ok(())
    }

    fn batch(&self) -> Vec<NewTask> {
        let id = |n: usize| format!("{}-{}-{n}", self.prefix, self.number);
        (0..BATCH).map(|n| task(&id(n), self.queue, "ok@5")).collect()
    }

    fn acknowledged(&mut self) {
        let ids = self.batch().into_iter().filter_map(|task| task.id);
        let mut known = lock(&self.known);
        known.ids.extend(ids);
        *known.by_queue.entry(self.queue).or_default() += BATCH as i64;
        self.number += 1;
    }

    async fn succeeded(&self) -> Option<i64> {
        Some(self.client.queue(&name(self.queue)).await.ok()?.counts.succeeded)
    }

    /// Waits until there is little left to do; false if nothing more is to come.
    async fn until_few(&self, before: i64) -> bool {
        let waiting = async {
            while !self.stop.is_cancelled() {
                let given = lock(&self.known).by_queue.get(self.queue).copied().unwrap_or(0);
                if self.succeeded().await.is_some_and(|succeeded| given + before - succeeded < AHEAD) {
                    return;
                }
                sleep(LOOK_EVERY).await;
            }
        };
        timeout(PATIENCE, waiting).await.expect("what came in is done");
        !self.stop.is_cancelled()
    }
}

async fn connect(url: &str) -> Result<(Connection, Channel), String> {
    let connecting = async {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok::<_, lapin::Error>((connection, channel))
    };
    let connected = timeout(ANSWER, connecting).await.map_err(|_| "no answer".to_owned())?;
    connected.map_err(|error| error.to_string())
}

/// Publishes something that a queue must take, and waits until it says so.
async fn surely(channel: &Channel, exchange: &str, key: &str, id: &str, body: Value) -> Result<(), String> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let properties = BasicProperties::default().with_delivery_mode(2).with_message_id(id.into());
    let body = body.to_string();
    let confirming = async {
        channel.basic_publish(exchange.into(), key.into(), options, body.as_bytes(), properties).await?.await
    };
    match timeout(ANSWER, confirming).await {
        Ok(Ok(Confirmation::Ack(None))) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// One time that a consumer worked on a task.
#[derive(Debug, Clone)]
pub struct Run {
    pub id: TaskId,
    pub epoch: i64,
    /// Which lease of the task it was.
    number: u32,
    from_ms: i64,
    /// When it had said how it went, or its lease was over.
    until_ms: i64,
}

/// A consumer that knows what docs/rabbitmq.md says and nothing more, and connects again whatever happens.
pub struct Hands {
    runs: Arc<Mutex<Vec<Run>>>,
    _stop: DropGuard,
}

impl Hands {
    /// One that does what it is given.
    pub fn start(urls: Vec<String>, queue: &'static str) -> Self {
        Self::saying(urls, queue, |lease| vec![settlement(lease, json!({ "done": {} }))])
    }

    /// One that says this about each task.
    pub fn saying(urls: Vec<String>, queue: &'static str, says: fn(&Lease) -> Vec<Value>) -> Self {
        let (runs, stop) = (Arc::<Mutex<Vec<Run>>>::default(), CancellationToken::new());
        let done = Arc::clone(&runs);
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            for turn in 0.. {
                // However it ends, the next begins anew: what was not acknowledged comes again.
                let _ended = consume(&urls[turn % urls.len()], queue, says, &done).await;
                sleep(AGAIN).await;
            }
        }));
        Self { runs, _stop: stop.drop_guard() }
    }

    pub fn runs(&self) -> Vec<Run> {
        lock(&self.runs).clone()
    }
}

async fn consume(
    url: &str,
    queue: &str,
    says: fn(&Lease) -> Vec<Value>,
    runs: &Mutex<Vec<Run>>,
) -> Result<(), String> {
    let (_connection, channel) = connect(url).await?;
    let told = |error: lapin::Error| error.to_string();
    channel.basic_qos(HANDS, BasicQosOptions::default()).await.map_err(told)?;
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    let consumer = channel
        .basic_consume(format!("redrive.q.{queue}").into(), "".into(), options, arguments)
        .await
        .map_err(told)?;
    let working = |delivery: Delivery| work(&channel, delivery, says, runs);
    consumer.map_err(told).try_for_each_concurrent(usize::from(HANDS), working).await
}

async fn work(
    channel: &Channel,
    delivery: Delivery,
    says: fn(&Lease) -> Vec<Value>,
    runs: &Mutex<Vec<Run>>,
) -> Result<(), String> {
    let lease: Lease = serde_json::from_slice(&delivery.data).map_err(|error| error.to_string())?;
    let from_ms = SystemClock.now_ms();
    sleep(WORK).await;
    let mut said = Ok(());
    for outcome in says(&lease) {
        said = said.and(surely(channel, "", "redrive.outcomes", lease.id.as_str(), outcome).await);
    }
    let until_ms = SystemClock.now_ms().min(lease.lease_until_ms);
    let Lease { id, epoch, run, .. } = lease;
    lock(runs).push(Run { id, epoch, number: run, from_ms, until_ms });
    said?;
    delivery.ack(BasicAckOptions::default()).await.map(|_| ()).map_err(|error| error.to_string())
}

/// What became of the tasks of a load.
#[derive(Debug)]
pub struct Figures {
    acknowledged: usize,
    pub lost: usize,
    /// Pairs of leases of one task that held at the same time.
    pub overlapping: usize,
    /// Times that a task was worked on beyond the first.
    pub repeats: usize,
    /// Of these, those whose lease had been handed back, since nobody knew whether its message had arrived.
    handed_back: usize,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { acknowledged, lost, overlapping, repeats, handed_back } = self;
        write!(
            f,
            "{acknowledged} acknowledged, {lost} lost, overlapping valid leases {overlapping}, repeats {repeats} \
             ({handed_back} of leases handed back)"
        )
    }
}

impl Figures {
    /// Waits until all of these tasks are done, and compares what the store says of their leases with what those who
    /// worked on them saw.
    pub async fn of(client: &Client, ids: &[TaskId], runs: &[Run], sink: Option<&Sink>) -> Self {
        let lost = all_succeed(client, ids).await.len();
        let mut by_task: BTreeMap<&TaskId, Vec<&Run>> = BTreeMap::new();
        for run in runs {
            by_task.entry(&run.id).or_default().push(run);
        }
        let mut figures = Self {
            acknowledged: ids.iter().collect::<HashSet<_>>().len(),
            lost,
            overlapping: sink.map_or(0, Sink::overlaps),
            repeats: runs.len() - by_task.len() + sink.map_or(0, |sink| sink.repeats() as usize),
            handed_back: 0,
        };
        let looks = ids.iter().map(|id| async move { client.task(id, None).await });
        let mut tasks = futures_util::stream::iter(looks).buffer_unordered(16);
        while let Some(task) = tasks.next().await {
            let Ok(task) = task else { continue };
            let history = &task.history;
            let after = history.windows(2).filter(|two| two[1].started_at_ms < two[0].ended_at_ms);
            figures.overlapping += after.count();
            let ended = |run: &Run| history.iter().find(|one| one.run == run.number);
            let runs = by_task.remove(&task.id).unwrap_or_default();
            // By its holder, or by the coordinator.
            let is_back = |one: &AttemptRecord| {
                one.end == AttemptEnd::Released
                    || one.why.as_deref().is_some_and(|why| why.starts_with("taken back"))
            };
            let back = |run: &Run| ended(run).is_some_and(is_back);
            figures.handed_back += runs.iter().filter(|run| back(run)).count();
            // Who was given a lease goes by what it says, unless it was taken back unseen.
            let held: Vec<&&Run> = runs.iter().filter(|run| !back(run)).collect();
            let later = |one: &Run, other: &Run| other.epoch > one.epoch && other.from_ms < one.until_ms;
            figures.overlapping +=
                held.iter().map(|one| held.iter().filter(|other| later(one, other)).count()).sum::<usize>();
        }
        figures
    }

    /// Nothing is lost, and no two held a task at the same time.
    pub fn check(&self) {
        assert_eq!((self.lost, self.overlapping), (0, 0), "{self}");
        assert!(self.acknowledged > 0);
    }
}
