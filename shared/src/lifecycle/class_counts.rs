//! How often a task failed, by class.

use crate::failure::FailureClass;

/// Failures by class. A task meets few classes, so a short list beats a map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClassCounts(Vec<(FailureClass, u32)>);

impl ClassCounts {
    /// Counts one more.
    pub fn add(&mut self, class: FailureClass) {
        match self.0.iter_mut().find(|(known, _)| *known == class) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => self.0.push((class, 1)),
        }
    }

    /// How many of a class were counted.
    pub fn of(&self, class: FailureClass) -> u32 {
        self.iter().find(|(known, _)| *known == class).map_or(0, |(_, count)| count)
    }

    /// The pairs, in order of first appearance.
    pub fn iter(&self) -> impl Iterator<Item = (FailureClass, u32)> + '_ {
        self.0.iter().copied()
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(FailureClass, u32)> for ClassCounts {
    fn from_iter<I: IntoIterator<Item = (FailureClass, u32)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}
