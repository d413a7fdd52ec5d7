//! What another policy changes, setting by setting, in values that are in force.

use std::collections::BTreeMap;

use redrive_shared::failure::FailureClass;
use redrive_shared::retry::{ClassPolicy, ClassRule, Fallback, RetryPolicy, Strategy};
use serde::Serialize;
use serde_json::Value;

use super::settings::{CLASS, QUEUE, STRATEGY, Setting};

/// Where a setting has no value of its own.
const NONE: &str = "not stated";

/// One setting that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Its path, as in the file.
    pub setting: String,
    /// What was in force.
    pub old: String,
    /// What is.
    pub new: String,
}

/// What the new policy changes, in the order of the file.
pub fn changes(old: &RetryPolicy, new: &RetryPolicy) -> serde_json::Result<Vec<Change>> {
    let (old, new) = (rows(old)?, rows(new)?);
    let changed =
        |((setting, old), (_, new)): (Row, Row)| (old != new).then_some(Change { setting, old, new });
    Ok(old.into_iter().zip(new).filter_map(changed).collect())
}

type Row = (String, String);

/// Every setting and its value: the same settings for every policy, in the same order.
fn rows(policy: &RetryPolicy) -> serde_json::Result<Vec<Row>> {
    let values = serde_json::to_value(policy)?;
    let mut rows: Vec<Row> = QUEUE.iter().map(|setting| row("", setting, &values, NONE)).collect();
    rows.push(("strategy".to_owned(), strategy(&values["strategy"])));
    for class in FailureClass::ALL {
        rows.extend(class_rows(policy, class)?);
    }
    Ok(rows)
}

fn row(path: &str, setting: &Setting, values: &Value, none: &str) -> Row {
    let value = values.get(setting.field).map_or_else(|| none.to_owned(), |value| setting.plain(value));
    (format!("{path}{}", setting.key), value)
}

/// A class's rule in force; what the queue does not say itself is told to be the default, so that one that says the same is
/// told from one that says nothing.
fn class_rows(policy: &RetryPolicy, class: FailureClass) -> serde_json::Result<Vec<Row>> {
    let path = format!("classes.{class}.");
    let rule = policy.rule(class);
    let fallback = match rule.fallback {
        Fallback::Never | Fallback::AfterFailures(_) => "never",
        Fallback::LongHint => "a hint over 1m",
        Fallback::Once => "1, and once only",
    };
    let rule = serde_json::to_value(as_policy(rule))?;
    let own = serde_json::to_value(policy.overrides.get(&class))?;
    let defaults = BTreeMap::from([
        ("max_attempts", "the task's"),
        ("retryable", "as classified"),
        ("fallback_after", fallback),
    ]);
    let mut rows: Vec<Row> = CLASS
        .iter()
        .map(|setting| row(&path, setting, &rule, defaults.get(setting.key).copied().unwrap_or(NONE)))
        .collect();
    let its = rule.get("strategy").map_or_else(|| "the queue's".to_owned(), strategy);
    rows.push((format!("{path}strategy"), its));
    for ((_, value), field) in
        rows.iter_mut().zip(CLASS.iter().map(|setting| setting.field).chain(["strategy"]))
    {
        if own.get(field).is_none() {
            value.push_str(" (default)");
        }
    }
    Ok(rows)
}

/// What a class has by default, in the order of [`CLASS`], and its strategy last.
#[cfg(test)]
pub(super) fn default_rule(class: FailureClass) -> serde_json::Result<[String; 6]> {
    let rows = class_rows(&RetryPolicy::default(), class)?;
    let value = |(_, value): Row| value.trim_end_matches(" (default)").to_owned();
    let values: Vec<String> = rows.into_iter().map(value).collect();
    values.try_into().map_err(|_| serde::ser::Error::custom("a class has other settings"))
}

/// The rule as the policy of a class that says everything itself.
fn as_policy(rule: ClassRule) -> ClassPolicy {
    let ClassRule {
        strategy,
        max_attempts,
        own_counter: _,
        retryable,
        when_unretryable,
        when_exhausted,
        fallback,
    } = rule;
    ClassPolicy {
        strategy,
        max_attempts,
        retryable,
        when_unretryable: Some(when_unretryable),
        when_exhausted: Some(when_exhausted),
        fallback_after: match fallback {
            Fallback::AfterFailures(failures) => Some(failures),
            Fallback::Never | Fallback::LongHint | Fallback::Once => None,
        },
    }
}

/// A strategy as people read it.
pub fn strategy_line(given: &Strategy) -> String {
    // Numbers and a name: they always serialise.
    serde_json::to_value(given).map_or_else(|_| String::new(), |value| strategy(&value))
}

/// `full_jitter (base 1s, min 100ms, max 5m)`.
fn strategy(strategy: &Value) -> String {
    let of = |setting: &Setting| {
        strategy.get(setting.field).map(|value| format!("{} {}", setting.key, setting.plain(value)))
    };
    let settings: Vec<String> = STRATEGY.iter().filter_map(of).collect();
    format!("{} ({})", strategy["strategy"].as_str().unwrap_or_default(), settings.join(", "))
}
