//! What a handler's output means.

use std::collections::BTreeMap;

use redrive_shared::classify::classify;
use redrive_shared::cost::Cost;
use redrive_shared::failure::{FailureClass, FailureSignal};
use redrive_shared::limits::SIGNAL_TEXT_MAX_BYTES;
use redrive_shared::wire::Outcome;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

/// What the output was.
#[derive(Debug)]
pub(super) enum Answer {
    /// An object with exactly one of the keys that say how the attempt ended, and what may go with it, alone or as the last
    /// line.
    Told(Outcome),
    /// Any other output: the result, if nothing else speaks against it.
    Plain(Option<Box<RawValue>>),
}

/// Reads an output. Text that is not JSON becomes a JSON string; nothing at all is no result.
pub(super) fn read(output: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(output);
    let text = text.trim();
    if text.is_empty() {
        return Answer::Plain(None);
    }
    if let Some(outcome) = told(text) {
        return Answer::Told(outcome);
    }
    if let Ok(json) = RawValue::from_string(text.to_owned()) {
        return Answer::Plain(Some(json));
    }
    // Programs print on their way: an answer may come after other lines.
    match text.lines().next_back().and_then(|last| told(last.trim())) {
        Some(outcome) => Answer::Told(outcome),
        None => Answer::Plain(serde_json::value::to_raw_value(text).ok()),
    }
}

/// What an output says that the attempt cost, where something else says how it ended: an object with `cost_usd`, alone or as
/// the last line.
pub(super) fn cost(output: &[u8]) -> Cost {
    let text = String::from_utf8_lossy(output);
    let text = text.trim();
    let of = |text: &str| {
        let fields: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
        fields.get(COST).map(|cost| beside_it(Some(cost)).unwrap_or_default())
    };
    of(text).or_else(|| of(text.lines().next_back()?)).unwrap_or_default()
}

/// The keys of an answer.
const KEYS: [&str; 5] = ["result", "snooze_ms", "failure", "dead", "escalate"];
/// What may go with one of them.
const COST: &str = "cost_usd";
const IN_TRANSACTION: &str = "in_transaction";

/// The outcome that an object with exactly one known key tells; `None` for any other text.
fn told(text: &str) -> Option<Outcome> {
    if !text.starts_with('{') {
        return None;
    }
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
    let speaks = |(key, value): &(&String, &&RawValue)| KEYS.contains(&key.as_str()) && value.get() != "null";
    let mut known = fields.iter().filter(speaks);
    let (key, value) = known.next()?;
    let (cost, within) = (fields.get(COST), fields.get(IN_TRANSACTION));
    let (paid, inside) = (beside_it::<Cost>(cost), beside_it::<bool>(within));
    let beside = |key: &&String| matches!(key.as_str(), COST | IN_TRANSACTION);
    let outcome = if fields.len() - fields.keys().filter(beside).count() > 1 {
        // Output that merely has a `result` among other things is a result itself.
        if key == "result" && known.next().is_none() {
            return None;
        }
        // Taking it for a result would turn a failure into a success.
        let keys: Vec<&str> = fields.keys().map(String::as_str).collect();
        broken(format!("the handler's answer has the keys {keys:?}; it must have exactly one"))
    } else if key == "result" && (within.is_some() || paid.is_err()) {
        // A result is a result, whatever stands beside it: the work is done, and would be paid for twice. Otherwise only a
        // failure asks where the task may go on: the flag says nothing with the others, and must not turn "dead" into a retry.
        return None;
    } else if cost.is_some_and(|cost| !matches!(cost.get(), "0" | "0.0" | "null")) && key == "snooze_ms" {
        broken(format!("{COST:?} does not go with the handler's {key:?}"))
    } else if let Err(error) = &paid {
        unreadable(COST, error)
    } else if let Err(error) = &inside {
        unreadable(IN_TRANSACTION, error)
    } else {
        ended(key, value).unwrap_or_else(|error| unreadable(key, &error))
    };
    // What was paid, and a transaction that is under way, are so however badly the rest was told.
    Some(match outcome.costing(paid.unwrap_or_default()) {
        Outcome::Retry { failure, cost_usd, .. } => {
            Outcome::Retry { failure, in_transaction: inside.unwrap_or_default(), cost_usd }
        }
        outcome => outcome,
    })
}

/// What one of the keys says.
fn ended(key: &str, value: &RawValue) -> serde_json::Result<Outcome> {
    Ok(match key {
        "snooze_ms" => Outcome::Snooze { delay_ms: serde_json::from_str(value.get())? },
        "failure" => Outcome::retry(signal(value)?),
        "dead" => Outcome::dead(signal(value)?),
        "escalate" => Outcome::escalate(signal(value)?),
        _ => Outcome::done(Some(value.to_owned())),
    })
}

/// The value that goes with an answer, or nothing of it.
fn beside_it<T: DeserializeOwned + Default>(value: Option<&&RawValue>) -> serde_json::Result<T> {
    let given = value.map(|value| serde_json::from_str::<Option<T>>(value.get())).transpose()?;
    Ok(given.flatten().unwrap_or_default())
}

