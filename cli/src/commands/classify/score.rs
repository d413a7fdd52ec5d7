//! How often the classifier is right, counted over labelled samples. Pure: what is read and printed is elsewhere.
//!
//! Labels say what a retry system should do, and experts differ on some of them: an alternative label counts as right, and
//! what is marked ambiguous is not counted.

use std::collections::BTreeMap;

use redrive_shared::failure::FailureClass;
use serde::{Deserialize, Serialize};

use super::sample::Verdict;

/// A hint may be off by this, or by a hundredth of itself if that is more: clocks and roundings differ.
const HINT_TOLERANCE_MS: f64 = 1_000.0;

/// What an expert says of a sample.
#[derive(Debug, Clone, Deserialize)]
pub struct Label {
    label: FailureClass,
    retryable: bool,
    #[serde(default)]
    alt_labels: Vec<FailureClass>,
    /// The server's hint; its unit may have fractions in the samples.
    #[serde(default)]
    retry_after_ms: Option<f64>,
    /// Hints that are right, instead of that one; null stands for none.
    #[serde(default)]
    retry_after_accept: Option<Vec<Option<f64>>>,
    #[serde(default)]
    hard: bool,
    #[serde(default)]
    ambiguous: bool,
    #[serde(default)]
    retryable_ambiguous: bool,
    #[serde(default)]
    retry_after_ambiguous: bool,
}

impl Label {
    fn is_class(&self, got: FailureClass) -> bool {
        self.label == got || self.alt_labels.contains(&got)
    }

    fn is_hint(&self, got: Option<u64>) -> bool {
        let single = [self.retry_after_ms];
        let accepted = self.retry_after_accept.as_deref().unwrap_or(&single);
        accepted.iter().any(|want| match (want, got) {
            (Some(want), Some(got)) => (want - got as f64).abs() <= (0.01 * want).max(HINT_TOLERANCE_MS),
            (want, got) => want.is_none() && got.is_none(),
        })
    }
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// The class, of samples that say what they mean.
    Standard,
    /// The class, of samples that mislead.
    Hard,
    /// Whether it is retryable.
    Retryable,
    /// The server's hint, of samples that are retryable.
    Hint,
}

impl Measure {
    pub const ALL: [Self; 4] = [Self::Standard, Self::Hard, Self::Retryable, Self::Hint];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Hard => "hard",
            Self::Retryable => "retryable",
            Self::Hint => "hint",
        }
    }
}

/// How many, and how many of them right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Tally {
    pub right: u32,
    pub of: u32,
}

impl Tally {
    fn count(&mut self, right: bool) {
        self.right += u32::from(right);
        self.of += 1;
    }

    /// From 0 to 1; none where nothing was counted.
    pub fn share(self) -> Option<f64> {
        (self.of > 0).then(|| f64::from(self.right) / f64::from(self.of))
    }
}

/// The samples of a class, those of them that were recognised, and those of others that were taken for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClassTally {
    pub samples: u32,
    pub right: u32,
    pub taken_for_it: u32,
}

impl ClassTally {
    /// Of what was given this class, how much belongs to it.
    pub fn precision(self) -> Option<f64> {
        Tally { right: self.right, of: self.right + self.taken_for_it }.share()
    }

    /// Of what belongs to this class, how much was given it.
    pub fn recall(self) -> Option<f64> {
        Tally { right: self.right, of: self.samples }.share()
    }

    /// The harmonic mean of the two; 0 where nothing is right.
    pub fn f1(self) -> f64 {
        f64::from(2 * self.right) / f64::from((self.samples + self.right + self.taken_for_it).max(1))
    }
}

/// One wrong answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Miss {
    pub measure: Measure,
    pub id: String,
    pub wanted: Answer,
    pub got: Answer,
}

/// What was said, or should have been.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Answer {
    pub class: FailureClass,
    pub retryable: bool,
    pub retry_after_ms: Option<f64>,
}

