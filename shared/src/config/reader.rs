//! Reads TOML tables key by key, so that whatever is wrong is told with its line, what was expected, and what there is instead.
//!
//! A file that is read so may stop at its first mistake (`?`), or tell all of them at once ([`Mistakes`]).

use std::ops::RangeInclusive;

use toml::de::DeTable;
use toml::{Spanned, Table, Value};

use super::{DurationError, parse_duration_ms};
use crate::error::suggest;

/// What a file may not say, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", self.place())]
pub struct Mistake {
    /// The file's name, as given.
    pub file: String,
    /// The line, counted from 1, where there is one to blame.
    pub line: Option<usize>,
    /// What is wrong, and what to write instead.
    pub message: String,
}

impl Mistake {
    /// `FILE:LINE`.
    pub fn place(&self) -> String {
        match self.line {
            Some(line) => format!("{}:{line}", self.file),
            None => self.file.clone(),
        }
    }
}

/// What reading gives: a value, or the first mistake in the way.
pub type Read<T> = Result<T, Mistake>;

/// Mistakes that are told all at once.
#[derive(Debug, Default)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// The value, where there is one; a mistake is kept.
    pub fn take<T>(&mut self, read: Read<Option<T>>) -> Option<T> {
        match read {
            Ok(value) => value,
            Err(mistake) => {
                self.0.push(mistake);
                None
            }
        }
    }

    /// One more.
    pub fn push(&mut self, mistake: Mistake) {
        self.0.push(mistake);
    }

    /// More of them.
    pub fn extend(&mut self, mistakes: impl IntoIterator<Item = Mistake>) {
        self.0.extend(mistakes);
    }

    /// All of them in the order of their lines.
    pub fn in_order(mut self) -> Vec<Mistake> {
        self.0.sort_by_key(|mistake| mistake.line);
        self.0
    }
}

/// The file's name and text, for errors.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The name, as it is told.
    pub file: &'a str,
    /// What stands in it.
    pub text: &'a str,
}

impl Source<'_> {
    /// A mistake in that line.
    pub fn error(self, line: Option<usize>, message: impl Into<String>) -> Mistake {
        Mistake { file: self.file.to_owned(), line, message: message.into() }
    }

    fn line_at(self, offset: usize) -> usize {
        self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
    }
}

/// A TOML text: its values, and where they stand.
#[derive(Debug)]
pub struct Document<'a> {
    source: Source<'a>,
    values: Table,
    spans: Spanned<DeTable<'a>>,
}

impl<'a> Document<'a> {
    /// Reads the text.
    ///
    /// # Errors
    /// Everything that is not TOML in it, with its line.
    pub fn parse(source: Source<'a>) -> Result<Self, Vec<Mistake>> {
        let syntax = |error: &toml::de::Error| {
            let line = error.span().map(|span| source.line_at(span.start));
            source.error(line, format!("not valid TOML: {}", error.message()))
        };
        let (spans, errors) = DeTable::parse_recoverable(source.text);
        if !errors.is_empty() {
            return Err(errors.iter().map(syntax).collect());
        }
        // It was found to be TOML, and there still are numbers that do not fit.
        let values = toml::from_str(source.text).map_err(|error| vec![syntax(&error)])?;
        Ok(Self { source, values, spans })
    }

    /// Reads from its outermost table.
    pub fn reader(&self) -> Reader<'_> {
        Reader {
            source: self.source,
            path: String::new(),
            line: 1,
            values: &self.values,
            spans: self.spans.get_ref(),
            known: Vec::new(),
        }
    }
}

