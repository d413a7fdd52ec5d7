//! Data on stdout, talk on stderr; tables and colours for people, JSON for machines.

mod time;

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets};
use owo_colors::OwoColorize;
use redrive_shared::task::TaskState;
use serde::Serialize;

pub use time::{duration, from_now, moment};

/// How to print. Decided once, from the flags and the terminal.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// JSON was asked for.
    pub json: bool,
    /// stdout is a terminal: JSON is spread over lines there.
    spread: bool,
    colour_out: bool,
    colour_err: bool,
}

impl Output {
    /// Looks at the terminal and the environment.
    pub fn detect(json: bool) -> Self {
        Self {
            json,
            spread: io::stdout().is_terminal(),
            colour_out: colours(&io::stdout()),
            colour_err: colours(&io::stderr()),
        }
    }

    /// Without a terminal.
    #[cfg(test)]
    pub const fn plain(json: bool) -> Self {
        Self { json, spread: false, colour_out: false, colour_err: false }
    }

    /// A line of data.
    pub fn line(&self, text: impl Display) -> io::Result<()> {
        writeln!(io::stdout().lock(), "{text}")
    }

    /// A value as JSON, for machines.
    pub fn value(&self, value: &impl Serialize) -> anyhow::Result<()> {
        let text =
            if self.spread { serde_json::to_string_pretty(value)? } else { serde_json::to_string(value)? };
        Ok(self.line(text)?)
    }

    /// A table, for people.
    pub fn table(&self, rows: Rows) -> io::Result<()> {
        self.line(rows.render(self.colour_out))
    }

    /// A line of talk.
    pub fn say(&self, text: impl Display) {
        // Nobody can be told that stderr is closed.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// A line of talk that machines should be able to read too.
    pub fn note(&self, text: &str) {
        if self.json {
            self.say(serde_json::json!({ "code": "note", "detail": text }));
        } else {
            self.say(printable(text));
        }
    }

    /// One item of many that went wrong, without ending the command.
    pub fn complain(&self, place: impl Display, detail: impl Display) {
        let (place, detail) = (place.to_string(), printable(&detail.to_string()));
        if self.json {
            self.say(serde_json::json!({ "code": "failed_item", "at": place, "detail": detail }));
        } else {
            self.say(format!("{} {place}: {detail}", self.error_mark()));
        }
    }

    /// `error:`
    pub fn error_mark(&self) -> String {
        if self.colour_err { "error:".red().bold().to_string() } else { "error:".to_owned() }
    }

    /// A heading or a key on stdout.
    pub fn strong(&self, text: &str) -> String {
        if self.colour_out { text.bold().to_string() } else { text.to_owned() }
    }

    /// Something less important on stdout.
    pub fn faint(&self, text: &str) -> String {
        if self.colour_out { text.dimmed().to_string() } else { text.to_owned() }
    }

    /// A state in its colour, on stdout.
    pub fn state(&self, state: TaskState) -> String {
        let text = state.as_str();
        if !self.colour_out {
            return text.to_owned();
        }
        match state {
            TaskState::Scheduled => text.yellow().to_string(),
            TaskState::Leased => text.cyan().to_string(),
            TaskState::Succeeded => text.green().to_string(),
            TaskState::Dead => text.red().to_string(),
            TaskState::Escalated => text.magenta().to_string(),
            TaskState::Cancelled | TaskState::HandedOff => text.dimmed().to_string(),
        }
    }
}

/// Colours only on a terminal, and never against `NO_COLOR` (<https://no-color.org>: set and not empty).
pub fn colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A table that grows.
#[derive(Debug)]
pub struct Rows {
    headers: Vec<&'static str>,
    right: Vec<usize>,
    rows: Vec<Vec<Entry>>,
}

/// What stands in a cell.
#[derive(Debug, Clone)]
pub struct Entry {
    text: String,
    colour: Option<Color>,
}

impl Rows {
    /// With these headers.
    pub fn new<const N: usize>(headers: [&'static str; N]) -> Self {
        Self { headers: headers.to_vec(), right: Vec::new(), rows: Vec::new() }
    }

    /// Numbers stand to the right in these columns, counted from 0.
    pub fn right<const N: usize>(mut self, columns: [usize; N]) -> Self {
        self.right = columns.to_vec();
        self
    }

    /// One more row.
    pub fn push<const N: usize>(&mut self, row: [Entry; N]) {
        debug_assert_eq!(N, self.headers.len());
        self.rows.push(row.to_vec());
    }

    /// The same without a column.
    pub fn without(mut self, column: usize) -> Self {
        self.headers.remove(column);
        self.rows.iter_mut().for_each(|row| drop(row.remove(column)));
        self.right.retain(|index| *index != column);
        self.right.iter_mut().filter(|index| **index > column).for_each(|index| *index -= 1);
        self
    }

    /// No borders and no wrapping: ids must stay whole for those who copy them, and rows for those who `grep`.
    pub fn render(&self, colours: bool) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if colours {
            table.enforce_styling();
        }
        let bold = |cell: Cell| if colours { cell.add_attribute(Attribute::Bold) } else { cell };
        table.set_header(self.headers.iter().map(|name| bold(Cell::new(name))));
        for row in &self.rows {
            table.add_row(row.iter().map(|entry| match entry.colour {
                Some(colour) if colours => Cell::new(&entry.text).fg(colour),
                _ => Cell::new(&entry.text),
            }));
        }
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            if self.right.contains(&index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
    }
}

impl Entry {
    /// In a colour, where there are colours.
    pub fn coloured(text: impl Display, colour: Color) -> Self {
        Self { text: printable(&text.to_string()), colour: Some(colour) }
    }

