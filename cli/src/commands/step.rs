//! `redrive step`: runs a command unless its step was done before.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::Stdio;

use anyhow::Context as _;
use redrive_shared::id::Name;
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

use crate::attempt::{self, STATE_MAX_BYTES};
use crate::child;
use crate::context::Context;

const LONG_ABOUT: &str = "\
Run a command as one step of a handler's task, unless an earlier attempt has done it.

What the command writes to standard output is the step's state. When the command has ended with 0, the state is saved, and then
printed; where the step is done already, the command is not run, and the same is printed. A command that fails saves nothing, and
its exit code is handed on.

A worker can vanish between the command's effect and the save: then the step is done again. Give whoever has the effect a key that
is the same in every attempt, such as \"$REDRIVE_TASK_ID:NAME\".";

const AFTER_HELP: &str = "\
Exit codes: the command's own; 128 + N where signal N ended it; 126 the command cannot be run; 127 there is no such command; 1 the
state was not saved, whether the command has run or not; 2 the command line is wrong, or this is no handler.

Examples:
  page=$(redrive step fetch --pending summarise,mail -- curl -fsS https://example.org/page)
  redrive step summarise -- ./summarise.py
  redrive step mail -- ./mail --idempotency-key \"$REDRIVE_TASK_ID:mail\"";

/// In a handler: run a command unless its step was done before.
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT, after_help = AFTER_HELP)]
pub struct Args {
    /// The step.
    #[arg(value_name = "NAME")]
    step: Name,
    /// The steps that come after it, for people who look at the task.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pending: Option<Vec<Name>>,
    /// What to run, and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let attempt = attempt::context()?;
    if let Some(state) = attempt.completed(&args.step).await? {
        return print(&state);
    }
    let mut child = match start(&args.command) {
        Ok(child) => child,
        Err(error) => return Err(child::cannot_run(&args.command[0], &error, context)),
    };
    let output = output(&mut child, STATE_MAX_BYTES).await?;
    let status = child.wait().await.context("waiting for the command")?;
    if !status.success() {
        std::io::stdout().lock().write_all(&output)?;
        return child::end_as(status);
    }
    let state = state_of(&output)?;
    let saved = attempt.save(&args.step, true, args.pending.as_deref(), state.clone()).await;
    saved.context("the command has run, and its state was not saved")?;
    print(&state)
}

/// Starts the command with our standard input and error.
fn start(command: &[OsString]) -> std::io::Result<Child> {
    Command::new(&command[0]).args(&command[1..]).stdout(Stdio::piped()).kill_on_drop(true).spawn()
}

/// What it writes.
async fn output(child: &mut Child, max_bytes: u64) -> anyhow::Result<Vec<u8>> {
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout
            .take(max_bytes + 1)
            .read_to_end(&mut output)
            .await
            .context("reading what the command writes")?;
    }
    anyhow::ensure!(
        output.len() as u64 <= max_bytes,
        "the state was not saved: the command wrote more than {max_bytes} bytes, and was ended; keep them elsewhere, and print \
         where they are"
    );
    Ok(output)
}

/// An output as JSON: itself where it is any but a string, otherwise a string, so that what is printed later is what was printed
/// now.
fn state_of(output: &[u8]) -> anyhow::Result<Vec<u8>> {
    let text = std::str::from_utf8(output).context(
        "the state was not saved: the output is not UTF-8; print it in base64, or print where it is",
    )?;
    match serde_json::from_str::<Value>(text) {
        Ok(Value::String(_)) | Err(_) => Ok(serde_json::to_vec(text)?),
        Ok(_) => Ok(text.trim().as_bytes().to_vec()),
    }
}

/// Prints a state: text as it is, other JSON on a line.
pub(super) fn print(state: &[u8]) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match serde_json::from_slice::<String>(state) {
        Ok(text) => stdout.write_all(text.as_bytes())?,
        Err(_) => {
            stdout.write_all(state)?;
            stdout.write_all(b"\n")?;
        }
    }
    Ok(stdout.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_never_ends_is_ended() {
        let mut child = start(&["yes".into()]).unwrap();
        let error = output(&mut child, 100_000).await.unwrap_err();
        assert!(error.to_string().contains("was not saved"), "{error}");
        drop(child);
        let mut child = start(&["printf".into(), "abc".into()]).unwrap();
        assert_eq!(output(&mut child, 3).await.unwrap(), b"abc");
    }

    #[test]
    fn an_output_is_json_or_becomes_a_string_with_its_line_breaks() {
        let state = |output: &str| String::from_utf8(state_of(output.as_bytes()).unwrap()).unwrap();
        assert_eq!(state("{\"a\": 1.0e2}\n"), "{\"a\": 1.0e2}");
        assert_eq!(state("7\n"), "7");
        assert_eq!(state("two\nlines\n"), r#""two\nlines\n""#);
        assert_eq!(state("\"text\"\n"), r#""\"text\"\n""#, "printed with its quotes again");
        assert_eq!(state(""), r#""""#);
        assert!(state_of(b"\xff").is_err());
    }
}
