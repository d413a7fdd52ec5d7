//! The settings of a policy: their names in the file and in JSON, and what may stand there.

use std::ops::RangeInclusive;

use redrive_shared::config::format_duration_ms;
use redrive_shared::config::reader::{Read, Reader};
use redrive_shared::id::Name;
use redrive_shared::limits::COST_MAX_USD;
use redrive_shared::retry::{MAX_ATTEMPTS, MAX_DEFERRALS};
use serde_json::{Map, Value};

const ATTEMPTS: RangeInclusive<u64> = 1..=MAX_ATTEMPTS as u64;
const CHARGES: RangeInclusive<u64> = 1..=MAX_DEFERRALS as u64;
const ENDINGS: Kind = Kind::Word(&["dead", "escalate"]);

/// What a queue has, beside its `strategy` and its `classes`. Bounds that are not here are checked by the policy itself.
pub const QUEUE: &[Setting] = &[
    Setting { key: "risk", field: "risk", kind: Kind::Word(&["low", "high"]) },
    Setting { key: "max_attempts", field: "max_attempts", kind: Kind::Count(ATTEMPTS) },
    Setting { key: "deadline", field: "deadline_ms", kind: Kind::Duration },
    Setting { key: "retention", field: "retention_ms", kind: Kind::Duration },
    Setting { key: "timeout", field: "timeout_ms", kind: Kind::Duration },
    Setting { key: "lease", field: "lease_ms", kind: Kind::Duration },
    Setting { key: "max_deferrals", field: "max_deferrals", kind: Kind::Count(CHARGES) },
    Setting { key: "max_releases", field: "max_releases", kind: Kind::Count(CHARGES) },
    Setting { key: "task_base_min", field: "task_base_min_ms", kind: Kind::Duration },
    Setting { key: "task_cap_max", field: "task_cap_max_ms", kind: Kind::Duration },
    Setting { key: "max_group_cost_usd_per_day", field: "max_group_cost_usd_per_day", kind: Kind::Dollars },
    Setting { key: "fallbacks", field: "fallbacks", kind: Kind::Chains },
];

/// What a failure class of a queue has, beside its `strategy`.
pub const CLASS: &[Setting] = &[
    Setting { key: "max_attempts", field: "max_attempts", kind: Kind::Count(ATTEMPTS) },
    Setting { key: "retryable", field: "retryable", kind: Kind::Flag },
    Setting { key: "when_unretryable", field: "when_unretryable", kind: ENDINGS },
    Setting { key: "when_exhausted", field: "when_exhausted", kind: ENDINGS },
    Setting { key: "fallback_after", field: "fallback_after", kind: Kind::Count(0..=MAX_ATTEMPTS as u64) },
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
    /// An amount of money, in US dollars.
    Dollars,
    /// `true` or `false`.
    Flag,
    /// One of some words.
    Word(&'static [&'static str]),
    /// A table of names, each with a list of names.
    Chains,
}

impl Setting {
    /// Reads it from its table, as it stands in JSON.
    pub fn read(&self, table: &mut Reader<'_>) -> Read<Option<Value>> {
        Ok(match &self.kind {
            Kind::Duration => table.duration_ms(self.key)?.map(Value::from),
            Kind::Durations => table.durations_ms(self.key)?.map(Value::from),
            Kind::Count(bounds) => table.whole(self.key, bounds.clone())?.map(Value::from),
            Kind::Dollars => table.number(self.key, 0.0..=COST_MAX_USD.into())?.map(Value::from),
            Kind::Flag => table.flag(self.key)?.map(Value::from),
            Kind::Word(words) => table.word(self.key, words)?.map(Value::from),
            Kind::Chains => match table.table(self.key)? {
                Some(chains) => Some(read_chains(chains)?),
                None => None,
            },
        })
    }

    /// A value of it as people read it.
    pub fn plain(&self, value: &Value) -> String {
        let of = |value: &Value| value.as_u64().map_or_else(|| value.to_string(), format_duration_ms);
        match (&self.kind, value) {
            (Kind::Duration, value) => of(value),
            (Kind::Durations, Value::Array(items)) => items.iter().map(of).collect::<Vec<_>>().join(", "),
            (Kind::Chains, Value::Object(chains)) => {
                let chain = |(primary, chain): (&String, &Value)| format!("{primary} → {}", names(chain));
                chains.iter().map(chain).collect::<Vec<_>>().join("; ")
            }
            (Kind::Dollars, value) => {
                value.as_f64().map_or_else(|| value.to_string(), |usd| format!("${usd}"))
            }
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
            (Kind::Chains, Value::Object(chains)) => {
                // A list of words is written alike in JSON and in TOML.
                let chain = |(primary, chain): (&String, &Value)| format!("\"{primary}\" = {chain}");
                format!("{{ {} }}", chains.iter().map(chain).collect::<Vec<_>>().join(", "))
            }
            (Kind::Dollars, value) => value.as_f64().map_or_else(|| value.to_string(), |usd| usd.to_string()),
            // Words, numbers and flags are written alike in JSON and in TOML.
            (_, value) => value.to_string(),
        }
    }
}

fn read_chains(mut chains: Reader<'_>) -> Read<Value> {
    let is_name = |text: &str| Name::new(text).is_ok();
    let mut given = Map::new();
    for primary in chains.keys().collect::<Vec<_>>() {
        let items = chains.value(primary).and_then(|value| value.as_array());
        let items: Option<Vec<&str>> =
            items.and_then(|items| items.iter().map(|item| item.as_str()).collect());
        match items.filter(|items| is_name(primary) && items.iter().all(|item| is_name(item))) {
            Some(items) => drop(given.insert(primary.to_owned(), items.into())),
            None => {
                let expected =
                    "a dependency and the list of those that stand in for it, such as [\"openai/main/gpt\"]";
                return chains.refuse(primary, expected);
            }
        }
    }
    Ok(given.into())
}

fn names(chain: &Value) -> String {
    chain.as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}
