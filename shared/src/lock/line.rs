//! Who has one resource, and who stands in line for it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Mode, Token, WaitId};

/// One resource's holders and line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Line {
    pub holders: BTreeMap<Token, Mode>,
    pub waiting: BTreeMap<WaitId, Mode>,
    /// Those of them that want it alone: whether one that shares may pass is told by the first of these.
    exclusive: BTreeSet<WaitId>,
}

impl Line {
    pub fn join(&mut self, id: WaitId, mode: Mode) {
        self.waiting.insert(id, mode);
        if mode == Mode::Exclusive {
            self.exclusive.insert(id);
        }
    }

    pub fn leave(&mut self, id: WaitId) {
        self.waiting.remove(&id);
        self.exclusive.remove(&id);
    }

    /// The first in line before `id` (none: before the end of the line) whom one that wants it so may not pass.
    pub fn first_before(&self, id: Option<WaitId>, mode: Mode) -> Option<WaitId> {
        let first = match mode {
            Mode::Exclusive => self.waiting.keys().next(),
            Mode::Shared => self.exclusive.first(),
        };
        first.copied().filter(|first| id.is_none_or(|id| *first < id))
    }

    pub fn is_empty(&self) -> bool {
        self.holders.is_empty() && self.waiting.is_empty()
    }
}
