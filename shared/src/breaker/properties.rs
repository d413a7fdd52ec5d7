//! What holds for a breaker whatever is done to it, in whatever order, by whatever clock.

use proptest::prelude::*;

use super::{Breaker, BreakerConfig, BreakerState, Outcome, Permit};
use crate::failure::FailureClass;

#[derive(Debug, Clone)]
enum Op {
    Acquire,
    /// Reports the permit at this place in the list of all permits ever given, early or late, once or again.
    Report {
        permit: prop::sample::Index,
        outcome: Outcome,
        draw: f64,
    },
    Poll,
    Isolate,
    Close,
    Reset,
}

fn outcomes() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        2 => (0_u64..5_000).prop_map(|duration_ms| Outcome::Success { duration_ms }),
        4 => (prop::sample::select(&FailureClass::ALL[..]), 0_u64..5_000)
            .prop_map(|(class, duration_ms)| Outcome::Failure { class, duration_ms }),
        1 => Just(Outcome::Ignored),
    ]
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => Just(Op::Acquire),
        16 => (any::<prop::sample::Index>(), outcomes(), 0.0..1.0)
            .prop_map(|(permit, outcome, draw)| Op::Report { permit, outcome, draw }),
        2 => Just(Op::Poll),
        1 => Just(Op::Isolate),
        1 => Just(Op::Close),
        1 => Just(Op::Reset),
    ]
}

/// Mostly short steps, some that end a wait or a deadline, some back.
fn steps_ms() -> impl Strategy<Value = i64> {
    prop_oneof![10 => 0_i64..500, 4 => 0_i64..400_000, 1 => 0_i64..4_000_000, 2 => -100_000_i64..0, 1 => -900_i64..0]
}

fn configs() -> impl Strategy<Value = BreakerConfig> {
    let sample = (
        prop::sample::select(vec![1_u32, 2, 5, 12, 60]),
        1_u32..8,
        any::<bool>(),
        0.01_f64..=1.0,
        0.0_f64..0.9,
    );
    let waits = (1_u64..60_000, 1_u32..=10, 0.0_f64..=1.0, 1_u64..100_000, 1_u32..4);
    (sample, waits, prop::option::of(1_u64..5_000)).prop_map(|(sample, waits, slow_call_ms)| {
        let (buckets, min_outcomes, recent, failure_rate, margin) = sample;
        let (open_ms, open_factor, open_jitter, probe_deadline_ms, probe_successes) = waits;
        let recent_outcomes = if recent { min_outcomes + 2 } else { 0 };
        // A margin that so many failures in a row exceed, also where slow calls count.
        let within = f64::from(min_outcomes + 2) * (1.0 - failure_rate.max(0.5));
        BreakerConfig {
            buckets,
            recent_outcomes,
            trip_margin: margin * within,
            failure_rate,
            min_outcomes,
            slow_call_ms,
            open_ms,
            open_factor,
            open_jitter,
            probe_deadline_ms,
            probe_successes,
            ..BreakerConfig::default()
        }
    })
}

/// A breaker, all permits that it ever gave, and what has been seen so far.
struct Run {
    breaker: Breaker,
    permits: Vec<Permit>,
    now_ms: i64,
    /// The probe that was let through and has neither reported, nor been given up, nor been made void.
    probe: Option<Permit>,
    openings_at_probe: u64,
}

impl Run {
    fn new(config: BreakerConfig) -> Self {
        let breaker = Breaker::new(config).unwrap();
        Self { breaker, permits: Vec::new(), now_ms: 1_700_000_000_000, probe: None, openings_at_probe: 0 }
    }

