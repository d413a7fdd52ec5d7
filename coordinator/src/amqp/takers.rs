//! Who takes what is pushed: the workers that said so in their heartbeats, and how much room that makes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use redrive_shared::breaker::BreakerState;
use redrive_shared::id::Name;
use redrive_shared::wire::{AgentStatus, AgentView, OWN_BREAKER};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::engine::Engine;
use crate::store::Result;

/// For how long what was seen of all workers is believed: pushed queues look once a second each, and share the look.
const BELIEVED: Duration = Duration::from_millis(200);

/// All workers that are pushed to, as they last said.
pub(super) struct Workers {
    engine: Arc<Engine>,
    seen: Mutex<Option<(Instant, Vec<AgentView>)>>,
}

/// Those of one queue, taken together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Takers {
    /// Tasks that they run at once.
    pub capacity: u64,
    /// The queues that they serve, those that others of these queues serve, and so on: what is leased in any of them may take
    /// room of any of them.
    pub queues: BTreeSet<Name>,
    /// Tasks that all who serve these queues run at once.
    pub shared: u64,
    /// Dependencies for which every one with a free slot has an open breaker: nobody would begin.
    pub avoid: Vec<Name>,
}

impl Workers {
    /// As this engine's store knows them.
    pub fn new(engine: Arc<Engine>) -> Self {
        Self { engine, seen: Mutex::default() }
    }

    /// Who takes tasks of a queue.
    pub async fn of(&self, queue: &Name) -> Result<Takers> {
        let mut seen = self.seen.lock().await;
        if let Some((at, agents)) = &*seen
            && at.elapsed() < BELIEVED
        {
            return Ok(Takers::among(agents, queue));
        }
        let (at, agents) = (Instant::now(), self.engine.pushed_agents().await?);
        let takers = Takers::among(&agents, queue);
        *seen = Some((at, agents));
        Ok(takers)
    }
}

impl Takers {
    fn among(agents: &[AgentView], queue: &Name) -> Self {
        let able: Vec<(&AgentView, u64)> = agents
            .iter()
            .map(|agent| (agent, capacity(agent)))
            .filter(|(_, capacity)| *capacity > 0)
            .collect();
        let serves =
            |queues: &BTreeSet<Name>, agent: &AgentView| agent.queues.iter().any(|one| queues.contains(one));
        let mut queues = BTreeSet::from([queue.clone()]);
        let own: Vec<_> = able.iter().filter(|(agent, _)| serves(&queues, agent)).collect();
        loop {
            let known = queues.len();
            for (agent, _) in &able {
                if serves(&queues, agent) {
                    queues.extend(agent.queues.iter().cloned());
                }
            }
            if queues.len() == known {
                break;
            }
        }
        let shared =
            able.iter().filter(|(agent, _)| serves(&queues, agent)).map(|(_, capacity)| capacity).sum();
        let free = own.iter().filter(|(agent, capacity)| u64::from(agent.in_flight) < *capacity);
        let avoid =
            free.map(|(agent, _)| shut(agent).collect::<BTreeSet<_>>()).reduce(|one, other| &one & &other);
        Self {
            capacity: own.iter().map(|(_, capacity)| capacity).sum(),
            queues,
            shared,
            avoid: avoid.into_iter().flatten().filter_map(|name| Name::new(name).ok()).collect(),
        }
    }
}

/// What an agent takes now.
fn capacity(agent: &AgentView) -> u64 {
    if !agent.pushed || agent.status != AgentStatus::Alive {
        return 0;
    }
    match agent.breakers.get(OWN_BREAKER).map(|breaker| breaker.state) {
        Some(BreakerState::Open | BreakerState::Isolated) => 0,
        Some(BreakerState::HalfOpen) => 1,
        Some(BreakerState::Closed) | None => agent.capacity.into(),
    }
}

/// The dependencies that it does not call now.
fn shut(agent: &AgentView) -> impl Iterator<Item = &str> {
    let shut = |state| matches!(state, BreakerState::Open | BreakerState::Isolated);
    let breakers = agent.breakers.iter().filter(move |(_, breaker)| shut(breaker.state));
    breakers.map(|(name, _)| name.as_str()).filter(|name| *name != OWN_BREAKER)
}

#[cfg(test)]
mod tests {
    use redrive_shared::breaker::BreakerSnapshot;

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    /// Capacity, queues, and breakers that are not closed.
    fn agent(capacity: u32, queues: &[&str], breakers: &[(&str, BreakerState)]) -> AgentView {
        let snapshot = |state| BreakerSnapshot {
            state,
            since_ms: None,
            not_closed_since_ms: None,
            trips: 0,
            openings: 0,
            open_until_ms: None,
            failures: 0,
            slow_calls: 0,
            outcomes: 0,
            command: None,
        };
        AgentView {
            agent: name("a"),
            boot_id: name("b"),
            status: AgentStatus::Alive,
            queues: queues.iter().map(|queue| name(queue)).collect(),
            capacity,
            in_flight: 0,
            pushed: true,
            breakers: breakers.iter().map(|(of, state)| ((*of).to_owned(), snapshot(*state))).collect(),
            breaker_commands: Vec::new(),
            seen_at_ms: 0,
        }
    }

    #[test]
    fn only_who_takes_counts() {
        let mut pulls = agent(100, &["q"], &[]);
        pulls.pushed = false;
        let mut gone = agent(100, &["q"], &[]);
        gone.status = AgentStatus::Gone;
        let agents = [
            agent(3, &["q"], &[]),
            agent(100, &["other"], &[]),
            agent(100, &["q"], &[("*", BreakerState::Open)]),
            agent(100, &["q", "third"], &[("*", BreakerState::HalfOpen)]),
            pulls,
            gone,
        ];
        let takers = Takers::among(&agents, &name("q"));
        assert_eq!((takers.capacity, takers.queues), (4, [name("q"), name("third")].into()));
        assert_eq!(takers.shared, 4);
        assert_eq!(Takers::among(&[], &name("q")).capacity, 0);
    }

    #[test]
    fn who_shares_queues_shares_room() {
        let agents =
            [agent(100, &["slow"], &[]), agent(10, &["slow", "fast"], &[]), agent(5, &["other"], &[])];
        let takers = Takers::among(&agents, &name("fast"));
        assert_eq!((takers.capacity, takers.shared), (10, 110));
        assert_eq!(takers.queues, [name("fast"), name("slow")].into());
    }

    #[test]
    fn a_dependency_is_avoided_where_nobody_would_call_it() {
        let (open, isolated) = (BreakerState::Open, BreakerState::Isolated);
        let one = agent(1, &["q"], &[("x", open), ("y", isolated), ("z", BreakerState::HalfOpen)]);
        let other = agent(1, &["q"], &[("y", open)]);
        assert_eq!(Takers::among(std::slice::from_ref(&one), &name("q")).avoid, [name("x"), name("y")]);
        assert_eq!(Takers::among(&[one.clone(), other], &name("q")).avoid, [name("y")]);
        let mut well = agent(1, &["q"], &[]);
        assert!(Takers::among(&[one.clone(), well.clone()], &name("q")).avoid.is_empty());
        // Who is busy would not begin either.
        well.in_flight = 1;
        assert_eq!(Takers::among(&[one, well], &name("q")).avoid, [name("x"), name("y")]);
    }
}
