//! A Redis server of the benchmark's own, for those who have none at hand.

use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use redrive_coordinator::store::redis::address::Address;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::server::Server;

/// It starts in some 10 ms.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Ports that are tried when others are faster to take them.
const PORT_TRIES_MAX: usize = 5;

/// A running server; its files are gone when it is.
pub(in crate::bench) struct Throwaway {
    child: Child,
    url: String,
    _directory: TempDir,
}

impl Throwaway {
    /// Starts `redis-server` on a free loopback port: an append-only file, flushed every second.
    pub async fn start() -> anyhow::Result<Self> {
        for _ in 0..PORT_TRIES_MAX {
            if let Some(server) = Self::try_start().await? {
                return Ok(server);
            }
        }
        bail!("redis-server ended at once, {PORT_TRIES_MAX} times; try it by hand: redis-server --port 0")
    }

    /// None when it ended before it was ready.
    async fn try_start() -> anyhow::Result<Option<Self>> {
        let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port().to_string();
        let at = format!("127.0.0.1:{port}");
        let url = format!("redis://{at}");
        let mut child = Command::new("redis-server")
            .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(directory.path())
            .args(["--appendonly", "yes", "--appendfsync", "everysec"])
            // A rewrite in the middle of a round would be measured as if it were the round's own work.
            .args(["--auto-aof-rewrite-percentage", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start redis-server: is it installed?")?;
        let address: Address = url.parse()?;
        let ready = async {
            loop {
                if TcpStream::connect(&at).await.is_ok() {
                    let server = Server::open(&address).await?;
                    // Somebody else's server may have been faster to take the port.
                    return anyhow::Ok(server.process_id().await? == child.id());
                }
                if child.try_wait()?.is_some() {
                    return Ok(false);
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        let ready =
            tokio::time::timeout(PATIENCE, ready).await.context("redis-server does not get ready")??;
        Ok(ready.then_some(Self { child, url, _directory: directory }))
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Ends it.
    pub async fn stop(mut self) {
        let _ = self.child.start_kill();
        let _ = tokio::time::timeout(PATIENCE, self.child.wait()).await;
    }
}
