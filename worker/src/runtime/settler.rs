//! Tells the coordinator how attempts ended, many in one call.
//!
//! While a call is under way the next outcomes gather, and leave together when it is answered: batches grow with the load
//! and nobody waits for a timer. A call that fails is repeated until it is answered: while the coordinator is away the
//! work that was done must not be done again. Only a stale epoch drops an outcome, or the end of the process.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::limits::{BATCH_MAX_ITEMS, BODY_MAX_BYTES};
use redrive_shared::wire::{Outcome, SettleReply, SettleRequest, Settlement};
use serde::Serialize;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

use super::Worker;
use super::held::Key;
use super::normalise::bad_output;
use crate::backoff::Backoff;
use crate::link::LinkError;
use crate::telemetry;

/// Delays between calls that fail.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Room left in a body for what surrounds the settlements.
const BATCH_MAX_BYTES: usize = BODY_MAX_BYTES - 1_024;

/// One outcome on its way.
#[derive(Debug)]
pub(super) struct Item {
    mark: Mark,
    pub(super) settlement: Settlement,
}

/// What this process knows of an outcome besides what it sends.
#[derive(Debug, Clone, Copy)]
struct Mark {
    /// The held lease that ends with it, if it was taken note of.
    key: Option<Key>,
    bytes: usize,
    /// The coordinator refused what the handler said, and this is what is said instead.
    replaced: bool,
}

impl Item {
    pub(super) fn new(key: Option<Key>, settlement: Settlement) -> Self {
        let bytes = json_bytes(&settlement) + 1;
        Self { mark: Mark { key, bytes, replaced: false }, settlement }
    }
}

/// What is still to be said, and how.
struct Outbox {
    worker: Arc<Worker>,
    pending: VecDeque<Item>,
    backoff: Backoff,
    /// Items in the next call: halved when a call is refused for what it carries, so that the culprit is found and the
    /// others pass.
    limit: usize,
}

/// Delivers until every sender is gone and everything is delivered, or until it is told to give up.
pub(super) async fn run(worker: Arc<Worker>, mut inbox: UnboundedReceiver<Item>, give_up: CancellationToken) {
    let backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    let mut outbox = Outbox { worker, pending: VecDeque::new(), backoff, limit: BATCH_MAX_ITEMS };
    while outbox.gather(&mut inbox).await {
        if let Some(delay) = outbox.deliver(&give_up).await {
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = give_up.cancelled() => {}
            }
        }
        if give_up.is_cancelled() {
            break;
        }
    }
    inbox.close();
    while let Some(item) = inbox.recv().await {
        outbox.pending.push_back(item);
    }
    let left = outbox.pending.iter();
    left.for_each(|item| drop_item(&outbox.worker, item, "gave_up", "the coordinator cannot be reached"));
}

impl Outbox {
    /// Waits for work, and takes all there is. `false`: there is none and will be none.
    async fn gather(&mut self, inbox: &mut UnboundedReceiver<Item>) -> bool {
        if self.pending.is_empty() {
            match inbox.recv().await {
                Some(item) => self.pending.push_back(item),
                None => return false,
            }
        }
        while let Ok(item) = inbox.try_recv() {
            self.pending.push_back(item);
        }
        true
    }

    /// One call. Returns how long to wait before the next, where waiting can help.
    async fn deliver(&mut self, give_up: &CancellationToken) -> Option<Duration> {
        // Results are moved into the request and out again: they may be large.
        let batch = self.next_batch().into_iter().map(|item| (item.mark, item.settlement));
        let (marks, settlements): (Vec<_>, Vec<_>) = batch.unzip();
        let request = SettleRequest { settlements };
        let answer = tokio::select! {
            biased;
            answer = self.worker.link.settle(&request) => Some(answer),
            () = give_up.cancelled() => None,
        };
        let batch = marks.into_iter().zip(request.settlements);
        let batch: Vec<_> = batch.map(|(mark, settlement)| Item { mark, settlement }).collect();
        match answer {
            None => {
                self.put_back(batch);
                None
            }
            Some(Ok(reply)) => self.take_reply(batch, reply),
            Some(Err(error)) => Some(self.take_error(batch, &error)),
        }
    }

