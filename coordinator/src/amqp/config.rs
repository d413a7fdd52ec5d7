//! What a coordinator can be told about RabbitMQ.

use std::collections::BTreeMap;

use redrive_link::amqp::{AmqpAddress, Names};
use redrive_shared::id::Name;
use redrive_shared::limits::{LEASE_MAX_MS, LEASE_MIN_MS};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// Most messages that may be out for consumers that do not say how much room they have.
const OUTSTANDING_MAX: u32 = 100_000;

/// Section `[coordinator.amqp]` of the configuration. `cli/config.default.toml` documents each key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AmqpConfig {
    /// Where RabbitMQ is; without it, it is not used.
    #[serde(deserialize_with = "address")]
    pub url: Option<AmqpAddress>,
    /// What the names of exchanges and queues begin with.
    #[serde(deserialize_with = "prefix")]
    pub prefix: String,
    /// Of the queues that tasks are pushed to.
    pub queue_type: QueueType,
    /// The queues whose tasks are pushed.
    pub push: BTreeMap<Name, PushConfig>,
    /// The queues whose tasks were messages, and are published again.
    pub republish: BTreeMap<Name, Republish>,
}

/// Where a message goes whose time has come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Republish {
    /// To the exchange and with the routing key that it had: whoever is bound there gets it, as the first time.
    Exchange,
    /// Into the queue that it died in, and no other.
    Queue,
}

/// How RabbitMQ keeps a pushed queue. Its messages need no safety of their own: the store has the tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueueType {
    /// On one node, messages in memory: a task whose message is lost comes again when its lease ends.
    Classic,
    /// On several nodes: outlives the loss of one.
    Quorum,
}

impl QueueType {
    /// As RabbitMQ calls it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
        }
    }
}

/// A queue that is pushed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PushConfig {
    /// Room of consumers that are not Redrive's: they send no heartbeats that would say it.
    #[serde(deserialize_with = "outstanding")]
    pub max_outstanding: u32,
    /// Length of leases, 1 s to 24 h; the queue's policy decides when missing. Consumers that are not Redrive's cannot
    /// make them longer: it must cover the wait in RabbitMQ and the work.
    #[serde(deserialize_with = "lease")]
    pub lease_ms: Option<u64>,
}

impl Default for AmqpConfig {
    fn default() -> Self {
        Self {
            url: None,
            prefix: "redrive".into(),
            queue_type: QueueType::Classic,
            push: BTreeMap::new(),
            republish: BTreeMap::new(),
        }
    }
}

impl AmqpConfig {
    /// What things are called.
    pub fn names(&self) -> Names {
        Names::new(self.prefix.clone())
    }

    /// Whether it contradicts itself.
    ///
    /// # Errors
    /// Says where, and what to do instead.
    pub fn check(&self) -> Result<(), String> {
        match self.push.keys().find(|queue| self.republish.contains_key(*queue)) {
            Some(queue) => Err(format!(
                "queue `{queue}` is in coordinator.amqp.push and in coordinator.amqp.republish: its tasks go to one of both; \
                 leave it out of the other"
            )),
            None => Ok(()),
        }
    }
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<AmqpAddress>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
}

/// RabbitMQ's names have up to 255 bytes, and the longest of ours ends with a queue's name.
fn prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    const PREFIX_MAX_BYTES: usize = 64;
    let prefix = String::deserialize(deserializer)?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if prefix.is_empty() || prefix.len() > PREFIX_MAX_BYTES || !prefix.bytes().all(allowed) {
        return Err(D::Error::custom("a prefix is 1 to 64 letters, digits, `-`, `_` and `.`"));
    }
    if prefix.starts_with("amq.") {
        return Err(D::Error::custom("names that begin with `amq.` are RabbitMQ's own"));
    }
    Ok(prefix)
}

fn outstanding<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let most = u32::deserialize(deserializer)?;
    if most > OUTSTANDING_MAX {
        return Err(D::Error::custom(format!("max_outstanding is from 0 to {OUTSTANDING_MAX}")));
    }
    Ok(most)
}

fn lease<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let lease_ms = Option::<u64>::deserialize(deserializer)?;
    match lease_ms {
        Some(ms) if !(LEASE_MIN_MS..=LEASE_MAX_MS).contains(&ms) => {
            Err(D::Error::custom(format!("lease_ms is from {LEASE_MIN_MS} to {LEASE_MAX_MS} (24 h)")))
        }
        lease_ms => Ok(lease_ms),
    }
}
