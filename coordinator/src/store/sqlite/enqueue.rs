//! `enqueue`: tasks come onto their queues.

use redrive_shared::cost::Cost;
use redrive_shared::lifecycle::{Record, Verdict};
use redrive_shared::task::TaskState;
use rusqlite::{OptionalExtension, params};

use super::queues::Queue;
use super::rows::{Hot, class_counts, failed_on_route, micros, state_from, state_number, to_json};
use super::tx::{Line, Tx};
use crate::store::format::content_text;
use crate::store::format::contents_hash;
use crate::store::{Enqueue, Enqueued};

pub(super) fn enqueue(tx: &mut Tx<'_>, batch: Vec<Enqueue>) -> rusqlite::Result<Vec<Enqueued>> {
    batch.into_iter().map(|task| enqueue_one(tx, &task)).collect()
}

fn enqueue_one(tx: &mut Tx<'_>, task: &Enqueue) -> rusqlite::Result<Enqueued> {
    let Some(queue) = tx.memory.queues.get(&task.queue).cloned() else { return Ok(Enqueued::UnknownQueue) };
    let hash = contents_hash(task);
    if let Some(known) = compare(tx, task, &hash)? {
        return Ok(known);
    }
    if task.made_by_ms().is_some_and(|by_ms| by_ms < tx.now_ms()) {
        return Ok(Enqueued::UnknownPayload);
    }
    let (record, verdict) = Record::enqueue(&task.start(), task.terms(&queue.policy), tx.now_us, tx.rng);
    insert(tx, task, &queue, record, verdict, &hash)
}

/// The answer where the id is known.
fn compare(tx: &Tx<'_>, task: &Enqueue, hash: &[u8]) -> rusqlite::Result<Option<Enqueued>> {
    let mut statement = tx.connection.prepare_cached(include_str!("sql/find_same.sql"))?;
    statement
        .query_row([task.id.as_str()], |row| {
            let state = state_from(row.get(0)?)?;
            Ok(if row.get_ref(2)?.as_blob()? == hash {
                Enqueued::Duplicate { state, due_ms: row.get(1)? }
            } else {
                Enqueued::IdReused
            })
        })
        .optional()
}

fn insert(
    tx: &mut Tx<'_>,
    task: &Enqueue,
    queue: &Queue,
    record: Record,
    verdict: Option<Verdict>,
    hash: &[u8],
) -> rusqlite::Result<Enqueued> {
    let lane = task.lane(&record, &queue.policy);
    let primary = task.spec.dependency.clone().filter(|name| Some(name) != lane.dependency.as_ref());
    let (lane, enqueued_ms) = (tx.intern(&lane, queue.number)?, tx.now_ms());
    let (id, agent, boot_id) = (task.id.to_string(), None, None);
    let mut hot = Hot { seq: 0, lane, id, record, entries: 0, enqueued_ms, agent, boot_id, primary };
    insert_row(tx, &hot, i64::from(verdict.is_some()))?;
    hot.seq = tx.connection.last_insert_rowid();
    insert_body(tx, hot.seq, task, hash)?;
    if let Some(verdict) = verdict {
        let line = Line {
            verdict: &verdict,
            failure: task.failure.as_ref(),
            started_ms: enqueued_ms,
            note: None,
            route: queue.policy.route_at(task.spec.dependency.as_ref(), task.spec.route),
            stand_in: task.failed_at(&queue.policy),
            cost: Cost::default(),
        };
        tx.write_history(&mut hot, &line)?;
    }
    let (state, due_ms) = (hot.record.state, hot.record.due_ms);
    if state == TaskState::Scheduled {
        tx.memory.lanes.add_due(lane, due_ms);
    }
    tx.count(queue.number, state, 1);
    tx.count_lane(lane, 1);
    Ok(Enqueued::Created { state, due_ms })
}

/// Writes the hot row of a new task, with so many lines of history that follow.
fn insert_row(tx: &Tx<'_>, task: &Hot, entries: i64) -> rusqlite::Result<()> {
    let record = &task.record;
    tx.connection.prepare_cached(include_str!("sql/insert_task.sql"))?.execute(params![
        task.id,
        task.lane,
        state_number(record.state),
        record.epoch,
        record.nonce.0.cast_signed(),
        record.due_ms,
        record.lease_until_ms,
        record.started,
        record.leased_at_ms,
        record.runs,
        record.ledger.failed,
        record.ledger.lost,
        record.ledger.undelivered,
        record.ledger.deferred,
        record.ledger.released,
        class_counts(record),
        record.previous_delay_ms.map(u64::cast_signed),
        record.max_attempts,
        record.deadline_ms,
        record.expires_ms,
        entries,
        task.enqueued_ms,
        record.route,
        failed_on_route(record),
        task.primary.as_deref(),
        record.max_cost.map(micros),
        record.strategy.as_deref().map(to_json).transpose()?,
    ])?;
    Ok(())
}

fn insert_body(tx: &Tx<'_>, seq: i64, task: &Enqueue, hash: &[u8]) -> rusqlite::Result<()> {
    let labels = &task.spec.labels;
    let labels = if labels.is_empty() { None } else { Some(to_json(labels)?) };
    tx.connection.prepare_cached(include_str!("sql/insert_body.sql"))?.execute(params![
        seq,
        task.task_type.as_str(),
        task.spec.type_version,
        &*content_text(&task.payload),
        hash,
        task.spec.route,
        task.spec.traceparent,
        labels,
        task.spec.tokens,
    ])?;
    Ok(())
}
