//! What makes a node: its files, its ports, its environment, and how it is asked.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::wait::eventually;

/// Who may do anything on a node.
pub(super) const USER: &str = "redrive";
const PASSWORD: &str = "secret";
/// The virtual host that a node has from the start.
pub const VHOST: &str = "redrive";

/// Debian's, a link into the installation.
const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
/// Asks a node in Erlang, in milliseconds, where `rabbitmqctl` takes half a second.
const ERL_CALL: &str = "/usr/lib/erlang/bin/erl_call";
/// A start takes some 5 s of a core, and longer beside others; this is for a machine that is very busy.
const START: Duration = Duration::from_secs(120);
/// A node that works answers in milliseconds, and `rabbitmqctl` in a second; one that is suspended, never.
const ANSWER: Duration = Duration::from_secs(60);

/// Settings of a node, as in rabbitmq.conf.
#[derive(Clone, Default)]
pub struct RabbitOptions {
    settings: Vec<(String, String)>,
}

impl RabbitOptions {
    /// What the node proposes to clients; 60 s by default. It takes one for gone after about twice that.
    pub fn heartbeat_s(self, seconds: u16) -> Self {
        self.set("heartbeat", &seconds.to_string())
    }

    /// Blocks those who publish while the node uses more than this. It uses over 100 MB from the start.
    pub fn memory_limit_bytes(self, bytes: u64) -> Self {
        self.set("vm_memory_high_watermark.absolute", &bytes.to_string())
    }

    /// Any setting of rabbitmq.conf.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// The ports of a node, and the one of its port mapper.
#[derive(Clone, Copy)]
pub(super) struct NodePorts {
    pub amqp: u16,
    pub distribution: u16,
    pub epmd: u16,
}

/// A node, whether it runs or not.
pub(super) struct Node {
    directory: PathBuf,
    name: String,
    ports: NodePorts,
}

impl Node {
    /// The node that has, or will have, its files in this directory.
    pub fn at(directory: &Path, name: String, ports: NodePorts) -> Self {
        Self { directory: directory.to_owned(), name, ports }
    }

    /// Writes its files. Nodes that shall talk with each other need the same cookie.
    pub fn prepare(&self, cookie: &str, options: &RabbitOptions) {
        let put = |name: &str, text: &str| std::fs::write(self.directory.join(name), text).expect("a file");
        put(".erlang.cookie", cookie);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(self.directory.join(".erlang.cookie"), mode).expect("Erlang asks for it");
        put("plugins", "[].\n");
        let amqp = format!("127.0.0.1:{}", self.ports.amqp);
        let own = [
            ("listeners.tcp.default", &*amqp),
            ("default_user", USER),
            ("default_pass", PASSWORD),
            ("default_vhost", VHOST),
            ("log.console", "true"),
            ("log.file", "false"),
            // The files are in memory, which need not be large.
            ("disk_free_limit.absolute", "1MB"),
            ("raft.wal_max_size_bytes", "64000000"),
        ];
        let given = options.settings.iter().map(|(name, value)| (&**name, &**value));
        let lines: Vec<String> =
            own.into_iter().chain(given).map(|(name, value)| format!("{name} = {value}\n")).collect();
        put("rabbitmq.conf", &lines.concat());
        self.link_installation();
    }

    /// The installation without its plugins. Erlang looks for each of a thousand modules in every directory of its
    /// path; plugins, which nobody needs here, are half of them, and half of the time that a start takes.
    fn link_installation(&self) {
        let server = std::fs::canonicalize(SERVER).expect("RabbitMQ is installed (tests/run does it)");
        let installed = server.ancestors().nth(2).expect("it lies in the installation");
        let linked = self.directory.join("rabbitmq");
        std::fs::create_dir_all(linked.join("plugins")).expect("a directory");
        let link = |target: PathBuf, name: PathBuf| {
            std::os::unix::fs::symlink(target, linked.join(name)).expect("a link");
        };
        for name in ["sbin", "escript"] {
            link(installed.join(name), name.into());
        }
        for entry in std::fs::read_dir(installed.join("plugins")).expect("a directory") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("UTF-8");
            if !name.starts_with("rabbitmq_") || name.starts_with("rabbitmq_prelaunch") {
                link(entry.path(), Path::new("plugins").join(name));
            }
        }
    }

    /// The command that becomes the node: nothing of the caller's environment reaches it.
    pub fn command(&self) -> Vec<String> {
        let mut command = vec!["env".to_owned(), "-i".to_owned()];
        command.extend(self.environment());
        command.push(self.script("rabbitmq-server"));
        command
    }

