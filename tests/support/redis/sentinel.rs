//! A master and a replica that three Sentinels watch.
//!
//! The Sentinels find in their configuration what they would tell each other in the first 2 s: the replica, and the
//! other Sentinels. A server's own configuration says nothing about roles: `restart` brings it back as a master, which
//! the Sentinels make a replica only after 8 to 10 s. Until then there are two masters, as there are in life.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::server::{PORT_TRIES_MAX, RedisOptions, RedisServer};
use crate::support::fast_directory;
use crate::support::port::Port;
use crate::support::wait::eventually;

/// The name under which clients ask for the master.
pub const MASTER_NAME: &str = "mymaster";
const SENTINELS: usize = 3;
/// A Sentinel's file.
const CONFIGURATION: &str = "sentinel.conf";
/// How many of them must agree that the master is gone.
const QUORUM: usize = 2;
/// Silence after which a Sentinel takes a server for gone.
const DOWN_AFTER_MS: u32 = 1_000;
/// A failover takes about 2 s; after a lost election, Sentinels wait twice the failover timeout, 10 s.
const PATIENCE: Duration = Duration::from_secs(40);
const FAILOVER_TIMEOUT_MS: u32 = 5_000;
/// For a question that is asked again.
const GLANCE: Duration = Duration::from_millis(250);

/// Two servers, told by their index, of which one is the master: at first 0. All ends with the test.
pub struct RedisSentinel {
    servers: Vec<RedisServer>,
    sentinels: Vec<RedisServer>,
}

impl RedisSentinel {
    /// Without persistence. A master that is killed and back before it was replaced then empties its replica too.
    pub async fn start() -> Self {
        Self::with(RedisOptions::default()).await
    }

    /// The two servers with these options.
    pub async fn with(options: RedisOptions) -> Self {
        let options = options.set("repl-diskless-sync-delay", "0");
        let (master, replica) = tokio::join!(RedisServer::with(options.clone()), RedisServer::with(options));
        replica.command(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]).await;
        let servers = vec![master, replica];
        for _ in 0..PORT_TRIES_MAX {
            if let Some(sentinels) = sentinels_for(&servers).await {
                let pair = Self { servers, sentinels };
                pair.until_healthy().await;
                return pair;
            }
        }
        panic!("Sentinels found ports taken that were free before, {PORT_TRIES_MAX} times");
    }

    pub fn url(&self) -> String {
        let addresses: Vec<String> =
            self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port())).collect();
        format!("redis+sentinel://{}/{MASTER_NAME}", addresses.join(","))
    }

    /// The server that the Sentinels call the master.
    pub async fn master(&self) -> usize {
        let (master, _) =
            eventually("two Sentinels agree on the master", PATIENCE, async || self.agreed().await).await;
        master
    }

    /// The other one, whether it runs or not.
    pub async fn replica(&self) -> usize {
        1 - self.master().await
    }

    /// What at least two Sentinels say.
    async fn agreed(&self) -> Option<usize> {
        let question = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME];
        let answers =
            join_all(self.sentinels.iter().map(|asked| timeout(GLANCE, asked.try_command(&question)))).await;
        let answers: Vec<String> = answers.into_iter().flatten().flatten().collect();
        self.servers.iter().position(|server| {
            let address = format!("127.0.0.1\n{}", server.port());
            answers.iter().filter(|answer| **answer == address).count() >= QUORUM
        })
    }

    pub fn servers(&self) -> &[RedisServer] {
        &self.servers
    }

    /// A server, to kill, suspend or start again.
    pub fn server(&mut self, index: usize) -> &mut RedisServer {
        &mut self.servers[index]
    }

    /// Starts a killed server again, as a replica of the master from the start.
    pub async fn restart_as_replica(&mut self, index: usize) {
        let master = self.servers[self.master().await].port();
        self.servers[index].restart_with("replicaof", &format!("127.0.0.1 {master}")).await;
    }

    pub fn sentinels(&self) -> &[RedisServer] {
        &self.sentinels
    }

    /// A Sentinel, to kill, suspend or start again.
    pub fn sentinel(&mut self, index: usize) -> &mut RedisServer {
        &mut self.sentinels[index]
    }

    /// Waits until the Sentinels call another one than `old` the master and that one takes writes, and says how long
    /// that was.
    pub async fn until_failed_over(&self, old: usize) -> Duration {
        let (_, took) = eventually("another master takes writes", PATIENCE, async || {
            let master = self.agreed().await.filter(|master| *master != old)?;
            let role = timeout(GLANCE, self.servers[master].try_command(&["ROLE"])).await.ok()?.ok()?;
            role.starts_with("master\n").then_some(())
        })
        .await;
        took
    }

    /// Waits until the replica follows the master and each Sentinel talks with both of them and the other Sentinels, that
    /// is, until a failover is possible.
    pub async fn until_healthy(&self) -> Duration {
        let (_, took) = eventually("the pair and its Sentinels are healthy", PATIENCE, async || {
            let master = self.agreed().await?;
            let leads = self.servers[master].try_command(&["INFO", "replication"]).await.ok()?;
            let follows = self.servers[1 - master].try_command(&["INFO", "replication"]).await.ok()?;
            let seen = join_all(self.sentinels.iter().map(sees_all)).await;
            // The replica says that it is up before the master streams to it.
            let follows = leads.contains("connected_slaves:1")
                && leads.contains("state=online")
                && follows.contains(&format!("master_port:{}\r", self.servers[master].port()))
                && follows.contains("master_link_status:up");
            (follows && seen.into_iter().all(|sees_all| sees_all)).then_some(())
        })
        .await;
        took
    }
}

