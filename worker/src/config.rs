//! What a worker can be told.

use std::sync::Arc;

use redrive_link::amqp::{AmqpAddress, Names};
use redrive_shared::breaker::{BreakerConfig, BreakerConfigError};
use redrive_shared::id::Name;
use redrive_shared::limits::{
    AGENT_DEAD_AFTER_MS, BATCH_MAX_ITEMS, CLAIM_QUEUES_MAX, HEARTBEAT_INTERVAL_MS, LEASE_MAX_MS,
    LEASE_MIN_MS, RESULT_MAX_BYTES, WAIT_MAX_MS,
};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use tokio_util::sync::CancellationToken;

use crate::amqp::{AmqpLink, Consuming};
use crate::client::Client;
use crate::handler::Handler;
use crate::handlers::{HttpHandler, ProcessHandler};
use crate::link::{HttpLink, Link};

/// Fewest milliseconds between heartbeats: below it they would be most of a coordinator's traffic.
const HEARTBEAT_MIN_MS: u64 = 100;
/// Longest time that a stop may wait for running handlers.
const DRAIN_MAX_MS: u64 = 60 * 60 * 1_000;
/// Most bytes of a blob that a worker can be told to take: each is held in memory.
const BLOB_MAX_BYTES: u64 = 1024 * 1024 * 1024;

/// Section `[worker]` of the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerConfig {
    /// The coordinator's address. Default `http://127.0.0.1:7878`.
    pub url: String,
    /// Who this worker is. Unique in the fleet; keep it over restarts where the agent has a name. Default: host name
    /// and process id.
    pub agent: Name,
    /// The queues to take work from, 1 to 64. Default `["default"]`.
    pub queues: Vec<Name>,
    /// Tasks run at once, 1 to 1,000. Default 4.
    pub concurrency: u32,
    /// A shell command that runs each task (`sh -c`). Exactly one of `exec` and `http`, unless a Rust handler is given.
    pub exec: Option<String>,
    /// An address that each task is posted to.
    pub http: Option<String>,
    /// Where RabbitMQ is, if work is taken from there; the coordinator's address is needed all the same.
    #[serde(deserialize_with = "link")]
    pub link: Option<AmqpAddress>,
    /// What the names of RabbitMQ's queues begin with, as at the coordinator. Default `redrive`.
    pub link_prefix: String,
    /// Length of a lease, in milliseconds, 1 s to 24 h; each heartbeat extends it. It is also how long a task stays
    /// unavailable when this machine vanishes. Default: what the queue's policy says.
    pub lease_ms: Option<u64>,
    /// How long one claim waits at the coordinator for work to become due, in milliseconds, 0 to 55 s. Default 30 s.
    pub wait_ms: u64,
    /// After a stop was asked for, running handlers may go on for this long, in milliseconds, 0 to 1 h; then they are
    /// ended and their tasks handed back. Keep it below the patience of what stops the process (30 s in Kubernetes).
    /// Default 25 s.
    pub drain_ms: u64,
    /// Time between heartbeats, in milliseconds, 100 ms to 5 s, and at most a third of `lease_ms`. Default 5 s, or a
    /// third of a shorter lease.
    pub heartbeat_ms: Option<u64>,
    /// Most bytes of a payload, a state or a result that lies beside the store as a blob, 256 KiB to 1 GiB. It is held in memory
    /// while a handler needs it. Default 64 MiB, as at the coordinator.
    pub max_blob_bytes: u64,
    /// The breaker of the agent, and of each dependency.
    pub breaker: BreakerConfig,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:7878".to_owned(),
            agent: default_agent(),
            queues: Name::new("default").into_iter().collect(),
            concurrency: 4,
            exec: None,
            http: None,
            link: None,
            link_prefix: "redrive".to_owned(),
            lease_ms: None,
            wait_ms: 30_000,
            drain_ms: 25_000,
            heartbeat_ms: None,
            max_blob_bytes: 64 * 1024 * 1024,
            breaker: BreakerConfig::default(),
        }
    }
}

/// What is wrong with a worker's configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A number or list out of its bounds.
    #[error("worker.{field} is {value}, but must be {must}")]
    Value {
        /// The field of [`WorkerConfig`].
        field: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        must: String,
    },
    /// No handler, or two.
    #[error("a worker needs one handler: give either exec (a shell command) or http (an address)")]
    OneHandler,
    /// A number of the breaker out of its bounds.
    #[error("worker.{0}")]
    Breaker(#[from] BreakerConfigError),
}

