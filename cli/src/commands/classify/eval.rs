//! `redrive classify --eval`: labelled samples in, a score out.

use std::fs::File;
use std::io::{self, BufRead, BufReader};

use anyhow::Context as _;
use serde_json::Value;

use super::report::{self, Floor};
use super::sample::{Sample, judge};
use super::score::{Label, Score};
use super::{INPUT_BUFFER_BYTES, LINE_MAX_BYTES};
use crate::context::Context;
use crate::failure::{AlreadyReported, Usage};
use crate::lines::{Line, LineError, Lines};

pub fn run(file: &str, misses: usize, floors: Vec<Floor>, context: &Context) -> anyhow::Result<()> {
    let (score, bad_lines) = if file == "-" {
        read(io::stdin().lock(), context)
    } else {
        let opened =
            File::open(file).map_err(|error| Usage::new(format!("--eval: cannot read {file}: {error}")))?;
        read(opened, context)
    }
    .with_context(|| format!("reading {file}"))?;
    report::print(&score, &floors, misses, context.output)?;
    let reached = report::check(&score, &floors, context.output);
    if reached && bad_lines == 0 { Ok(()) } else { Err(AlreadyReported.into()) }
}

/// The score over the good lines, and how many were bad.
fn read(input: impl io::Read, context: &Context) -> io::Result<(Score, u32)> {
    let buffered = BufReader::with_capacity(INPUT_BUFFER_BYTES, input);
    score_lines(
        buffered,
        || context.now_ms(),
        |line, error| {
            context.output.complain(format!("line {line}"), error);
        },
    )
}

fn score_lines(
    input: impl BufRead,
    now_ms: impl Fn() -> i64,
    mut complain: impl FnMut(u64, LineError),
) -> io::Result<(Score, u32)> {
    let mut lines = Lines::new(input, LINE_MAX_BYTES);
    let (mut score, mut bad_lines) = (Score::default(), 0);
    while let Some(line) = lines.next_line()? {
        match labelled(&line) {
            Ok((sample, label)) => {
                let verdict = judge(sample, false, &now_ms);
                score.add(&name(verdict.id.as_ref(), line.number), &label, &verdict);
            }
            Err(error) => {
                bad_lines += 1;
                complain(line.number, error);
            }
        }
    }
    Ok((score, bad_lines))
}

/// The same object read twice: for what was seen, and for what should be said of it.
fn labelled(line: &Line) -> Result<(Sample, Label), LineError> {
    Ok((line.object()?, line.object()?))
}

/// Its id as people write it, or the number of its line.
fn name(id: Option<&Value>, line: u64) -> String {
    match id {
        Some(Value::String(id)) => id.clone(),
        Some(other) => other.to_string(),
        None => format!("line {line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::classify::score::Measure;

    fn scored(input: &str) -> (Score, Vec<(u64, String)>) {
        let mut bad = Vec::new();
        let (score, count) =
            score_lines(input.as_bytes(), || 0, |line, error| bad.push((line, error.to_string()))).unwrap();
        assert_eq!(count as usize, bad.len());
        (score, bad)
    }

    #[test]
    fn good_lines_are_scored_and_bad_ones_told_by_their_number() {
        let good = r#"{"id": "a", "http_status": 429, "headers": {"retry-after": "7"}, "label": "rate_limited", "retryable": true, "retry_after_ms": 7000}"#;
        let wrong = r#"{"http_status": 500, "label": "auth", "retryable": false}"#;
        let unlabelled = r#"{"id": "c", "http_status": 500}"#;
        let (score, bad) = scored(&format!("{good}\n\nnonsense\n{wrong}\n{unlabelled}\n"));
        assert_eq!(score.samples, 2);
        assert_eq!(score.measure(Measure::Hint).right, 1);
        assert_eq!(score.misses[0].id, "line 4");
        assert_eq!(bad.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [3, 5]);
        assert!(bad[1].1.contains("missing field `label`"), "{}", bad[1].1);
    }
}
