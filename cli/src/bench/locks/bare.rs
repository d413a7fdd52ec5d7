//! The lock that everybody writes: `SET key value NX PX ttl`, a delete that compares, and asking again until it works. No line, no
//! token, no rest after an expiry.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::ensure;
use redis::aio::MultiplexedConnection;
use redis::{Script, cmd};
use tokio::task::JoinSet;

use super::{HandedOn, Held};

const TTL_MS: u64 = 30_000;
/// How long one that waits lets pass until it asks again.
const ASK_EVERY: Duration = Duration::from_millis(10);

/// As Redis's own documentation releases such a lock.
static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end",
    )
});

/// A Redis, and what keys there begin with.
pub struct Bare {
    connection: MultiplexedConnection,
    prefix: String,
}

impl Bare {
    pub fn new(connection: MultiplexedConnection, prefix: String) -> Self {
        Self { connection, prefix }
    }

    /// Pairs a second; all callers share one pipelined connection, as the coordinator's do.
    pub async fn free(&self, callers: usize, round: Duration) -> anyhow::Result<f64> {
        let started = Instant::now();
        let mut asking: JoinSet<anyhow::Result<u64>> = JoinSet::new();
        for caller in 0..callers {
            let (mut wire, key) = (self.connection.clone(), format!("{}:file-{caller}", self.prefix));
            asking.spawn(async move {
                let mut pairs = 0;
                while started.elapsed() < round {
                    ensure!(take(&mut wire, &key, caller).await?, "nobody else has it");
                    give_back(&mut wire, &key, caller).await?;
                    pairs += 1;
                }
                Ok(pairs)
            });
        }
        let mut pairs = 0;
        while let Some(done) = asking.join_next().await {
            pairs += done??;
        }
        Ok(pairs as f64 / started.elapsed().as_secs_f64())
    }

    /// One lock through so many hands.
    pub async fn handed_on(&self, waiters: usize) -> anyhow::Result<HandedOn> {
        let (mut wire, key, started) =
            (self.connection.clone(), format!("{}:wanted", self.prefix), Instant::now());
        let since_ms = move || started.elapsed().as_secs_f64() * 1_000.0;
        ensure!(take(&mut wire, &key, waiters).await?, "nobody has it yet");
        let mut waiting: JoinSet<anyhow::Result<Held>> = JoinSet::new();
        for place in 0..waiters {
            let (mut wire, key) = (self.connection.clone(), key.clone());
            waiting.spawn(async move {
                while !take(&mut wire, &key, place).await? {
                    tokio::time::sleep(ASK_EVERY).await;
                }
                let granted_ms = since_ms();
                let released_ms = since_ms();
                give_back(&mut wire, &key, place).await?;
                Ok(Held { place, granted_ms, released_ms })
            });
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let released_ms = since_ms();
        give_back(&mut wire, &key, waiters).await?;
        let mut held = Vec::with_capacity(waiters);
        while let Some(done) = waiting.join_next().await {
            held.push(done??);
        }
        Ok(HandedOn::of(released_ms, held))
    }
}

async fn take(wire: &mut MultiplexedConnection, key: &str, who: usize) -> anyhow::Result<bool> {
    let mut set = cmd("SET");
    set.arg(key).arg(who).arg("NX").arg("PX").arg(TTL_MS);
    Ok(set.query_async::<Option<String>>(wire).await?.is_some())
}

async fn give_back(wire: &mut MultiplexedConnection, key: &str, who: usize) -> anyhow::Result<()> {
    let removed: i64 = RELEASE.key(key).arg(who).invoke_async(wire).await?;
    ensure!(removed == 1, "the lock was lost");
    Ok(())
}
