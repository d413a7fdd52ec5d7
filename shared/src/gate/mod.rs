//! The fleet's gate: what holds every agent back from one dependency at once. Pure: time is passed in.
//!
//! ```text
//!            hint, or too many failures over the fleet
//!   open ─────────────────────────────────────────────▶ shut ◀──────────────┐
//!    ▲  │                                                 │ its time is over  │ it failed, or: not yet
//!    │  └── too many calls, no hint ──▶ ramp              ▼                  │
//!    │                                  │ ▲             canary ──────────────┘
//!    │       its whole rate, not pressed│ └───passed──────┘ ▲
//!    └──────────────────────────────────┘                  │ a person opens it
//!   any ── a credential or a quota failed for everyone ──▶ isolated
//! ```
//!
//! **Shut.** A server's hint is believed, up to [`HINT_MAX_MS`]: then a canary looks. Failures of the whole fleet shut it as
//! they do a circuit breaker, for [`SHUT_MS`] and twice as long each time in a row, up to [`SHUT_MAX_MS`].
//!
//! **Canary.** One call passes. Its outcome decides; if it is not heard of within [`CANARY_MS`] the next one may go, since an
//! answer that takes long is none that failed. After a hint it is a refusal that is looked for, and that comes at once: a
//! canary that is not refused within [`REFUSAL_MS`] has been let in, however long its answer takes. What was started before
//! the gate changed decides nothing.
//!
//! **Ramp.** After a canary calls are let through at a rate that reaches the whole in [`RAMP_MS`], from a tenth of it after
//! failures, from seven tenths after too many calls: fast at first, flat at the whole, ever faster beyond (CUBIC, RFC 9438).
//! A failure halves it where more than one call in three fails. The whole is the limit that is set, else the best rate at
//! which calls were taken within the last minute, else [`UNKNOWN_PER_S`]. Being told of too many calls during a ramp says
//! what is too much: the whole is then nine tenths of that.
//!
//! **Isolated.** A bad credential or a used-up quota is nothing that time mends. At least three such failures, of two
//! agents or of the only one, and no success for a minute isolate the dependency until a person opens it: one agent's
//! mistyped key does not stop the fleet. There is one [`Alarm`] for all of its tasks.
//!
//! **In flight.** Where it is limited how many tasks are out at once, what is taken counts until it was given back or its lease
//! has ended ([`Gate::begin`], [`Gate::end`]); what nobody tells of stops to count by itself.
//!
//! **Tokens.** Where it is limited how many a minute are used, what is leased is charged with its callers' estimates, and while
//! that is not paid off nothing passes ([`Gate::hand`]).
//! **Spent.** A group's tasks may cost so much within a day ([`Gate::spend`]), where their queue says so; then they wait for the
//! next one.
//!
//! **Budget.** Retries are bounded to a share of first attempts ([`Budget`]), once there are enough of those to tell.

mod hear;
mod in_flight;
mod late;
mod pace;
mod phase;
mod ramp;
mod sample;
mod scope;
mod set_back;
mod settings;
mod spend;
mod standing;
mod tokens;
mod writers;

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

pub use self::hear::{Heard, Signal};
use self::in_flight::InFlight;
pub use self::in_flight::TAKEN_MS;
use self::late::BeforeRefusal;
use self::pace::{Pace, Rate};
use self::phase::Phase;
pub use self::phase::{Alarm, Change, Reason, State};
pub use self::sample::Tally;
use self::sample::{SAMPLE_MS, Sample};
pub use self::scope::Scope;
pub use self::settings::{
    Budget, MAX_IN_FLIGHT_MAX, REQUESTS_PER_MINUTE_MAX, Settings, SettingsError, TOKENS_PER_MINUTE_MAX,
};
use self::spend::Spend;
pub use self::spend::{Spent, is_same_day};
pub use self::standing::{Barred, Standing};
pub use self::tokens::Handed;
use self::tokens::{TokenRate, Tokens};
use self::writers::Writers;
use crate::failure::FailureClass;
use crate::id::Name;

