//! Which dependencies let nothing through at a moment, as far as a decision about a failure needs it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::id::Name;

/// How a gate holds everything back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Barred {
    /// For a time.
    Shut,
    /// Until a person opens it.
    Isolated,
}

/// The dependencies whose gates let nothing through: a picture taken at one moment, cheap to clone and to ask. What it does
/// not name lets work through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing(Option<Arc<BTreeMap<Name, Barred>>>);

impl Standing {
    /// Nothing is barred.
    pub const OPEN: &'static Self = &Self(None);

    /// These are, and nothing else.
    pub fn new(barred: impl IntoIterator<Item = (Name, Barred)>) -> Self {
        let barred: BTreeMap<Name, Barred> = barred.into_iter().collect();
        Self((!barred.is_empty()).then(|| Arc::new(barred)))
    }

    /// How its gate holds a dependency back, if it does.
    pub fn of(&self, dependency: &str) -> Option<Barred> {
        self.0.as_ref()?.get(dependency).copied()
    }

    /// Whether work gets through to it.
    pub fn is_open(&self, dependency: &str) -> bool {
        self.of(dependency).is_none()
    }

    /// Whether it waits for a person.
    pub fn is_isolated(&self, dependency: &str) -> bool {
        self.of(dependency) == Some(Barred::Isolated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_is_open() {
        let name = |text: &str| Name::new(text).unwrap();
        let standing = Standing::new([(name("a"), Barred::Shut), (name("b"), Barred::Isolated)]);
        assert!(!standing.is_open("a") && !standing.is_isolated("a"));
        assert!(!standing.is_open("b") && standing.is_isolated("b"));
        assert!(standing.is_open("c") && Standing::OPEN.is_open("a"));
        assert_eq!(Standing::new([]), *Standing::OPEN);
    }
}
