//! The circuit breaker that each worker runs, for its agent and for each dependency of it.
//!
//! ```text
//!       more failures (or slow calls) than their share, by a margin
//!   closed ────────────────────────────────────────────────────────▶ open ◀──────────────────┐
//!     ▲                                                               │ the wait is over     │ the probe fails
//!     │ enough probes in a row succeed                                ▼                      │ or is lost
//!     └──────────────────────────────────────────────────────────  half_open ────────────────┘
//!
//!   any ──isolate──▶ isolated        any ──close or reset──▶ closed        (both by a person)
//! ```
//!
//! Pure: time and randomness are passed in, nothing is spawned, and no call is ever made from here. What time alone
//! changes (a wait that ends, a probe that is lost) is worked out whenever anybody looks, and dated to when it was due,
//! so that a breaker that nobody asks for an hour is where it would be had it been asked every millisecond.
//!
//! # Why each rule is there
//!
//! - **A permit carries the generation** in which it was given, and a result of an earlier generation changes nothing.
//!   Calls outlive states: one that began before the outage can end in the middle of the probe, and in breakers that
//!   judge whatever result arrives, that stray result closes or opens them (Polly #217 and PR #223). The generation
//!   rises with every change of state, with every probe and with a reset, so nothing can decide twice either.
//! - **One probe at a time.** A breaker that lets everyone in as soon as its wait ends stampedes a dependency that has
//!   only just got up (Polly #254, opossum #119).
//! - **A probe has a deadline**, after which it counts as failed. A permit is a plain value that can be lost with the
//!   task that held it; where lost probes are waited for, the breaker stays half-open for ever (resilience4j #903, #935,
//!   #2028).
//! - **An outcome that says nothing gives the permit back**, and the next probe may go. Where an ignored error uses up
//!   the probe, the same wedge follows (resilience4j #544).
//! - **The wait doubles** with each opening in a row, up to a cap: a long outage is probed less often, and its end is
//!   still seen within minutes. Ten minutes closed forget the past.
//! - **A margin besides the rate.** A share of a few calls is mostly luck; see below.
//! - **Jitter only lengthens the wait**: agents that tripped together must not probe together.
//! - **Nothing but a person ends an isolation.** It is for what time does not heal, such as a key that was revoked.
//! - **A clock that steps back** neither stretches a wait nor empties the window ([`Timeline`]).
//!
//! # Why a margin
//!
//! Where one call in five fails, three of five fail in one sample of 17: a breaker that judged five outcomes by their bare
//! rate opened an agent with three calls a minute five times an hour, with nothing wrong. So it trips when
//!
//! ```text
//!   failures ≥ failure_rate · outcomes + trip_margin
//! ```
//!
//! The sum of (failed − `failure_rate`) over the calls is a random walk; it drifts away from the margin while fewer calls
//! fail than `failure_rate`, and towards it when more do. A line of this form is where Wald's sequential test stops that
//! asks whether calls fail with probability p or 1 − p (A. Wald, "Sequential Tests of Statistical Hypotheses", Annals of
//! Mathematical Statistics 16, 1945). A walk from 0 with `failure_rate` ½ ever reaches the margin c with probability
//! **(p / (1 − p))^2c** for p < ½: the ruin problem (W. Feller, "An Introduction to Probability Theory", volume 1, XIV.2).
//! For other rates r it is at most e^−θc, with the θ > 0 for which p·e^θ(1−r) + (1−p)·e^−θr = 1.
//!
//! With the default of 3 that is 1 in 4,096 for p = 0.2, and what is wholly down trips a new breaker with its sixth call,
//! 2c of them. A quiet agent's walk is cut to the last 8 outcomes: it trips at 7 failures among them, which chance makes
//! once in 18,100 calls at p = 0.2, and an outage in 7. `docs/simulate.md` has the alternatives, measured.
//!
//! # How a worker uses it
//!
//! [`acquire`](Breaker::acquire) before each call, [`report`](Breaker::report) after it with the permit, exactly once;
//! a call that was not made after all reports [`Outcome::Ignored`]. Transitions that a report makes are returned by it;
//! those that time makes are queued for [`poll`](Breaker::poll): between them each transition is heard exactly once.
//! [`next_change_ms`](Breaker::next_change_ms) says how long to sleep. A breaker is cheap to clone: check the
//! configuration once, keep a fresh breaker, and clone it for each new dependency.

