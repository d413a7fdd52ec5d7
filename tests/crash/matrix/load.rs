//! Producers, and the ledger of what was acknowledged to them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redrive::upstream::Progress;
use redrive_shared::clock::{Clock, SystemClock};
use redrive_shared::id::TaskId;
use redrive_shared::wire::{EnqueueReply, EnqueueRequest, EnqueueStatus, NewTask, StatusRequest};
use redrive_worker::client::{Client, ClientError};
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

const PRODUCERS: usize = 2;
/// Into how many enqueues what a producer may be ahead is cut.
const BATCHES: usize = 3;
/// In the enqueue that a coordinator does not survive.
const SUDDEN: usize = 50;
/// A producer asks after its tasks when the endpoint has ended one, and after this long: the settlement comes a little later.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Between two tries of a call that failed.
const PAUSE: Duration = Duration::from_millis(20);

/// How a task is meant to go. Scripts have replies to spare, for executions that are cut off.
type Script = &'static str;

const FAILS_ONCE: Script = r#""500@20","ok@50","ok@50","ok@50""#;
const IS_REFUSED: Script = r#""422","422","422","422","422","422""#;
/// Longer than a short lease: it has to be extended.
const IS_SLOW: Script = r#""ok@2500","ok@2500","ok@2500","ok@2500""#;
const SUCCEEDS: Script = r#""ok@100","ok@100","ok@100","ok@100""#;

fn script(number: usize) -> Script {
    match number {
        n if n.is_multiple_of(5) => FAILS_ONCE,
        n if n % 20 == 7 => IS_REFUSED,
        n if n % 10 == 3 => IS_SLOW,
        _ => SUCCEEDS,
    }
}

/// One task that a producer was told it is safe.
#[derive(Clone)]
pub struct Acknowledged {
    pub id: TaskId,
    pub at_ms: i64,
    /// It ends dead, because its script says so.
    pub dies: bool,
}

/// What the producers know.
#[derive(Default)]
pub struct Ledger {
    pub acknowledged: Vec<Acknowledged>,
    /// Answers that no fault explains.
    pub odd: Vec<String>,
}

pub type SharedLedger = Arc<Mutex<Ledger>>;

pub fn lock(ledger: &SharedLedger) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Producers at work.
pub struct Load {
    pub ledger: SharedLedger,
    stop: CancellationToken,
    producers: Vec<AbortOnDropHandle<()>>,
}

impl Load {
    /// So that no more than `ahead` tasks of each producer have not ended.
    pub fn start(client: &Client, progress: &watch::Receiver<Progress>, ahead: usize) -> Self {
        let (ledger, stop) = (SharedLedger::default(), CancellationToken::new());
        let producers = (0..PRODUCERS).map(|number| {
            let producer = Producer {
                client: client.clone(),
                number,
                progress: progress.clone(),
                ahead,
                open: Vec::new(),
                ledger: Arc::clone(&ledger),
            };
            AbortOnDropHandle::new(tokio::spawn(producer.run(stop.clone())))
        });
        Self { producers: producers.collect(), ledger, stop }
    }

    /// Lets every producer finish the batch that it is at.
    pub async fn stop(&mut self) {
        self.stop.cancel();
        for producer in self.producers.drain(..) {
            producer.await.expect("no producer panics");
        }
    }
}

struct Producer {
    client: Client,
    number: usize,
    progress: watch::Receiver<Progress>,
    ahead: usize,
    /// Acknowledged, and not known to have ended.
    open: Vec<TaskId>,
    ledger: SharedLedger,
}

impl Producer {
    async fn run(mut self, stop: CancellationToken) {
        let batch = self.ahead.div_ceil(BATCHES);
        for number in 0.. {
            stop.run_until_cancelled(self.until_room(batch)).await;
            if stop.is_cancelled() {
                return;
            }
            let numbers = number * batch..(number + 1) * batch;
            let of = |n| task(format!("p{}-{n}", self.number), script(n));
            let tasks: Vec<NewTask> = numbers.clone().map(of).collect();
            let ids: Vec<TaskId> = tasks.iter().filter_map(|task| task.id.clone()).collect();
            enqueue(&self.client, tasks, &self.ledger).await;
            let mut ledger = lock(&self.ledger);
            let at_ms = SystemClock.now_ms();
            for (n, id) in numbers.zip(ids) {
                self.open.push(id.clone());
                ledger.acknowledged.push(Acknowledged { id, at_ms, dies: script(n) == IS_REFUSED });
            }
        }
    }

    /// Waits until one more batch is not too much.
    async fn until_room(&mut self, batch: usize) {
        while self.open.len() + batch > self.ahead {
            let request = StatusRequest { ids: self.open.clone() };
            // Those that nobody knows have not ended here: they are the judge's business.
            if let Ok(reply) = self.client.status(&request).await {
                let ended = reply.tasks.iter().filter(|task| task.state.is_settled());
                let ended: HashSet<&TaskId> = ended.map(|task| &task.id).collect();
                self.open.retain(|id| !ended.contains(id));
            }
            if self.open.len() + batch > self.ahead {
                drop(tokio::time::timeout(LOOK_AGAIN, self.progress.changed()).await);
            }
        }
    }
}

fn task(id: String, script: Script) -> NewTask {
    let payload = format!(r#"{{"script": [{}]}}"#, script);
    NewTask { id: TaskId::new(id).ok(), payload: RawValue::from_string(payload).ok(), ..NewTask::default() }
}

/// Tasks whose coordinator is killed as they reach it.
pub fn sudden(fault: usize) -> Vec<NewTask> {
    (0..SUDDEN).map(|n| task(format!("sudden-{fault}-{n}"), SUCCEEDS)).collect()
}

/// Takes note of such tasks.
pub fn acknowledge(tasks: &[NewTask], ledger: &SharedLedger) {
    let mut ledger = lock(ledger);
    let at_ms = SystemClock.now_ms();
    for id in tasks.iter().filter_map(|task| task.id.clone()) {
        ledger.acknowledged.push(Acknowledged { id, at_ms, dies: false });
    }
}

/// Enqueues, again and again with the same ids, until it is acknowledged.
pub async fn enqueue(client: &Client, tasks: Vec<NewTask>, ledger: &SharedLedger) {
    let request = EnqueueRequest { tasks };
    loop {
        match client.enqueue(&request).await {
            Ok(reply) => return lock(ledger).odd.extend(refusals(&reply)),
            Err(error) => note(ledger, &error),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn refusals(reply: &EnqueueReply) -> Vec<String> {
    let refused = reply.results.iter().filter(|result| result.status == EnqueueStatus::Refused);
    refused.map(|result| format!("a task was refused: {result:?}")).collect()
}

/// Every fault must look like something that may be tried again.
pub fn note(ledger: &SharedLedger, error: &ClientError) {
    if !error.is_retryable() && !error.is_outcome_unknown() {
        lock(ledger).odd.push(format!("a call failed for good: {}", error.chain()));
    }
}
