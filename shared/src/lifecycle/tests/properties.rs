//! What holds for every sequence of events, with clocks that step forward and back and holders that come too late.

use proptest::prelude::{Just, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Strategy as _;

use super::*;

/// Under which fence something is tried.
#[derive(Debug, Clone, Copy)]
enum Holder {
    /// The lease given last.
    Last,
    /// Some lease given before, by index from the last.
    Earlier(usize),
    /// Somebody who guesses: the current epoch, and a nonce.
    Forger(u64),
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Claim { deadline_passed: bool },
    Extend(Holder),
    Done(Holder),
    Failed(Holder, FailureClass, bool),
    FailedForGood(Holder),
    NeedsPerson(Holder),
    Snoozed(Holder),
    Released(Holder),
    Undelivered(Holder),
    HandedOff(Holder),
    Lose,
    Cancel,
    RetryNow,
}

fn holders() -> impl proptest::strategy::Strategy<Value = Holder> {
    prop_oneof![
        6 => Just(Holder::Last),
        1 => (1..4_usize).prop_map(Holder::Earlier),
        1 => (0..3_u64).prop_map(Holder::Forger),
    ]
}

fn classes() -> impl proptest::strategy::Strategy<Value = FailureClass> {
    prop::sample::select(FailureClass::ALL.to_vec())
}

fn events() -> impl proptest::strategy::Strategy<Value = Event> {
    prop_oneof![
        8 => prop::bool::weighted(0.05).prop_map(|deadline_passed| Event::Claim { deadline_passed }),
        3 => holders().prop_map(Event::Extend),
        1 => holders().prop_map(Event::Done),
        5 => (holders(), classes(), prop::bool::weighted(0.9)).prop_map(|(h, c, r)| Event::Failed(h, c, r)),
        1 => holders().prop_map(Event::FailedForGood),
        1 => holders().prop_map(Event::NeedsPerson),
        1 => holders().prop_map(Event::Snoozed),
        1 => holders().prop_map(Event::Released),
        1 => holders().prop_map(Event::Undelivered),
        2 => holders().prop_map(Event::HandedOff),
        3 => Just(Event::Lose),
        1 => Just(Event::Cancel),
        2 => Just(Event::RetryNow),
    ]
}

/// A task, everything that ever held it, and which lease settled it last.
struct History {
    record: Record,
    policy: RetryPolicy,
    rng: SmallRng,
    now_us: i64,
    leases: Vec<Fence>,
    /// The lease whose settlement nothing has followed.
    settled: Option<Fence>,
}

impl History {
    fn fence(&self, holder: Holder) -> Fence {
        let forged = |nonce| Fence { epoch: self.record.epoch, nonce: Nonce(nonce) };
        match holder {
            Holder::Last => self.leases.last().copied().unwrap_or(forged(0)),
            Holder::Earlier(back) => {
                let index = self.leases.len().checked_sub(back + 1);
                index.map_or(forged(0), |index| self.leases[index])
            }
            Holder::Forger(nonce) => forged(nonce),
        }
    }

    /// Lets an event happen. `Ok(true)`: it was a transition that must raise the epoch.
    fn happen(&mut self, event: Event) -> Result<bool, Refused> {
        let server_error = failure(FailureClass::ServerError);
        match event {
            Event::Claim { deadline_passed } => {
                // Nonces are random 64-bit numbers; here it is enough that they differ from those that a forger tries.
                let nonce = Nonce(1_000 + self.leases.len() as u64);
                let due_us = self.record.due_ms.saturating_mul(1_000);
                let late_us = (self.record.deadline_ms + 1).saturating_mul(1_000);
                let now_us = if deadline_passed { self.now_us.max(late_us) } else { self.now_us.max(due_us) };
                if self.record.claim(LEASE_MS, nonce, &self.policy, now_us)?.is_none() {
                    self.leases.push(Fence { epoch: self.record.epoch, nonce });
                }
                self.settled = None;
                Ok(true)
            }
            Event::Lose => {
                self.record.lose(&self.policy, self.now_us, &mut self.rng)?;
                Ok(true)
            }
            Event::Cancel => {
                let again = self.record.state == TaskState::Cancelled;
                self.record.cancel(&self.policy, self.now_us)?;
                self.settled = None;
                Ok(!again)
            }
            Event::RetryNow => {
                self.record.retry_now(&self.policy, self.now_us)?;
                self.settled = None;
                Ok(true)
            }
            Event::Extend(holder) => {
                let fence = self.fence(holder);
                self.guarded(fence, false, |this| this.record.extend(fence, LEASE_MS, this.now_us / 1_000))
            }
            Event::Done(holder) => self.settle(holder, Ended::Done),
            Event::Failed(holder, class, retryable) => {
                self.settle(holder, Ended::Failed(&FailureRecord { retryable, ..failure(class) }))
            }
            Event::FailedForGood(holder) => self.settle(holder, Ended::FailedForGood(&server_error)),
            Event::NeedsPerson(holder) => self.settle(holder, Ended::NeedsPerson(&server_error)),
            Event::Snoozed(holder) => self.settle(holder, Ended::Snoozed { delay_ms: 5_000 }),
            Event::Released(holder) => self.settle(holder, Ended::Released),
            Event::Undelivered(holder) => self.settle(holder, Ended::Undelivered),
            Event::HandedOff(holder) => self.settle(holder, Ended::HandedOff),
        }
    }

    fn settle(&mut self, holder: Holder, ended: Ended<'_>) -> Result<bool, Refused> {
        let fence = self.fence(holder);
        let now_ms = self.now_us / 1_000;
        let once_more = ended != Ended::HandedOff;
        let raised = self.guarded(fence, once_more, |this| {
            this.record.settle(fence, ended, &this.policy, now_ms, &mut this.rng).map(|_| ())
        })?;
        self.settled = Some(fence);
        Ok(raised)
    }

    /// Only the lease given last can do anything, while it holds or, once more, after it handed the task off; only the one
    /// that settled is told so.
    fn guarded(
        &mut self,
        fence: Fence,
        once_more: bool,
        action: impl FnOnce(&mut Self) -> Result<(), Refused>,
    ) -> Result<bool, Refused> {
        let open = self.record.state == TaskState::Leased
            || once_more && self.record.state == TaskState::HandedOff && self.settled == Some(fence);
        let holds = open && self.leases.last() == Some(&fence);
        let settled_it = self.settled == Some(fence);
        let outcome = action(self);
        match outcome {
            Ok(()) => assert!(holds, "{fence:?} does not hold"),
            Err(Refused::Repeated(_)) => assert!(settled_it, "{fence:?} settled nothing"),
            Err(Refused::Stale(_)) => assert!(!holds && !settled_it, "{fence:?} is no stranger"),
            Err(Refused::WrongState(_)) => panic!("a fence is judged before the state"),
        }
        outcome.map(|()| false)
    }
}

/// What holds in every state.
fn check_record(record: &Record, policy: &RetryPolicy) {
    let remembered = matches!(
        record.state,
        TaskState::Succeeded | TaskState::Dead | TaskState::Cancelled | TaskState::HandedOff
    );
    assert_eq!(record.expires_ms.is_some(), remembered, "{record:?}");
    assert!(!record.started || record.state == TaskState::Leased, "{record:?}");
    assert!(record.ledger.lost <= 3 && record.ledger.failed <= policy.max_attempts, "{record:?}");
    if record.state == TaskState::Scheduled {
        assert!(record.ledger.lost < 3 && record.ledger.failed < policy.max_attempts, "{record:?}");
    }
}

/// No event charges more than one thing, once; `retry_now` alone takes charges back.
fn check_charges(event: Event, before: Ledger, after: Ledger) {
    let pairs = [
        (before.failed, after.failed),
        (before.lost, after.lost),
        (before.undelivered, after.undelivered),
        (before.deferred, after.deferred),
        (before.released, after.released),
    ];
    let changed: Vec<_> = pairs.iter().filter(|(before, after)| before != after).collect();
    match event {
        Event::RetryNow => assert!(after.failed <= before.failed && after.lost <= before.lost),
        Event::Claim { .. } | Event::Extend(_) | Event::Done(_) | Event::HandedOff(_) | Event::Cancel => {
            assert!(changed.is_empty())
        }
        Event::Failed(..)
        | Event::FailedForGood(_)
        | Event::NeedsPerson(_)
        | Event::Snoozed(_)
        | Event::Released(_)
        | Event::Undelivered(_)
        | Event::Lose => {
            assert!(changed.len() <= 1 && changed.iter().all(|(before, after)| *after == before + 1));
        }
    }
}

proptest! {
    #[test]
    fn invariants_hold_whatever_happens(
        steps in prop::collection::vec((events(), -100_000_000_i64..400_000_000), 1..60),
        seed in any::<u64>(),
    ) {
        let policy = policy();
        let mut rng = SmallRng::seed_from_u64(seed);
        let (record, _) = Record::enqueue(&start(), &policy, NOW_US, &mut rng);
        let mut history = History { record, policy, rng, now_us: NOW_US, leases: Vec::new(), settled: None };
        for (event, step_us) in steps {
            history.now_us += step_us;
            let before = history.record.clone();
            let outcome = history.happen(event);
            let after = &history.record;
            match outcome {
                Ok(true) => prop_assert!(after.epoch > before.epoch),
                Ok(false) => prop_assert_eq!(after.epoch, before.epoch),
                Err(_) => prop_assert_eq!(after, &before, "a refusal changes nothing"),
            }
            check_charges(event, before.ledger, after.ledger);
            check_record(after, &history.policy);
        }
        let epochs = history.leases.iter().map(|fence| fence.epoch);
        prop_assert!(epochs.is_sorted_by(|a, b| a < b), "no two leases share an epoch");
    }
}
