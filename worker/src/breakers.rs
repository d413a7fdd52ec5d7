//! The breakers of one agent: its own, and one for each dependency that it calls. Pure: no time, no randomness, no I/O.
//!
//! A call needs leave from both. Its outcome goes to both: the agent's breaker says "this agent can do nothing right"
//! (a broken key, a full disk), a dependency's says "not through this upstream", and its lanes are then avoided.

use std::collections::{BTreeMap, HashMap, VecDeque};

use redrive_shared::breaker::{
    Breaker, BreakerConfig, BreakerConfigError, BreakerSnapshot, BreakerState, Outcome, Permit, Transition,
};
use redrive_shared::failure::FailureClass;
use redrive_shared::id::Name;
use redrive_shared::limits::{BREAKER_COMMANDS_MAX, CLAIM_AVOID_MAX, HEARTBEAT_BREAKERS_MAX};
use redrive_shared::wire::{BreakerAction, BreakerCommand, OWN_BREAKER, WorkerLost};

/// Most dependencies with a breaker of their own. Beyond it the one that was used longest ago makes room if it is
/// closed; else the agent's breaker alone guards the newcomer.
const DEPENDENCIES_MAX: usize = 256;

/// Losses that are counted at once, whatever a coordinator says: more than any breaker needs to open.
const LOST_COUNT_MAX: u32 = 100;

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
    /// The highest number of a loss that was counted.
    lost: i64,
    window_ms: u64,
    /// The last command that was carried out on each breaker, by key; the latest last. As many as can stand for an agent.
    obeyed: VecDeque<(String, i64)>,
}

impl BreakerSet {
    pub(crate) fn new(config: BreakerConfig) -> Result<Self, BreakerConfigError> {
        let window_ms = config.window_ms;
        let fresh = Breaker::new(config)?;
        Ok(Self {
            agent: fresh.clone(),
            fresh,
            dependencies: HashMap::new(),
            unheard: Vec::new(),
            lost: i64::MIN,
            window_ms,
            obeyed: VecDeque::new(),
        })
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

    /// Whether the leave still stands: no breaker has opened since. A probe's own leave does unless a person has isolated it.
    pub(crate) fn still_admits(&self, ticket: &Ticket) -> bool {
        let stands = |breaker: &Breaker, permit: Permit| {
            breaker.is_closed() || permit.is_probe() && !breaker.is_isolated()
        };
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
            self.unheard.push((OWN_BREAKER.to_owned(), transition));
        }
        if let Some((name, permit)) = ticket.dependency
            && let Some(entry) = self.dependencies.get_mut(&name)
            && let Some(transition) = entry.breaker.report(permit, outcome, now_ms, &mut jitter)
        {
            self.unheard.push((name.to_string(), transition));
        }
        self.unheard.len() > before
    }

    /// Carries out what a person wants, once: a command that was carried out is passed over. Returns whether it was now.
    pub(crate) fn obey(&mut self, command: &BreakerCommand, now_ms: i64) -> bool {
        let key = &command.breaker;
        if self.obeyed.iter().any(|done| *done == (key.clone(), command.number)) {
            return false;
        }
        let breaker = if key == OWN_BREAKER {
            Some(&mut self.agent)
        } else {
            let Ok(name) = Name::new(key.clone()) else { return false };
            match command.action {
                BreakerAction::Isolate => match self.entry(&name, now_ms) {
                    Some(entry) => Some(&mut entry.breaker),
                    // Every breaker that there is place for is open: the command stands, and is tried again.
                    None => return false,
                },
                // One that is not there is as new, and closed.
                BreakerAction::Close | BreakerAction::Reset => {
                    self.dependencies.get_mut(&name).map(|entry| &mut entry.breaker)
                }
            }
        };
        let transition = breaker.and_then(|breaker| match command.action {
            BreakerAction::Isolate => breaker.isolate(now_ms),
            BreakerAction::Close => breaker.close(now_ms),
            BreakerAction::Reset => breaker.reset(now_ms),
        });
        self.unheard.extend(transition.map(|transition| (key.clone(), transition)));
        self.obeyed.retain(|(other, _)| other != key);
        self.obeyed.push_back((key.clone(), command.number));
        if self.obeyed.len() > BREAKER_COMMANDS_MAX {
            self.obeyed.pop_front();
        }
        true
    }

