//! The parts of a scenario that are production's own settings: names, defaults and checks are those of `redrive-shared`.

use std::collections::BTreeMap;

use redrive_shared::breaker::BreakerConfig;
use redrive_shared::config::reader::{Read, Reader};
use redrive_shared::gate::{Budget, Settings};
use redrive_shared::retry::{ClassPolicy, MAX_ATTEMPTS, MAX_DEADLINE_MS, PolicyError, RetryPolicy, Strategy};
use toml::{Table, Value};

use super::{GateRules, Holds, Retry};
use crate::dependency::Trouble;

/// `none` is retrying at once: a fixed delay of zero. It has a name because it is what everything is compared with.
const STRATEGIES: [&str; 8] = [
    "none",
    "fixed",
    "exponential",
    "exponential_jitter",
    "full_jitter",
    "equal_jitter",
    "decorrelated",
    "schedule",
];
const UNLIMITED: &str = "unlimited";

pub(super) fn read_retry(mut reader: Reader<'_>) -> Read<Retry> {
    let Some(name) = reader.word("strategy", &STRATEGIES)? else {
        return reader.refuse("strategy", "a strategy, such as \"full_jitter\"");
    };
    let strategy = read_strategy(name, &mut reader)?;
    let unlimited = reader.value("max_attempts").and_then(Value::as_str) == Some(UNLIMITED);
    let max_attempts = match reader.value("max_attempts") {
        Some(Value::String(_)) if unlimited => Some(u64::from(MAX_ATTEMPTS)),
        Some(Value::String(_)) => {
            return reader.refuse("max_attempts", "a whole number, from 1 to 100, or \"unlimited\"");
        }
        _ => reader.whole("max_attempts", 1..=u64::from(MAX_ATTEMPTS))?,
    };
    let deadline_ms = reader.whole("deadline_ms", 1..=MAX_DEADLINE_MS)?;
    let class_rules = reader.flag("class_rules")?.unwrap_or(true);
    let defaults = RetryPolicy::default();
    let policy = RetryPolicy {
        max_attempts: max_attempts.map_or(defaults.max_attempts, |most| most as u32),
        deadline_ms: deadline_ms.unwrap_or(defaults.deadline_ms),
        overrides: if class_rules { BTreeMap::new() } else { one_rule_for_all(&strategy) },
        strategy,
        ..defaults
    };
    policy.validate().map_err(|error| policy_error(&reader, &error))?;
    reader.finish()?;
    Ok(Retry { strategy: name.to_owned(), policy, unlimited })
}

/// The policy's own strategy and bound for every kind of failure, whatever production would do about it by default.
fn one_rule_for_all(strategy: &Strategy) -> BTreeMap<redrive_shared::failure::FailureClass, ClassPolicy> {
    let rule = ClassPolicy {
        strategy: Some(strategy.clone()),
        max_attempts: Some(MAX_ATTEMPTS),
        retryable: Some(true),
        ..ClassPolicy::default()
    };
    Trouble::ALL.map(|trouble| (trouble.class(), rule.clone())).into()
}

fn read_strategy(name: &str, reader: &mut Reader<'_>) -> Read<Strategy> {
    if name == "none" {
        return Ok(Strategy::Fixed { delay_ms: 0 });
    }
    let mut given = Table::from_iter([("strategy".to_owned(), Value::from(name))]);
    // What it takes, and of which type, is what its own defaults say.
    let defaults =
        given.clone().try_into::<Strategy>().ok().and_then(|strategy| Table::try_from(strategy).ok());
    for (key, default) in defaults.unwrap_or_default().iter().filter(|(key, _)| *key != "strategy") {
        if let Some(value) = read_like(default, key, reader)? {
            given.insert(key.clone(), value);
        }
    }
    given.try_into().map_err(|error: toml::de::Error| reader.error("strategy", error.message()))
}

