//! Throwaway Redis servers on free ports of loopback, ended with their owner.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use redis::{Cmd, FromRedisValue};
use tempfile::TempDir;

use crate::store::StoreError;
use crate::store::redis::address::Address;
use crate::store::redis::link::{Link, LinkOptions, Script};

/// Nothing that a test waits for takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) static COUNT: Script = Script::new("count", "return redis.call('INCRBY', KEYS[1], ARGV[1])");
pub(super) static SPIN: Script = Script::new(
    "spin",
    "local t = redis.call('TIME')[1] + ARGV[1] while redis.call('TIME')[1] + 0 < t do end return 1",
);

/// A port that nobody uses now; for a cluster's node the one 10000 above as well.
pub(super) fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        if port < 55_000 && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}

/// A redis-server or redis-sentinel.
pub(super) struct Server {
    pub(super) port: u16,
    pub(super) dir: TempDir,
    args: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// Starts a server with more options: `["--requirepass", "x"]`.
    pub(super) async fn start(options: &[&str]) -> Self {
        let port = free_port();
        Self::start_on(port, &["--port", &port.to_string()], options).await
    }

    /// Starts one whose options say where it listens.
    pub(super) async fn start_on(port: u16, listen: &[&str], options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut args: Vec<String> =
            ["--bind", "127.0.0.1", "--appendonly", "yes", "--save", ""].map(str::to_owned).into();
        args.extend(listen.iter().chain(options).map(|arg| (*arg).to_owned()));
        let mut server = Self { port, dir, args, child: None };
        server.start_again().await;
        server
    }

    /// Starts a Sentinel from its configuration.
    pub(super) async fn sentinel(config: &str) -> Self {
        let port = free_port();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sentinel.conf");
        std::fs::write(&file, format!("port {port}\nbind 127.0.0.1\n{config}")).unwrap();
        let args = vec![file.display().to_string(), "--sentinel".to_owned()];
        let mut server = Self { port, dir, args, child: None };
        server.start_again().await;
        server
    }

    /// After [`Server::kill`].
    pub(super) async fn start_again(&mut self) {
        assert!(self.child.is_none());
        let child = Command::new("redis-server")
            .args(&self.args)
            .current_dir(self.dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        self.child = Some(child);
        let port = self.port;
        until("the port is open", async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok())
            .await;
    }

    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// `STOP` or `CONT`.
    pub(super) fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Asks it directly, over a connection of its own.
    pub(super) async fn ask<T: FromRedisValue>(&self, cmd: &Cmd) -> redis::RedisResult<T> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        cmd.query_async(&mut connection).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(super) fn words(line: &str) -> Cmd {
    let mut words = line.split_whitespace();
    let mut cmd = redis::cmd(words.next().unwrap());
    for word in words {
        cmd.arg(word);
    }
    cmd
}

/// Asks again until it is so.
pub(super) async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let all = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, all).await.is_ok(), "not within {PATIENCE:?}: {what}");
}

pub(super) fn quick() -> LinkOptions {
    LinkOptions {
        connect_timeout: Duration::from_secs(1),
        response_timeout: Duration::from_millis(500),
        ..LinkOptions::default()
    }
}

pub(super) async fn open(url: &str, options: LinkOptions) -> Link {
    let address: Address = url.parse().unwrap();
    // One that has just been started may not be ready yet.
    let mut link = None;
    until("the link opens", async || {
        link = Link::open(&address, options).await.ok();
        link.is_some()
    })
    .await;
    link.unwrap()
}

/// What an error says.
pub(super) fn said(result: Result<impl std::fmt::Debug, StoreError>) -> String {
    match result.unwrap_err() {
        StoreError::Unavailable(said) => said,
        other => panic!("{other:?}"),
    }
}

pub(super) async fn count(link: &Link, key: &str) -> Result<i64, StoreError> {
    let mut call = COUNT.on(key);
    call.arg(1);
    link.write(call).await.map(|value| redis::from_redis_value(value).unwrap())
}
