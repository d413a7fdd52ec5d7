//! `redrive completed`: whether a step of a handler's task is done, and what it left.

use redrive_shared::id::Name;

use super::step;
use crate::attempt;
use crate::context::Context;
use crate::failure::Exit;

/// It is not done.
const NOT_DONE: u8 = 1;

const LONG_ABOUT: &str = "\
Print the state of a step that is done, by this attempt or an earlier one. Text is printed as it is, other JSON on a line; with
--json it is JSON whatever it is.";

const AFTER_HELP: &str = "\
Exit codes: 0 it is done, 1 it is not done, 69 the worker cannot be asked, 2 the command line is wrong, or this is no handler.

Examples:
  page=$(redrive completed fetch)
  case $? in 0) ;; 1) page=$(./fetch) || exit ;; *) exit 75 ;; esac";
/// The worker cannot be asked: `EX_UNAVAILABLE` of sysexits.h. That is no answer, above all not "it is not done".
const UNANSWERED: u8 = 69;

/// In a handler: print what a step that is done has saved.
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT, after_help = AFTER_HELP)]
pub struct Args {
    /// The step.
    #[arg(value_name = "NAME")]
    step: Name,
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    match attempt::context()?.completed(&args.step).await {
        Ok(Some(state)) if context.output.json => Ok(context.output.line(String::from_utf8(state)?)?),
        Ok(Some(state)) => step::print(&state),
        Ok(None) => Err(Exit(NOT_DONE).into()),
        Err(error) => {
            context.output.complain(format!("completed {}", &*args.step), error);
            Err(Exit(UNANSWERED).into())
        }
    }
}
