//! Tokens a minute. What a task uses is known by its caller's estimate, and that only once it is leased; so tokens are
//! charged twice: what is taken by the mean of what was leased lately, which is put right when the leases are known.
//!
//! A bucket, as time: it holds a second's worth of the limit, less what is charged and not paid off yet. While there is
//! anything in it, something passes, and at least one task: so it may come into debt, by a task that is larger than the bucket
//! or by a batch that turned out to be heavier than those before it. Nothing passes until a debt is paid off.
//!
//! **The bound.** Let `H` be the tokens of what was leased from some moment on, by the time at which it was charged; `C` all
//! that was charged meanwhile, `P` what is reserved. What is charged for a reservation and what it turns out to be differ by
//! what is put right, so `H = C + P(from) − P(to)`, or less where a reservation was forgotten. The bucket never holds more
//! than its size less `P` ([`Tokens::room_us`]), and was not empty before something was taken: `C < size − P(from) + rate ×
//! time`. Hence whenever something is taken, `H + P(to) < size + rate × time`, which is the limit where the time is a minute. So
//! in no minute is more leased than the limit, and what was taken last: by each of those who had taken something that was not
//! charged yet.

use serde::{Deserialize, Serialize};

use super::settings::Settings;
use super::{Gate, TAKEN_MS};

const MINUTE_US: u128 = 60_000_000;
/// Means are kept in thousandths of a token.
const MILLI: u64 = 1_000;
/// So many tasks weigh as much in the mean as all before them: enough to even out a mixture, few enough to follow it.
const MEAN_TASKS: u64 = 20;
/// What was taken within so many ms is kept as one, so that there are few entries.
const TOGETHER_MS: i64 = 1_000;

/// A limit, as what tokens cost in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TokenRate {
    /// Tokens a minute beside those of one bucket: both together are the limit in any minute (half open).
    per_minute: u64,
    size: u64,
}

impl TokenRate {
    pub fn of(settings: &Settings) -> Option<Self> {
        let per_minute = settings.tokens_per_minute?.max(1);
        let size = (per_minute / 60).max(1);
        // What passes before the last take is less than the sum, and tokens are whole.
        Some(Self { per_minute: per_minute - size + 1, size })
    }

    /// What tokens cost (µs), never too little.
    fn cost_us(self, tokens: u64) -> i64 {
        saturated((u128::from(tokens) * MINUTE_US).div_ceil(u128::from(self.per_minute)))
    }

    /// The same, never too much.
    fn worth_us(self, tokens: u64) -> i64 {
        saturated(u128::from(tokens) * MINUTE_US / u128::from(self.per_minute))
    }

    /// What is paid off in so much time.
    fn tokens(self, time_us: i64) -> u64 {
        let time_us = u128::try_from(time_us).unwrap_or(0);
        u64::try_from(time_us * u128::from(self.per_minute) / MINUTE_US).unwrap_or(u64::MAX)
    }
}

fn saturated(us: u128) -> i64 {
    i64::try_from(us).unwrap_or(i64::MAX)
}

/// What is leased of a dependency: after a claim.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Handed {
    /// Of what was taken, so many were used.
    pub taken: u32,
    /// Tasks that were leased; more than were taken where the claim did not know of the limit yet.
    pub tasks: u32,
    /// Of those, tasks whose callers did not say what they use.
    pub unknown: u32,
    /// What the others use, together.
    pub tokens: u64,
}

impl Handed {
    /// And this as well.
    pub const fn join(&mut self, more: Self) {
        self.taken = self.taken.saturating_add(more.taken);
        self.tasks = self.tasks.saturating_add(more.tasks);
        self.unknown = self.unknown.saturating_add(more.unknown);
        self.tokens = self.tokens.saturating_add(more.tokens);
    }
}

/// What is charged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Tokens {
    /// When everything will be paid off (µs).
    paid_us: i64,
    /// What a task used on average lately, in thousandths of a token; none: nothing was leased yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    mean_milli: Option<u64>,
    /// Taken, and not known yet: until when that is kept, how many tasks, and the tokens that were charged for them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reserved: Vec<(i64, u32, u64)>,
}

