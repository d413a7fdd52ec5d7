//! The tables of patterns, compiled once: a text is read once, however many patterns there are.
//!
//! An Aho-Corasick automaton over the letters of all patterns tells which of them occur. The few patterns all of whose parts
//! do are then looked at more closely, as `rules` has it: word boundaries, order, distance. The automata are built from
//! constants, with the first failure that a process classifies, and never change.

use std::collections::HashMap;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use super::rules::{Fit, Phrase, Rule, expand, patterns};
use super::{allowance, codes, phrases};
use crate::failure::FailureClass;

/// A table of phrases.
#[derive(Debug, Clone, Copy)]
pub(super) enum Phrases {
    Telling,
    Transport,
    Names,
}

impl Phrases {
    const fn rules(self) -> &'static [Rule] {
        match self {
            Self::Telling => phrases::TELLING,
            Self::Transport => phrases::TRANSPORT,
            Self::Names => phrases::NAMES,
        }
    }

    /// Bit of its first rule.
    const fn from(self) -> usize {
        match self {
            Self::Telling => 0,
            Self::Transport => after(Self::Telling.from(), Self::Telling.rules()),
            Self::Names => after(Self::Transport.from(), Self::Transport.rules()),
        }
    }
}

/// A list of phrases that answers a question of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Topic {
    NothingAllowed,
    NoMoney,
    UsedUp,
    Window,
    Rate,
    Limit,
    MoneyAbroad,
    Google,
    Model,
    OutOfTokens,
    LastingNetwork,
    LastingConflict,
    PassingToolError,
    Refusing,
}

/// The lists of all topics, in their order.
const TOPICS: [(Topic, &[&str]); Topic::Refusing as usize + 1] = [
    (Topic::NothingAllowed, &[allowance::NOTHING_ALLOWED]),
    (Topic::NoMoney, &[allowance::NO_MONEY, phrases::SPENT_ABROAD]),
    (Topic::UsedUp, &[allowance::USED_UP, phrases::USED_UP_ABROAD]),
    (Topic::Window, &[allowance::WINDOW, phrases::WINDOW_ABROAD]),
    (Topic::Rate, &[allowance::RATE, phrases::RATE_ABROAD]),
    (Topic::Limit, &[allowance::LIMIT]),
    (Topic::MoneyAbroad, &[phrases::MONEY_ABROAD]),
    (Topic::Google, &[allowance::GOOGLE]),
    (Topic::Model, &[phrases::MODEL]),
    (Topic::OutOfTokens, &[phrases::OUT_OF_TOKENS]),
    (Topic::LastingNetwork, &[phrases::LASTING_NETWORK]),
    (Topic::LastingConflict, &[phrases::LASTING_CONFLICT]),
    (Topic::PassingToolError, &[phrases::PASSING_TOOL_ERROR]),
    (Topic::Refusing, &[phrases::REFUSING]),
];
/// Bit of the first topic, behind all rules.
const TOPICS_FROM: usize = after(Phrases::Names.from(), Phrases::Names.rules());
const _: () = assert!(TOPICS_FROM + TOPICS.len() <= u64::BITS as usize, "more lists than bits");

/// A table of codes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Codes {
    Stops,
    Specific,
    Limits,
    General,
    Stems,
}

impl Codes {
    const ALL: [Self; 5] = [Self::Stops, Self::Specific, Self::Limits, Self::General, Self::Stems];

    const fn rules(self) -> &'static [Rule] {
        match self {
            Self::Stops => codes::STOPS,
            Self::Specific => codes::SPECIFIC,
            Self::Limits => codes::LIMITS,
            Self::General => codes::GENERAL,
            Self::Stems => codes::STEMS,
        }
    }

    /// Bit of its first rule.
    const fn from(self) -> usize {
        match self {
            Self::Stops => 0,
            Self::Specific => after(Self::Stops.from(), Self::Stops.rules()),
            Self::Limits => after(Self::Specific.from(), Self::Specific.rules()),
            Self::General => after(Self::Limits.from(), Self::Limits.rules()),
            Self::Stems => after(Self::General.from(), Self::General.rules()),
        }
    }
}

