//! Replays the shared vectors (`tests/vectors/breaker`), and checks what a vector cannot say.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rand::{RngExt as _, SeedableRng as _};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Breaker, BreakerConfig, BreakerSnapshot, Counting, Outcome, Permit, Transition, counting};
use crate::failure::FailureClass;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    name: String,
    why: String,
    config: BreakerConfig,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    at_ms: i64,
    op: Op,
    permit: Option<String>,
    outcome: Option<Outcome>,
    draw: Option<f64>,
    expect: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Op {
    Acquire,
    Report,
    Poll,
    State,
    Isolate,
    Close,
    Reset,
}

/// Does one step and tells its result as the vectors write it.
fn replay(step: &Step, breaker: &mut Breaker, permits: &mut HashMap<String, Permit>) -> Value {
    let transition = |transition: Option<Transition>| json!({ "transition": transition });
    let name = || step.permit.clone().expect("this operation names a permit");
    match step.op {
        Op::Acquire => match breaker.acquire(step.at_ms) {
            Ok(permit) => {
                permits.insert(name(), permit);
                json!({ "granted": true, "probe": permit.is_probe() })
            }
            Err(refused) => {
                json!({ "granted": false, "state": refused.state, "retry_at_ms": refused.retry_at_ms })
            }
        },
        Op::Report => {
            let permit = permits[&name()];
            let outcome = step.outcome.expect("a report has an outcome");
            let draw = || step.draw.expect("the breaker opens, and the step has no draw");
            transition(breaker.report(permit, outcome, step.at_ms, draw))
        }
        Op::Poll => transition(breaker.poll(step.at_ms)),
        Op::State => {
            let mut state = serde_json::to_value(breaker.snapshot(step.at_ms)).expect("a snapshot is JSON");
            state["next_change_ms"] = json!(breaker.next_change_ms(step.at_ms));
            state
        }
        Op::Isolate => transition(breaker.isolate(step.at_ms)),
        Op::Close => transition(breaker.close(step.at_ms)),
        Op::Reset => transition(breaker.reset(step.at_ms)),
    }
}

fn vector_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/breaker");
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect()
}

#[test]
fn every_shared_vector_replays() {
    let files = vector_files();
    assert!(!files.is_empty(), "no vectors found: the breaker would be untested");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let vector: Vector =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(Some(vector.name.as_str()), file.file_stem().and_then(|stem| stem.to_str()));

        let mut breaker = Breaker::new(vector.config).unwrap();
        let mut permits = HashMap::new();
        for (number, step) in vector.steps.iter().enumerate() {
            let got = replay(step, &mut breaker, &mut permits);
            assert!(!step.expect.is_empty(), "{}, step {number} expects nothing", vector.name);
            for (field, expected) in &step.expect {
                assert_eq!(
                    got.get(field),
                    Some(expected),
                    "{}, step {number}, at {} ms: {field}\n{}\ngot {got}",
                    vector.name,
                    step.at_ms,
                    vector.why
                );
            }
        }
    }
}

#[test]
fn every_class_counts_as_the_design_says() {
    let of = |wanted: Counting| {
        FailureClass::ALL.into_iter().filter(move |class| counting(*class) == wanted).collect::<Vec<_>>()
    };
    assert_eq!(of(Counting::FailsProbe), [FailureClass::RateLimited]);
    assert_eq!(
        of(Counting::NotCounted),
        [
            FailureClass::ContextOverflow,
            FailureClass::ContentPolicy,
            FailureClass::Refusal,
            FailureClass::BadOutput,
            FailureClass::Conflict,
            FailureClass::InvalidRequest,
            FailureClass::BusinessRule,
            FailureClass::LockTimeout,
        ]
    );
    assert_eq!(
        of(Counting::Counted),
        [
            FailureClass::Overloaded,
            FailureClass::ServerError,
            FailureClass::Timeout,
            FailureClass::Network,
            FailureClass::PartialResponse,
            FailureClass::QuotaExhausted,
            FailureClass::QuotaWindow,
            FailureClass::Auth,
            FailureClass::Permission,
            FailureClass::ModelUnavailable,
            FailureClass::ToolError,
            FailureClass::WorkerLost,
            FailureClass::Unknown,
        ]
    );
}

#[test]
fn a_breaker_that_nobody_polls_keeps_a_bounded_memory() {
    let mut breaker = Breaker::new(BreakerConfig::default()).unwrap();
    let failure = Outcome::Failure { class: FailureClass::Timeout, duration_ms: 1 };
    for _ in 0..6 {
        let permit = breaker.acquire(0).unwrap();
        breaker.report(permit, failure, 0, || 0.0);
    }
    let day_ms = 86_400_000;
    for day in 1..100 {
        breaker.acquire(day * day_ms).unwrap();
    }
    let heard = std::iter::from_fn(|| breaker.poll(100 * day_ms)).count();
    assert!(heard <= super::UNHEARD_MAX);
    assert_eq!(breaker.snapshot(100 * day_ms).openings, 100);
}

#[test]
fn a_draw_out_of_range_neither_shortens_nor_stretches_the_wait() {
    for (draw, wait_ms) in [(-1.0, 30_000), (f64::NAN, 30_000), (1.0, 36_000), (f64::INFINITY, 36_000)] {
        let mut breaker = Breaker::new(BreakerConfig::default()).unwrap();
        for _ in 0..6 {
            let permit = breaker.acquire(0).unwrap();
            let failure = Outcome::Failure { class: FailureClass::Network, duration_ms: 1 };
            breaker.report(permit, failure, 0, || draw);
        }
        assert_eq!(breaker.next_change_ms(0), Some(wait_ms), "draw {draw}");
    }
}