    fn script(&self, name: &str) -> String {
        self.path(&format!("rabbitmq/sbin/{name}"))
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).to_str().expect("UTF-8").to_owned()
    }

    fn environment(&self) -> Vec<String> {
        let NodePorts { amqp, distribution, epmd } = self.ports;
        [
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
            ("LC_ALL", "C.UTF-8".to_owned()),
            ("HOME", self.path("")),
            ("ERL_EPMD_PORT", epmd.to_string()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
            ("RABBITMQ_SCRIPTS_DIR", self.path("rabbitmq/sbin")),
            ("RABBITMQ_NODENAME", self.name.clone()),
            ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".to_owned()),
            ("RABBITMQ_NODE_PORT", amqp.to_string()),
            ("RABBITMQ_DIST_PORT", distribution.to_string()),
            ("RABBITMQ_MNESIA_BASE", self.path("data")),
            ("RABBITMQ_LOG_BASE", self.path("logs")),
            ("RABBITMQ_PID_FILE", self.path("pid")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", self.path("plugins")),
            ("RABBITMQ_CONFIG_FILE", self.path("rabbitmq.conf")),
            ("RABBITMQ_CONF_ENV_FILE", self.path("none")),
            // One that cannot start would leave a dump of megabytes where the test runs; its log says why.
            ("ERL_CRASH_DUMP_SECONDS", "0".to_owned()),
            ("RABBITMQ_CTL_ERL_ARGS", "-dist_listen false".to_owned()),
            (
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none".to_owned(),
            ),
            // The script becomes the Erlang machine instead of watching it, so that signals reach what they are for.
            ("RUNNING_UNDER_SYSTEMD", "true".to_owned()),
        ]
        .map(|(name, value)| format!("{name}={value}"))
        .into()
    }

    /// Waits until it takes connections; false if it ended instead.
    pub async fn is_ready(&self, mut has_ended: impl FnMut() -> bool) -> bool {
        let what = format!("{} on {} is up; see {}", self.name, self.ports.amqp, self.directory.display());
        let ready = eventually(&what, START, async || {
            if has_ended() {
                return Some(false);
            }
            // Its port opens late, and asking whether it is open costs next to nothing.
            TcpStream::connect(("127.0.0.1", self.ports.amqp)).await.ok()?;
            (self.try_evaluate("rabbit_boot_state:get().").await.ok()? == "ready").then_some(true)
        });
        ready.await.0
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn port(&self) -> u16 {
        self.ports.amqp
    }

    pub fn url(&self, vhost: &str) -> String {
        format!("amqp://{USER}:{PASSWORD}@127.0.0.1:{}/{vhost}", self.port())
    }

    pub async fn evaluate(&self, expressions: &str) -> String {
        let answer = self.try_evaluate(expressions).await;
        answer.unwrap_or_else(|error| panic!("{} was asked {expressions} and said: {error}", self.name))
    }

    pub async fn try_evaluate(&self, expressions: &str) -> Result<String, String> {
        let address = format!("127.0.0.1:{}", self.ports.distribution);
        let mut command = Command::new(ERL_CALL);
        // Two that ask at once, or one right after the other, need names of their own. What erl_call itself calls a
        // random one changes once a second.
        let myself = format!("asks{:016x}", rand::random::<u64>());
        command.args(["-h", &myself, "-address", &address, "-e"]).env("HOME", &self.directory);
        // An expression has ended when white space follows its full stop.
        let output = answer_of(command, &format!("{expressions}\n")).await?;
        let said = String::from_utf8_lossy(&output.stdout);
        let value = said.trim().strip_prefix("{ok, ").and_then(|value| value.strip_suffix('}'));
        value.map(str::to_owned).ok_or_else(|| format!("{said}{}", String::from_utf8_lossy(&output.stderr)))
    }

    pub async fn ctl(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("env");
        command.arg("-i").args(self.environment()).arg(self.script("rabbitmqctl"));
        command.args(["--quiet", "--node", &self.name]).args(arguments);
        let output = answer_of(command, "").await.unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "rabbitmqctl {arguments:?}: {said}{error}");
        said
    }
}

async fn answer_of(mut command: Command, input: &str) -> Result<Output, String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().expect("the command runs");
    let mut stdin = child.stdin.take().expect("piped");
    // It may have ended without having read.
    let _unread = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = timeout(ANSWER, child.wait_with_output()).await;
    Ok(output.map_err(|_| format!("no answer in {ANSWER:?}"))?.expect("it can be waited for"))
}
