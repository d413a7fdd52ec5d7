//! The fleet's gate of the dependency, with whom it holds back.

use std::collections::BTreeMap;

use rand::RngExt;
use redrive_shared::gate::{Change, Gate, Heard, Room, Signal, State};
use redrive_shared::id::Name;

use super::{Asking, Told, millis};
use crate::chance::Chance;
use crate::scenario::{GateRules, Holds};

/// Clients by when they were due, those of the same instant by their number.
type Queue = BTreeMap<(u64, u32), Asking>;

#[derive(Debug)]
pub(super) struct Fleet {
    gate: Gate,
    holds: Holds,
    firsts: Queue,
    retries: Queue,
    shuts: u64,
    /// The earliest instant that [`Fleet::look_us`] has named and that is still to come.
    looks_again_us: Option<u64>,
}

impl Fleet {
    pub(super) fn new(rules: &GateRules) -> Self {
        let mut gate = Gate::default();
        gate.set(rules.settings.clone());
        Self {
            gate,
            holds: rules.holds,
            firsts: Queue::new(),
            retries: Queue::new(),
            shuts: 0,
            looks_again_us: None,
        }
    }

    pub(super) fn holds(&self) -> Holds {
        self.holds
    }

    pub(super) fn hold(&mut self, asking: Asking) {
        let queue = if asking.retry { &mut self.retries } else { &mut self.firsts };
        queue.insert((asking.due_us, asking.client), asking);
    }

    /// The one that waits longest and that the gate lets through now. If its agent cannot take it,
    /// [`give_back`](Self::give_back) is to be told.
    pub(super) fn next(&mut self, now_us: u64) -> Option<Asking> {
        let now_ms = millis(now_us);
        let change = self.gate.advance(now_ms);
        self.note(change);
        let (first, retry) = (self.firsts.first_key_value(), self.retries.first_key_value());
        let retry = retry.filter(|_| self.gate.retry_room(now_ms) != Some(0));
        let retry = match (first, retry) {
            (None, None) => return None,
            (Some((first, _)), Some((retry, _))) => retry < first,
            (_, retry) => retry.is_some(),
        };
        let at_us = i64::try_from(now_us).unwrap_or(i64::MAX);
        if self.gate.room() == Room::Shut || self.gate.take(1, at_us) == 0 {
            return None;
        }
        let queue = if retry { &mut self.retries } else { &mut self.firsts };
        queue.pop_first().map(|(_, asking)| asking)
    }

    pub(super) fn give_back(&mut self) {
        self.gate.give_back(1);
    }

    /// When to look again at those who are still held (µs); none where that is known already, or an event will tell.
    pub(super) fn look_us(&mut self, now_us: u64) -> Option<u64> {
        self.looks_again_us = self.looks_again_us.filter(|at_us| *at_us > now_us);
        let now_ms = millis(now_us);
        let budget_ms = self.gate.next_retry_ms(now_ms).filter(|_| !self.retries.is_empty());
        let wanted = !self.firsts.is_empty() || (!self.retries.is_empty() && budget_ms.is_none());
        let gate_ms = if wanted { self.gate.next_ms(now_ms) } else { None };
        let at_ms = gate_ms.into_iter().chain(budget_ms).min()?;
        // Never at once: whoever could pass now has passed.
        let at_us = u64::try_from(at_ms.max(now_ms + 1)).unwrap_or(0) * 1_000;
        if self.looks_again_us.is_some_and(|known_us| known_us <= at_us) {
            return None;
        }
        self.looks_again_us = Some(at_us);
        self.looks_again_us
    }

    pub(super) fn count(&mut self, retry: bool, now_us: u64) {
        self.gate.count_calls(u32::from(!retry), u32::from(retry), millis(now_us));
    }

    pub(super) fn tell(&mut self, told: &Told, chance: &mut Chance) {
        let now_ms = millis(told.now_us);
        let signal = match told.result {
            Ok(()) => Signal::Success,
            Err(trouble) => Signal::of(trouble.class(), told.hint_ms),
        };
        // Of what agents do themselves, it is told how it ended, and not who did it when.
        let own = self.holds == Holds::Retries && !told.retry;
        let agent = if own { None } else { Name::new(format!("agent-{}", told.agent)).ok() };
        let started_ms = if own { 0 } else { millis(told.started_us) };
        let heard = Heard { signal, count: 1, agent, started_ms };
        let advanced = self.gate.advance(now_ms);
        self.note(advanced);
        let change = self.gate.hear(&heard, now_ms, chance.random::<f64>());
        self.note(change);
    }

    /// How often it has shut.
    pub(super) fn shuts(&self) -> u64 {
        self.shuts
    }

    fn note(&mut self, change: Option<Change>) {
        self.shuts += u64::from(change.is_some_and(|change| change.to == State::Shut));
    }
}
