//! What a coordinator can be told.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use redrive_shared::limits::BLOB_MAX_BYTES;

use crate::amqp::AmqpConfig;
use crate::blobs::address::BlobsAddress;
use crate::store::redis::RedisConfig;
use crate::store::redis::address::Address;
use crate::store::redis::link::LinkOptions;

/// Section `[coordinator]` of the configuration. `cli/config.default.toml` documents each key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CoordinatorConfig {
    /// Where the API listens. Only loopback addresses are taken: there are no API keys yet.
    pub listen: SocketAddr,
    /// Where the embedded store keeps its files.
    pub data_dir: PathBuf,
    /// Keep everything in memory: nothing survives the process.
    pub in_memory: bool,
    /// Make queues that are named in an enqueue or a claim and do not exist, with the default policy.
    pub create_queues: bool,
    /// Whether gates hold work back. They are kept all the same, to be seen.
    pub gates: bool,
    /// How long a request may take to arrive, in milliseconds.
    pub body_timeout_ms: u64,
    /// How long open requests may go on after a stop was asked for, in milliseconds.
    pub shutdown_grace_ms: u64,
    /// Where the shared store is, if it is not the embedded one.
    pub store: StoreConfig,
    /// Where RabbitMQ is, if it is used.
    pub amqp: AmqpConfig,
    /// Where what is too large for the store is kept.
    pub blobs: BlobsConfig,
}

/// Section `[coordinator.blobs]`: payloads, results and states that are too large for the store.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BlobsConfig {
    /// Where they are. Without it: beside the embedded store, and nowhere with a shared one or in memory.
    #[serde(deserialize_with = "blobs_address")]
    pub url: Option<BlobsAddress>,
    /// Most bytes of one.
    #[serde(deserialize_with = "blob_bytes")]
    pub max_bytes: u64,
    /// States of checkpoints of so many bytes and more are kept there, in bytes; shorter ones in the store.
    pub states_from_bytes: usize,
    /// How often those that no task refers to are looked for, in milliseconds.
    #[serde(deserialize_with = "sweep_every")]
    pub sweep_every_ms: u64,
}

/// How often the sweep may be told to come, in milliseconds.
const SWEEP_EVERY_MS: std::ops::RangeInclusive<u64> = 1_000..=7 * 24 * 60 * 60 * 1_000;

fn blobs_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<BlobsAddress>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(D::Error::custom)
}

fn blob_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let bytes = u64::deserialize(deserializer)?;
    match bytes {
        1..=BLOB_MAX_BYTES => Ok(bytes),
        _ => Err(D::Error::custom(format!("max_bytes is from 1 to {BLOB_MAX_BYTES} (5 GiB)"))),
    }
}

fn sweep_every<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let every_ms = u64::deserialize(deserializer)?;
    if SWEEP_EVERY_MS.contains(&every_ms) {
        return Ok(every_ms);
    }
    Err(D::Error::custom("sweep_every_ms is from 1000 (1 s) to 604800000 (7 days)"))
}

impl Default for BlobsConfig {
    fn default() -> Self {
        Self {
            url: None,
            max_bytes: 64 * 1024 * 1024,
            states_from_bytes: 16 * 1024,
            sweep_every_ms: 60 * 60 * 1_000,
        }
    }
}

impl CoordinatorConfig {
    /// Where blobs are kept, if anywhere.
    pub fn blobs_at(&self) -> Option<BlobsAddress> {
        let embedded = !self.in_memory && self.store.url.is_none();
        let beside = || embedded.then(|| BlobsAddress::Files(self.data_dir.join("blobs")));
        self.blobs.url.clone().or_else(beside)
    }
}

/// Section `[coordinator.store]`: the shared store.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// Its address; the embedded store without one.
    #[serde(deserialize_with = "address")]
    pub url: Option<Address>,
    /// What every key begins with.
    pub key_prefix: String,
    /// Number of shards, fixed at first use; the store's own without it.
    pub shards: Option<u16>,
    /// Replicas that must have a write before it is acknowledged.
    pub wait_replicas: u32,
    /// For a connection, in milliseconds.
    pub connect_timeout_ms: u64,
    /// For an answer, in milliseconds.
    pub response_timeout_ms: u64,
    /// For the replicas, in milliseconds.
    pub wait_timeout_ms: u64,
    /// Share of a server's maxmemory from which on new tasks are refused, in percent.
    #[serde(deserialize_with = "percent")]
    pub memory_limit_percent: u8,
    /// Start although the store's settings would lose tasks.
    pub allow_unsafe: bool,
}

fn percent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    let percent = u8::deserialize(deserializer)?;
    match percent {
        1..=100 => Ok(percent),
        _ => Err(D::Error::custom("memory_limit_percent is a share, from 1 to 100")),
    }
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Address>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            url: None,
            key_prefix: "redrive".into(),
            shards: None,
            wait_replicas: 0,
            connect_timeout_ms: 2_000,
            response_timeout_ms: 2_000,
            wait_timeout_ms: 1_000,
            memory_limit_percent: 85,
            allow_unsafe: false,
        }
    }
}

impl StoreConfig {
    /// As the shared store takes it; none: the embedded store is meant.
    pub fn redis(&self) -> Option<RedisConfig> {
        Some(RedisConfig {
            address: self.url.clone()?,
            prefix: self.key_prefix.clone(),
            shards: self.shards,
            link: LinkOptions {
                connect_timeout: Duration::from_millis(self.connect_timeout_ms),
                response_timeout: Duration::from_millis(self.response_timeout_ms),
                wait_replicas: self.wait_replicas,
                wait_timeout: Duration::from_millis(self.wait_timeout_ms),
            },
            memory_limit_percent: self.memory_limit_percent,
        })
    }
}

impl Default for CoordinatorConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7878)),
            data_dir: PathBuf::from("redrive-data"),
            in_memory: false,
            create_queues: false,
            gates: true,
            body_timeout_ms: 10_000,
            shutdown_grace_ms: 5_000,
            store: StoreConfig::default(),
            amqp: AmqpConfig::default(),
            blobs: BlobsConfig::default(),
        }
    }
}