/// Longest time that a hint shuts a gate, in ms. A hint of a day may be right, but looking now and then is cheap.
pub const HINT_MAX_MS: u64 = 15 * 60_000;
/// How long failures shut a gate the first time, and at most, in ms.
pub const SHUT_MS: u64 = 30_000;
/// See [`SHUT_MS`].
pub const SHUT_MAX_MS: u64 = 300_000;
/// How long a canary is waited for before another may go, in ms.
pub const CANARY_MS: i64 = 60_000;
/// How long it is waited for after a hint, in ms: a refusal comes at once, and whoever is not refused has been let in.
pub const REFUSAL_MS: i64 = 2_000;
/// How long a ramp takes to the whole, in ms.
pub const RAMP_MS: i64 = 60_000;
/// How long after it was taken something may be handed out, in ms: what is not by then is given back.
pub const USED_WITHIN_MS: i64 = 1_000;
/// Calls a second that are the whole of a ramp where nothing is known.
pub const UNKNOWN_PER_S: f64 = 10.0;
/// After so long without a failure that shut it, the next one counts as the first again, in ms.
const TRIPS_RESET_MS: i64 = 600_000;
/// A canary that nobody wanted for so long says that nobody calls the dependency any more, in ms.
const DESERTED_MS: i64 = 6 * 3_600_000;

/// How many may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// As many as there are.
    Free,
    /// None but those that [`Gate::take`] gives.
    Limited,
    /// None.
    Shut,
}

/// What an operator does to a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Lets a canary through, and then a ramp; and lifts a bound on the day's costs until the day is over.
    Open,
    /// Lets nothing through for so long (ms).
    Shut(u64),
    /// Lets nothing through until it is opened.
    Isolate,
    /// Forgets everything but what is set, also what was spent today: open, as if it were new.
    Reset,
}

/// The gate of one dependency.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    phase: Phase,
    /// When it came into its state; what was started before decides nothing about it.
    since_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    #[serde(default)]
    settings: Settings,
    #[serde(default)]
    sample: Sample,
    /// Failures that outnumber the successes since they last did not.
    #[serde(default)]
    strain: u32,
    /// Of the limit that is set.
    #[serde(default)]
    pace: Pace,
    /// Where that is limited.
    #[serde(default, skip_serializing_if = "InFlight::is_empty")]
    in_flight: InFlight,
    /// Where those are limited.
    #[serde(default, skip_serializing_if = "Tokens::is_empty")]
    tokens: Tokens,
    /// Of a group's tasks, where that is bounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spend: Option<Spend>,
    /// Of a ramp.
    #[serde(default)]
    ramp_pace: Pace,
    /// The whole of the next ramp, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    full_per_s: Option<f64>,
    /// What was handed out before the refusal that ended its being open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before_refusal: Option<BeforeRefusal>,
    /// How often failures shut it in a row, and when last.
    #[serde(default)]
    trips: u32,
    #[serde(default)]
    tripped_ms: i64,
    #[serde(default)]
    worked_ms: i64,
    /// Failures of credentials and quotas since something worked: class, agent, when.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    blocked: VecDeque<(FailureClass, Option<Name>, i64)>,
    /// Who called within the last ten minutes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    agents: Vec<(Name, i64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alarm: Option<Alarm>,
    /// The latest time that it was told.
    #[serde(default)]
    seen_ms: i64,
    /// Who wrote it lately.
    #[serde(default, skip_serializing_if = "Writers::is_empty")]
    writers: Writers,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            phase: Phase::Open,
            since_ms: 0,
            reason: None,
            settings: Settings::default(),
            sample: Sample::default(),
            strain: 0,
            pace: Pace::default(),
            in_flight: InFlight::default(),
            tokens: Tokens::default(),
            spend: None,
            ramp_pace: Pace::default(),
            full_per_s: None,
            before_refusal: None,
            trips: 0,
            tripped_ms: 0,
            worked_ms: 0,
            blocked: VecDeque::new(),
            agents: Vec::new(),
            alarm: None,
            seen_ms: 0,
            writers: Writers::default(),
        }
    }
}