const _: () =
    assert!(after(Codes::Stems.from(), Codes::Stems.rules()) <= u64::BITS as usize, "more rules than bits");

const fn after(from: usize, rules: &[Rule]) -> usize {
    from + rules.len()
}

/// The class of the first of these rules whose bit is set.
fn first_class(bits: u64, from: usize, rules: &[Rule]) -> Option<FailureClass> {
    rules.get((bits >> from).trailing_zeros() as usize).map(|rule| rule.class)
}

/// The lists that have a phrase which occurs in a text, a bit for each.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Heard(u64);

impl Heard {
    /// Reads a (lower-case, single-spaced) text.
    pub(super) fn listen(prose: &str) -> Self {
        Self(if prose.is_empty() { 0 } else { PHRASE_BOOK.heard_in(prose) })
    }

    pub(super) fn about(self, topic: Topic) -> bool {
        self.0 & topic_bit(topic) != 0
    }

    /// First rule of the table with a phrase that occurs.
    pub(super) fn class(self, table: Phrases) -> Option<FailureClass> {
        first_class(self.0, table.from(), table.rules())
    }
}

const fn topic_bit(topic: Topic) -> u64 {
    1 << (TOPICS_FROM + topic as usize)
}

/// The rules that name one of several codes, a bit for each.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Named(u64);

impl Named {
    pub(super) fn by(codes: &[String]) -> Self {
        Self(if codes.is_empty() { 0 } else { CODE_BOOK.named_by(codes) })
    }

    /// First rule of the table that names one of the codes.
    pub(super) fn class(self, table: Codes) -> Option<FailureClass> {
        first_class(self.0, table.from(), table.rules())
    }
}

static PHRASE_BOOK: LazyLock<PhraseBook> = LazyLock::new(PhraseBook::compile);
static CODE_BOOK: LazyLock<CodeBook> = LazyLock::new(CodeBook::compile);

/// Patterns of text without a pattern language, numbered in the order in which they first came.
#[derive(Default)]
struct Letters {
    numbers: HashMap<String, usize>,
    texts: Vec<String>,
}

impl Letters {
    fn number(&mut self, text: &str) -> usize {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.texts.len();
        self.texts.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }

    fn automaton(&self) -> AhoCorasick {
        // A DFA of this size would take megabytes and lose in cache misses what it saves in steps.
        AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(&self.texts)
            .unwrap_or_else(|error| unreachable!("constant tables are within bounds: {error}"))
    }
}

struct PhraseBook {
    parts: AhoCorasick,
    /// For each part, the phrases that begin with it.
    begun_by: Vec<Vec<ListedPhrase>>,
}

struct ListedPhrase {
    list: u64,
    phrase: Phrase,
    /// Its parts after the first, by number.
    rest: Vec<usize>,
}

impl PhraseBook {
    fn compile() -> Self {
        let mut letters = Letters::default();
        let mut begun_by: Vec<Vec<ListedPhrase>> = Vec::new();
        let rules = [Phrases::Telling, Phrases::Transport, Phrases::Names].into_iter().flat_map(|table| {
            table
                .rules()
                .iter()
                .enumerate()
                .map(move |(place, rule)| (1 << (table.from() + place), rule.patterns))
        });
        let topics = TOPICS.into_iter().map(|(topic, patterns)| (topic_bit(topic), patterns));
        for (list_bit, lists) in rules.chain(topics) {
            for pattern in patterns(lists).flat_map(expand) {
                let phrase = Phrase::new(&pattern);
                let first = letters.number(&phrase.first);
                let rest = phrase.rest.iter().map(|part| letters.number(&part.text)).collect();
                begun_by.resize_with(letters.texts.len(), Vec::new);
                begun_by[first].push(ListedPhrase { list: list_bit, phrase, rest });
            }
        }
        Self { parts: letters.automaton(), begun_by }
    }