impl Tokens {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn reserved(&self, now_ms: i64) -> u64 {
        let kept = self.reserved.iter().filter(|(until_ms, ..)| *until_ms > now_ms);
        kept.fold(0, |sum, (_, _, tokens)| sum.saturating_add(*tokens))
    }

    /// What is in the bucket, as time; less than 0: the debt.
    fn room_us(&self, rate: TokenRate, now_us: i64) -> i64 {
        // What is reserved lies in it until it is known, however long ago it was paid off.
        let least_us = now_us.saturating_add(rate.cost_us(self.reserved(now_us.div_euclid(1_000))));
        now_us.saturating_add(rate.worth_us(rate.size)).saturating_sub(self.paid_us.max(least_us))
    }

    fn forget(&mut self, now_ms: i64) {
        self.reserved.retain(|(until_ms, ..)| *until_ms > now_ms);
    }

    fn charge(&mut self, tokens: u64, rate: TokenRate, now_us: i64) {
        let reserved_us = rate.cost_us(self.reserved(now_us.div_euclid(1_000)));
        let from_us = self.paid_us.max(now_us.saturating_add(reserved_us));
        self.paid_us = from_us.saturating_add(rate.cost_us(tokens));
    }

    /// How many tasks may pass.
    pub fn tasks(&self, wanted: u32, rate: TokenRate, now_us: i64) -> u32 {
        let room_us = self.room_us(rate, now_us);
        if room_us <= 0 {
            return 0;
        }
        let most = match self.mean_milli {
            // One tells what they are like.
            None => 1,
            // Rounded up: microseconds are rounded down, and a full bucket has room for all of it.
            Some(mean) => {
                let tokens = rate.tokens(room_us).saturating_add(1);
                tokens.saturating_mul(MILLI).checked_div(mean).unwrap_or(u64::MAX)
            }
        };
        wanted.min(u32::try_from(most.max(1)).unwrap_or(u32::MAX))
    }

    /// So many were taken.
    pub fn reserve(&mut self, tasks: u32, rate: TokenRate, now_us: i64) {
        let now_ms = now_us.div_euclid(1_000);
        self.forget(now_ms);
        if tasks == 0 {
            return;
        }
        let tokens = u64::from(tasks).saturating_mul(self.mean_milli.unwrap_or_default()).div_ceil(MILLI);
        self.charge(tokens, rate, now_us);
        let until_ms = (now_ms.saturating_add(TAKEN_MS).div_euclid(TOGETHER_MS) + 1) * TOGETHER_MS;
        match self.reserved.last_mut() {
            Some((known_ms, known, sum)) if *known_ms == until_ms => {
                *known = known.saturating_add(tasks);
                *sum = sum.saturating_add(tokens);
            }
            _ => self.reserved.push((until_ms, tasks, tokens)),
        }
    }

    /// So many of what was taken are known, or were not used: what was charged for them is taken back. The newest first, as
    /// what nobody has any more keeps its end.
    pub fn release(&mut self, tasks: u32, rate: TokenRate) {
        let (mut left, mut back) = (tasks, 0_u64);
        for (_, tasks, tokens) in self.reserved.iter_mut().rev() {
            let part = left.min(*tasks);
            let share = u128::from(*tokens) * u128::from(part) / u128::from((*tasks).max(1));
            let share = u64::try_from(share).unwrap_or(*tokens);
            *tasks -= part;
            *tokens -= share;
            left -= part;
            back = back.saturating_add(share);
        }
        self.reserved.retain(|(_, tasks, _)| *tasks > 0);
        self.paid_us = self.paid_us.saturating_sub(rate.worth_us(back));
    }

    /// These were leased, and use so much.
    pub fn hand(&mut self, handed: Handed, tokens: u64, rate: TokenRate, now_ms: i64) {
        self.forget(now_ms);
        // Charged first: what lies in the bucket for them does so up to now.
        self.charge(tokens, rate, now_ms.saturating_mul(1_000));
        self.release(handed.taken, rate);
        let (tasks, milli) = (u64::from(handed.tasks), tokens.saturating_mul(MILLI));
        let Some(each) = milli.checked_div(tasks) else { return };
        self.mean_milli = Some(self.mean_milli.map_or(each, |mean| {
            mean.saturating_mul(MEAN_TASKS).saturating_add(milli) / (MEAN_TASKS + tasks)
        }));
    }

