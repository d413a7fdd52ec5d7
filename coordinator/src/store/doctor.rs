//! What examining a store found: each finding with a verdict, and a remedy where one is due.

use serde::{Serialize, Serializer};

/// What a finding means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Could not be looked at; the remedy says what to check by hand.
    Skipped,
    /// Works, with a risk or a cost that is named.
    Warning,
    /// Would lose tasks, or cannot work.
    Refused,
}

impl Verdict {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Refused => "refused",
        }
    }
}

/// What one check found, at one server or at several that are alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check's stable name.
    pub check: &'static str,
    /// Its judgement.
    pub verdict: Verdict,
    /// Where: servers, or a directory. Empty: the store as a whole.
    pub at: Vec<String>,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    /// All is well.
    pub fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, at: Vec::new(), found: found.into(), remedy: None }
    }

    /// Not well, and what to do.
    pub fn bad(
        check: &'static str,
        verdict: Verdict,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { verdict, remedy: Some(remedy.into()), ..Self::ok(check, found) }
    }

    /// Says where.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.at.push(place.into());
        self
    }
}

/// On one line, for logs and errors.
impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.check)?;
        if !self.at.is_empty() {
            write!(f, " at {}", self.at.join(", "))?;
        }
        write!(f, ": {}", self.found)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    findings: Vec<Finding>,
}

impl Report {
    /// Findings that differ only in where they are become one.
    pub fn new(findings: impl IntoIterator<Item = Finding>) -> Self {
        let mut merged: Vec<Finding> = Vec::new();
        for finding in findings {
            let alike = |known: &&mut Finding| {
                (known.check, known.verdict, &known.found, &known.remedy)
                    == (finding.check, finding.verdict, &finding.found, &finding.remedy)
            };
            match merged.iter_mut().find(alike) {
                Some(known) => known.at.extend(finding.at),
                None => merged.push(finding),
            }
        }
        Self { findings: merged }
    }

    /// In the order in which they were checked.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The gravest verdict. What could not be looked at is no fault.
    pub fn verdict(&self) -> Verdict {
        let grave = |verdict: &Verdict| *verdict > Verdict::Skipped;
        self.findings.iter().map(|finding| finding.verdict).filter(grave).max().unwrap_or(Verdict::Ok)
    }

    /// What would lose tasks, or cannot work.
    pub fn refused(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.verdict == Verdict::Refused)
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Whole<'a> {
            verdict: Verdict,
            findings: &'a [Finding],
        }
        Whole { verdict: self.verdict(), findings: &self.findings }.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::{Finding, Report, Verdict};

    #[test]
    fn what_is_alike_is_told_once_and_the_gravest_decides() {
        let bad =
            |at: &str| Finding::bad("eviction", Verdict::Refused, "allkeys-lru", "set noeviction").at(at);
        let report = Report::new([bad("a:1"), Finding::ok("hints", "arrive"), bad("b:2")]);
        assert_eq!(report.findings().len(), 2);
        assert_eq!(report.findings()[0].to_string(), "eviction at a:1, b:2: allkeys-lru; set noeviction");
        assert_eq!(report.verdict(), Verdict::Refused);
        let skipped = Finding::bad("clock", Verdict::Skipped, "not told", "look yourself");
        assert_eq!(Report::new([skipped]).verdict(), Verdict::Ok);
    }
}