    fn step(&mut self, op: &Op) -> Result<(), TestCaseError> {
        let before = self.breaker.snapshot(self.now_ms);
        // A probe that was lost shows only in that the breaker has opened again since.
        if before.state != BreakerState::HalfOpen || before.openings != self.openings_at_probe {
            self.probe = None;
        }
        match op {
            Op::Acquire => self.acquire(before.state)?,
            Op::Report { permit, outcome, draw } if !self.permits.is_empty() => {
                let permit = *permit.get(&self.permits);
                let in_force = self.permits.last().map(|last| last.generation());
                let made = self.breaker.report(permit, *outcome, self.now_ms, || *draw);
                if self.probe == Some(permit) {
                    self.probe = None;
                }
                if in_force != Some(permit.generation()) {
                    prop_assert_eq!(made, None, "a permit of an earlier generation changed the state");
                    prop_assert_eq!(self.breaker.snapshot(self.now_ms), before);
                }
            }
            Op::Report { .. } => {}
            Op::Poll => _ = self.breaker.poll(self.now_ms),
            Op::Isolate => _ = self.breaker.isolate(self.now_ms),
            Op::Close => _ = self.breaker.close(self.now_ms),
            Op::Reset => _ = self.breaker.reset(self.now_ms),
        }
        let after = self.breaker.snapshot(self.now_ms);
        prop_assert_eq!(after.state == BreakerState::Closed, self.breaker.is_closed());
        prop_assert_eq!(after.not_closed_since_ms.is_none(), self.breaker.is_closed());
        prop_assert_eq!(after.open_until_ms.is_some(), after.state == BreakerState::Open);
        prop_assert!(after.failures <= after.outcomes && after.slow_calls <= after.outcomes);
        prop_assert!(after.openings >= before.openings);
        Ok(())
    }

    fn acquire(&mut self, state: BreakerState) -> Result<(), TestCaseError> {
        match self.breaker.acquire(self.now_ms) {
            Ok(permit) => {
                prop_assert!(
                    matches!(state, BreakerState::Closed | BreakerState::HalfOpen),
                    "granted while {state}"
                );
                prop_assert_eq!(permit.is_probe(), state == BreakerState::HalfOpen);
                prop_assert!(self.probe.is_none(), "a second probe is in flight");
                if let Some(last) = self.permits.last() {
                    let rises = permit.generation() > last.generation();
                    let stays = permit.generation() == last.generation() && !permit.is_probe();
                    prop_assert!(rises || stays, "the generation went back, or a probe shares one");
                }
                self.permits.push(permit);
                self.probe = permit.is_probe().then_some(permit);
                self.openings_at_probe = self.breaker.snapshot(self.now_ms).openings;
            }
            Err(refused) => {
                prop_assert_eq!(refused.state, state);
                prop_assert!(state != BreakerState::Closed, "refused while closed");
                prop_assert_eq!(refused.retry_at_ms.is_none(), state == BreakerState::Isolated);
                prop_assert!(refused.retry_at_ms.is_none_or(|at_ms| at_ms > self.now_ms - 1_000));
            }
        }
        Ok(())
    }

    /// Asks whenever the breaker says to, and succeeds at once, until it is closed. Returns how long that took.
    fn recover_ms(&mut self, config: &BreakerConfig) -> Result<i64, TestCaseError> {
        let mut elapsed_ms = 0;
        // A probe in flight, the wait after it, and a question that finds the wait over, besides the probes themselves.
        for _ in 0..config.probe_successes + 3 {
            match self.breaker.acquire(self.now_ms) {
                Ok(permit) => {
                    self.breaker.report(permit, Outcome::Success { duration_ms: 0 }, self.now_ms, || 0.5);
                }
                Err(refused) => {
                    let at_ms = refused.retry_at_ms.ok_or_else(|| TestCaseError::fail("it is isolated"))?;
                    elapsed_ms += at_ms - self.now_ms;
                    self.now_ms = at_ms;
                }
            }
            if self.breaker.is_closed() {
                return Ok(elapsed_ms);
            }
        }
        Err(TestCaseError::fail(format!("not closed: {:?}", self.breaker)))
    }
}

