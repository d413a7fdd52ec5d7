//! Where the account is shown: live on a terminal, as plain lines elsewhere, nowhere when JSON was asked for.
//!
//! It is talk, so it goes to stderr; the result at the end is data.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use owo_colors::{OwoColorize, Style};
use redrive_shared::breaker::BreakerState;
use redrive_shared::task::TaskState;

use super::account::{Line, Tone};

/// Widths of the account's columns.
const SUBJECT_WIDTH: usize = 10;
const VERB_WIDTH: usize = 14;

/// Shows the account.
#[derive(Debug)]
pub struct Screen {
    started_ms: i64,
    colours: bool,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Live { area: MultiProgress, bar: ProgressBar, states: ProgressBar, trouble: ProgressBar },
    Plain,
    Silent,
}

/// How things stand.
#[derive(Debug)]
pub struct Standing<'a> {
    /// Tasks by state.
    pub counts: &'a BTreeMap<TaskState, usize>,
    /// Each agent's own breaker.
    pub breakers: BTreeMap<&'a str, BreakerState>,
    /// Whether the upstream is down.
    pub outage: bool,
    /// Tasks that there will be in all.
    pub total: usize,
}

impl Screen {
    /// The right kind for this process. Times are told from `started_ms`.
    pub fn new(json: bool, started_ms: i64, total: usize) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let live = std::io::stderr().is_terminal() && !dumb;
        let kind = match (json, live) {
            (true, _) => Kind::Silent,
            (false, true) => live_area(total),
            (false, false) => Kind::Plain,
        };
        Self { started_ms, colours: live && !set("NO_COLOR"), kind }
    }

    /// One line of the account.
    pub fn tell(&self, line: &Line) {
        let since_ms = u64::try_from(line.at_ms.saturating_sub(self.started_ms)).unwrap_or(0);
        let seconds = Duration::from_millis(since_ms).as_secs_f64();
        let verb = format!("{:<VERB_WIDTH$}", line.verb);
        let verb = if self.colours { verb.style(style(line.tone)).to_string() } else { verb };
        let subject = format!("{:<SUBJECT_WIDTH$}", line.subject);
        self.say(&format!("{seconds:>5.1} s  {subject}  {verb}  {}", line.text));
    }

    /// A line without a time.
    pub fn say(&self, text: &str) {
        match &self.kind {
            // Nobody can be told that stderr is closed.
            Kind::Live { area, .. } => drop(area.println(text)),
            Kind::Plain => drop(writeln!(std::io::stderr().lock(), "{text}")),
            Kind::Silent => {}
        }
    }

    /// Text that stands out.
    pub fn strong(&self, text: &str) -> String {
        if self.colours { text.bold().to_string() } else { text.to_owned() }
    }

    /// Text that does not.
    pub fn faint(&self, text: &str) -> String {
        if self.colours { text.dimmed().to_string() } else { text.to_owned() }
    }

    /// Moves the bar.
    pub fn stand(&self, standing: &Standing<'_>) {
        let Kind::Live { bar, states, trouble, .. } = &self.kind else { return };
        let settled: usize =
            standing.counts.iter().filter(|(state, _)| state.is_settled()).map(|(_, n)| n).sum();
        bar.set_position(settled as u64);
        bar.set_length(standing.total as u64);
        states.set_message(self.states(standing));
        trouble.set_message(self.trouble(standing));
    }

    fn states(&self, standing: &Standing<'_>) -> String {
        let state = |(state, tasks): (&TaskState, &usize)| {
            let name = match state {
                TaskState::Scheduled => "waiting",
                TaskState::Leased => "running",
                TaskState::Succeeded
                | TaskState::Dead
                | TaskState::Escalated
                | TaskState::Cancelled
                | TaskState::HandedOff => state.as_str(),
            };
            format!(
                "{tasks} {}",
                if self.colours { name.style(state_style(*state)).to_string() } else { name.into() }
            )
        };
        // Here nothing is handed off, and the line is full.
        let shown = standing.counts.iter().filter(|(state, _)| **state != TaskState::HandedOff);
        shown.map(state).collect::<Vec<_>>().join("  ")
    }

    fn trouble(&self, standing: &Standing<'_>) -> String {
        let mut parts = Vec::new();
        if standing.outage {
            let text = "upstream is down";
            parts.push(if self.colours { text.red().bold().to_string() } else { text.to_owned() });
        }
        let open = standing.breakers.iter().filter(|(_, state)| **state != BreakerState::Closed);
        parts.extend(open.map(|(agent, state)| format!("{agent}'s breaker {}", words(*state))));
        if parts.is_empty() { self.faint("all is well") } else { parts.join("  ") }
    }

    /// Takes the bar away.
    pub fn close(&self) {
        if let Kind::Live { area, bar, states, trouble } = &self.kind {
            [bar, states, trouble].into_iter().for_each(ProgressBar::finish_and_clear);
            // It cannot be cleared where it cannot be seen.
            let _ = area.clear();
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.close();
    }
}

fn live_area(total: usize) -> Kind {
    let area = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
    let style = |template: &str| {
        ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("━╸─")
    };
    let bar = area.add(ProgressBar::new(total as u64));
    bar.set_style(style("  {bar:32.green/dim} {pos:>3}/{len} settled  {elapsed:.dim}"));
    let text = || area.add(ProgressBar::new(1).with_style(style("  {wide_msg}")));
    let (states, trouble) = (text(), text());
    bar.enable_steady_tick(Duration::from_millis(250));
    Kind::Live { area, bar, states, trouble }
}

fn words(state: BreakerState) -> &'static str {
    match state {
        BreakerState::Closed => "closed",
        BreakerState::Open => "open",
        BreakerState::HalfOpen => "half-open",
        BreakerState::Isolated => "isolated",
    }
}

fn style(tone: Tone) -> Style {
    match tone {
        Tone::Story => Style::new().cyan().bold(),
        Tone::Good => Style::new().green(),
        Tone::Again => Style::new().yellow(),
        Tone::Bad => Style::new().red(),
        Tone::Person => Style::new().magenta(),
    }
}

fn state_style(state: TaskState) -> Style {
    match state {
        TaskState::Scheduled => Style::new().yellow(),
        TaskState::Leased => Style::new().cyan(),
        TaskState::Succeeded => Style::new().green(),
        TaskState::Dead => Style::new().red(),
        TaskState::Escalated => Style::new().magenta(),
        TaskState::Cancelled | TaskState::HandedOff => Style::new().dimmed(),
    }
}
