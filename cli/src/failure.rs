//! How a command that fails says so: what, where, and what to do instead; and its exit code.

use std::error::Error;
use std::io::ErrorKind;
use std::process::ExitCode;

use clap::error::ErrorKind as ClapKind;
use redrive_shared::config::ConfigError;
use redrive_shared::error::Problem;
use redrive_worker::client::{AskError, ClientError};
use redrive_worker::fenced_file::FencedFileError;
use serde_json::{Value, json};

use crate::output::Output;
use crate::signals::IMPATIENT_EXIT_CODE;

const FAILED: u8 = 1;
const USAGE: u8 = 2;
/// Somebody else was given what was asked for.
const REFUSED: u8 = 3;

/// The command line asks for something that cannot be: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(String);

impl Usage {
    /// With its message.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// Everything that went wrong has been said already, item by item: exit code 1 and no more words.
#[derive(Debug, thiserror::Error)]
#[error("some of it failed")]
pub struct AlreadyReported;

/// Everything was said already: this exit code and no more words.
#[derive(Debug, thiserror::Error)]
#[error("exit code {0}")]
pub struct Exit(pub u8);

/// An error in the shape in which it is printed.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    exit: u8,
    code: String,
    detail: String,
    at: Option<String>,
    remedy: Option<String>,
    page: Option<String>,
}

/// Prints what clap found, as JSON where that was asked for, and gives its exit code. Help and version are no errors.
pub fn usage(error: &clap::Error) -> ExitCode {
    let wants_json = std::env::args_os().any(|argument| argument == "--json");
    match error.kind() {
        ClapKind::DisplayHelp | ClapKind::DisplayVersion => {
            // A reader of the help that has gone away is no error either.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ClapKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(USAGE)
        }
        _ if wants_json => {
            let message = error.render().to_string();
            let told = Told { exit: USAGE, ..Told::failed("usage", &on_one_line(&message)) };
            eprintln!("{}", told.remedy("run it with --help").to_json());
            ExitCode::from(USAGE)
        }
        _ => {
            let _ = error.print();
            ExitCode::from(USAGE)
        }
    }
}

/// clap's message without its usage and advice.
fn on_one_line(message: &str) -> String {
    let more = |line: &&str| !line.starts_with("Usage:") && !line.starts_with("For more information");
    let lines: Vec<&str> =
        message.lines().map(str::trim).filter(|line| !line.is_empty()).take_while(more).collect();
    lines.join("; ").trim_start_matches("error: ").to_owned()
}

/// Prints why a command failed and gives its exit code.
pub fn report(done: anyhow::Result<()>, output: Output) -> ExitCode {
    let Err(error) = done else { return ExitCode::SUCCESS };
    // Whoever read our output has read enough (`| head`).
    if is_broken_pipe(&error) {
        return ExitCode::SUCCESS;
    }
    if let Some(Exit(code)) = error.downcast_ref() {
        return ExitCode::from(*code);
    }
    if error.is::<AlreadyReported>() {
        return ExitCode::from(FAILED);
    }
    let told = tell(&error);
    if output.json {
        eprintln!("{}", told.to_json());
    } else {
        eprintln!("{}", told.to_text(&output));
    }
    ExitCode::from(told.exit)
}

/// The user wanted the process to end at once.
#[derive(Debug, thiserror::Error)]
#[error("stopped at once, as a second signal asked")]
pub struct Impatient;

/// Whether the error is that nobody reads our stdout any more.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// A problem of one item of a batch, on one line.
pub fn problem_line(problem: &Problem) -> String {
    format!("{problem}; see {}", problem.kind)
}

fn tell(error: &anyhow::Error) -> Told {
    let mut contexts = Vec::new();
    for cause in error.chain() {
        let told = if let Some(Usage(message)) = cause.downcast_ref() {
            Told { exit: USAGE, ..Told::failed("usage", message) }
        } else if cause.is::<Impatient>() {
            Told { exit: IMPATIENT_EXIT_CODE, ..Told::failed("interrupted", &cause.to_string()) }
        } else if let Some(error) = cause.downcast_ref::<ConfigError>() {
            Told { exit: USAGE, ..Told::failed("invalid_configuration", &error.to_string()) }
        } else if let Some(error) = cause.downcast_ref::<ClientError>() {
            tell_client(error)
        } else if let Some(error) = cause.downcast_ref::<AskError>() {
            tell_ask(error)
        } else if let Some(error) = cause.downcast_ref::<FencedFileError>() {
            tell_fenced_file(error)
        } else {
            contexts.push(cause.to_string());
            continue;
        };
        contexts.push(told.detail);
        return Told { detail: contexts.join(": "), ..told };
    }
    Told::failed("failed", &chain(error.as_ref()))
}

fn tell_problem(problem: &Problem) -> Told {
    let (at, page) = (problem.at.clone(), Some(problem.kind.clone()));
    Told { at, page, ..Told::failed(problem.code.as_str(), &problem.detail) }
}

fn tell_ask(error: &AskError) -> Told {
    match error {
        AskError::Refused(problem) => tell_problem(problem),
        AskError::NoAnswer(_) => Told::failed("no_worker", &error.to_string()).remedy(
            "end the handler: its attempt is over, or its worker is; what was saved comes with the next",
        ),
        AskError::Address(_) => Told { exit: USAGE, ..Told::failed("usage", &error.to_string()) },
    }
}

