//! A shell command a task: the document on standard input, the answer on standard output and in the exit code.

mod child;
#[cfg(test)]
mod tests;

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use async_trait::async_trait;
use redrive_shared::cost::Cost;
use redrive_shared::failure::{FailureClass, FailureSignal};
use redrive_shared::task::Lease;
use redrive_shared::wire::Outcome;
use tokio::process::Command;

use super::answer::{self, Answer};
use super::context_server::ContextServer;
use super::document::document;
use crate::context::{CancelReason, TaskContext};
use crate::handler::Handler;
use crate::heavy;
use child::Finished;

/// Runs `sh -c COMMAND` for each task.
#[derive(Debug, Clone)]
pub struct ProcessHandler {
    command: String,
    contexts: ContextServer,
}

impl ProcessHandler {
    /// A handler that runs that shell command.
    pub fn new(command: impl Into<String>) -> Self {
        Self { command: command.into(), contexts: ContextServer::default() }
    }

    fn command(&self, task: &Lease, ctx: &TaskContext, context_url: &str) -> Command {
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(&self.command)
            .env("REDRIVE_TASK_ID", task.id.as_str())
            .env("REDRIVE_ATTEMPT", task.attempt.to_string())
            .env("REDRIVE_EPOCH", task.epoch.to_string())
            .env("REDRIVE_NONCE", String::from(task.nonce))
            .env("REDRIVE_ROUTE", task.route.to_string())
            .env("REDRIVE_QUEUE", task.queue.as_str())
            .env("REDRIVE_AGENT", ctx.agent().as_str())
            .env("REDRIVE_API_URL", ctx.api_url())
            .env("REDRIVE_CONTEXT_URL", context_url);
        match &task.dependency {
            Some(dependency) => command.env("REDRIVE_DEPENDENCY", dependency.as_str()),
            None => command.env_remove("REDRIVE_DEPENDENCY"),
        };
        match &task.traceparent {
            Some(traceparent) => command.env("TRACEPARENT", traceparent),
            // The worker's own would tie every task to one trace.
            None => command.env_remove("TRACEPARENT"),
        };
        command
    }
}

#[async_trait]
impl Handler for ProcessHandler {
    async fn run(&self, task: &Lease, ctx: &TaskContext) -> Outcome {
        let not_run = |error| {
            let exception = Some(format!("the handler's process could not be run: {error}"));
            retry(FailureSignal { exception, ..FailureSignal::default() })
        };
        let opening = match self.contexts.open(task, ctx).await {
            Ok(opening) => opening,
            Err(error) => return not_run(error),
        };
        let input = document(task, ctx.agent(), Some(&opening.url));
        match child::run(self.command(task, ctx, &opening.url), &input, ctx).await {
            Ok(finished) => {
                let ctx = ctx.clone();
                heavy::work_on(finished.stdout.len(), move || outcome(&finished, &ctx)).await
            }
            Err(error) => not_run(error),
        }
    }

    /// Its whole group was killed before.
    fn ends_its_work(&self) -> bool {
        true
    }
}

/// What the end of a process means.
fn outcome(finished: &Finished, ctx: &TaskContext) -> Outcome {
    if finished.overflowed {
        let exception = format!(
            "the handler wrote more than {} bytes to standard output and was killed: store large results elsewhere and return a \
             reference",
            ctx.max_blob_bytes()
        );
        return failed(finished, Some(FailureClass::BadOutput), exception);
    }
    let answer = answer::read(&finished.stdout);
    if let Some(reason) = finished.stopped {
        return when_stopped(finished, answer, reason, ctx);
    }
    match answer {
        // Said in so many words: whatever the exit code.
        Answer::Told(
            told @ (Outcome::Retry { .. }
            | Outcome::Snooze { .. }
            | Outcome::Dead { .. }
            | Outcome::Escalate { .. }
            | Outcome::Release { .. }),
        ) => told,
        Answer::Told(done @ Outcome::Done { .. }) if finished.status.success() => done,
        Answer::Plain(result) if finished.status.success() => Outcome::done(result),
        Answer::Told(Outcome::Done { .. }) | Answer::Plain(_) => by_exit(finished).costing(paid(finished)),
    }
}