mod config;
mod outcome;
mod report;

use std::collections::VecDeque;

use crate::window::{Mark, Timeline, Window};

pub use config::{BreakerConfig, BreakerConfigError};
pub use outcome::{Counting, Outcome, counting};
pub use report::{BreakerSnapshot, BreakerState, Transition, TransitionReason};

/// Transitions kept for a caller that does not poll; the oldest go first. A lost probe makes two.
const UNHEARD_MAX: usize = 16;

/// Leave to make one call. A plain value: dropping it tells the breaker nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permit {
    generation: u64,
    probe: bool,
}

impl Permit {
    /// The generation in which it was given; never less than that of an earlier permit.
    pub fn generation(self) -> u64 {
        self.generation
    }

    /// Whether the call decides what a half-open breaker does next.
    pub fn is_probe(self) -> bool {
        self.probe
    }
}

/// No leave to make a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the breaker is {state}")]
pub struct Refused {
    /// When time alone changes the state (ms): the wait ends, or the probe in flight is given up. A probe that reports
    /// may change it sooner. `None` while isolated: only a person changes that.
    pub retry_at_ms: Option<i64>,
    /// The state that refused: open, isolated, or half-open with its probe in flight.
    pub state: BreakerState,
}

/// The state with what belongs to it. Times are those of the breaker's own timeline.
#[derive(Debug, Clone, Copy)]
enum Phase {
    Closed,
    Open { until_ms: i64 },
    HalfOpen { probe_deadline_ms: Option<i64>, successes: u32 },
    Isolated,
}

impl Phase {
    fn state(self) -> BreakerState {
        match self {
            Self::Closed => BreakerState::Closed,
            Self::Open { .. } => BreakerState::Open,
            Self::HalfOpen { .. } => BreakerState::HalfOpen,
            Self::Isolated => BreakerState::Isolated,
        }
    }
}

/// A circuit breaker. See the module's page.
#[derive(Debug, Clone)]
pub struct Breaker {
    config: BreakerConfig,
    timeline: Timeline,
    window: Window,
    phase: Phase,
    since_ms: Option<i64>,
    not_closed_since_ms: Option<i64>,
    generation: u64,
    trips: u32,
    openings: u64,
    /// The draw behind the latest wait. A probe is found lost where nobody has brought a new one; the old one keeps the
    /// agents as far apart as they were.
    draw: f64,
    unheard: VecDeque<Transition>,
}

impl Breaker {
    /// A closed breaker with an empty window.
    ///
    /// # Errors
    /// The configuration does not pass [`BreakerConfig::validate`].
    pub fn new(config: BreakerConfig) -> Result<Self, BreakerConfigError> {
        config.validate()?;
        let window =
            Window::new(config.window_ms, config.buckets, config.recent_outcomes, config.recent_max_age_ms);
        Ok(Self {
            config,
            timeline: Timeline::default(),
            window,
            phase: Phase::Closed,
            since_ms: None,
            not_closed_since_ms: None,
            generation: 0,
            trips: 0,
            openings: 0,
            draw: 0.0,
            unheard: VecDeque::new(),
        })
    }

    /// Whether calls go through without more ado: no time passes, nothing changes. Time alone never closes a breaker
    /// and never opens a closed one, so the answer needs no clock.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Whether a person has shut it.
    pub fn is_isolated(&self) -> bool {
        matches!(self.phase, Phase::Isolated)
    }

