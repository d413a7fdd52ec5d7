//! A score on paper: tables for people, one object for machines, and what is below its floor.

use redrive_shared::error::suggest;
use redrive_shared::failure::FailureClass;
use serde_json::{Value, json};

use super::score::{Answer, Measure, Score};
use crate::output::{Entry, Output, Rows};

/// How many ids stand beside a confusion in the table; JSON has them all.
const IDS_SHOWN: usize = 3;

/// What a floor can be given for: a measure, or the mean over the classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Figure {
    Of(Measure),
    MacroF1,
}

impl Figure {
    const ALL: [Self; 5] = [
        Self::Of(Measure::Standard),
        Self::Of(Measure::Hard),
        Self::Of(Measure::Retryable),
        Self::Of(Measure::Hint),
        Self::MacroF1,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Of(measure) => measure.as_str(),
            Self::MacroF1 => "macro_f1",
        }
    }

    fn share(self, score: &Score) -> Option<f64> {
        match self {
            Self::Of(measure) => score.measure(measure).share(),
            Self::MacroF1 => score.macro_f1(),
        }
    }
}

/// The least that a figure has to reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Floor {
    figure: Figure,
    share: f64,
}

impl Floor {
    /// `standard=0.95`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, share) =
            text.split_once('=').ok_or_else(|| format!("write MEASURE=SHARE, such as {text}=0.95"))?;
        let figure = Figure::ALL.into_iter().find(|figure| figure.as_str() == name).ok_or_else(|| {
            let known = Figure::ALL.map(Figure::as_str);
            match suggest(name, known) {
                Some(near) => format!("`{name}` is not measured; did you mean `{near}`?"),
                None => format!("`{name}` is not measured; there are {}", known.join(", ")),
            }
        })?;
        let share = share.parse().ok().filter(|share| (0.0..=1.0).contains(share));
        share
            .map(|share| Self { figure, share })
            .ok_or_else(|| format!("the share of `{name}` is a number from 0 to 1, such as 0.95"))
    }

    /// A figure that nothing was counted for reaches no floor: a file without such samples proves nothing.
    fn is_met(self, score: &Score) -> bool {
        self.figure.share(score).is_some_and(|share| share >= self.share)
    }
}

/// Prints the score, with the first `misses` of its misses.
pub fn print(score: &Score, floors: &[Floor], misses: usize, output: Output) -> anyhow::Result<()> {
    if output.json {
        return output.value(&to_json(score, floors, misses));
    }
    output.table(classes(score))?;
    output.line("")?;
    output.table(figures(score, floors))?;
    if !score.confusions().is_empty() {
        output.line("")?;
        output.table(confusions(score))?;
    }
    if misses > 0 && !score.misses.is_empty() {
        output.line("")?;
        output.table(missed(score, misses))?;
    }
    output.note(&format!("{} samples, {} of them ambiguous and not scored", score.samples, score.ambiguous));
    Ok(())
}

/// Says which figures are below their floors; whether none is.
pub fn check(score: &Score, floors: &[Floor], output: Output) -> bool {
    let missed = floors.iter().filter(|floor| !floor.is_met(score));
    let complained = missed.inspect(|floor| {
        let share = floor.figure.share(score).map_or_else(|| "nothing to count".to_owned(), decimal);
        output.complain(floor.figure.as_str(), format!("{share}; at least {} was asked for", floor.share));
    });
    complained.count() == 0
}

fn decimal(share: f64) -> String {
    format!("{share:.3}")
}

fn classes(score: &Score) -> Rows {
    let headers = ["CLASS", "SAMPLES", "RIGHT", "PRECISION", "RECALL", "F1"];
    let mut rows = Rows::new(headers).right([1, 2, 3, 4, 5]);
    for (class, tally) in score.classes() {
        rows.push([
            class.into(),
            tally.samples.into(),
            tally.right.into(),
            Entry::or_dash(tally.precision().map(decimal)),
            Entry::or_dash(tally.recall().map(decimal)),
            decimal(tally.f1()).into(),
        ]);
    }
    rows
}

fn figures(score: &Score, floors: &[Floor]) -> Rows {
    let mut rows = Rows::new(["MEASURE", "RIGHT", "OF", "SHARE", "MIN"]).right([1, 2, 3, 4]);
    for figure in Figure::ALL {
        let tally = match figure {
            Figure::Of(measure) => Some(score.measure(measure)),
            Figure::MacroF1 => None,
        };
        let floor = floors.iter().rev().find(|floor| floor.figure == figure);
        rows.push([
            figure.as_str().into(),
            Entry::or_dash(tally.map(|tally| tally.right)),
            Entry::or_dash(tally.map(|tally| tally.of)),
            Entry::or_dash(figure.share(score).map(decimal)),
            Entry::or_dash(floor.map(|floor| floor.share)),
        ]);
    }
    rows
}