fn tell_client(error: &ClientError) -> Told {
    match error {
        ClientError::Problem(problem) => tell_problem(problem),
        ClientError::Unreachable { .. } => Told::failed("unreachable", &brief(error))
            .remedy("start a coordinator with `redrive dev`, or say where it is with --url or REDRIVE_URL"),
        ClientError::Protocol { .. } => Told::failed("unexpected_answer", &chain(error))
            .remedy("check that --url points at a Redrive coordinator of this release"),
        ClientError::Garbled { .. } => Told::failed("garbled", &chain(error))
            .remedy("try again; if it stays, a proxy or the storage of blobs changes what it is given"),
        ClientError::Address { .. } => Told { exit: USAGE, ..Told::failed("usage", &chain(error)) }
            .remedy("write --url http://HOST:PORT"),
    }
}

fn tell_fenced_file(error: &FencedFileError) -> Told {
    let (exit, code) = match error {
        FencedFileError::Stale { .. } => (REFUSED, "stale_token"),
        FencedFileError::Changed { .. } => (REFUSED, "file_changed"),
        FencedFileError::Token(_) | FencedFileError::Path { .. } => (USAGE, "usage"),
        FencedFileError::Busy { .. } => (FAILED, "file_busy"),
        FencedFileError::TooLarge { .. } => (FAILED, "file_too_large"),
        FencedFileError::Damaged { .. } => (FAILED, "fence_damaged"),
        FencedFileError::Contents(_) | FencedFileError::Io { .. } | FencedFileError::NotFlushed { .. } => {
            (FAILED, "failed")
        }
    };
    Told { exit, ..Told::failed(code, &chain(error)) }
}

/// An error and its causes, outermost first; a cause that only repeats what was said is left out.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = inner.source();
    }
    text
}

/// A client's error in few words: for one that did not reach the coordinator, the HTTP library's layers between what we
/// tried and what the system said are left out.
pub fn brief(error: &ClientError) -> String {
    match error {
        ClientError::Unreachable { source, .. } => {
            let mut root: &dyn Error = source;
            while let Some(inner) = root.source() {
                root = inner;
            }
            format!("{error}: {root}")
        }
        ClientError::Problem(_)
        | ClientError::Protocol { .. }
        | ClientError::Garbled { .. }
        | ClientError::Address { .. } => chain(error),
    }
}

impl Told {
    fn failed(code: &str, detail: &str) -> Self {
        Self {
            exit: FAILED,
            code: code.to_owned(),
            detail: detail.to_owned(),
            at: None,
            remedy: None,
            page: None,
        }
    }

    fn remedy(mut self, remedy: &str) -> Self {
        self.remedy = Some(remedy.to_owned());
        self
    }

    fn to_json(&self) -> Value {
        let mut object = json!({ "code": self.code, "detail": self.detail, "exit_code": self.exit });
        let optional = [("at", &self.at), ("remedy", &self.remedy), ("type", &self.page)];
        for (key, value) in optional {
            if let Some(value) = value {
                object[key] = json!(value);
            }
        }
        object
    }

    fn to_text(&self, output: &Output) -> String {
        let coded = self.page.as_ref().map(|_| format!("{}: ", self.code)).unwrap_or_default();
        let at = self.at.as_ref().map(|at| format!(" (at {at})")).unwrap_or_default();
        let mut text =
            format!("{} {coded}{}{at}", output.error_mark(), crate::output::printable(&self.detail));
        if let Some(remedy) = &self.remedy {
            text.push_str(&format!("\n  {remedy}"));
        }
        if let Some(page) = &self.page {
            text.push_str(&format!("\n  what to do: {page}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redrive_shared::error::ErrorCode;

    fn text(error: impl Into<anyhow::Error>) -> (u8, String) {
        let told = tell(&error.into());
        (told.exit, told.to_text(&Output::plain(false)))
    }

    #[test]
    fn a_problem_is_shown_with_code_place_and_page() {
        let problem = Problem::new(ErrorCode::UnknownQueue, "there is no queue `a`").at("tasks[3].queue");
        let error = ClientError::Problem(Box::new(problem));
        let told = tell(&anyhow::Error::from(error).context("enqueue"));
        assert_eq!(
            told.to_text(&Output::plain(false)),
            "error: unknown_queue: enqueue: there is no queue `a` (at tasks[3].queue)\n  \
             what to do: docs/errors/unknown_queue.md"
        );
        assert_eq!(
            told.to_json(),
            json!({
                "code": "unknown_queue", "detail": "enqueue: there is no queue `a`", "at": "tasks[3].queue",
                "type": "docs/errors/unknown_queue.md", "exit_code": 1,
            })
        );
    }

    #[test]
    fn usage_and_configuration_exit_with_2_and_the_rest_with_1() {
        assert_eq!(text(Usage::new("no")), (2, "error: no".to_owned()));
        assert_eq!(text(ConfigError::Incomplete("x".into())).0, 2);
        assert_eq!(
            text(anyhow::anyhow!("disk").context("reading a")),
            (1, "error: reading a: disk".to_owned())
        );
    }

    #[test]
    fn what_clap_says_fits_on_one_line() {
        let said = "error: invalid value 'ded' for '--state'\n  [possible values: dead]\n\n  tip: 'dead'\n\nUsage: x";
        assert_eq!(
            on_one_line(said),
            "invalid value 'ded' for '--state'; [possible values: dead]; tip: 'dead'"
        );
    }

    #[test]
    fn a_closed_stdout_is_known_under_its_context() {
        let closed = std::io::Error::from(ErrorKind::BrokenPipe);
        assert!(is_broken_pipe(&anyhow::Error::from(closed)));
        assert!(!is_broken_pipe(&anyhow::anyhow!("other")));
    }
}
