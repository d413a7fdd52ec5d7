//! What a task was charged, kind by kind: how often, how often it may be, and why it was last.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::failure::FailureClass;
use crate::lifecycle::{ISOLATED, PUT_OFF_TOO_OFTEN, TOO_LATE};
use crate::retry::RetryPolicy;
use crate::task::{AttemptEnd, AttemptRecord, Ledger};

/// A kind of charge, as the [`Ledger`] names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChargeKind {
    /// Failures that count against `max_attempts`.
    Failed,
    /// Workers that vanished with it.
    Lost,
    /// Leases that nobody started.
    Undelivered,
    /// Times put off.
    Deferred,
    /// Times handed back.
    Released,
    /// Locks that were not had in time.
    LockWaits,
}

impl ChargeKind {
    /// Every kind, in the ledger's order.
    pub const ALL: [Self; 6] =
        [Self::Failed, Self::Lost, Self::Undelivered, Self::Deferred, Self::Released, Self::LockWaits];

    /// How often.
    pub const fn count(self, ledger: &Ledger) -> u32 {
        match self {
            Self::Failed => ledger.failed,
            Self::Lost => ledger.lost,
            Self::Undelivered => ledger.undelivered,
            Self::Deferred => ledger.deferred,
            Self::Released => ledger.released,
            Self::LockWaits => ledger.lock_waits,
        }
    }

    /// How often it may be, where that is bounded, given the bound on attempts.
    pub fn most(self, policy: &RetryPolicy, max_attempts: u32) -> Option<u32> {
        match self {
            Self::Failed => Some(max_attempts),
            Self::Lost => policy.rule(FailureClass::WorkerLost).max_attempts,
            Self::Undelivered => None,
            Self::Deferred => Some(policy.deferrals_allowed()),
            Self::Released => Some(policy.releases_allowed()),
            Self::LockWaits => policy.rule(FailureClass::LockTimeout).max_attempts,
        }
    }

    /// What a line of a task's history charged, if anything.
    pub fn of(line: &AttemptRecord) -> Option<Self> {
        let why = line.why.as_deref();
        match line.end {
            AttemptEnd::Failed | AttemptEnd::Reported => {
                Some(match line.failure.as_ref().map(|failure| failure.class) {
                    Some(FailureClass::WorkerLost) => Self::Lost,
                    Some(FailureClass::LockTimeout) => Self::LockWaits,
                    _ if [Some(ISOLATED), Some(PUT_OFF_TOO_OFTEN)].contains(&why) => Self::Deferred,
                    _ => Self::Failed,
                })
            }
            AttemptEnd::Lost => Some(Self::Lost),
            AttemptEnd::Undelivered => (why != Some(TOO_LATE)).then_some(Self::Undelivered),
            AttemptEnd::Snoozed => Some(Self::Deferred),
            AttemptEnd::Released => Some(Self::Released),
            AttemptEnd::Succeeded | AttemptEnd::Cancelled | AttemptEnd::Redriven | AttemptEnd::HandedOff => {
                None
            }
        }
    }
}

/// One kind of charge of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Charge {
    /// Which.
    pub kind: ChargeKind,
    /// How often.
    pub count: u32,
    /// At which count the task ends or a person is asked; missing where there is no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<u32>,
    /// When it was charged last, as far as the history goes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_at_ms: Option<i64>,
    /// Why it was charged last: the failure where there was one, as `class: message`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_why: Option<String>,
}

/// What a task was charged, of every kind, by its ledger and its history, oldest line first.
pub fn charges(
    ledger: &Ledger,
    history: &[AttemptRecord],
    policy: &RetryPolicy,
    max_attempts: u32,
) -> Vec<Charge> {
    let of = |kind: ChargeKind| {
        let count = kind.count(ledger);
        // What a person's retry has forgiven is in the history, and not in the ledger.
        let last = history.iter().rev().find(|line| ChargeKind::of(line) == Some(kind)).filter(|_| count > 0);
        Charge {
            kind,
            count,
            most: kind.most(policy, max_attempts),
            last_at_ms: last.map(|line| line.ended_at_ms),
            last_why: last.and_then(reason),
        }
    };
    ChargeKind::ALL.into_iter().map(of).collect()
}

fn reason(line: &AttemptRecord) -> Option<String> {
    match &line.failure {
        Some(failure) => Some(format!("{}: {}", failure.class, failure.message)),
        None => line.why.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::FailureRecord;

    fn line(end: AttemptEnd, class: Option<FailureClass>, why: &str, ended_at_ms: i64) -> AttemptRecord {
        let failure = class.map(|class| FailureRecord {
            class,
            retryable: true,
            retry_after_ms: None,
            message: "said".into(),
            fingerprint: String::new(),
        });
        AttemptRecord {
            run: 1,
            agent: None,
            route: 0,
            dependency: None,
            started_at_ms: 0,
            ended_at_ms,
            end,
            failure,
            cost_usd: <_>::default(),
            delay_ms: None,
            why: Some(why.into()),
        }
    }

    #[test]
    fn every_kind_has_its_count_its_bound_and_its_last_reason() {
        use AttemptEnd::{Failed, Lost, Redriven, Released, Reported, Snoozed, Undelivered};
        use FailureClass::{Auth, LockTimeout, Timeout, WorkerLost};
        let history = [
            line(Released, None, "forgiven", 1),
            line(Redriven, None, "", 2),
            line(Reported, Some(Timeout), "backoff", 3),
            line(Failed, Some(Timeout), "backoff", 4),
            line(Lost, None, "its worker vanished", 5),
            line(Failed, Some(WorkerLost), "backoff", 6),
            line(Snoozed, None, "put off by its handler", 7),
            line(Failed, Some(Auth), ISOLATED, 8),
            line(Failed, Some(LockTimeout), "backoff", 9),
            line(Undelivered, None, "leased, and nobody started it", 10),
            line(Undelivered, None, TOO_LATE, 11),
        ];
        let ledger =
            Ledger { failed: 2, lost: 2, undelivered: 1, deferred: 2, lock_waits: 1, ..Ledger::default() };
        let policy = RetryPolicy { max_releases: Some(7), ..RetryPolicy::default() };
        let all = charges(&ledger, &history, &policy, 4);
        let seen: Vec<_> =
            all.iter().map(|one| (one.count, one.most, one.last_at_ms, one.last_why.as_deref())).collect();
        assert_eq!(
            seen,
            [
                (2, Some(4), Some(4), Some("timeout: said")),
                (2, Some(3), Some(6), Some("worker_lost: said")),
                (1, None, Some(10), Some("leased, and nobody started it")),
                (2, Some(10_000), Some(8), Some("auth: said")),
                (0, Some(7), None, None),
                (1, Some(20), Some(9), Some("lock_timeout: said")),
            ]
        );
        let asked = line(Failed, Some(Auth), PUT_OFF_TOO_OFTEN, 1);
        assert_eq!(ChargeKind::of(&asked), Some(ChargeKind::Deferred));
    }
}
