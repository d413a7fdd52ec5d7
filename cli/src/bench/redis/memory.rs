//! What a parked task costs in Redis's memory, beside the least that a delayed job can be: its payload under a key, and its
//! id in a sorted set; and what a finished one costs, whose id is remembered so that it does not run again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use redis::{cmd, pipe};
use redrive_coordinator::store::redis::STORED;
use redrive_shared::clock::{Clock, SystemClock};
use redrive_shared::id::TaskId;
use serde::Serialize;
use tokio::task::JoinSet;

use super::server::Server;
use super::straight::Straight;
use super::{Names, PARKED_DELAY_MS};
use crate::bench::Options;
use crate::bench::fleet::{finish, payload};
use crate::bench::talk::Talk;

/// Tasks enqueued in one call.
const BATCH: usize = 1_000;

/// Bytes a task beyond its payload, or its result once it is finished; id included.
#[derive(Debug, Clone, Serialize)]
pub struct Memory {
    /// Tasks that were parked, each time.
    pub tasks: usize,
    /// A plain string of the payload and a member of a sorted set.
    pub plain_bytes: f64,
    /// A task that never ran.
    pub parked_bytes: f64,
    /// A task that came with the failure of its first attempt: what a retry queue is full of.
    pub failed_bytes: f64,
    /// A task that has succeeded at its first attempt, for as long as its id is remembered.
    pub finished_bytes: f64,
    /// Parked to plain.
    pub ratio: f64,
    /// Failed to plain.
    pub failed_ratio: f64,
    /// What is kept of a task: part, contents.
    pub stored: Vec<Stored>,
}

/// A part of what is kept.
#[derive(Debug, Clone, Serialize)]
pub struct Stored {
    /// Its name.
    pub part: &'static str,
    /// What is in it.
    pub holds: &'static str,
}

pub(super) async fn measure(
    server: &Server,
    names: &Names,
    options: &Options,
    talk: &Talk<'_>,
) -> anyhow::Result<Memory> {
    let tasks = options.parked;
    let beyond = |before: u64, after: u64| {
        (after as f64 - before as f64) / tasks as f64 - options.payload_bytes as f64
    };
    talk.step(&format!("memory: {tasks} plain strings and members of a sorted set"));
    let before = server.settled_memory().await?;
    plain(server, &names.plain(), options).await.context("plain strings")?;
    let plain_bytes = beyond(before, server.settled_memory().await?);
    server.remove(&names.plain()).await?;
    let mut measured = [0.0; 2];
    for (bytes, failed) in measured.iter_mut().zip([false, true]) {
        talk.step(&format!("memory: {tasks} parked tasks{}", if failed { " that failed once" } else { "" }));
        let straight = Straight::open(&names.address, &names.parked(), options.payload_bytes).await?;
        let before = server.settled_memory().await?;
        park(&straight, tasks, options.callers, failed).await?;
        *bytes = beyond(before, server.settled_memory().await?);
        drop(straight);
        server.remove(&names.parked()).await?;
    }
    let [parked_bytes, failed_bytes] = measured;
    talk.step(&format!("memory: {tasks} finished tasks"));
    let straight = Straight::open(&names.address, &names.parked(), options.payload_bytes).await?;
    let before = server.settled_memory().await?;
    finish_all(&straight, tasks, options.callers).await?;
    let finished_bytes = beyond(before, server.settled_memory().await?);
    drop(straight);
    server.remove(&names.parked()).await?;
    Ok(Memory {
        tasks,
        plain_bytes,
        parked_bytes,
        failed_bytes,
        finished_bytes,
        ratio: parked_bytes / plain_bytes,
        failed_ratio: failed_bytes / plain_bytes,
        stored: STORED.iter().map(|(part, holds)| Stored { part, holds }).collect(),
    })
}

/// Enqueues so many tasks that are due in a day.
pub(super) async fn park(
    straight: &Straight,
    tasks: usize,
    callers: usize,
    failed: bool,
) -> anyhow::Result<()> {
    let straight = straight.clone();
    in_batches(tasks, callers, move |count| {
        let straight = straight.clone();
        async move { straight.enqueue(count, PARKED_DELAY_MS, failed).await }
    })
    .await
    .context("parking tasks")
}

/// Enqueues so many tasks and does them all; what each returns is as large as its payload.
async fn finish_all(straight: &Straight, tasks: usize, callers: usize) -> anyhow::Result<()> {
    let straight = straight.clone();
    in_batches(tasks, callers, move |count| {
        let straight = straight.clone();
        async move {
            straight.enqueue(count, 0, false).await?;
            // Others may have taken some of these, and left as many of theirs.
            let mut left = count;
            while left > 0 {
                let (leases, _) = straight.claim(0, left).await?;
                left -= leases.len();
                straight.finish(leases).await?;
            }
            Ok(())
        }
    })
    .await
    .context("finishing tasks")
}

async fn plain(server: &Server, prefix: &str, options: &Options) -> anyhow::Result<()> {
    let body: Arc<str> = payload(options.payload_bytes)?.get().into();
    let due_ms = SystemClock.now_ms().saturating_add_unsigned(PARKED_DELAY_MS);
    let (server, prefix) = (server.clone(), prefix.to_owned());
    in_batches(options.parked, options.callers, move |count| {
        let (mut wire, body, prefix) = (server.connection(), Arc::clone(&body), prefix.clone());
        async move {
            let mut batch = pipe();
            let mut members = cmd("ZADD");
            members.arg(format!("{prefix}:l"));
            for _ in 0..count {
                let id = TaskId::generate();
                members.arg(due_ms).arg(id.as_str());
                batch.cmd("SET").arg(plain_key(&prefix, &id)).arg(&*body).ignore();
            }
            batch.add_command(members).ignore();
            Ok(batch.query_async(&mut wire).await?)
        }
    })
    .await
}

/// As long as `t:<id>`, so that the run's own prefix, by which it is deleted again, makes it no dearer: in the place of the
/// first letters of the id, which are only the time.
fn plain_key(prefix: &str, id: &str) -> String {
    let from = id.len().min(prefix.len() - "t:".len());
    format!("{prefix}{}", &id[from..])
}

/// Makes calls of up to a batch each until they cover everything, some at once.
async fn in_batches<F>(
    tasks: usize,
    callers: usize,
    call: impl Fn(usize) -> F + Clone + Send + 'static,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    let mut running = JoinSet::new();
    for _ in 0..callers {
        let (next, call) = (Arc::clone(&next), call.clone());
        running.spawn(async move {
            loop {
                let from = next.fetch_add(BATCH, Ordering::Relaxed);
                if from >= tasks {
                    return Ok(());
                }
                call(BATCH.min(tasks - from)).await?;
            }
        });
    }
    finish(running, tasks).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_key_is_as_long_as_its_name_says() {
        let id = TaskId::generate();
        let key = plain_key("b12345p", &id);
        assert_eq!(key.len(), format!("t:{id}").len());
        assert!(key.starts_with("b12345p") && id.ends_with(&key[7..]));
    }
}
