//! A command that is run for somebody: how its end becomes our own, as shells do it.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use crate::context::Context;
use crate::failure::Exit;

/// It is there, and cannot be run.
pub const CANNOT_RUN: u8 = 126;
/// There is no such command.
const NOT_FOUND: u8 = 127;
/// Signal N ended it: 128 + N.
const SIGNALLED: i32 = 128;
/// What SIGTERM ended.
pub const TERMINATED: u8 = 143;

/// The error of one that could not be started, which it tells.
pub fn cannot_run(command: &OsStr, error: &std::io::Error, context: &Context) -> anyhow::Error {
    let code = if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN };
    context.output.complain(command.display(), error);
    Exit(code).into()
}

/// Ends as it did.
///
/// # Errors
/// [`Exit`], where it did not end with 0.
pub fn end_as(status: ExitStatus) -> anyhow::Result<()> {
    let code = status.code().or_else(|| status.signal().map(|signal| SIGNALLED + signal));
    match code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1) {
        0 => Ok(()),
        code => Err(Exit(code).into()),
    }
}