async fn sees_all(sentinel: &RedisServer) -> bool {
    let Ok(replicas) = sentinel.try_command(&["SENTINEL", "REPLICAS", MASTER_NAME]).await else {
        return false;
    };
    let Ok(sentinels) = sentinel.try_command(&["SENTINEL", "SENTINELS", MASTER_NAME]).await else {
        return false;
    };
    // Names and values as lines. A flag more says that it is down or not connected.
    replicas.matches("flags\nslave\n").count() == 1
        && replicas.contains("master-link-status\nok\n")
        && sentinels.matches("flags\nsentinel\n").count() == SENTINELS - 1
}

/// Sentinels for the master and the replica, unless one of their ports was taken meanwhile.
async fn sentinels_for(servers: &[RedisServer]) -> Option<Vec<RedisServer>> {
    let (master, replica) = (servers[0].port(), servers[1].port());
    let ports: Vec<Port> = (0..SENTINELS).map(|_| Port::free()).collect();
    let known: Vec<(String, u16)> = ports
        .iter()
        .enumerate()
        .map(|(index, port)| (format!("{:040x}", index + 1), port.number()))
        .collect();
    let sentinels = join_all(ports.into_iter().zip(&known).map(|(port, (id, _))| {
        let mut configuration = format!(
            "sentinel myid {id}\n\
             sentinel monitor {MASTER_NAME} 127.0.0.1 {master} {QUORUM}\n\
             sentinel down-after-milliseconds {MASTER_NAME} {DOWN_AFTER_MS}\n\
             sentinel failover-timeout {MASTER_NAME} {FAILOVER_TIMEOUT_MS}\n\
             sentinel known-replica {MASTER_NAME} 127.0.0.1 {replica}\n"
        );
        for (other, port) in known.iter().filter(|(other, _)| other != id) {
            configuration += &format!("sentinel known-sentinel {MASTER_NAME} 127.0.0.1 {port} {other}\n");
        }
        let directory = fast_directory();
        // It writes what it learns into this file.
        std::fs::write(directory.path().join(CONFIGURATION), &configuration).expect("a file");
        RedisServer::on(port, directory, RedisOptions::sentinel(CONFIGURATION))
    }))
    .await;
    sentinels.into_iter().collect::<Result<_, _>>().ok()
}
