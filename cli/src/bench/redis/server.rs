//! The server under the benchmark, asked directly: who it is, what it has used, and whose keys it holds.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, bail};
use redis::aio::MultiplexedConnection;
use redis::cmd;
use redrive_coordinator::store::redis::address::Address;
use redrive_coordinator::store::redis::link::{Link, LinkOptions};

/// Deleting millions of keys may keep it busy for a while.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// Keys looked at, and deleted, in one call.
const PAGE: usize = 1_000;
/// Memory has settled when two readings this far apart are this close, in bytes.
const SETTLE: Duration = Duration::from_millis(250);
const SETTLED_WITHIN: u64 = 64 * 1024;
/// Readings until it has to do.
const READINGS_MAX: usize = 120;

/// A server and a connection to it: one, for all callers, as the store has.
#[derive(Clone)]
pub(super) struct Server {
    connection: MultiplexedConnection,
}

impl Server {
    pub async fn open(address: &Address) -> anyhow::Result<Self> {
        let options = LinkOptions { response_timeout: RESPONSE_TIMEOUT, ..LinkOptions::default() };
        let nodes = Link::open(address, options).await?.nodes().await?;
        // Masters come first.
        let Some(node) = nodes.into_iter().next() else { bail!("{} has no server", address.hosts()) };
        Ok(Self { connection: node.connection.map_err(anyhow::Error::msg)? })
    }

    pub fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }

    /// For example `Redis 7.0.15, appendonly yes, appendfsync everysec`.
    pub async fn describe(&self) -> anyhow::Result<String> {
        let info = self.info("server").await?;
        let (name, version) = match info.get("valkey_version") {
            Some(version) => ("Valkey", Some(version)),
            None => ("Redis", info.get("redis_version")),
        };
        let mut text = format!("{name} {}", version.map_or("of an unknown version", String::as_str));
        for setting in ["appendonly", "appendfsync", "save"] {
            // A user of a managed server may not be allowed to see it.
            let asked = cmd("CONFIG").arg("GET").arg(setting).query_async(&mut self.connection()).await;
            let value = asked.ok().and_then(|mut found: HashMap<String, String>| found.remove(setting));
            let value = value
                .map_or("not told".to_owned(), |value| if value.is_empty() { "no".into() } else { value });
            text.push_str(&format!(", {setting} {value}"));
        }
        Ok(text)
    }

    /// Its process, on its machine.
    pub async fn process_id(&self) -> anyhow::Result<Option<u32>> {
        Ok(self.info("server").await?.get("process_id").and_then(|text| text.parse().ok()))
    }

    async fn info(&self, section: &str) -> anyhow::Result<HashMap<String, String>> {
        let text: String = cmd("INFO").arg(section).query_async(&mut self.connection()).await?;
        let pairs = text.lines().filter_map(|line| line.trim_end().split_once(':'));
        Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// Processor time of the thread that runs commands; of the whole server where it does not tell.
    pub async fn cpu_time(&self) -> anyhow::Result<Duration> {
        let info = self.info("cpu").await?;
        let seconds = |name: &str| info.get(name).and_then(|text| text.parse::<f64>().ok());
        let sum = |user, system| Some(seconds(user)? + seconds(system)?);
        let used = sum("used_cpu_user_main_thread", "used_cpu_sys_main_thread")
            .or_else(|| sum("used_cpu_user", "used_cpu_sys"));
        Ok(Duration::from_secs_f64(used.context("the server does not tell its processor time")?))
    }

    /// Bytes in use, once what is freed and moved in the background has been.
    pub async fn settled_memory(&self) -> anyhow::Result<u64> {
        let mut last = u64::MAX;
        for _ in 0..READINGS_MAX {
            let info = self.info("memory").await?;
            let number = |name: &str| info.get(name).and_then(|text| text.parse::<u64>().ok());
            let used = number("used_memory").context("the server does not tell its memory")?;
            // What it holds for connections and the append-only file is no task's.
            let buffers = number("mem_clients_normal").unwrap_or(0) + number("mem_aof_buffer").unwrap_or(0);
            let used = used.saturating_sub(buffers);
            if used.abs_diff(last) <= SETTLED_WITHIN && number("lazyfree_pending_objects").unwrap_or(0) == 0 {
                return Ok(used);
            }
            last = used;
            tokio::time::sleep(SETTLE).await;
        }
        bail!("the server's memory does not come to rest: does anybody else use it?")
    }

    /// Whether it holds a key that begins so.
    pub async fn has(&self, prefix: &str) -> anyhow::Result<bool> {
        let mut cursor = 0;
        loop {
            let (next, keys) = self.page(prefix, cursor).await?;
            if !keys.is_empty() {
                return Ok(true);
            }
            if next == 0 {
                return Ok(false);
            }
            cursor = next;
        }
    }

    /// Deletes every key that begins so, a page at a time.
    pub async fn remove(&self, prefix: &str) -> anyhow::Result<()> {
        let mut cursor = 0;
        loop {
            let (next, keys) = self.page(prefix, cursor).await?;
            if !keys.is_empty() {
                let _: u64 = cmd("UNLINK").arg(keys).query_async(&mut self.connection()).await?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }

    async fn page(&self, prefix: &str, cursor: u64) -> anyhow::Result<(u64, Vec<Vec<u8>>)> {
        let mut scan = cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{prefix}*")).arg("COUNT").arg(PAGE);
        Ok(scan.query_async(&mut self.connection()).await?)
    }
}