    /// Counts what other runs of the agent took with them when they vanished, each once. A breaker that is not closed decides
    /// by its own probes. Returns whether one opened.
    pub(crate) fn count_lost(
        &mut self,
        lost: &[WorkerLost],
        now_ms: i64,
        mut jitter: impl FnMut() -> f64,
    ) -> bool {
        let before = self.unheard.len();
        let heard = self.lost;
        for one in lost.iter().filter(|one| one.number > heard) {
            self.lost = self.lost.max(one.number);
            if one.age_ms >= self.window_ms {
                continue;
            }
            for _ in 0..one.count.min(LOST_COUNT_MAX) {
                let key = &one.breaker;
                let breaker = if key == OWN_BREAKER {
                    Some(&mut self.agent)
                } else {
                    let name = Name::new(key.clone()).ok();
                    name.and_then(|name| self.entry(&name, now_ms)).map(|entry| &mut entry.breaker)
                };
                let Some(breaker) = breaker.filter(|breaker| breaker.is_closed()) else { break };
                let Ok(permit) = breaker.acquire(now_ms) else { break };
                let outcome = Outcome::Failure { class: FailureClass::WorkerLost, duration_ms: 0 };
                if let Some(transition) = breaker.report(permit, outcome, now_ms, &mut jitter) {
                    self.unheard.push((key.clone(), transition));
                }
            }
        }
        self.unheard.len() > before
    }

    /// Every change of state that nobody has heard of, with the breaker's key.
    pub(crate) fn take_transitions(&mut self, now_ms: i64) -> Vec<(String, Transition)> {
        let mut heard = std::mem::take(&mut self.unheard);
        while let Some(transition) = self.agent.poll(now_ms) {
            heard.push((OWN_BREAKER.to_owned(), transition));
        }
        for (name, entry) in self.dependencies.iter_mut().filter(|(_, entry)| !entry.breaker.is_closed()) {
            while let Some(transition) = entry.breaker.poll(now_ms) {
                heard.push((name.to_string(), transition));
            }
        }
        heard
    }

