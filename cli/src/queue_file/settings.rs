//! The settings of a policy: their names in the file and in JSON, and what may stand there.

use std::ops::RangeInclusive;

use redrive_shared::config::format_duration_ms;
use redrive_shared::config::reader::{Read, Reader};
use redrive_shared::retry::MAX_ATTEMPTS;
use serde_json::Value;

const ATTEMPTS: RangeInclusive<u64> = 1..=MAX_ATTEMPTS as u64;
const ENDINGS: Kind = Kind::Word(&["dead", "escalate"]);

/// What a queue has, beside its `strategy` and its `classes`. Bounds that are not here are checked by the policy itself.
pub const QUEUE: &[Setting] = &[
    Setting { key: "risk", field: "risk", kind: Kind::Word(&["low", "high"]) },
    Setting { key: "max_attempts", field: "max_attempts", kind: Kind::Count(ATTEMPTS) },
    Setting { key: "deadline", field: "deadline_ms", kind: Kind::Duration },
    Setting { key: "retention", field: "retention_ms", kind: Kind::Duration },
    Setting { key: "timeout", field: "timeout_ms", kind: Kind::Duration },
    Setting { key: "lease", field: "lease_ms", kind: Kind::Duration },
];

/// What a failure class of a queue has, beside its `strategy`.
pub const CLASS: &[Setting] = &[
    Setting { key: "max_attempts", field: "max_attempts", kind: Kind::Count(ATTEMPTS) },
    Setting { key: "retryable", field: "retryable", kind: Kind::Flag },
    Setting { key: "when_unretryable", field: "when_unretryable", kind: ENDINGS },
    Setting { key: "when_exhausted", field: "when_exhausted", kind: ENDINGS },
];

/// What strategies have: each has some of them.
pub const STRATEGY: &[Setting] = &[
    Setting { key: "delay", field: "delay_ms", kind: Kind::Duration },
    Setting { key: "delays", field: "delays_ms", kind: Kind::Durations },
    Setting { key: "multiplier", field: "multiplier_ms", kind: Kind::Duration },
    Setting { key: "base", field: "base_ms", kind: Kind::Duration },
    Setting { key: "jitter", field: "jitter_ms", kind: Kind::Duration },
    Setting { key: "min", field: "min_ms", kind: Kind::Duration },
    Setting { key: "max", field: "max_ms", kind: Kind::Duration },
    Setting { key: "cap", field: "cap_ms", kind: Kind::Duration },
];

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Its name in the file.
    pub key: &'static str,
    /// Its name in JSON.
    pub field: &'static str,
    /// What may stand there.
    pub kind: Kind,
}

/// What a setting is.
#[derive(Debug)]
pub enum Kind {
    /// A duration with its unit; milliseconds in JSON.
    Duration,
    /// A list of them.
    Durations,
    /// A whole number within bounds.
    Count(RangeInclusive<u64>),
    /// `true` or `false`.
    Flag,
    /// One of some words.
    Word(&'static [&'static str]),
}

impl Setting {
    /// Reads it from its table, as it stands in JSON.
    pub fn read(&self, table: &mut Reader<'_>) -> Read<Option<Value>> {
        Ok(match &self.kind {
            Kind::Duration => table.duration_ms(self.key)?.map(Value::from),
            Kind::Durations => table.durations_ms(self.key)?.map(Value::from),
            Kind::Count(bounds) => table.whole(self.key, bounds.clone())?.map(Value::from),
            Kind::Flag => table.flag(self.key)?.map(Value::from),
            Kind::Word(words) => table.word(self.key, words)?.map(Value::from),
        })
    }

    /// A value of it as people read it.
    pub fn plain(&self, value: &Value) -> String {
        let of = |value: &Value| value.as_u64().map_or_else(|| value.to_string(), format_duration_ms);
        match (&self.kind, value) {
            (Kind::Duration, value) => of(value),
            (Kind::Durations, Value::Array(items)) => items.iter().map(of).collect::<Vec<_>>().join(", "),
            (_, Value::String(text)) => text.clone(),
            (_, value) => value.to_string(),
        }
    }

    /// A value of it as it stands in the file.
    pub fn toml(&self, value: &Value) -> String {
        match (&self.kind, value) {
            (Kind::Duration, value) => format!("\"{}\"", self.plain(value)),
            (Kind::Durations, Value::Array(_)) => {
                format!("[\"{}\"]", self.plain(value).replace(", ", "\", \""))
            }
            // Words, numbers and flags are written alike in JSON and in TOML.
            (_, value) => value.to_string(),
        }
    }
}
