//! The moment before the command runs: whatever ends `redrive lock`, SIGKILL too, ends the command.
//!
//! Linux sends a process a signal when its parent dies, if it has asked for that itself, and keeps to it over an `exec`. So the
//! command is started by way of this binary, which asks and then becomes the command. Elsewhere it is started directly.

use std::ffi::OsString;
use std::process::Command;

use crate::context::Context;

/// A process that becomes the command, and ends with this one.
#[cfg(target_os = "linux")]
pub fn command(command: &[OsString]) -> Command {
    // Also where the file was replaced meanwhile, by an update.
    let mut this = Command::new("/proc/self/exe");
    this.args(["lock", "--under", &std::process::id().to_string(), "--"]).args(command);
    this
}

/// The command.
#[cfg(not(target_os = "linux"))]
pub fn command(command: &[OsString]) -> Command {
    let mut direct = Command::new(&command[0]);
    direct.args(&command[1..]);
    direct
}

/// Becomes the command, for as long as that parent lives.
#[cfg(target_os = "linux")]
pub fn run(parent: u32, command: &[OsString], context: &Context) -> anyhow::Error {
    use std::os::unix::process::CommandExt;

    use rustix::process::{Signal, getppid, set_parent_process_death_signal};

    use crate::child;
    use crate::failure::Exit;

    // It is the thread that starts a process whose end counts: `redrive lock` does so on its first one, which is the last to end.
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return anyhow::Error::new(error).context("cannot ask to end with `redrive lock`");
    }
    // It may have died before that.
    if getppid().is_none_or(|found| found.as_raw_pid().cast_unsigned() != parent) {
        return Exit(child::CANNOT_RUN).into();
    }
    let error = Command::new(&command[0]).args(&command[1..]).exec();
    child::cannot_run(&command[0], &error, context)
}
