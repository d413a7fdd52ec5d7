//! The system that is called: room, rate limit, outages.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use redrive_shared::failure::FailureClass;

use crate::chance::{Chance, duration_us, happens};
use crate::scenario::{Dependency, RateLimit, Room, Stage};

/// How a call can fail here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    Failed,
    Overloaded,
    RateLimited,
    TimedOut,
    Conflict,
}

impl Trouble {
    pub(crate) const COUNT: usize = 5;

    /// What production calls it.
    pub(crate) const fn class(self) -> FailureClass {
        match self {
            Self::Failed => FailureClass::ServerError,
            Self::Overloaded => FailureClass::Overloaded,
            Self::RateLimited => FailureClass::RateLimited,
            Self::TimedOut => FailureClass::Timeout,
            Self::Conflict => FailureClass::Conflict,
        }
    }

    pub(crate) const ALL: [Self; Self::COUNT] =
        [Self::Failed, Self::Overloaded, Self::RateLimited, Self::TimedOut, Self::Conflict];
}

pub(crate) type Result = std::result::Result<(), Trouble>;

/// The dependency at work.
#[derive(Debug)]
pub(crate) struct Server<'a> {
    rules: &'a Dependency,
    /// When those who serve will be free, one entry for each that was ever busy.
    free_us: BinaryHeap<Reverse<u64>>,
    /// When those who wait will be begun; ascending, since they are served in order.
    begin_us: VecDeque<u64>,
    tokens: f64,
    filled_us: u64,
    /// The version of the row that all contend for.
    version: u64,
}

impl<'a> Server<'a> {
    pub(crate) fn new(rules: &'a Dependency) -> Self {
        Self {
            rules,
            free_us: BinaryHeap::new(),
            begin_us: VecDeque::new(),
            tokens: rules.rate_limit.as_ref().map_or(0.0, |limit| f64::from(limit.burst)),
            filled_us: 0,
            version: 0,
        }
    }

    /// Takes a call that arrives now, and says when it is answered (µs) and how. Since calls are served in order, that is
    /// known at once: nothing that comes later changes it.
    pub(crate) fn take(&mut self, now_us: u64, poisoned: bool, chance: &mut Chance) -> (u64, Result) {
        let rules = self.rules;
        if let Some(limit) = &rules.rate_limit
            && !self.has_token(limit, now_us)
        {
            return (now_us, Err(Trouble::RateLimited));
        }
        let Some(begin_us) = self.place(now_us) else { return (now_us, Err(Trouble::Overloaded)) };
        let end_us = begin_us + duration_us(self.rules.service, chance);
        if let Room::Capacity { .. } = self.rules.room {
            self.free_us.push(Reverse(end_us));
        }
        let fails = poisoned || happens(self.failure_rate(now_us), chance);
        (end_us, if fails { Err(Trouble::Failed) } else { Ok(()) })
    }

    /// The row's version, for a client that is going to write it.
    pub(crate) fn read(&self) -> u64 {
        self.version
    }

    /// Writes the row, if nobody has since that version.
    pub(crate) fn write(&mut self, version: u64) -> Result {
        if version != self.version {
            return Err(Trouble::Conflict);
        }
        self.version += 1;
        Ok(())
    }

    /// When a call that arrives now is begun; `None` if there is no room to wait.
    fn place(&mut self, now_us: u64) -> Option<u64> {
        let Room::Capacity { at_once, queue } = self.rules.room else { return Some(now_us) };
        while self.begin_us.front().is_some_and(|begin_us| *begin_us <= now_us) {
            self.begin_us.pop_front();
        }
        if self.free_us.len() < at_once as usize {
            return Some(now_us);
        }
        let Reverse(free_us) = *self.free_us.peek()?;
        if free_us > now_us {
            if queue.is_some_and(|most| self.begin_us.len() >= most as usize) {
                return None;
            }
            self.begin_us.push_back(free_us);
        }
        self.free_us.pop();
        Some(free_us.max(now_us))
    }

    fn has_token(&mut self, limit: &RateLimit, now_us: u64) -> bool {
        let first = Stage { from_ms: 0, per_s: limit.per_s };
        let last = limit.changes.iter().rfind(|stage| stage.from_ms * 1_000 <= self.filled_us);
        let mut per_s = last.unwrap_or(&first).per_s;
        let ahead = limit.changes.iter().map(|stage| (stage.from_ms * 1_000, stage.per_s));
        let not_filled = self.filled_us + 1..=now_us;
        let since = ahead.filter(|(at_us, _)| not_filled.contains(at_us));
        for (at_us, next_per_s) in since.chain([(now_us, 0.0)]) {
            let new = (at_us - self.filled_us) as f64 / 1_000_000.0 * per_s;
            self.tokens = (self.tokens + new).min(f64::from(limit.burst));
            (self.filled_us, per_s) = (at_us, next_per_s);
        }
        let has = self.tokens >= 1.0;
        if has || limit.counts_refused {
            self.tokens = (self.tokens - 1.0).max(-f64::from(limit.burst));
        }
        has
    }

