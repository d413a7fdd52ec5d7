//! `redrive simulate`: what a retry policy does to a dependency, in virtual time.

use std::array::from_fn;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use redrive_simulate::limits::FILE_MAX_BYTES;
use redrive_simulate::{Curve, Ending, Figures, Report, Scenario, VariantReport, picture, simulate};
use serde_json::json;

use crate::context::Context;
use crate::failure::Usage;
use crate::output::{Entry, Output, Rows, duration};

/// As many as can be told apart in a table.
const COMPARED_MAX: usize = 8;

const AFTER_HELP: &str = "\
Retries, circuit breakers and gates are decided by the code that decides them in production; the clock and the dependency are
simulated. The same scenario and seed give the same figures. docs/simulate.md documents the scenario file; docs/scenarios has
some that reproduce published studies.

CALLS/S and RETRIES/S are the most within any one second, TIME is when the last task was over, DELAY the mean delay before a
retry, WAITED the longest that one task waited between its attempts, EXTRA the cost beyond that of each task's first call. REFUSED
are calls beyond a limit, REPEATED steps that had worked before, OPENED and SHUT how often breakers opened and the gate shut.

Examples:
  redrive simulate docs/scenarios/backoff-and-jitter.toml
  redrive simulate outage.toml --svg outage.svg --seed 7
  redrive simulate --compare before.toml after.toml
  redrive simulate outage.toml --json | jq '.variants[] | {name, calls: .figures.calls}'";

/// Simulate a retry policy and the system that it calls, from a scenario file.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The scenario.
    #[arg(value_name = "SCENARIO.toml", required_unless_present = "compare")]
    scenario: Option<PathBuf>,
    /// Show these scenarios side by side instead.
    #[arg(long, num_args = 2..=COMPARED_MAX, value_name = "FILE", conflicts_with = "scenario")]
    compare: Vec<PathBuf>,
    /// Draw retries, load, backlog and recovery over time into this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Random numbers from this seed, instead of the scenario's.
    #[arg(long)]
    seed: Option<u64>,
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let files: Vec<&Path> = args.scenario.iter().chain(&args.compare).map(PathBuf::as_path).collect();
    // All are read before any is run: a mistake in the last one should not cost the time of the others.
    let scenarios = files.iter().map(|file| read(file, args.seed)).collect::<anyhow::Result<Vec<_>>>()?;
    let reports: Vec<Report> = scenarios.iter().map(simulate).collect();
    if let Some(path) = &args.svg {
        let svg = draw(&files, &reports);
        std::fs::write(path, svg).with_context(|| format!("writing {}", path.display()))?;
    }
    show(&files, &reports, &context.output)
}

fn read(file: &Path, seed: Option<u64>) -> anyhow::Result<Scenario> {
    let cannot = |error| Usage::new(format!("cannot read the scenario {}: {error}", file.display()));
    let mut text = String::new();
    // One byte more than is taken: that many are refused with a reason.
    let most = FILE_MAX_BYTES as u64 + 1;
    File::open(file).and_then(|open| open.take(most).read_to_string(&mut text)).map_err(cannot)?;
    let scenario = Scenario::parse(&file.display().to_string(), &text);
    let mut scenario = scenario.map_err(|error| Usage::new(error.to_string()))?;
    scenario.seed = seed.unwrap_or(scenario.seed);
    Ok(scenario)
}

/// Each variant with the name of its row.
fn named<'a>(files: &[&Path], reports: &'a [Report]) -> Vec<(String, &'a VariantReport)> {
    let mut rows = Vec::new();
    for (file, report) in files.iter().zip(reports) {
        for variant in &report.variants {
            let file = file.file_stem().map(|stem| stem.to_string_lossy());
            let name = match file.filter(|_| reports.len() > 1) {
                Some(file) => format!("{file}: {}", variant.name),
                None => variant.name.clone(),
            };
            rows.push((name, variant));
        }
    }
    rows
}

fn title(reports: &[Report]) -> String {
    reports.iter().map(|report| report.title.as_str()).collect::<Vec<_>>().join(" / ")
}

fn draw(files: &[&Path], reports: &[Report]) -> String {
    let lines = named(files, reports).into_iter().map(|(name, variant)| (name, &variant.curve));
    picture::draw(&title(reports), &lines.collect::<Vec<(String, &Curve)>>())
}