    fn heard_in(&self, prose: &str) -> u64 {
        let mut occurring = vec![0_u64; self.begun_by.len().div_ceil(64)];
        let mut begun = Vec::new();
        for found in self.parts.find_overlapping_iter(prose) {
            let part = found.pattern().as_usize();
            let (word, bit) = (part / 64, 1 << (part % 64));
            if occurring[word] & bit == 0 {
                occurring[word] |= bit;
                begun.push((part, found.start()));
            }
        }
        let occurs = |part: &usize| occurring[part / 64] & (1 << (part % 64)) != 0;
        let mut heard = 0;
        for (part, from) in begun {
            for listed in &self.begun_by[part] {
                let news = heard & listed.list == 0;
                if news && listed.rest.iter().all(occurs) && listed.phrase.occurs(prose, from) {
                    heard |= listed.list;
                }
            }
        }
        heard
    }
}

struct CodeBook {
    names: AhoCorasick,
    /// For each name, the rules that have it.
    rules: Vec<Vec<(Fit, u64)>>,
}

impl CodeBook {
    fn compile() -> Self {
        let mut letters = Letters::default();
        let mut rules: Vec<Vec<(Fit, u64)>> = Vec::new();
        for table in Codes::ALL {
            for (place, rule) in table.rules().iter().enumerate() {
                for pattern in patterns(rule.patterns) {
                    let (fit, name) = Fit::of(pattern);
                    let number = letters.number(name);
                    rules.resize_with(letters.texts.len(), Vec::new);
                    rules[number].push((fit, 1 << (table.from() + place)));
                }
            }
        }
        Self { names: letters.automaton(), rules }
    }

    fn named_by(&self, codes: &[String]) -> u64 {
        let mut named = 0;
        for code in codes {
            for found in self.names.find_overlapping_iter(code) {
                for (fit, rule) in &self.rules[found.pattern().as_usize()] {
                    if fit.holds(found.start(), found.end(), code.len()) {
                        named |= rule;
                    }
                }
            }
        }
        named
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLES: &str = include_str!("../../../tests/vectors/failures.jsonl");

    /// The lists by their bits.
    fn lists() -> Vec<&'static [&'static str]> {
        let rules = [Phrases::Telling, Phrases::Transport, Phrases::Names].map(Phrases::rules).concat();
        rules.iter().map(|rule| rule.patterns).chain(TOPICS.map(|(_, patterns)| patterns)).collect()
    }

    #[test]
    fn topics_are_listed_in_their_order() {
        for (place, (topic, _)) in TOPICS.into_iter().enumerate() {
            assert_eq!(topic as usize, place, "{topic:?}");
        }
    }

    #[test]
    fn every_phrase_of_every_list_is_heard() {
        for (bit, lists) in lists().into_iter().enumerate() {
            for pattern in patterns(lists).flat_map(expand) {
                let text = pattern.trim_start_matches('*').trim_end_matches('|').replace(['*', '~'], " x ");
                assert!(Heard::listen(&text).0 & (1 << bit) != 0, "{pattern}");
            }
        }
    }

    #[test]
    fn one_reading_hears_what_pattern_by_pattern_is_found() {
        let compiled =
            |lists| patterns(lists).flat_map(expand).map(|pattern| Phrase::new(&pattern)).collect();
        let phrases: Vec<Vec<Phrase>> = lists().into_iter().map(compiled).collect();
        for prose in SAMPLES.lines().map(str::to_lowercase) {
            let occurs =
                |phrase: &Phrase| prose.find(&phrase.first).is_some_and(|from| phrase.occurs(&prose, from));
            let heard = Heard::listen(&prose);
            for (bit, phrases) in phrases.iter().enumerate() {
                let heard = heard.0 & (1 << bit) != 0;
                assert_eq!(heard, phrases.iter().any(occurs), "list {bit}: {prose}");
            }
        }
    }

    #[test]
    fn every_code_of_every_table_is_named() {
        for table in Codes::ALL {
            for (place, rule) in table.rules().iter().enumerate() {
                for pattern in patterns(rule.patterns) {
                    let named = Named::by(&[pattern.replace('*', "")]).0;
                    assert!(named & (1 << (table.from() + place)) != 0, "{pattern}");
                }
            }
        }
    }
}
