//! What a gate learns from how calls ended.

use super::phase::{Alarm, Change, Phase, Reason};
use super::sample::Tally;
use super::{Gate, HINT_MAX_MS, SHUT_MAX_MS, SHUT_MS, TRIPS_RESET_MS};
use crate::breaker::{Counting, counting};
use crate::failure::FailureClass;
use crate::id::Name;

/// Fewest outcomes of a minute on which failures shut a gate.
const OUTCOMES_MIN: u32 = 10;
/// Failures must outnumber successes by this many: at an error rate of 20 % that is reached by chance once in
/// (0.8 / 0.2)^8 = 65,536 starts (the gambler's ruin), where a bare half of ten outcomes is once in 30.
const FAILURES_MARGIN: u32 = 8;
/// The same for failures that outnumber the successes since they last did not: a busy dependency would have to fail for half
/// a minute until failures are most of a minute. At an error rate of 30 % it is reached once in (0.7 / 0.3)^20 = 23 million
/// starts, at 40 % once in 3,300, and there time is what is lost. Only calls that were handed out count: of those that agents
/// make themselves, successes are reported later than failures.
const STRAIN_MAX: u32 = 20;
/// Failures that isolate, and the agents that they must come from where there are several.
const BLOCKED_MIN: usize = 3;
const BLOCKED_AGENTS_MIN: usize = 2;
/// How long nothing may have worked before a dependency is isolated, and how long a failure counts towards it, in ms.
pub(super) const BLOCKED_QUIET_MS: i64 = 60_000;
const BLOCKED_MEMORY_MS: i64 = 600_000;
/// Most agents and most failures remembered.
const REMEMBERED_MAX: usize = 8;

/// How a call ended, as far as a gate cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// It worked, or failed in a way that shows the dependency to be well.
    Success,
    /// It failed in a way that speaks against the dependency.
    Failure,
    /// There are too many calls, or there will be none for a while.
    Limited {
        /// For how long, as the server said.
        hint_ms: Option<u64>,
    },
    /// The credential or the quota is bad.
    Blocked(FailureClass),
    /// The dependency was not called, or nobody knows.
    NotMade,
}

impl Signal {
    /// What a failure says. The classes that speak against a dependency are those that a breaker counts.
    pub fn of(class: FailureClass, hint_ms: Option<u64>) -> Self {
        let hint_ms = hint_ms.filter(|hint_ms| *hint_ms > 0);
        match class {
            FailureClass::Auth | FailureClass::QuotaExhausted => Self::Blocked(class),
            FailureClass::RateLimited => Self::Limited { hint_ms },
            // The server said when to come back: that is what a gate is for, whatever the reason was.
            FailureClass::Overloaded | FailureClass::QuotaWindow if hint_ms.is_some() => {
                Self::Limited { hint_ms }
            }
            // No lock, or no worker: that says nothing about the dependency.
            FailureClass::LockTimeout | FailureClass::WorkerLost => Self::NotMade,
            _ => match counting(class) {
                Counting::Counted | Counting::FailsProbe => Self::Failure,
                Counting::NotCounted => Self::Success,
            },
        }
    }
}

/// Calls of one agent that ended alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// How.
    pub signal: Signal,
    /// How many.
    pub count: u32,
    /// Who made them, if it is known.
    pub agent: Option<Name>,
    /// When the first of them was handed out: what is older than a gate's state decides nothing about it. 0: they were not
    /// handed out, but made by agents themselves.
    pub started_ms: i64,
}

impl Gate {
    /// Hears how calls ended at `now_ms`, which may be told late. `jitter` is from [0, 1): gates that shut together do not
    /// open together.
    pub fn hear(&mut self, heard: &Heard, now_ms: i64, jitter: f64) -> Option<Change> {
        self.mind_the_time(now_ms);
        let fresh = heard.started_ms >= self.since_ms;
        // What was under way when the gate changed was judged with that: only a hint says something new.
        let stale = !fresh && heard.started_ms > 0;
        if stale && matches!(heard.signal, Signal::Failure | Signal::Blocked(_)) {
            return None;
        }
        self.remember(heard, now_ms);
        match heard.signal {
            Signal::Success => self.worked(fresh, now_ms),
            Signal::Failure => self.failed(fresh, now_ms, jitter),
            Signal::Limited { hint_ms } => self.limited(hint_ms, fresh, now_ms, jitter),
            Signal::Blocked(class) => self.block(class, heard, fresh, now_ms, jitter),
            Signal::NotMade => {
                if let (true, Phase::Canary { after_hint, .. }) = (fresh, self.phase) {
                    self.phase = Phase::Canary { another_ms: None, after_hint };
                }
                None
            }
        }
    }

