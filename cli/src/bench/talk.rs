//! What is said while the benchmark runs.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::Output;

/// Progress, and what must be known to read the figures.
pub struct Talk<'a> {
    output: &'a Output,
    progress: ProgressBar,
}

impl<'a> Talk<'a> {
    /// Shows progress where there is a terminal.
    pub fn new(output: &'a Output) -> anyhow::Result<Self> {
        let style = ProgressStyle::with_template("{spinner} {msg}  {elapsed}")?;
        let progress = ProgressBar::new_spinner().with_style(style);
        progress.enable_steady_tick(Duration::from_millis(100));
        Ok(Self { output, progress })
    }

    /// What is being done now.
    pub(super) fn step(&self, what: &str) {
        self.progress.set_message(what.to_owned());
    }

    /// A line that stays.
    pub(super) fn note(&self, text: &str) {
        self.progress.suspend(|| self.output.note(text));
    }
}

impl Drop for Talk<'_> {
    fn drop(&mut self) {
        self.progress.finish_and_clear();
    }
}
