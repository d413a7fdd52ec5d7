//! The Redis servers of a scene, and the faults that befall them.

use std::time::Duration;

use redrive_shared::error::ErrorCode;
use redrive_shared::wire::{EnqueueRequest, NewTask};
use redrive_worker::client::Client;

use super::fleet::Store;
use super::kind::On;
use crate::support::proxy::Proxy;
use crate::support::redis::{AppendFsync, RedisCluster, RedisOptions, RedisSentinel, RedisServer};
use crate::support::wait::eventually;

/// What Redis may hold beyond what it holds already, before it is filled.
const ROOM_BYTES: u64 = 2 * 1024 * 1024;
/// What it is filled with, piece by piece.
const FILLER_BYTES: usize = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(30);

pub enum Servers {
    One { redis: RedisServer, proxy: Proxy },
    Cluster(RedisCluster),
    Sentinel(RedisSentinel),
}

/// Which master has fallen.
pub enum Fallen {
    /// The node of that index, and a key that it served.
    Node(usize, String),
    Server(usize),
}

impl Servers {
    pub async fn start(on: On) -> Self {
        let options = RedisOptions::default().append_only(AppendFsync::Always);
        match on {
            On::One | On::Defaults => {
                let redis = RedisServer::with(options).await;
                let proxy = Proxy::to_port(redis.port()).await;
                Self::One { redis, proxy }
            }
            On::Cluster => Self::Cluster(RedisCluster::with(options).await),
            On::Sentinel => Self::Sentinel(RedisSentinel::with(options).await),
        }
    }

    pub fn store(&self) -> Store {
        match self {
            Self::One { proxy, .. } => {
                Store { url: format!("redis://127.0.0.1:{}", proxy.port()), wait_replicas: 0 }
            }
            Self::Cluster(cluster) => Store { url: cluster.url(), wait_replicas: 1 },
            Self::Sentinel(pair) => Store { url: pair.url(), wait_replicas: 1 },
        }
    }

    pub fn redis(&mut self) -> &mut RedisServer {
        match self {
            Self::One { redis, .. } => redis,
            Self::Cluster(_) | Self::Sentinel(_) => panic!("this fault is for one Redis"),
        }
    }

    pub fn proxy(&self) -> &Proxy {
        match self {
            Self::One { proxy, .. } => proxy,
            Self::Cluster(_) | Self::Sentinel(_) => panic!("this fault is for one Redis"),
        }
    }

    pub async fn flush_scripts(&self) {
        let all = match self {
            Self::One { redis, .. } => std::slice::from_ref(redis),
            Self::Cluster(cluster) => cluster.nodes(),
            Self::Sentinel(pair) => pair.servers(),
        };
        for server in all {
            server.command(&["SCRIPT", "FLUSH"]).await;
        }
    }

    /// A master that is now dead or suspended.
    pub async fn fell_master(&mut self, key: String, by: fn(&mut RedisServer)) -> Fallen {
        match self {
            Self::Cluster(cluster) => {
                let index = cluster.master_of(&key).await;
                by(cluster.node(index));
                Fallen::Node(index, key)
            }
            Self::Sentinel(pair) => {
                let index = pair.master().await;
                by(pair.server(index));
                Fallen::Server(index)
            }
            Self::One { .. } => panic!("this fault needs a replica"),
        }
    }

    /// Waits until another took over.
    pub async fn until_replaced(&self, fallen: &Fallen) {
        match (self, fallen) {
            (Self::Cluster(cluster), Fallen::Node(_, key)) => drop(cluster.until_writable(key).await),
            (Self::Sentinel(pair), Fallen::Server(index)) => drop(pair.until_failed_over(*index).await),
            _ => panic!("it fell elsewhere"),
        }
    }

    /// Starts a killed master again, as the replica of its successor.
    pub async fn restart(&mut self, fallen: &Fallen) {
        match (self, fallen) {
            (Self::Cluster(cluster), Fallen::Node(index, _)) => cluster.node(*index).restart().await,
            (Self::Sentinel(pair), Fallen::Server(index)) => pair.restart_as_replica(*index).await,
            _ => panic!("it fell elsewhere"),
        }
    }

    pub fn resume(&mut self, fallen: &Fallen) {
        match (self, fallen) {
            (Self::Cluster(cluster), Fallen::Node(index, _)) => cluster.node(*index).resume(),
            (Self::Sentinel(pair), Fallen::Server(index)) => pair.server(*index).resume(),
            _ => panic!("it fell elsewhere"),
        }
    }

    pub async fn until_healthy(&self) {
        match self {
            Self::One { .. } => {}
            Self::Cluster(cluster) => drop(cluster.until_healthy().await),
            Self::Sentinel(pair) => drop(pair.until_healthy().await),
        }
    }
}

/// Fills Redis until enqueues are refused for it. Returns the names of the fillers.
pub async fn fill(redis: &RedisServer, client: &Client) -> Vec<String> {
    let memory = redis.command(&["INFO", "memory"]).await;
    let used = memory.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse::<u64>().ok());
    let limit = used.expect("Redis says what it uses") + ROOM_BYTES;
    redis.command(&["CONFIG", "SET", "maxmemory", &limit.to_string()]).await;
    let (filler, mut names) = ("x".repeat(FILLER_BYTES), Vec::new());
    eventually("enqueues are refused because Redis is full", PATIENCE, async || {
        let name = format!("filler-{}", names.len());
        if redis.try_command(&["SET", &name, &filler]).await.is_ok() {
            names.push(name);
            return None;
        }
        let queue = Some(crate::support::name("probe"));
        let request = EnqueueRequest { tasks: vec![NewTask { queue, ..NewTask::default() }] };
        let refused = client.enqueue(&request).await.err()?;
        matches!(refused.code(), Some(ErrorCode::StoreFull | ErrorCode::StoreNearlyFull)).then_some(())
    })
    .await;
    names
}

/// Takes the fillers out again.
pub async fn drain(redis: &RedisServer, fillers: &[String]) {
    let command: Vec<&str> = ["DEL"].into_iter().chain(fillers.iter().map(String::as_str)).collect();
    redis.command(&command).await;
}