pub(super) fn read_breaker(mut reader: Reader<'_>) -> Read<BreakerConfig> {
    let mut table = Table::try_from(BreakerConfig::default()).unwrap_or_default();
    // It has no default, and is therefore not among them.
    let slow = reader.whole("slow_call_ms", 1..=i64::MAX as u64)?;
    let defaults = table.clone();
    for (key, default) in &defaults {
        if let Some(value) = read_like(default, key, &mut reader)? {
            table.insert(key.clone(), value);
        }
    }
    let config = table.try_into::<BreakerConfig>();
    let mut config = config
        .map_err(|error| reader.error("failure_rate", format!("and its neighbours: {}", error.message())))?;
    config.slow_call_ms = slow;
    config.validate().map_err(|error| {
        reader.error(error.field, format!("is {}, but must be {}", error.value, error.must))
    })?;
    reader.finish()?;
    Ok(config)
}

pub(super) fn read_gate(mut reader: Reader<'_>) -> Read<GateRules> {
    let holds = match reader.word("holds", &["everything", "retries"])? {
        Some("retries") => Holds::Retries,
        Some(_) | None => Holds::Everything,
    };
    let requests_per_minute = reader.whole("requests_per_minute", 0..=u64::from(u32::MAX))?;
    let requests_per_minute = requests_per_minute.map(|most| most as u32);
    let mut inner = reader.table("budget")?;
    let budget = inner.as_mut().map(read_budget).transpose()?;
    let settings = Settings { requests_per_minute, budget, ..Settings::default() };
    settings.validate().map_err(|error| {
        let message = format!("is {}, but must be {}", error.value, error.must);
        match (error.field.strip_prefix("budget."), &inner) {
            (Some(key), Some(inner)) => inner.error(key, message),
            _ => reader.error(error.field, message),
        }
    })?;
    inner.map_or(Ok(()), Reader::finish)?;
    reader.finish()?;
    Ok(GateRules { holds, settings })
}

fn read_budget(reader: &mut Reader<'_>) -> Read<Budget> {
    let defaults = Budget::default();
    Ok(Budget {
        ratio: reader.number("ratio", 0.0..=f64::MAX)?.unwrap_or(defaults.ratio),
        floor_per_s: reader.number("floor_per_s", 0.0..=f64::MAX)?.unwrap_or(defaults.floor_per_s),
        min_firsts: reader
            .whole("min_firsts", 0..=u64::from(u32::MAX))?
            .map_or(defaults.min_firsts, |least| least as u32),
    })
}

/// A value of the same type as the default; numbers are never negative.
fn read_like(default: &Value, key: &str, reader: &mut Reader<'_>) -> Read<Option<Value>> {
    match default {
        Value::Float(_) => Ok(reader.number(key, 0.0..=f64::MAX)?.map(Value::from)),
        // What is bounded by less is refused by the settings' own check, which says why.
        Value::Integer(_) => {
            let most = if key.ends_with("_ms") { i64::MAX as u64 } else { u64::from(u32::MAX) };
            Ok(reader.whole(key, 0..=most)?.map(|number| Value::Integer(number as i64)))
        }
        _ => {
            let Some(value) = reader.value(key) else { return Ok(None) };
            let whole = |item: &Value| item.as_integer().is_some_and(|number| number >= 0);
            match value.as_array() {
                Some(items) if items.iter().all(whole) => Ok(Some(value.clone())),
                Some(_) | None => reader.refuse(key, "a list of milliseconds, such as [5000, 300000]"),
            }
        }
    }
}

/// The policy's check names fields by their path; the last part of it is the key here.
fn policy_error(reader: &Reader<'_>, error: &PolicyError) -> super::ScenarioError {
    let field = error.field();
    let key = field.rsplit('.').next().unwrap_or(field);
    let key = key.split('[').next().unwrap_or(key);
    let text = error.to_string();
    reader.error(key, text.strip_prefix(field).unwrap_or(&text).trim_start())
}
