//! `redrive dev --demo`: failing agent work comes back and succeeds, in about 20 seconds, on this machine.
//!
//! ```text
//!  scenario   what is played: agents, policies, work, timeline (data)
//!  stage      what runs: coordinator, flaky upstream, workers, and a process that is killed
//!  push       the same over RabbitMQ
//!  play       follows the timeline and watches through the API
//!  account    what is worth a line, and the words (pure)
//!  screen     where the lines go
//!  books      whether everything adds up at the end (pure)
//!  report     the tables
//! ```
//!
//! Nothing is simulated: the tasks are enqueued, claimed, settled and looked at over HTTP on loopback, in a store on disk,
//! and the upstream really answers what is told. Where a RabbitMQ is configured, workers do not claim: it brings them work.

mod account;
mod books;
mod play;
mod push;
mod report;
mod scenario;
mod screen;
mod stage;

use std::path::Path;

use redrive_coordinator::CoordinatorConfig;
use redrive_shared::clock::{Clock as _, SystemClock};
use redrive_shared::task::{StateCounts, TaskState};
use tempfile::TempDir;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use scenario::DEFAULT_SEED;

use crate::context::Context;
use crate::failure::AlreadyReported;
use books::{Books, Evidence};
use play::{Outcome, Play};
use report::Facts;
use screen::Screen;
use stage::{Crew, Stage};

/// How to play.
#[derive(Debug)]
pub struct Options {
    /// Which task comes when.
    pub seed: u64,
    /// What the coordinator is told; its directory counts only with `keep`.
    pub coordinator: CoordinatorConfig,
    /// Use the coordinator's own directory, and leave the data there.
    pub keep: bool,
}

/// Plays it. Fails if the books do not balance, if it was interrupted, or if it does not come to an end. However it ends,
/// nothing of it is left running, nor in RabbitMQ.
pub async fn run(mut options: Options, context: &Context, shutdown: CancellationToken) -> anyhow::Result<()> {
    let scratch = tempfile::Builder::new().prefix("redrive-demo-").tempdir()?;
    let pushed = options.coordinator.amqp.url.is_some();
    if pushed {
        push::arrange(&mut options.coordinator.amqp)?;
        tokio::select! {
            examined = push::examine(&options.coordinator.amqp) => examined?,
            () = shutdown.cancelled() => return Err(interrupted()),
        }
    }
    let crew = Crew::default();
    let played = tokio::select! {
        played = tokio::time::timeout(scenario::DEADLINE, play(&options, context, &scratch, &crew)) => {
            played.unwrap_or_else(|_| Err(endless()))
        }
        () = shutdown.cancelled() => Err(interrupted()),
    };
    crew.dismiss().await;
    let cleared = if pushed { push::clear(&options.coordinator.amqp).await } else { Ok(()) };
    let (books, facts) = match (played, &cleared) {
        (Ok(played), _) => played,
        (Err(error), Ok(())) => return Err(error),
        (Err(error), Err(left)) => {
            context.output.complain("RabbitMQ", left);
            return Err(error);
        }
    };
    report::print(context, &books, &facts)?;
    cleared?;
    if books.balance() { Ok(()) } else { Err(AlreadyReported.into()) }
}

fn interrupted() -> anyhow::Error {
    anyhow::anyhow!("interrupted; nothing of the demo is left running")
}

fn endless() -> anyhow::Error {
    let limit = scenario::DEADLINE.as_secs();
    anyhow::anyhow!(
        "the demo did not come to an end within {limit} s; run it again with -v to see where it hangs"
    )
}

