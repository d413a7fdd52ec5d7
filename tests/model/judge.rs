//! What the design says of a failure: which outcomes are allowed. Written from the design, not from the code.

use redrive_shared::failure::FailureClass;
use redrive_shared::task::TaskState;

use super::command::Failure;

/// A queue's numbers, as the model knows them.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// The fixed delay after failures whose class has no backoff of its own.
    pub delay_ms: u64,
    pub max_attempts: u32,
    pub deadline_ms: i64,
    pub retention_ms: i64,
    pub lease_ms: i64,
}

/// One per queue.
pub const RULES: [Rules; 2] = [
    Rules {
        delay_ms: 10_000,
        max_attempts: 6,
        deadline_ms: 120_000,
        retention_ms: 300_000,
        lease_ms: 30_000,
    },
    Rules { delay_ms: 0, max_attempts: 2, deadline_ms: 600_000, retention_ms: 60_000, lease_ms: 10_000 },
];

/// What may come of it. Where chance decides, both can be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    /// It waits, and is due between these moments.
    pub scheduled: Option<(i64, i64)>,
    /// It ends in this state.
    pub ended: Option<TaskState>,
}

impl Allowed {
    pub const fn between(from_ms: i64, to_ms: i64) -> Self {
        Self { scheduled: Some((from_ms, to_ms)), ended: None }
    }

    pub const fn state(state: TaskState) -> Self {
        Self { scheduled: None, ended: Some(state) }
    }

    /// Whether a store may say so.
    pub fn contains(&self, state: TaskState, due_ms: i64) -> bool {
        let waits = self.scheduled.is_some_and(|(from_ms, to_ms)| (from_ms..=to_ms).contains(&due_ms));
        (state == TaskState::Scheduled && waits) || self.ended == Some(state)
    }
}

/// What a task has behind it when it is judged, this failure counted.
#[derive(Debug, Clone, Copy)]
pub struct Counted {
    pub failed: u32,
    pub lost: u32,
    /// Failures of this class.
    pub of_class: u32,
    pub attempts_allowed: u32,
    pub deadline_ms: i64,
}

pub fn judge(failure: Failure, counted: Counted, rules: Rules, now_ms: i64) -> Allowed {
    use FailureClass as Class;
    if !failure.retryable {
        let person = matches!(failure.class, Class::Auth | Class::LockTimeout);
        return Allowed::state(if person { TaskState::Escalated } else { TaskState::Dead });
    }
    let used_up = match failure.class {
        Class::WorkerLost => counted.lost >= 3,
        Class::LockTimeout => counted.of_class >= 20,
        Class::Timeout => counted.of_class >= 3 || counted.failed >= counted.attempts_allowed,
        _ => counted.failed >= counted.attempts_allowed,
    };
    if used_up {
        let person = failure.class == Class::LockTimeout;
        return Allowed::state(if person { TaskState::Escalated } else { TaskState::Dead });
    }
    let doubled = |base_ms: u64, times: u32| base_ms << times.saturating_sub(1).min(20);
    let (least_ms, most_ms) = match failure.class {
        Class::WorkerLost => (100, doubled(1_000, counted.lost).min(30_000)),
        Class::LockTimeout => (20, doubled(200, counted.of_class).min(5_000)),
        Class::RateLimited => (100, doubled(5_000, counted.failed).min(300_000)),
        _ => (rules.delay_ms, rules.delay_ms),
    };
    let (least_ms, most_ms) = match failure.hint_ms {
        Some(hint_ms) if hint_ms > 0 => {
            let jitter_ms = (1_000 + hint_ms / 10).min(30_000);
            (least_ms.max(hint_ms), most_ms.max(hint_ms) + jitter_ms)
        }
        _ => (least_ms, most_ms),
    };
    let (from_ms, to_ms) =
        (now_ms.saturating_add_unsigned(least_ms), now_ms.saturating_add_unsigned(most_ms));
    Allowed {
        scheduled: (from_ms <= counted.deadline_ms).then_some((from_ms, to_ms.min(counted.deadline_ms))),
        ended: (to_ms > counted.deadline_ms).then_some(TaskState::Escalated),
    }
}
