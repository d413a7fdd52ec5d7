//! One Redis server.

use std::ffi::OsString;
use std::time::Duration;

use redis::RedisError;
use tempfile::TempDir;

use super::{ask, ask_all};
use crate::support::daemon::Daemon;
use crate::support::fast_directory;
use crate::support::port::Port;
use crate::support::wait::eventually;

/// A start takes some 10 ms; this is for a machine that is very busy.
const START: Duration = Duration::from_secs(20);
/// Ports that are tried when others are faster to take them.
pub(super) const PORT_TRIES_MAX: u32 = 5;

/// When the append-only file is flushed.
#[derive(Clone, Copy)]
pub enum AppendFsync {
    /// Before each answer.
    Always,
    /// Once a second.
    Everysec,
    /// When the operating system likes.
    No,
}

/// Settings of a server. By default it keeps nothing on disk.
#[derive(Clone, Default)]
pub struct RedisOptions {
    settings: Vec<(String, String)>,
    /// Of a Sentinel, which is a server that is started otherwise: its file in the server's directory.
    configuration: Option<&'static str>,
}

impl RedisOptions {
    /// Keeps what is written in an append-only file.
    pub fn append_only(self, fsync: AppendFsync) -> Self {
        let fsync = match fsync {
            AppendFsync::Always => "always",
            AppendFsync::Everysec => "everysec",
            AppendFsync::No => "no",
        };
        self.set("appendonly", "yes").set("appendfsync", fsync)
    }

    /// Refuses writes beyond this, unless another `maxmemory-policy` is set.
    pub fn maxmemory_bytes(self, bytes: u64) -> Self {
        self.set("maxmemory", &bytes.to_string())
    }

    /// A Sentinel with this configuration file.
    pub(super) fn sentinel(configuration: &'static str) -> Self {
        Self { settings: Vec::new(), configuration: Some(configuration) }
    }

    /// Any setting of redis.conf.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A Redis server that can be killed, suspended and started again on the same port and data. It ends with the test.
pub struct RedisServer {
    // Dropped, and so killed, before its directory goes.
    daemon: Daemon,
    port: Port,
    options: RedisOptions,
    directory: TempDir,
}

impl RedisServer {
    /// Without persistence.
    pub async fn start() -> Self {
        Self::with(RedisOptions::default()).await
    }

    /// In memory, as far as its files go: they survive kill -9, and no test cuts the power.
    pub async fn with(options: RedisOptions) -> Self {
        Self::within(fast_directory(), options).await
    }

    /// With its files in this directory.
    pub async fn within(directory: TempDir, options: RedisOptions) -> Self {
        let mut directory = directory;
        for _ in 0..PORT_TRIES_MAX {
            match Self::on(Port::free(), directory, options.clone()).await {
                Ok(server) => return server,
                Err(unused) => directory = unused,
            }
        }
        panic!("redis-server found {PORT_TRIES_MAX} ports taken that were free before");
    }

    /// On this port. Gives the directory back if somebody who knows nothing of claims was faster to take the port.
    pub(super) async fn on(port: Port, directory: TempDir, options: RedisOptions) -> Result<Self, TempDir> {
        let daemon = spawn(&port, &directory, &options);
        let mut server = Self { daemon, port, options, directory };
        if server.is_ready().await {
            return Ok(server);
        }
        let log = server.daemon.log_tail();
        assert!(log.contains("Address already in use"), "redis-server ended:\n{log}");
        Err(server.directory)
    }

    /// Waits until it answers; false if it ended instead.
    async fn is_ready(&mut self) -> bool {
        let port = self.port();
        let what =
            format!("redis-server answers on {port}; its log is in {}", self.directory.path().display());
        let daemon = &mut self.daemon;
        let ready = eventually(&what, START, async || {
            if daemon.has_ended() {
                return Some(false);
            }
            // An error is a port that is not open yet, or a server that loads its data.
            ask(port, &["PING"]).await.is_ok().then_some(true)
        });
        ready.await.0
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// The answer to a command, which must not be an error.
    pub async fn command(&self, command: &[&str]) -> String {
        let answer = self.try_command(command).await;
        answer.unwrap_or_else(|error| panic!("{command:?}: {error}\n{}", self.daemon.log_tail()))
    }

    /// The answer to a command.
    pub async fn try_command(&self, command: &[&str]) -> Result<String, RedisError> {
        ask(self.port(), command).await
    }

    /// The answer to a command, once a replica has what it wrote. (WAIT looks at what its own connection wrote: sent by
    /// `command`, it waits for nothing.)
    pub async fn replicated(&self, command: &[&str]) -> String {
        let answers = ask_all(self.port(), &[command, &["WAIT", "1", "1500"]]).await;
        let [answer, replicas] = <[String; 2]>::try_from(answers.expect("no error")).expect("two answers");
        assert_eq!(replicas, "1", "a replica has it");
        answer
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// SIGSTOP: connections stay open and new ones are accepted by the kernel, but nothing answers.
    pub fn suspend(&self) {
        self.daemon.suspend();
    }

    /// SIGCONT: it does what was asked meanwhile, also by those who have given up.
    pub fn resume(&self) {
        self.daemon.resume();
    }

    /// Starts it again, on the same port and files. Without persistence it comes back empty.
    pub async fn restart(&mut self) {
        self.start_again(&self.options.clone()).await;
    }

    /// Starts it again with a setting that it keeps until the next start.
    pub async fn restart_with(&mut self, name: &str, value: &str) {
        self.start_again(&self.options.clone().set(name, value)).await;
    }

    async fn start_again(&mut self, options: &RedisOptions) {
        self.daemon.kill();
        self.daemon = spawn(&self.port, &self.directory, options);
        let ready = self.is_ready().await;
        assert!(ready, "redis-server ended:\n{}", self.daemon.log_tail());
    }
}

fn spawn(port: &Port, directory: &TempDir, options: &RedisOptions) -> Daemon {
    let path = directory.path().to_str().expect("UTF-8");
    let port = port.number().to_string();
    let mut arguments: Vec<String> = match options.configuration {
        None => vec!["--save".to_owned(), String::new()],
        Some(file) => vec![format!("{path}/{file}"), "--sentinel".to_owned()],
    };
    arguments.extend(["--port", &port, "--bind", "127.0.0.1", "--dir", path].map(str::to_owned));
    for (name, value) in &options.settings {
        arguments.push(format!("--{name}"));
        // Redis 6.2 does not take several values as one argument.
        arguments.extend(value.split(' ').map(str::to_owned));
    }
    Daemon::start(&program(), &arguments, &directory.path().join("redis.log"))
}

/// The server binary under test.
fn program() -> OsString {
    std::env::var_os("REDRIVE_REDIS_SERVER").unwrap_or_else(|| "redis-server".into())
}
