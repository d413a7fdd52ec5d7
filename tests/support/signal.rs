//! Signals to processes of a test, and that they are in force.

use std::process::Command;
use std::time::{Duration, Instant};

/// Far longer than a thread takes to come to a stop.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at threads that are about to stop.
const PAUSE: Duration = Duration::from_millis(1);

/// Any signal, by the name that kill(1) takes.
pub fn send(pid: u32, which: &str) {
    let sent = Command::new("kill").args([which, &pid.to_string()]).status();
    assert!(sent.expect("kill runs").success(), "{which} reaches {pid}");
}

/// SIGSTOP, and waits until every thread has stopped. The signal alone is not enough: a thread that is at work goes on until
/// the kernel gets to it, and can still answer, or write, what a test believes impossible by then.
pub fn suspend(pid: u32) {
    send(pid, "-STOP");
    let sent = Instant::now();
    while !has_stopped(pid) {
        assert!(sent.elapsed() < PATIENCE, "{pid} did not stop within {PATIENCE:?}");
        std::thread::sleep(PAUSE);
    }
}

/// SIGKILL to a whole process group; one that has ended needs none.
pub fn kill_group(leader: u32) {
    let _ = Command::new("kill").args(["-KILL", "--", &format!("-{leader}")]).output();
}

/// SIGCONT: it goes on with what has come in meanwhile.
pub fn resume(pid: u32) {
    send(pid, "-CONT");
}

fn has_stopped(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it is there");
    threads.flatten().all(|thread| match std::fs::read_to_string(thread.path().join("stat")) {
        Ok(stat) => matches!(state(&stat), Some('T' | 'Z' | 'X')),
        // It has ended since it was listed.
        Err(_) => true,
    })
}

/// The letter after the name, which stands in brackets and may have brackets of its own.
fn state(stat: &str) -> Option<char> {
    stat.rsplit_once(") ")?.1.chars().next()
}