fn confusions(score: &Score) -> Rows {
    let mut rows = Rows::new(["WANTED", "GOT", "COUNT", "FIRST"]).right([2]);
    for (wanted, got, ids) in score.confusions() {
        let more = if ids.len() > IDS_SHOWN { " …" } else { "" };
        let shown = ids.iter().take(IDS_SHOWN).cloned().collect::<Vec<_>>().join(" ");
        rows.push([wanted.into(), got.into(), ids.len().into(), format!("{shown}{more}").into()]);
    }
    rows
}

fn missed(score: &Score, limit: usize) -> Rows {
    let mut rows = Rows::new(["MEASURE", "ID", "WANTED", "GOT"]);
    for miss in score.misses.iter().take(limit) {
        rows.push([
            miss.measure.as_str().into(),
            (&miss.id).into(),
            in_short(miss.measure, miss.wanted).into(),
            in_short(miss.measure, miss.got).into(),
        ]);
    }
    rows
}

/// What matters to the measure, with the class beside it.
fn in_short(measure: Measure, answer: Answer) -> String {
    let class = answer.class;
    match measure {
        Measure::Standard | Measure::Hard => class.to_string(),
        Measure::Retryable if answer.retryable => format!("{class}, retryable"),
        Measure::Retryable => format!("{class}, final"),
        Measure::Hint => match answer.retry_after_ms {
            Some(hint) => format!("{class}, {hint} ms"),
            None => format!("{class}, no hint"),
        },
    }
}

fn to_json(score: &Score, floors: &[Floor], misses: usize) -> Value {
    let measures = Measure::ALL.map(|measure| {
        let tally = score.measure(measure);
        let value = json!({ "right": tally.right, "of": tally.of, "share": tally.share() });
        (measure.as_str().to_owned(), value)
    });
    let class = |(class, tally): (FailureClass, super::score::ClassTally)| {
        json!({
            "class": class, "samples": tally.samples, "right": tally.right,
            "precision": tally.precision(), "recall": tally.recall(), "f1": tally.f1(),
        })
    };
    let floor = |floor: &Floor| {
        json!({
            "measure": floor.figure.as_str(), "min": floor.share,
            "share": floor.figure.share(score), "met": floor.is_met(score),
        })
    };
    let confusions = score.confusions();
    json!({
        "samples": score.samples,
        "ambiguous": score.ambiguous,
        "measures": serde_json::Map::from_iter(measures),
        "macro_f1": score.macro_f1(),
        "classes": score.classes().map(class).collect::<Vec<_>>(),
        "confusions": confusions.iter().map(|(wanted, got, ids)| {
            json!({ "wanted": wanted, "got": got, "count": ids.len(), "ids": ids })
        }).collect::<Vec<_>>(),
        "floors": floors.iter().map(floor).collect::<Vec<_>>(),
        "misses": score.misses.iter().take(misses).map(|miss| {
            json!({ "measure": miss.measure, "id": miss.id, "wanted": miss.wanted, "got": miss.got })
        }).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::classify::sample::Verdict;

    fn half_right() -> Score {
        let mut score = Score::default();
        for (id, class) in [("a", FailureClass::Auth), ("b", FailureClass::Network)] {
            let label = serde_json::from_value(json!({"label": "auth", "retryable": false})).unwrap();
            let verdict = Verdict {
                id: None,
                class,
                retryable: false,
                retry_after_ms: None,
                fingerprint: "x".into(),
                because: None,
            };
            score.add(id, &label, &verdict);
        }
        score
    }

    #[test]
    fn a_floor_is_a_measure_and_a_share() {
        let floor = Floor::parse("hint=0.98").unwrap();
        assert_eq!((floor.figure.as_str(), floor.share), ("hint", 0.98));
        assert!(Floor::parse("macro_f1=1").is_ok());
        assert_eq!(
            Floor::parse("standart=0.9").unwrap_err(),
            "`standart` is not measured; did you mean `standard`?"
        );
        assert!(Floor::parse("hint").unwrap_err().contains("hint=0.95"));
        for share in ["95", "-0.1", "nan", "", "much"] {
            assert!(Floor::parse(&format!("hard={share}")).unwrap_err().contains("from 0 to 1"), "{share}");
        }
    }

    #[test]
    fn a_floor_holds_at_the_share_itself_and_never_without_samples() {
        let score = half_right();
        let met = |text| Floor::parse(text).unwrap().is_met(&score);
        assert!(met("standard=0.5"));
        assert!(!met("standard=0.51"));
        assert!(met("retryable=1"));
        assert!(!met("hard=0"));
    }

    #[test]
    fn machines_get_every_figure() {
        let value = to_json(&half_right(), &[Floor::parse("standard=0.9").unwrap()], 1);
        assert_eq!(value["measures"]["standard"], json!({"right": 1, "of": 2, "share": 0.5}));
        assert_eq!(value["measures"]["hint"]["share"], Value::Null);
        assert_eq!(
            value["confusions"],
            json!([{"wanted": "auth", "got": "network", "count": 1, "ids": ["b"]}])
        );
        assert_eq!(value["floors"][0]["met"], false);
        assert_eq!(value["misses"][0]["id"], "b");
    }
}