/// The count so far.
#[derive(Debug, Default)]
pub struct Score {
    pub samples: u32,
    pub ambiguous: u32,
    measures: BTreeMap<Measure, Tally>,
    classes: BTreeMap<FailureClass, ClassTally>,
    /// Wanted and got, with the ids.
    confusions: BTreeMap<(FailureClass, FailureClass), Vec<String>>,
    pub misses: Vec<Miss>,
}

impl Score {
    /// Counts one sample.
    pub fn add(&mut self, id: &str, label: &Label, got: &Verdict) {
        self.samples += 1;
        if label.ambiguous {
            self.ambiguous += 1;
            return;
        }
        let class_is_right = label.is_class(got.class);
        let class = self.classes.entry(label.label).or_default();
        class.samples += 1;
        class.right += u32::from(class_is_right);
        if !class_is_right {
            self.classes.entry(got.class).or_default().taken_for_it += 1;
            self.confusions.entry((label.label, got.class)).or_default().push(id.to_owned());
        }
        let class_measure = if label.hard { Measure::Hard } else { Measure::Standard };
        self.count(class_measure, class_is_right, id, label, got);
        if !label.retryable_ambiguous {
            self.count(Measure::Retryable, got.retryable == label.retryable, id, label, got);
        }
        if label.retryable && !label.retry_after_ambiguous {
            self.count(Measure::Hint, label.is_hint(got.retry_after_ms), id, label, got);
        }
    }

    fn count(&mut self, measure: Measure, right: bool, id: &str, label: &Label, got: &Verdict) {
        self.measures.entry(measure).or_default().count(right);
        if right {
            return;
        }
        let wanted =
            Answer { class: label.label, retryable: label.retryable, retry_after_ms: label.retry_after_ms };
        let got = Answer {
            class: got.class,
            retryable: got.retryable,
            retry_after_ms: got.retry_after_ms.map(|hint| hint as f64),
        };
        self.misses.push(Miss { measure, id: id.to_owned(), wanted, got });
    }

    pub fn measure(&self, measure: Measure) -> Tally {
        self.measures.get(&measure).copied().unwrap_or_default()
    }

    /// In the order of the documentation; those too that were only given by mistake.
    pub fn classes(&self) -> impl Iterator<Item = (FailureClass, ClassTally)> {
        FailureClass::ALL.into_iter().filter_map(|class| Some((class, *self.classes.get(&class)?)))
    }

    /// The mean over the classes that have samples, each as heavy as any other; none where there are no samples.
    pub fn macro_f1(&self) -> Option<f64> {
        let f1: Vec<f64> =
            self.classes.values().filter(|class| class.samples > 0).map(|class| class.f1()).collect();
        (!f1.is_empty()).then(|| f1.iter().sum::<f64>() / f1.len() as f64)
    }

