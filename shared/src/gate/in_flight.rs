//! Tasks that are out, where their number is limited: what was taken and is not used yet, and leases until they end.
//!
//! A lease is counted by when it began, which both who claimed it and whoever hears of its end know. So an end is told from
//! those of leases that were given before there was a limit, or that are counted no more. Every count has an end by itself:
//! what is lost with a coordinator comes back.

use serde::{Deserialize, Serialize};

use super::Gate;
use crate::limits::LEASE_DEFAULT_MS;

/// How long what was taken is kept for who took it, in ms. A coordinator may die between a claim and telling of it: so long
/// its leases last, unless more was asked for them.
pub const TAKEN_MS: i64 = LEASE_DEFAULT_MS as i64;
/// How long an end is remembered of a lease that nobody has told of yet, in ms: another coordinator gave it, and is about to.
const EARLY_MS: i64 = 10_000;
/// Leases that began within so many ms are counted as one.
const TOGETHER_MS: i64 = 1_000;
/// Most entries of each kind.
const ENTRIES_MAX: usize = 32;

/// Leases that began at about the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Leases {
    /// When the first and the last of them began.
    from_ms: i64,
    to_ms: i64,
    /// They count until then, if nothing is heard of their ends.
    until_ms: i64,
    count: u32,
}

impl Leases {
    const fn has(&self, started_ms: i64) -> bool {
        self.from_ms <= started_ms && started_ms <= self.to_ms
    }
}

/// So many of one dependency.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct InFlight {
    /// Until when it is kept, and how many.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    taken: Vec<(i64, u32)>,
    /// By their start; no two overlap.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    leases: Vec<Leases>,
    /// Ends that came before their beginnings: when those leases began, how many, and until when that is remembered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    early: Vec<(i64, u32, i64)>,
}

impl InFlight {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How many count.
    pub fn count(&self, now_ms: i64) -> u32 {
        self.counted(now_ms).fold(0, |sum, (_, count)| sum.saturating_add(count))
    }

    /// When some of them stop to count by themselves.
    pub fn next_ms(&self, now_ms: i64) -> Option<i64> {
        self.counted(now_ms).map(|(until_ms, _)| until_ms).min()
    }

    fn counted(&self, now_ms: i64) -> impl Iterator<Item = (i64, u32)> {
        let leases = self.leases.iter().map(|leases| (leases.until_ms, leases.count));
        self.taken.iter().copied().chain(leases).filter(move |(until_ms, _)| *until_ms > now_ms)
    }

    fn forget(&mut self, now_ms: i64) {
        self.taken.retain(|(until_ms, count)| *until_ms > now_ms && *count > 0);
        self.leases.retain(|leases| leases.until_ms > now_ms && leases.count > 0);
        self.early.retain(|(_, count, until_ms)| *until_ms > now_ms && *count > 0);
    }

    /// The clock was set back by so much. When leases began stays as it was told: their ends are told by the same.
    pub fn set_back(&mut self, by_ms: i64) {
        self.taken.iter_mut().for_each(|(until_ms, _)| *until_ms -= by_ms);
        self.leases.iter_mut().for_each(|leases| leases.until_ms -= by_ms);
        self.early.iter_mut().for_each(|(_, _, until_ms)| *until_ms -= by_ms);
    }

    pub fn take(&mut self, count: u32, now_ms: i64) {
        self.forget(now_ms);
        if count == 0 {
            return;
        }
        let until_ms = (now_ms.saturating_add(TAKEN_MS).div_euclid(TOGETHER_MS) + 1) * TOGETHER_MS;
        let full = self.taken.len() >= ENTRIES_MAX;
        match self.taken.iter_mut().rev().find(|(known_ms, _)| full || *known_ms == until_ms) {
            Some((_, known)) => *known = known.saturating_add(count),
            None => self.taken.push((until_ms, count)),
        }
    }

