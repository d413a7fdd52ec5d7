//! The end of the demo, for people and for machines.

use serde_json::{Value, json};

use super::books::{Books, Lateness};
use crate::commands::dev::program;
use crate::context::Context;
use crate::output::{Rows, duration};

/// What is reported beside the books.
#[derive(Debug)]
pub struct Facts {
    /// Which task came when.
    pub seed: u64,
    /// How long the play took, in milliseconds.
    pub took_ms: u64,
    /// Openings of agents' own breakers, and of those of their dependencies.
    pub openings: (u64, u64),
    /// Whether RabbitMQ brought the workers their work.
    pub pushed: bool,
    /// Where the data is, if it was kept.
    pub left_in: Option<String>,
}

/// Prints the result on stdout.
pub fn print(context: &Context, books: &Books, facts: &Facts) -> anyhow::Result<()> {
    let output = &context.output;
    if output.json {
        return output.value(&machine(books, facts));
    }
    output.line("")?;
    output.table(totals(books))?;
    output.line("")?;
    output.table(classes(books))?;
    output.line("")?;
    for (name, text) in measures(books, facts) {
        output.line(format!("{}  {text}", output.faint(&format!("{name:<22}"))))?;
    }
    output.line("")?;
    if books.balance() {
        output.line(output.strong(&balance(books)))?;
    } else {
        output.line(output.strong("The books do not balance:"))?;
        books.problems.iter().try_for_each(|problem| output.line(format!("  {problem}")))?;
    }
    next_steps(facts).iter().try_for_each(|line| output.line(line))?;
    Ok(())
}

fn totals(books: &Books) -> Rows {
    let mut rows = Rows::new([
        "TASKS",
        "ATTEMPTS",
        "FIRST TRY",
        "RECOVERED BY RETRY",
        "DEAD",
        "ESCALATED",
        "CANCELLED",
        "WAITING",
    ])
    .right([0, 1, 2, 3, 4, 5, 6, 7]);
    rows.push([
        books.enqueued.into(),
        books.attempts.into(),
        books.first_try.into(),
        books.recovered.into(),
        books.dead.into(),
        books.escalated.into(),
        books.cancelled.into(),
        books.waiting.into(),
    ]);
    rows
}

fn classes(books: &Books) -> Rows {
    let mut rows =
        Rows::new(["FAILURE CLASS", "FAILURES", "TASKS", "RECOVERED", "DEAD", "ESCALATED", "WAITING"])
            .right([1, 2, 3, 4, 5, 6]);
    let blank = |count: usize| if count == 0 { "·".to_owned() } else { count.to_string() };
    for row in &books.classes {
        rows.push([
            row.class.into(),
            row.failures.into(),
            row.tasks.into(),
            blank(row.recovered).into(),
            blank(row.dead).into(),
            blank(row.escalated).into(),
            blank(row.waiting).into(),
        ]);
    }
    rows
}

fn measures(books: &Books, facts: &Facts) -> Vec<(&'static str, String)> {
    let (own, dependencies) = facts.openings;
    let twice = match books.done_twice {
        0 => "0".to_owned(),
        some => format!("{some} (their worker ended after the upstream had done the work)"),
    };
    vec![
        ("lateness (lease − due)", lateness(books.lateness_ms)),
        ("… with breakers open", format!("{}, as they should", lateness(books.lateness_breaker_open_ms))),
        ("… of the first call", lateness(books.work_lateness_ms)),
        ("crash", crash(books)),
        (
            "breakers",
            format!("agents' own opened {own} times, those of single dependencies {dependencies} times"),
        ),
        ("handed back", format!("{} times, at no charge, because a breaker had opened", books.handed_back)),
        ("work done twice", twice),
        (
            "overlapping leases",
            format!(
                "{} (calls of one task at once, seen by the upstream: {})",
                books.overlapping_leases, books.overlapping_calls
            ),
        ),
        ("time", format!("{} (seed {})", duration(facts.took_ms), facts.seed)),
    ]
}

fn lateness(of: Lateness) -> String {
    let ms = |ms: i64| duration(u64::try_from(ms).unwrap_or(0));
    format!("p50 {}, p99 {}, max {} ({} leases)", ms(of.p50), ms(of.p99), ms(of.max), of.claims)
}

fn crash(books: &Books) -> String {
    let crash = books.crash;
    let ms = |ms: i64| duration(u64::try_from(ms).unwrap_or(0));
    match (crash.first_ms, crash.last_ms) {
        (Some(first_ms), Some(last_ms)) => format!(
            "{} tasks ran again {} to {} after the kill -9, 2s of it the grace for a reconnect",
            crash.again,
            ms(first_ms),
            ms(last_ms),
        ),
        _ => "no task was lost with a worker".to_owned(),
    }
}

fn balance(books: &Books) -> String {
    let Books { enqueued, succeeded, dead, escalated, cancelled, waiting, .. } = books;
    format!(
        "The books balance: {enqueued} enqueued = {succeeded} succeeded + {dead} dead + {escalated} escalated \
         + {cancelled} cancelled + {waiting} waiting."
    )
}

fn next_steps(facts: &Facts) -> Vec<String> {
    let redrive = program();
    let mut lines = Vec::new();
    if let Some(place) = &facts.left_in {
        let flag = if place.contains("://") { "--store" } else { "--data-dir" };
        lines.push(format!("The tasks are still there: {redrive} dev {flag} {place}"));
    }
    lines.push(format!("Next: `{redrive} dev` starts a queue to keep, and prints what to paste."));
    lines
}

fn machine(books: &Books, facts: &Facts) -> Value {
    let (own, dependencies) = facts.openings;
    json!({
        "balance": books.balance(),
        "seed": facts.seed,
        "took_ms": facts.took_ms,
        "pushed": facts.pushed,
        "books": books,
        "breaker_openings": { "agents": own, "dependencies": dependencies },
        "left_in": facts.left_in,
    })
}