    fn remember(&mut self, heard: &Heard, now_ms: i64) {
        let count = heard.count;
        let tally = match heard.signal {
            Signal::Success => Tally { successes: count, ..Tally::default() },
            Signal::Failure | Signal::Blocked(_) if heard.started_ms == 0 => {
                Tally { handed_over: count, ..Tally::default() }
            }
            Signal::Failure | Signal::Blocked(_) => Tally { failures: count, ..Tally::default() },
            Signal::Limited { .. } => Tally { limited: count, ..Tally::default() },
            Signal::NotMade => return,
        };
        self.sample.add(tally, now_ms);
        if heard.started_ms > 0 {
            self.strain = self.strain.saturating_add(tally.failures).saturating_sub(tally.successes);
        }
        let Some(agent) = &heard.agent else { return };
        match self.agents.iter_mut().find(|(known, _)| known == agent) {
            Some((_, at_ms)) => *at_ms = now_ms,
            None => {
                self.agents.retain(|(_, at_ms)| now_ms.saturating_sub(*at_ms) <= BLOCKED_MEMORY_MS);
                if self.agents.len() < REMEMBERED_MAX {
                    self.agents.push((agent.clone(), now_ms));
                }
            }
        }
    }

    fn worked(&mut self, fresh: bool, now_ms: i64) -> Option<Change> {
        self.worked_ms = now_ms;
        self.blocked.clear();
        match self.phase {
            Phase::Canary { .. } if fresh => Some(self.begin_ramp(Reason::CanaryPassed, now_ms)),
            _ => None,
        }
    }

    fn failed(&mut self, fresh: bool, now_ms: i64, jitter: f64) -> Option<Change> {
        match self.phase {
            Phase::Canary { .. } if fresh => Some(self.trip(Reason::CanaryFailed, now_ms, jitter)),
            Phase::Open | Phase::Ramp { .. } => {
                if self.fails_everywhere(now_ms) {
                    return Some(self.trip(Reason::Failures, now_ms, jitter));
                }
                if fresh && self.fails_often(now_ms) {
                    self.halve(now_ms);
                }
                None
            }
            Phase::Canary { .. } | Phase::Shut { .. } | Phase::Isolated => None,
        }
    }

    fn limited(&mut self, hint_ms: Option<u64>, fresh: bool, now_ms: i64, jitter: f64) -> Option<Change> {
        match (self.phase, hint_ms) {
            (Phase::Isolated, _) => None,
            (Phase::Shut { until_ms }, Some(hint_ms)) => {
                // Others were told to stay away for longer.
                self.phase = Phase::Shut { until_ms: until_ms.max(until(hint_ms, now_ms, jitter)) };
                None
            }
            (Phase::Open | Phase::Ramp { .. } | Phase::Canary { .. }, Some(hint_ms)) => {
                if self.phase == Phase::Open {
                    self.learn_of_refusal(now_ms);
                } else if fresh {
                    self.learn_full(now_ms);
                }
                let until_ms = until(hint_ms, now_ms, jitter);
                Some(self.enter(Phase::Shut { until_ms }, Reason::Hint, now_ms))
            }
            (Phase::Open, None) => {
                self.learn_of_refusal(now_ms);
                Some(self.begin_ramp(Reason::RateLimited, now_ms))
            }
            (Phase::Ramp { .. }, None) => {
                if fresh {
                    self.throttle(now_ms);
                }
                None
            }
            (Phase::Canary { .. }, None) if fresh => Some(self.trip(Reason::CanaryFailed, now_ms, jitter)),
            (Phase::Canary { .. } | Phase::Shut { .. }, None) => None,
        }
    }

