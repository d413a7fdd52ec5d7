//! The shape of a rule and how it is matched; the tables themselves are in `codes` and `phrases`, and `lexicon` compiles them.

use crate::failure::FailureClass;

/// Widest gap that a `*` inside a pattern may span, in bytes: about one sentence.
const SENTENCE_BYTES: usize = 72;
/// Widest gap that a `~` may span, in bytes: a few words.
const FEW_WORDS_BYTES: usize = 28;
/// How many occurrences of a phrase's first part are followed up.
const MAX_STARTS: usize = 64;

/// A class and the patterns that point to it. Tables are read from the top: the first rule that matches wins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    pub class: FailureClass,
    /// Lists with `;` between the patterns: they read better than a column of a thousand quoted words.
    pub patterns: &'static [&'static str],
}

pub(super) const fn rule(class: FailureClass, patterns: &'static [&'static str]) -> Rule {
    Rule { class, patterns }
}

/// The patterns of some lists.
pub(super) fn patterns<'a>(lists: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    let split = lists.iter().flat_map(|list| list.split(';'));
    split.map(str::trim).filter(|pattern| !pattern.is_empty())
}

/// All that a pattern with braces stands for: `{lost,stale} lock` is `lost lock` and `stale lock`.
pub(super) fn expand(pattern: &str) -> Vec<String> {
    let mut done = vec![String::new()];
    let mut rest = pattern;
    while let Some((before, (choices, after))) =
        rest.split_once('{').and_then(|(before, tail)| Some((before, tail.split_once('}')?)))
    {
        let longer = |done: String| choices.split(',').map(move |choice| format!("{done}{before}{choice}"));
        done = done.into_iter().flat_map(longer).collect();
        rest = after;
    }
    done.iter_mut().for_each(|text| text.push_str(rest));
    done
}

/// A pattern for (lower-case, single-spaced) prose. It occurs where its parts, which `*` or `~` separates, come in this order
/// and near each other: within about a sentence's length after a `*`, within a few words of one sentence after a `~`. It has to start at the start of a word
/// unless it begins with `*`, and to end at the end of one where it ends with `|`. Braces are expanded before: [`expand`].
#[derive(Debug)]
pub(super) struct Phrase {
    pub first: String,
    pub rest: Vec<Part>,
    inside_word: bool,
    whole_end: bool,
}

/// A later part of a phrase, and how far it may be from the part before it.
#[derive(Debug)]
pub(super) struct Part {
    pub text: String,
    gap_bytes: usize,
}

impl Phrase {
    pub(super) fn new(pattern: &str) -> Self {
        let (pattern, inside_word) = match pattern.strip_prefix('*') {
            Some(rest) => (rest, true),
            None => (pattern, false),
        };
        let (pattern, whole_end) = match pattern.strip_suffix('|') {
            Some(rest) => (rest, true),
            None => (pattern, false),
        };
        let first = pattern.split(['*', '~']).next().unwrap_or_default();
        let mut rest = Vec::new();
        let mut tail = &pattern[first.len()..];
        while let Some(gap) = tail.chars().next() {
            let text = tail[1..].split(['*', '~']).next().unwrap_or_default();
            let gap_bytes = if gap == '*' { SENTENCE_BYTES } else { FEW_WORDS_BYTES };
            rest.push(Part { text: text.to_owned(), gap_bytes });
            tail = &tail[1 + text.len()..];
        }
        Self { first: first.to_owned(), rest, inside_word, whole_end }
    }

    /// Whether the phrase occurs; `from` is where its first part does for the first time.
    pub(super) fn occurs(&self, prose: &str, from: usize) -> bool {
        let starts = prose[from..].match_indices(&self.first).map(|(start, _)| from + start);
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

/// End of the last part, where each part comes within its gap's width after the one before it.
fn follows(prose: &str, mut at: usize, parts: &[Part]) -> Option<usize> {
    for part in parts {
        let window = &prose[at..prose.floor_char_boundary(at + part.gap_bytes + part.text.len())];
        let gap = window.find(&part.text)?;
        // A few words are words of one sentence: "check your quota. Resources are exhausted" says nothing of a quota.
        if part.gap_bytes == FEW_WORDS_BYTES && window[..gap].contains(". ") {
            return None;
        }
        at += gap + part.text.len();
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
    use super::{Fit, Phrase, expand};

    fn says(prose: &str, pattern: &str) -> bool {
        let phrase = Phrase::new(pattern);
        prose.find(&phrase.first).is_some_and(|from| phrase.occurs(prose, from))
    }

    fn is_code(code: &str, pattern: &str) -> bool {
        let (fit, letters) = Fit::of(pattern);
        code.find(letters).is_some_and(|at| fit.holds(at, at + letters.len(), code.len()))
    }

    #[test]
    fn braces_stand_for_every_choice() {
        assert_eq!(expand("plain"), ["plain"]);
        assert_eq!(expand("{a,b}*{c ,}d"), ["a*c d", "a*d", "b*c d", "b*d"]);
        assert_eq!(expand("{a,b"), ["{a,b"], "an open brace is a letter like others");
    }

    #[test]
    fn a_tilde_reaches_less_far_than_a_star() {
        let near = "token was found to be invalid";
        let far = "token count of the prompt that was sent is far too high and therefore invalid";
        assert!(says(near, "token~invalid") && says(near, "token*invalid"));
        assert!(!says(far, "token~invalid") && says(far, "token*invalid"));
        assert!(!says("tokens~are~gone", "gone~tokens"));
        assert!(says("the quota is exhausted", "quota~exhausted"));
        assert!(
            !says("check your quota. all is exhausted", "quota~exhausted"),
            "a few words of one sentence"
        );
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
