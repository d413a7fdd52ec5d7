//! `redrive lock`: runs a command while it holds a lock, as flock(1) does over many machines.

mod holding;
mod under;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context as _;
use redrive_shared::lock::Resource;
use redrive_worker::Wanted;
use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process_group};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::failure::{Exit, Usage};
use crate::{arguments, attempt, child, failure, signals};
use holding::{Holding, Over};

/// Not granted in time: `EX_TEMPFAIL` of sysexits.h.
const BUSY: u8 = 75;
/// Lost while the command ran: `EX_PROTOCOL` of sysexits.h.
const LOST: u8 = 76;
/// What the command is given to end by itself once the lock is lost. A fifth of the lock's time is left then, and its rest after
/// that.
const END_GRACE: Duration = Duration::from_secs(2);
/// Between two looks whether anything of its group is left.
const LOOK_EVERY: Duration = Duration::from_millis(20);

const LONG_ABOUT: &str = "\
Run a command while it holds a lock, over all machines that use the same coordinators.

The lock is renewed as long as the command runs and given back when it has ended. When it is lost (the coordinators could not be
reached in time, a person broke it), the command's whole process group gets SIGTERM, and SIGKILL 2 s later: it runs in a group of
its own unless stdin is a terminal, where only the command itself is ended. Killed by SIGKILL, `redrive lock` takes the command
with it on Linux, and not what that has started. A command that cannot be stopped (its machine sleeps) is why there is a token: give
FENCE_TOKEN to `redrive commit-file`, or to whatever guards what you write.

In a handler's process the lock is its attempt's. The attempt's worker renews it, gives it back when the attempt ends, and stops
the handler when it is lost; the command stays in the handler's group, and ends with it. All of an attempt hold it together: two
commands of one attempt do not shut each other out. Where an attempt's worker vanished, the next attempt does not wait for the end
of the lock's time, but for its rest, 5 s: give it a --wait longer than that.

In the command's environment: FENCE_TOKEN, and LOCK_RESOURCES, a line each.

A path is made canonical: absolute, without symbolic links. Two machines that name the same path share its lock, whether it is
the same file or not.";

const AFTER_HELP: &str = "\
Exit codes: the command's own; 128 + N where signal N ended it; 75 the lock was not granted in time; 76 it was lost, and the
command was stopped; 126 the command cannot be run; 127 there is no such command; 1 the coordinator, or in a handler its
worker, cannot be reached or refused; 2 the command line is wrong.

Examples:
  redrive lock --path report.md -- ./make-report
  redrive lock --path report.md --wait 30s -- sh -c './make-report > new && redrive commit-file --path report.md < new'
  redrive lock --path a.md --path b.md --shared -- diff a.md b.md
  redrive lock --name deploy/production --wait 10m --ttl 1m -- ./deploy";

/// Run a command while it holds a lock.
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT, after_help = AFTER_HELP)]
pub struct Args {
    /// A file to lock; several are locked in one step.
    #[arg(long = "path", value_name = "FILE")]
    paths: Vec<PathBuf>,
    /// Anything else to lock, by a name.
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// Share it with others that share it.
    #[arg(long)]
    shared: bool,
    /// How long to wait for it, at most 1h [default: not at all].
    #[arg(long, value_name = "DURATION", value_parser = arguments::duration_ms)]
    wait: Option<u64>,
    /// How long it outlives this command's last sign of life, 1s to 1h [default: 30s].
    #[arg(long, value_name = "DURATION", value_parser = arguments::duration_ms)]
    ttl: Option<u64>,
    /// Become the command, and end with that process.
    #[arg(long, hide = true, value_name = "PID")]
    under: Option<u32>,
    /// What to run, and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    #[cfg(target_os = "linux")]
    if let Some(parent) = args.under {
        return Err(under::run(parent, &args.command, context));
    }
    let wanted = wanted(&args)?;
    let stop = signals::shutdown(&context.impatience)?;
    signals::hang_up(&stop)?;
    let acquired = stop.run_until_cancelled(Holding::acquire(wanted, context)).await;
    let Some(acquired) = acquired else { return Err(Exit(child::TERMINATED).into()) };
    let lock = acquired?;
    let mut child = match start(&args.command, &lock) {
        Ok(child) => child,
        Err(error) => {
            let _ = give_back(lock, context).await;
            return Err(child::cannot_run(&args.command[0], &error, context));
        }
    };
    let (status, over) = wait(&mut child, &stop, &lock).await;
    let status = status.context("waiting for the command")?;
    let lost = match over {
        // Others of the attempt may write still: its worker sees to the lock once nothing of it is left.
        Some(over) if attempt::is_ours() => over == Over::Lost,
        // Nobody writes any more, so others need not wait for the rest.
        Some(_) => {
            give_back(lock, context).await;
            true
        }
        None => !give_back(lock, context).await,
    };
    if lost {
        context.output.complain("lock", "it was lost before the command had ended by itself");
        return Err(Exit(LOST).into());
    }
    child::end_as(status)
}