    fn block(
        &mut self,
        class: FailureClass,
        heard: &Heard,
        fresh: bool,
        now_ms: i64,
        jitter: f64,
    ) -> Option<Change> {
        self.blocked.retain(|(_, _, at_ms)| now_ms.saturating_sub(*at_ms) <= BLOCKED_MEMORY_MS);
        for _ in 0..heard.count.min(BLOCKED_MIN as u32) {
            if self.blocked.len() == REMEMBERED_MAX {
                // The first one says since when.
                self.blocked.remove(1);
            }
            self.blocked.push_back((class, heard.agent.clone(), now_ms));
        }
        if self.phase == Phase::Isolated {
            return None;
        }
        if self.is_blocked_for_all(now_ms) {
            let alarm = self.raise_alarm(class, now_ms);
            self.learn_full(now_ms);
            let change = self.enter(Phase::Isolated, Reason::Blocked, now_ms);
            self.alarm = Some(alarm);
            return Some(change);
        }
        self.failed(fresh, now_ms, jitter)
    }

    fn is_blocked_for_all(&self, now_ms: i64) -> bool {
        let mut agents: Vec<&Name> = self.blocked.iter().filter_map(|(_, agent, _)| agent.as_ref()).collect();
        agents.sort();
        agents.dedup();
        // The only agent that there is speaks for all. What nobody is known to have met may be one producer's own key.
        let enough = agents.len() >= BLOCKED_AGENTS_MIN.min(self.agents.len()) && !agents.is_empty();
        self.blocked.len() >= BLOCKED_MIN
            && enough
            && now_ms.saturating_sub(self.worked_ms) >= BLOCKED_QUIET_MS
    }

    fn raise_alarm(&self, class: FailureClass, now_ms: i64) -> Alarm {
        let mut agents: Vec<Name> = Vec::new();
        for (_, agent, _) in &self.blocked {
            agents.extend(agent.iter().filter(|agent| !agents.contains(agent)).cloned().collect::<Vec<_>>());
        }
        let since_ms = self.blocked.front().map_or(now_ms, |(_, _, at_ms)| *at_ms);
        Alarm { class: Some(class), agents, since_ms }
    }

    /// Whether the last minute's outcomes speak against the dependency.
    fn fails_everywhere(&self, now_ms: i64) -> bool {
        let Tally { successes, mut failures, reported, handed_over, .. } = self.sample.sum(now_ms);
        if reported > 0 {
            failures = failures.saturating_add(handed_over);
        }
        let most = successes.saturating_add(failures) >= OUTCOMES_MIN
            && failures >= successes.saturating_add(FAILURES_MARGIN);
        most || self.strain.min(failures) >= STRAIN_MAX
    }

    /// Whether lately more than one call in three failed. A ramp that halved at every failure would never reach the whole of
    /// a dependency that always fails now and then: at 2 % and ten calls a second, there is one in five seconds.
    fn fails_often(&self, now_ms: i64) -> bool {
        let Tally { successes, failures, .. } = self.sample.recent(now_ms);
        failures.saturating_mul(2) > successes
    }

    /// Failures shut it, for longer each time in a row.
    fn trip(&mut self, reason: Reason, now_ms: i64, jitter: f64) -> Change {
        if now_ms.saturating_sub(self.tripped_ms) > TRIPS_RESET_MS {
            self.trips = 0;
        }
        if self.phase == Phase::Open {
            // In a ramp it is the dependency that failed, and not the rate that was too much.
            self.learn_full(now_ms);
        }
        self.trips = self.trips.saturating_add(1);
        self.tripped_ms = now_ms;
        let wait_ms = (SHUT_MS << (self.trips - 1).min(8)).min(SHUT_MAX_MS);
        let until_ms = now_ms.saturating_add_unsigned(spread(wait_ms, jitter));
        // Judged once: the same outcomes must not shut it again after the next canary.
        self.sample.forget_outcomes();
        self.strain = 0;
        self.enter(Phase::Shut { until_ms }, reason, now_ms)
    }
}

/// Until when a hint shuts a gate: never before it, up to its bound.
fn until(hint_ms: u64, now_ms: i64, jitter: f64) -> i64 {
    let hint_ms = hint_ms.min(HINT_MAX_MS);
    now_ms.saturating_add_unsigned(hint_ms + (hint_ms as f64 * 0.05 * jitter.clamp(0.0, 1.0)) as u64)
}

/// Up to a fifth longer, as breakers do.
fn spread(wait_ms: u64, jitter: f64) -> u64 {
    wait_ms + (wait_ms as f64 * 0.2 * jitter.clamp(0.0, 1.0)) as u64
}
