//! The life of a worker: claim, run, settle, and say that it lives, until it is told to stop.
//!
//! ```text
//!              ┌────────────── claims: as many as there are free slots ──────────────┐
//!  coordinator ┤   start (one call a batch) → executor, one a task → settler (batches) ├ coordinator
//!              └──── heartbeat: extends what is held · presence: one open connection ──┘
//! ```
//!
//! # Invariants
//! - Every lease that was claimed ends in exactly one of: a settlement that was answered, a lease that is known or feared
//!   to be lost, or (the process stops and nobody answers) a settlement that is reported as undelivered.
//! - No handler runs under a lease that may be over by this machine's monotonic clock: it is told to stop before, and its
//!   future is dropped at that instant at the latest. (One that blocks its thread cannot be dropped; one whose lease the
//!   coordinator calls lost has [`CANCEL_GRACE`] to clean up.)
//! - Every ticket of the breakers is given back exactly once.
//! - A coordinator that is away never ends the worker, and never makes it spin.

mod claims;
mod executor;
mod heartbeat;
mod held;
mod normalise;
mod presence;
mod settler;
#[cfg(test)]
pub(crate) mod tests;
mod work;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redrive_shared::breaker;
use redrive_shared::clock::{Clock, SystemClock};
use redrive_shared::id::Name;
use redrive_shared::limits::LEASE_DEFAULT_MS;
use redrive_shared::wire::{BreakerCommand, Outcome, WorkerLost};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::breakers::{BreakerSet, Ticket};
use crate::config::{ConfigError, WorkerConfig};
use crate::context::{CancelReason, Surroundings};
use crate::handler::{CANCEL_GRACE, Handler};
use crate::link::Link;
use crate::telemetry;
use held::Held;
use settler::Item;

/// How long it may take to hand back what was still there at the end of the grace.
const HAND_BACK: Duration = Duration::from_secs(1);
/// How long the last settlements may take after the last handler has ended.
const LAST_SETTLEMENTS: Duration = Duration::from_secs(10);
/// How long the final heartbeat may take.
const LAST_HEARTBEAT: Duration = Duration::from_secs(2);

/// Why a worker ended otherwise than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// It was not even started.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A part of the runtime panicked or ended by itself.
    #[error("a part of the worker ended unexpectedly: {0}; this is a defect in Redrive")]
    Defect(String),
}

/// What a worker has done in its life, in tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Leases that it got.
    pub claimed: u64,
    /// Done.
    pub done: u64,
    /// Failed; the coordinator's policy decided what then.
    pub retried: u64,
    /// Put off by the handler.
    pub snoozed: u64,
    /// Given up by the handler.
    pub dead: u64,
    /// Handed to a person by the handler.
    pub escalated: u64,
    /// Handed back: a breaker was open, or the worker stopped.
    pub released: u64,
    /// Stopped because the lease was lost or the task was called off.
    pub stopped: u64,
    /// Outcomes that the coordinator did not take: the lease was over, or it could not be reached before the end.
    pub unsettled: u64,
}

#[derive(Debug, Default)]
struct Tally {
    claimed: AtomicU64,
    done: AtomicU64,
    retried: AtomicU64,
    snoozed: AtomicU64,
    dead: AtomicU64,
    escalated: AtomicU64,
    released: AtomicU64,
    stopped: AtomicU64,
    unsettled: AtomicU64,
}

