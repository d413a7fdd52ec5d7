//! Brings what a handler returned within the bounds of the API, so that no settlement is refused for what it carries: a
//! refused settlement would leave the task to its lease's end, and then to the same handler.

use std::collections::BTreeMap;

use redrive_shared::cost::Cost;
use redrive_shared::failure::{FailureClass, FailureSignal};
use redrive_shared::limits::{DELAY_MAX_MS, JSON_MAX_DEPTH, SIGNAL_HEADERS_MAX, SIGNAL_TEXT_MAX_BYTES};
use redrive_shared::wire::Outcome;
use serde_json::value::RawValue;

use crate::heavy;

/// Most bytes of headers kept in a signal. With two texts and three words they stay below what the API takes in all, four
/// times [`SIGNAL_TEXT_MAX_BYTES`].
const HEADERS_MAX_BYTES: usize = SIGNAL_TEXT_MAX_BYTES / 2;
/// Longest header name or value, provider name or stop reason that is kept.
const WORD_MAX_BYTES: usize = 1_024;

/// The outcome as it can be sent, but for a result that is too large to lie beside the task: that is kept elsewhere.
pub(super) async fn normalise(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Done { result, result_ref, cost_usd } => {
            let cost_usd = cost_usd.min(Cost::MAX);
            match checked(result).await {
                Ok(result) => Outcome::Done { result, result_ref, cost_usd },
                Err(why) => Outcome::retry(bad_output(why)).costing(cost_usd),
            }
        }
        Outcome::Retry { failure, in_transaction, cost_usd } => {
            Outcome::Retry { failure: bounded(failure), in_transaction, cost_usd: cost_usd.min(Cost::MAX) }
        }
        Outcome::Dead { failure, cost_usd } => {
            Outcome::Dead { failure: bounded(failure), cost_usd: cost_usd.min(Cost::MAX) }
        }
        Outcome::Escalate { failure, cost_usd } => {
            Outcome::Escalate { failure: bounded(failure), cost_usd: cost_usd.min(Cost::MAX) }
        }
        Outcome::Snooze { delay_ms } => Outcome::Snooze { delay_ms: delay_ms.min(DELAY_MAX_MS) },
        Outcome::Release { cost_usd } => Outcome::Release { cost_usd: cost_usd.min(Cost::MAX) },
    }
}

/// A failure of the handler's own making: its output cannot be used.
pub(super) fn bad_output(why: String) -> FailureSignal {
    FailureSignal { class: Some(FailureClass::BadOutput), exception: Some(why), ..FailureSignal::default() }
}

/// The result, or why it is none.
async fn checked(result: Option<Box<RawValue>>) -> Result<Option<Box<RawValue>>, String> {
    let Some(json) = result else { return Ok(None) };
    let (json, depth) = heavy::work_on(json.get().len(), || {
        let depth = depth(json.get());
        (json, depth)
    })
    .await;
    if depth > JSON_MAX_DEPTH {
        return Err(format!("the result is nested {depth} deep; at most {JSON_MAX_DEPTH} is allowed"));
    }
    Ok(Some(json))
}

/// How deeply arrays and objects are nested in JSON that is known to be valid.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn bounded(signal: FailureSignal) -> FailureSignal {
    let cut = |text: Option<String>, max: usize| text.map(|text| truncated(text, max));
    FailureSignal {
        provider: cut(signal.provider, WORD_MAX_BYTES),
        headers: bounded_headers(signal.headers),
        body: cut(signal.body, SIGNAL_TEXT_MAX_BYTES),
        exception: cut(signal.exception, SIGNAL_TEXT_MAX_BYTES),
        finish_reason: cut(signal.finish_reason, WORD_MAX_BYTES),
        stop_reason: cut(signal.stop_reason, WORD_MAX_BYTES),
        ..signal
    }
}

