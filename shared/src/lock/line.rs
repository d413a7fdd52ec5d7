//! Who has one resource, and who stands in line for it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::{Mode, Token, WaitId};

/// One resource's holders and line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Line {
    pub holders: Rank<Token>,
    pub waiting: Rank<WaitId>,
}

impl Line {
    pub fn is_empty(&self) -> bool {
        self.holders.is_empty() && self.waiting.is_empty()
    }
}

/// Some in order, and which of them want or have the resource alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rank<K> {
    all: BTreeMap<K, Mode>,
    alone: BTreeSet<K>,
}

impl<K> Default for Rank<K> {
    fn default() -> Self {
        Self { all: BTreeMap::new(), alone: BTreeSet::new() }
    }
}

impl<K: Ord + Copy> Rank<K> {
    pub fn join(&mut self, key: K, mode: Mode) {
        self.all.insert(key, mode);
        if mode == Mode::Exclusive {
            self.alone.insert(key);
        }
    }

    pub fn leave(&mut self, key: K) {
        self.all.remove(&key);
        self.alone.remove(&key);
    }

    /// The first that does not go together with one of this mode.
    pub fn first_against(&self, mode: Mode) -> Option<K> {
        match mode {
            Mode::Exclusive => self.all.keys().next().copied(),
            Mode::Shared => self.alone.first().copied(),
        }
    }

    /// The first after another one; of all, where there is none.
    pub fn after(&self, last: Option<K>) -> Option<(K, Mode)> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.all.range((from, Bound::Unbounded)).next().map(|(key, mode)| (*key, *mode))
    }

    pub fn keys(&self) -> impl Iterator<Item = K> {
        self.all.keys().copied()
    }

    fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}