impl Gate {
    /// Its state now. Time alone moves it: call [`advance`](Self::advance) before.
    pub fn state(&self) -> State {
        self.phase.state()
    }

    /// Since when, and why; none where it never changed.
    pub fn since(&self) -> Option<(i64, Reason)> {
        self.reason.map(|reason| (self.since_ms, reason))
    }

    /// What is set on it.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What was seen in the last minute.
    pub fn tally(&self, now_ms: i64) -> Tally {
        self.sample.sum(now_ms)
    }

    /// What a person has to mend, while it is isolated.
    pub fn alarm(&self) -> Option<&Alarm> {
        self.alarm.as_ref()
    }

    /// Whether nothing would be lost by forgetting it: it lets everything through and has for a while, or waits for a canary
    /// that nobody has wanted for hours.
    pub fn is_fresh(&self, now_ms: i64) -> bool {
        let quiet_ms = |since_ms: i64| now_ms.saturating_sub(since_ms);
        let last_ms = self.tripped_ms.max(self.worked_ms);
        let remembered = self.blocked.iter().map(|(_, _, at_ms)| *at_ms);
        let last_ms = remembered.chain(self.agents.iter().map(|(_, at_ms)| *at_ms)).fold(last_ms, i64::max);
        let deserted = matches!(self.phase, Phase::Canary { .. }) && quiet_ms(self.since_ms) > DESERTED_MS;
        (self.phase == Phase::Open || deserted)
            && self.settings == Settings::default()
            && self.sample.is_empty(now_ms)
            && self.spent(now_ms).is_none()
            && quiet_ms(last_ms) > TRIPS_RESET_MS
    }

    /// Whether a call that began then was made in the state that the gate is in.
    pub fn is_fresh_call(&self, started_ms: i64) -> bool {
        started_ms >= self.since_ms
    }

    /// Does what time alone does. It is the clock as it stands now: one that was set back is noticed here and by
    /// [`take`](Self::take). What the gate is told else may be told late: of two coordinators, one is the slower to write.
    pub fn advance(&mut self, now_ms: i64) -> Option<Change> {
        self.mind_the_clock(now_ms);
        match self.phase {
            Phase::Shut { until_ms } if now_ms >= until_ms => {
                let after_hint = self.reason == Some(Reason::Hint);
                Some(self.enter(Phase::Canary { another_ms: None, after_hint }, Reason::WaitOver, now_ms))
            }
            Phase::Canary { another_ms: Some(another_ms), after_hint: true } if now_ms >= another_ms => {
                Some(self.begin_ramp(Reason::CanaryPassed, now_ms))
            }
            Phase::Ramp { pressed_ms, .. } => {
                let (share, since_ms) = (self.share(now_ms)?, self.since_ms.max(pressed_ms));
                let over = share >= 1.0 && now_ms.saturating_sub(since_ms) >= RAMP_MS;
                over.then(|| self.enter(Phase::Open, Reason::RampedUp, now_ms))
            }
            Phase::Open | Phase::Shut { .. } | Phase::Canary { .. } | Phase::Isolated => None,
        }
    }

    /// Counts calls that were handed out at `now_ms`, which may be told late.
    pub fn count_calls(&mut self, firsts: u32, retries: u32, now_ms: i64) {
        self.mind_the_time(now_ms);
        self.sample.add(Tally { firsts, retries, ..Tally::default() }, now_ms);
        self.learn_late(firsts.saturating_add(retries), now_ms);
    }

    /// Counts first calls that agents made themselves, as they report.
    pub fn count_reported(&mut self, firsts: u32, now_ms: i64) {
        self.mind_the_time(now_ms);
        self.sample.add(Tally { firsts, reported: firsts, ..Tally::default() }, now_ms);
    }

