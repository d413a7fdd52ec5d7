//! Values on the command line, checked where they come in. What is wrong there is a usage error (exit code 2).

use clap::builder::{PossibleValuesParser, TypedValueParser};
use redrive_shared::config::parse_duration_ms;
use redrive_shared::cost::Cost;
use redrive_shared::limits::COST_MAX_USD;
use redrive_shared::task::{Priority, TaskState};
use serde::de::DeserializeOwned;

use crate::failure::Usage;

/// A duration such as `5s` or `1m30s`, in milliseconds.
pub fn duration_ms(text: &str) -> Result<u64, String> {
    parse_duration_ms(text).map_err(|error| error.to_string())
}

/// `key=value`.
pub fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some(("", _)) => Err("the label has no key; write key=value, such as team=search".to_owned()),
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(format!("a label is key=value; write {text}=VALUE")),
    }
}

/// One of the priorities.
pub fn priority() -> impl TypedValueParser<Value = Priority> {
    const ALL: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Low];
    one_of(ALL, Priority::as_str)
}

/// One of the states of a task.
pub fn state() -> impl TypedValueParser<Value = TaskState> {
    one_of(TaskState::ALL, TaskState::as_str)
}

fn one_of<T: Copy + Send + Sync + 'static, const N: usize>(
    all: [T; N],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(all.map(name)).try_map(move |given| {
        all.into_iter()
            .find(|value| name(*value) == given)
            .ok_or_else(|| format!("`{given}` is not one of them"))
    })
}

/// The text of a flag that takes the text itself, `@file`, or `-` for stdin.
pub fn text(flag: &str, given: &str) -> anyhow::Result<String> {
    let read = match given.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).map_err(|error| (path, error)),
        None if given == "-" => std::io::read_to_string(std::io::stdin()).map_err(|error| ("stdin", error)),
        None => return Ok(given.to_owned()),
    };
    read.map_err(|(place, error)| Usage::new(format!("{flag}: cannot read {place}: {error}")).into())
}

/// The JSON of such a flag.
pub fn json<T: DeserializeOwned>(flag: &str, given: &str) -> anyhow::Result<T> {
    read(flag, given, crate::json::value)
}

/// The JSON of such a flag that takes an object.
pub fn object<T: DeserializeOwned>(flag: &str, given: &str) -> anyhow::Result<T> {
    read(flag, given, crate::json::object)
}

fn read<T>(flag: &str, given: &str, parse: fn(&str) -> Result<T, String>) -> anyhow::Result<T> {
    let text = text(flag, given)?;
    parse(text.trim()).map_err(|error| {
        let hint =
            if text.trim_start().starts_with('{') { "" } else { "; write JSON, @FILE, or - for stdin" };
        Usage::new(format!("{flag}: {error}{hint}")).into()
    })
}

/// An amount in US dollars, as a bound on what a task may cost.
pub fn cost(text: &str) -> Result<Cost, String> {
    let cost = text.parse::<f64>().ok().and_then(|usd| Cost::try_from(usd).ok());
    match cost {
        Some(cost) if !cost.is_zero() && cost <= Cost::MAX => Ok(cost),
        _ => Err(format!("{text} must be US dollars, more than 0 and at most {COST_MAX_USD}, such as 2.50")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redrive_shared::failure::FailureSignal;

    #[test]
    fn a_label_is_cut_at_its_first_equals_sign() {
        assert_eq!(label("team=search"), Ok(("team".to_owned(), "search".to_owned())));
        assert_eq!(label("query=a=b"), Ok(("query".to_owned(), "a=b".to_owned())));
        assert_eq!(label("empty="), Ok(("empty".to_owned(), String::new())));
        assert_eq!(label("team").unwrap_err(), "a label is key=value; write team=VALUE");
        assert!(label("=x").unwrap_err().contains("has no key"));
    }

    #[test]
    fn json_comes_from_the_flag_or_a_file() {
        let signal: FailureSignal = object("--failure", "{\"http_status\": 429}").unwrap();
        assert_eq!(signal.http_status, Some(429));
        let error = |given| object::<FailureSignal>("--failure", given).unwrap_err().to_string();
        let unknown = error("{\"htp_status\": 429}");
        assert!(unknown.starts_with("--failure: unknown field `htp_status`"), "{unknown}");
        assert_eq!(
            error("[]"),
            "--failure: not a JSON object: it must begin with {; write JSON, @FILE, or - for stdin"
        );
        let word = json::<serde_json::Value>("--payload", "hello").unwrap_err().to_string();
        assert!(word.ends_with("; write JSON, @FILE, or - for stdin"), "{word}");
        let missing = text("--payload", "@/no/such/file").unwrap_err().to_string();
        assert!(missing.starts_with("--payload: cannot read /no/such/file: "), "{missing}");
    }
}
