//! The runtime against a link that fails on demand. Time is paused: what takes 30 s takes none.

mod blobs;
mod commands;
mod fake;
mod settling;
mod stopping;
mod working;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use redrive_shared::clock::ManualClock;
use redrive_shared::cost::Cost;
use redrive_shared::failure::{FailureClass, FailureSignal};
use redrive_shared::id::TaskId;
use redrive_shared::limits::RESULT_MAX_BYTES;
use redrive_shared::lock::Resource;
use redrive_shared::task::{Lease, Ledger, Nonce, Priority};
use redrive_shared::wire::{Outcome, SettleRequest, Settlement};
use serde_json::value::RawValue;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;
use crate::context::{TaskContext, Wanted};
use fake::{Event, FakeLink};

/// What the larger results cost.
const PAID: Cost = Cost::from_micros(250_000);

/// Does what the task's payload says.
#[derive(Default)]
struct Obedient {
    gate: Notify,
    /// When a deaf handler's future was dropped.
    dropped: Arc<Mutex<Option<Instant>>>,
    /// See [`Handler::ends_its_work`].
    ends_its_work: AtomicBool,
}

#[async_trait]
impl Handler for Obedient {
    async fn run(&self, task: &Lease, ctx: &TaskContext) -> Outcome {
        let failed = |class| Outcome::retry(FailureSignal { class: Some(class), ..Default::default() });
        match task.payload.get().trim_matches('"') {
            "done" => Outcome::done(None),
            "large" => Outcome::done(RawValue::from_string(format!("\"{}\"", "x".repeat(250_000))).ok()),
            "larger" => {
                let result = RawValue::from_string(format!("\"{}\"", "x".repeat(RESULT_MAX_BYTES)));
                Outcome::done(result.ok()).costing(PAID)
            }
            "larger, late" => {
                ctx.cancelled().await;
                let result = RawValue::from_string(format!("\"{}\"", "x".repeat(RESULT_MAX_BYTES)));
                Outcome::done(result.ok()).costing(PAID)
            }
            "deep" => {
                let (open, close) = ("[".repeat(RESULT_MAX_BYTES), "]".repeat(RESULT_MAX_BYTES));
                Outcome::done(RawValue::from_string(format!("{open}{close}")).ok())
            }
            "lock" => {
                let held = ctx.lock(report()).await.unwrap();
                ctx.cancelled().await;
                drop(held);
                Outcome::release()
            }
            "lock and go" => {
                ctx.lock(report()).await.unwrap();
                Outcome::done(None)
            }
            "lock and go on" => {
                ctx.lock(report()).await.unwrap();
                std::future::pending().await
            }
            "fail" => failed(FailureClass::ServerError),
            "panic" => panic!("on demand"),
            "wait" => {
                ctx.cancelled().await;
                failed(FailureClass::Unknown)
            }
            "gate" => {
                self.gate.notified().await;
                Outcome::done(None)
            }
            "deaf" => {
                let _record = RecordDrop(Arc::clone(&self.dropped));
                std::future::pending().await
            }
            other => panic!("no such payload: {other}"),
        }
    }

    fn ends_its_work(&self) -> bool {
        self.ends_its_work.load(Ordering::Relaxed)
    }
}

fn report() -> Wanted {
    Wanted { exclusive: vec![Resource::new("report.md").unwrap()], ..Wanted::default() }
}

struct RecordDrop(Arc<Mutex<Option<Instant>>>);

impl Drop for RecordDrop {
    fn drop(&mut self) {
        *self.0.lock().unwrap() = Some(Instant::now());
    }
}

pub(crate) fn lease(id: &str, payload: &str) -> Lease {
    Lease {
        id: TaskId::new(id).unwrap(),
        epoch: 1,
        nonce: Nonce(1),
        lease_until_ms: 30_000,
        lease_ms: 30_000,
        due_at_ms: 0,
        queue: Name::new("default").unwrap(),
        task_type: Name::new("default").unwrap(),
        type_version: None,
        payload: RawValue::from_string(format!("\"{payload}\"")).unwrap(),
        payload_ref: None,
        checkpoint: None,
        dependency: None,
        group: None,
        priority: Priority::Normal,
        route: 0,
        attempt: 1,
        run: 1,
        max_attempts: 5,
        timeout_ms: 600_000,
        deadline_at_ms: i64::MAX,
        ledger: Ledger::default(),
        last_failure: None,
        traceparent: None,
        tokens: None,
        labels: BTreeMap::new(),
    }
}

struct Bench {
    link: Arc<FakeLink>,
    handler: Arc<Obedient>,
    clock: Arc<ManualClock>,
    shutdown: CancellationToken,
    events: mpsc::UnboundedReceiver<Event>,
    worker: JoinHandle<Result<Summary, WorkerError>>,
}

impl Bench {
    fn start() -> Self {
        Self::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut WorkerConfig)) -> Self {
        let mut config = WorkerConfig { agent: Name::new("me").unwrap(), ..WorkerConfig::default() };
        change(&mut config);
        let (link, events) = FakeLink::new();
        let (handler, clock) = (Arc::new(Obedient::default()), Arc::new(ManualClock::new(1_000)));
        let shutdown = CancellationToken::new();
        let worker = tokio::spawn(run_with(
            config,
            Arc::clone(&handler) as Arc<dyn Handler>,
            Arc::clone(&link) as Arc<dyn Link>,
            Arc::clone(&clock) as Arc<dyn Clock>,
            shutdown.clone(),
        ));
        Self { link, handler, clock, shutdown, events, worker }
    }

    /// The next event that the filter knows.
    async fn next<T>(&mut self, mut filter: impl FnMut(Event) -> Option<T>) -> T {
        let search = async {
            loop {
                if let Some(found) = filter(self.events.recv().await.expect("the link lives")) {
                    return found;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(600), search).await.expect("it happens within ten minutes")
    }

    /// The next call that settles something.
    async fn settle_call(&mut self) -> SettleRequest {
        self.next(|event| if let Event::Settle(request) = event { Some(request) } else { None }).await
    }

    async fn settlement(&mut self) -> Settlement {
        let mut settlements = self.settle_call().await.settlements;
        assert_eq!(settlements.len(), 1);
        settlements.remove(0)
    }

    /// When the deaf handler that it was given ended.
    async fn deaf_ended(&mut self) -> Instant {
        for _ in 0..6_000 {
            if let Some(at) = *self.handler.dropped.lock().unwrap() {
                return at;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("it ends within ten minutes");
    }

    async fn claim_call(&mut self) -> redrive_shared::wire::ClaimRequest {
        self.next(|event| if let Event::Claim(request) = event { Some(request) } else { None }).await
    }

    async fn start_call(&mut self) -> redrive_shared::wire::ExtendRequest {
        self.next(|event| if let Event::Start(request) = event { Some(request) } else { None }).await
    }

    async fn heartbeat(&mut self) -> redrive_shared::wire::Heartbeat {
        self.next(|event| if let Event::Heartbeat(beat) = event { Some(beat) } else { None }).await
    }

    /// Stops the worker and returns what it has done, with the events that nobody asked for.
    async fn stop(mut self) -> (Summary, Vec<Event>) {
        self.shutdown.cancel();
        let summary = self.worker.await.expect("no panic").expect("no error");
        let mut events = Vec::new();
        while let Ok(event) = self.events.try_recv() {
            events.push(event);
        }
        (summary, events)
    }
}

fn label(settlement: &Settlement) -> &'static str {
    telemetry::outcome_label(&settlement.outcome)
}