    fn failure_rate(&self, now_us: u64) -> f64 {
        let now_ms = now_us / 1_000;
        let begun = self.rules.outages.partition_point(|outage| outage.from_ms <= now_ms);
        let last = begun.checked_sub(1).map(|index| self.rules.outages[index]);
        last.filter(|outage| now_ms < outage.to_ms)
            .map_or(self.rules.failure_rate, |outage| outage.failure_rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::seeded;
    use crate::scenario::{Outage, Spread};

    fn take(server: &mut Server<'_>, now_us: u64) -> (u64, Result) {
        server.take(now_us, false, &mut seeded(1))
    }

    #[test]
    fn calls_beyond_the_capacity_wait_in_order_and_beyond_the_queue_are_refused() {
        let rules = Dependency {
            service: Spread { mean_ms: 10.0, sd_ms: 0.0 },
            room: Room::Capacity { at_once: 2, queue: Some(1) },
            ..Dependency::default()
        };
        let mut server = Server::new(&rules);
        assert_eq!(take(&mut server, 0), (10_000, Ok(())));
        assert_eq!(take(&mut server, 1_000), (11_000, Ok(())));
        assert_eq!(take(&mut server, 2_000), (20_000, Ok(())));
        assert_eq!(take(&mut server, 3_000), (3_000, Err(Trouble::Overloaded)));
        assert_eq!(take(&mut server, 10_500), (21_000, Ok(())), "the one that waited was begun at 10 ms");
        assert_eq!(take(&mut server, 50_000), (60_000, Ok(())));
    }

    #[test]
    fn a_bucket_lets_its_burst_in_and_then_its_rate() {
        let changes = vec![Stage { from_ms: 1_000, per_s: 1.0 }];
        let limit = RateLimit { per_s: 10.0, changes, burst: 3, counts_refused: false, retry_after_ms: None };
        let rules = Dependency { rate_limit: Some(limit), ..Dependency::default() };
        let mut server = Server::new(&rules);
        let let_in = |server: &mut Server<'_>, at_us| take(server, at_us).1.is_ok();
        assert_eq!([0, 0, 0, 0].map(|at_us| let_in(&mut server, at_us)), [true, true, true, false]);
        assert_eq!([100_000, 100_000].map(|at_us| let_in(&mut server, at_us)), [true, false]);
        // It is full when the limit falls to one a second.
        assert_eq!([900_000; 4].map(|at_us| let_in(&mut server, at_us)), [true, true, true, false]);
        assert!(let_in(&mut server, 1_000_000), "a tenth of a second at ten");
        assert_eq!([1_999_999, 2_000_000].map(|at_us| let_in(&mut server, at_us)), [false, true]);
    }

    #[test]
    fn where_refused_calls_count_who_keeps_calling_is_never_let_in() {
        let limit = RateLimit {
            per_s: 10.0,
            changes: Vec::new(),
            burst: 2,
            counts_refused: true,
            retry_after_ms: None,
        };
        let rules = Dependency { rate_limit: Some(limit), ..Dependency::default() };
        let mut server = Server::new(&rules);
        let served = (0..100).filter(|step| take(&mut server, step * 50_000).1.is_ok()).count();
        assert_eq!(served, 3, "the burst, and what came in meanwhile");
        assert!(take(&mut server, 4_950_000 + 250_000).1.is_err(), "two are owed");
        assert!(take(&mut server, 4_950_000 + 410_000).1.is_ok(), "and then one more was");
    }

    #[test]
    fn an_outage_begins_at_its_first_instant_and_is_over_at_its_last() {
        let outage = Outage { from_ms: 10, to_ms: 20, failure_rate: 1.0 };
        let rules = Dependency { outages: vec![outage], ..Dependency::default() };
        let mut server = Server::new(&rules);
        let fails = [9_999, 10_000, 19_999, 20_000].map(|at_us| take(&mut server, at_us).1.is_err());
        assert_eq!(fails, [false, true, true, false]);
        assert_eq!(server.take(0, true, &mut seeded(1)).1, Err(Trouble::Failed), "poison fails at any time");
    }

    #[test]
    fn a_write_fails_when_another_came_between() {
        let rules = Dependency { room: Room::Contention, ..Dependency::default() };
        let mut server = Server::new(&rules);
        let (first, second) = (server.read(), server.read());
        assert_eq!(server.write(first), Ok(()));
        assert_eq!(server.write(second), Err(Trouble::Conflict));
    }
}
