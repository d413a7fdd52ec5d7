//! Gates, as the store sees them: versioned values that it does not understand, and restrictions that a claim obeys.
//!
//! What a gate means is decided outside. Here it is a [`GateCell`], changed by compare and swap; and what gates let through
//! is handed to a claim as [`Restriction`]s.

use std::collections::{BTreeSet, HashMap};

use redrive_shared::gate::Scope;
use redrive_shared::id::Name;
use redrive_shared::task::{Lane, Lease};

/// A gate as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateCell {
    /// What it is before.
    pub scope: Scope,
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
    pub scope: Scope,
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

/// How much of a scope's tasks may be leased, by all claims of one call together. Of a task in several scopes each must let it
/// through, and each is charged. What a repeated request is given
/// again does not count; nor does what was leased in a part of the store whose answer was lost: nobody knows of those leases,
/// and they end unstarted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restriction {
    /// Of what. One that is named twice has the lower bound of each kind.
    pub scope: Scope,
    /// Most tasks of any kind; none: no bound. With 0 its lanes are not visited.
    pub any: Option<u32>,
    /// Most of those that were tried before; none: no bound of their own. With 0 their lanes are not visited. For
    /// dependencies alone: elsewhere they wait in no lanes of their own.
    pub retries: Option<u32>,
}

/// What restrictions still let through, while a call is answered.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    left: Vec<Restriction>,
    /// Their places.
    dependencies: HashMap<Name, usize>,
    queues: HashMap<Name, usize>,
    /// By queue.
    groups: HashMap<Name, HashMap<Name, usize>>,
}

impl Allowance {
    pub fn new(gates: &[Restriction]) -> Self {
        let mut allowance = Self::default();
        for gate in gates {
            let next = allowance.left.len();
            let place = *match gate.scope.clone() {
                Scope::Dependency(dependency) => allowance.dependencies.entry(dependency),
                Scope::Queue(queue) => allowance.queues.entry(queue),
                Scope::Group { queue, group } => allowance.groups.entry(queue).or_default().entry(group),
            }
            .or_insert(next);
            match allowance.left.get_mut(place) {
                Some(known) => {
                    known.any = lower(known.any, gate.any);
                    known.retries = lower(known.retries, gate.retries);
                }
                None => allowance.left.push(gate.clone()),
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
        let most = self.of_lane(lane).filter_map(|(_, most)| most).min();
        most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX))
    }

    /// The place of the first restriction that lets nothing of a lane through: on its queue, on its group, on its dependency.
    /// The others matter when that one lets it through; until then nobody is to ask them for anything.
    pub fn held_back(&self, lane: &Lane) -> Option<usize> {
        self.of_lane(lane).find(|(_, most)| *most == Some(0)).map(|(place, _)| place)
    }

    /// The place of a restriction that lets nothing of a queue through, whatever the lane.
    pub fn held_back_queue(&self, queue: &Name) -> Option<usize> {
        self.queues.get(queue).copied().filter(|place| self.left[*place].any == Some(0))
    }

    /// These were leased.
    pub fn count(&mut self, leases: &[Lease]) {
        if self.left.is_empty() {
            return;
        }
        for lease in leases {
            for place in self.places(&lease.queue, lease.dependency.as_ref(), lease.group.as_ref()) {
                let Some(gate) = place.and_then(|place| self.left.get_mut(place)) else { continue };
                gate.any = gate.any.map(|left| left.saturating_sub(1));
                if lease.ledger.was_tried() {
                    gate.retries = gate.retries.map(|left| left.saturating_sub(1));
                }
            }
        }
    }

    /// What the restrictions at these places are of.
    pub fn scopes(&self, places: &BTreeSet<usize>) -> Vec<Scope> {
        let gates = places.iter().filter_map(|place| self.left.get(*place));
        gates.map(|gate| gate.scope.clone()).collect()
    }

    /// The places of the restrictions on a lane, in the order in which they are told, and how much of it each lets through.
    fn of_lane(&self, lane: &Lane) -> impl Iterator<Item = (usize, Option<u32>)> {
        let places = self.places(&lane.queue, lane.dependency.as_ref(), lane.group.as_ref());
        let retry = lane.retry;
        places.into_iter().flatten().filter_map(move |place| {
            let gate = self.left.get(place)?;
            Some((place, lower(gate.any, gate.retries.filter(|_| retry))))
        })
    }

    fn places(&self, queue: &Name, dependency: Option<&Name>, group: Option<&Name>) -> [Option<usize>; 3] {
        let of_group = || self.groups.get(queue)?.get(group?);
        [self.queues.get(queue), of_group(), dependency.and_then(|name| self.dependencies.get(name))]
            .map(Option::<&usize>::copied)
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
        Restriction { scope: Scope::Dependency(name(dependency)), any, retries }
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
        let scopes = ["d", "e"].map(|dependency| Scope::Dependency(name(dependency)));
        assert_eq!(allowance.scopes(&BTreeSet::from([1, 0])), scopes);
    }

    #[test]
    fn of_a_lane_in_several_scopes_the_lowest_bound_holds_and_the_first_shut_one_is_told() {
        let of_queue = |any| Restriction { scope: Scope::Queue(name("q")), any: Some(any), retries: None };
        let of_group = |queue: &str, any| {
            let scope = Scope::Group { queue: name(queue), group: name("g") };
            Restriction { scope, any: Some(any), retries: None }
        };
        let grouped = |dependency| Lane { group: Some(name("g")), ..lane(dependency, false) };
        let allowance =
            Allowance::new(&[gate("d", Some(7), None), of_queue(5), of_group("q", 3), of_group("p", 1)]);
        assert_eq!((allowance.most(&grouped(Some("d"))), allowance.most(&grouped(None))), (3, 3));
        assert_eq!((allowance.most(&lane(Some("d"), false)), allowance.most(&lane(None, false))), (5, 5));
        let elsewhere = Lane { queue: name("o"), ..grouped(Some("d")) };
        assert_eq!((allowance.most(&elsewhere), allowance.held_back(&elsewhere)), (7, None));
        let allowance = Allowance::new(&[of_group("q", 0), of_queue(5), gate("d", Some(0), None)]);
        let held_back = |lane: &Lane| allowance.held_back(lane);
        assert_eq!((held_back(&grouped(Some("d"))), held_back(&lane(Some("d"), false))), (Some(0), Some(2)));
        assert_eq!((allowance.most(&grouped(Some("d"))), held_back(&lane(None, false))), (0, None));
        assert_eq!(allowance.held_back_queue(&name("q")), None);
        let allowance = Allowance::new(&[of_group("q", 0), of_queue(0)]);
        assert_eq!(
            (allowance.held_back(&grouped(None)), allowance.held_back_queue(&name("q"))),
            (Some(1), Some(1))
        );
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
