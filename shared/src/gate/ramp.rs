//! The way back: a rate that grows with time and falls with failures.

use super::pace::Rate;
use super::phase::{Change, Phase, Reason};
use super::{Gate, RAMP_MS, UNKNOWN_PER_S};

/// The share that a ramp begins with after failures: what was down may still be cold.
const AFTER_FAILURES: f64 = 0.1;
/// The share that it begins with after too many calls: the dependency is well. Less costs time, more brings the next
/// refusal sooner; 0.7 is that of CUBIC TCP.
const AFTER_LIMIT: f64 = 0.7;
/// The smallest share that halving leaves.
const LEAST_SHARE: f64 = 0.01;
/// Of a rate that turned out to be too much, what is taken as the whole.
const SAFE_SHARE: f64 = 0.9;
/// A rate that has not held anybody back for this long (ms) was not the one at which there were too many calls.
const PRESSED_MS: i64 = 5_000;
/// The lowest rate that is taken as the whole: one call in ten seconds.
const FULL_MIN_PER_S: f64 = 0.1;

impl Gate {
    pub(super) fn begin_ramp(&mut self, reason: Reason, now_ms: i64) -> Change {
        let well = matches!(self.phase, Phase::Open | Phase::Canary { after_hint: true, .. });
        let share = if well { AFTER_LIMIT } else { AFTER_FAILURES };
        if self.phase != Phase::Open {
            // Who had something to tell of before the refusal has told it while the gate was shut.
            self.before_refusal = None;
        }
        let full_per_s = self.full_per_s.unwrap_or(UNKNOWN_PER_S);
        let ramp = Phase::Ramp { share, from_ms: now_ms, full_per_s, pressed_ms: now_ms };
        self.ramp_pace = super::Pace::default();
        self.enter(ramp, reason, now_ms)
    }

    /// The share of the whole that passes now; none where no ramp is under way. A cubic: fast at first, flat where the whole
    /// is reached (after [`RAMP_MS`]), since that is where too much may begin, and ever faster beyond, since the whole may
    /// have been an underestimate. It is that of CUBIC TCP (Ha, Rhee and Xu 2008; RFC 9438), for the same reasons.
    pub(super) fn share(&self, now_ms: i64) -> Option<f64> {
        let Phase::Ramp { share, from_ms, .. } = self.phase else { return None };
        let progress = now_ms.saturating_sub(from_ms).max(0) as f64 / RAMP_MS as f64;
        Some(1.0 - (1.0 - share) * (1.0 - progress).powi(3))
    }

    /// Calls a second that a ramp lets through now.
    pub fn rate_per_s(&self, now_ms: i64) -> Option<f64> {
        self.ramp_rate(now_ms).map(|rate| rate.per_s)
    }

    pub(super) fn ramp_rate(&self, now_ms: i64) -> Option<Rate> {
        let Phase::Ramp { full_per_s, .. } = self.phase else { return None };
        self.share(now_ms).map(|share| Rate::smooth(full_per_s * share))
    }

    pub(super) fn take_of_ramp(&mut self, wanted: u32, now_us: i64) -> u32 {
        let now_ms = now_us.div_euclid(1_000);
        let Some(rate) = self.ramp_rate(now_ms) else { return 0 };
        let granted = self.ramp_pace.take(wanted, rate, now_us);
        if granted < wanted
            && let Phase::Ramp { pressed_ms, .. } = &mut self.phase
        {
            *pressed_ms = now_ms;
        }
        granted
    }

    pub(super) fn give_back_to_ramp(&mut self, unused: u32) {
        if let Phase::Ramp { from_ms, .. } = self.phase
            && let Some(rate) = self.ramp_rate(from_ms)
        {
            self.ramp_pace.give_back(unused, rate);
        }
    }

    /// A failure halves the rate, once for all calls that were under way.
    pub(super) fn halve(&mut self, now_ms: i64) {
        let (Some(share), Phase::Ramp { full_per_s, .. }) = (self.share(now_ms), self.phase) else { return };
        // Where it grew beyond the whole, that is the whole now.
        self.restart((share.min(1.0) / 2.0).max(LEAST_SHARE), full_per_s * share.max(1.0), now_ms);
    }

    /// Too many calls, and no word of when to come back: once for all that were under way, the rate is what is learnt from
    /// that.
    pub(super) fn throttle(&mut self, now_ms: i64) {
        self.learn_full(now_ms);
        self.restart(AFTER_LIMIT, self.full_per_s.unwrap_or(UNKNOWN_PER_S), now_ms);
    }

    /// Goes on with a ramp from another rate. What was started at the old one says nothing about it.
    fn restart(&mut self, share: f64, full_per_s: f64, now_ms: i64) {
        if let Phase::Ramp { .. } = self.phase {
            self.before_refusal = None;
            self.phase = Phase::Ramp { share, from_ms: now_ms, full_per_s, pressed_ms: now_ms };
            self.since_ms = now_ms;
        }
    }

    /// Before the gate shuts: what was too much, or at what rate calls worked, is the whole of the next ramp.
    pub(super) fn learn_full(&mut self, now_ms: i64) {
        let learnt = match self.phase {
            Phase::Ramp { pressed_ms, .. } => {
                let idle = now_ms.saturating_sub(pressed_ms) > PRESSED_MS;
                let best_per_s = self.sample.best_rate(now_ms).filter(|_| idle).unwrap_or(f64::INFINITY);
                self.ramp_rate(now_ms).map(|rate| rate.per_s.min(best_per_s) * SAFE_SHARE)
            }
            Phase::Open => self.sample.best_rate(now_ms),
            Phase::Shut { .. } | Phase::Canary { .. } | Phase::Isolated => None,
        };
        self.before_refusal = None;
        if let Some(per_s) = learnt {
            self.full_per_s = Some(self.bounded(per_s));
        } else if let (None, Some(limit)) = (self.full_per_s, self.limit()) {
            self.full_per_s = Some(limit.per_s);
        }
    }

    /// What may be taken for the whole: never more than the limit that is set.
    pub(super) fn bounded(&self, per_s: f64) -> f64 {
        let limit = self.limit().map_or(f64::INFINITY, |limit| limit.per_s);
        per_s.clamp(FULL_MIN_PER_S, limit.max(FULL_MIN_PER_S))
    }
}