    /// Asks to make one call.
    ///
    /// # Errors
    /// Open, isolated, or half-open with the probe in flight: make no call.
    pub fn acquire(&mut self, now_ms: i64) -> Result<Permit, Refused> {
        let now = self.elapse(now_ms);
        match self.phase {
            Phase::Closed => Ok(Permit { generation: self.generation, probe: false }),
            Phase::Open { until_ms } => Err(self.refuse(Some(until_ms))),
            Phase::HalfOpen { probe_deadline_ms: Some(deadline_ms), .. } => {
                Err(self.refuse(Some(deadline_ms)))
            }
            Phase::HalfOpen { probe_deadline_ms: None, successes } => Ok(self.send_probe(now, successes)),
            Phase::Isolated => Err(self.refuse(None)),
        }
    }

    /// Takes the outcome of a permitted call, and returns the change of state that it makes. `jitter` draws from
    /// U[0, 1) and is called only if the breaker opens.
    ///
    /// A permit of an earlier generation changes nothing, and neither does a probe at or after its deadline. In the
    /// closed state the breaker does not remember single permits: report each one once.
    pub fn report(
        &mut self,
        permit: Permit,
        outcome: Outcome,
        now_ms: i64,
        jitter: impl FnOnce() -> f64,
    ) -> Option<Transition> {
        let now = self.elapse(now_ms);
        if permit.generation != self.generation {
            return None;
        }
        match self.phase {
            Phase::Closed => self.count(outcome, now, jitter),
            Phase::HalfOpen { probe_deadline_ms: Some(_), successes } => {
                self.judge_probe(outcome, successes, now, jitter)
            }
            // The probe of this generation has given its permit back, or there was none to give.
            Phase::HalfOpen { probe_deadline_ms: None, .. } | Phase::Open { .. } | Phase::Isolated => None,
        }
    }

    /// The next change of state that time has made and nobody has heard of; call it until it returns `None`.
    pub fn poll(&mut self, now_ms: i64) -> Option<Transition> {
        self.elapse(now_ms);
        self.unheard.pop_front()
    }

    /// The state now.
    pub fn state(&mut self, now_ms: i64) -> BreakerState {
        self.elapse(now_ms);
        self.phase.state()
    }

    /// When time alone will change the state next (ms): the end of the wait, or the probe's deadline. `None` while it is
    /// closed, isolated, or half-open with no probe in flight: those wait for a call or for a person.
    pub fn next_change_ms(&mut self, now_ms: i64) -> Option<i64> {
        self.elapse(now_ms);
        let at_ms = match self.phase {
            Phase::Open { until_ms } => Some(until_ms),
            Phase::HalfOpen { probe_deadline_ms, .. } => probe_deadline_ms,
            Phase::Closed | Phase::Isolated => None,
        };
        at_ms.map(|at_ms| self.timeline.reading_ms(at_ms))
    }

    /// How it is now, for a heartbeat.
    pub fn snapshot(&mut self, now_ms: i64) -> BreakerSnapshot {
        let now = self.elapse(now_ms);
        let counts = self.window.counts(now);
        let reading = |at_ms: i64| self.timeline.reading_ms(at_ms);
        BreakerSnapshot {
            state: self.phase.state(),
            since_ms: self.since_ms.map(reading),
            not_closed_since_ms: self.not_closed_since_ms.map(reading),
            trips: self.trips,
            openings: self.openings,
            open_until_ms: match self.phase {
                Phase::Open { until_ms } => Some(reading(until_ms)),
                Phase::Closed | Phase::HalfOpen { .. } | Phase::Isolated => None,
            },
            failures: counts.failures,
            slow_calls: counts.slow,
            outcomes: counts.outcomes(),
            command: None,
        }
    }

    /// A person shuts it until a person opens it. Changes nothing if it is isolated already.
    pub fn isolate(&mut self, now_ms: i64) -> Option<Transition> {
        let now = self.elapse(now_ms);
        match self.phase {
            Phase::Isolated => None,
            Phase::Closed | Phase::Open { .. } | Phase::HalfOpen { .. } => {
                Some(self.enter(Phase::Isolated, now, TransitionReason::Isolated))
            }
        }
    }

    /// A person lets calls through again. The window starts empty; the trips are remembered, so that it waits longer if
    /// the person was wrong. Changes nothing if it is closed already.
    pub fn close(&mut self, now_ms: i64) -> Option<Transition> {
        let now = self.elapse(now_ms);
        match self.phase {
            Phase::Closed => None,
            Phase::Open { .. } | Phase::HalfOpen { .. } | Phase::Isolated => {
                Some(self.close_at(now, TransitionReason::Closed))
            }
        }
    }

