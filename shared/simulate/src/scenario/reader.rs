//! Reads tables key by key, so that whatever is wrong is told with its line, what was expected, and what there is instead.

use std::ops::RangeInclusive;

use redrive_shared::error::suggest;
use toml::de::DeTable;
use toml::{Table, Value};

use super::{ScenarioError, Spread};
use crate::limits::{DURATION_MAX_MS, NAME_MAX_CHARS};

pub(super) type Read<T> = Result<T, ScenarioError>;

/// The file's name and text, for errors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) file: &'a str,
    pub(super) text: &'a str,
}

impl Source<'_> {
    pub(super) fn error(self, line: Option<usize>, message: impl Into<String>) -> ScenarioError {
        ScenarioError { file: self.file.to_owned(), line, message: message.into() }
    }

    pub(super) fn line_at(self, offset: usize) -> usize {
        self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
    }
}

/// One table. Every key that is asked for is known from then on; [`Reader::finish`] refuses the others.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    source: Source<'a>,
    /// The dotted path, ending in a dot unless empty.
    path: String,
    /// Where the table begins.
    line: usize,
    values: &'a Table,
    spans: &'a DeTable<'a>,
    known: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: Source<'a>, values: &'a Table, spans: &'a DeTable<'a>) -> Self {
        Self { source, path: String::new(), line: 1, values, spans, known: Vec::new() }
    }

    fn inner(&self, path: String, line: usize, values: &'a Table, spans: &'a DeTable<'a>) -> Self {
        Self { source: self.source, path, line, values, spans, known: Vec::new() }
    }

    /// Where the table begins.
    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// The value of a key, which is known from now on.
    pub(super) fn value(&mut self, key: &str) -> Option<&'a Value> {
        self.known.push(key.to_owned());
        self.values.get(key)
    }

    /// An error about a key, or about the table where it is missing.
    pub(super) fn error(&self, key: &str, message: impl std::fmt::Display) -> ScenarioError {
        let line = self.spans.get_key_value(key).map(|(key, _)| self.source.line_at(key.span().start));
        self.source.error(Some(line.unwrap_or(self.line)), format!("`{}{key}` {message}", self.path))
    }

    pub(super) fn refuse<T>(&self, key: &str, expected: &str) -> Read<T> {
        let is = self.values.get(key).map_or("is missing".to_owned(), |value| format!("is {value}"));
        Err(self.error(key, format!("{is}; write {expected}")))
    }

    /// A whole number within bounds.
    pub(super) fn whole(&mut self, key: &str, bounds: RangeInclusive<u64>) -> Read<Option<u64>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
        match number.filter(|number| bounds.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let unit = if key.ends_with("_ms") { " of milliseconds" } else { "" };
                let range = match (bounds.start(), bounds.end()) {
                    (low, high) if *high >= u64::from(u32::MAX) => format!("{low} or more"),
                    (low, high) => format!("from {low} to {high}"),
                };
                self.refuse(key, &format!("a whole number{unit}, {range}"))
            }
        }
    }

    /// A duration or an instant, in milliseconds.
    pub(super) fn millis(&mut self, key: &str) -> Read<Option<u64>> {
        self.whole(key, 0..=DURATION_MAX_MS)
    }

    /// A number within bounds; whole ones may be written without a point.
    pub(super) fn number(&mut self, key: &str, bounds: RangeInclusive<f64>) -> Read<Option<f64>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let number = value.as_float().or_else(|| value.as_integer().map(|number| number as f64));
        match number.filter(|number| bounds.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let range = match (bounds.start(), bounds.end()) {
                    (low, high) if *high == f64::MAX => format!("{low} or more"),
                    (low, high) => format!("from {low} to {high}"),
                };
                self.refuse(key, &format!("a number, {range}"))
            }
        }
    }

    /// A number from 0 to 1.
    pub(super) fn share(&mut self, key: &str) -> Read<Option<f64>> {
        self.number(key, 0.0..=1.0)
    }

    /// A short text.
    pub(super) fn name(&mut self, key: &str) -> Read<Option<String>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.as_str() {
            Some(text) if (1..=NAME_MAX_CHARS).contains(&text.chars().count()) => Ok(Some(text.to_owned())),
            Some(_) | None => self.refuse(key, &format!("a text of 1 to {NAME_MAX_CHARS} characters")),
        }
    }

    /// One of these words.
    pub(super) fn word<'w>(&mut self, key: &str, words: &[&'w str]) -> Read<Option<&'w str>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let Some(text) = value.as_str() else { return self.refuse(key, &one_of(words)) };
        match words.iter().find(|word| **word == text) {
            Some(word) => Ok(Some(*word)),
            None => {
                let advice = match suggest(text, words.iter().copied()) {
                    Some(word) => format!("did you mean \"{word}\"?"),
                    None => format!("write {}", one_of(words)),
                };
                Err(self.error(key, format!("is {value}, which is unknown; {advice}")))
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &str) -> Read<Option<bool>> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Boolean(flag)) => Ok(Some(*flag)),
            Some(_) => self.refuse(key, "true or false"),
        }
    }

    /// A duration that is always the same (`10`) or normally distributed (`{ mean = 10, sd = 2 }`), in milliseconds.
    pub(super) fn spread(&mut self, key: &str) -> Read<Spread> {
        let most = DURATION_MAX_MS as f64;
        if !self.values.get(key).is_some_and(Value::is_table) {
            let mean_ms = self.number(key, 0.0..=most)?.unwrap_or(0.0);
            return Ok(Spread { mean_ms, sd_ms: 0.0 });
        }
        let Some(mut inner) = self.table(key)? else { return Ok(Spread::default()) };
        let mean_ms = inner.number("mean", 0.0..=most)?.unwrap_or(0.0);
        let sd_ms = inner.number("sd", 0.0..=most)?.unwrap_or(0.0);
        inner.finish()?;
        Ok(Spread { mean_ms, sd_ms })
    }

    /// A table of its own.
    pub(super) fn table(&mut self, key: &str) -> Read<Option<Self>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let found = self.spans.get_key_value(key).and_then(|(key, spans)| {
            Some((self.source.line_at(key.span().start), spans.get_ref().as_table()?))
        });
        match (value.as_table(), found) {
            (Some(values), Some((line, spans))) => {
                Ok(Some(self.inner(format!("{}{key}.", self.path), line, values, spans)))
            }
            _ => self.refuse(key, &format!("a table, such as [{}{key}]", self.path)),
        }
    }

    /// A list of tables, at most so many.
    pub(super) fn tables(&mut self, key: &str, most: usize) -> Read<Vec<Self>> {
        let Some(value) = self.value(key) else { return Ok(Vec::new()) };
        let spans = self.spans.get(key).and_then(|spans| spans.get_ref().as_array());
        let (Some(values), Some(spans)) = (value.as_array(), spans) else {
            return self.refuse(key, &format!("tables, such as [[{}{key}]]", self.path));
        };
        if values.len() > most {
            return Err(self.error(key, format!("has {} entries; at most {most} are taken", values.len())));
        }
        let mut readers = Vec::new();
        for (index, (value, spanned)) in values.iter().zip(spans.iter()).enumerate() {
            let (Some(values), Some(spans)) = (value.as_table(), spanned.get_ref().as_table()) else {
                return self.refuse(key, &format!("tables, such as [[{}{key}]]", self.path));
            };
            let line = self.source.line_at(spanned.span().start);
            readers.push(self.inner(format!("{}{key}[{index}].", self.path), line, values, spans));
        }
        Ok(readers)
    }

    /// Refuses keys that nobody has asked for.
    pub(super) fn finish(self) -> Read<()> {
        let Some(key) = self.values.keys().find(|key| !self.known.contains(*key)) else { return Ok(()) };
        let advice = match suggest(key, self.known.iter().map(String::as_str)) {
            Some(known) => format!("did you mean `{known}`?"),
            None => format!("known here: {}", self.known.join(", ")),
        };
        Err(self.error(key, format!("is unknown; {advice}")))
    }
}

fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}
