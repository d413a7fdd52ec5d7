//! A second opinion, from single words: for what no table of phrases knows.
//!
//! Names of errors and sentences are taken apart into words, lightly stemmed, and each word speaks for or against classes by a
//! weight. The weights (`words.txt`, in hundredths) were learnt from labelled samples and from short lessons that name the
//! vocabulary of each class; how, and how well they do on what they have not seen, is in `docs/classifier.md`. Sums of
//! integers: the same text gives the same answer everywhere. `decide` asks only where the rules rest on little.

use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

use super::evidence::Evidence;
use crate::failure::FailureClass;

/// How many words of a failure are looked at: errors say what they are near their start.
const MAX_WORDS: usize = 160;
/// Longer runs of letters are data and no words.
const MAX_WORD_BYTES: usize = 32;
const CLASSES: usize = FailureClass::ALL.len();

/// Words that say nothing of a cause.
const EMPTY: &[&str] = &[
    "a",
    "an",
    "the",
    "of",
    "to",
    "in",
    "for",
    "on",
    "at",
    "by",
    "with",
    "from",
    "is",
    "are",
    "was",
    "were",
    "be",
    "been",
    "this",
    "that",
    "it",
    "its",
    "and",
    "or",
    "your",
    "you",
    "we",
    "our",
    "has",
    "have",
    "had",
    "will",
    "please",
    "see",
    "more",
    "com",
    "http",
    "https",
    "www",
    "docs",
    "api",
    "error",
    "errors",
    "exception",
    "message",
    "code",
    "type",
    "status",
    "null",
    "none",
    "true",
    "false",
    "id",
    "request",
    "url",
    "file",
    "line",
    "org",
    "java",
    "python",
    "lib",
    "packages",
    "site",
    "usr",
    "local",
    "py",
    "js",
    "ts",
];
/// Words that turn the next one around, or make it the point.
const TURNING: &[&str] = &["not", "no", "too"];

/// What the words say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Opinion {
    /// The class that most of them speak for.
    pub class: FailureClass,
    /// By how much it leads the next, in hundredths of a logit.
    pub lead: i32,
    /// By how much it leads `unknown`, in hundredths of a logit: little where all words are such as every failure has.
    pub telling: i32,
    /// Above zero where the same request may succeed later, in hundredths of a logit.
    pub again: i32,
}

/// What one word adds: for each class, and for whether to try again.
#[derive(Debug, Clone, Default)]
struct Weights {
    classes: Vec<(usize, i32)>,
    again: i32,
}

static WEIGHTS: LazyLock<HashMap<&'static str, Weights>> =
    LazyLock::new(|| include_str!("words.txt").lines().filter_map(weights).collect());

/// A line of the table: a word, and pairs such as `auth=120`; `again` is no class.
fn weights(line: &'static str) -> Option<(&'static str, Weights)> {
    let mut parts = line.split(' ');
    let word = parts.next().filter(|word| !word.is_empty())?;
    let mut weights = Weights::default();
    for part in parts {
        let (name, weight) = part.split_once('=')?;
        let weight = weight.parse().ok()?;
        match FailureClass::ALL.iter().position(|class| class.as_str() == name) {
            Some(class) => weights.classes.push((class, weight)),
            None if name == "again" => weights.again = weight,
            None => return None,
        }
    }
    Some((word, weights))
}

/// What the words of a failure say; `None` where the table knows none of them.
pub(super) fn opinion(evidence: &Evidence) -> Option<Opinion> {
    let said = read(evidence);
    if !said.iter().any(|word| !word.starts_with('#') && WEIGHTS.contains_key(word.as_str())) {
        return None;
    }
    let (mut sums, mut again) = ([0; CLASSES], 0);
    for weights in said.iter().filter_map(|word| WEIGHTS.get(word.as_str())) {
        weights.classes.iter().for_each(|(class, weight)| sums[*class] += weight);
        again += weights.again;
    }
    let (first, most) = sums.iter().copied().enumerate().max_by_key(|(_, sum)| *sum)?;
    let next =
        sums.iter().copied().enumerate().filter(|(class, _)| *class != first).map(|(_, sum)| sum).max()?;
    let unknown = FailureClass::ALL.iter().position(|class| *class == FailureClass::Unknown)?;
    Some(Opinion { class: FailureClass::ALL[first], lead: most - next, telling: most - sums[unknown], again })
}

/// The words that spoke for a class, strongest first, with their weights in hundredths of a logit.
pub(super) fn telling(evidence: &Evidence, class: FailureClass) -> Vec<(String, i32)> {
    let place = FailureClass::ALL.iter().position(|other| *other == class);
    let weight = |word: &String| {
        let weights = WEIGHTS.get(word.as_str())?;
        weights.classes.iter().find(|(class, _)| Some(*class) == place).map(|(_, weight)| *weight)
    };
    let said = read(evidence).into_iter();
    let mut for_it: Vec<(String, i32)> = said
        .filter_map(|word| weight(&word).filter(|weight| *weight > 0).map(|weight| (word, weight)))
        .collect();
    for_it.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    for_it
}

