//! One child process with its whole group: fed, read within bounds, stopped, and gone without a trace.

use std::collections::VecDeque;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redrive_shared::limits::MESSAGE_MAX_BYTES;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use crate::context::{CancelReason, TaskContext};

/// Between SIGTERM and SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(2);
/// How long the pipes may stay open after the whole group was killed: only a process that left the group can hold them.
const PIPE_PATIENCE: Duration = Duration::from_millis(500);
/// Bytes read from a pipe at once.
const CHUNK_BYTES: usize = 16 * 1024;

/// How a process ended.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) status: ExitStatus,
    /// At most [`TaskContext::max_blob_bytes`].
    pub(super) stdout: Vec<u8>,
    /// It wrote more than that, and was killed for it.
    pub(super) overflowed: bool,
    /// The last 2 KiB.
    pub(super) stderr: String,
    /// Why it was told to stop, if it was.
    pub(super) stopped: Option<CancelReason>,
}

/// Runs the command until it ends or `ctx` stops it. Dropping the future kills the group.
pub(super) async fn run(mut command: Command, input: &[u8], ctx: &TaskContext) -> io::Result<Finished> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own: what the command starts can be ended with it, and a Ctrl-C at the worker's terminal does not
    // reach it before the drain decides.
    let mut child = command.process_group(0).kill_on_drop(true).spawn()?;
    let group = Group::of(&child);
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let mut output = Capped::up_to(ctx.max_blob_bytes());
    let mut tail = Tail::default();

    let streams = async {
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A handler that does not read its input is a good handler: a broken pipe is no error.
                let _ = stdin.write_all(input).await;
            }
        };
        tokio::join!(feed, output.read(stdout, &group), tail.read(stderr));
    };
    let leader = async {
        let ended = wait_or_stop(&mut child, &group, ctx).await;
        // Whatever it started and left behind must not outlive the lease.
        group.kill_and_forget();
        ended
    };
    let (status, stopped) = {
        tokio::pin!(streams, leader);
        let mut streams_ended = false;
        let ended = loop {
            tokio::select! {
                ended = &mut leader => break ended,
                () = &mut streams, if !streams_ended => streams_ended = true,
            }
        };
        if !streams_ended {
            let _ = tokio::time::timeout(PIPE_PATIENCE, &mut streams).await;
        }
        ended
    };
    Ok(Finished {
        status: status?,
        stdout: output.bytes,
        overflowed: output.overflowed,
        stderr: tail.text(),
        stopped,
    })
}

/// Waits for the leader; stops the group when the handler is to stop.
async fn wait_or_stop(
    child: &mut Child,
    group: &Group,
    ctx: &TaskContext,
) -> (io::Result<ExitStatus>, Option<CancelReason>) {
    let reason = tokio::select! {
        biased;
        status = child.wait() => return (status, None),
        reason = ctx.cancelled() => reason,
    };
    match reason {
        // Somebody else may begin with the task any moment.
        CancelReason::LeaseLost => {}
        CancelReason::Timeout | CancelReason::LockLost | CancelReason::Cancelled | CancelReason::Draining => {
            group.signal(Signal::TERM);
            if let Ok(status) = tokio::time::timeout(TERM_GRACE, child.wait()).await {
                return (status, Some(reason));
            }
        }
    }
    group.signal(Signal::KILL);
    (child.wait().await, Some(reason))
}

/// A process group that this process made. It is killed when it is dropped, unless it was before.
struct Group {
    leader: Option<Pid>,
    over: AtomicBool,
}

impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self { leader: id.and_then(Pid::from_raw), over: AtomicBool::new(false) }
    }

    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.leader.filter(|_| !self.over.load(Ordering::Relaxed)) {
            // The only error left is that nobody is there any more.
            let _ = kill_process_group(leader, signal);
        }
    }

    /// The leader has just been reaped: kills what is left. After that its number may belong to others, so that it must
    /// never be used again.
    fn kill_and_forget(&self) {
        self.signal(Signal::KILL);
        self.over.store(true, Ordering::Relaxed);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill_and_forget();
    }
}

/// What was read, up to the largest result.
struct Capped {
    bytes: Vec<u8>,
    max_bytes: usize,
    overflowed: bool,
}

impl Capped {
    fn up_to(max_bytes: u64) -> Self {
        let max_bytes = usize::try_from(max_bytes).unwrap_or(usize::MAX);
        Self { bytes: Vec::new(), max_bytes, overflowed: false }
    }

    async fn read(&mut self, pipe: Option<impl AsyncRead + Unpin>, group: &Group) {
        let Some(mut pipe) = pipe else { return };
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
            let room = self.max_bytes - self.bytes.len();
            self.bytes.extend_from_slice(&chunk[..read.min(room)]);
            if read > room {
                // It could write for ever; its result is too large already.
                self.overflowed = true;
                group.signal(Signal::KILL);
                return;
            }
        }
    }
}

/// The end of what was read.
#[derive(Default)]
struct Tail(VecDeque<u8>);

impl Tail {
    async fn read(&mut self, pipe: Option<impl AsyncRead + Unpin>) {
        let Some(mut pipe) = pipe else { return };
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
            self.0.extend(&chunk[read.saturating_sub(MESSAGE_MAX_BYTES)..read]);
            let surplus = self.0.len().saturating_sub(MESSAGE_MAX_BYTES);
            self.0.drain(..surplus);
        }
    }

    fn text(self) -> String {
        String::from_utf8_lossy(&Vec::from(self.0)).trim().to_owned()
    }
}
