//! One node for all tests of a run, which are processes of their own: who needs it first starts it, and it ends some time
//! after the last one has ended.
//!
//! A test that is killed leaves nothing behind: what it holds are locks on files, which the kernel gives back. Nor does a
//! node that crashed or never came up: the lock on its life is free, and the next test starts another one. How it ends
//! is in `shared.sh`, the shell that is the node's parent.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::node::{Node, NodePorts, RabbitOptions, USER};
use super::server::{cookie, name};
use crate::support::port::Port;
use crate::support::wait::eventually;

/// How long it waits for another user: longer than the pauses between tests that use it.
const IDLE: Duration = Duration::from_secs(30);
/// For the turn of a test, while another one starts the node.
const PATIENCE: Duration = Duration::from_secs(150);
/// A port can be taken, and a node can be killed while it starts. More often, something is wrong with it.
const STARTS_MAX: u32 = 3;
const LIFE: &str = include_str!("shared.sh");

/// The use of the shared node, in a virtual host of the test's own. The node lives for as long.
pub struct SharedRabbit {
    node: Node,
    vhost: String,
    _user: File,
}

/// The node of this run, with a virtual host that nobody else has. Costs some 50 ms, and where it is not up yet, its start.
pub async fn shared() -> SharedRabbit {
    shared_within(&directory(), IDLE).await
}

/// The node of those who name this directory.
pub async fn shared_within(directory: &Path, idle: Duration) -> SharedRabbit {
    std::fs::create_dir_all(directory).expect("a directory");
    let turn = open(directory, "turn");
    eventually("a turn at the shared RabbitMQ", PATIENCE, async || turn.try_lock().ok()).await;
    let user = open(directory, "users");
    // The shell holds it for no longer than it takes to see that it is free.
    user.lock_shared().expect("a lock");
    let node = running(directory, idle).await;
    drop(turn);
    let vhost = format!("test-{}-{:08x}", std::process::id(), rand::random::<u32>());
    node.evaluate(&format!(
        "ok = rabbit_vhost:add(<<\"{vhost}\">>, <<\"tests\">>), All = <<\".*\">>, \
         ok = rabbit_auth_backend_internal:set_permissions(<<\"{USER}\">>, <<\"{vhost}\">>, All, All, All, <<\"tests\">>)."
    ))
    .await;
    SharedRabbit { node, vhost, _user: user }
}

impl SharedRabbit {
    /// What a client connects to.
    pub fn url(&self) -> String {
        self.node.url(&self.vhost)
    }

    pub fn vhost(&self) -> &str {
        &self.vhost
    }

    pub fn port(&self) -> u16 {
        self.node.port()
    }

    /// What `rabbitmqctl` prints, which must succeed. Takes half a second and more. (`--vhost` says which.)
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        self.node.ctl(arguments).await
    }

    /// The value of Erlang expressions, which end with a full stop, as Erlang writes it. Takes milliseconds.
    pub async fn evaluate(&self, expressions: &str) -> String {
        self.node.evaluate(expressions).await
    }
}

/// One for each checkout, user, and way of doing it. In memory where that can be: its flushes then cost nothing.
fn directory() -> PathBuf {
    let mut key = DefaultHasher::new();
    (env!("CARGO_TARGET_TMPDIR"), LIFE).hash(&mut key);
    let user = std::fs::metadata("/proc/self").expect("it is there").uid();
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    parent.join(format!("redrive-test-rabbit-{user}-{:016x}", key.finish()))
}

fn open(directory: &Path, name: &str) -> File {
    let mut options = File::options();
    options.create(true).truncate(false).read(true).write(true);
    options.open(directory.join(name)).expect("a file to lock")
}

/// The node, found or started. For who has the turn.
async fn running(directory: &Path, idle: Duration) -> Node {
    for _ in 0..STARTS_MAX {
        let life = open(directory, "life");
        let claims = if life.try_lock().is_ok() { Some(launch(directory, idle, life)) } else { None };
        let node = node_in(directory);
        // Nobody else looks at this lock in the meantime.
        if node.is_ready(|| open(directory, "life").try_lock().is_ok()).await {
            // From here on, that its ports are taken is plain to see.
            drop(claims);
            return node;
        }
    }
    let log = std::fs::read(directory.join("log")).unwrap_or_default();
    panic!("the shared RabbitMQ ended {STARTS_MAX} times:\n{}", String::from_utf8_lossy(&log));
}

/// Starts it, as a process that is not the test's.
fn launch(directory: &Path, idle: Duration, life: File) -> [Port; 3] {
    let home = directory.join("node");
    // What a shell left that was killed.
    let _nothing = std::fs::remove_dir_all(&home);
    std::fs::create_dir(&home).expect("a directory");
    let claims = [Port::free(), Port::free(), Port::free()];
    let numbers = claims.each_ref().map(Port::number);
    std::fs::write(directory.join("ports"), numbers.map(|number| number.to_string()).join(" "))
        .expect("a file");
    let node = node_in(directory);
    node.prepare(&cookie(), &RabbitOptions::default());
    let log = File::create(directory.join("log")).expect("a file");
    let started = Command::new("setsid")
        .args(["--fork", "bash", "-c", LIFE, "shared"])
        .arg(directory)
        .args([idle.as_secs().to_string(), numbers[2].to_string()])
        .args(node.command())
        .stdin(Stdio::from(life))
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .status();
    assert!(started.expect("setsid (util-linux) runs").success());
    claims
}

fn node_in(directory: &Path) -> Node {
    let ports = std::fs::read_to_string(directory.join("ports")).expect("its ports");
    let ports: Vec<u16> = ports.split(' ').map(|port| port.parse().expect("a number")).collect();
    let [amqp, distribution, epmd] = ports[..] else { panic!("three ports, not {ports:?}") };
    Node::at(&directory.join("node"), name(0), NodePorts { amqp, distribution, epmd })
}
