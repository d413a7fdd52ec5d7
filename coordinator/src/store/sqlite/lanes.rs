//! Which lanes have something due, kept in memory by the writer and built from the tables when the store opens.
//!
//! Per queue and priority a sorted set of (next due time, lane): a claim visits lanes that are due and eligible, and no
//! others. Every lane's next due time is exact between transactions.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use redrive_shared::id::Name;
use redrive_shared::task::Lane;

use crate::store::format;
use crate::store::gates::Allowance;

fn rank(priority: redrive_shared::task::Priority) -> i64 {
    format::rank(priority).into()
}

/// Lanes looked at by one claim, earliest due first: bounds a claim's work where a queue has very many groups.
const CANDIDATES_MAX: usize = 1_024;

#[derive(Debug)]
struct Entry {
    lane: Lane,
    queue: i64,
    next_due_ms: Option<i64>,
    /// Rows that refer to the lane.
    tasks: i64,
    /// Rotation: the lane visited longest ago goes first.
    visited: u64,
}

/// A lane that a claim may visit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub lane: i64,
    pub rank: i64,
    visited: u64,
}

/// The index.
#[derive(Debug, Default)]
pub(super) struct LaneIndex {
    entries: HashMap<i64, Entry>,
    ids: HashMap<Lane, i64>,
    due: BTreeMap<(i64, i64), BTreeSet<(i64, i64)>>,
    visits: u64,
}

impl LaneIndex {
    /// Adds a lane, new or read from the table.
    pub fn insert(&mut self, id: i64, queue: i64, lane: Lane, tasks: i64, next_due_ms: Option<i64>) {
        self.ids.insert(lane.clone(), id);
        self.entries.insert(id, Entry { lane, queue, next_due_ms: None, tasks, visited: 0 });
        self.set_next_due(id, next_due_ms);
    }

    /// The lane's number, if it is interned.
    pub fn find(&self, lane: &Lane) -> Option<i64> {
        self.ids.get(lane).copied()
    }

    /// The lane of a number.
    pub fn lane(&self, id: i64) -> Option<&Lane> {
        self.entries.get(&id).map(|entry| &entry.lane)
    }

    /// The queue of a lane.
    pub fn queue(&self, id: i64) -> Option<i64> {
        self.entries.get(&id).map(|entry| entry.queue)
    }

    /// Something in the lane is due then.
    pub fn add_due(&mut self, id: i64, due_ms: i64) {
        let earliest =
            self.entries.get(&id).and_then(|entry| entry.next_due_ms).map_or(due_ms, |next| next.min(due_ms));
        self.set_next_due(id, Some(earliest));
    }

    /// The lane's next due time is exactly this.
    pub fn set_next_due(&mut self, id: i64, next_due_ms: Option<i64>) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.next_due_ms == next_due_ms {
            return;
        }
        let set = self.due.entry((entry.queue, rank(entry.lane.priority))).or_default();
        if let Some(old) = entry.next_due_ms {
            set.remove(&(old, id));
        }
        if let Some(new) = next_due_ms {
            set.insert((new, id));
        }
        entry.next_due_ms = next_due_ms;
    }

    /// More or fewer rows refer to the lane. True: none does any more.
    pub fn count(&mut self, id: i64, by: i64) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        entry.tasks += by;
        entry.tasks <= 0
    }

    /// Forgets a lane that nothing refers to.
    pub fn remove(&mut self, id: i64) {
        self.set_next_due(id, None);
        if let Some(entry) = self.entries.remove(&id) {
            self.ids.remove(&entry.lane);
        }
    }

    /// The lanes of these queues that are due, not avoided and not held back, in the order to visit them: by priority, then
    /// by rotation. Notes which restrictions hold something back, by their places.
    pub fn due(
        &self,
        queues: &[i64],
        avoid: &[Name],
        allowance: &Allowance,
        now_ms: i64,
        held_back: &mut BTreeSet<usize>,
    ) -> Vec<Candidate> {
        let mut found = Vec::new();
        for queue in queues {
            if let Some(place) = self.held_as_a_whole(*queue, avoid, allowance, now_ms) {
                held_back.insert(place);
                continue;
            }
            for ((_, rank), set) in self.due.range((*queue, i64::MIN)..=(*queue, i64::MAX)) {
                let eligible = set.range(..=(now_ms, i64::MAX)).filter_map(|(_, lane)| {
                    let entry = self.entries.get(lane).filter(|entry| eligible(&entry.lane, avoid))?;
                    if let Some(place) = allowance.held_back(&entry.lane) {
                        held_back.insert(place);
                        return None;
                    }
                    Some(Candidate { lane: *lane, rank: *rank, visited: entry.visited })
                });
                found.extend(eligible.take(CANDIDATES_MAX));
            }
        }
        found.sort_by_key(|candidate| (candidate.rank, candidate.visited, candidate.lane));
        found
    }

    /// The place of the restriction on a queue that lets nothing of it through, where something is due: then its lanes need not
    /// be looked at, of which there may be very many.
    fn held_as_a_whole(
        &self,
        queue: i64,
        avoid: &[Name],
        allowance: &Allowance,
        now_ms: i64,
    ) -> Option<usize> {
        let sets = self.due.range((queue, i64::MIN)..=(queue, i64::MAX));
        let mut due = sets.flat_map(|(_, set)| set.range(..=(now_ms, i64::MAX)));
        let (_, first) = due.next()?;
        let place = allowance.held_back_queue(&self.entries.get(first)?.lane.queue)?;
        let mut due = std::iter::once(first).chain(due.map(|(_, lane)| lane));
        due.any(|lane| self.entries.get(lane).is_some_and(|entry| eligible(&entry.lane, avoid)))
            .then_some(place)
    }

    /// A claim has visited the lane: it goes to the end of the rotation.
    pub fn visited(&mut self, id: i64) {
        self.visits += 1;
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.visited = self.visits;
        }
    }

    /// When the next task of the eligible lanes is due. What is due and held back does not come by being asked for again; what
    /// is not due yet counts, since somebody has to notice that it waits.
    pub fn next_due(
        &self,
        queues: &[i64],
        avoid: &[Name],
        allowance: &Allowance,
        now_ms: i64,
    ) -> Option<i64> {
        let sets = queues.iter().flat_map(|queue| self.due.range((*queue, i64::MIN)..=(*queue, i64::MAX)));
        let counts = |due_ms: i64, lane: &Lane| {
            eligible(lane, avoid) && (due_ms > now_ms || allowance.held_back(lane).is_none())
        };
        sets.filter_map(|(_, set)| {
            set.iter()
                .find(|(due_ms, lane)| {
                    self.entries.get(lane).is_some_and(|entry| counts(*due_ms, &entry.lane))
                })
                .map(|(due_ms, _)| *due_ms)
        })
        .min()
    }
}

