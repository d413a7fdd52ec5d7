//! One line: what a client saw of a failure, and what the classifier makes of it.

use std::collections::BTreeMap;

use redrive_shared::classify::{Explanation, classify, explain};
use redrive_shared::failure::{FailureClass, FailureSignal};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A line of the input. It is not [`FailureSignal`]: here a field may be null, unknown ones are labels or notes, and
/// `class` and `retry_after_ms` would be the answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Sample {
    pub id: Option<Value>,
    now: Option<jiff::Timestamp>,
    dependency: Option<String>,
    provider: Option<String>,
    http_status: Option<u16>,
    headers: Option<BTreeMap<String, Value>>,
    body: Option<Value>,
    exception: Option<String>,
    finish_reason: Option<String>,
    stop_reason: Option<String>,
    exit_code: Option<i32>,
}

/// A line of the output.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub id: Option<Value>,
    pub class: FailureClass,
    pub retryable: bool,
    pub retry_after_ms: Option<u64>,
    pub fingerprint: String,
    /// Why, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<Explanation>,
}

/// Classifies it, and tells why where that is asked for; `now_ms` is asked where the line has no clock of its own.
pub fn judge(sample: Sample, explained: bool, now_ms: impl FnOnce() -> i64) -> Verdict {
    let now_ms = sample.now.map_or_else(now_ms, jiff::Timestamp::as_millisecond);
    let signal = FailureSignal {
        class: None,
        provider: sample.provider,
        http_status: sample.http_status,
        headers: headers(sample.headers.unwrap_or_default()),
        body: sample.body.map(as_text),
        exception: sample.exception,
        finish_reason: sample.finish_reason,
        stop_reason: sample.stop_reason,
        exit_code: sample.exit_code,
        retry_after_ms: None,
    };
    let dependency = sample.dependency.as_deref();
    let (found, because) = if explained {
        let (found, because) = explain(&signal, dependency, now_ms);
        (found, Some(because))
    } else {
        (classify(&signal, dependency, now_ms), None)
    };
    Verdict {
        id: sample.id,
        class: found.class,
        retryable: found.retryable,
        // A hint means something where the same request may succeed later.
        retry_after_ms: found.retry_after_ms.filter(|_| found.retryable),
        fingerprint: found.fingerprint,
        because,
    }
}

fn headers(given: BTreeMap<String, Value>) -> BTreeMap<String, String> {
    given
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name, as_text(value)))
        .collect()
}

/// Logs often hold a number where HTTP has text, and a parsed body where it came as a string.
fn as_text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_ignored_and_the_given_clock_is_used() {
        let line = r#"{"id": "a", "http_status": 429, "headers": {"retry-after": 7, "x": null}, "body": null,
            "now": "2025-06-14T18:00:00Z", "label": "auth", "class": "auth", "retryable": false,
            "retry_after_ms": 99, "source": "x", "hard": true}"#;
        let sample = serde_json::from_str(line).unwrap();
        let verdict = judge(sample, false, || panic!("the line has its own clock"));
        assert_eq!(verdict.id, Some(Value::from("a")));
        assert_eq!(verdict.class, FailureClass::RateLimited);
        assert_eq!(verdict.retry_after_ms, Some(7_000));
    }

    #[test]
    fn a_line_needs_no_field_and_keeps_its_id_as_it_was() {
        let judge = |line| judge(serde_json::from_str(line).unwrap(), false, || 0);
        assert_eq!(serde_json::to_value(judge("{\"id\": 17}")).unwrap()["id"], 17);
        assert_eq!(judge("{\"headers\": null}").id, None);
        assert!(serde_json::from_str::<Sample>("{\"now\": \"yesterday\"}").is_err());
    }
}