/// A signal, or its text alone: `{"failure": "no such page"}` is what people write first.
fn signal(value: &RawValue) -> serde_json::Result<FailureSignal> {
    if value.get().starts_with('"') {
        let exception = Some(serde_json::from_str(value.get())?);
        return Ok(FailureSignal { exception, ..FailureSignal::default() });
    }
    serde_json::from_str(value.get())
}

/// The handler broke its contract. The attempt fails, and says how.
fn unreadable(key: &str, error: &serde_json::Error) -> Outcome {
    broken(format!("the handler's {key:?} cannot be read: {error}"))
}

fn broken(what: String) -> Outcome {
    let class = Some(FailureClass::BadOutput);
    Outcome::retry(FailureSignal { class, exception: Some(what), ..FailureSignal::default() })
}

/// The parts of a model's answer that say whether it is one.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ModelAnswer {
    finish_reason: Option<String>,
    stop_reason: Option<String>,
    choices: Vec<Choice>,
    error: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Choice {
    finish_reason: Option<String>,
}

/// The failure that hides in the body of a response with a good status: generation that stopped for a bad reason, or an
/// error object that the classifier knows. Only those places are looked at: what a model says in words is its answer, and
/// an answer may well be *about* rate limits.
pub(super) fn hidden_failure(result: &RawValue, status: u16, now_ms: i64) -> Option<FailureSignal> {
    let answer: ModelAnswer = serde_json::from_str(result.get()).ok()?;
    let of_choices = answer.choices.into_iter().find_map(|choice| choice.finish_reason);
    let error = answer.error.filter(|error| error.is_object() || error.is_string());
    let signal = FailureSignal {
        http_status: Some(status),
        finish_reason: answer.finish_reason.or(of_choices),
        stop_reason: answer.stop_reason,
        body: error.map(|error| serde_json::json!({ "error": error }).to_string()),
        ..FailureSignal::default()
    };
    match classify(&signal, None, now_ms).class {
        FailureClass::Unknown => None,
        _ => Some(FailureSignal { body: Some(head(result.get())), ..signal }),
    }
}