    /// A state in its colour.
    pub fn state(state: TaskState) -> Self {
        Self::coloured(
            state,
            match state {
                TaskState::Scheduled => Color::Yellow,
                TaskState::Leased => Color::Cyan,
                TaskState::Succeeded => Color::Green,
                TaskState::Dead => Color::Red,
                TaskState::Escalated => Color::Magenta,
                TaskState::Cancelled | TaskState::HandedOff => Color::DarkGrey,
            },
        )
    }

    /// The value, or a dash.
    pub fn or_dash(value: Option<impl Display>) -> Self {
        value.map_or_else(|| Self::from("-"), Self::from)
    }
}

impl<T: Display> From<T> for Entry {
    fn from(value: T) -> Self {
        Self { text: printable(&value.to_string()), colour: None }
    }
}

/// The text on one line and without control characters: what a failing server said must not move the cursor, or worse.
pub fn printable(text: &str) -> String {
    let visible = |c: char| match c {
        '\n' | '\r' | '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().map(visible).collect()
}

/// Such a text, cut to `max` characters.
pub fn excerpt(text: &str, max: usize) -> String {
    let mut cut: String = printable(text).chars().take(max + 1).collect();
    if cut.chars().count() > max {
        cut = cut.chars().take(max.saturating_sub(1)).collect();
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up_without_trailing_blanks() {
        let mut rows = Rows::new(["QUEUE", "DUE", "STATE"]).right([1]);
        rows.push(["reports".into(), 7.into(), Entry::state(TaskState::Dead)]);
        rows.push(["a".into(), 12_345.into(), Entry::or_dash(None::<&str>)]);
        let expected = "QUEUE      DUE  STATE\nreports      7  dead\na        12345  -";
        assert_eq!(rows.render(false), expected);
        assert!(rows.render(true).contains("\u{1b}["));
    }

    #[test]
    fn a_table_without_a_column_lines_up_as_before() {
        let mut rows = Rows::new(["QUEUE", "DEAD", "HANDED OFF", "DUE"]).right([1, 2, 3]);
        rows.push(["reports".into(), 7.into(), 0.into(), 12_345.into()]);
        assert_eq!(rows.without(2).render(false), "QUEUE    DEAD    DUE\nreports     7  12345");
    }

    #[test]
    fn what_others_wrote_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2J\nb"), "a\u{fffd}[2J b");
        assert_eq!(excerpt("abcdef", 4), "abc…");
        assert_eq!(excerpt("abcd", 4), "abcd");
    }
}