    /// A person makes it as new: closed, no trips, an empty window, and calls in flight no longer count. Returns a
    /// transition unless it was closed already.
    pub fn reset(&mut self, now_ms: i64) -> Option<Transition> {
        let now = self.elapse(now_ms);
        self.trips = 0;
        match self.phase {
            Phase::Closed => {
                self.window.clear();
                self.generation += 1;
                None
            }
            Phase::Open { .. } | Phase::HalfOpen { .. } | Phase::Isolated => {
                Some(self.close_at(now, TransitionReason::Reset))
            }
        }
    }

    // ── closed → open ────────────────────────────────────────────────────────────────────────────────────────────────

    /// Counts an outcome, and opens if the sample has become bad enough.
    fn count(&mut self, outcome: Outcome, now: i64, jitter: impl FnOnce() -> f64) -> Option<Transition> {
        let mark = match outcome {
            Outcome::Success { .. } => Mark::Success,
            Outcome::Failure { class, .. } => match counting(class) {
                Counting::Counted => Mark::Failure,
                Counting::NotCounted | Counting::FailsProbe => return None,
            },
            Outcome::Ignored => return None,
        };
        self.window.record(now, mark, self.is_slow(outcome));
        let reason = self.reason_to_open(now)?;
        Some(self.open_at(now, reason, jitter()))
    }

    fn reason_to_open(&self, now: i64) -> Option<TransitionReason> {
        let (config, counts) = (&self.config, self.window.counts(now));
        let trips = |bad, rate| config.is_tripped_by(bad, counts.outcomes(), rate);
        if counts.outcomes() < config.min_outcomes {
            None
        } else if trips(counts.failures, config.failure_rate) {
            Some(TransitionReason::FailureRate)
        } else if config.slow_call_ms.is_some() && trips(counts.slow, config.slow_call_rate) {
            Some(TransitionReason::SlowCallRate)
        } else {
            None
        }
    }

    fn open_at(&mut self, at_ms: i64, reason: TransitionReason, draw: f64) -> Transition {
        self.trips = self.trips.saturating_add(1);
        self.openings = self.openings.saturating_add(1);
        self.draw = draw.clamp(0.0, 1.0);
        let until_ms = at_ms.saturating_add(wait_ms(&self.config, self.trips, self.draw));
        self.enter(Phase::Open { until_ms }, at_ms, reason)
    }

    // ── open → half_open ─────────────────────────────────────────────────────────────────────────────────────────────

    /// Lets time pass up to `now_ms`, queues the transitions that it makes, and returns the time on the timeline.
    fn elapse(&mut self, now_ms: i64) -> i64 {
        let now = self.timeline.advance(now_ms);
        // At most two rounds: a lost probe opens it, and that wait may be over as well.
        while let Some(transition) = self.change_by_time(now) {
            if self.unheard.len() == UNHEARD_MAX {
                self.unheard.pop_front();
            }
            self.unheard.push_back(transition);
        }
        if self.is_closed() && self.has_been_in_phase(now, self.config.trips_reset_ms) {
            self.trips = 0;
        }
        now
    }

    fn change_by_time(&mut self, now: i64) -> Option<Transition> {
        match self.phase {
            Phase::Open { until_ms } if now >= until_ms => {
                let half_open = Phase::HalfOpen { probe_deadline_ms: None, successes: 0 };
                Some(self.enter(half_open, until_ms, TransitionReason::WaitOver))
            }
            Phase::HalfOpen { probe_deadline_ms: Some(deadline_ms), .. } if now >= deadline_ms => {
                Some(self.open_at(deadline_ms, TransitionReason::ProbeLost, self.draw))
            }
            Phase::Closed | Phase::Open { .. } | Phase::HalfOpen { .. } | Phase::Isolated => None,
        }
    }

    // ── half_open → closed, or open again ────────────────────────────────────────────────────────────────────────────