    /// As many as one call may carry; at least one.
    fn next_batch(&mut self) -> Vec<Item> {
        let (mut bytes, mut batch) = (0, Vec::new());
        while let Some(item) = self.pending.front() {
            bytes += item.mark.bytes;
            let full = batch.len() >= self.limit || bytes > BATCH_MAX_BYTES;
            if !batch.is_empty() && full {
                break;
            }
            batch.extend(self.pending.pop_front());
        }
        batch
    }

    fn take_reply(&mut self, batch: Vec<Item>, reply: SettleReply) -> Option<Duration> {
        telemetry::settled(batch.len());
        self.limit = (self.limit * 2).min(BATCH_MAX_ITEMS);
        let mut results = reply.results.into_iter();
        let mut again = Vec::new();
        for item in batch {
            again.extend(match results.next() {
                Some(result) => take_result(&self.worker, item, result.error),
                // Fewer answers than questions: ask again; the first settlement stands.
                None => Some(item),
            });
        }
        if again.is_empty() {
            self.backoff.reset();
            return None;
        }
        self.pending.extend(again);
        Some(self.backoff.next(None))
    }

    fn take_error(&mut self, mut batch: Vec<Item>, error: &LinkError) -> Duration {
        telemetry::link_error("settle");
        let delay = self.backoff.next(error.retry_after());
        tracing::warn!(%error, outcomes = batch.len(), ?delay, "outcomes could not be delivered");
        match error {
            LinkError::Refused(problem) if is_about_content(problem) && batch.len() == 1 => {
                let again =
                    batch.pop().and_then(|item| take_result(&self.worker, item, Some((**problem).clone())));
                self.put_back(again.into_iter().collect());
            }
            LinkError::Refused(problem) if is_about_content(problem) => {
                self.limit = batch.len().div_ceil(2);
                self.put_back(batch);
            }
            LinkError::Refused(_) | LinkError::NoAnswer { .. } => self.put_back(batch),
        }
        delay
    }

    fn put_back(&mut self, items: Vec<Item>) {
        items.into_iter().rev().for_each(|item| self.pending.push_front(item));
    }
}

/// Takes one item's answer, and returns it if something has to be said again.
fn take_result(worker: &Worker, mut item: Item, error: Option<Problem>) -> Option<Item> {
    let Some(problem) = error else {
        item.mark.key.into_iter().for_each(|key| worker.held.remove(key));
        return None;
    };
    if is_passing(&problem) {
        return Some(item);
    }
    if item.mark.replaced || !is_about_content(&problem) {
        let stale =
            matches!(problem.code, ErrorCode::StaleEpoch | ErrorCode::UnknownTask | ErrorCode::WrongState);
        drop_item(worker, &item, if stale { "stale" } else { "refused" }, &problem.to_string());
        return None;
    }
    tracing::error!(task = %item.settlement.id, %problem, "an outcome was refused");
    let failure = bad_output(format!("the coordinator refused the handler's outcome: {problem}"));
    // What was paid is paid.
    item.settlement.outcome = Outcome::retry(failure).costing(item.settlement.outcome.cost());
    item.mark.bytes = json_bytes(&item.settlement) + 1;
    item.mark.replaced = true;
    Some(item)
}

/// Whether the same call may be taken later.
fn is_passing(problem: &Problem) -> bool {
    problem.status >= 500 || matches!(problem.status, 408 | 425 | 429)
}

/// Whether what was said is refused, and not who says it, or where, or when. A result's blob that is not there is what was said: it
/// was lost, or became too old to be referred to while the coordinator was away.
fn is_about_content(problem: &Problem) -> bool {
    matches!(problem.status, 400 | 413 | 422) || problem.code == ErrorCode::UnknownBlob
}

fn drop_item(worker: &Worker, item: &Item, reason: &'static str, why: &str) {
    telemetry::settlement_dropped(reason);
    let outcome = telemetry::outcome_label(&item.settlement.outcome);
    tracing::warn!(task = %item.settlement.id, epoch = item.settlement.epoch, outcome, why, "an outcome was dropped");
    worker.tally.unsettled.fetch_add(1, Ordering::Relaxed);
    item.mark.key.into_iter().for_each(|key| worker.held.remove(key));
}

/// The size of a value as JSON, without writing it anywhere.
fn json_bytes(value: &impl Serialize) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Neither a count nor our own types can fail; were it so, the item would travel alone.
    serde_json::to_writer(&mut count, value).map_or(BATCH_MAX_BYTES, |()| count.0)
}