proptest! {
    #[test]
    fn it_trips_with_the_first_call_that_exceeds_the_rate_by_the_margin(
        percent in 1_u32..100,
        margin in 0_u32..6,
        min_outcomes in 1_u32..12,
        calls in prop::collection::vec(prop::bool::weighted(0.6), 1..60),
    ) {
        let failure_rate = f64::from(percent) / 100.0;
        let config = BreakerConfig {
            failure_rate, min_outcomes, trip_margin: margin.into(), recent_outcomes: 0, ..BreakerConfig::default()
        };
        let mut breaker = Breaker::new(config).unwrap();
        let (mut failures, mut outcomes) = (0, 0);
        for failed in calls {
            let permit = breaker.acquire(0).unwrap();
            let class = FailureClass::ServerError;
            let failure = Outcome::Failure { class, duration_ms: 1 };
            let outcome = if failed { failure } else { Outcome::Success { duration_ms: 1 } };
            let opened = breaker.report(permit, outcome, 0, || 0.0).is_some();
            (failures, outcomes) = (failures + u32::from(failed), outcomes + 1);
            // In whole numbers: a share of percents has no rounding.
            let must = outcomes >= min_outcomes && 100 * failures >= percent * outcomes + 100 * margin;
            prop_assert_eq!(opened, must, "{} of {} failed", failures, outcomes);
            if opened {
                break;
            }
        }
    }

    #[test]
    fn a_breaker_keeps_its_promises_and_never_wedges(
        config in configs(),
        steps in prop::collection::vec((steps_ms(), ops()), 1..120),
    ) {
        let mut run = Run::new(config.clone());
        for (step_ms, op) in &steps {
            run.now_ms += step_ms;
            run.step(op)?;
        }
        if run.breaker.state(run.now_ms) == BreakerState::Isolated {
            run.breaker.close(run.now_ms);
        }
        let longest_wait_ms = config.open_max_ms as f64 * (1.0 + config.open_jitter);
        // A clock that has just stepped back by less than a second stands still for that long.
        let bound_ms = config.probe_deadline_ms as i64 + longest_wait_ms as i64 + 1_000;
        let took_ms = run.recover_ms(&config)?;
        prop_assert!(took_ms <= bound_ms, "took {took_ms} ms, bound {bound_ms} ms");
    }

    #[test]
    fn no_clock_makes_it_panic(
        config in configs(),
        steps in prop::collection::vec((any::<i64>(), ops()), 1..60),
    ) {
        let mut run = Run::new(config);
        for (now_ms, op) in steps {
            // The promises about moments need a sane clock; here it is enough to come through.
            run.now_ms = now_ms;
            let _ = run.step(&op);
        }
        prop_assert!(run.breaker.snapshot(i64::MAX).outcomes <= 60);
    }

    #[test]
    fn looking_often_and_looking_late_find_the_same(
        config in configs(),
        calls in prop::collection::vec(outcomes(), 1..40),
        looks in prop::collection::vec(0_i64..200_000, 1..20),
    ) {
        let mut late = Run::new(config);
        for outcome in calls {
            if let Ok(permit) = late.breaker.acquire(late.now_ms) {
                late.breaker.report(permit, outcome, late.now_ms, || 0.3);
            }
        }
        if let Some(retry_at_ms) = late.breaker.next_change_ms(late.now_ms) {
            // A probe that will be lost, so that time alone has something to do.
            late.now_ms = retry_at_ms;
            prop_assert!(late.breaker.acquire(late.now_ms).is_ok());
        }
        let mut often = late.breaker.clone();
        for look_ms in looks {
            late.now_ms += look_ms;
            often.state(late.now_ms);
        }
        prop_assert_eq!(often.snapshot(late.now_ms), late.breaker.snapshot(late.now_ms));
    }

    #[test]
    fn the_wait_lies_within_its_jitter_and_never_shrinks(draw in 0.0_f64..1.0, trips in 1_u32..100_000) {
        let config = BreakerConfig::default();
        let wait_ms = super::wait_ms(&config, trips, draw);
        let base_ms = (30_000_u64 << (trips - 1).min(20)).min(300_000) as i64;
        prop_assert!((base_ms..=base_ms + base_ms / 5).contains(&wait_ms));
        prop_assert!(super::wait_ms(&config, trips + 1, draw) >= wait_ms);
    }
}
