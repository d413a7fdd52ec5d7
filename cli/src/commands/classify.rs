//! `redrive classify`: failure signals in, classes out, with no coordinator; or how often they are right.

mod eval;
mod report;
mod sample;
mod score;

use std::io::{self, BufReader, Write};

use crate::context::Context;
use crate::failure::AlreadyReported;
use crate::lines::Lines;
use report::Floor;

/// Longest line taken: a body of a few mebibytes is a mistake, and memory is finite.
const LINE_MAX_BYTES: usize = 4 * 1024 * 1024;
const INPUT_BUFFER_BYTES: usize = 64 * 1024;

const AFTER_HELP: &str = "\
Reads one JSON object a line: `id`, `provider`, `http_status`, `headers`, `body`, `exception`, `finish_reason`,
`stop_reason`, `exit_code`, and `now` (RFC 3339; the clock when missing), each of which may be left out or null. `dependency`
makes fingerprints differ by upstream. Every other field is ignored, labels such as `retry_after_ms` too.
Prints one JSON object a line: `id`, `class`, `retryable`, `retry_after_ms`, `fingerprint`. A line that cannot be read is
reported on stderr with its number; the others go on, and the exit code is 1. --explain adds `because`: the evidence that
decided (`by`), the words that speak for the class with their weights (`words`; they decided where `by` is \"words\"), and all
that were read (`read`).

With --eval, each line is labelled as well: `label` and `retryable` (both needed), `retry_after_ms`, and where they apply
`alt_labels`, `hard`, `ambiguous`, `retryable_ambiguous`, `retry_after_ambiguous`, `retry_after_accept`. Printed are the
scores by class, the measures standard, hard, retryable and hint, what was taken for what, and --misses of the misses.
The exit code is 1 when a measure is below its --min or a line is bad.

Examples:
  redrive classify < failures.jsonl
  echo '{\"http_status\": 429, \"headers\": {\"retry-after\": \"7\"}}' | redrive classify
  redrive classify < failures.jsonl | jq -r .class | sort | uniq -c
  redrive classify --explain < failures.jsonl | jq '{id, class, by: .because.by, words: .because.words[:5]}'
  redrive classify --eval labelled.jsonl --misses 20
  redrive classify --eval labelled.jsonl --min standard=0.95,hard=0.85,retryable=0.99,hint=0.98
  redrive classify --eval labelled.jsonl --json | jq .measures";

/// Classify failure signals: JSON lines on stdin, JSON lines on stdout.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Say what each answer rests on, in a field `because`.
    #[arg(long, conflicts_with = "eval")]
    explain: bool,
    /// Score the classifier on the labelled samples of a file (`-` for stdin).
    #[arg(long, value_name = "FILE")]
    eval: Option<String>,
    /// Show this many of the misses [default: 0].
    #[arg(long, value_name = "N", requires = "eval")]
    misses: Option<usize>,
    /// Fail where a measure is below its floor: standard, hard, retryable, hint, macro_f1.
    #[arg(long, value_name = "MEASURE=SHARE,…", requires = "eval", value_delimiter = ',', value_parser = Floor::parse)]
    min: Vec<Floor>,
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    match args.eval {
        Some(file) => eval::run(&file, args.misses.unwrap_or_default(), args.min, context),
        None => answer(args.explain, context),
    }
}

fn answer(explained: bool, context: &Context) -> anyhow::Result<()> {
    let mut lines = Lines::new(BufReader::with_capacity(INPUT_BUFFER_BYTES, io::stdin()), LINE_MAX_BYTES);
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut all_good = true;
    while let Some(line) = lines.next_line()? {
        match line.object().map(|sample| sample::judge(sample, explained, || context.now_ms())) {
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
