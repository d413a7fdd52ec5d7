//! One node of the test's own.

use std::ffi::OsStr;
use std::sync::Arc;

use tempfile::TempDir;

use super::epmd::{Epmd, PORT_TRIES_MAX};
use super::node::{Node, NodePorts, RabbitOptions, VHOST};
use crate::support::daemon::Daemon;
use crate::support::fast_directory;
use crate::support::port::Port;

const LOG: &str = "rabbit.log";

/// A RabbitMQ node that can be killed, suspended and started again on the same port and data. It ends with the test.
pub struct RabbitServer {
    // Dropped, and so killed, before its port mapper and its directory go.
    daemon: Daemon,
    node: Node,
    epmd: Arc<Epmd>,
    _ports: [Port; 2],
    directory: TempDir,
}

impl RabbitServer {
    pub async fn start() -> Self {
        Self::with(RabbitOptions::default()).await
    }

    /// Its files are in memory: they survive kill -9, and no test cuts the power.
    pub async fn with(options: RabbitOptions) -> Self {
        Self::named(&name(0), Arc::new(Epmd::start().await), &cookie(), &options).await
    }

    /// A node that those with the same port mapper and cookie can talk with.
    pub(super) async fn named(name: &str, epmd: Arc<Epmd>, cookie: &str, options: &RabbitOptions) -> Self {
        for _ in 0..PORT_TRIES_MAX {
            let directory = fast_directory();
            let claims = [Port::free(), Port::free()];
            let [amqp, distribution] = [claims[0].number(), claims[1].number()];
            let ports = NodePorts { amqp, distribution, epmd: epmd.port() };
            let node = Node::at(directory.path(), name.to_owned(), ports);
            node.prepare(cookie, options);
            let daemon = spawn(&node, &directory);
            let mut server = Self { daemon, node, epmd: Arc::clone(&epmd), _ports: claims, directory };
            if server.is_ready().await {
                return server;
            }
            let log = std::fs::read(server.directory.path().join(LOG)).expect("a log");
            let log = String::from_utf8_lossy(&log);
            assert!(
                log.contains("eaddrinuse") || log.contains("could not bind to distribution port"),
                "rabbitmq-server ended:\n{}",
                server.daemon.log_tail()
            );
        }
        panic!("rabbitmq-server found ports taken that were free before, {PORT_TRIES_MAX} times");
    }

    async fn is_ready(&mut self) -> bool {
        let daemon = &mut self.daemon;
        self.node.is_ready(|| daemon.has_ended()).await
    }

    pub fn port(&self) -> u16 {
        self.node.port()
    }

    /// Of the Erlang machine.
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// What a client connects to: a user with all rights, and the virtual host that is there from the start.
    pub fn url(&self) -> String {
        self.url_of(VHOST)
    }

    /// The same for another virtual host, its name as in a URL.
    pub fn url_of(&self, vhost: &str) -> String {
        self.node.url(vhost)
    }

    /// What `rabbitmqctl` prints, which must succeed. Takes half a second and more.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        self.node.ctl(arguments).await
    }

    /// The value of Erlang expressions, which end with a full stop, as Erlang writes it. Takes milliseconds.
    pub async fn evaluate(&self, expressions: &str) -> String {
        self.node.evaluate(expressions).await
    }

    /// Like [`evaluate`](Self::evaluate), for a node that may not answer.
    pub async fn try_evaluate(&self, expressions: &str) -> Result<String, String> {
        self.node.try_evaluate(expressions).await
    }

    /// Its name among Erlang nodes.
    pub fn name(&self) -> &str {
        self.node.name()
    }

    /// The port of its port mapper, which ends with it.
    pub fn epmd_port(&self) -> u16 {
        self.epmd.port()
    }

    /// Writes what the node knows of its quorum queues. It does so some 3 s after one was declared; killed before, a node
    /// that is alone has an empty queue of that name afterwards, and what it confirmed is lost.
    pub async fn flush_quorum_queues(&self) {
        self.evaluate("[ok = dets:sync(Table) || Table <- dets:all()].").await;
    }

    /// kill -9. For quorum queues, see [`flush_quorum_queues`](Self::flush_quorum_queues).
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Starts it again, on the same port and files.
    pub async fn restart(&mut self) {
        self.daemon.kill();
        self.daemon = spawn(&self.node, &self.directory);
        let ready = self.is_ready().await;
        assert!(ready, "rabbitmq-server ended:\n{}", self.daemon.log_tail());
    }

    /// SIGSTOP: connections stay open and new ones are accepted by the kernel, but nothing answers.
    pub fn suspend(&self) {
        self.daemon.suspend();
    }

    /// SIGCONT: it goes on with what has come in meanwhile.
    pub fn resume(&self) {
        self.daemon.resume();
    }
}

/// The name of a node among those with the same port mapper.
pub(super) fn name(index: usize) -> String {
    format!("node{index}@localhost")
}

/// What nodes know each other by, and nobody else's.
pub(super) fn cookie() -> String {
    format!("{:032x}", rand::random::<u128>())
}

fn spawn(node: &Node, directory: &TempDir) -> Daemon {
    let command = node.command();
    let (program, arguments) = command.split_first().expect("a program");
    Daemon::start(OsStr::new(program), arguments, &directory.path().join(LOG))
}