impl WorkerConfig {
    /// Checks every value, and those that depend on each other.
    ///
    /// # Errors
    /// The first value that is out of its bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        Client::new(&self.url).map_err(|error| refuse("url", &self.url, &error.to_string()))?;
        let queues = self.queues.len();
        check("queues", queues, (1..=CLAIM_QUEUES_MAX).contains(&queues), "a list of 1 to 64 names")?;
        let slots = self.concurrency;
        check("concurrency", slots, (1..=BATCH_MAX_ITEMS as u32).contains(&slots), "1 to 1000")?;
        let leases = LEASE_MIN_MS..=LEASE_MAX_MS;
        if let Some(lease_ms) = self.lease_ms {
            check("lease_ms", lease_ms, leases.contains(&lease_ms), "1000 to 86400000 (24 h)")?;
        }
        check("wait_ms", self.wait_ms, self.wait_ms <= WAIT_MAX_MS, "0 to 55000")?;
        check("drain_ms", self.drain_ms, self.drain_ms <= DRAIN_MAX_MS, "0 to 3600000 (1 h)")?;
        if let Some(heartbeat_ms) = self.heartbeat_ms {
            // Two heartbeats may be lost before the lease is, or the coordinator takes the agent for dead.
            let longest = self.lease_ms.map_or(AGENT_DEAD_AFTER_MS, |ms| ms.min(AGENT_DEAD_AFTER_MS)) / 3;
            let must = format!(
                "{HEARTBEAT_MIN_MS} to {longest}, a third of lease_ms or of the 15 s after which an agent is dead"
            );
            let allowed = (HEARTBEAT_MIN_MS..=longest).contains(&heartbeat_ms);
            check("heartbeat_ms", heartbeat_ms, allowed, &must)?;
        }
        let blobs = RESULT_MAX_BYTES as u64..=BLOB_MAX_BYTES;
        let max_bytes = self.max_blob_bytes;
        check(
            "max_blob_bytes",
            max_bytes,
            blobs.contains(&max_bytes),
            "262144 (256 KiB) to 1073741824 (1 GiB)",
        )?;
        Ok(self.breaker.validate()?)
    }

    /// The way to the coordinator, and to RabbitMQ if work is taken from there. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// The coordinator's address cannot be used.
    pub fn connect(&self, shutdown: &CancellationToken) -> Result<Arc<dyn Link>, ConfigError> {
        let client = Client::new(&self.url).map_err(|error| refuse("url", &self.url, &error.to_string()))?;
        let http = HttpLink::new(client);
        let Some(address) = &self.link else { return Ok(Arc::new(http)) };
        let consuming = Consuming {
            address: address.clone(),
            names: Names::new(self.link_prefix.clone()),
            queues: self.queues.clone(),
            prefetch: u16::try_from(self.concurrency).unwrap_or(u16::MAX),
        };
        Ok(Arc::new(AmqpLink::new(consuming, http, shutdown.clone())))
    }

    /// Time between heartbeats, in milliseconds.
    pub fn heartbeat_interval_ms(&self) -> u64 {
        let third = self.lease_ms.map_or(HEARTBEAT_INTERVAL_MS, |lease_ms| lease_ms / 3);
        self.heartbeat_ms.unwrap_or(HEARTBEAT_INTERVAL_MS.min(third))
    }

    /// The handler that `exec` or `http` names.
    ///
    /// # Errors
    /// Neither or both are given, or the address cannot be used.
    pub fn handler(&self) -> Result<Arc<dyn Handler>, ConfigError> {
        match (&self.exec, &self.http) {
            (Some(command), None) => Ok(Arc::new(ProcessHandler::new(command.clone()))),
            (None, Some(url)) => {
                let handler =
                    HttpHandler::new(url).map_err(|error| refuse("http", url, &error.to_string()))?;
                Ok(Arc::new(handler))
            }
            (None, None) | (Some(_), Some(_)) => Err(ConfigError::OneHandler),
        }
    }
}

fn check(
    field: &'static str,
    value: impl std::fmt::Display,
    allowed: bool,
    must: &str,
) -> Result<(), ConfigError> {
    if allowed { Ok(()) } else { Err(refuse(field, value, must)) }
}

fn refuse(field: &'static str, value: impl std::fmt::Display, must: &str) -> ConfigError {
    ConfigError::Value { field, value: value.to_string(), must: must.to_owned() }
}

fn link<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<AmqpAddress>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
}

/// `HOST-PID`: unique in a fleet, and tells people where to look.
fn default_agent() -> Name {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let pid = std::process::id();
    let valid = host.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).take(64);
    let text = format!("{}-{pid}", valid.collect::<String>());
    Name::new(text).unwrap_or_else(|_| unreachable!("64 allowed characters and a number make a name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut WorkerConfig)) -> String {
        let mut config = WorkerConfig::default();
        change(&mut config);
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_valid() {
        WorkerConfig::default().validate().unwrap();
    }

    #[test]
    fn a_wrong_value_is_named_with_what_it_may_be() {
        assert_eq!(refused(|c| c.concurrency = 0), "worker.concurrency is 0, but must be 1 to 1000");
        assert!(refused(|c| c.queues.clear()).starts_with("worker.queues is 0"));
        assert!(refused(|c| c.url = "ftp://x".to_owned()).contains("worker.url"));
        assert!(refused(|c| c.heartbeat_ms = Some(20_000)).contains("100 to 5000"));
        assert!(refused(|c| c.lease_ms = Some(999)).contains("1000 to 86400000"));
        assert!(refused(|c| c.breaker.failure_rate = 2.0).starts_with("worker.breaker.failure_rate"));
    }

    #[test]
    fn a_short_lease_gets_quick_heartbeats() {
        let config = WorkerConfig { lease_ms: Some(3_000), ..WorkerConfig::default() };
        assert_eq!(config.heartbeat_interval_ms(), 1_000);
    }

    #[test]
    fn exactly_one_handler() {
        let mut config = WorkerConfig::default();
        assert!(config.handler().is_err());
        config.exec = Some("cat".to_owned());
        assert!(config.handler().is_ok());
        config.http = Some("http://127.0.0.1:1/".to_owned());
        assert!(config.handler().is_err());
    }
}
