//! The breakers of one agent: its own, and one for each dependency that it calls. Pure: no time, no randomness, no I/O.
//!
//! A call needs leave from both. Its outcome goes to both: the agent's breaker says "this agent can do nothing right"
//! (a broken key, a full disk), a dependency's says "not through this upstream", and its lanes are then avoided.

use std::collections::{BTreeMap, HashMap};

use redrive_shared::breaker::{
    Breaker, BreakerConfig, BreakerConfigError, BreakerSnapshot, BreakerState, Outcome, Permit, Transition,
};
use redrive_shared::id::Name;
use redrive_shared::limits::{CLAIM_AVOID_MAX, HEARTBEAT_BREAKERS_MAX};

/// The key of the agent's own breaker, in heartbeats and as a label. No dependency can have it: `*` is not in a name.
pub(crate) const AGENT_KEY: &str = "*";
/// Most dependencies with a breaker of their own. Beyond it the one that was used longest ago makes room if it is
/// closed; else the agent's breaker alone guards the newcomer.
const DEPENDENCIES_MAX: usize = 256;

/// How much may be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// The agent's breaker is closed: as much as there are slots.
    Free,
    /// Half-open: one task, as the probe.
    Probe,
    /// Open, or its probe is in flight: nothing until then (ms). Without a time, until something else changes.
    Shut { until_ms: Option<i64> },
}

/// Leave to run one task. Give it back with [`BreakerSet::report`], exactly once.
#[derive(Debug)]
pub(crate) struct Ticket {
    agent: Permit,
    dependency: Option<(Name, Permit)>,
}

#[derive(Debug)]
struct Entry {
    breaker: Breaker,
    used_at_ms: i64,
}

#[derive(Debug)]
pub(crate) struct BreakerSet {
    fresh: Breaker,
    agent: Breaker,
    dependencies: HashMap<Name, Entry>,
    unheard: Vec<(String, Transition)>,
}

impl BreakerSet {
    pub(crate) fn new(config: BreakerConfig) -> Result<Self, BreakerConfigError> {
        let fresh = Breaker::new(config)?;
        Ok(Self { agent: fresh.clone(), fresh, dependencies: HashMap::new(), unheard: Vec::new() })
    }

    /// How much may be claimed now.
    pub(crate) fn room(&mut self, now_ms: i64) -> Room {
        let next_ms = self.agent.next_change_ms(now_ms);
        match self.agent.state(now_ms) {
            BreakerState::Closed => Room::Free,
            BreakerState::HalfOpen if next_ms.is_none() => Room::Probe,
            BreakerState::HalfOpen | BreakerState::Open | BreakerState::Isolated => {
                Room::Shut { until_ms: next_ms }
            }
        }
    }

    /// The dependencies that a claim must avoid, and until when (ms) that list is right at most.
    pub(crate) fn avoid(&mut self, now_ms: i64) -> (Vec<Name>, Option<i64>) {
        let mut names = Vec::new();
        let mut until_ms: Option<i64> = None;
        for (name, entry) in &mut self.dependencies {
            if entry.breaker.is_closed() {
                continue;
            }
            let change_ms = entry.breaker.next_change_ms(now_ms);
            // Half-open without a probe in flight waits for one: it is not avoided.
            let wants_probe = entry.breaker.state(now_ms) == BreakerState::HalfOpen && change_ms.is_none();
            if !wants_probe && names.len() < CLAIM_AVOID_MAX {
                names.push(name.clone());
                until_ms = [until_ms, change_ms].into_iter().flatten().min();
            }
        }
        names.sort_unstable();
        (names, until_ms)
    }