/// The shortest headers come first: those that carry hints are short.
fn bounded_headers(headers: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let short = |text: &String| text.len() <= WORD_MAX_BYTES;
    let usable = |(name, value): &(String, String)| short(name) && short(value) && !is_secret(name);
    let bytes = |(name, value): &(String, String)| name.len() + value.len();
    let mut headers: Vec<_> = headers.into_iter().filter(usable).collect();
    headers.sort_by_key(bytes);
    let mut total = 0;
    let fits = |header: &(String, String)| {
        total += bytes(header);
        total <= HEADERS_MAX_BYTES
    };
    headers.into_iter().take(SIGNAL_HEADERS_MAX).take_while(fits).collect()
}

/// Headers that say nothing about a failure and that nobody should find in a queue.
fn is_secret(name: &str) -> bool {
    ["set-cookie", "cookie", "authorization", "proxy-authorization"]
        .iter()
        .any(|secret| name.eq_ignore_ascii_case(secret))
}

fn truncated(mut text: String, max: usize) -> String {
    text.truncate(text.floor_char_boundary(max));
    text
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::heavy::tests::{HEAVY_BYTES, leaves_its_thread};

    async fn done(json: String) -> Outcome {
        normalise(Outcome::done(Some(RawValue::from_string(json).unwrap()))).await
    }

    #[tokio::test]
    async fn a_result_that_the_api_would_refuse_is_a_failure_that_says_why() {
        assert!(matches!(done("[[1]]".to_owned()).await, Outcome::Done { .. }));
        let Outcome::Retry { failure, .. } = done(format!("{}{}", "[".repeat(65), "]".repeat(65))).await
        else {
            panic!("a failure")
        };
        assert_eq!(failure.exception.unwrap(), "the result is nested 65 deep; at most 64 is allowed");
    }

    #[test]
    fn a_large_result_is_looked_at_beside_the_other_tasks() {
        assert!(leaves_its_thread(done(format!("\"{}\"", "x".repeat(HEAVY_BYTES)))));
        assert!(!leaves_its_thread(done("[1]".to_owned())));
    }

    #[test]
    fn depth_ignores_what_is_in_strings() {
        assert_eq!(depth(r#"{"a[[[\"[": [1, {"b": "]]}"}]}"#), 3);
        assert_eq!(depth("1"), 0);
    }

    #[test]
    fn signals_are_cut_and_lose_their_secrets() {
        let headers = [("Retry-After", "3"), ("Set-Cookie", "s")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let failure = FailureSignal {
            headers: headers.into(),
            body: Some("é".repeat(SIGNAL_TEXT_MAX_BYTES)),
            ..FailureSignal::default()
        };
        let Outcome::Dead { failure, .. } = normalise(Outcome::dead(failure)).now_or_never().unwrap() else {
            panic!("dead stays dead")
        };
        assert_eq!(failure.headers.len(), 1);
        assert_eq!(failure.body.unwrap().len(), SIGNAL_TEXT_MAX_BYTES);
    }

    #[test]
    fn the_largest_signal_fits_into_what_the_api_takes_and_keeps_its_short_headers() {
        let long = |n: usize| (format!("a-{n:03}-{}", "n".repeat(1_000)), "v".repeat(WORD_MAX_BYTES));
        let text = || Some("x".repeat(2 * SIGNAL_TEXT_MAX_BYTES));
        let hint = ("retry-after".to_owned(), "3".to_owned());
        let failure = bounded(FailureSignal {
            headers: (0..100).map(long).chain([hint]).collect(),
            body: text(),
            exception: text(),
            provider: text(),
            finish_reason: text(),
            stop_reason: text(),
            ..FailureSignal::default()
        });
        let texts = [
            &failure.body,
            &failure.exception,
            &failure.provider,
            &failure.finish_reason,
            &failure.stop_reason,
        ];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        let headers: usize = failure.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!(texts + headers <= 4 * SIGNAL_TEXT_MAX_BYTES, "{texts} + {headers}");
        assert!(failure.headers.len() <= SIGNAL_HEADERS_MAX && failure.headers.len() > 10);
        assert_eq!(failure.headers["retry-after"], "3");
    }
}
