//! Fallback chains: who stands in for a dependency, and when a task goes on there.
//!
//! ```text
//!  fallbacks = { claude-opus: [claude-sonnet, gpt] }      route 0 = claude-opus, 1 = claude-sonnet, 2 = gpt
//! ```
//!
//! A chain belongs to the dependency that a task was enqueued with, its *primary*. Chains do not nest: that a member has a
//! chain of its own matters only to tasks whose primary it is. Routes are taken forwards only, so a chain ends.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ClassRule, Failure, LONG_HINT_MS, RetryPolicy};
use crate::failure::FailureClass;
use crate::gate::Standing;
use crate::id::Name;

/// When a failure of a class takes the next route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fallback {
    /// Never: another route would fail alike, or the failure says nothing about this one.
    Never,
    /// When the task has failed so often on its route, this time included.
    AfterFailures(u32),
    /// When the server asks for more than [`LONG_HINT_MS`]: a shorter wait is worth it.
    LongHint,
    /// At once, and one time only: the second failure of the class on a task goes no further.
    Once,
}

/// Where a task is on its chain when it fails, and what is known around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnRoute<'a> {
    /// The dependency that the task was enqueued with; none: there is nothing to stand in for.
    pub primary: Option<&'a Name>,
    /// The dependency that the attempt went to. It is its route's, unless the chain was changed meanwhile: what failed is this
    /// one, whatever the chain says now.
    pub called: Option<&'a Name>,
    /// Position on its chain: 0 = the primary itself.
    pub route: u32,
    /// Failures charged on this route, this one included unless its class has a counter of its own.
    pub failed: u32,
    /// Whether the attempt ended inside a tool transaction: another route must not go on with it.
    pub in_transaction: bool,
    /// Whether what it failed with before keeps it where it is ([`RetryPolicy::keeps_route`]).
    pub kept: bool,
    /// Which dependencies let nothing through.
    pub standing: &'a Standing,
}

impl Default for OnRoute<'_> {
    /// A task without a dependency.
    fn default() -> Self {
        Self {
            primary: None,
            called: None,
            route: 0,
            failed: 0,
            in_transaction: false,
            kept: false,
            standing: Standing::OPEN,
        }
    }
}

impl RetryPolicy {
    /// Who stands in for a dependency, in order.
    pub fn chain(&self, primary: Option<&Name>) -> &[Name] {
        primary.and_then(|primary| self.fallbacks.get(primary)).map_or(&[], Vec::as_slice)
    }

    /// The dependency of a route. A route beyond its chain, which was longer once, counts as the last.
    pub fn dependency_at<'a>(&'a self, primary: Option<&'a Name>, route: u32) -> Option<&'a Name> {
        let chain = self.chain(primary);
        match self.route_at(primary, route).checked_sub(1) {
            Some(place) => chain.get(place as usize).or(primary),
            None => primary,
        }
    }

    /// The route as its chain has it now. Without a chain the number is the caller's own, and stays.
    pub fn route_at(&self, primary: Option<&Name>, route: u32) -> u32 {
        match self.chain(primary).len() {
            0 => route,
            routes => route.min(u32::try_from(routes).unwrap_or(u32::MAX)),
        }
    }

    /// The route that a failure takes now: the first later one whose gate lets work through, if the class's rule says so, an
    /// attempt is left, and no transaction is torn apart. Never back to what failed just now: a chain that was changed under
    /// the task may have it at a later place.
    pub(super) fn next_route(&self, failure: &Failure<'_>, rule: &ClassRule) -> Option<u32> {
        let on = &failure.on;
        let is_due = match rule.fallback {
            Fallback::Never => false,
            Fallback::AfterFailures(failures) => on.failed >= failures,
            Fallback::LongHint => failure.hint_ms.is_some_and(|hint_ms| hint_ms > LONG_HINT_MS),
            Fallback::Once => failure.failed_in_class == 1,
        };
        let attempts_left = failure.failed < self.attempts_allowed(failure.max_attempts);
        if !is_due || !attempts_left || on.in_transaction || rule.own_counter {
            return None;
        }
        self.later(on).find(|(_, dependency)| on.standing.is_open(dependency)).map(|(route, _)| route)
    }

    /// The route that a task takes that would wait on its own for a person, since that is isolated: the first later one whose
    /// gate opens by itself, if it is not open.
    pub fn past_isolated(&self, on: &OnRoute<'_>) -> Option<u32> {
        let waits_at = self.dependency_at(on.primary, on.route)?;
        if on.in_transaction || on.kept || !on.standing.is_isolated(waits_at) {
            return None;
        }
        self.later(on).find(|(_, dependency)| !on.standing.is_isolated(dependency)).map(|(route, _)| route)
    }

    /// Whether so many failures of a class keep a task on its route, whatever becomes of that one's gate: what one filter
    /// refuses, or two models decline, is not to be tried on the next one unasked; and what a worker had begun that vanished,
    /// nobody knows.
    pub fn keeps_route(&self, class: FailureClass, failures: u32) -> bool {
        match self.rule(class).fallback {
            Fallback::Never => {
                failures > 0 && matches!(class, FailureClass::ContentPolicy | FailureClass::WorkerLost)
            }
            Fallback::Once => failures > 1,
            Fallback::AfterFailures(_) | Fallback::LongHint => false,
        }
    }

    /// The routes behind a task's own, without the dependency that failed just now.
    fn later<'a>(&'a self, on: &OnRoute<'a>) -> impl Iterator<Item = (u32, &'a Name)> {
        let called = on.called;
        let later = (1..).zip(self.chain(on.primary)).skip(on.route as usize);
        later.filter(move |(_, dependency)| Some(*dependency) != called)
    }

    /// Whether the task waits behind its dependency's gate, uncharged, instead of being judged by itself: a credential or a
    /// quota failed for everyone, and one person who mends it mends it for all.
    pub(super) fn waits_for_person(&self, failure: &Failure<'_>) -> bool {
        let on = &failure.on;
        let for_all = matches!(failure.class, FailureClass::Auth | FailureClass::QuotaExhausted);
        for_all && on.called.is_some_and(|dependency| on.standing.is_isolated(dependency))
    }
}