/// All that the table could know of a failure: stems, pairs of them, the status and its family.
pub(super) fn read(evidence: &Evidence) -> BTreeSet<String> {
    let words = split(&evidence.raw);
    let mut read: BTreeSet<String> = BTreeSet::from(["#all".to_owned()]);
    match evidence.status {
        Some(status) => read.extend([format!("#{status}"), format!("#{}xx", status / 100)]),
        None => read.extend(["#none".to_owned()]),
    }
    for pair in words.windows(2) {
        let empty = |word: &String| EMPTY.contains(&word.as_str());
        if TURNING.contains(&pair[0].as_str()) || !(empty(&pair[0]) || empty(&pair[1])) {
            read.insert(format!("{}_{}", stem(&pair[0]), stem(&pair[1])));
        }
    }
    let telling = words.iter().filter(|word| !EMPTY.contains(&word.as_str()));
    read.extend(telling.map(|word| stem(word).to_owned()));
    read
}

/// Runs of letters in lower case: `LockNotAcquired`, `lock_not_acquired` and "lock couldn't be acquired" share words. Addresses
/// are left out.
fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for token in text.split_whitespace().filter(|token| !token.contains("://")) {
        if words.len() >= MAX_WORDS {
            break;
        }
        split_token(token, &mut words);
    }
    words.truncate(MAX_WORDS);
    words
}

fn split_token(token: &str, words: &mut Vec<String>) {
    let bytes = token.as_bytes();
    let mut word = String::new();
    let mut finish = |word: &mut String| {
        let whole = std::mem::take(word);
        if (2..=MAX_WORD_BYTES).contains(&whole.len()) {
            words.push(whole);
        }
    };
    for (at, byte) in bytes.iter().copied().enumerate() {
        let next = bytes.get(at + 1).copied();
        if !byte.is_ascii_alphabetic() {
            // "couldn't" is "could not".
            let negated = byte == b'\'' && word.ends_with('n') && next == Some(b't');
            if negated {
                word.pop();
            }
            finish(&mut word);
            if negated {
                finish(&mut "not".to_owned());
            }
            continue;
        }
        let after_small = at > 0 && bytes[at - 1].is_ascii_lowercase();
        let before_small =
            at > 0 && bytes[at - 1].is_ascii_uppercase() && next.is_some_and(|b| b.is_ascii_lowercase());
        if byte.is_ascii_uppercase() && (after_small || before_small) {
            finish(&mut word);
        }
        word.push(byte.to_ascii_lowercase() as char);
    }
    finish(&mut word);
}

/// Cuts endings, so that "exceeds", "exceeded" and "exceeding" are one word.
fn stem(word: &str) -> &str {
    let plural = word.len() > 4 && word.ends_with('s') && !word.ends_with("ss");
    let word = if plural { &word[..word.len() - 1] } else { word };
    let ending = ["ing", "ed"]
        .into_iter()
        .find(|end| word.len() > end.len() + 3 && word.ends_with(end) && !word.ends_with("eed"));
    let word = ending.map_or(word, |end| &word[..word.len() - end.len()]);
    if word.len() > 4 { word.strip_suffix('e').unwrap_or(word) } else { word }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::FailureSignal;

    fn heard(text: &str) -> Option<Opinion> {
        let signal = FailureSignal { exception: Some(text.to_owned()), ..FailureSignal::default() };
        opinion(&Evidence::gather(&signal))
    }

    #[test]
    fn every_line_of_the_table_is_read_and_no_word_comes_twice() {
        let lines: Vec<_> = include_str!("words.txt").lines().collect();
        assert!(lines.iter().all(|line| weights(line).is_some()));
        assert_eq!(WEIGHTS.len(), lines.len());
    }

    #[test]
    fn names_and_sentences_share_their_words() {
        for text in ["LockNotAcquired", "lock_not_acquired", "lock not acquired", "LOCK_NOT_ACQUIRED"] {
            assert_eq!(split(text), ["lock", "not", "acquired"], "{text}");
        }
        assert_eq!(
            split("HTTPServerError couldn't x https://a.b/lock"),
            ["http", "server", "error", "could", "not"]
        );
        assert_eq!(["exceeds", "exceeded", "exceeding"].map(stem), ["exceed"; 3]);
        assert_eq!(stem("access"), "access");
    }

    #[test]
    fn words_that_no_phrase_joins_still_say_what_happened() {
        let class = |text| heard(text).map(|opinion| opinion.class);
        assert_eq!(class("replica election is under way, node warming"), Some(FailureClass::Overloaded));
        assert_eq!(class("zzqx vvwq"), None, "none of these is known");
        let lasting = heard("unknown column, value must match the schema").unwrap();
        assert!(lasting.again < 0, "{lasting:?}");
    }

    #[test]
    fn long_texts_cost_no_more_than_short_ones() {
        assert!(split(&"timeout ".repeat(100_000)).len() <= MAX_WORDS);
        assert!(split(&"aB".repeat(100_000)).len() <= MAX_WORDS);
    }
}
