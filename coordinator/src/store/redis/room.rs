//! How much room Redis has: near its limit new tasks are refused here, before Redis refuses everything, claims and
//! settlements included.
//!
//! Each master is asked about once a second while tasks come in, sooner when many bytes have come since, and never by two
//! callers at once. What is not told (no maxmemory, no right to `INFO`) limits nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::{Value, cmd};

use super::Inner;
use crate::store::format::content_text;
use crate::store::{Enqueue, Result, StoreError};

/// How often to look, while there is traffic.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Not even when much comes in, unless it may be all that there was.
const LOOK_AT_MOST_EVERY: Duration = Duration::from_millis(20);
/// After a look that failed.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// A look is due when this part of the room may have been taken.
const PART_OF_ROOM: u64 = 4;
/// What a task needs beside its payload, about.
const TASK_BYTES: u64 = 512;

/// What was learnt of the servers' memory.
pub(super) struct Room {
    limit_percent: u64,
    seen: Mutex<Seen>,
    looking: tokio::sync::Mutex<()>,
}

#[derive(Clone, Default)]
struct Seen {
    at: Option<Instant>,
    failed: bool,
    /// Bytes until the limit, at the fullest server; none: there is no limit.
    room: Option<u64>,
    /// Why nothing is taken, if so.
    full: Option<String>,
    /// Bytes taken since.
    taken: u64,
}

impl Seen {
    fn is_due(&self) -> bool {
        let Some(age) = self.at.map(|at| at.elapsed()) else { return true };
        if self.failed {
            return age >= LOOK_AGAIN_AFTER;
        }
        let taken =
            |part: u64| self.full.is_none() && self.room.is_some_and(|room| self.taken >= room / part);
        // Whoever would take more than there was looks first, however fast others were.
        age >= LOOK_EVERY || taken(1) || (taken(PART_OF_ROOM) && age >= LOOK_AT_MOST_EVERY)
    }
}

impl Room {
    pub fn new(limit_percent: u8) -> Self {
        Self {
            limit_percent: limit_percent.into(),
            seen: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
        }
    }

    fn seen<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Fails when there is little room for a batch of new tasks.
pub(super) async fn require(store: &Arc<Inner>, batch: &[Enqueue]) -> Result<()> {
    let bytes: u64 = batch.iter().map(|task| content_text(&task.payload).len() as u64 + TASK_BYTES).sum();
    let (due, blind) = store.room.seen(|seen| {
        seen.taken = seen.taken.saturating_add(bytes);
        // What was seen decides nothing where it is old news: it was full, or much has been taken.
        let much = seen.room.is_some_and(|room| seen.taken >= room / PART_OF_ROOM);
        (seen.is_due(), seen.full.is_some() || much)
    });
    if due && blind {
        look(store).await;
    } else if due {
        let store = Arc::clone(store);
        tokio::spawn(async move { look(&store).await });
    }
    match store.room.seen(|seen| seen.full.clone()) {
        Some(full) => Err(StoreError::NearlyFull(full)),
        None => Ok(()),
    }
}

/// Asks every master, unless somebody just has.
async fn look(store: &Inner) {
    let _one_at_a_time = store.room.looking.lock().await;
    if !store.room.seen(|seen| seen.is_due()) {
        return;
    }
    let asked = store.link.query(cmd("INFO").arg("memory")).await;
    let read = asked.map(|reply| servers(reply, store.link.hosts()));
    store.room.seen(|seen| {
        (seen.at, seen.taken, seen.failed) = (Some(Instant::now()), 0, read.is_err());
        match &read {
            Ok(servers) => {
                let limit = store.room.limit_percent;
                seen.room = servers.iter().filter_map(|server| server.room(limit)).min();
                seen.full = servers.iter().find_map(|server| server.full(limit));
            }
            // Redis itself refuses what it has no room for.
            Err(error) => {
                tracing::debug!(%error, "cannot look at Redis's memory");
                (seen.room, seen.full) = (None, None);
            }
        }
    });
}

/// A server's memory.
#[derive(Debug, PartialEq, Eq)]
struct Memory {
    at: String,
    used: u64,
    most: u64,
}

impl Memory {
    /// Without maxmemory there is no limit.
    fn room(&self, limit_percent: u64) -> Option<u64> {
        let limit = self.most / 100 * limit_percent;
        (self.most > 0).then(|| limit.saturating_sub(self.used))
    }

    fn full(&self, limit_percent: u64) -> Option<String> {
        (self.room(limit_percent)? == 0).then(|| {
            format!(
                "{} uses {} of {} bytes (maxmemory), and from {limit_percent} % on (memory_limit_percent) no new tasks are taken",
                self.at, self.used, self.most
            )
        })
    }
}

/// What one server said, or each of a cluster's masters.
fn servers(reply: Value, hosts: &str) -> Vec<Memory> {
    match reply {
        Value::Map(nodes) => nodes
            .into_iter()
            .filter_map(|(at, text)| memory(redis::from_redis_value::<String>(at).ok()?, text))
            .collect(),
        text => memory(hosts.to_owned(), text).into_iter().collect(),
    }
}

fn memory(at: String, text: Value) -> Option<Memory> {
    let text = redis::from_redis_value::<String>(text).ok()?;
    let number = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim_end().parse::<u64>().ok())
    };
    Some(Memory { used: number("used_memory")?, most: number("maxmemory")?, at })
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::{Memory, servers};

    fn text(used: u64, most: u64) -> Value {
        let text = format!("# Memory\r\nused_memory:{used}\r\nused_memory_rss:9\r\nmaxmemory:{most}\r\n");
        Value::BulkString(text.into_bytes())
    }

    #[test]
    fn each_master_counts() {
        let one = servers(text(7, 0), "h:1");
        assert_eq!(one, [Memory { at: "h:1".into(), used: 7, most: 0 }]);
        assert_eq!((one[0].room(85), one[0].full(85)), (None, None), "no maxmemory, no limit");
        let name = |name: &str| Value::SimpleString(name.into());
        let two =
            servers(Value::Map(vec![(name("a:1"), text(84, 100)), (name("b:2"), text(850, 1_000))]), "");
        assert_eq!((two[0].room(85), two[0].full(85)), (Some(1), None));
        assert!(two[1].full(85).unwrap().starts_with("b:2 uses 850 of 1000 bytes"));
    }
}
