//! What groups spend within a day, and what their queues let them.

use redrive_shared::cost::Cost;
use redrive_shared::gate::Scope;
use redrive_shared::id::Name;

use super::{Book, Entry};
use crate::gates::event::{Event, Spending};

/// Most groups whose costs are counted at once. They share the store's bound with dependencies, whose gates must have room.
const GROUPS_MAX: usize = 5_000;

/// A group that has just reached what it may spend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gates) struct Reached {
    pub scope: Scope,
    pub most: Cost,
    /// When the day is over.
    pub until_ms: i64,
}

impl Book {
    /// Tasks of groups cost something.
    pub(super) fn spend(&mut self, spent: Vec<Spending>, now_ms: i64) {
        for Spending { scope, cost, most } in spent {
            if !self.entries.contains_key(&scope) && self.has_all_groups() {
                metrics::counter!("redrive_gates_refused_total").increment(1);
                continue;
            }
            self.with(&scope, now_ms, |entry| {
                entry.bound_costs(Some(most), now_ms);
                entry.add(Event::Spent { cost, at_ms: now_ms }, now_ms);
            });
        }
    }

    fn has_all_groups(&self) -> bool {
        let groups = || self.entries.keys().filter(|scope| matches!(scope, Scope::Group { .. })).count();
        self.entries.len() >= GROUPS_MAX && groups() >= GROUPS_MAX
    }

    /// What queues let their groups spend, as it is now.
    pub fn bound_costs(&mut self, most: impl Fn(&Name) -> Option<Cost>, now_ms: i64) {
        let spending = self.entries.iter().filter(|(_, entry)| entry.gate.spent(now_ms).is_some());
        let bounds: Vec<(Scope, Option<Cost>)> =
            spending.filter_map(|(scope, _)| Some((scope.clone(), most(scope.queue()?)))).collect();
        for (scope, most) in bounds {
            self.with(&scope, now_ms, |entry| entry.bound_costs(most, now_ms));
        }
    }

    /// The groups that reached what they may spend by what was written here: one coordinator tells of each.
    pub fn take_reached(&mut self, now_ms: i64) -> Vec<Reached> {
        let reached = |(scope, entry): (&Scope, &mut Entry)| {
            std::mem::take(&mut entry.reached).then_some(())?;
            let (most, until_ms) = (entry.most?, entry.spent_until_ms(now_ms)?);
            Some(Reached { scope: scope.clone(), most, until_ms })
        };
        self.entries.iter_mut().filter_map(reached).collect()
    }
}
