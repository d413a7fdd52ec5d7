//! What one agent's worker holds back: its circuit breaker, and the slots that it has.

use std::collections::VecDeque;

use rand::RngExt;
use redrive_shared::breaker::{Breaker, Outcome, Permit};

use super::millis;
use crate::chance::Chance;

/// Leave to make one attempt; what it was given under goes back with the outcome.
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
    /// These may ask again now.
    Now(Vec<u32>),
    /// These may ask again, each at its own moment within the second: in production they are handed back and claimed anew.
    Soon(Vec<u32>),
}

/// One agent.
#[derive(Debug)]
pub(super) struct Agent {
    breaker: Option<Breaker>,
    slots: Option<u32>,
    busy: u32,
    held: VecDeque<u32>,
    /// The earliest instant for which [`Next::Wait`] was given. Whoever is held would otherwise bring one of its own, and
    /// each would bring the next.
    looks_again_us: Option<u64>,
}

impl Agent {
    pub(super) fn new(breaker: Option<Breaker>, slots: Option<u32>) -> Self {
        Self { breaker, slots, busy: 0, held: VecDeque::new(), looks_again_us: None }
    }

    /// Whether it can make this client's attempt now; if not, the client is held.
    pub(super) fn accept(&mut self, client: u32, now_us: u64) -> Option<Leave> {
        let room = self.room();
        let permit = match &mut self.breaker {
            _ if room == 0 => Err(()),
            Some(breaker) => breaker.acquire(millis(now_us)).map(Some).map_err(drop),
            None => Ok(None),
        };
        match permit {
            Ok(permit) => {
                self.busy += 1;
                Some(Leave { permit })
            }
            Err(()) => {
                self.held.push_back(client);
                None
            }
        }
    }

    pub(super) fn tell(&mut self, leave: Leave, outcome: Outcome, now_us: u64, chance: &mut Chance) {
        self.busy -= 1;
        if let (Some(breaker), Some(permit)) = (&mut self.breaker, leave.permit) {
            breaker.report(permit, outcome, millis(now_us), || chance.random::<f64>());
        }
    }

    pub(super) fn move_on(&mut self, now_us: u64) -> Next {
        self.looks_again_us = self.looks_again_us.filter(|at_us| *at_us > now_us);
        let room = self.room();
        if self.held.is_empty() || room == 0 {
            return Next::Wait(None);
        }
        let Some(breaker) = self.breaker.as_mut().filter(|breaker| !breaker.is_closed()) else {
            let ready = self.held.drain(..self.held.len().min(room as usize)).collect();
            return if self.slots.is_some() { Next::Now(ready) } else { Next::Soon(ready) };
        };
        match breaker.next_change_ms(millis(now_us)) {
            Some(at_ms) => {
                let at_us = u64::try_from(at_ms).unwrap_or(0) * 1_000;
                let news = self.looks_again_us.is_none_or(|known_us| at_us < known_us);
                self.looks_again_us = if news { Some(at_us) } else { self.looks_again_us };
                Next::Wait(news.then_some(at_us))
            }
            // Half-open, and no probe in flight.
            None => self.held.pop_front().map_or(Next::Wait(None), |client| Next::Now(vec![client])),
        }
    }

    pub(super) fn openings(&mut self, now_us: u64) -> u64 {
        self.breaker.as_mut().map_or(0, |breaker| breaker.snapshot(millis(now_us)).openings)
    }

    /// Slots that are free.
    fn room(&self) -> u32 {
        self.slots.map_or(u32::MAX, |slots| slots.saturating_sub(self.busy))
    }
}