    /// When something may pass (µs), if nothing becomes known before.
    pub fn next_us(&self, rate: TokenRate, now_us: i64) -> i64 {
        let (now_ms, size_us) = (now_us.div_euclid(1_000), rate.worth_us(rate.size));
        let paid_us = self.paid_us.saturating_sub(size_us).saturating_add(1);
        // What is reserved fills the bucket alone: until some of that is forgotten.
        let ends_ms =
            self.reserved.iter().map(|(until_ms, ..)| *until_ms).filter(|at_ms| *at_ms > now_ms).min();
        match ends_ms {
            Some(at_ms) if rate.cost_us(self.reserved(now_ms)) >= size_us => {
                paid_us.max(at_ms.saturating_mul(1_000))
            }
            _ => paid_us,
        }
    }

    /// What was leased beyond the bucket and is not paid off.
    pub fn owed(&self, rate: TokenRate, now_ms: i64) -> u64 {
        let (now_us, reserved_us) = (now_ms.saturating_mul(1_000), rate.cost_us(self.reserved(now_ms)));
        let full_us = now_us.saturating_add(rate.worth_us(rate.size)).saturating_add(reserved_us);
        rate.tokens(self.paid_us.saturating_sub(full_us))
    }

    /// The limit is another one now: a debt stays what it is in tokens.
    pub fn rated(&mut self, from: TokenRate, to: TokenRate, now_ms: i64) {
        let now_us = now_ms.saturating_mul(1_000);
        if self.paid_us > now_us {
            let tokens = from.tokens(self.paid_us.saturating_sub(now_us));
            self.paid_us = now_us.saturating_add(to.cost_us(tokens));
        }
    }

    /// The clock was set back by so much.
    pub fn set_back(&mut self, by_ms: i64) {
        self.paid_us = self.paid_us.saturating_sub(by_ms.saturating_mul(1_000));
        self.reserved.iter_mut().for_each(|(until_ms, ..)| *until_ms -= by_ms);
    }
}

impl Gate {
    /// Whether what its tasks use is limited.
    pub fn limits_tokens(&self) -> bool {
        self.settings.tokens_per_minute.is_some()
    }

    /// After a claim: these were leased.
    pub fn hand(&mut self, handed: Handed, now_ms: i64) {
        self.mind_the_time(now_ms);
        if let Some(rate) = TokenRate::of(&self.settings) {
            let each = u64::from(self.settings.tokens_default.unwrap_or_default());
            let tokens = handed.tokens.saturating_add(each.saturating_mul(handed.unknown.into()));
            self.tokens.hand(handed, tokens, rate, now_ms);
        }
    }

    /// What so many tasks are taken to use, as far as is known: a claim of which nobody knows what it got is charged with that.
    pub fn handed_by_mean(&self, tasks: u32) -> Handed {
        let tokens =
            u64::from(tasks).saturating_mul(self.tokens.mean_milli.unwrap_or_default()).div_ceil(MILLI);
        Handed { taken: tasks, tasks, unknown: 0, tokens }
    }

    /// Tokens that were leased beyond the limit and are not paid off, where it is set: nothing passes meanwhile.
    pub fn tokens_owed(&self, now_ms: i64) -> Option<u64> {
        TokenRate::of(&self.settings).map(|rate| self.tokens.owed(rate, now_ms))
    }

    pub(super) fn release_tokens(&mut self, unused: u32) {
        if let Some(rate) = TokenRate::of(&self.settings) {
            self.tokens.release(unused, rate);
        }
    }

    /// The settings become others.
    pub(super) fn rate_tokens(&mut self, settings: &Settings) {
        match (TokenRate::of(&self.settings), TokenRate::of(settings)) {
            (_, None) => self.tokens = Tokens::default(),
            (Some(from), Some(to)) if from != to => self.tokens.rated(from, to, self.seen_ms),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