/// One table. Every key that is asked for is known from then on; [`Reader::finish`] refuses the others.
#[derive(Debug)]
pub struct Reader<'a> {
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
    fn inner(&self, path: String, line: usize, values: &'a Table, spans: &'a DeTable<'a>) -> Self {
        Self { source: self.source, path, line, values, spans, known: Vec::new() }
    }

    /// Where the table begins.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The table's keys.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.values.keys().map(String::as_str)
    }

    /// Whether something stands under the key.
    pub fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// The dotted path of a key.
    pub fn path_of(&self, key: &str) -> String {
        format!("{}{key}", self.path)
    }

    /// The line of a value further in, by the keys on the way to it; nothing where it was not written.
    pub fn line_of(&self, path: &[&str]) -> Option<usize> {
        let (last, parents) = path.split_last()?;
        let mut spans = self.spans;
        for key in parents {
            spans = spans.get(*key)?.get_ref().as_table()?;
        }
        spans.get_key_value(*last).map(|(key, _)| self.source.line_at(key.span().start))
    }

    /// An error that is told with a line found before.
    pub fn error_at(&self, line: usize, message: impl Into<String>) -> Mistake {
        self.source.error(Some(line), message)
    }

    /// The value of a key, which is known from now on.
    pub fn value(&mut self, key: &str) -> Option<&'a Value> {
        if !self.known.iter().any(|known| known == key) {
            self.known.push(key.to_owned());
        }
        self.values.get(key)
    }

    /// An error about a key, or about the table where it is missing.
    pub fn error(&self, key: &str, message: impl std::fmt::Display) -> Mistake {
        let line = self.spans.get_key_value(key).map(|(key, _)| self.source.line_at(key.span().start));
        self.source.error(Some(line.unwrap_or(self.line)), format!("`{}{key}` {message}", self.path))
    }

    /// Refuses what stands under the key, or that nothing does, and says what to write.
    pub fn refuse<T>(&self, key: &str, expected: &str) -> Read<T> {
        let is = self.values.get(key).map_or("is missing".to_owned(), |value| format!("is {value}"));
        Err(self.error(key, format!("{is}; write {expected}")))
    }

    /// A whole number within bounds.
    pub fn whole(&mut self, key: &str, bounds: RangeInclusive<u64>) -> Read<Option<u64>> {
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

    /// A number within bounds; whole ones may be written without a point.
    pub fn number(&mut self, key: &str, bounds: RangeInclusive<f64>) -> Read<Option<f64>> {
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
    pub fn share(&mut self, key: &str) -> Read<Option<f64>> {
        self.number(key, 0.0..=1.0)
    }

    /// A text of at least one and at most so many characters.
    pub fn text(&mut self, key: &str, max_chars: usize) -> Read<Option<String>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.as_str() {
            Some(text) if (1..=max_chars).contains(&text.chars().count()) => Ok(Some(text.to_owned())),
            Some(_) | None => self.refuse(key, &format!("a text of 1 to {max_chars} characters")),
        }
    }

    /// A duration with its unit, such as `"1m30s"`; in milliseconds.
    pub fn duration_ms(&mut self, key: &str) -> Read<Option<u64>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        read_duration_ms(value).map(Some).map_err(|error| self.error(key, format!("is {value}: {error}")))
    }

    /// A list of durations; in milliseconds.
    pub fn durations_ms(&mut self, key: &str) -> Read<Option<Vec<u64>>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let Some(items) = value.as_array() else {
            return self.refuse(key, "a list of durations, such as [\"5s\", \"5m\"]");
        };
        let read = |(index, item)| {
            read_duration_ms(item)
                .map_err(|error| self.error(key, format!("has {item} as number {}: {error}", index + 1)))
        };
        items.iter().enumerate().map(read).collect::<Read<Vec<u64>>>().map(Some)
    }

    /// One of these words.
    pub fn word<'w>(&mut self, key: &str, words: &[&'w str]) -> Read<Option<&'w str>> {
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
    pub fn flag(&mut self, key: &str) -> Read<Option<bool>> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Boolean(flag)) => Ok(Some(*flag)),
            Some(_) => self.refuse(key, "true or false"),
        }
    }

    /// A table of its own.
    pub fn table(&mut self, key: &str) -> Read<Option<Self>> {
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
    pub fn tables(&mut self, key: &str, most: usize) -> Read<Vec<Self>> {
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
    pub fn finish(self) -> Read<()> {
        self.unknown(|_, _| None).into_iter().next().map_or(Ok(()), Err)
    }

    /// Every key that nobody has asked for, each with what to write instead: what `advice` says of it and its value, or else
    /// the closest key that is known.
    pub fn unknown(&self, advice: impl Fn(&str, &Value) -> Option<String>) -> Vec<Mistake> {
        let of = |(key, value): (&String, &Value)| {
            let advice = advice(key, value).unwrap_or_else(|| {
                match suggest(key, self.known.iter().map(String::as_str)) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => format!("known here: {}", self.known.join(", ")),
                }
            });
            self.error(key, format!("is unknown; {advice}"))
        };
        self.values.iter().filter(|(key, _)| !self.known.contains(*key)).map(of).collect()
    }
}

/// A number alone has no unit, and is told so.
fn read_duration_ms(value: &Value) -> Result<u64, DurationError> {
    match value.as_str() {
        Some(text) => parse_duration_ms(text),
        None if value.is_integer() || value.is_float() => parse_duration_ms(&value.to_string()),
        None => Err(DurationError::Unreadable(value.to_string())),
    }
}

fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}
