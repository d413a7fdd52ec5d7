//! `redrive classify`: failure signals in, classes out, with no coordinator.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Write};

use redrive_shared::classify::classify;
use redrive_shared::failure::{FailureClass, FailureSignal};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::context::Context;
use crate::failure::AlreadyReported;
use crate::lines::Lines;

/// Longest line taken: a body of a few mebibytes is a mistake, and memory is finite.
const LINE_MAX_BYTES: usize = 4 * 1024 * 1024;
const INPUT_BUFFER_BYTES: usize = 64 * 1024;

const AFTER_HELP: &str = "\
Reads one JSON object a line: `id`, `provider`, `http_status`, `headers`, `body`, `exception`, `finish_reason`,
`stop_reason`, `exit_code`, and `now` (RFC 3339; the clock when missing), each of which may be left out or null. `dependency`
makes fingerprints differ by upstream. Every other field is ignored, labels such as `retry_after_ms` too.
Prints one JSON object a line: `id`, `class`, `retryable`, `retry_after_ms`, `fingerprint`. A line that cannot be read is
reported on stderr with its number; the others go on, and the exit code is 1.

Examples:
  redrive classify < failures.jsonl
  echo '{\"http_status\": 429, \"headers\": {\"retry-after\": \"7\"}}' | redrive classify
  redrive classify < failures.jsonl | jq -r .class | sort | uniq -c";

/// Classify failure signals: JSON lines on stdin, JSON lines on stdout.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {}

/// A line of the input. It is not [`FailureSignal`]: here a field may be null, unknown ones are labels or notes, and
/// `class` and `retry_after_ms` would be the answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Sample {
    id: Option<Value>,
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
struct Verdict {
    id: Option<Value>,
    class: FailureClass,
    retryable: bool,
    retry_after_ms: Option<u64>,
    fingerprint: String,
}

pub async fn run(_: Args, context: &Context) -> anyhow::Result<()> {
    let mut lines = Lines::new(BufReader::with_capacity(INPUT_BUFFER_BYTES, io::stdin()), LINE_MAX_BYTES);
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut all_good = true;
    while let Some(line) = lines.next_line()? {
        match line.object().map(|sample| judge(sample, || context.now_ms())) {
            Ok(verdict) => {
                serde_json::to_writer(&mut out, &verdict).map_err(io::Error::from)?;
                out.write_all(b"\n")?;
            }
            Err(error) => {
                all_good = false;
                out.flush()?;
                context.output.complain(format!("line {}", line.number), error);
            }
        }
        // Whoever feeds us slowly wants an answer to every line; whoever feeds us fast wants few system calls.
        if lines.input().buffer().is_empty() {
            out.flush()?;
        }
    }
    out.flush()?;
    if all_good { Ok(()) } else { Err(AlreadyReported.into()) }
}

fn judge(sample: Sample, now_ms: impl FnOnce() -> i64) -> Verdict {
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
    let found = classify(&signal, sample.dependency.as_deref(), now_ms);
    Verdict {
        id: sample.id,
        class: found.class,
        retryable: found.retryable,
        // A hint means something where the same request may succeed later.
        retry_after_ms: found.retry_after_ms.filter(|_| found.retryable),
        fingerprint: found.fingerprint,
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
        let verdict = judge(sample, || panic!("the line has its own clock"));
        assert_eq!(verdict.id, Some(Value::from("a")));
        assert_eq!(verdict.class, FailureClass::RateLimited);
        assert_eq!(verdict.retry_after_ms, Some(7_000));
    }

    #[test]
    fn a_line_needs_no_field_and_keeps_its_id_as_it_was() {
        let judge = |line| judge(serde_json::from_str(line).unwrap(), || 0);
        assert_eq!(serde_json::to_value(judge("{\"id\": 17}")).unwrap()["id"], 17);
        assert_eq!(judge("{\"headers\": null}").id, None);
        assert!(serde_json::from_str::<Sample>("{\"now\": \"yesterday\"}").is_err());
    }
}