    /// Asks to run one task. `None`: hand it back.
    pub(crate) fn admit(&mut self, dependency: Option<&Name>, now_ms: i64) -> Option<Ticket> {
        let agent = self.agent.acquire(now_ms).ok()?;
        let Some(entry) = dependency.and_then(|name| self.entry(name, now_ms)) else {
            return Some(Ticket { agent, dependency: None });
        };
        match entry.breaker.acquire(now_ms) {
            Ok(permit) => Some(Ticket { agent, dependency: dependency.map(|name| (name.clone(), permit)) }),
            Err(_) => {
                self.agent.report(agent, Outcome::Ignored, now_ms, || 0.0);
                None
            }
        }
    }

    /// Whether the leave still stands: no breaker has opened since. A probe's own leave always does.
    pub(crate) fn still_admits(&self, ticket: &Ticket) -> bool {
        let stands = |breaker: &Breaker, permit: Permit| permit.is_probe() || breaker.is_closed();
        stands(&self.agent, ticket.agent)
            && ticket.dependency.as_ref().is_none_or(|(name, permit)| {
                self.dependencies.get(name).is_none_or(|entry| stands(&entry.breaker, *permit))
            })
    }

    /// Says how the task ended. `jitter` draws from U[0, 1). Returns whether a breaker changed its state.
    pub(crate) fn report(
        &mut self,
        ticket: Ticket,
        outcome: Outcome,
        now_ms: i64,
        mut jitter: impl FnMut() -> f64,
    ) -> bool {
        let before = self.unheard.len();
        if let Some(transition) = self.agent.report(ticket.agent, outcome, now_ms, &mut jitter) {
            self.unheard.push((AGENT_KEY.to_owned(), transition));
        }
        if let Some((name, permit)) = ticket.dependency
            && let Some(entry) = self.dependencies.get_mut(&name)
            && let Some(transition) = entry.breaker.report(permit, outcome, now_ms, &mut jitter)
        {
            self.unheard.push((name.to_string(), transition));
        }
        self.unheard.len() > before
    }

    /// Every change of state that nobody has heard of, with the breaker's key.
    pub(crate) fn take_transitions(&mut self, now_ms: i64) -> Vec<(String, Transition)> {
        let mut heard = std::mem::take(&mut self.unheard);
        while let Some(transition) = self.agent.poll(now_ms) {
            heard.push((AGENT_KEY.to_owned(), transition));
        }
        for (name, entry) in self.dependencies.iter_mut().filter(|(_, entry)| !entry.breaker.is_closed()) {
            while let Some(transition) = entry.breaker.poll(now_ms) {
                heard.push((name.to_string(), transition));
            }
        }
        heard
    }

    /// How they are, for a heartbeat: the agent's, then those that are not closed, as many as a heartbeat may carry.
    pub(crate) fn snapshots(&mut self, now_ms: i64) -> BTreeMap<String, BreakerSnapshot> {
        let mut dependencies: Vec<_> = self.dependencies.iter_mut().collect();
        dependencies.sort_by_key(|(_, entry)| (entry.breaker.is_closed(), -entry.used_at_ms));
        let agent = (AGENT_KEY.to_owned(), self.agent.snapshot(now_ms));
        let others = dependencies.into_iter().take(HEARTBEAT_BREAKERS_MAX - 1);
        let others = others.map(|(name, entry)| (name.to_string(), entry.breaker.snapshot(now_ms)));
        std::iter::once(agent).chain(others).collect()
    }

    fn entry(&mut self, name: &Name, now_ms: i64) -> Option<&mut Entry> {
        if !self.dependencies.contains_key(name) {
            if self.dependencies.len() >= DEPENDENCIES_MAX {
                self.make_room()?;
            }
            let entry = Entry { breaker: self.fresh.clone(), used_at_ms: now_ms };
            self.dependencies.insert(name.clone(), entry);
        }
        let entry = self.dependencies.get_mut(name)?;
        entry.used_at_ms = now_ms;
        Some(entry)
    }

