//! A real PostgreSQL of a test's own. It ends with the test.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::daemon::Daemon;
use super::fast_directory;
use super::port::Port;
use super::signal;
use super::wait::eventually;

/// A start takes a second; this is for a machine that is very busy.
const START: Duration = Duration::from_secs(30);
/// Between two looks at processes that are about to end, and the most of them.
const PAUSE: Duration = Duration::from_millis(5);
const PAUSES_MAX: u32 = 1_000;
/// The user that it runs as where the tests run as root, which it refuses: nobody.
const NOBODY: u32 = 65_534;

/// A server that can be killed, suspended and started again on the same port and data.
pub struct PostgresServer {
    // Dropped, and so killed, before its directory goes.
    daemon: Daemon,
    port: Port,
    directory: TempDir,
}

impl PostgresServer {
    pub async fn start() -> Self {
        let (port, directory) = (Port::free(), fast_directory());
        let data = directory.path().join("data");
        if is_root() {
            std::os::unix::fs::chown(directory.path(), Some(NOBODY), Some(NOBODY)).expect("given to nobody");
        }
        let made = Command::new("setpriv")
            .args(as_nobody())
            .arg("--")
            .arg(program("initdb"))
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(&data)
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .output()
            .expect("setpriv (util-linux) runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let daemon = spawn(port.number(), directory.path());
        let mut server = Self { daemon, port, directory };
        server.is_ready().await;
        server
    }

    /// The address of the database `postgres`.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port.number())
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// kill -9, and waits until the processes that it made are gone too.
    pub fn kill(&mut self) {
        let processes = self.processes();
        self.daemon.kill();
        for pid in processes {
            let process = format!("/proc/{pid}");
            let gone = (0..PAUSES_MAX).any(|_| {
                std::thread::sleep(PAUSE);
                !Path::new(&process).exists()
            });
            assert!(gone, "{pid} did not end with its server");
        }
    }

    /// SIGSTOP: connections stay open, and nothing answers.
    pub fn suspend(&self) {
        for pid in self.processes() {
            signal::suspend(pid);
        }
    }

    /// On the same port and data.
    pub async fn restart(&mut self) {
        if !self.daemon.has_ended() {
            self.kill();
        }
        self.daemon = spawn(self.port.number(), self.directory.path());
        self.is_ready().await;
    }

    /// The server, and the processes that it made for connections.
    fn processes(&self) -> Vec<u32> {
        let server = self.daemon.pid();
        let children = std::fs::read_to_string(format!("/proc/{server}/task/{server}/children"));
        let children = children.expect("it is there");
        let mut pids = vec![server];
        pids.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        pids
    }

    async fn is_ready(&mut self) {
        let port = self.port();
        let what = format!("PostgreSQL answers on {port}; its log is in {}", self.directory.path().display());
        let daemon = &mut self.daemon;
        eventually(&what, START, async || {
            assert!(!daemon.has_ended(), "PostgreSQL ended:\n{}", daemon.log_tail());
            TcpStream::connect(("127.0.0.1", port)).await.ok()?;
            // It listens before it is ready, and says so in its log.
            daemon.log_tail().contains("ready to accept connections").then_some(())
        })
        .await;
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if !self.daemon.has_ended() {
            // An immediate end: unlike kill -9 it leaves no shared memory behind.
            for pid in self.processes() {
                // Those that it made come and go: one that is gone cannot be told.
                let _told =
                    Command::new("kill").args(["-CONT", &pid.to_string()]).stderr(Stdio::null()).status();
            }
            signal::send(self.daemon.pid(), "-QUIT");
            let ended = (0..PAUSES_MAX).any(|_| {
                std::thread::sleep(PAUSE);
                self.daemon.has_ended()
            });
            if !ended {
                self.daemon.kill();
            }
        }
    }
}

fn spawn(port: u16, directory: &Path) -> Daemon {
    let mut arguments = as_nobody();
    // A change of the user forgets the signal that comes with the parent's death.
    arguments.extend(["--pdeathsig".into(), "KILL".into(), "--".into()]);
    arguments.push(program("postgres").to_string_lossy().into_owned());
    arguments.extend(["-D".into(), directory.join("data").to_string_lossy().into_owned()]);
    for setting in [
        format!("port={port}"),
        "listen_addresses=127.0.0.1".to_owned(),
        format!("unix_socket_directories={}", directory.display()),
        "shared_buffers=16MB".to_owned(),
        "dynamic_shared_memory_type=mmap".to_owned(),
        // Its files are in memory: they survive kill -9, and no test cuts the power.
        "fsync=off".to_owned(),
    ] {
        arguments.extend(["-c".to_owned(), setting]);
    }
    let log = directory.join("log");
    // What the one before said must not be taken for this one's.
    let _none = std::fs::remove_file(&log);
    Daemon::start(OsStr::new("setpriv"), &arguments, &log)
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").expect("/proc")) == 0
}

fn as_nobody() -> Vec<String> {
    if !is_root() {
        return Vec::new();
    }
    [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".to_owned()].into()
}

/// Of the newest release that is installed; Debian puts it where no path leads.
fn program(name: &str) -> PathBuf {
    let releases = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = releases
        .map(|release| release.path().join("bin").join(name))
        .filter(|program| program.is_file())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| PathBuf::from(name))
}
