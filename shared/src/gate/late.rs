//! What others had handed out when one coordinator was refused: they tell of it a moment later.
//!
//! A storm is refused within milliseconds. Whoever hears of that knows only what it handed out itself, and would take that
//! for the whole rate; a ramp needs minutes to find out that it is a third of it. So a refusal of an open gate keeps the last
//! stretch of time before it apart, and what is told late of that stretch raises the whole rate.

use serde::{Deserialize, Serialize};

use super::Gate;
use super::phase::Phase;
use super::sample::{BUCKET_MS, RATE_OVER_MS};

/// How much later than a refusal (ms) what was handed out before it may be told by who has heard nothing of it yet: the claim
/// was answered just before.
const CLAIMED_WITHIN_MS: i64 = 100;

/// The last calls before a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BeforeRefusal {
    /// When the first of them was handed out, at most [`BUCKET_MS`] before the refusal.
    from_ms: i64,
    /// When it was heard of.
    until_ms: i64,
    /// Those that were neither refused nor failed until then, and those that were told of later.
    calls: u32,
}

impl BeforeRefusal {
    /// The clock was set back by so much.
    pub fn set_back(&mut self, by_ms: i64) {
        self.from_ms = self.from_ms.saturating_sub(by_ms);
        self.until_ms = self.until_ms.saturating_sub(by_ms);
    }

    fn per_s(self) -> f64 {
        let elapsed_ms = self.until_ms.saturating_sub(self.from_ms).clamp(RATE_OVER_MS, BUCKET_MS);
        f64::from(self.calls) * 1_000.0 / elapsed_ms as f64
    }
}

impl Gate {
    /// Before an open gate is shut by a refusal: learns the whole rate as far as it is known, and that more may be told.
    pub(super) fn learn_of_refusal(&mut self, now_ms: i64) {
        self.learn_full(now_ms);
        let (from_ms, calls) = self.sample.last(now_ms).unwrap_or((now_ms, 0));
        self.before_refusal = Some(BeforeRefusal { from_ms, until_ms: now_ms, calls });
    }

    /// So many calls were handed out then. What refuses or fails of them is not known: it never lowers the rate.
    pub(super) fn learn_late(&mut self, calls: u32, at_ms: i64) {
        let shut = matches!(self.phase, Phase::Shut { .. });
        let within_ms = if shut { CLAIMED_WITHIN_MS } else { 0 };
        let Some(mut before) = self.before_refusal else { return };
        if at_ms > before.until_ms + within_ms || at_ms <= before.until_ms - BUCKET_MS {
            return;
        }
        before.from_ms = before.from_ms.min(at_ms);
        before.calls = before.calls.saturating_add(calls);
        self.before_refusal = Some(before);
        let per_s = self.bounded(before.per_s());
        if self.full_per_s.is_some_and(|known_per_s| known_per_s >= per_s) {
            return;
        }
        self.full_per_s = Some(per_s);
        // Without a hint the ramp has begun already.
        if let Phase::Ramp { full_per_s, .. } = &mut self.phase {
            *full_per_s = per_s;
        }
    }
}