/// As much of a text as a classifier looks at.
pub(super) fn head(text: &str) -> String {
    text[..text.floor_char_boundary(SIGNAL_TEXT_MAX_BYTES)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(output: &str) -> Option<String> {
        match read(output.as_bytes()) {
            Answer::Plain(result) => result.map(|json| json.get().to_owned()),
            Answer::Told(outcome) => panic!("{outcome:?}"),
        }
    }

    fn outcome(output: &str) -> Outcome {
        match read(output.as_bytes()) {
            Answer::Told(outcome) => outcome,
            Answer::Plain(result) => panic!("{result:?}"),
        }
    }

    #[test]
    fn any_output_is_a_result() {
        assert_eq!(plain(""), None);
        assert_eq!(plain(" \n"), None);
        assert_eq!(plain("hello \"you\"\n").unwrap(), r#""hello \"you\"""#);
        assert_eq!(plain("[1,  2]\n").unwrap(), "[1,  2]");
        assert_eq!(plain(r#"{"result": 1, "more": 2}"#).unwrap(), r#"{"result": 1, "more": 2}"#);
        assert_eq!(plain(r#"{"id": 1}"#).unwrap(), r#"{"id": 1}"#);
        assert_eq!(plain("{\"result\": 1").unwrap(), r#""{\"result\": 1""#);
    }

    #[test]
    fn an_answer_may_come_after_other_lines() {
        let said = outcome("calling the model…\n{\"failure\": {\"http_status\": 429}}\n");
        assert!(matches!(said, Outcome::Retry { failure, .. } if failure.http_status == Some(429)));
        assert!(plain("{\"failure\": 1}\nafterthought").is_some());
    }

    #[test]
    fn cost_and_transaction_go_with_an_answer() {
        let said = outcome(r#"{"cost_usd": 0.25, "failure": {"http_status": 500}, "in_transaction": true}"#);
        let Outcome::Retry { in_transaction: true, cost_usd, .. } = said else { panic!("{said:?}") };
        assert_eq!(cost_usd, Cost::from_micros(250_000));
        for (text, micros) in
            [(r#"{"result": 1, "cost_usd": 2}"#, 2_000_000), (r#"{"dead": "no", "cost_usd": null}"#, 0)]
        {
            assert_eq!(outcome(text).cost().micros(), micros, "{text}");
        }
        // Work that is done is not done again for what stands beside it.
        for odd in [r#"{"result": 1, "cost_usd": -1}"#, r#"{"result": 1, "in_transaction": true}"#] {
            assert_eq!(plain(odd).as_deref(), Some(odd));
        }
        for odd in [
            r#"{"failure": {}, "cost_usd": "much"}"#,
            r#"{"failure": {}, "in_transaction": 1}"#,
            r#"{"snooze_ms": 5, "cost_usd": 1}"#,
        ] {
            let Outcome::Retry { failure, .. } = outcome(odd) else { panic!("{odd}") };
            assert_eq!(failure.class, Some(FailureClass::BadOutput), "{odd}");
        }
        // What is not to be retried is not, whatever stands beside it.
        for flag in ["true", "false", "null"] {
            let text = format!(r#"{{"dead": "the card was charged", "in_transaction": {flag}}}"#);
            assert!(matches!(outcome(&text), Outcome::Dead { .. }), "{text}");
        }
        assert!(matches!(outcome(r#"{"snooze_ms": 5, "cost_usd": 0}"#), Outcome::Snooze { .. }));
        for odd in [
            r#"{"failure": {}, "cost_usd": 3, "usage": 7}"#,
            r#"{"failure": {}, "cost_usd": 3, "in_transaction": 1}"#,
            r#"{"dead": 7, "cost_usd": 3}"#,
            r#"{"snooze_ms": 5, "cost_usd": 3}"#,
        ] {
            assert_eq!(outcome(odd).cost(), Cost::from_micros(3_000_000), "it was paid: {odd}");
        }
        let torn = outcome(r#"{"failure": {"htp_status": 500}, "in_transaction": true, "cost_usd": 3}"#);
        let Outcome::Retry { in_transaction: true, cost_usd, .. } = torn else { panic!("{torn:?}") };
        assert_eq!(cost_usd, Cost::from_micros(3_000_000));
    }

    #[test]
    fn a_cost_may_stand_alone_where_something_else_says_how_it_ended() {
        for (output, micros) in [
            (r#"{"cost_usd": 0.5}"#, 500_000),
            ("calling…\n{\"cost_usd\": 0.5, \"tokens\": 7}\n", 500_000),
            (r#"{"result": 1, "cost_usd": 0.5}"#, 500_000),
            (r#"{"cost_usd": "much"}"#, 0),
            ("0.5", 0),
            ("", 0),
        ] {
            assert_eq!(cost(output.as_bytes()).micros(), micros, "{output}");
        }
    }

    #[test]
    fn a_contradiction_is_no_success() {
        for both in [
            r#"{"result": 1, "failure": {}}"#,
            r#"{"failure": {}, "usage": 3}"#,
            r#"{"snooze_ms": 1, "dead": {}}"#,
        ] {
            let Outcome::Retry { failure, .. } = outcome(both) else { panic!("{both}") };
            assert_eq!(failure.class, Some(FailureClass::BadOutput));
        }
    }

    #[test]
    fn one_key_says_how_it_ended() {
        let Outcome::Done { result: Some(result), .. } = outcome(r#"{"result": {"a":  1}}"#) else {
            panic!("done")
        };
        assert_eq!(result.get(), r#"{"a":  1}"#);
        assert!(matches!(outcome(r#"{"snooze_ms": 1500}"#), Outcome::Snooze { delay_ms: 1_500 }));
        let Outcome::Retry { failure, .. } = outcome(r#"{"failure": {"http_status": 429}}"#) else {
            panic!("retry")
        };
        assert_eq!(failure.http_status, Some(429));
        let Outcome::Dead { failure, .. } = outcome(r#"{"dead": "no such customer"}"#) else {
            panic!("dead")
        };
        assert_eq!(failure.exception.as_deref(), Some("no such customer"));
        assert!(matches!(outcome(r#"{"escalate": {}}"#), Outcome::Escalate { .. }));
    }

    #[test]
    fn a_broken_answer_fails_and_says_how() {
        for broken in [r#"{"failure": {"htp_status": 429}}"#, r#"{"snooze_ms": -1}"#, r#"{"dead": 3}"#] {
            let Outcome::Retry { failure, .. } = outcome(broken) else { panic!("{broken}") };
            assert_eq!(failure.class, Some(FailureClass::BadOutput));
            assert!(failure.exception.unwrap().contains("cannot be read"));
        }
    }

    #[test]
    fn a_good_status_can_hide_a_failure() {
        let hidden = |json: &str| {
            let json = RawValue::from_string(json.to_owned()).unwrap();
            hidden_failure(&json, 200, 0)
        };
        assert!(hidden(r#"{"choices": [{"finish_reason": "stop", "message": {}}]}"#).is_none());
        assert!(hidden(r#"{"stop_reason": "end_turn"}"#).is_none());
        assert!(hidden(r#"{"summary": "429 Too Many Requests: rate limit exceeded"}"#).is_none());
        assert!(hidden(r#"{"error": null, "ok": true}"#).is_none());
        assert!(hidden(r#"[1]"#).is_none());
        let cut = hidden(r#"{"choices": [{"finish_reason": "length"}]}"#).unwrap();
        assert_eq!(cut.finish_reason.as_deref(), Some("length"));
        assert!(hidden(r#"{"stop_reason": "refusal"}"#).is_some());
        assert!(hidden(r#"{"error": {"type": "overloaded_error", "message": "Overloaded"}}"#).is_some());
    }
}