fn wanted(args: &Args) -> anyhow::Result<Wanted> {
    let mut resources = Vec::new();
    for path in &args.paths {
        resources.push(resource("--path", &canonical(path)?)?);
    }
    for name in &args.names {
        resources.push(resource("--name", name)?);
    }
    if resources.is_empty() {
        return Err(Usage::new("nothing to lock is named; write --path FILE or --name NAME").into());
    }
    let (exclusive, shared) = if args.shared { (Vec::new(), resources) } else { (resources, Vec::new()) };
    let (wait, ttl) = (Duration::from_millis(args.wait.unwrap_or(0)), args.ttl.map(Duration::from_millis));
    Ok(Wanted { exclusive, shared, wait, ttl, lock_delay: None })
}

fn resource(flag: &str, name: &str) -> anyhow::Result<Resource> {
    Resource::new(name).map_err(|error| Usage::new(format!("{flag}: {name:?} {error}")).into())
}

/// A path as everybody names the file, whether it is there yet or not.
fn canonical(path: &Path) -> anyhow::Result<String> {
    let refused = |why: String| Usage::new(format!("--path {}: {why}", path.display()));
    let found = match std::fs::canonicalize(path) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !path.is_symlink() => {
            let name = path.file_name().ok_or_else(|| refused("names no file".to_owned()))?;
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = std::fs::canonicalize(parent.unwrap_or(Path::new(".")));
            parent.map_err(|error| refused(format!("its directory: {error}")))?.join(name)
        }
        Err(error) => return Err(refused(error.to_string()).into()),
    };
    let text = found.into_os_string().into_string();
    text.map_err(|_| refused("is not UTF-8; lock a --name instead".to_owned()).into())
}

fn start(command: &[OsString], lock: &Holding) -> std::io::Result<Child> {
    let mut std_command = under::command(command);
    let grant = lock.grant();
    std_command.env("FENCE_TOKEN", grant.token.to_string());
    let names: Vec<&str> = grant.exclusive.iter().chain(&grant.shared).map(Resource::as_str).collect();
    std_command.env("LOCK_RESOURCES", names.join("\n"));
    if gets_own_group() {
        std_command.process_group(0);
    }
    Command::from(std_command).kill_on_drop(true).spawn()
}

/// At a terminal, a group of its own could not read from it; in a handler, the worker could not end it with the attempt.
fn gets_own_group() -> bool {
    !std::io::stdin().is_terminal() && !attempt::is_ours()
}

/// Waits for the command. What ends us ends it, and so does the loss of its lock; then nothing of its group is left. Also says
/// whether the lock, or the attempt, was over before the command had ended by itself.
async fn wait(
    child: &mut Child,
    stop: &CancellationToken,
    lock: &Holding,
) -> (std::io::Result<ExitStatus>, Option<Over>) {
    let group = Group::of(child);
    let over = lock.over();
    tokio::pin!(over);
    let over = tokio::select! {
        status = child.wait() => return (status, None),
        over = &mut over => {
            group.send(Signal::TERM);
            over
        }
        () = stop.cancelled() => {
            group.send(Signal::TERM);
            tokio::select! {
                // In a handler, what stops us is mostly what stops the attempt.
                biased;
                over = &mut over => over,
                status = child.wait() => return (status, None),
            }
        }
    };
    // The whole time, if the command itself has ended: what it started may be about to.
    let ended = tokio::time::timeout(END_GRACE, async {
        let status = child.wait().await;
        group.wait().await;
        status
    });
    let status = match ended.await {
        Ok(status) => status,
        Err(_) => {
            group.send(Signal::KILL);
            child.wait().await
        }
    };
    (status, Some(over))
}

/// The command, and what it started where it has a group of its own.
struct Group {
    leader: Option<Pid>,
    is_own: bool,
}

impl Group {
    fn of(child: &Child) -> Self {
        let leader = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        Self { leader, is_own: gets_own_group() }
    }

    fn send(&self, signal: Signal) {
        let Some(leader) = self.leader else { return };
        // One that has ended needs no signal.
        let _ = if self.is_own { kill_process_group(leader, signal) } else { kill_process(leader, signal) };
    }

    /// Until nothing of it is left.
    async fn wait(&self) {
        while let Some(leader) = self.leader.filter(|_| self.is_own)
            && test_kill_process_group(leader).is_ok()
        {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Whether it was still held.
async fn give_back(lock: Holding, context: &Context) -> bool {
    lock.give_back().await.unwrap_or_else(|error| {
        context.output.complain("lock", failure::chain(error.as_ref()));
        true
    })
}