fn show(files: &[&Path], reports: &[Report], output: &Output) -> anyhow::Result<()> {
    let rows = named(files, reports);
    for (name, variant) in &rows {
        if variant.ended == Ending::EventLimit {
            output.note(&format!(
                "{name}: cut off, because it has too many events; its figures are those of a part. \
                 Use fewer clients, tasks or runs"
            ));
        }
    }
    match reports {
        [report] if output.json => return output.value(report),
        _ if output.json => {
            let of = |(file, report): (&&Path, &Report)| json!({ "file": file, "report": report });
            let reports: Vec<_> = files.iter().zip(reports).map(of).collect();
            return output.value(&json!({ "reports": reports }));
        }
        _ => {}
    }
    for report in reports {
        let runs = if report.runs > 1 { format!(", means of {} runs", report.runs) } else { String::new() };
        let how = output.faint(&format!("(seed {}{runs})", report.seed));
        output.line(format!("{} {how}", output.strong(&report.title)))?;
    }
    Ok(output.table(table(&rows))?)
}

/// A column: its header, what stands in it, and the figure that is zero in every row where it says nothing.
type Column = (&'static str, fn(&Figures) -> Entry, Option<fn(&Figures) -> f64>);

const COLUMNS: [Column; 17] = [
    ("CALLS", |figures| count(figures.calls), None),
    ("REFUSED", |figures| count(refused(figures)), Some(refused)),
    ("RETRIES", |figures| count(figures.retries), None),
    ("DONE", |figures| count(figures.succeeded), None),
    ("RECOVERED", |figures| count(figures.recovered), Some(|figures| figures.recovered)),
    ("GIVEN UP", |figures| count(given_up(figures)), Some(given_up)),
    ("LEFT", |figures| count(figures.unfinished), Some(|figures| figures.unfinished)),
    ("REPEATED", |figures| count(figures.steps_repeated), Some(|figures| figures.steps_repeated)),
    ("TIME", |figures| duration(figures.completed_ms as u64).into(), None),
    ("DELAY", |figures| duration(figures.delay_mean_ms as u64).into(), None),
    ("WAITED", |figures| duration(figures.wait_max_ms as u64).into(), None),
    ("CALLS/S", |figures| count(figures.calls_peak_per_s), None),
    ("RETRIES/S", |figures| count(figures.retries_peak_per_s), None),
    ("OPENED", |figures| count(figures.breaker_openings), Some(|figures| figures.breaker_openings)),
    ("SHUT", |figures| count(figures.gate_shuts), Some(|figures| figures.gate_shuts)),
    ("COST", |figures| format!("${:.2}", figures.cost_usd).into(), Some(|figures| figures.cost_usd)),
    (
        "EXTRA",
        |figures| format!("{:+.1} %", figures.cost_extra_percent).into(),
        Some(|figures| figures.cost_usd),
    ),
];

/// One column more: that of the names.
const WIDTH: usize = COLUMNS.len() + 1;

fn table(rows: &[(String, &VariantReport)]) -> Rows {
    let column = |index: usize| index.checked_sub(1).map(|index| COLUMNS[index]);
    let headers: [&str; WIDTH] = from_fn(|index| column(index).map_or("VARIANT", |(header, ..)| header));
    let mut table = Rows::new(headers).right::<{ COLUMNS.len() }>(from_fn(|index| index + 1));
    for (name, variant) in rows {
        let entry = |index| column(index).map_or_else(|| name.into(), |(_, show, _)| show(&variant.figures));
        table.push::<WIDTH>(from_fn(entry));
    }
    // From the right, so that what is left keeps its place.
    for (index, (.., needs)) in COLUMNS.iter().enumerate().rev() {
        if needs.is_some_and(|of| rows.iter().all(|(_, variant)| of(&variant.figures) <= 0.0)) {
            table = table.without(index + 1);
        }
    }
    table
}

fn refused(figures: &Figures) -> f64 {
    figures.rate_limited + figures.overloaded
}

fn given_up(figures: &Figures) -> f64 {
    figures.dead + figures.escalated
}

fn count(number: f64) -> Entry {
    format!("{number:.0}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[clients]\ncount = 3\n[dependency]\nfailure_rate = 1.0\n[retry]\nstrategy = \"none\"";

    #[test]
    fn rows_are_named_after_their_files_where_there_are_several() {
        let report = simulate(&Scenario::parse("x.toml", TEXT).unwrap());
        let (first, second) = (Path::new("dir/a.toml"), Path::new("b.toml"));
        let names = |files: &[&Path], reports: &[Report]| {
            named(files, reports).into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(names(&[first], std::slice::from_ref(&report)), ["none"]);
        assert_eq!(names(&[first, second], &[report.clone(), report]), ["a: none", "b: none"]);
    }
}