    /// How many tasks may pass.
    pub fn room(&self) -> Room {
        match self.phase {
            Phase::Open if !self.settings.is_counted() => Room::Free,
            Phase::Open | Phase::Canary { .. } | Phase::Ramp { .. } => Room::Limited,
            Phase::Shut { .. } | Phase::Isolated => Room::Shut,
        }
    }

    /// How many retries may pass, where the budget bounds them: those that are missing to it within the last minute.
    pub fn retry_room(&self, now_ms: i64) -> Option<u32> {
        let budget = self.settings.budget.unwrap_or_default();
        let Tally { firsts, retries, .. } = self.sample.sum(now_ms);
        if firsts < budget.min_firsts {
            return None;
        }
        let seconds = SAMPLE_MS as f64 / 1_000.0;
        let allowed = (f64::from(firsts) * budget.ratio).max(budget.floor_per_s * seconds);
        // A floor of less than one a minute is one a minute.
        let least = u32::from(budget.floor_per_s > 0.0);
        Some((allowed as u32).max(least).saturating_sub(retries))
    }

    /// Lets up to `wanted` through; returns how many. What is not used is to be given back.
    pub fn take(&mut self, wanted: u32, now_us: i64) -> u32 {
        let now_ms = now_us.div_euclid(1_000);
        self.mind_the_clock(now_ms);
        let token_rate = TokenRate::of(&self.settings);
        let wanted = wanted.min(self.in_flight_room(now_ms));
        let wanted = token_rate.map_or(wanted, |rate| self.tokens.tasks(wanted, rate, now_us));
        let wanted = match self.limit() {
            Some(rate) => self.pace.take(wanted, rate, now_us),
            None => wanted,
        };
        let granted = self.take_of_phase(wanted, now_us);
        if self.settings.max_in_flight.is_some() {
            self.in_flight.take(granted, now_ms);
        }
        if let Some(rate) = token_rate {
            self.tokens.reserve(granted, rate, now_us);
        }
        granted
    }

    fn take_of_phase(&mut self, wanted: u32, now_us: i64) -> u32 {
        let now_ms = now_us.div_euclid(1_000);
        match self.phase {
            Phase::Open => wanted,
            Phase::Shut { .. } | Phase::Isolated => 0,
            Phase::Canary { another_ms, after_hint } => {
                if wanted == 0 || another_ms.is_some_and(|another_ms| now_ms < another_ms) {
                    return 0;
                }
                let wait_ms = if after_hint { REFUSAL_MS } else { CANARY_MS };
                self.phase = Phase::Canary { another_ms: Some(now_ms + wait_ms), after_hint };
                1
            }
            Phase::Ramp { .. } => self.take_of_ramp(wanted, now_us),
        }
    }

    /// Takes back what was taken and not used.
    pub fn give_back(&mut self, unused: u32) {
        self.waste(unused);
        if let Some(rate) = self.limit() {
            self.pace.give_back(unused, rate);
        }
        match self.phase {
            Phase::Canary { after_hint, .. } => self.phase = Phase::Canary { another_ms: None, after_hint },
            Phase::Ramp { .. } => self.give_back_to_ramp(unused),
            Phase::Open | Phase::Shut { .. } | Phase::Isolated => {}
        }
    }

