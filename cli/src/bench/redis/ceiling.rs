//! The ceiling: what this Redis does when it is given the same five steps as plain batched commands and nothing else.
//!
//! There is no script, no decision, no fence, no history, no counter, no log and no listing; nobody could build a queue on
//! it. Keys are as long as the store's, values as long as the payload, and all callers share one pipelined connection, as
//! they do there. Each pair of callers has a lane of its own, so nobody takes what is another's.
//!
//! | step | commands for a batch of n |
//! |---|---|
//! | enqueue | n × SET NX of the payload, one ZADD of n |
//! | claim | ZRANGEBYSCORE LIMIT n; then ZREMRANGEBYRANK, ZADD of n, MGET of n |
//! | fail | ZREM and ZADD of n, n × SETRANGE of a header |
//! | claim again | as before |
//! | done | ZREM of n, n × SET PX of a tombstone |

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, ensure};
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, cmd, pipe};
use redrive_shared::clock::{Clock, SystemClock};
use redrive_shared::id::TaskId;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::server::Server;
use crate::bench::Options;
use crate::bench::cycles::{Cycles, calls, tasks};
use crate::bench::fleet::{finish, payload};

/// About what the store patches when a task's state changes.
const HEADER: [u8; 64] = [b'h'; 64];
/// About what the store keeps of a task that is done.
const TOMBSTONE: [u8; 120] = [b'd'; 120];
const TOMBSTONE_KEPT_MS: u64 = 60 * 60 * 1_000;
const LEASE_US: i64 = 30_000_000;

/// One caller's keys.
struct Keys {
    shard: String,
    lane: String,
    leases: String,
}

impl Keys {
    fn new(prefix: &str, caller: usize) -> Self {
        let shard = format!("{prefix}:{{0}}:");
        Self {
            lane: format!("{shard}l:1|bench-{caller}||"),
            leases: format!("{shard}r:lease{caller:03}"),
            shard,
        }
    }

    fn task(&self, id: &str) -> String {
        format!("{}t:{id}", self.shard)
    }
}

pub(super) async fn measure(server: &Server, prefix: &str, options: &Options) -> anyhow::Result<Cycles> {
    let body: Arc<str> = payload(options.payload_bytes)?.get().into();
    let (calls, tasks, size) = (calls(options), tasks(options), options.batch);
    let next_call = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let mut callers: JoinSet<anyhow::Result<()>> = JoinSet::new();
    for caller in 0..options.callers {
        let keys = Arc::new(Keys::new(prefix, caller));
        // A worker learns of each batch as the dispatcher of a coordinator would tell it; here it costs nothing.
        let (enqueued, mut batches) = mpsc::unbounded_channel::<()>();
        callers.spawn({
            let (mut wire, keys, body) = (server.connection(), Arc::clone(&keys), Arc::clone(&body));
            let next_call = Arc::clone(&next_call);
            async move {
                while next_call.fetch_add(1, Ordering::Relaxed) < calls {
                    enqueue(&mut wire, &keys, &body, size).await.context("enqueueing")?;
                    enqueued.send(()).context("the worker is gone")?;
                }
                Ok(())
            }
        });
        let mut wire = server.connection();
        callers.spawn(async move {
            while batches.recv().await.is_some() {
                let ids = claim(&mut wire, &keys, size).await.context("claiming")?;
                fail(&mut wire, &keys, &ids).await.context("failing")?;
                let ids = claim(&mut wire, &keys, size).await.context("claiming again")?;
                done(&mut wire, &keys, &ids).await.context("ending")?;
            }
            Ok(())
        });
    }
    finish(callers, tasks).await?;
    Ok(Cycles { tasks, elapsed: started.elapsed() })
}

async fn enqueue(
    wire: &mut MultiplexedConnection,
    keys: &Keys,
    body: &str,
    count: usize,
) -> anyhow::Result<()> {
    let ids: Vec<TaskId> = (0..count).map(|_| TaskId::generate()).collect();
    let mut batch = pipe();
    for id in &ids {
        batch.cmd("SET").arg(keys.task(id)).arg(body).arg("NX").ignore();
    }
    let now_us = SystemClock.now_us();
    add(&mut batch, &keys.lane, now_us, ids.iter().map(TaskId::as_str));
    Ok(batch.query_async(wire).await?)
}

async fn claim(wire: &mut MultiplexedConnection, keys: &Keys, count: usize) -> anyhow::Result<Vec<String>> {
    let now_us = SystemClock.now_us();
    let mut due = cmd("ZRANGEBYSCORE");
    due.arg(&keys.lane).arg("-inf").arg(now_us).arg("LIMIT").arg(0).arg(count);
    let ids: Vec<String> = due.query_async(wire).await?;
    let mut batch = pipe();
    // They are its first: nobody else takes from this lane.
    batch.cmd("ZREMRANGEBYRANK").arg(&keys.lane).arg(0).arg(count - 1).ignore();
    add(&mut batch, &keys.leases, now_us + LEASE_US, ids.iter().map(String::as_str));
    batch.cmd("MGET").arg(ids.iter().map(|id| keys.task(id)).collect::<Vec<_>>());
    let (values,): (Vec<Option<Vec<u8>>>,) = batch.query_async(wire).await?;
    ensure!(values.iter().flatten().count() == count, "{} of {count} tasks were due", ids.len());
    Ok(ids)
}

async fn fail(wire: &mut MultiplexedConnection, keys: &Keys, ids: &[String]) -> anyhow::Result<()> {
    let mut batch = pipe();
    batch.cmd("ZREM").arg(&keys.leases).arg(ids).ignore();
    // Before everything that waits: the same caller finds them again.
    add(&mut batch, &keys.lane, 0, ids.iter().map(String::as_str));
    for id in ids {
        batch.cmd("SETRANGE").arg(keys.task(id)).arg(0).arg(&HEADER).ignore();
    }
    Ok(batch.query_async(wire).await?)
}

async fn done(wire: &mut MultiplexedConnection, keys: &Keys, ids: &[String]) -> anyhow::Result<()> {
    let mut batch = pipe();
    batch.cmd("ZREM").arg(&keys.leases).arg(ids).ignore();
    for id in ids {
        batch.cmd("SET").arg(keys.task(id)).arg(&TOMBSTONE).arg("PX").arg(TOMBSTONE_KEPT_MS).ignore();
    }
    Ok(batch.query_async(wire).await?)
}

fn add<'a>(batch: &mut Pipeline, key: &str, score: i64, ids: impl Iterator<Item = &'a str>) {
    let command = batch.cmd("ZADD").arg(key);
    for id in ids {
        command.arg(score).arg(id);
    }
    command.ignore();
}
