//! The configuration of this binary: which sections there are, and where the layers come from.

use std::path::Path;

use redrive_coordinator::CoordinatorConfig;
use redrive_shared::config::{Merged, merge};
use redrive_worker::WorkerConfig;
use serde::Deserialize;
use toml::{Table, Value};

use crate::failure::Usage;

/// Every key, with its documentation and its default.
pub const DEFAULTS: &str = include_str!("../config.default.toml");

/// The sections.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What `redrive coordinator` is told.
    pub coordinator: CoordinatorConfig,
    /// What `redrive worker` is told.
    pub worker: WorkerConfig,
}

/// The layers on top of each other: defaults, `file`, environment, `flags`.
pub fn merged(file: Option<&Path>, flags: Table) -> anyhow::Result<Merged> {
    let text = file.map(|path| {
        std::fs::read_to_string(path)
            .map_err(|error| Usage::new(format!("cannot read the configuration {}: {error}", path.display())))
    });
    let text = text.transpose()?;
    // Names and values that are not UTF-8 cannot be ours.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Ok(merge(DEFAULTS, file.zip(text.as_deref()), environment, flags)?)
}

/// The values without secrets: those of keys that name one, and passwords inside addresses.
pub fn redacted(table: &Table) -> Table {
    table.iter().map(|(key, value)| (key.clone(), redact(key, value))).collect()
}

fn redact(key: &str, value: &Value) -> Value {
    const SECRET_WORDS: [&str; 6] = ["secret", "password", "token", "api_key", "credential", "authorization"];
    match value {
        Value::Table(table) => Value::Table(redacted(table)),
        _ if SECRET_WORDS.iter().any(|word| key.to_lowercase().contains(word)) => Value::String("***".into()),
        Value::Array(items) => Value::Array(items.iter().map(|item| redact(key, item)).collect()),
        Value::String(text) => Value::String(without_password(text)),
        other => other.clone(),
    }
}

/// `redis://user:password@host` becomes `redis://user:***@host`.
fn without_password(text: &str) -> String {
    let found = text.split_once("://").and_then(|(scheme, rest)| {
        let (user_info, host) = rest.split_once('@')?;
        let (user, _) = user_info.split_once(':')?;
        Some(format!("{scheme}://{user}:***@{host}"))
    });
    found.unwrap_or_else(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use redrive_coordinator::{BlobsConfig, StoreConfig};
    use redrive_shared::breaker::BreakerConfig;

    #[test]
    fn the_documented_defaults_are_the_defaults_of_the_code() {
        let merged = merge(DEFAULTS, None, std::iter::empty(), Table::new()).unwrap();
        let documented: Config = merged.read().unwrap();
        assert_eq!(format!("{:?}", documented.coordinator), format!("{:?}", CoordinatorConfig::default()));
        assert_eq!(format!("{:?}", documented.worker), format!("{:?}", WorkerConfig::default()));
    }

    /// The keys that serde lists when it refuses one.
    fn keys<T: serde::de::DeserializeOwned>() -> Vec<String> {
        let error = "no_such_key = 1".parse::<Table>().unwrap().try_into::<T>().err().unwrap();
        let names = error.message().split('`').skip(3).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        assert!(names.len() > 3, "{error}");
        names
    }

    #[test]
    fn every_key_is_documented() {
        let of_coordinator =
            [keys::<CoordinatorConfig>(), keys::<StoreConfig>(), keys::<BlobsConfig>()].concat();
        let keys = [of_coordinator, keys::<WorkerConfig>(), keys::<BreakerConfig>()].concat();
        for key in keys {
            let stands = |line: &str| {
                let line = line.strip_prefix('#').unwrap_or(line);
                line.starts_with(&format!("{key} = ")) || line.ends_with(&format!(".{key}]"))
            };
            assert!(DEFAULTS.lines().any(stands), "{key} is not in config.default.toml");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let table: Table = "[store]\nurl = \"redis://me:pass@host:1/0\"\nApi_Key = \"x\"\nport = 1\n\
                            list = [\"http://a:b@c\"]"
            .parse()
            .unwrap();
        let shown = redacted(&table).to_string();
        assert!(!shown.contains("pass") && !shown.contains("\"x\"") && !shown.contains("a:b"), "{shown}");
        assert!(shown.contains("redis://me:***@host:1/0"), "{shown}");
    }
}
