//! Attempts that were lost with their workers, as both stores keep them beside an agent's heartbeats.
//!
//! A breaker is gone with its worker: the agent's next run would begin with a closed one, and take its tasks into the same end.
//! So each run is told of the others that vanished within a minute. Nothing is taken away when it was told: the next run has
//! to hear of it too, and whoever heard of it already knows it by its number.

use redrive_shared::id::Name;
use redrive_shared::wire::{OWN_BREAKER, WorkerLost};
use serde::{Deserialize, Serialize};

/// How long a loss is told, in ms: as long as a breaker's window is, by default.
pub const LOST_KEPT_MS: i64 = 60_000;
/// How often one run counts at a breaker, however many tasks it had under way: it vanished once. Two of them open a breaker
/// that has seen nothing else (6 failures of 6), one alone never does.
const OF_RUN_MAX: u32 = 3;
/// Most entries of one agent; the oldest go first.
const ENTRIES_MAX: usize = 64;

/// An attempt whose worker said nothing more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostAttempt {
    /// Whose it was.
    pub agent: Name,
    /// Of which run, where the claim said so.
    pub boot_id: Option<Name>,
    /// The upstream that it went to.
    pub dependency: Option<Name>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    number: i64,
    breaker: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot_id: Option<Name>,
    count: u32,
    at_ms: i64,
}

/// What one agent lost, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Lost(Vec<Entry>);

impl Lost {
    /// Reads what a store keeps; nothing kept is nothing lost. What a newer release wrote in a way that this one cannot read is
    /// passed over: it is told for a minute, and a heartbeat must not fail for it.
    pub fn read(kept: &str) -> Self {
        if kept.is_empty() {
            return Self::default();
        }
        serde_json::from_str(kept).unwrap_or_else(|error| {
            tracing::warn!(%error, "what an agent lost cannot be read, and is passed over");
            Self::default()
        })
    }

    /// Whether nothing of what a store keeps is told any more. What cannot be read may be.
    pub fn is_over(kept: &str, now_ms: i64) -> bool {
        let lost = serde_json::from_str::<Self>(kept);
        lost.is_ok_and(|lost| !lost.0.iter().any(|entry| is_told(entry.at_ms, now_ms)))
    }

    /// Counts what is the agent's of these.
    pub fn count<'a>(&mut self, lost: impl IntoIterator<Item = &'a LostAttempt>, now_us: i64) {
        let now_ms = now_us.div_euclid(1_000);
        // After a clock was set back, what is told of the future would be told for that much longer.
        self.0.retain(|entry| is_told(entry.at_ms, now_ms));
        let last = self.0.iter().map(|entry| entry.number).max();
        let mut number = last.map_or(now_us, |last| now_us.max(last.saturating_add(1)));
        let before = self.0.len();
        for attempt in lost {
            let dependency = attempt.dependency.as_deref();
            for breaker in std::iter::once(OWN_BREAKER).chain(dependency) {
                let of_run = |entry: &&Entry| entry.breaker == breaker && entry.boot_id == attempt.boot_id;
                let known: u32 = self.0.iter().filter(of_run).map(|entry| entry.count).sum();
                if known >= OF_RUN_MAX {
                    continue;
                }
                match self.0.iter_mut().skip(before).find(|entry| of_run(&&**entry)) {
                    Some(entry) => entry.count += 1,
                    None => {
                        let (breaker, boot_id) = (breaker.to_owned(), attempt.boot_id.clone());
                        self.0.push(Entry { number, breaker, boot_id, count: 1, at_ms: now_ms });
                        number = number.saturating_add(1);
                    }
                }
            }
        }
        let too_many = self.0.len().saturating_sub(ENTRIES_MAX);
        self.0.drain(..too_many);
    }

    /// What a run is told now: what others lost lately. What was lost of its own it knows better.
    pub fn told(&self, boot_id: &Name, now_ms: i64) -> Vec<WorkerLost> {
        let others = self.0.iter().filter(|entry| entry.boot_id.as_ref() != Some(boot_id));
        let fresh = others.filter(|entry| is_told(entry.at_ms, now_ms));
        let told = fresh.map(|entry| WorkerLost {
            number: entry.number,
            breaker: entry.breaker.clone(),
            count: entry.count,
            age_ms: now_ms.saturating_sub(entry.at_ms).max(0).unsigned_abs(),
        });
        told.collect()
    }
}

fn is_told(at_ms: i64, now_ms: i64) -> bool {
    now_ms.saturating_sub(at_ms).abs() < LOST_KEPT_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: i64 = 1_700_000_000_000;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn attempt(boot_id: &str, dependency: Option<&str>) -> LostAttempt {
        LostAttempt { agent: name("a"), boot_id: Some(name(boot_id)), dependency: dependency.map(name) }
    }

    fn told(lost: &Lost, boot_id: &str, now_ms: i64) -> Vec<(String, u32, u64)> {
        let told = lost.told(&name(boot_id), now_ms).into_iter();
        told.map(|one| (one.breaker, one.count, one.age_ms)).collect()
    }

    #[test]
    fn a_run_that_vanished_counts_three_times_at_most_at_each_breaker() {
        let mut lost = Lost::default();
        let all: Vec<LostAttempt> = (0..16).map(|n| attempt("1", (n < 2).then_some("llm"))).collect();
        lost.count(&all, T0 * 1_000);
        assert_eq!(told(&lost, "2", T0 + 5), [("*".to_owned(), 3, 5), ("llm".to_owned(), 2, 5)]);
        lost.count(&[attempt("1", Some("llm")), attempt("1", Some("llm"))], T0 * 1_000);
        let entries = told(&lost, "2", T0);
        assert_eq!(entries[2..], [("llm".to_owned(), 1, 0)], "found with the next look");
        lost.count(&[attempt("2", None)], T0 * 1_000);
        assert_eq!(told(&lost, "3", T0).len(), 4);
        assert_eq!(told(&lost, "2", T0).len(), 3, "its own it knows better");
    }

    #[test]
    fn numbers_rise_and_what_is_old_is_told_no_more() {
        let mut lost = Lost::default();
        lost.count(&[attempt("1", Some("llm"))], T0 * 1_000);
        lost.count(&[attempt("2", None)], T0 * 1_000 - 5_000_000);
        let numbers: Vec<i64> = lost.told(&name("9"), T0).iter().map(|one| one.number).collect();
        assert_eq!(numbers, [T0 * 1_000, T0 * 1_000 + 1, T0 * 1_000 + 2], "also by a clock that went back");
        assert_eq!(told(&lost, "9", T0 + LOST_KEPT_MS - 1).len(), 2);
        assert_eq!(told(&lost, "9", T0 + LOST_KEPT_MS), []);
        lost.count(&[attempt("3", None)], (T0 + LOST_KEPT_MS) * 1_000);
        assert_eq!(lost.0.len(), 1);
        assert_eq!(told(&lost, "9", T0 - 3_600_000), [], "nor after the clock was set back by an hour");
    }

    #[test]
    fn an_agent_that_loses_everything_is_bounded_and_what_is_kept_can_be_read() {
        let mut lost = Lost::default();
        for n in 0..1_000 {
            lost.count(&[attempt(&format!("b{n}"), Some(&format!("d{n}")))], T0 * 1_000);
        }
        assert_eq!(lost.0.len(), ENTRIES_MAX);
        let kept = serde_json::to_string(&lost).unwrap();
        assert_eq!(Lost::read(&kept), lost);
        assert_eq!(Lost::read(""), Lost::default());
        assert_eq!(Lost::read("{\"of\": \"a newer release\"}"), Lost::default());
    }
}
