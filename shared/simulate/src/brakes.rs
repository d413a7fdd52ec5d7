//! What holds calls back: today the circuit breaker of each agent. Retry budgets and the fleet's gates belong here too: they
//! answer the same question before a call ([`Brakes::ask`]), hear of its outcome after it ([`Brakes::tell`]), and say who may
//! go on when that changes ([`Brakes::move_on`]).

use std::collections::VecDeque;

use rand::RngExt;
use redrive_shared::breaker::{Breaker, Outcome, Permit};

use crate::chance::Chance;

/// Leave to make one call; what it was given under goes back with the outcome.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Leave {
    permit: Option<Permit>,
}

/// What becomes of those who were held back.
#[derive(Debug)]
pub(crate) enum Next {
    /// Nobody may go on yet; look again then (µs), unless something happens before. `None`: that is known
    /// already, or an event will tell.
    Wait(Option<u64>),
    /// This one may ask again now.
    One(u32),
    /// These may ask again, each at its own moment within the second: in production they are handed back and claimed anew.
    All(Vec<u32>),
}

/// The brakes of one run.
#[derive(Debug)]
pub(crate) struct Brakes {
    /// What each agent begins with. None: no breakers.
    fresh: Option<Breaker>,
    /// Those that have asked. Agents get their clients in turn, so they ask for the first time in their order.
    agents: Vec<Agent>,
}

#[derive(Debug)]
struct Agent {
    breaker: Breaker,
    held: VecDeque<u32>,
    /// The earliest instant for which [`Next::Wait`] was given. Whoever is held would otherwise bring one of its own, and
    /// each would bring the next.
    looks_again_us: Option<u64>,
}

impl Brakes {
    /// `fresh` is the breaker that each agent begins with.
    pub(crate) fn new(fresh: Option<Breaker>) -> Self {
        Self { fresh, agents: Vec::new() }
    }

    /// Whether this client of this agent may call now; if not, it is held until [`Brakes::move_on`] names it.
    pub(crate) fn ask(&mut self, agent: u32, client: u32, now_us: u64) -> Option<Leave> {
        let Some(fresh) = &self.fresh else { return Some(Leave::default()) };
        while self.agents.len() <= agent as usize {
            let (breaker, held) = (fresh.clone(), VecDeque::new());
            self.agents.push(Agent { breaker, held, looks_again_us: None });
        }
        let agent = &mut self.agents[agent as usize];
        match agent.breaker.acquire(millis(now_us)) {
            Ok(permit) => Some(Leave { permit: Some(permit) }),
            Err(_) => {
                agent.held.push_back(client);
                None
            }
        }
    }

    /// Takes the outcome of a call that had leave.
    pub(crate) fn tell(
        &mut self,
        agent: u32,
        leave: Leave,
        outcome: Outcome,
        now_us: u64,
        chance: &mut Chance,
    ) {
        if let (Some(agent), Some(permit)) = (self.agents.get_mut(agent as usize), leave.permit) {
            agent.breaker.report(permit, outcome, millis(now_us), || chance.random::<f64>());
        }
    }

    /// Who may go on, of those whom this agent holds back.
    pub(crate) fn move_on(&mut self, agent: u32, now_us: u64) -> Next {
        let Some(agent) = self.agents.get_mut(agent as usize) else { return Next::Wait(None) };
        agent.looks_again_us = agent.looks_again_us.filter(|at_us| *at_us > now_us);
        if agent.held.is_empty() {
            return Next::Wait(None);
        }
        if agent.breaker.is_closed() {
            return Next::All(agent.held.drain(..).collect());
        }
        match agent.breaker.next_change_ms(millis(now_us)) {
            Some(at_ms) => {
                let at_us = u64::try_from(at_ms).unwrap_or(0) * 1_000;
                let news = agent.looks_again_us.is_none_or(|known_us| at_us < known_us);
                agent.looks_again_us = if news { Some(at_us) } else { agent.looks_again_us };
                Next::Wait(news.then_some(at_us))
            }
            // Half-open, and no probe in flight.
            None => agent.held.pop_front().map_or(Next::Wait(None), Next::One),
        }
    }

    /// How often breakers have opened.
    pub(crate) fn openings(&mut self, now_us: u64) -> u64 {
        self.agents.iter_mut().map(|agent| agent.breaker.snapshot(millis(now_us)).openings).sum()
    }
}

fn millis(at_us: u64) -> i64 {
    i64::try_from(at_us / 1_000).unwrap_or(i64::MAX)
}