    /// What was taken last is used or given back first: what nobody has any more keeps its end.
    pub fn give_back(&mut self, count: u32) {
        let mut left = count;
        for (_, taken) in self.taken.iter_mut().rev() {
            let part = left.min(*taken);
            *taken -= part;
            left -= part;
        }
    }

    /// What was taken became leases that began then, and count at most until `until_ms`.
    pub fn begin(&mut self, count: u32, started_ms: i64, until_ms: i64, now_ms: i64) {
        self.give_back(count);
        self.forget(now_ms);
        let mut count = count;
        for (_, ended, _) in self.early.iter_mut().filter(|(began_ms, ..)| *began_ms == started_ms) {
            let part = count.min(*ended);
            *ended -= part;
            count -= part;
        }
        if count == 0 {
            return;
        }
        let place = self.leases.partition_point(|leases| leases.from_ms <= started_ms);
        match place.checked_sub(1).and_then(|place| self.leases.get_mut(place)) {
            Some(leases) if leases.has(started_ms) || started_ms - leases.from_ms < TOGETHER_MS => {
                leases.to_ms = leases.to_ms.max(started_ms);
                leases.until_ms = leases.until_ms.max(until_ms);
                leases.count = leases.count.saturating_add(count);
            }
            _ => {
                let leases = Leases { from_ms: started_ms, to_ms: started_ms, until_ms, count };
                self.leases.insert(place, leases);
                self.shrink();
            }
        }
    }

    /// Joins the two neighbours that are the shortest together: none grows for ever, so that what was lost has an end.
    fn shrink(&mut self) {
        if self.leases.len() <= ENTRIES_MAX {
            return;
        }
        let length = |place: usize| self.leases[place + 1].to_ms - self.leases[place].from_ms;
        let Some(place) = (0..self.leases.len() - 1).min_by_key(|place| length(*place)) else { return };
        let next = self.leases.remove(place + 1);
        let leases = &mut self.leases[place];
        leases.to_ms = leases.to_ms.max(next.to_ms);
        leases.until_ms = leases.until_ms.max(next.until_ms);
        leases.count = leases.count.saturating_add(next.count);
    }

    /// Nothing stops to count before then.
    pub fn spare(&mut self, until_ms: i64) {
        let taken = self.taken.iter_mut().map(|(known_ms, _)| known_ms);
        for known_ms in taken.chain(self.leases.iter_mut().map(|leases| &mut leases.until_ms)) {
            *known_ms = until_ms.max(*known_ms);
        }
    }

    /// Leases that began then are over.
    pub fn end(&mut self, count: u32, started_ms: i64, now_ms: i64) {
        self.forget(now_ms);
        let mut left = count;
        if let Some(leases) = self.leases.iter_mut().find(|leases| leases.has(started_ms)) {
            let part = left.min(leases.count);
            leases.count -= part;
            left -= part;
        }
        self.leases.retain(|leases| leases.count > 0);
        if left == 0 {
            return;
        }
        if self.early.len() >= ENTRIES_MAX {
            self.early.remove(0);
        }
        self.early.push((started_ms, left, now_ms.saturating_add(EARLY_MS)));
    }
}

impl Gate {
    /// How many tasks are out, where that is limited.
    pub fn in_flight(&self, now_ms: i64) -> Option<u32> {
        self.settings.max_in_flight.map(|_| self.in_flight.count(now_ms))
    }

    /// Whether there are as many as there may be.
    pub fn is_full(&self, now_ms: i64) -> bool {
        self.in_flight_room(now_ms) == 0
    }

    pub(super) fn in_flight_room(&self, now_ms: i64) -> u32 {
        let Some(max) = self.settings.max_in_flight else { return u32::MAX };
        max.saturating_sub(self.in_flight.count(now_ms))
    }

