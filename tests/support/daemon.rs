//! Other people's servers as processes of a test: what they print is kept, and they end when the test does, however it
//! ends.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::signal;

/// Lines of a log that a panic message can carry.
const TAIL_LINES: usize = 15;

/// A server process.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts it; what it prints is added to the file `log`.
    ///
    /// The kernel kills it when the *thread* that calls this ends: call it in a test's own thread, never under
    /// `spawn_blocking`, whose threads come and go. The nextest time-out, which kills the process group, needs no help;
    /// a `kill -9` of the test does.
    pub fn start(program: &OsStr, arguments: &[String], log: &Path) -> Self {
        let output = File::options().create(true).append(true).open(log).expect("a log file");
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn()
            .expect("setpriv (util-linux) runs");
        Self { child, log: log.to_owned() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it can be asked").is_some()
    }

    /// kill -9, and waits until it is gone. Does nothing to one that has ended.
    pub fn kill(&mut self) {
        // An error says that it has ended, which is what is wanted.
        let _ended = self.child.kill();
        self.child.wait().expect("it ends");
    }

    /// SIGSTOP: its connections stay open, and nothing answers.
    pub fn suspend(&self) {
        signal::suspend(self.pid());
    }

    /// SIGCONT: it goes on with what has come in meanwhile.
    pub fn resume(&self) {
        signal::resume(self.pid());
    }

    /// The end of what it printed.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}