    fn make_room(&mut self) -> Option<()> {
        let closed = self.dependencies.iter().filter(|(_, entry)| entry.breaker.is_closed());
        let oldest = closed.min_by_key(|(_, entry)| entry.used_at_ms).map(|(name, _)| name.clone())?;
        self.dependencies.remove(&oldest).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use redrive_shared::failure::FailureClass;

    use super::*;

    const FAILED: Outcome = Outcome::Failure { class: FailureClass::ServerError, duration_ms: 10 };
    const DONE: Outcome = Outcome::Success { duration_ms: 10 };

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn set() -> BreakerSet {
        let config = BreakerConfig { open_ms: 1_000, open_jitter: 0.0, ..BreakerConfig::default() };
        BreakerSet::new(config).unwrap()
    }

    fn run(set: &mut BreakerSet, dependency: Option<&Name>, outcome: Outcome, now_ms: i64) {
        let ticket = set.admit(dependency, now_ms).expect("admitted");
        set.report(ticket, outcome, now_ms, || 0.0);
    }

    #[test]
    fn an_agent_that_fails_claims_nothing_then_one_probe_then_everything() {
        let mut set = set();
        for _ in 0..6 {
            run(&mut set, None, FAILED, 0);
        }
        assert_eq!(set.room(0), Room::Shut { until_ms: Some(1_000) });
        assert!(set.admit(None, 0).is_none());
        assert_eq!(set.room(1_000), Room::Probe);
        let probe = set.admit(None, 1_000).unwrap();
        assert!(set.still_admits(&probe));
        assert!(matches!(set.room(1_000), Room::Shut { until_ms: Some(_) }));
        assert!(set.report(probe, DONE, 1_000, || 0.0));
        assert_eq!(set.room(1_000), Room::Free);
        let heard: Vec<_> = set.take_transitions(1_000).into_iter().map(|(_, t)| t.to).collect();
        assert_eq!(heard.len(), 3, "{heard:?}");
    }

    #[test]
    fn a_failing_dependency_is_avoided_while_the_agent_goes_on_with_others() {
        let mut set = set();
        let (bad, good) = (name("openai/a/gpt"), name("tool/pdf"));
        for _ in 0..20 {
            run(&mut set, Some(&good), DONE, 0);
        }
        for _ in 0..6 {
            run(&mut set, Some(&bad), FAILED, 0);
        }
        assert_eq!(set.room(0), Room::Free);
        assert_eq!(set.avoid(0), (vec![bad.clone()], Some(1_000)));
        assert!(set.admit(Some(&bad), 0).is_none());
        assert!(set.admit(Some(&good), 0).is_some());
        assert_eq!(set.avoid(1_000), (vec![], None), "half-open: it wants a probe");
        let _probe = set.admit(Some(&bad), 1_000).unwrap();
        assert_eq!(set.avoid(1_000).0, [bad], "its probe is in flight");
    }

    #[test]
    fn leave_given_before_a_breaker_opened_stands_no_more() {
        let mut set = set();
        let early = set.admit(None, 0).unwrap();
        assert!(set.still_admits(&early));
        for _ in 0..6 {
            run(&mut set, None, FAILED, 0);
        }
        assert!(!set.still_admits(&early));
    }

    #[test]
    fn the_map_is_bounded_and_open_breakers_stay() {
        let mut set = set();
        let bad = name("bad");
        for _ in 0..20 {
            run(&mut set, None, DONE, 0);
        }
        for _ in 0..6 {
            run(&mut set, Some(&bad), FAILED, 0);
        }
        for n in 0..2_000 {
            run(&mut set, Some(&name(&format!("d{n}"))), DONE, n);
        }
        assert_eq!(set.dependencies.len(), DEPENDENCIES_MAX);
        assert!(set.dependencies.contains_key(&bad));
        let snapshots = set.snapshots(2_000);
        assert_eq!(snapshots.len(), HEARTBEAT_BREAKERS_MAX);
        assert!(snapshots.contains_key(AGENT_KEY) && snapshots.contains_key("bad"));
    }
}
