//! The log, on stderr: stdout belongs to data.

use tracing_subscriber::EnvFilter;

use crate::cli::{Global, LogFormat};
use crate::failure::Usage;

/// The crates of this project, whose details come one step before those of the libraries.
const OURS: [&str; 5] =
    ["redrive", "redrive_coordinator", "redrive_worker", "redrive_link", "redrive_shared"];

/// Starts the log. `REDRIVE_LOG`, then `RUST_LOG`, decide what is written; then `-v`; then the command's own level.
pub fn start(global: &Global, level: &'static str) -> anyhow::Result<()> {
    let filter = match ["REDRIVE_LOG", "RUST_LOG"].iter().find_map(|name| read(name)) {
        Some((name, text)) => EnvFilter::try_new(&text).map_err(|error| {
            Usage::new(format!("{name}={text} is not a log filter: {error}; write for example {name}=info"))
        })?,
        None => EnvFilter::new(directives(global.verbose, level)),
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(crate::output::colours(&std::io::stderr()));
    match global.log_format {
        LogFormat::Pretty => log.with_target(false).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    Ok(())
}

fn read(name: &'static str) -> Option<(&'static str, String)> {
    std::env::var(name).ok().filter(|text| !text.is_empty()).map(|text| (name, text))
}

fn directives(verbose: u8, level: &str) -> String {
    match verbose {
        // lapin writes whole messages, bodies and all, when one comes back: what matters of that is told by us.
        0 => format!("{level},lapin=off"),
        1 => OURS.iter().fold("info,lapin=off".to_owned(), |text, name| format!("{text},{name}=debug")),
        2 => "debug".to_owned(),
        _ => "trace".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_v_shows_more() {
        assert_eq!(directives(0, "warn"), "warn,lapin=off");
        assert!(directives(1, "warn").starts_with("info,lapin=off,redrive=debug,"));
        assert_eq!(directives(2, "warn"), "debug");
        assert_eq!(directives(9, "warn"), "trace");
    }
}
