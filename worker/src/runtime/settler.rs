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

/// Delivers until every sender is gone and everything is delivered, or until it is told to give up.
pub(super) async fn run(worker: Arc<Worker>, mut inbox: UnboundedReceiver<Item>, give_up: CancellationToken) {
    let mut pending = VecDeque::new();
    let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    while gather(&mut inbox, &mut pending).await {
        // Results are moved into the request and out again: they may be large.
        let batch = next_batch(&mut pending).into_iter().map(|item| (item.mark, item.settlement));
        let (marks, settlements): (Vec<_>, Vec<_>) = batch.unzip();
        let request = SettleRequest { settlements };
        let answer = tokio::select! {
            biased;
            answer = worker.link.settle(&request) => Some(answer),
            () = give_up.cancelled() => None,
        };
        let batch = marks.into_iter().zip(request.settlements);
        let batch = batch.map(|(mark, settlement)| Item { mark, settlement }).collect();
        let Some(answer) = answer else {
            prepend(&mut pending, batch);
            break;
        };
        let Some(delay) = take_answer(&worker, batch, answer, &mut pending, &mut backoff) else {
            backoff.reset();
            continue;
        };
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = give_up.cancelled() => break,
        }
    }
    inbox.close();
    while let Some(item) = inbox.recv().await {
        pending.push_back(item);
    }
    pending
        .into_iter()
        .for_each(|item| drop_item(&worker, &item, "gave_up", "the coordinator cannot be reached"));
}

/// Waits for work, and takes all there is. `false`: there is none and will be none.
async fn gather(inbox: &mut UnboundedReceiver<Item>, pending: &mut VecDeque<Item>) -> bool {
    if pending.is_empty() {
        match inbox.recv().await {
            Some(item) => pending.push_back(item),
            None => return false,
        }
    }
    while let Ok(item) = inbox.try_recv() {
        pending.push_back(item);
    }
    true
}

/// As many as one call may carry; at least one.
fn next_batch(pending: &mut VecDeque<Item>) -> Vec<Item> {
    let (mut bytes, mut batch) = (0, Vec::new());
    while let Some(item) = pending.front() {
        bytes += item.mark.bytes;
        let full = batch.len() == BATCH_MAX_ITEMS || bytes > BATCH_MAX_BYTES;
        if !batch.is_empty() && full {
            break;
        }
        batch.extend(pending.pop_front());
    }
    batch
}

/// Takes the answer to a batch; what has to be said again goes back to `pending`. Returns how long to wait before.
fn take_answer(
    worker: &Worker,
    batch: Vec<Item>,
    answer: Result<SettleReply, LinkError>,
    pending: &mut VecDeque<Item>,
    backoff: &mut Backoff,
) -> Option<Duration> {
    match answer {
        Ok(reply) => {
            telemetry::settled(batch.len());
            let before = pending.len();
            let mut results = reply.results.into_iter();
            for item in batch {
                let again = match results.next() {
                    Some(result) => take_result(worker, item, result.error),
                    // Fewer answers than questions: ask again; the first settlement stands.
                    None => Some(item),
                };
                pending.extend(again);
            }
            (pending.len() > before).then(|| backoff.next(None))
        }
        Err(error) => {
            telemetry::link_error("settle");
            let delay = backoff.next(error.retry_after());
            tracing::warn!(%error, outcomes = batch.len(), ?delay, "outcomes could not be delivered");
            match error {
                LinkError::Refused(problem) if !is_passing(&problem) => {
                    refused_whole(worker, batch, &problem, pending);
                }
                LinkError::Refused(_) | LinkError::NoAnswer { .. } => prepend(pending, batch),
            }
            Some(delay)
        }
    }
}

/// The call as a whole was refused for good: one of its items must be the cause. Halves are tried until it is alone.
fn refused_whole(worker: &Worker, mut batch: Vec<Item>, problem: &Problem, pending: &mut VecDeque<Item>) {
    if batch.len() == 1 {
        let again = batch.pop().and_then(|item| take_result(worker, item, Some(problem.clone())));
        prepend(pending, again.into_iter().collect());
    } else {
        // The front half is sent next; the other waits behind everything else.
        pending.extend(batch.split_off(batch.len() / 2));
        prepend(pending, batch);
    }
}

/// Takes one item's answer, and returns it if something has to be said again.
fn take_result(worker: &Worker, mut item: Item, error: Option<Problem>) -> Option<Item> {
    let Some(problem) = error else {
        item.mark.key.into_iter().for_each(|key| worker.held.remove(key));
        return None;
    };
    match problem.code {
        _ if is_passing(&problem) => Some(item),
        ErrorCode::StaleEpoch | ErrorCode::UnknownTask | ErrorCode::WrongState => {
            drop_item(worker, &item, "stale", &problem.to_string());
            None
        }
        _ if item.mark.replaced => {
            drop_item(worker, &item, "refused", &problem.to_string());
            None
        }
        _ => {
            tracing::error!(task = %item.settlement.id, %problem, "an outcome was refused");
            let failure = bad_output(format!("the coordinator refused the handler's outcome: {problem}"));
            item.settlement.outcome = Outcome::Retry { failure };
            item.mark.bytes = json_bytes(&item.settlement) + 1;
            item.mark.replaced = true;
            Some(item)
        }
    }
}

/// Whether the same call may be taken later.
fn is_passing(problem: &Problem) -> bool {
    problem.status >= 500 || matches!(problem.status, 408 | 425 | 429)
}

fn prepend(pending: &mut VecDeque<Item>, items: Vec<Item>) {
    items.into_iter().rev().for_each(|item| pending.push_front(item));
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
