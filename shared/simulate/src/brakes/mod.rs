//! What holds attempts back: each agent's circuit breaker and its slots, and the fleet's gate with its retry budget. They
//! answer before an attempt ([`Brakes::ask`]), hear of its outcome after it ([`Brakes::tell`]), and say who may go on when
//! that changes: [`Brakes::move_on`] of those whom their agent holds, [`Brakes::let_through`] of those whom the gate does.

mod agent;
mod fleet;
#[cfg(test)]
mod tests;

use redrive_shared::breaker::{Breaker, Outcome};

use self::agent::{Agent, Leave};
use self::fleet::Fleet;
use crate::chance::Chance;
use crate::dependency::Result;
use crate::scenario::{GateRules, Holds};

pub(crate) use self::agent::Next;

/// Leave to make one attempt; what it was given under goes back with the outcome.
pub(crate) type Permission = Leave;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asking {
    pub(crate) client: u32,
    pub(crate) agent: u32,
    /// Since when its attempt is due (µs): the longest wait goes first.
    pub(crate) due_us: u64,
    pub(crate) retry: bool,
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    pub(crate) agent: u32,
    pub(crate) retry: bool,
    pub(crate) leave: Permission,
    pub(crate) result: Result,
    /// The `Retry-After` that it was answered with.
    pub(crate) hint_ms: Option<u64>,
    pub(crate) started_us: u64,
    pub(crate) now_us: u64,
}

/// What is held at the gate may go on, and when to look again (µs), unless something happens before.
pub(crate) type Through = (Vec<(u32, Permission)>, Option<u64>);

/// The brakes of one run.
#[derive(Debug)]
pub(crate) struct Brakes {
    /// What each agent begins with. None: no breakers.
    breaker: Option<Breaker>,
    slots: Option<u32>,
    /// Those that have asked, up to the one of the highest number.
    agents: Vec<Agent>,
    fleet: Option<Fleet>,
}

impl Brakes {
    pub(crate) fn new(breaker: Option<Breaker>, slots: Option<u32>, gate: Option<&GateRules>) -> Self {
        Self { breaker, slots, agents: Vec::new(), fleet: gate.map(Fleet::new) }
    }

    /// Whether this attempt may be made now; if not, it is held until it is named by [`Brakes::move_on`], to ask again, or by
    /// [`Brakes::let_through`], to be made.
    pub(crate) fn ask(&mut self, asking: Asking, now_us: u64) -> Option<Permission> {
        match &mut self.fleet {
            Some(fleet) if asking.retry || fleet.holds() == Holds::Everything => {
                fleet.hold(asking);
                None
            }
            _ => {
                let leave = self.agent(asking.agent).accept(asking.client, now_us)?;
                if let Some(fleet) = &mut self.fleet {
                    fleet.count(asking.retry, now_us);
                }
                Some(leave)
            }
        }
    }

    /// Those of whom the gate holds back that may be made now, the longest wait first.
    pub(crate) fn let_through(&mut self, now_us: u64) -> Through {
        let mut through = Vec::new();
        // Taken out, so that the agents can be asked meanwhile.
        let Some(mut fleet) = self.fleet.take() else { return (through, None) };
        while let Some(asking) = fleet.next(now_us) {
            match self.agent(asking.agent).accept(asking.client, now_us) {
                Some(leave) => {
                    fleet.count(asking.retry, now_us);
                    through.push((asking.client, leave));
                }
                None => fleet.give_back(),
            }
        }
        let look_us = fleet.look_us(now_us);
        self.fleet = Some(fleet);
        (through, look_us)
    }

    /// Takes the outcome of an attempt that had leave.
    pub(crate) fn tell(&mut self, told: Told, chance: &mut Chance) {
        let duration_ms = (told.now_us - told.started_us) / 1_000;
        let outcome = match told.result {
            Ok(()) => Outcome::Success { duration_ms },
            Err(trouble) => Outcome::Failure { class: trouble.class(), duration_ms },
        };
        self.agent(told.agent).tell(told.leave, outcome, told.now_us, chance);
        if let Some(fleet) = &mut self.fleet {
            fleet.tell(&told, chance);
        }
    }

    /// Who may ask again, of those whom this agent holds back.
    pub(crate) fn move_on(&mut self, agent: u32, now_us: u64) -> Next {
        self.agent(agent).move_on(now_us)
    }

    /// How often breakers have opened, and how often the gate has shut.
    pub(crate) fn openings(&mut self, now_us: u64) -> (u64, u64) {
        let shuts = self.fleet.as_ref().map_or(0, Fleet::shuts);
        (self.agents.iter_mut().map(|agent| agent.openings(now_us)).sum(), shuts)
    }

    fn agent(&mut self, number: u32) -> &mut Agent {
        let fresh = || Agent::new(self.breaker.clone(), self.slots);
        let index = number as usize;
        if self.agents.len() <= index {
            self.agents.resize_with(index + 1, fresh);
        }
        &mut self.agents[index]
    }
}

fn millis(at_us: u64) -> i64 {
    i64::try_from(at_us / 1_000).unwrap_or(i64::MAX)
}
