//! What is counted during one run.

use redrive_shared::retry::EndReason;

use crate::curve::Recorder;
use crate::dependency::Trouble;
use crate::peak::Peak;
use crate::report::{Curve, Figures};
use crate::scenario::Cost;

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It worked; whether it had failed before.
    Succeeded { recovered: bool },
    /// Its attempts were used up.
    Dead,
    /// A person has to look at it.
    Escalated { reason: EndReason },
}

/// The counters of one run.
#[derive(Debug)]
pub(crate) struct Tally {
    begun: u64,
    succeeded: u64,
    recovered: u64,
    dead: u64,
    escalated: u64,
    past_deadline: u64,
    calls: u64,
    retries: u64,
    troubles: [u64; Trouble::COUNT],
    held: u64,
    steps: u64,
    steps_again: u64,
    delays: u64,
    delays_ms: u64,
    waited_us: u64,
    longest_wait_us: u64,
    backlog_most: u64,
    last_end_us: u64,
    times: Times,
    load: Peak,
    storm: Peak,
    recorder: Recorder,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            begun: 0,
            succeeded: 0,
            recovered: 0,
            dead: 0,
            escalated: 0,
            past_deadline: 0,
            calls: 0,
            retries: 0,
            troubles: [0; Trouble::COUNT],
            held: 0,
            steps: 0,
            steps_again: 0,
            delays: 0,
            delays_ms: 0,
            waited_us: 0,
            longest_wait_us: 0,
            backlog_most: 0,
            last_end_us: 0,
            times: Times::default(),
            load: Peak::new(),
            storm: Peak::new(),
            recorder: Recorder::new(),
        }
    }

    pub(crate) fn begin(&mut self, now_us: u64) {
        self.begun += 1;
        self.backlog_most = self.backlog_most.max(self.begun - self.over());
        self.recorder.begun(now_us);
    }

    pub(crate) fn hold(&mut self) {
        self.held += 1;
    }

    /// Steps are done, for a second time or not.
    pub(crate) fn steps(&mut self, count: u32, again: bool) {
        self.steps += u64::from(count);
        self.steps_again += if again { u64::from(count) } else { 0 };
    }

    /// A call has reached the dependency.
    pub(crate) fn call(&mut self, now_us: u64, retry: bool) {
        self.calls += 1;
        self.load.count(now_us);
        if retry {
            self.retries += 1;
            self.storm.count(now_us);
        }
        self.recorder.call(now_us, retry);
    }

    /// An attempt begins that waited for so long, in a task that has now waited for that long altogether.
    pub(crate) fn wait(&mut self, waited_us: u64, altogether_us: u64) {
        self.waited_us += waited_us;
        self.longest_wait_us = self.longest_wait_us.max(altogether_us);
    }

    pub(crate) fn trouble(&mut self, trouble: Trouble) {
        self.troubles[trouble as usize] += 1;
    }

    pub(crate) fn delay(&mut self, delay_ms: u64) {
        self.delays += 1;
        self.delays_ms += delay_ms;
    }

    pub(crate) fn end(&mut self, end: End, now_us: u64, took_us: u64) {
        self.last_end_us = now_us;
        let recovered = match end {
            End::Succeeded { recovered } => {
                self.succeeded += 1;
                self.times.count(took_us);
                recovered
            }
            End::Dead => {
                self.dead += 1;
                false
            }
            End::Escalated { reason } => {
                self.escalated += 1;
                self.past_deadline += u64::from(reason == EndReason::PastDeadline);
                false
            }
        };
        self.recovered += u64::from(recovered);
        self.recorder.ended(now_us, recovered);
    }

    pub(crate) fn last_end_us(&self) -> u64 {
        self.last_end_us
    }

    fn over(&self) -> u64 {
        self.succeeded + self.dead + self.escalated
    }

    /// The figures of the run, which ended at that instant, and its curve.
    pub(crate) fn finish(self, cost: Cost, (openings, shuts): (u64, u64), now_us: u64) -> (Figures, Curve) {
        let unfinished = self.begun - self.over();
        let number = |count: u64| count as f64;
        let trouble = |trouble: Trouble| number(self.troubles[trouble as usize]);
        let waited_s = number(self.waited_us) / 1_000_000.0;
        let cost_calls_usd = number(self.calls) * cost.per_call_usd;
        let cost_waiting_usd = waited_s * cost.per_wait_s_usd;
        let at_least_usd = number(self.calls - self.retries) * cost.per_call_usd;
        let cost_usd = cost_calls_usd + cost_waiting_usd;
        let over = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        let figures = Figures {
            tasks: number(self.begun),
            succeeded: number(self.succeeded),
            recovered: number(self.recovered),
            dead: number(self.dead),
            escalated: number(self.escalated),
            past_deadline: number(self.past_deadline),
            unfinished: number(unfinished),
            calls: number(self.calls),
            retries: number(self.retries),
            failed: trouble(Trouble::Failed),
            overloaded: trouble(Trouble::Overloaded),
            rate_limited: trouble(Trouble::RateLimited),
            timed_out: trouble(Trouble::TimedOut),
            conflicts: trouble(Trouble::Conflict),
            held_back: number(self.held),
            breaker_openings: number(openings),
            gate_shuts: number(shuts),
            steps: number(self.steps),
            steps_repeated: number(self.steps_again),
            completed_ms: number(self.last_end_us) / 1_000.0,
            p50_ms: self.times.percentile_ms(0.5),
            p99_ms: self.times.percentile_ms(0.99),
            delay_mean_ms: over(number(self.delays_ms), number(self.delays)),
            wait_mean_ms: over(waited_s * 1_000.0, number(self.begun)),
            wait_max_ms: number(self.longest_wait_us) / 1_000.0,
            calls_peak_per_s: number(self.load.most()),
            retries_peak_per_s: number(self.storm.most()),
            backlog_peak: number(self.backlog_most),
            cost_calls_usd,
            cost_waiting_usd,
            cost_usd,
            cost_extra_percent: over(cost_usd - at_least_usd, at_least_usd) * 100.0,
        };
        (figures, self.recorder.finish(now_us))
    }
}

/// Durations, counted in buckets that are 2 % wide: a million of them take no more room than ten.
#[derive(Debug, Default)]
struct Times {
    counts: Vec<u64>,
}

impl Times {
    const PER_E_FOLD: f64 = 50.0;

    fn count(&mut self, duration_us: u64) {
        let index = ((duration_us.max(1) as f64).ln() * Self::PER_E_FOLD) as usize;
        if self.counts.len() <= index {
            self.counts.resize(index + 1, 0);
        }
        self.counts[index] += 1;
    }

    /// The duration that this share of all did not exceed, in milliseconds, within 1 %; 0 where there were none.
    fn percentile_ms(&self, share: f64) -> f64 {
        let wanted = self.counts.iter().sum::<u64>() as f64 * share;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if *count > 0 && seen as f64 >= wanted {
                return ((index as f64 + 0.5) / Self::PER_E_FOLD).exp() / 1_000.0;
            }
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_within_a_hundredth() {
        let mut times = Times::default();
        (1..=1_000).for_each(|ms| times.count(ms * 1_000));
        assert!((times.percentile_ms(0.5) / 500.0 - 1.0).abs() < 0.011);
        assert!((times.percentile_ms(0.99) / 990.0 - 1.0).abs() < 0.011);
        assert_eq!(Times::default().percentile_ms(0.5), 0.0);
    }
}