/// Many programs exit with 0 when they are told to stop, done or not. Only an answer in so many words counts then.
fn when_stopped(finished: &Finished, answer: Answer, reason: CancelReason, ctx: &TaskContext) -> Outcome {
    match (answer, reason) {
        (Answer::Told(told), _) => told,
        (Answer::Plain(_), CancelReason::LockLost) => {
            let exception = "a lock of the handler was lost, and it was stopped".to_owned();
            failed(finished, Some(FailureClass::LockTimeout), exception).costing(paid(finished))
        }
        (Answer::Plain(_), CancelReason::Timeout) => {
            let exception = format!(
                "the handler ran into its time-out of {} ms and was stopped",
                ctx.timeout().as_millis()
            );
            failed(finished, Some(FailureClass::Timeout), exception).costing(paid(finished))
        }
        (Answer::Plain(_), CancelReason::Draining | CancelReason::LeaseLost | CancelReason::Cancelled) => {
            Outcome::release().costing(paid(finished))
        }
    }
}

/// What it said that it cost, where its exit code or its end says the rest.
fn paid(finished: &Finished) -> Cost {
    answer::cost(&finished.stdout)
}

/// What an exit code other than 0 means; the names are those of `sysexits.h`, 124 is that of timeout(1).
fn by_exit(finished: &Finished) -> Outcome {
    let Some(code) = exit_code(finished.status) else {
        return failed(finished, None, "the handler ended in an unknown way".to_owned());
    };
    if let Some(signal) = killed_by(code) {
        return failed(finished, None, format!("the handler was killed by {signal}"));
    }
    let invalid = Some(FailureClass::InvalidRequest);
    match code {
        64 => dead(finished, invalid, "the handler was used wrongly (EX_USAGE)"),
        65 => dead(finished, invalid, "the handler cannot use the task's data (EX_DATAERR)"),
        // The words are for the classifier, too: it is the handler's own statement that this passes.
        69 => failed(finished, None, "service unavailable (EX_UNAVAILABLE)".to_owned()),
        75 => failed(finished, None, "temporary failure, try again (EX_TEMPFAIL)".to_owned()),
        76 => failed(
            finished,
            Some(FailureClass::LockTimeout),
            "a lock was lost while the handler worked under it (exit code 76, as `redrive lock`)".to_owned(),
        ),
        77 => escalate(finished, Some(FailureClass::Permission), "permission denied (EX_NOPERM)"),
        78 => escalate(finished, None, "the handler's configuration is wrong (EX_CONFIG)"),
        124 => failed(
            finished,
            Some(FailureClass::Timeout),
            "a time-out inside the handler (exit code 124)".to_owned(),
        ),
        code => failed(finished, None, format!("the handler exited with code {code}")),
    }
}

/// The exit code, or 128 + signal as a shell reports it.
fn exit_code(status: ExitStatus) -> Option<i32> {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal))
}

/// The signal behind an exit code above 128.
fn killed_by(code: i32) -> Option<String> {
    let number = code.checked_sub(128).filter(|number| (1..=31).contains(number))?;
    let name = match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL (out of memory?)",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        other => return Some(format!("signal {other}")),
    };
    Some(name.to_owned())
}

/// What the process said on standard error follows what we say of it: the classifier reads both.
fn signal(finished: &Finished, class: Option<FailureClass>, what: &str) -> FailureSignal {
    let exception =
        if finished.stderr.is_empty() { what.to_owned() } else { format!("{what}: {}", finished.stderr) };
    FailureSignal {
        class,
        exit_code: exit_code(finished.status),
        exception: Some(exception),
        ..FailureSignal::default()
    }
}

fn failed(finished: &Finished, class: Option<FailureClass>, what: String) -> Outcome {
    retry(signal(finished, class, &what))
}

fn retry(failure: FailureSignal) -> Outcome {
    Outcome::retry(failure)
}

fn dead(finished: &Finished, class: Option<FailureClass>, what: &str) -> Outcome {
    Outcome::dead(signal(finished, class, what))
}

fn escalate(finished: &Finished, class: Option<FailureClass>, what: &str) -> Outcome {
    Outcome::escalate(signal(finished, class, what))
}
