//! What a coordinator can be told.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

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
    /// How long a request may take to arrive, in milliseconds.
    pub body_timeout_ms: u64,
    /// How long open requests may go on after a stop was asked for, in milliseconds.
    pub shutdown_grace_ms: u64,
}

impl Default for CoordinatorConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7878)),
            data_dir: PathBuf::from("redrive-data"),
            in_memory: false,
            create_queues: false,
            body_timeout_ms: 10_000,
            shutdown_grace_ms: 5_000,
        }
    }
}
