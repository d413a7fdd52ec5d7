//! The same five transitions, driven straight at the store in this process: no HTTP, no JSON, no dispatcher.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use redrive_coordinator::store::redis::address::Address;
use redrive_coordinator::store::redis::link::LinkOptions;
use redrive_coordinator::store::redis::{RedisConfig, RedisStore};
use redrive_coordinator::store::{Claim, Ending, Enqueue, Enqueued, Settle, Settled, Store};
use redrive_shared::classify::classify;
use redrive_shared::clock::{Clock, SystemClock};
use redrive_shared::gate::Standing;
use redrive_shared::id::{Name, TaskId};
use redrive_shared::lifecycle::Fence;
use redrive_shared::task::{FailureRecord, Lease};
use redrive_shared::wire::NewTask;
use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::bench::Options;
use crate::bench::cycles::{Cycles, calls, tasks};
use crate::bench::fleet::{at_once, failure, finish, payload};

/// A store in a namespace of its own, and one queue on it.
#[derive(Clone)]
pub(super) struct Straight {
    store: Arc<RedisStore>,
    queue: Name,
    body: Arc<RawValue>,
    failure: FailureRecord,
}

impl Straight {
    pub async fn open(address: &Address, prefix: &str, payload_bytes: usize) -> anyhow::Result<Self> {
        let link = LinkOptions::default();
        let config = RedisConfig {
            address: address.clone(),
            prefix: prefix.to_owned(),
            shards: None,
            link,
            memory_limit_percent: 100,
        };
        let store = Arc::new(RedisStore::open(&config, None).await?);
        let queue = Name::new("bench-cycles")?;
        store.put_queue(&queue, at_once()).await?;
        let signal = failure();
        let judged = classify(&signal, None, SystemClock.now_ms());
        let failure = FailureRecord {
            class: judged.class,
            retryable: judged.retryable,
            retry_after_ms: judged.retry_after_ms,
            message: format!("HTTP 500: {}", signal.body.unwrap_or_default()),
            fingerprint: judged.fingerprint,
        };
        Ok(Self { store, queue, body: payload(payload_bytes)?.into(), failure })
    }

    /// Enqueues new tasks; `failed`: each comes with the failure of a first attempt.
    pub async fn enqueue(&self, count: usize, delay_ms: u64, failed: bool) -> anyhow::Result<()> {
        let batch = (0..count).map(|_| Enqueue {
            id: TaskId::generate(),
            queue: self.queue.clone(),
            task_type: self.queue.clone(),
            payload: RawValue::to_owned(&self.body).into(),
            failure: failed.then(|| self.failure.clone()),
            spec: NewTask { delay_ms: Some(delay_ms), ..NewTask::default() },
            standing: Standing::default(),
            only_compared: false,
        });
        let outcomes = self.store.enqueue(batch.collect()).await?;
        if let Some(refused) = outcomes.iter().find(|outcome| !matches!(outcome, Enqueued::Created { .. })) {
            bail!("a task was not taken: {refused:?}");
        }
        Ok(())
    }

    /// What is due; and if that is less than asked for, when more will be.
    pub async fn claim(&self, caller: usize, max: usize) -> anyhow::Result<(Vec<Lease>, Option<i64>)> {
        let claim = Claim {
            agent: Name::new(format!("bench-{caller}"))?,
            boot_id: None,
            request_id: None,
            queues: vec![self.queue.clone()],
            max,
            lease_ms: None,
            avoid: Vec::new(),
        };
        let mut claimed = self.store.claim(vec![claim], &[]).await?;
        let claimed = claimed.pop().context("a claim was not answered")?;
        Ok((claimed.leases, claimed.next_due_ms))
    }

    /// Settles leases: all succeed, and return their payload.
    pub async fn finish(&self, leases: Vec<Lease>) -> anyhow::Result<()> {
        self.settle_as(leases, |lease| Ending::Done(Some(lease.payload.clone().into()))).await
    }

    /// Settles leases: a first attempt fails, a later one succeeds. Returns how many succeeded.
    async fn settle(&self, leases: Vec<Lease>) -> anyhow::Result<usize> {
        let mut done = 0;
        let ending = |lease: &Lease| {
            if lease.attempt == 1 {
                return Ending::Failed(self.failure.clone());
            }
            done += 1;
            Ending::Done(None)
        };
        self.settle_as(leases, ending).await?;
        Ok(done)
    }

    async fn settle_as(
        &self,
        leases: Vec<Lease>,
        mut ending: impl FnMut(&Lease) -> Ending,
    ) -> anyhow::Result<()> {
        let batch = leases.into_iter().map(|lease| {
            let ending = ending(&lease);
            Settle::new(lease.id, Fence { epoch: lease.epoch, nonce: lease.nonce }, ending)
        });
        let outcomes = self.store.settle(batch.collect()).await?;
        let refused = outcomes.iter().find(|outcome| !matches!(outcome, Settled::Applied { .. }));
        ensure!(refused.is_none(), "a settlement was refused: {refused:?}");
        Ok(())
    }
}

/// Full cycles, with producers and workers as over the API.
pub(super) async fn measure(straight: &Straight, options: &Options) -> anyhow::Result<Cycles> {
    let (calls, tasks, size) = (calls(options), tasks(options), options.batch);
    let (next_call, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let changed = Arc::new(Notify::new());
    let started = Instant::now();
    let mut callers: JoinSet<anyhow::Result<()>> = JoinSet::new();
    for caller in 0..options.callers {
        callers.spawn({
            let (straight, next_call, changed) =
                (straight.clone(), Arc::clone(&next_call), Arc::clone(&changed));
            async move {
                while next_call.fetch_add(1, Ordering::Relaxed) < calls {
                    straight.enqueue(size, 0, false).await.context("enqueueing")?;
                    changed.notify_waiters();
                }
                Ok(())
            }
        });
        let (straight, done, changed) = (straight.clone(), Arc::clone(&done), Arc::clone(&changed));
        callers.spawn(async move {
            loop {
                // Before the claim, so that nothing is missed between its answer and the wait.
                let change = changed.notified();
                if done.load(Ordering::Relaxed) >= tasks {
                    return Ok(());
                }
                let (leases, next_due_ms) = straight.claim(caller, size).await.context("claiming")?;
                if leases.is_empty() {
                    tokio::select! {
                        () = change => {}
                        () = until(next_due_ms) => {}
                    }
                } else {
                    let ended = straight.settle(leases).await.context("settling")?;
                    done.fetch_add(ended, Ordering::Relaxed);
                    changed.notify_waiters();
                }
            }
        });
    }
    finish(callers, tasks)
        .await
        .with_context(|| format!("{} of {tasks} were done", done.load(Ordering::Relaxed)))?;
    Ok(Cycles { tasks, elapsed: started.elapsed() })
}

async fn until(due_ms: Option<i64>) {
    match due_ms {
        // At least the timer's resolution: the store's clock may be behind this one.
        Some(due_ms) => {
            let wait_ms = u64::try_from(due_ms - SystemClock.now_ms()).unwrap_or(0).max(1);
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        }
        None => std::future::pending().await,
    }
}
