//! A clock that was set back: what a gate waits for must not wait for that much longer.

use super::Gate;
use super::phase::Phase;

/// A step back of less than this (ms) is two coordinators that read the clock in one order and arrived in the other.
const STEP_BACK_MS: i64 = 1_000;

impl Gate {
    /// Was told of something that happened then. That may be told late: it says nothing of a clock that was set back.
    pub(super) fn mind_the_time(&mut self, at_ms: i64) {
        self.seen_ms = self.seen_ms.max(at_ms);
    }

    /// Moves every time that it remembers with the clock.
    pub(super) fn mind_the_clock(&mut self, now_ms: i64) {
        if now_ms > self.seen_ms {
            self.seen_ms = now_ms;
            return;
        }
        let by_ms = self.seen_ms.saturating_sub(now_ms);
        if by_ms < STEP_BACK_MS {
            return;
        }
        self.seen_ms = now_ms;
        self.phase = match self.phase {
            Phase::Shut { until_ms } => Phase::Shut { until_ms: until_ms.saturating_sub(by_ms) },
            Phase::Canary { another_ms, after_hint } => {
                Phase::Canary { another_ms: another_ms.map(|at_ms| at_ms.saturating_sub(by_ms)), after_hint }
            }
            Phase::Ramp { share, from_ms, full_per_s, pressed_ms } => Phase::Ramp {
                share,
                from_ms: from_ms.saturating_sub(by_ms),
                full_per_s,
                pressed_ms: pressed_ms.saturating_sub(by_ms),
            },
            phase @ (Phase::Open | Phase::Isolated) => phase,
        };
        for at_ms in [&mut self.since_ms, &mut self.tripped_ms, &mut self.worked_ms] {
            *at_ms = at_ms.saturating_sub(by_ms);
        }
        self.blocked.iter_mut().for_each(|(_, _, at_ms)| *at_ms = at_ms.saturating_sub(by_ms));
        self.agents.iter_mut().for_each(|(_, at_ms)| *at_ms = at_ms.saturating_sub(by_ms));
        if let Some(before) = &mut self.before_refusal {
            before.set_back(by_ms);
        }
        self.sample.set_back(by_ms);
        self.pace.set_back(by_ms);
        self.ramp_pace.set_back(by_ms);
        self.in_flight.set_back(by_ms);
        self.tokens.set_back(by_ms);
    }
}