    /// Wanted, got, and the ids, most frequent first.
    pub fn confusions(&self) -> Vec<(FailureClass, FailureClass, &[String])> {
        let mut found: Vec<_> =
            self.confusions.iter().map(|((wanted, got), ids)| (*wanted, *got, ids.as_slice())).collect();
        found.sort_by_key(|(_, _, ids)| std::cmp::Reverse(ids.len()));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use FailureClass as C;
    use serde_json::{Value, json};

    fn verdict(class: FailureClass, retryable: bool, retry_after_ms: Option<u64>) -> Verdict {
        Verdict { id: None, class, retryable, retry_after_ms, fingerprint: String::new(), because: None }
    }

    fn label(value: Value) -> Label {
        serde_json::from_value(value).unwrap()
    }

    fn scored(samples: &[(Value, Verdict)]) -> Score {
        let mut score = Score::default();
        for (number, (value, got)) in samples.iter().enumerate() {
            score.add(&number.to_string(), &label(value.clone()), got);
        }
        score
    }

    #[test]
    fn alternatives_count_for_the_first_label_and_ambiguous_samples_for_nothing() {
        let score = scored(&[
            (
                json!({"label": "auth", "retryable": false, "alt_labels": ["permission"]}),
                verdict(C::Permission, false, None),
            ),
            (
                json!({"label": "auth", "retryable": false, "ambiguous": true}),
                verdict(C::Network, true, None),
            ),
            (json!({"label": "auth", "retryable": false, "hard": true}), verdict(C::Network, true, None)),
        ]);
        assert_eq!((score.samples, score.ambiguous), (3, 1));
        assert_eq!(score.measure(Measure::Standard), Tally { right: 1, of: 1 });
        assert_eq!(score.measure(Measure::Hard), Tally { right: 0, of: 1 });
        assert_eq!(score.measure(Measure::Retryable), Tally { right: 1, of: 2 });
        assert_eq!(score.measure(Measure::Hint).share(), None);
        let classes: Vec<_> = score.classes().collect();
        assert_eq!(
            classes,
            [
                (C::Network, ClassTally { samples: 0, right: 0, taken_for_it: 1 }),
                (C::Auth, ClassTally { samples: 2, right: 1, taken_for_it: 0 }),
            ]
        );
        assert_eq!(score.confusions(), [(C::Auth, C::Network, ["2".to_owned()].as_slice())]);
        assert_eq!(
            score.misses.iter().map(|miss| miss.measure).collect::<Vec<_>>(),
            [Measure::Hard, Measure::Retryable]
        );
    }

    #[test]
    fn f1_weighs_what_was_missed_and_what_was_taken_for_it() {
        let class = ClassTally { samples: 4, right: 3, taken_for_it: 1 };
        assert_eq!(class.precision(), Some(0.75));
        assert_eq!(class.recall(), Some(0.75));
        assert_eq!(class.f1(), 0.75);
        assert_eq!(ClassTally::default().f1(), 0.0);
        assert_eq!(ClassTally::default().precision(), None);
        let sample = json!({"label": "timeout", "retryable": true});
        let score = scored(&[
            (sample.clone(), verdict(C::Timeout, true, None)),
            (sample, verdict(C::Network, true, None)),
        ]);
        // The class that has no sample of its own weighs nothing: 2·1 / (2·1 + 0 + 1).
        assert_eq!(score.macro_f1(), Some(2.0 / 3.0));
        assert_eq!(Score::default().macro_f1(), None);
    }

    #[test]
    fn hints_may_be_off_by_a_second_or_a_hundredth() {
        let right = |wanted: Value, got| {
            let sample = json!({"label": "rate_limited", "retryable": true, "retry_after_ms": wanted});
            scored(&[(sample, verdict(C::RateLimited, true, got))]).measure(Measure::Hint).right == 1
        };
        assert!(right(json!(900.2), Some(900)));
        assert!(right(json!(5_000), Some(6_000)));
        assert!(!right(json!(5_000), Some(6_001)));
        assert!(right(json!(1_000_000), Some(1_010_000)));
        assert!(!right(json!(1_000_000), Some(1_010_001)));
        assert!(right(json!(null), None));
        assert!(!right(json!(null), Some(1)));
        assert!(!right(json!(20), None));
    }

    #[test]
    fn several_hints_may_be_right_and_some_are_not_scored() {
        let sample = |extra: Value| {
            let mut sample = json!({"label": "rate_limited", "retryable": true, "retry_after_ms": 5_000});
            sample.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            scored(&[(sample, verdict(C::RateLimited, true, None))]).measure(Measure::Hint)
        };
        assert_eq!(sample(json!({"retry_after_accept": [60_000, null]})), Tally { right: 1, of: 1 });
        assert_eq!(sample(json!({"retry_after_accept": [60_000]})), Tally { right: 0, of: 1 });
        assert_eq!(sample(json!({"retry_after_ambiguous": true})).of, 0);
        assert_eq!(sample(json!({"retryable": false})).of, 0);
    }

    #[test]
    fn a_label_needs_a_class_and_a_judgement() {
        let error = |value: Value| serde_json::from_value::<Label>(value).unwrap_err().to_string();
        assert!(error(json!({"label": "auth"})).contains("missing field `retryable`"));
        assert!(
            error(json!({"label": "sunspots", "retryable": true})).contains("unknown variant `sunspots`")
        );
    }
}