async fn play(
    options: &Options,
    context: &Context,
    scratch: &TempDir,
    crew: &Crew,
) -> anyhow::Result<(Books, Facts)> {
    let (begun, started_ms) = (Instant::now(), SystemClock.now_ms());
    let mut coordinator = options.coordinator.clone();
    if !options.keep {
        coordinator.data_dir = scratch.path().join("data");
    }
    let data_dir = coordinator.data_dir.clone();
    let mut stage = Stage::open(coordinator, scratch.path(), crew).await?;
    // A store that is kept may have seen the demo before: its ids are taken.
    let prefix = if options.keep { format!("{:x}.", started_ms / 1_000 % 0x1_0000) } else { String::new() };
    let work = scenario::work(options.seed, &prefix)?;
    let before = play::counters(&stage.client).await?;
    let total = work.waves.iter().map(Vec::len).sum::<usize>() + work.reports.len();
    let screen = Screen::new(context.output.json, started_ms, total);
    introduce(&screen, options, &stage, &data_dir, total);
    play::make_queues(&stage.client).await?;
    stage.start_workers()?;
    stage.wait_for_push().await;
    let outcome = Play::prepare(&stage, &screen, work)?.run().await?;
    screen.close();
    let books = close_books(&stage, &outcome, before).await?;
    stage.close().await?;
    let facts = Facts {
        seed: options.seed,
        took_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        openings: outcome.openings,
        pushed: options.coordinator.amqp.url.is_some(),
        left_in: options.keep.then(|| match &options.coordinator.store.url {
            Some(shared) => shared.to_string(),
            None => data_dir.display().to_string(),
        }),
    };
    Ok((books, facts))
}

/// What is about to happen, and what is not as it would be in earnest.
fn introduce(screen: &Screen, options: &Options, stage: &Stage, data_dir: &Path, total: usize) {
    let data = match (&options.coordinator.store.url, options.coordinator.in_memory, options.keep) {
        (Some(shared), _, _) => format!("{shared}, keys `{}:…`", options.coordinator.store.key_prefix),
        (None, true, _) => "in memory".to_owned(),
        (None, false, true) => format!("SQLite in {}", data_dir.display()),
        (None, false, false) => format!("SQLite in {} (removed at the end)", data_dir.display()),
    };
    let agents: Vec<&str> = scenario::AGENTS.iter().map(|agent| agent.name).collect();
    let crashy = scenario::CRASHY;
    screen.say(&format!("{}  the retry queue for fleets of AI agents", screen.strong("redrive dev --demo")));
    screen.say("");
    let mut rows = vec![
        ("coordinator", format!("{} · {data}", stage.client.url().trim_end_matches('/'))),
        ("upstream", format!("{} · 429, 529, 500, 503, hangs, resets, cut streams", stage.upstream_url())),
        ("workers", format!("{} here, {crashy} in a process of its own", agents.join(", "))),
        ("work", format!("{total} tasks, most of which have failed at their caller already")),
        (
            "faster than usual",
            "backoff from 0.2 s to 2 s, time-outs from 0.8 s, breakers look at 1 s and wait about 1 s".into(),
        ),
    ];
    let amqp = &options.coordinator.amqp;
    if let Some(address) = &amqp.url {
        let names = format!("names `{}.…` (removed at the end)", amqp.prefix);
        rows.insert(1, ("rabbitmq", format!("{address} · brings the workers their work · {names}")));
    }
    for (name, text) in rows {
        screen.say(&format!("  {}  {text}", screen.faint(&format!("{name:<17}"))));
    }
    screen.say("");
}

/// Asks everyone for the last time.
async fn close_books(stage: &Stage, outcome: &Outcome, before: StateCounts) -> anyhow::Result<Books> {
    let tasks = play::whole_tasks(&stage.client, &outcome.enqueued).await?;
    let (mut counters, mut before) = (play::counters(&stage.client).await?, before);
    for state in TaskState::ALL {
        *counters.of(state) -= *before.of(state);
    }
    let mut books = Books::close(&Evidence {
        enqueued: &outcome.enqueued,
        tasks: &tasks,
        counters,
        effects: &stage.upstream.effects(),
        calls_ms: &stage.calls_ms(),
        overlapping_calls: overlapping_calls(stage),
        breakers_open_ms: &outcome.breakers_open_ms,
        killed_at_ms: outcome.killed_at_ms,
    });
    books.problems.extend(outcome.mishaps.iter().cloned());
    Ok(books)
}

/// Calls of one task that the upstream served at once. When a client gives up and another asks, the upstream may see the
/// second call a moment before it sees that the first one's client has gone.
fn overlapping_calls(stage: &Stage) -> usize {
    const MOMENT_MS: u128 = 20;
    stage.upstream.overlaps().iter().filter(|overlap| overlap.lasted.as_millis() > MOMENT_MS).count()
}