    /// What was taken became leases that began at `started_ms`. They count until they have [ended](Self::end), and at most
    /// until `until_ms`.
    pub fn begin(&mut self, count: u32, started_ms: i64, until_ms: i64, now_ms: i64) {
        if self.settings.max_in_flight.is_some() {
            self.in_flight.begin(count, started_ms, until_ms, now_ms);
        }
    }

    /// Leases that began at `started_ms` are over, however they ended.
    pub fn end(&mut self, count: u32, started_ms: i64, now_ms: i64) {
        if self.settings.max_in_flight.is_some() {
            self.in_flight.end(count, started_ms, now_ms);
        }
    }

    /// Nothing that is counted stops to count by itself before then, also what would have by now: coordinators were away, and
    /// leases go on until one of them ends them.
    pub fn spare(&mut self, until_ms: i64) {
        self.in_flight.spare(until_ms);
    }

    /// What was taken is worth nothing, since the gate has changed: nobody is out because of it.
    pub fn waste(&mut self, unused: u32) {
        self.in_flight.give_back(unused);
        self.release_tokens(unused);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gate::Settings;

    const T0: i64 = 1_000_000_000;

    fn gate(max: u32) -> Gate {
        let mut gate = Gate::default();
        gate.set(Settings { max_in_flight: Some(max), ..Settings::default() });
        gate
    }

    fn take(gate: &mut Gate, wanted: u32, now_ms: i64) -> u32 {
        gate.take(wanted, now_ms * 1_000)
    }

    #[test]
    fn no_more_are_out_than_may_be_and_each_end_lets_one_go() {
        let mut gate = gate(3);
        assert_eq!(take(&mut gate, 10, T0), 3);
        gate.begin(3, T0 + 1, T0 + 600_000, T0 + 2);
        assert_eq!((take(&mut gate, 10, T0 + 2), gate.next_ms(T0 + 2)), (0, Some(T0 + 600_000)));
        gate.end(1, T0 + 1, T0 + 50);
        assert_eq!((gate.in_flight(T0 + 50), take(&mut gate, 10, T0 + 50)), (Some(2), 1));
        gate.give_back(1);
        assert_eq!(take(&mut gate, 10, T0 + 51), 1);
    }

    #[test]
    fn what_is_lost_comes_back_by_itself() {
        let mut gate = gate(3);
        assert_eq!(take(&mut gate, 2, T0), 2);
        let back_ms = gate.in_flight.next_ms(T0).unwrap();
        assert!((T0 + TAKEN_MS..=T0 + TAKEN_MS + TOGETHER_MS).contains(&back_ms), "{back_ms}");
        assert_eq!(take(&mut gate, 3, T0 + 10_000), 1);
        gate.begin(1, T0 + 10_000, T0 + 700_000, T0 + 10_000);
        assert_eq!(take(&mut gate, 3, back_ms), 2, "one is leased");
        assert_eq!(take(&mut gate, 3, T0 + 700_000), 3, "and its end was never heard of");
    }

    #[test]
    fn an_end_that_comes_before_the_beginning_is_kept_for_it() {
        let mut gate = gate(1);
        assert_eq!(take(&mut gate, 1, T0), 1);
        gate.end(1, T0 + 5, T0 + 9);
        assert!(gate.is_full(T0 + 9), "it is still taken");
        gate.begin(1, T0 + 5, T0 + 600_000, T0 + 10);
        assert_eq!(gate.in_flight(T0 + 10), Some(0));
    }

    #[test]
    fn what_counted_when_the_last_coordinator_went_counts_until_the_next_one_has_looked() {
        let mut gate = gate(2);
        assert_eq!(take(&mut gate, 2, T0), 2);
        gate.begin(1, T0, T0 + 60_000, T0);
        let later_ms = T0 + 3_600_000;
        assert_eq!(gate.in_flight(later_ms), Some(0));
        gate.spare(later_ms + 10_000);
        assert_eq!(take(&mut gate, 2, later_ms + 9_999), 0);
        assert_eq!(take(&mut gate, 2, later_ms + 10_000), 2);
    }

    #[test]
    fn leases_from_before_the_limit_do_not_make_room_when_they_end() {
        let mut gate = gate(1);
        assert_eq!(take(&mut gate, 1, T0), 1);
        gate.begin(1, T0, T0 + 600_000, T0);
        gate.end(5, T0 - 1, T0 + 9);
        assert!(gate.is_full(T0 + 9));
        gate.set(Settings::default());
        gate.set(Settings { max_in_flight: Some(1), ..Settings::default() });
        assert_eq!(gate.in_flight(T0 + 10), Some(0), "without a limit nothing is counted");
    }

    #[test]
    fn leases_of_a_slow_dependency_are_counted_in_little_room_and_their_ends_do_not_move_for_ever() {
        let mut gate = gate(1_000_000);
        for second in 0..10_000 {
            let now_ms = T0 + second * 1_000;
            assert_eq!(take(&mut gate, 2, now_ms), 2);
            // One of the two is never heard of again.
            gate.begin(2, now_ms, now_ms + 3_600_000, now_ms);
            let old_ms = now_ms - 1_800_000;
            if old_ms >= T0 {
                gate.end(1, old_ms, now_ms);
            }
        }
        assert!(gate.in_flight.leases.len() <= ENTRIES_MAX);
        let count = gate.in_flight(T0 + 10_000_000).unwrap();
        // 1,800 run, and 3,600 are lost: those of an hour, and as long as the longest entry more.
        assert!((5_300..6_600).contains(&count), "{count}");
        assert_eq!(gate.in_flight(T0 + 14_000_000), Some(0));
    }

    proptest! {
        #[test]
        fn never_more_are_given_than_may_be_out_and_everything_comes_back(
            max in 1_u32..20,
            steps in prop::collection::vec((0_i64..3_000, 0_u8..4, 0_u32..25), 1..300),
        ) {
            let mut gate = gate(max);
            // What whoever took it has of it, and when each lease began.
            let (mut stock, mut out, mut now_ms) = (Vec::new(), Vec::new(), T0);
            for (wait_ms, action, number) in steps {
                now_ms += wait_ms;
                stock.retain(|taken_ms| now_ms - taken_ms < TAKEN_MS);
                match action {
                    0 => {
                        let granted = take(&mut gate, number, now_ms) as usize;
                        prop_assert!(granted <= number as usize);
                        stock.extend(std::iter::repeat_n(now_ms, granted));
                    }
                    1 => {
                        // The newest first, as it counts them.
                        let used = (number as usize).min(stock.len());
                        stock.truncate(stock.len() - used);
                        out.extend(std::iter::repeat_n(now_ms, used));
                        gate.begin(used as u32, now_ms, now_ms + 10_000_000, now_ms);
                    }
                    2 => {
                        let unused = (number as usize).min(stock.len());
                        stock.truncate(stock.len() - unused);
                        gate.give_back(unused as u32);
                    }
                    _ if out.is_empty() => {}
                    _ => {
                        let started_ms = out.swap_remove(number as usize % out.len());
                        gate.end(1, started_ms, now_ms);
                    }
                }
                let known = gate.in_flight(now_ms).unwrap_or_default() as usize;
                prop_assert!(known <= max as usize, "{known} of {max}");
                // What was taken is kept for up to a second longer.
                prop_assert!(stock.len() + out.len() <= known, "{stock:?} {out:?} {known}");
                prop_assert!(gate.is_full(now_ms) == (known == max as usize));
            }
            gate.give_back(stock.len() as u32);
            for started_ms in out {
                gate.end(1, started_ms, now_ms);
            }
            now_ms += TAKEN_MS + TOGETHER_MS;
            prop_assert_eq!(gate.in_flight(now_ms), Some(0));
            prop_assert_eq!(take(&mut gate, 100, now_ms), max);
        }
    }
}