    /// How they are, for a heartbeat: the agent's, those that a person has commanded, then those that are not closed, as many
    /// as a heartbeat may carry.
    pub(crate) fn snapshots(&mut self, now_ms: i64) -> BTreeMap<String, BreakerSnapshot> {
        let mut commanded = BTreeMap::new();
        for (key, number) in &self.obeyed {
            let known = self.dependencies.get_mut(key.as_str()).map(|entry| entry.breaker.snapshot(now_ms));
            let known = if key == OWN_BREAKER { Some(self.agent.snapshot(now_ms)) } else { known };
            let snapshot = known.unwrap_or_else(|| self.fresh.clone().snapshot(now_ms));
            commanded.insert(key.clone(), BreakerSnapshot { command: Some(*number), ..snapshot });
        }
        let places = HEARTBEAT_BREAKERS_MAX - 1 - commanded.len();
        let mut dependencies: Vec<_> = self.dependencies.iter_mut().collect();
        dependencies.sort_by_key(|(_, entry)| (entry.breaker.is_closed(), -entry.used_at_ms));
        let agent = (OWN_BREAKER.to_owned(), self.agent.snapshot(now_ms));
        let others = dependencies.into_iter().filter(|(name, _)| !commanded.contains_key(name.as_str()));
        let others =
            others.take(places).map(|(name, entry)| (name.to_string(), entry.breaker.snapshot(now_ms)));
        let all: Vec<_> = std::iter::once(agent).chain(others).collect();
        all.into_iter().chain(commanded).collect()
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

    fn command(number: i64, breaker: &str, action: BreakerAction) -> BreakerCommand {
        BreakerCommand { number, breaker: breaker.to_owned(), action, reason: None, given_at_ms: 0 }
    }

    #[test]
    fn a_command_is_carried_out_once_and_reported() {
        let mut set = set();
        let isolate = command(7, "*", BreakerAction::Isolate);
        let leave = set.admit(None, 0).unwrap();
        assert!(set.obey(&isolate, 0));
        assert_eq!(set.room(0), Room::Shut { until_ms: None });
        assert!(set.admit(None, 0).is_none() && !set.still_admits(&leave));
        assert_eq!(set.snapshots(0)["*"].command, Some(7));
        assert!(set.obey(&command(8, "*", BreakerAction::Close), 10));
        assert!(!set.obey(&command(8, "*", BreakerAction::Close), 20), "the reply came twice");
        assert_eq!(set.room(20), Room::Free);
        let heard: Vec<_> = set.take_transitions(20).into_iter().map(|(key, t)| (key, t.to)).collect();
        let own = OWN_BREAKER.to_owned();
        assert_eq!(heard, [(own.clone(), BreakerState::Isolated), (own, BreakerState::Closed)]);
    }

    #[test]
    fn a_dependency_is_isolated_before_it_was_ever_called_and_even_its_probe_does_not_begin() {
        let mut set = set();
        let bad = name("bad");
        assert!(set.obey(&command(1, "bad", BreakerAction::Isolate), 0));
        assert_eq!(set.avoid(0), (vec![bad.clone()], None));
        assert!(set.admit(Some(&bad), 0).is_none() && set.admit(None, 0).is_some());
        assert!(set.obey(&command(2, "bad", BreakerAction::Reset), 0));
        for _ in 0..6 {
            run(&mut set, Some(&bad), FAILED, 0);
        }
        // The agent's own has seen the same six.
        assert!(set.obey(&command(3, "*", BreakerAction::Reset), 0));
        let probe = set.admit(Some(&bad), 1_000).unwrap();
        assert!(set.still_admits(&probe));
        assert!(set.obey(&command(4, "bad", BreakerAction::Isolate), 1_000));
        assert!(!set.still_admits(&probe));
        set.report(probe, DONE, 1_001, || 0.0);
        assert_eq!(set.avoid(1_001).0, [bad], "what comes back from before changes nothing");
    }

    #[test]
    fn what_was_commanded_is_reported_even_of_breakers_that_are_not_there_and_among_many() {
        let mut set = set();
        assert!(set.obey(&command(1, "never/called", BreakerAction::Close), 0));
        for n in 0..200 {
            run(&mut set, Some(&name(&format!("d{n}"))), DONE, n);
        }
        for n in 0..2 * BREAKER_COMMANDS_MAX as i64 {
            assert!(set.obey(&command(n + 2, &format!("d{n}"), BreakerAction::Reset), 300));
        }
        let snapshots = set.snapshots(300);
        assert_eq!(snapshots.len(), HEARTBEAT_BREAKERS_MAX);
        let reported = snapshots.values().filter(|breaker| breaker.command.is_some()).count();
        assert_eq!(reported, BREAKER_COMMANDS_MAX, "as many as can stand");
        assert_eq!(snapshots["d63"].command, Some(65));
        assert!(set.obey(&command(99, "never/called", BreakerAction::Close), 300));
        let close = set.snapshots(300)["never/called"];
        assert_eq!((close.command, close.state), (Some(99), BreakerState::Closed));
    }

    fn lost(number: i64, breaker: &str, count: u32, age_ms: u64) -> WorkerLost {
        WorkerLost { number, breaker: breaker.to_owned(), count, age_ms }
    }

    #[test]
    fn what_vanished_runs_lost_counts_once_and_two_of_them_open_the_breaker() {
        let mut set = set();
        let first = [lost(1, "*", 3, 2_000), lost(2, "llm", 3, 2_000)];
        assert!(!set.count_lost(&first, 0, || 0.0), "one alone opens nothing");
        assert!(!set.count_lost(&first, 0, || 0.0) && set.room(0) == Room::Free, "it was counted");
        let second = [first[0].clone(), first[1].clone(), lost(3, "*", 3, 0)];
        assert!(set.count_lost(&second, 0, || 0.0));
        assert!(matches!(set.room(0), Room::Shut { until_ms: Some(1_000) }));
        assert_eq!(set.avoid(0).0, [], "the dependency has seen three");
        assert!(set.count_lost(&[lost(4, "llm", 3, 0)], 0, || 0.0));
        assert_eq!(set.avoid(0).0, [name("llm")]);
        let heard: Vec<_> = set.take_transitions(0).into_iter().map(|(key, t)| (key, t.to)).collect();
        assert_eq!(heard, [("*".to_owned(), BreakerState::Open), ("llm".to_owned(), BreakerState::Open)]);
        assert!(!set.count_lost(&[lost(5, "*", 100, 0)], 1_000, || 0.0), "its probe decides");
        assert_eq!(set.room(1_000), Room::Probe);
    }

    #[test]
    fn what_was_lost_before_the_window_or_is_outnumbered_by_what_works_opens_nothing() {
        let mut set = set();
        assert!(!set.count_lost(&[lost(1, "*", 100, 60_000)], 0, || 0.0));
        for _ in 0..20 {
            run(&mut set, None, DONE, 0);
        }
        assert!(!set.count_lost(&[lost(2, "*", 3, 0), lost(3, "*", 3, 0)], 0, || 0.0));
        assert_eq!(set.room(0), Room::Free, "a fleet that works goes on when two of it vanish");
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
        assert!(snapshots.contains_key(OWN_BREAKER) && snapshots.contains_key("bad"));
    }
}
