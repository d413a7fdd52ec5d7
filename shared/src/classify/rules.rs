//! The shape of a rule and how it is matched; the tables themselves are in `codes` and `phrases`.

use crate::failure::FailureClass;

/// Widest gap that a `*` inside a pattern may span, in bytes: about one sentence.
const MAX_GAP_BYTES: usize = 72;

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

/// First rule of the table with a pattern that occurs in `prose`.
pub(super) fn by_phrase(table: &[Rule], prose: &str) -> Option<FailureClass> {
    table.iter().find(|rule| says_any(prose, rule.patterns)).map(|rule| rule.class)
}

/// First rule of the table that names one of the codes.
pub(super) fn by_code(table: &[Rule], codes: &[String]) -> Option<FailureClass> {
    let named =
        |rule: &&Rule| list(rule.patterns).any(|pattern| codes.iter().any(|code| is_code(code, pattern)));
    table.iter().find(named).map(|rule| rule.class)
}

/// Whether one of the patterns occurs in the (lower-case, single-spaced) text.
pub(super) fn says_any(prose: &str, patterns: &str) -> bool {
    list(patterns).any(|pattern| says(prose, pattern))
}

fn list(patterns: &str) -> impl Iterator<Item = &str> {
    patterns.split(';').map(str::trim).filter(|pattern| !pattern.is_empty())
}

/// Whether the pattern occurs: its parts, which `*` separates, in this order and near each other. It has to start at the
/// start of a word unless it begins with `*`, and to end at the end of one where it ends with `|`.
pub(super) fn says(prose: &str, pattern: &str) -> bool {
    let (pattern, inside_word) = match pattern.strip_prefix('*') {
        Some(rest) => (rest, true),
        None => (pattern, false),
    };
    let (pattern, whole_end) = match pattern.strip_suffix('|') {
        Some(rest) => (rest, true),
        None => (pattern, false),
    };
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let rest: Vec<&str> = parts.collect();
    prose.match_indices(first).take(64).any(|(start, _)| {
        let starts_well =
            inside_word || !prose[..start].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        starts_well
            && follows(prose, start + first.len(), &rest).is_some_and(|end| {
                !whole_end || !prose[end..].starts_with(|c: char| c.is_ascii_alphanumeric())
            })
    })
}

/// End of the last part, where each part comes within a gap's width after the one before it.
fn follows(prose: &str, mut at: usize, parts: &[&str]) -> Option<usize> {
    for part in parts {
        let window = &prose[at..prose.floor_char_boundary(at + MAX_GAP_BYTES + part.len())];
        at += window.find(part)? + part.len();
    }
    Some(at)
}

/// Codes are compared whole, except for a `*` at either end of the pattern.
fn is_code(code: &str, pattern: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(end), None) => code.ends_with(end),
        (None, Some(start)) => code.starts_with(start),
        (Some(_), Some(_)) => code.contains(pattern.trim_matches('*')),
        (None, None) => code == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::{is_code, says};

    #[test]
    fn patterns_respect_words_order_and_distance() {
        assert!(says("could not get lock", "could not*lock"));
        assert!(!says("lock it; could not", "could not*lock"));
        assert!(!says("typeof x", "eof|"));
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
    }
}
