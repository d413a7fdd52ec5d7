//! The leases that this worker holds, and until when each is surely its own.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redrive_shared::id::TaskId;
use redrive_shared::limits::BATCH_MAX_ITEMS;
use redrive_shared::task::Lease;
use redrive_shared::wire::{LeaseRef, LeaseResult};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::context::{CancelReason, Stop};

/// Work stops this long before the lease can end, so that it has ended when somebody else begins: a tenth of the lease,
/// at least 100 ms and at most 2 s.
fn margin(lease: Duration) -> Duration {
    (lease / 10).clamp(Duration::from_millis(100), Duration::from_secs(2))
}

/// Until when a lease is surely ours, by this machine's monotonic clock alone.
///
/// The coordinator's clock cannot be compared with ours, but two of its readings can be compared with each other. The
/// start was sent at `sent` and granted a lease until `until_ms`, at or after that instant; so a lease that now ends
/// `x` later than `until_ms` ends at `sent + lease + x` or later.
#[derive(Debug, Clone, Copy)]
struct Validity {
    ends: Instant,
    /// When work has to stop.
    stop_at: Instant,
    anchor: Instant,
    anchor_until_ms: i64,
}

impl Validity {
    /// Started: the call was sent then, and asked for this length.
    fn started(sent: Instant, lease: Duration, until_ms: i64) -> Self {
        let anchor = sent + lease;
        Self::ending(anchor, sent, anchor, until_ms)
    }

    fn ending(ends: Instant, sent: Instant, anchor: Instant, anchor_until_ms: i64) -> Self {
        let granted = ends.saturating_duration_since(sent);
        let stop_at = ends.checked_sub(margin(granted)).unwrap_or(ends);
        Self { ends, stop_at, anchor, anchor_until_ms }
    }

    /// Extended by a call that was sent then. No extension is taken to be longer than `lease`, and one that seems to end
    /// before it was asked for means that the coordinator's clock was set back: then it is a new beginning.
    fn extended(self, sent: Instant, lease: Duration, until_ms: i64) -> Self {
        let shift_ms = until_ms.saturating_sub(self.anchor_until_ms);
        let shift = Duration::from_millis(shift_ms.unsigned_abs());
        let by_shift =
            if shift_ms >= 0 { self.anchor.checked_add(shift) } else { self.anchor.checked_sub(shift) };
        match by_shift {
            Some(ends) if ends > sent => {
                Self::ending(ends.min(sent + lease), sent, self.anchor, self.anchor_until_ms)
            }
            Some(_) | None => Self::started(sent, lease, until_ms),
        }
    }
}

/// What is being done under a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Claimed; the start has not been answered.
    Taken,
    /// The handler runs.
    Running,
    /// The handler has ended; the coordinator has not confirmed it yet. It needs no slot, but it is extended, so that
    /// the outcome is not lost while the coordinator is away.
    Settling,
}

#[derive(Debug)]
struct HeldLease {
    reference: LeaseRef,
    phase: Phase,
    /// The length that was asked for, or that its queue gives.
    length: Duration,
    validity: Validity,
    stop: Stop,
}

/// Names one held lease within this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(u64);

#[derive(Debug, Default)]
struct Table {
    next: u64,
    leases: BTreeMap<Key, HeldLease>,
}

/// The table of held leases.
#[derive(Debug)]
pub(super) struct Held {
    /// The length of a lease until more is known of it.
    usual: Duration,
    table: Mutex<Table>,
    /// Told whenever a lease has been started: it may be shorter than the others.
    begun: Notify,
    /// Told whenever a slot or a place in the table has become free.
    freed: Notify,
}

impl Held {
    pub(super) fn new(usual: Duration) -> Self {
        Self { usual, table: Mutex::default(), begun: Notify::new(), freed: Notify::new() }
    }

