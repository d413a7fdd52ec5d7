//! `redrive commit-file`: replaces a file under a lock's token.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use redrive_shared::lock::Token;
use redrive_worker::fenced_file::{COMMIT_WAIT, Commit, Expected, FILE_MAX_BYTES, FencedFile, Sha256};
use serde_json::json;

use crate::arguments;
use crate::context::Context;
use crate::failure::Usage;

const LONG_ABOUT: &str = "\
Replace a file with what comes on stdin, if the token is not older than one that the file was replaced under before.

Who holds a lock may sleep past its end and write then. So every lock comes with a token that only rises, and this command
keeps the highest one beside the file (.NAME.fence): a writer whose lock was lost is refused, whatever it believes. The new
contents are written to a file of their own, flushed, and then take the name of the old one: killed at any moment, it leaves
the old file or the new one, whole.

It holds among those who commit with it (or with FencedFile in Rust) on one host: a program that opens the file itself goes
past it. Symbolic links are followed; permissions are kept, owner and extended attributes are not.";

const AFTER_HELP: &str = "\
Exit codes: 0 committed, 1 it failed, 2 the command line is wrong, 3 refused: the token is older than the file's, or the file
is not what was expected. Unless it says otherwise, the file is as it was.

Examples:
  redrive commit-file --token 1763461000123456 --path report.md < draft.md
  make-report > new && redrive commit-file --path report.md < new # the token is in FENCE_TOKEN
  before=$(sha256sum report.md | cut -c1-64)
  edit < report.md > new && redrive commit-file --path report.md --expected-sha256 $before < new";

/// Replace a file under a lock's token, whole or not at all.
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT, after_help = AFTER_HELP)]
pub struct Args {
    /// The file.
    #[arg(long, value_name = "FILE")]
    path: PathBuf,
    /// The token of the lock under which the contents were made.
    #[arg(long, value_name = "TOKEN", env = "FENCE_TOKEN", value_parser = clap::value_parser!(i64).range(1..))]
    token: i64,
    /// Refuse unless the file has this SHA-256 (64 hexadecimal digits), or is `absent`.
    #[arg(long, value_name = "HASH", value_parser = expected)]
    expected_sha256: Option<Expected>,
    /// Refuse more bytes than that [default: 1 GiB].
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    max_bytes: Option<u64>,
    /// How long to wait for others that commit [default: 10s].
    #[arg(long, value_name = "DURATION", value_parser = arguments::duration_ms)]
    wait: Option<u64>,
}

fn expected(text: &str) -> Result<Expected, String> {
    if text == "absent" {
        return Ok(Expected::Absent);
    }
    let parsed = Sha256::parse(text).map(Expected::Contents);
    parsed.ok_or_else(|| "a SHA-256 has 64 hexadecimal digits; write `absent` for no file".to_owned())
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    if io::IsTerminal::is_terminal(&io::stdin()) {
        return Err(Usage::new("the new contents come on stdin; write `< FILE`, or a pipe").into());
    }
    let commit = Commit {
        expected: args.expected_sha256,
        max_bytes: args.max_bytes.unwrap_or(FILE_MAX_BYTES),
        wait: args.wait.map_or(COMMIT_WAIT, Duration::from_millis),
        ..Commit::new(Token(args.token))
    };
    let committing = tokio::task::spawn_blocking(move || {
        let file = FencedFile::at(&args.path)?;
        let committed = file.commit(io::stdin().lock(), &commit)?;
        anyhow::Ok((file, committed))
    });
    let (file, committed) = committing.await.context("the commit ended early")??;
    let path = file.path().display().to_string();
    if context.output.json {
        let (bytes, sha256) = (committed.bytes, committed.sha256.to_string());
        context.output.value(&json!({ "path": path, "token": args.token, "bytes": bytes, "sha256": sha256 }))
    } else {
        context.output.say(format!("{path}: {} bytes, SHA-256 {}", committed.bytes, committed.sha256));
        Ok(())
    }
}
