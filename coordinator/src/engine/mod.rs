//! The engine: what the API's verbs mean. It checks, judges failures, asks the store, and tells those who wait.
//!
//! It holds nothing that another coordinator would need: the truth is in the store, and what is here are waiting callers.

mod actions;
mod amplification;
mod blobs;
mod breakers;
mod check;
mod checkpoints;
mod enqueue;
mod gates;
mod judge;
mod locks;
mod presence;
mod push;
mod queues;
mod references;
mod told;
mod work;

use std::sync::Arc;

use redrive_shared::clock::Clock;
use redrive_shared::error::{ErrorCode, Problem, suggest};
use redrive_shared::gate::Standing;
use redrive_shared::id::Name;
use redrive_shared::limits::{AGENT_LABELS_MAX, DEPENDENCY_LABELS_MAX, QUEUE_LABELS_MAX};
use redrive_shared::lock::WaitId;
use redrive_shared::task::TaskState;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::amplification::Amplification;
pub(crate) use self::check::is_traceparent;
use self::presence::Presence;
pub use self::presence::Present;
pub(crate) use self::told::Calls;
use crate::alarm::Alarm;
use crate::blobs::Depot;
use crate::dispatch::Dispatcher;
use crate::gates::Keeper;
use crate::locks::Desk;
use crate::metrics::BoundedLabels;
use crate::store::{Reaped, Store, StoreError};
use crate::watch::Watchers;

/// What verbs answer with.
pub type Result<T> = std::result::Result<T, Problem>;

/// The engine of one coordinator.
pub struct Engine {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    dispatcher: Dispatcher,
    /// Rings when a lease may have ended.
    pub(crate) reaper: Arc<Alarm>,
    watchers: Arc<Watchers>,
    presence: Presence,
    gates: Arc<Keeper>,
    locks: Arc<Desk>,
    labels: Arc<BoundedLabels>,
    agent_labels: BoundedLabels,
    amplification: Amplification,
    queue_labels: BoundedLabels,
    depot: Option<Arc<Depot>>,
    create_queues: bool,
    /// Told when leases have ended: who pushes may have room again.
    freed: Notify,
    /// Told of the heartbeats of workers that are pushed to.
    taker_heard: Notify,
    /// Cancelled when the coordinator stops: who waits is answered, and broken connections mean nothing.
    stopping: CancellationToken,
}

impl Engine {
    /// An engine over a store. `create_queues`: make queues that are named and do not exist. `gates`: what the
    /// gates say bounds claims. `depot`: what is too large for the store is kept there.
    pub fn new(
        store: Arc<dyn Store>,
        depot: Option<Arc<Depot>>,
        clock: Arc<dyn Clock>,
        create_queues: bool,
        gates: bool,
        stopping: CancellationToken,
    ) -> Arc<Self> {
        let watchers = Arc::<Watchers>::default();
        let reaper = Arc::<Alarm>::default();
        let labels = Arc::new(BoundedLabels::new(DEPENDENCY_LABELS_MAX));
        let gates = Arc::new(Keeper::new(Arc::clone(&store), Arc::clone(&clock), Arc::clone(&labels), gates));
        let dispatcher = Dispatcher::new(
            Arc::clone(&store),
            Arc::clone(&clock),
            Arc::clone(&watchers),
            Arc::clone(&reaper),
            Arc::clone(&gates),
        );
        let locks = Desk::new(Arc::clone(&store), Arc::clone(&clock));
        Arc::new(Self {
            store,
            clock,
            dispatcher,
            reaper,
            watchers,
            presence: Presence::default(),
            gates,
            locks,
            labels,
            agent_labels: BoundedLabels::new(AGENT_LABELS_MAX),
            amplification: Amplification::default(),
            queue_labels: BoundedLabels::new(QUEUE_LABELS_MAX),
            depot,
            create_queues,
            freed: Notify::new(),
            taker_heard: Notify::new(),
            stopping,
        })
    }

    /// The dispatcher, to run it and to look at it.
    pub fn dispatcher(&self) -> &Dispatcher {
        &self.dispatcher
    }

    /// Learns the gates that there are, before anything is handed out.
    pub(crate) async fn learn_gates(&self) {
        self.gates.prepare().await;
    }