    /// Takes note of a lease that has just been claimed. Until its start is answered nobody knows when it was granted:
    /// it is taken to be new.
    pub(super) fn add(&self, lease: &Lease, received: Instant) -> (Key, Stop) {
        let reference = LeaseRef { id: lease.id.clone(), epoch: lease.epoch, nonce: lease.nonce };
        let validity = Validity::started(received, self.usual, lease.lease_until_ms);
        let stop = Stop::default();
        let mut table = self.table();
        let key = Key(table.next);
        table.next += 1;
        let (length, phase) = (self.usual, Phase::Taken);
        table.leases.insert(key, HeldLease { reference, phase, length, validity, stop: stop.clone() });
        (key, stop)
    }

    /// The start was granted, for this length: the handler may run.
    pub(super) fn started(&self, key: Key, sent: Instant, length: Duration, until_ms: Option<i64>) {
        if let Some(held) = self.table().leases.get_mut(&key) {
            held.phase = Phase::Running;
            let until_ms = until_ms.unwrap_or(held.validity.anchor_until_ms);
            held.length = length;
            held.validity = Validity::started(sent, length, until_ms);
        }
        self.begun.notify_one();
    }

    /// The handler has ended: its slot is free, its settlement is on the way.
    pub(super) fn settling(&self, key: Key) {
        if let Some(held) = self.table().leases.get_mut(&key) {
            held.phase = Phase::Settling;
        }
        self.freed.notify_one();
    }

    /// The lease is over, one way or the other.
    pub(super) fn remove(&self, key: Key) {
        self.table().leases.remove(&key);
        self.freed.notify_one();
    }

    /// When work under the lease must have stopped, unless it is extended before.
    pub(super) fn stop_at(&self, key: Key) -> Option<Instant> {
        let validity = self.table().leases.get(&key)?.validity;
        Some(validity.stop_at)
    }

    /// When the lease is over, unless it is extended before.
    pub(super) fn ends(&self, key: Key) -> Option<Instant> {
        let validity = self.table().leases.get(&key)?.validity;
        Some(validity.ends)
    }

    /// The length of the shortest of the leases to extend; the usual one when there are none.
    pub(super) fn shortest_length(&self) -> Duration {
        let table = self.table();
        let started = table.leases.values().filter(|held| held.phase != Phase::Taken);
        started.map(|held| held.length).min().unwrap_or(self.usual)
    }

    /// How long the shortest of the leases to extend still lasts. One that is over cannot be saved by hurrying.
    pub(super) fn shortest(&self) -> Option<Duration> {
        let table = self.table();
        let started = table.leases.values().filter(|held| held.phase != Phase::Taken);
        let left = started.map(|held| held.validity.ends.saturating_duration_since(Instant::now()));
        left.filter(|left| !left.is_zero()).min()
    }

    /// The leases to extend: those that were started. (To extend one that was not would start it.)
    pub(super) fn to_extend(&self) -> Vec<(Key, LeaseRef)> {
        let table = self.table();
        let started = table.leases.iter().filter(|(_, held)| held.phase != Phase::Taken);
        started.take(BATCH_MAX_ITEMS).map(|(key, held)| (*key, held.reference.clone())).collect()
    }

    /// Takes the coordinator's answers to an extension that was sent then. Handlers whose lease is lost are stopped.
    pub(super) fn extended(&self, sent: Instant, keys: &[Key], results: &[LeaseResult]) {
        let mut table = self.table();
        for (key, result) in keys.iter().zip(results) {
            let Some(held) = table.leases.get_mut(key).filter(|held| held.reference.id == result.id) else {
                continue;
            };
            match (&result.error, result.lease_until_ms) {
                (None, Some(until_ms)) => {
                    held.validity = held.validity.extended(sent, held.length, until_ms);
                }
                (None, None) => {}
                // A settlement may have overtaken the heartbeat; its own answer tells.
                (Some(_), _) if held.phase == Phase::Settling || held.stop.reason().is_some() => {}
                (Some(problem), _) => {
                    tracing::warn!(task = %result.id, %problem, "a lease was lost: its handler is stopped");
                    held.stop.now(CancelReason::LeaseLost);
                }
            }
        }
    }