    fn send_probe(&mut self, now: i64, successes: u32) -> Permit {
        let deadline_ms = now.saturating_add(millis(self.config.probe_deadline_ms));
        self.phase = Phase::HalfOpen { probe_deadline_ms: Some(deadline_ms), successes };
        self.generation += 1;
        Permit { generation: self.generation, probe: true }
    }

    fn judge_probe(
        &mut self,
        outcome: Outcome,
        successes: u32,
        now: i64,
        jitter: impl FnOnce() -> f64,
    ) -> Option<Transition> {
        match self.probe_passed(outcome) {
            Some(true) if successes + 1 >= self.config.probe_successes => {
                Some(self.close_at(now, TransitionReason::ProbeSucceeded))
            }
            Some(true) => {
                self.phase = Phase::HalfOpen { probe_deadline_ms: None, successes: successes + 1 };
                None
            }
            Some(false) => Some(self.open_at(now, TransitionReason::ProbeFailed, jitter())),
            None => {
                self.phase = Phase::HalfOpen { probe_deadline_ms: None, successes };
                None
            }
        }
    }

    /// Whether the probe speaks for the dependency or against it; `None` if it says nothing.
    fn probe_passed(&self, outcome: Outcome) -> Option<bool> {
        match outcome {
            // Where slow calls count, a slow probe shows that nothing has got better.
            Outcome::Success { .. } => Some(!self.is_slow(outcome)),
            Outcome::Failure { class, .. } => match counting(class) {
                Counting::Counted | Counting::FailsProbe => Some(false),
                Counting::NotCounted => None,
            },
            Outcome::Ignored => None,
        }
    }

    fn close_at(&mut self, now: i64, reason: TransitionReason) -> Transition {
        // What was seen before the outage ended says nothing about what comes after.
        self.window.clear();
        self.enter(Phase::Closed, now, reason)
    }

    // ── common ───────────────────────────────────────────────────────────────────────────────────────────────────────

    /// The only way into another state. Every permit given before is of an earlier generation from here on.
    fn enter(&mut self, phase: Phase, at_ms: i64, reason: TransitionReason) -> Transition {
        let transition = Transition {
            from: self.phase.state(),
            to: phase.state(),
            at_ms: self.timeline.reading_ms(at_ms),
            reason,
        };
        self.phase = phase;
        self.since_ms = Some(at_ms);
        self.not_closed_since_ms =
            if self.is_closed() { None } else { self.not_closed_since_ms.or(Some(at_ms)) };
        self.generation += 1;
        transition
    }

    fn refuse(&self, until_ms: Option<i64>) -> Refused {
        let retry_at_ms = until_ms.map(|until_ms| self.timeline.reading_ms(until_ms));
        Refused { retry_at_ms, state: self.phase.state() }
    }

    fn is_slow(&self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Success { duration_ms } | Outcome::Failure { duration_ms, .. } => {
                self.config.slow_call_ms.is_some_and(|slow_call_ms| duration_ms >= slow_call_ms)
            }
            Outcome::Ignored => false,
        }
    }

    fn has_been_in_phase(&self, now: i64, for_ms: u64) -> bool {
        self.since_ms.is_some_and(|since_ms| now.saturating_sub(since_ms) >= millis(for_ms))
    }
}

/// How long the breaker stays open: `min(open_ms · open_factor^(trips − 1), open_max_ms)`, times U(1, 1 + open_jitter).
/// The jitter comes after the cap, so that agents at the cap are spread out too.
fn wait_ms(config: &BreakerConfig, trips: u32, draw: f64) -> i64 {
    let growth = u64::from(config.open_factor).saturating_pow(trips.saturating_sub(1));
    let capped_ms = config.open_ms.saturating_mul(growth).min(config.open_max_ms);
    // A draw that is not a number ends as 0 in the cast.
    let jitter_ms = (capped_ms as f64 * config.open_jitter * draw).floor() as i64;
    millis(capped_ms).saturating_add(jitter_ms)
}

fn millis(duration_ms: u64) -> i64 {
    i64::try_from(duration_ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