    /// When more may pass than now (ms), by time alone; none where only an event can bring that.
    pub fn next_ms(&self, now_ms: i64) -> Option<i64> {
        let limit_ms = self.limit().map_or(i64::MIN, |rate| div_up(self.pace.next_us(rate)));
        let now_us = now_ms.saturating_mul(1_000);
        let tokens_us = TokenRate::of(&self.settings).map(|rate| self.tokens.next_us(rate, now_us));
        let tokens_ms = tokens_us.map_or(i64::MIN, div_up);
        let phase_ms = match self.phase {
            Phase::Isolated => return None,
            Phase::Open => i64::MIN,
            Phase::Shut { until_ms } => until_ms,
            Phase::Canary { another_ms, .. } => another_ms.unwrap_or(i64::MIN),
            Phase::Ramp { .. } => {
                self.ramp_rate(now_ms).map_or(i64::MIN, |rate| div_up(self.ramp_pace.next_us(rate)))
            }
        };
        // The end of a lease may bring it earlier: that is an event.
        let full_ms = self.in_flight.next_ms(now_ms).filter(|_| self.is_full(now_ms)).unwrap_or(i64::MIN);
        Some(limit_ms.max(phase_ms).max(full_ms).max(tokens_ms)).filter(|at_ms| *at_ms != i64::MIN)
    }

    /// When the budget lets more retries through (ms), at the latest.
    pub fn next_retry_ms(&self, now_ms: i64) -> Option<i64> {
        self.retry_room(now_ms).filter(|room| *room == 0).and_then(|_| self.sample.next_ms(now_ms))
    }

    /// Sets limits. What was let through stays counted; how many are out is counted from when that is limited.
    pub fn set(&mut self, settings: Settings) {
        self.rate_tokens(&settings);
        self.settings = settings;
        if self.settings.max_in_flight.is_none() {
            self.in_flight = InFlight::default();
        }
    }

    /// Does what an operator says.
    pub fn command(&mut self, command: Command, now_ms: i64) -> Option<Change> {
        self.mind_the_time(now_ms);
        let from = self.state();
        if command == Command::Open {
            self.lift(now_ms);
        }
        match command {
            Command::Open if from == State::Open || from == State::Ramp => None,
            Command::Open => {
                self.blocked.clear();
                Some(self.enter(
                    Phase::Canary { another_ms: None, after_hint: false },
                    Reason::Operator,
                    now_ms,
                ))
            }
            Command::Shut(for_ms) => {
                self.learn_full(now_ms);
                let until_ms = now_ms.saturating_add_unsigned(for_ms);
                Some(self.enter(Phase::Shut { until_ms }, Reason::Operator, now_ms))
            }
            Command::Isolate => {
                self.learn_full(now_ms);
                let change = self.enter(Phase::Isolated, Reason::Operator, now_ms);
                self.alarm = Some(Alarm { class: None, agents: Vec::new(), since_ms: now_ms });
                Some(change)
            }
            Command::Reset => {
                let (in_flight, tokens) =
                    (std::mem::take(&mut self.in_flight), std::mem::take(&mut self.tokens));
                let (settings, pace) = (self.settings.clone(), self.pace);
                *self = Self { settings, pace, in_flight, tokens, ..Self::default() };
                self.since_ms = now_ms;
                (from != State::Open).then_some(Change { from, to: State::Open, reason: Reason::Operator })
            }
        }
    }

    fn enter(&mut self, phase: Phase, reason: Reason, now_ms: i64) -> Change {
        let from = self.state();
        if phase == Phase::Open {
            self.before_refusal = None;
        }
        self.phase = phase;
        self.since_ms = now_ms;
        self.reason = Some(reason);
        self.alarm = None;
        Change { from, to: self.state(), reason }
    }

    /// The rate of the limit that is set. In no minute (half open) is more than the limit handed out: that is what was taken in
    /// a minute and [`USED_WITHIN_MS`], and a burst of `b` and the rest at one each T are at most b − 1 + 61 s / T.
    fn limit(&self) -> Option<Rate> {
        let per_minute = self.settings.requests_per_minute?.max(1);
        let burst = (per_minute / 60).max(1);
        let within_s = 60.0 + USED_WITHIN_MS as f64 / 1_000.0;
        Some(Rate { per_s: f64::from(per_minute - burst + 1) / within_s, burst })
    }
}

/// Microseconds as milliseconds, never too early.
fn div_up(at_us: i64) -> i64 {
    at_us.saturating_add(999).div_euclid(1_000)
}

#[cfg(test)]
mod tests;