    /// Stops the handlers of tasks that someone called off, among the leases that were asked about. A task that was called
    /// off and run again may be held twice: the lease that is still good goes on.
    pub(super) fn cancel(&self, keys: &[Key], results: &[LeaseResult], ids: &[TaskId]) {
        let table = self.table();
        let over = keys.iter().zip(results).filter(|(_, result)| result.error.is_some());
        for held in over.filter_map(|(key, _)| table.leases.get(key)) {
            if ids.contains(&held.reference.id) {
                held.stop.now(CancelReason::Cancelled);
            }
        }
    }

    /// Stops every handler.
    pub(super) fn stop_all(&self, reason: CancelReason) {
        self.table().leases.values().for_each(|held| held.stop.now(reason));
    }

    /// Tasks that use a slot.
    pub(super) fn busy(&self) -> usize {
        self.table().leases.values().filter(|held| held.phase != Phase::Settling).count()
    }

    /// How many more may be claimed. Outcomes that cannot be delivered count in the end, too: one heartbeat must be able
    /// to extend all that is held.
    pub(super) fn free(&self, concurrency: usize) -> usize {
        let held = self.table().leases.len();
        concurrency.saturating_sub(self.busy()).min(BATCH_MAX_ITEMS.saturating_sub(held))
    }

    /// Returns when something was freed since the last call.
    pub(super) async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Returns when a lease was started since the last call.
    pub(super) async fn begun(&self) {
        self.begun.notified().await;
    }

    /// A poisoned lock only says that some thread panicked; every change here is complete or not begun.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use redrive_shared::error::{ErrorCode, Problem};

    use super::*;

    const LEASE: Duration = Duration::from_secs(30);

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn an_extension_counts_from_when_it_was_sent_and_by_the_coordinators_own_clock() {
        let start = Instant::now();
        let validity = Validity::started(start, LEASE, 1_000_000);
        assert_eq!(validity.ends, start + LEASE);
        // Sent after 5 s; the coordinator says the lease ends 5 s later than before.
        let full = validity.extended(start + seconds(5), LEASE, 1_005_000);
        assert_eq!(full.ends, start + seconds(35));
        // It grants less than was asked for: believed.
        assert_eq!(full.extended(start + seconds(10), LEASE, 1_007_000).ends, start + seconds(37));
        // It grants more, or its clock jumped forward: no more than a lease is believed.
        assert_eq!(full.extended(start + seconds(10), LEASE, 9_000_000).ends, start + seconds(40));
        // Its clock was set back an hour: the lease counts from the call.
        let back = full.extended(start + seconds(10), LEASE, 1_010_000 - 3_600_000);
        assert_eq!(back.ends, start + seconds(40));
        assert_eq!(
            back.extended(start + seconds(15), LEASE, 1_015_000 - 3_600_000).ends,
            start + seconds(45)
        );
    }

    #[test]
    fn the_margin_is_bounded() {
        assert_eq!(margin(seconds(1)), Duration::from_millis(100));
        assert_eq!(margin(seconds(30)), seconds(2));
    }

    #[test]
    fn a_task_that_was_called_off_and_claimed_again_goes_on_under_its_new_lease() {
        let held = Held::new(LEASE);
        let take = |epoch| {
            let lease = Lease { epoch, ..crate::runtime::tests::lease("a", "wait") };
            held.add(&lease, Instant::now())
        };
        let ((old, old_stop), (new, new_stop), (_, later_stop)) = (take(1), take(2), take(3));
        let answer = |error| LeaseResult { id: TaskId::new("a").unwrap(), lease_until_ms: Some(1), error };
        let stale = Problem::new(ErrorCode::StaleEpoch, "called off");
        held.cancel(&[old, new], &[answer(Some(stale)), answer(None)], &[TaskId::new("a").unwrap()]);
        assert_eq!(old_stop.reason(), Some(CancelReason::Cancelled));
        assert_eq!((new_stop.reason(), later_stop.reason()), (None, None));
    }
}