impl Tally {
    fn count(&self, outcome: &Outcome) {
        let counter = match outcome {
            Outcome::Done { .. } => &self.done,
            Outcome::Retry { .. } => &self.retried,
            Outcome::Snooze { .. } => &self.snoozed,
            Outcome::Dead { .. } => &self.dead,
            Outcome::Escalate { .. } => &self.escalated,
            Outcome::Release { .. } => &self.released,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn summary(&self) -> Summary {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Summary {
            claimed: read(&self.claimed),
            done: read(&self.done),
            retried: read(&self.retried),
            snoozed: read(&self.snoozed),
            dead: read(&self.dead),
            escalated: read(&self.escalated),
            released: read(&self.released),
            stopped: read(&self.stopped),
            unsettled: read(&self.unsettled),
        }
    }
}

/// What the parts of one worker share.
struct Worker {
    config: WorkerConfig,
    /// What every attempt is given.
    surroundings: Surroundings,
    boot_id: Name,
    handler: Arc<dyn Handler>,
    link: Arc<dyn Link>,
    clock: Arc<dyn Clock>,
    held: Held,
    breakers: Mutex<BreakerSet>,
    /// Told when a breaker has changed its state: the next heartbeat goes out at once.
    breaker_changed: Notify,
    /// Told when the first heartbeat was answered, or was not: what persons want of the agent is known before it asks for work.
    introduced: Notify,
    /// Told when a person, or the end of other runs, has changed one: what is being claimed may not be wanted, and more may be wanted.
    commanded: Notify,
    tally: Tally,
    shutdown: CancellationToken,
    /// Told when the grace after the drain is over: a result that is not kept by then is handed back.
    grace_is_over: CancellationToken,
}

impl Worker {
    /// See [`Held::table`] on poison.
    fn breakers(&self) -> MutexGuard<'_, BreakerSet> {
        self.breakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a ticket back with what is known of the call.
    fn report(&self, ticket: Ticket, outcome: breaker::Outcome) {
        let now_ms = self.clock.now_ms();
        if self.breakers().report(ticket, outcome, now_ms, rand::random::<f64>) {
            self.breaker_changed.notify_one();
        }
        self.publish_transitions();
    }

    /// Carries out what persons want of the breakers; the next heartbeat, at once, tells that it was done.
    fn obey(&self, commands: &[BreakerCommand]) {
        let now_ms = self.clock.now_ms();
        let done: Vec<_> = commands.iter().filter(|command| self.breakers().obey(command, now_ms)).collect();
        if done.is_empty() {
            return;
        }
        for command in done {
            let reason = command.reason.as_deref().unwrap_or_default();
            tracing::warn!(breaker = command.breaker, action = %command.action, reason, "a person commands a breaker");
        }
        self.publish_transitions();
        self.breaker_changed.notify_one();
        self.commanded.notify_one();
    }

    /// Counts what other runs of the agent took with them when they vanished.
    fn count_lost(&self, lost: &[WorkerLost]) {
        if lost.is_empty() || !self.breakers().count_lost(lost, self.clock.now_ms(), rand::random::<f64>) {
            return;
        }
        tracing::warn!("other workers of this agent vanished in the middle of tasks: a breaker opens");
        self.publish_transitions();
        self.breaker_changed.notify_one();
        self.commanded.notify_one();
    }

    fn publish_transitions(&self) {
        let transitions = self.breakers().take_transitions(self.clock.now_ms());
        transitions.iter().for_each(|(key, transition)| telemetry::breaker_changed(key, transition));
    }

    /// Hands the outcome to the settler. It cannot be gone: it ends when the last sender does.
    fn settle(&self, settlements: &mpsc::UnboundedSender<Item>, item: Item) {
        self.tally.count(&item.settlement.outcome);
        let _ = settlements.send(item);
    }
}

/// Runs a worker until `shutdown` is cancelled and its work has ended or was handed back.
///
/// On shutdown it stops claiming at once; running handlers may go on for `drain_ms`; then they are cancelled and their
/// tasks handed back. Every outcome is delivered before it returns, if the coordinator can be reached within 10 s.
///
/// # Errors
/// The configuration is not valid. A coordinator that cannot be reached, or refuses, is no error: it is asked again.
pub async fn run(
    config: WorkerConfig,
    handler: Arc<dyn Handler>,
    link: Arc<dyn Link>,
    shutdown: CancellationToken,
) -> Result<Summary, WorkerError> {
    run_with(config, handler, link, Arc::new(SystemClock), shutdown).await
}

/// [`run`] with a clock.
async fn run_with(
    config: WorkerConfig,
    handler: Arc<dyn Handler>,
    link: Arc<dyn Link>,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
) -> Result<Summary, WorkerError> {
    config.validate()?;
    let worker = Arc::new(Worker {
        surroundings: Surroundings {
            agent: config.agent.clone(),
            api_url: Arc::from(config.url.trim_end_matches('/')),
            link: link.attempts(),
            max_blob_bytes: config.max_blob_bytes,
        },
        boot_id: boot_id(),
        held: Held::new(Duration::from_millis(config.lease_ms.unwrap_or(LEASE_DEFAULT_MS))),
        breakers: Mutex::new(BreakerSet::new(config.breaker.clone()).map_err(ConfigError::from)?),
        breaker_changed: Notify::new(),
        introduced: Notify::new(),
        commanded: Notify::new(),
        tally: Tally::default(),
        config,
        handler,
        link,
        clock,
        shutdown,
        grace_is_over: CancellationToken::new(),
    });
    tracing::info!(agent = %worker.config.agent, boot = %worker.boot_id, url = %worker.surroundings.api_url, "worker starts");
    let summary = Parts::start(&worker).run(&worker).await?;
    tracing::info!(agent = %worker.config.agent, ?summary, "worker stopped");
    Ok(summary)
}

/// The parts that run beside the claims. Dropping them ends them, handlers included.
struct Parts {
    settlements: mpsc::UnboundedSender<Item>,
    settler: JoinSet<()>,
    signals: JoinSet<()>,
    give_up: CancellationToken,
    farewell: CancellationToken,
}

impl Parts {
    fn start(worker: &Arc<Worker>) -> Self {
        let (settlements, inbox) = mpsc::unbounded_channel();
        let (give_up, farewell) = (CancellationToken::new(), CancellationToken::new());
        let mut settler = JoinSet::new();
        settler.spawn(settler::run(Arc::clone(worker), inbox, give_up.clone()));
        let mut signals = JoinSet::new();
        signals.spawn(heartbeat::run(Arc::clone(worker), farewell.clone()));
        signals.spawn(presence::run(Arc::clone(worker), farewell.clone()));
        Self { settlements, settler, signals, give_up, farewell }
    }

    async fn run(mut self, worker: &Arc<Worker>) -> Result<Summary, WorkerError> {
        let mut batches = JoinSet::new();
        tokio::select! {
            () = claims::run(worker, &mut batches, &self.settlements) => {}
            Some(ended) = self.settler.join_next() => return Err(defect("settler", ended)),
            Some(ended) = self.signals.join_next() => return Err(defect("heartbeat", ended)),
        }
        drain(worker, batches).await;
        // The settler ends when it has delivered what is left.
        drop(self.settlements);
        if tokio::time::timeout(LAST_SETTLEMENTS, self.settler.join_next()).await.is_err() {
            self.give_up.cancel();
            self.settler.join_next().await;
        }
        self.farewell.cancel();
        while self.signals.join_next().await.is_some() {}
        Ok(worker.tally.summary())
    }
}

/// Lets running handlers end by themselves for `drain_ms`, then stops them.
async fn drain(worker: &Worker, mut batches: JoinSet<()>) {
    let all_ended = async |batches: &mut JoinSet<()>| while batches.join_next().await.is_some() {};
    let patience = Duration::from_millis(worker.config.drain_ms);
    if tokio::time::timeout(patience, all_ended(&mut batches)).await.is_ok() {
        return;
    }
    tracing::warn!(
        tasks = worker.held.busy(),
        "handlers still run at the end of the drain: they are stopped"
    );
    worker.held.stop_all(CancelReason::Draining);
    if tokio::time::timeout(CANCEL_GRACE, all_ended(&mut batches)).await.is_ok() {
        return;
    }
    worker.grace_is_over.cancel();
    // Only a handler that blocks its thread is still there after the grace; what cannot be stopped is left behind.
    let _ = tokio::time::timeout(HAND_BACK, all_ended(&mut batches)).await;
}

fn defect(part: &str, ended: Result<(), tokio::task::JoinError>) -> WorkerError {
    WorkerError::Defect(match ended {
        Ok(()) => part.to_owned(),
        Err(error) => format!("{part}: {error}"),
    })
}

/// A fresh one for every start: it ties leases to the process that holds them.
fn boot_id() -> Name {
    fresh_name()
}

/// A random UUID as a name.
fn fresh_name() -> Name {
    Name::new(uuid::Uuid::new_v4().to_string()).unwrap_or_else(|_| unreachable!("a UUID is a name"))
}