fn eligible(lane: &Lane, avoid: &[Name]) -> bool {
    lane.dependency.as_ref().is_none_or(|dependency| !avoid.contains(dependency))
}

#[cfg(test)]
mod tests {
    use redrive_shared::gate::Scope;
    use redrive_shared::task::Priority;

    use super::*;
    use crate::store::Restriction;

    fn lane(priority: Priority, group: &str) -> Lane {
        let name = |text: &str| Name::new(text).unwrap();
        Lane {
            queue: name("q"),
            priority,
            dependency: Some(name("dep")),
            group: Some(name(group)),
            retry: false,
        }
    }

    fn due(index: &LaneIndex, avoid: &[Name], allowance: &Allowance) -> (Vec<i64>, BTreeSet<usize>) {
        let mut held_back = BTreeSet::new();
        let found = index.due(&[7], avoid, allowance, 50, &mut held_back);
        (found.iter().map(|candidate| candidate.lane).collect(), held_back)
    }

    #[test]
    fn lanes_are_visited_by_priority_then_in_rotation() {
        let mut index = LaneIndex::default();
        index.insert(1, 7, lane(Priority::Normal, "a"), 1, Some(10));
        index.insert(2, 7, lane(Priority::Normal, "b"), 1, Some(20));
        index.insert(3, 7, lane(Priority::High, "a"), 1, Some(30));
        index.insert(4, 7, lane(Priority::High, "b"), 1, Some(99));
        let order = |index: &LaneIndex| due(index, &[], &Allowance::default()).0;
        assert_eq!(order(&index), [3, 1, 2]);
        index.visited(1);
        assert_eq!(order(&index), [3, 2, 1]);
        assert_eq!(index.next_due(&[7], &[], &Allowance::default(), 50), Some(10));
    }

    #[test]
    fn avoided_dependencies_are_not_visited() {
        let mut index = LaneIndex::default();
        index.insert(1, 7, lane(Priority::Normal, "a"), 1, Some(10));
        let avoid = [Name::new("dep").unwrap()];
        let open = Allowance::default();
        assert_eq!(due(&index, &avoid, &open), (vec![], BTreeSet::new()));
        assert_eq!(index.next_due(&[7], &avoid, &open, 50), None);
        assert_eq!(index.next_due(&[8], &[], &open, 50), None);
    }

    #[test]
    fn what_is_held_back_is_noted_and_comes_by_no_due_time() {
        let mut index = LaneIndex::default();
        let dependency = Name::new("dep").unwrap();
        let scope = Scope::Dependency(dependency.clone());
        let shut = Allowance::new(&[Restriction { scope, any: Some(0), retries: None }]);
        index.insert(1, 7, lane(Priority::Normal, "a"), 1, Some(60));
        assert_eq!(due(&index, &[], &shut), (vec![], BTreeSet::new()), "nothing is due");
        assert_eq!(index.next_due(&[7], &[], &shut, 50), Some(60), "then somebody has to notice");
        index.insert(2, 7, lane(Priority::Normal, "b"), 1, Some(50));
        assert_eq!(due(&index, &[], &shut), (vec![], BTreeSet::from([0])));
        assert_eq!(index.next_due(&[7], &[], &shut, 60), None);
        assert_eq!(due(&index, &[dependency], &shut).1, BTreeSet::new(), "it is avoided anyhow");
    }

    #[test]
    fn a_lane_without_rows_is_forgotten() {
        let mut index = LaneIndex::default();
        index.insert(1, 7, lane(Priority::Normal, "a"), 2, Some(10));
        assert!(!index.count(1, -1));
        assert!(index.count(1, -1));
        index.remove(1);
        assert_eq!(index.find(&lane(Priority::Normal, "a")), None);
        assert_eq!(index.next_due(&[7], &[], &Allowance::default(), 50), None);
    }
}