#[test]
fn the_defaults_are_valid_and_a_table_may_name_only_some() {
    assert_eq!(BreakerConfig::default().validate(), Ok(()));
    let config: BreakerConfig = toml::from_str("open_ms = 5_000\nfailure_rate = 1").unwrap();
    assert_eq!(config, BreakerConfig { open_ms: 5_000, failure_rate: 1.0, ..BreakerConfig::default() });
    let error = toml::from_str::<BreakerConfig>("opne_ms = 5_000").unwrap_err();
    assert!(error.to_string().contains("opne_ms"), "{error}");
}

#[test]
fn a_number_out_of_bounds_is_refused_by_name_and_with_its_bounds() {
    type Spoil = fn(&mut BreakerConfig);
    let cases: [(&str, Spoil); 23] = [
        ("window_ms is 999", |c| c.window_ms = 999),
        ("buckets is 0", |c| c.buckets = 0),
        ("buckets is 7, but must be a divisor of window_ms (60000)", |c| c.buckets = 7),
        ("min_outcomes is 0", |c| c.min_outcomes = 0),
        ("recent_outcomes is 4, but must be 0 (off) or at least min_outcomes", |c| c.recent_outcomes = 4),
        ("recent_outcomes is 8, but must be 0 (off) or at least min_outcomes (9)", |c| c.min_outcomes = 9),
        ("recent_outcomes is 8, but must be 0 (off) or at least 10: with this", |c| c.failure_rate = 0.7),
        ("recent_outcomes is 5, but must be 0 (off) or at least 6: with this", |c| c.recent_outcomes = 5),
        ("recent_outcomes is 8, but must be 0 (off): with", |c| c.failure_rate = 0.999),
        ("trip_margin is -1, but must be 0 to 100", |c| c.trip_margin = -1.0),
        ("trip_margin is 3, but must be 0 where failure_rate is 1", |c| c.failure_rate = 1.0),
        ("recent_max_age_ms is 59999", |c| c.recent_max_age_ms = 59_999),
        ("failure_rate is 0", |c| c.failure_rate = 0.0),
        ("failure_rate is NaN", |c| c.failure_rate = f64::NAN),
        ("failure_rate is 50", |c| c.failure_rate = 50.0),
        ("slow_call_ms is 0", |c| c.slow_call_ms = Some(0)),
        ("slow_call_rate is -1", |c| c.slow_call_rate = -1.0),
        ("open_ms is 300001, but must be 1 to open_max_ms (300000)", |c| c.open_ms = 300_001),
        ("open_factor is 0", |c| c.open_factor = 0),
        ("open_jitter is 1.5", |c| c.open_jitter = 1.5),
        ("probe_deadline_ms is 0", |c| c.probe_deadline_ms = 0),
        ("probe_successes is 0", |c| c.probe_successes = 0),
        ("trips_reset_ms is 0", |c| c.trips_reset_ms = 0),
    ];
    for (message, spoil) in cases {
        let mut config = BreakerConfig::default();
        spoil(&mut config);
        let error = Breaker::new(config).unwrap_err().to_string();
        assert!(error.contains(message) && error.contains("must be"), "{error}\nshould say: {message}");
    }
}

#[test]
fn a_snapshot_survives_the_wire() {
    let mut breaker = Breaker::new(BreakerConfig::default()).unwrap();
    breaker.isolate(42);
    let snapshot = breaker.snapshot(43);
    let text = serde_json::to_string(&snapshot).unwrap();
    assert_eq!(serde_json::from_str::<BreakerSnapshot>(&text).unwrap(), snapshot);
    assert!(text.contains(r#""state":"isolated""#), "{text}");
}

/// Agents begin at a dependency which fails 3 calls in 10, all of them in the sample. By the ruin problem (0.3 / 0.7)^6 of them
/// ever open at a margin of 3: of 20,000, 124.
#[test]
fn a_margin_opens_a_new_breaker_by_chance_as_rarely_as_the_ruin_problem_says() {
    const AGENTS: u32 = 20_000;
    let mut rng = rand::rngs::StdRng::seed_from_u64(7);
    let mut opened = 0_u32;
    let fresh = Breaker::new(BreakerConfig { recent_outcomes: 0, ..BreakerConfig::default() }).unwrap();
    for _ in 0..AGENTS {
        let mut breaker = fresh.clone();
        // A walk that is so far from the margin hardly ever comes back: one in 100,000,000.
        let mut away = 0_i32;
        while breaker.is_closed() && away < 16 {
            let permit = breaker.acquire(0).unwrap();
            let fails = rng.random_bool(0.3);
            away += if fails { -1 } else { 1 };
            let failure = Outcome::Failure { class: FailureClass::ServerError, duration_ms: 1 };
            let outcome = if fails { failure } else { Outcome::Success { duration_ms: 1 } };
            opened += u32::from(breaker.report(permit, outcome, 0, || 0.0).is_some());
        }
    }
    let expected = f64::from(AGENTS) * (0.3_f64 / 0.7).powi(6);
    // Four standard deviations of a count of rare events.
    assert!((f64::from(opened) - expected).abs() < 4.0 * expected.sqrt(), "{opened} opened, not {expected}");
}
