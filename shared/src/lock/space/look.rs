//! What is seen of a space.

use super::{Hold, Resource, Space, Token, Wait, WaitId};

impl Space {
    /// When something is over that somebody waits for (µs); none: nobody waits.
    pub fn next_us(&self) -> Option<i64> {
        let wait_us = self.wait_ends.first().map(|(at_us, _)| *at_us)?;
        Some(self.hold_ends.first().map_or(wait_us, |(at_us, _)| wait_us.min(*at_us)))
    }

    /// Places in line that were granted since this was last asked.
    pub fn take_offered(&mut self) -> Vec<WaitId> {
        std::mem::take(&mut self.offered)
    }

    /// Locks that changed, began or ended since this was last asked: those that are not there any more ended.
    pub fn take_changed(&mut self) -> Vec<Token> {
        std::mem::take(&mut self.changed).into_iter().collect()
    }

    /// How many locks were held until their time was over, since this was last asked.
    pub fn take_expired(&mut self) -> u64 {
        std::mem::take(&mut self.expired)
    }

    /// The highest number given so far: no token is lower than those to come.
    pub fn mark(&self) -> i64 {
        self.mark
    }

    /// A lock.
    pub fn hold(&self, token: Token) -> Option<&Hold> {
        self.holds.get(&token)
    }

    /// All locks, by token.
    pub fn holds(&self) -> impl Iterator<Item = &Hold> {
        self.holds.values()
    }

    /// All that wait, in order.
    pub fn waits(&self) -> impl Iterator<Item = &Wait> {
        self.waits.values()
    }

    /// Who has a resource, by token.
    pub fn holds_at(&self, resource: &Resource) -> impl Iterator<Item = &Hold> {
        let line = self.lines.get(resource).into_iter();
        line.flat_map(|line| line.holders.keys()).filter_map(|token| self.holds.get(&token))
    }

    /// Who waits for a resource, in order.
    pub fn waits_at(&self, resource: &Resource) -> impl Iterator<Item = &Wait> {
        let line = self.lines.get(resource).into_iter();
        line.flat_map(|line| line.waiting.keys()).filter_map(|id| self.waits.get(&id))
    }

    /// How many locks stand, and how many wait for one.
    pub fn counts(&self) -> (usize, usize) {
        (self.holds.len(), self.waits.len())
    }

    /// Whether nothing of any lock, owner or wait is left.
    pub fn is_empty(&self) -> bool {
        let numbers = self.of_owner.is_empty() && self.granted_to.is_empty();
        let times = self.hold_ends.is_empty() && self.wait_ends.is_empty();
        numbers && times && self.holds.is_empty() && self.waits.is_empty() && self.lines.is_empty()
    }
}
