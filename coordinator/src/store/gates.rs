//! Gates, as the store sees them: versioned values that it does not understand, and restrictions that a claim obeys.
//!
//! What a gate means is decided outside. Here it is a [`GateCell`], changed by compare and swap; and what gates let through
//! is handed to a claim as [`Restriction`]s.

use std::collections::{BTreeSet, HashMap};

use redrive_shared::id::Name;
use redrive_shared::task::{Lane, Lease};

/// A gate as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateCell {
    /// The dependency that it is before.
    pub dependency: Name,
    /// Rises with every change, and is never that of another: not of a gate that was forgotten, and not after a failover
    /// or a restore that took it back.
    pub version: i64,
    /// Its contents, opaque here: at most [`GATE_MAX_BYTES`](redrive_shared::limits::GATE_MAX_BYTES).
    pub value: String,
}

/// All gates as of one change, at most [`GATES_MAX`](redrive_shared::limits::GATES_MAX), in no order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gates {
    /// The last change of any of them; as little as a version does it come twice. 0: there never was one.
    pub change: i64,
    /// The gates.
    pub cells: Vec<GateCell>,
}

/// A change of one gate, if it still is what the change was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateSwap {
    /// Which gate.
    pub dependency: Name,
    /// The version that it was made from; 0: there was none.
    pub seen: i64,
    /// Its contents from now on; none: it is forgotten.
    pub value: Option<String>,
    /// Whether other coordinators should hear of it at once: [`Hint::Gates`](super::Hint::Gates).
    pub tell: bool,
}

/// What became of a change of a gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GateSwapped {
    /// It is done, and this is its version; 0: it is forgotten.
    Now(i64),
    /// Somebody else was faster: this is what is there. Nothing has changed.
    Changed(Option<GateCell>),
    /// Its contents are too large, or there are as many gates as may be. Nothing has changed.
    NoRoom,
}

/// How much of a dependency's tasks may be leased, by all claims of one call together. What a repeated request is given
/// again does not count; nor does what was leased in a part of the store whose answer was lost: nobody knows of those leases,
/// and they end unstarted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restriction {
    /// Which dependency. One that is named twice has the lower bound of each kind.
    pub dependency: Name,
    /// Most tasks of any kind; none: no bound. With 0 its lanes are not visited.
    pub any: Option<u32>,
    /// Most of those that were tried before; none: no bound of their own. With 0 their lanes are not visited.
    pub retries: Option<u32>,
}

/// What restrictions still let through, while a call is answered.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    left: Vec<Restriction>,
    /// Their places.
    places: HashMap<Name, usize>,
}

impl Allowance {
    pub fn new(gates: &[Restriction]) -> Self {
        let mut allowance = Self::default();
        for gate in gates {
            match allowance.places.get(&gate.dependency) {
                Some(place) => {
                    let known = &mut allowance.left[*place];
                    known.any = lower(known.any, gate.any);
                    known.retries = lower(known.retries, gate.retries);
                }
                None => {
                    allowance.places.insert(gate.dependency.clone(), allowance.left.len());
                    allowance.left.push(gate.clone());
                }
            }
        }
        allowance
    }

    /// What is left, in order.
    pub fn left(&self) -> &[Restriction] {
        &self.left
    }

    /// Whether any of them lets a number through that has to be counted: more than nothing, and not everything.
    pub fn is_counted(&self) -> bool {
        let bounded = |most: Option<u32>| most.is_some_and(|most| most > 0);
        self.left.iter().any(|gate| gate.any != Some(0) && (bounded(gate.any) || bounded(gate.retries)))
    }

    /// Most tasks of a lane that may be leased now.
    pub fn most(&self, lane: &Lane) -> usize {
        let most = self.place(lane).and_then(|place| {
            let gate = &self.left[place];
            lower(gate.any, gate.retries.filter(|_| lane.retry))
        });
        most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX))
    }

    /// The place of the restriction that lets nothing of a lane through.
    pub fn held_back(&self, lane: &Lane) -> Option<usize> {
        self.place(lane).filter(|_| self.most(lane) == 0)
    }

    /// These were leased.
    pub fn count(&mut self, leases: &[Lease]) {
        for lease in leases {
            let Some(place) = lease.dependency.as_ref().and_then(|name| self.places.get(name)) else {
                continue;
            };
            let gate = &mut self.left[*place];
            gate.any = gate.any.map(|left| left.saturating_sub(1));
            if lease.ledger.was_tried() {
                gate.retries = gate.retries.map(|left| left.saturating_sub(1));
            }
        }
    }

    /// The dependencies of restrictions at these places.
    pub fn dependencies(&self, places: &BTreeSet<usize>) -> Vec<Name> {
        let gates = places.iter().filter_map(|place| self.left.get(*place));
        gates.map(|gate| gate.dependency.clone()).collect()
    }

    fn place(&self, lane: &Lane) -> Option<usize> {
        self.places.get(lane.dependency.as_ref()?).copied()
    }
}

/// The lower of two bounds.
fn lower(one: Option<u32>, other: Option<u32>) -> Option<u32> {
    [one, other].into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use redrive_shared::task::Priority;

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn lane(dependency: Option<&str>, retry: bool) -> Lane {
        let dependency = dependency.map(name);
        Lane { queue: name("q"), priority: Priority::Normal, dependency, group: None, retry }
    }

    fn gate(dependency: &str, any: Option<u32>, retries: Option<u32>) -> Restriction {
        Restriction { dependency: name(dependency), any, retries }
    }

    #[test]
    fn a_lane_may_give_what_the_bounds_of_its_kind_leave() {
        let allowance = Allowance::new(&[gate("d", Some(5), Some(2)), gate("e", None, Some(0))]);
        let most = |dependency, retry| allowance.most(&lane(dependency, retry));
        assert_eq!((most(Some("d"), false), most(Some("d"), true)), (5, 2));
        assert_eq!((most(Some("e"), false), most(Some("e"), true)), (usize::MAX, 0));
        assert_eq!((most(Some("f"), true), most(None, false)), (usize::MAX, usize::MAX));
        assert_eq!(allowance.held_back(&lane(Some("e"), true)), Some(1));
        assert_eq!(allowance.held_back(&lane(Some("e"), false)), None);
        assert_eq!(allowance.dependencies(&BTreeSet::from([1, 0])), [name("d"), name("e")]);
    }

    #[test]
    fn only_what_lets_some_through_has_to_be_counted() {
        let counted = |gates: &[Restriction]| Allowance::new(gates).is_counted();
        assert!(!counted(&[]));
        assert!(!counted(&[gate("d", Some(0), Some(3)), gate("e", None, Some(0)), gate("f", None, None)]));
        assert!(counted(&[gate("d", Some(1), None)]));
        assert!(counted(&[gate("d", None, Some(1))]));
    }

    #[test]
    fn of_a_dependency_that_is_named_twice_the_lower_bounds_hold() {
        let allowance = Allowance::new(&[gate("d", Some(5), None), gate("d", Some(7), Some(1))]);
        assert_eq!(allowance.left(), [gate("d", Some(5), Some(1))]);
    }
}
