//! What each server says about itself, asked once and without judgement.

use std::collections::HashMap;
use std::time::Duration;

use redis::{Cmd, cmd};
use redrive_shared::clock::{Clock, SystemClock};
use tokio::time::{Instant, timeout};

use crate::store::StoreError;
use crate::store::redis::RedisConfig;
use crate::store::redis::address::Kind;
use crate::store::redis::link::{Link, Node, said};
use crate::store::redis::reply::{integer, items, pairs, text};

/// Settings that only `CONFIG GET` tells. By name: `*` would also bring passwords.
const SETTINGS: [&str; 5] = ["appendonly", "appendfsync", "save", "min-replicas-to-write", "maxclients"];
/// Pings for the latency, and for how long at most.
const PINGS: usize = 50;
const PINGING: Duration = Duration::from_secs(1);
/// A server that answers, but slowly, is left after so many times the response timeout.
const PATIENCE: u32 = 3;

/// What a server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Master,
    Replica,
}

impl Role {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Replica => "replica",
        }
    }
}

/// Names and values.
pub(super) type Fields = HashMap<String, String>;

/// A server, as it was found. `Err`: what it said instead of an answer.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub address: String,
    pub role: Role,
    /// Why it could not be asked.
    pub lost: Option<String>,
    /// `server` and `version`, which it tells everyone.
    pub greeting: Fields,
    pub info: Result<Fields, String>,
    pub settings: Result<Fields, String>,
    /// Only of a cluster's nodes.
    pub cluster: Option<Result<Fields, String>>,
    /// How far its clock is ahead of this machine's.
    pub ahead_ms: Option<i64>,
    /// Round trips, shortest first.
    pub pings: Vec<Duration>,
}

impl Facts {
    pub fn new(address: &str, role: Role) -> Self {
        let not_asked = || Err("not asked".to_owned());
        Self {
            address: address.to_owned(),
            role,
            lost: None,
            greeting: Fields::new(),
            info: not_asked(),
            settings: not_asked(),
            cluster: None,
            ahead_ms: None,
            pings: Vec::new(),
        }
    }

    /// A field of `INFO`.
    pub fn info(&self, name: &str) -> Option<&str> {
        self.info.as_ref().ok()?.get(name).map(String::as_str)
    }

    /// A number of `INFO`.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.info(name)?.parse().ok()
    }

    /// A setting.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.as_ref().ok()?.get(name).map(String::as_str)
    }

    /// Replicas that follow it and have caught up, as it says.
    pub fn replicas_online(&self) -> Option<usize> {
        let info = self.info.as_ref().ok()?;
        info.get("connected_slaves")?;
        Some(info.iter().filter(|(name, value)| is_replica(name) && value.contains("state=online")).count())
    }
}

/// `slave0`, `slave1`, …
pub(super) fn is_replica(field: &str) -> bool {
    field
        .strip_prefix("slave")
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Asks every server, all at once. An error: nobody says which there are.
pub(super) async fn gather(link: &Link, config: &RedisConfig) -> Result<Vec<Facts>, String> {
    let limit = config.link.response_timeout * PATIENCE;
    let nodes = match timeout(limit, link.nodes()).await {
        Ok(nodes) => nodes.map_err(said)?,
        Err(_) => {
            return Err(format!("nobody has said within {} ms which servers there are", limit.as_millis()));
        }
    };
    let cluster = config.address.kind == Kind::Cluster;
    let asking = nodes.into_iter().map(|mut node| async move {
        let role = if node.role == "master" { Role::Master } else { Role::Replica };
        let mut facts = Facts::new(&node.address, role);
        match timeout(limit, ask(&mut node, &mut facts, cluster)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => facts.lost = Some(said(error)),
            Err(_) => {
                facts.lost =
                    Some(format!("{} is too slow: cut off after {} ms", facts.address, limit.as_millis()));
            }
        }
        facts
    });
    Ok(futures_util::future::join_all(asking).await)
}

/// Fails only when the server does not answer what it answers to everyone.
async fn ask(node: &mut Node, facts: &mut Facts, cluster: bool) -> Result<(), StoreError> {
    let greeting = node.query(cmd("HELLO").arg(3)).await?;
    for (name, value) in pairs(&greeting)? {
        if let (Ok(name), Ok(value)) = (text(name), text(value)) {
            facts.greeting.insert(name.to_owned(), value.to_owned());
        }
    }
    facts.info = fields(node, &cmd("INFO")).await;
    // During a failover it knows better than others.
    match facts.info("role") {
        Some("master") => facts.role = Role::Master,
        Some("slave") => facts.role = Role::Replica,
        _ => {}
    }
    facts.settings = settings(node).await;
    if cluster {
        facts.cluster = Some(fields(node, cmd("CLUSTER").arg("INFO")).await);
    }
    facts.ahead_ms = ahead_ms(node).await;
    facts.pings = ping(node).await;
    Ok(())
}

/// Lines of `name:value`.
async fn fields(node: &mut Node, question: &Cmd) -> Result<Fields, String> {
    let reply = node.query(question).await.map_err(said)?;
    let text: String = redis::from_redis_value(reply).map_err(|error| error.to_string())?;
    let pairs = text.lines().filter_map(|line| line.trim_end().split_once(':'));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

async fn settings(node: &mut Node) -> Result<Fields, String> {
    let mut found = Fields::new();
    for name in SETTINGS {
        let reply = node.query(cmd("CONFIG").arg("GET").arg(name)).await.map_err(said)?;
        for (name, value) in pairs(&reply).map_err(said)? {
            if let (Ok(name), Ok(value)) = (text(name), text(value)) {
                found.insert(name.to_owned(), value.to_owned());
            }
        }
    }
    Ok(found)
}

/// Its time against ours in the middle of the question.
async fn ahead_ms(node: &mut Node) -> Option<i64> {
    let sent = Instant::now();
    let reply = node.query(&cmd("TIME")).await.ok()?;
    let half_ms = i64::try_from(sent.elapsed().as_millis()).ok()? / 2;
    let parts = items(&reply).ok()?;
    let seconds = integer(parts.first()?).ok()?;
    let micros = integer(parts.get(1)?).ok()?;
    Some(seconds * 1_000 + micros / 1_000 - (SystemClock.now_ms() - half_ms))
}

async fn ping(node: &mut Node) -> Vec<Duration> {
    let begun = Instant::now();
    let mut took = Vec::with_capacity(PINGS);
    while took.len() < PINGS && begun.elapsed() < PINGING {
        let sent = Instant::now();
        if node.query(&cmd("PING")).await.is_err() {
            break;
        }
        took.push(sent.elapsed());
    }
    took.sort_unstable();
    took
}