    /// Keeps the gates until shutdown.
    pub async fn keep_gates(&self, shutdown: CancellationToken) {
        self.gates.run(&self.dispatcher, shutdown).await;
    }

    /// Keeps those that wait for locks until shutdown.
    pub(crate) async fn keep_locks(&self, shutdown: CancellationToken) {
        self.locks.run(shutdown).await;
    }

    /// Another coordinator granted places in line for locks.
    pub(crate) fn locks_offered(&self, ids: &[WaitId]) {
        self.locks.offered(ids);
    }

    /// Offers of locks may have been missed.
    pub(crate) fn look_at_locks(&self) {
        self.locks.look_again();
    }

    /// Another coordinator changed gates.
    pub(crate) fn look_at_gates(&self) {
        self.gates.look();
    }

    /// The store, for duties.
    pub(crate) fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Where blobs are kept, if anywhere.
    pub(crate) fn depot(&self) -> Option<&Depot> {
        self.depot.as_deref()
    }

    /// The clock, for duties.
    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Which dependencies let nothing through now: failures are judged by it.
    fn standing(&self) -> Standing {
        self.gates.standing()
    }

    /// A task came into a state: workers may have something to do, and producers may have their answer.
    pub(crate) fn moved(&self, id: &str, queue: &Name, state: TaskState, due_ms: i64) {
        if state == TaskState::Scheduled {
            self.dispatcher.announce(queue, due_ms);
        }
        if state.is_settled() {
            self.watchers.settled(id);
        }
        self.freed.notify_waiters();
    }

    /// Tells everyone what a batch changed.
    fn tell(&self, told: &told::Told) {
        // Whoever is woken may look.
        told.record(&self.labels, &self.amplification, self.clock.now_ms());
        for (queue, due_ms) in &told.due {
            self.dispatcher.announce(queue, *due_ms);
        }
        for id in &told.answered {
            self.watchers.settled(id);
        }
        self.freed.notify_waiters();
    }

    /// A worker vanished in the middle of a task.
    pub(crate) fn lost(&self, task: &Reaped) {
        if let Some(agent) = &task.agent {
            crate::metrics::record_lost(self.agent_labels.label(agent));
        }
        let calls = Calls { attempts: 1, tasks: u32::from(!task.retried), ..Calls::default() };
        self.amplification.count(&task.queue, calls, self.clock.now_ms());
        crate::metrics::record_calls(&self.labels, task.dependency.as_deref(), calls);
    }

    /// A task has its answer.
    pub(crate) fn answered(&self, id: &str) {
        self.watchers.settled(id);
    }

    /// Fails with `unknown_queue`, and the name that may have been meant, unless every queue is there or may be made.
    async fn require_queues<'a>(&self, names: impl Iterator<Item = &'a Name>) -> Result<()> {
        for name in names {
            if self.store.has_queue(name) {
                continue;
            }
            // Another coordinator may have made it just now.
            self.store.learn_queues().await.map_err(unavailable)?;
            if self.store.has_queue(name) {
                continue;
            }
            if !self.create_queues {
                return Err(self.unknown_queue(name));
            }
            self.make_queue(name).await?;
        }
        Ok(())
    }

    fn unknown_queue(&self, name: &Name) -> Problem {
        let known = self.store.queue_names();
        let hint = suggest(name, known.iter().map(|known| known.as_str()))
            .map_or_else(String::new, |near| format!("did you mean `{near}`? "));
        Problem::new(
            ErrorCode::UnknownQueue,
            format!(
                "there is no queue `{name}`; {hint}make it with PUT /v1/queues/{name} or `redrive queues create {name}`"
            ),
        )
    }
}

/// A store that failed, as the API says it.
fn unavailable(error: StoreError) -> Problem {
    if matches!(error, StoreError::NearlyFull(_)) {
        // A refusal, not a failure: what the store is for goes on.
        metrics::counter!("redrive_enqueues_refused_total").increment(1);
        return error.into();
    }
    tracing::warn!(%error, "the store failed");
    metrics::counter!("redrive_store_errors_total").increment(1);
    error.into()
}
