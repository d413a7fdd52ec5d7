//! The shape of a rule and how it is matched; the tables themselves are in `codes` and `phrases`, and `lexicon` compiles them.

use crate::failure::FailureClass;

/// Widest gap that a `*` inside a pattern may span, in bytes: about one sentence.
const MAX_GAP_BYTES: usize = 72;
/// How many occurrences of a phrase's first part are followed up.
const MAX_STARTS: usize = 64;

/// A class and the patterns that point to it. Tables are read from the top: the first rule that matches wins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    pub class: FailureClass,
    /// A list with `;` between the patterns: it reads better than a column of a thousand quoted words.
    pub patterns: &'static str,
}

pub(super) const fn rule(class: FailureClass, patterns: &'static str) -> Rule {
    Rule { class, patterns }
}

/// The patterns of a list.
pub(super) fn list(patterns: &str) -> impl Iterator<Item = &str> {
    patterns.split(';').map(str::trim).filter(|pattern| !pattern.is_empty())
}

/// A pattern for (lower-case, single-spaced) prose. It occurs where its parts, which `*` separates, come in this order and
/// near each other. It has to start at the start of a word unless it begins with `*`, and to end at the end of one where it
/// ends with `|`.
#[derive(Debug)]
pub(super) struct Phrase {
    pub first: &'static str,
    pub rest: Vec<&'static str>,
    inside_word: bool,
    whole_end: bool,
}

impl Phrase {
    pub(super) fn new(pattern: &'static str) -> Self {
        let (pattern, inside_word) = match pattern.strip_prefix('*') {
            Some(rest) => (rest, true),
            None => (pattern, false),
        };
        let (pattern, whole_end) = match pattern.strip_suffix('|') {
            Some(rest) => (rest, true),
            None => (pattern, false),
        };
        let mut parts = pattern.split('*');
        Self { first: parts.next().unwrap_or_default(), rest: parts.collect(), inside_word, whole_end }
    }

    /// Whether the phrase occurs; `from` is where its first part does for the first time.
    pub(super) fn occurs(&self, prose: &str, from: usize) -> bool {
        let starts = prose[from..].match_indices(self.first).map(|(start, _)| from + start);
        starts.take(MAX_STARTS).any(|start| {
            let starts_well = self.inside_word
                || !prose[..start].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
            starts_well
                && follows(prose, start + self.first.len(), &self.rest).is_some_and(|end| {
                    !self.whole_end || !prose[end..].starts_with(|c: char| c.is_ascii_alphanumeric())
                })
        })
    }
}

/// End of the last part, where each part comes within a gap's width after the one before it.
fn follows(prose: &str, mut at: usize, parts: &[&str]) -> Option<usize> {
    for part in parts {
        let window = &prose[at..prose.floor_char_boundary(at + MAX_GAP_BYTES + part.len())];
        at += window.find(part)? + part.len();
    }
    Some(at)
}

/// Where a code has to have the letters of a pattern: codes are compared whole, except for a `*` at either end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fit {
    Whole,
    Start,
    End,
    Anywhere,
}

impl Fit {
    /// Splits a pattern into its fit and its letters.
    pub(super) fn of(pattern: &str) -> (Self, &str) {
        match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
            (Some(end), None) => (Self::End, end),
            (None, Some(start)) => (Self::Start, start),
            (Some(_), Some(_)) => (Self::Anywhere, pattern.trim_matches('*')),
            (None, None) => (Self::Whole, pattern),
        }
    }

    /// Whether letters found from `start` to `end` in a code of `length` bytes are where they have to be.
    pub(super) fn holds(self, start: usize, end: usize, length: usize) -> bool {
        match self {
            Self::Whole => start == 0 && end == length,
            Self::Start => start == 0,
            Self::End => end == length,
            Self::Anywhere => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Fit, Phrase};

    fn says(prose: &str, pattern: &'static str) -> bool {
        let phrase = Phrase::new(pattern);
        prose.find(phrase.first).is_some_and(|from| phrase.occurs(prose, from))
    }

    fn is_code(code: &str, pattern: &str) -> bool {
        let (fit, letters) = Fit::of(pattern);
        code.find(letters).is_some_and(|at| fit.holds(at, at + letters.len(), code.len()))
    }

    #[test]
    fn patterns_respect_words_order_and_distance() {
        assert!(says("could not get lock", "could not*lock"));
        assert!(!says("lock it; could not", "could not*lock"));
        assert!(!says("typeof x", "eof|"));
        assert!(says("typeof x, eof", "eof|"));
        assert!(says("unexpected eof.", "eof|"));
        assert!(!says("apitimeouterror", "timeouterror"));
        assert!(says("apitimeouterror", "*timeouterror"));
        assert!(!says(&format!("could not {} lock", "é".repeat(90)), "could not*lock"));
    }

    #[test]
    fn codes_match_whole() {
        assert!(is_code("throttlingexception", "throttl*"));
        assert!(is_code("requestsperdayfree", "*perday*"));
        assert!(!is_code("internal", "internalerror"));
        assert!(!is_code("notfounderror", "*notfound"));
    }
}
