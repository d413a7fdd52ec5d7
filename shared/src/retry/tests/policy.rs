//! Reading, writing and validating policies.

use utoipa::PartialSchema;

use crate::cost::Cost;
use crate::failure::FailureClass;
use crate::id::Name;
use crate::retry::{ClassPolicy, Ending, MAX_DELAY_MS, PolicyError, RetryPolicy, Risk, Strategy};

const DAY_MS: u64 = 86_400_000;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn every_strategy() -> [Strategy; 7] {
    [
        Strategy::Fixed { delay_ms: 0 },
        Strategy::Exponential { multiplier_ms: 1, min_ms: 0, max_ms: 1 },
        Strategy::ExponentialJitter { base_ms: 1, jitter_ms: 0, max_ms: MAX_DELAY_MS },
        Strategy::FullJitter { base_ms: MAX_DELAY_MS, min_ms: 0, max_ms: MAX_DELAY_MS },
        Strategy::EqualJitter { base_ms: 5, min_ms: 7, max_ms: 7 },
        Strategy::Decorrelated { base_ms: 9, cap_ms: 9 },
        Strategy::Schedule { delays_ms: vec![0, 5_000, MAX_DELAY_MS] },
    ]
}

#[test]
fn nothing_written_is_the_default_policy() {
    let policy: RetryPolicy = serde_json::from_str("{}").unwrap();
    assert_eq!(policy, RetryPolicy::default());
    assert_eq!(toml::from_str::<RetryPolicy>("").unwrap(), policy);
    assert_eq!(policy.strategy, Strategy::FullJitter { base_ms: 1_000, min_ms: 100, max_ms: 300_000 });
    assert_eq!((policy.max_attempts, policy.risk), (5, None));
    assert_eq!((policy.deadline_ms, policy.retention_ms), (DAY_MS, 2 * DAY_MS));
    assert_eq!((policy.timeout_ms, policy.lease_ms), (600_000, 30_000));
    assert!(policy.overrides.is_empty() && policy.fallbacks.is_empty());
    assert_eq!((policy.deferrals_allowed(), policy.releases_allowed()), (10_000, 1_000));
    // What an older release does not know it refuses: it is written only where it is set.
    let written = serde_json::to_value(&policy).unwrap();
    for field in ["fallbacks", "max_deferrals", "max_releases", "max_group_cost_usd_per_day"] {
        assert!(written.get(field).is_none(), "{written}");
    }
    assert_eq!(policy.validate(), Ok(()));
}

#[test]
fn defaults_follow_the_risk_and_the_deadline() {
    for (text, max_attempts, retention_ms) in [
        (r#"{"risk": "high"}"#, 3, 2 * DAY_MS),
        (r#"{"risk": "low"}"#, 5, 2 * DAY_MS),
        (r#"{"risk": "high", "max_attempts": 1}"#, 1, 2 * DAY_MS),
        (r#"{"deadline_ms": 60000}"#, 5, DAY_MS),
        (r#"{"deadline_ms": 604800000}"#, 5, 14 * DAY_MS),
        (r#"{"deadline_ms": 604800000, "retention_ms": 5}"#, 5, 5),
    ] {
        let policy: RetryPolicy = serde_json::from_str(text).unwrap();
        assert_eq!((policy.max_attempts, policy.retention_ms), (max_attempts, retention_ms), "{text}");
        assert_eq!(policy.validate(), Ok(()), "{text}");
    }
}

#[test]
fn a_strategy_takes_defaults_for_what_is_left_out() {
    for (text, expected) in [
        (r#"{"strategy": "fixed"}"#, Strategy::Fixed { delay_ms: 1_000 }),
        (
            r#"{"strategy": "exponential"}"#,
            Strategy::Exponential { multiplier_ms: 1_000, min_ms: 100, max_ms: 300_000 },
        ),
        (
            r#"{"strategy": "exponential_jitter"}"#,
            Strategy::ExponentialJitter { base_ms: 1_000, jitter_ms: 1_000, max_ms: 300_000 },
        ),
        (r#"{"strategy": "full_jitter"}"#, Strategy::default()),
        (
            r#"{"strategy": "equal_jitter", "min_ms": 7}"#,
            Strategy::EqualJitter { base_ms: 1_000, min_ms: 7, max_ms: 300_000 },
        ),
        (r#"{"strategy": "decorrelated"}"#, Strategy::Decorrelated { base_ms: 1_000, cap_ms: 300_000 }),
        (r#"{"strategy": "schedule"}"#, Strategy::Schedule { delays_ms: vec![5_000, 300_000, 1_800_000] }),
    ] {
        assert_eq!(serde_json::from_str::<Strategy>(text).unwrap(), expected, "{text}");
    }
}

#[test]
fn policies_survive_json_and_toml() {
    for strategy in every_strategy() {
        let timeout = ClassPolicy { max_attempts: Some(7), ..ClassPolicy::default() };
        let unknown = ClassPolicy {
            strategy: Some(strategy.clone()),
            max_attempts: Some(1),
            retryable: Some(false),
            when_unretryable: Some(Ending::Dead),
            when_exhausted: Some(Ending::Escalate),
            fallback_after: Some(2),
        };
        let policy = RetryPolicy {
            risk: Some(Risk::High),
            max_attempts: 2,
            deadline_ms: 1,
            retention_ms: 2,
            timeout_ms: 3,
            lease_ms: 1_000,
            strategy,
            overrides: [(FailureClass::Timeout, timeout), (FailureClass::Unknown, unknown)].into(),
            fallbacks: [("claude/a/opus", &["claude/a/sonnet", "openai/b/gpt"][..]), ("pdf", &["ocr"][..])]
                .map(|(primary, chain)| (name(primary), chain.iter().map(|text| name(text)).collect()))
                .into(),
            max_deferrals: Some(4),
            max_releases: Some(5),
            task_base_min_ms: Some(6),
            task_cap_max_ms: Some(7),
            max_group_cost_usd_per_day: Some(Cost::from_micros(12_500_001)),
        };
        assert_eq!(policy.validate(), Ok(()));
        let json = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<RetryPolicy>(&json).unwrap(), policy, "{json}");
        let text = toml::to_string(&policy).unwrap();
        assert_eq!(toml::from_str::<RetryPolicy>(&text).unwrap(), policy, "{text}");
    }
}

#[test]
fn a_policy_reads_as_an_operator_would_write_it() {
    let policy: RetryPolicy = toml::from_str(
        r#"
        risk = "high"
        deadline_ms = 3_600_000

        [strategy]
        strategy = "decorrelated"
        cap_ms = 60_000

        [overrides.rate_limited]
        strategy = { strategy = "equal_jitter", base_ms = 10_000 }

        [overrides.unknown]
        max_attempts = 1
        when_exhausted = "dead"
        "#,
    )
    .unwrap();
    assert_eq!(policy.validate(), Ok(()));
    assert_eq!(policy.strategy, Strategy::Decorrelated { base_ms: 1_000, cap_ms: 60_000 });
    assert_eq!(policy.rule(FailureClass::Unknown).max_attempts, Some(1));
    assert_eq!(policy.rule(FailureClass::Unknown).when_exhausted, Ending::Dead);
    assert_eq!(policy.rule(FailureClass::Unknown).when_unretryable, Ending::Escalate);
}

#[test]
fn unknown_names_are_refused() {
    for text in [
        r#"{"max_atempts": 3}"#,
        r#"{"risk": "medium"}"#,
        r#"{"strategy": {"strategy": "full_jitter", "cap_ms": 1}}"#,
        r#"{"strategy": {"strategy": "linear"}}"#,
        r#"{"strategy": {"base_ms": 1}}"#,
        r#"{"overrides": {"rate_limit": {}}}"#,
        r#"{"overrides": {"rate_limited": {"attempts": 1}}}"#,
        r#"{"overrides": {"rate_limited": {"when_exhausted": "drop"}}}"#,
        r#"{"max_attempts": -1}"#,
        r#"{"max_attempts": 1.5}"#,
    ] {
        assert!(serde_json::from_str::<RetryPolicy>(text).is_err(), "{text}");
    }
}

fn refusal(text: &str) -> PolicyError {
    serde_json::from_str::<RetryPolicy>(text).unwrap().validate().expect_err(text)
}

#[test]
fn the_message_names_field_value_bound_and_remedy() {
    for (text, parts) in [
        (
            r#"{"strategy": {"strategy": "full_jitter", "base_ms": 0}}"#,
            ["strategy.base_ms", "0 ms", "at least 1 ms", "use strategy `fixed`"],
        ),
        (
            r#"{"strategy": {"strategy": "full_jitter", "max_ms": 1000000000000000000}}"#,
            ["strategy.max_ms", "1000000000000000000", "2592000000", "snoozed"],
        ),
        (
            r#"{"strategy": {"strategy": "full_jitter", "min_ms": 501, "max_ms": 500}}"#,
            ["strategy.min_ms", "501", "500 ms (strategy.max_ms)", "lower the one"],
        ),
        (
            r#"{"overrides": {"conflict": {"strategy": {"strategy": "schedule", "delays_ms": []}}}}"#,
            ["overrides.conflict.strategy.delays_ms", "0 entries", "at least 1", "max_attempts = 1"],
        ),
        (r#"{"max_attempts": 0}"#, ["max_attempts", "0", "1 to 100", "no retry"]),
        (r#"{"max_attempts": 101}"#, ["max_attempts", "101", "1 to 100", "raise the delays"]),
        (
            r#"{"overrides": {"timeout": {"max_attempts": 0}}}"#,
            ["overrides.timeout.max_attempts", "0", "1 to 100", "no retry"],
        ),
        (
            r#"{"risk": "high", "max_attempts": 5}"#,
            ["max_attempts", "5", "risk = \"high\" 1 to 3", "leave risk out"],
        ),
        (
            r#"{"risk": "low", "max_attempts": 2}"#,
            ["max_attempts", "2", "risk = \"low\" 3 to 5", "leave risk out"],
        ),
        (r#"{"deadline_ms": 0}"#, ["deadline_ms", "0 ms", "1 to 31536000000 ms", "24 h"]),
        (r#"{"deadline_ms": 31536000001}"#, ["deadline_ms", "31536000001", "31536000000 ms", "enqueue"]),
        (r#"{"retention_ms": 0}"#, ["retention_ms", "0 ms", "1 to 63072000000 ms", "twice the deadline"]),
        (r#"{"timeout_ms": 0}"#, ["timeout_ms", "0 ms", "1 to 604800000 ms", "10 min"]),
        (r#"{"timeout_ms": 604800001}"#, ["timeout_ms", "604800001", "604800000 ms", "split"]),
        (r#"{"max_deferrals": 0}"#, ["max_deferrals", "0", "1 to 1000000", "10,000"]),
        (r#"{"max_group_cost_usd_per_day": 0}"#, ["max_group_cost_usd_per_day", "0 US", "10000", "no bound"]),
        (
            r#"{"max_group_cost_usd_per_day": 10001}"#,
            ["max_group_cost_usd_per_day", "10001", "10000", "more than 0"],
        ),
        (r#"{"max_releases": 1000001}"#, ["max_releases", "1000001", "1 to 1000000", "1,000"]),
        (
            r#"{"overrides": {"timeout": {"fallback_after": 101}}}"#,
            ["overrides.timeout.fallback_after", "101", "0 to 100", "1 takes it at once"],
        ),
        (
            r#"{"overrides": {"worker_lost": {"fallback_after": 1}}}"#,
            ["overrides.worker_lost.fallback_after", "1", "0 to 0", "leave it out"],
        ),
        (r#"{"fallbacks": {"a/b": []}}"#, ["fallbacks.a/b", "0", "1 to 31", "leave the chain out"]),
        (r#"{"fallbacks": {"a/b": ["c", "a/b"]}}"#, ["fallbacks.a/b", "`a/b`", "a cycle", "take it out"]),
        (r#"{"fallbacks": {"a": ["c", "d", "c"]}}"#, ["fallbacks.a", "`c`", "twice", "take one out"]),
        (r#"{"lease_ms": 999}"#, ["lease_ms", "999 ms", "1000 to 86400000 ms", "30 s"]),
        (r#"{"lease_ms": 86400001}"#, ["lease_ms", "86400001", "86400000 ms", "extend"]),
    ] {
        let message = refusal(text).to_string();
        for part in parts {
            assert!(message.contains(part), "{text}: no {part:?} in {message:?}");
        }
    }
}

#[test]
fn every_number_of_every_strategy_is_bounded() {
    let too_long = MAX_DELAY_MS + 1;
    for (strategy, fields) in [
        ("fixed", &["delay_ms"][..]),
        ("exponential", &["multiplier_ms", "max_ms"][..]),
        ("exponential_jitter", &["base_ms", "jitter_ms", "max_ms"][..]),
        ("full_jitter", &["base_ms", "max_ms"][..]),
        ("equal_jitter", &["base_ms", "max_ms"][..]),
        ("decorrelated", &["base_ms", "cap_ms"][..]),
    ] {
        for name in fields {
            let text = format!(r#"{{"strategy": {{"strategy": "{strategy}", "{name}": {too_long}}}}}"#);
            let field = format!("strategy.{name}");
            let expected = PolicyError::DelayTooLong { field, value_ms: too_long, max_ms: MAX_DELAY_MS };
            assert_eq!(refusal(&text), expected);
        }
    }
    let entry = format!(r#"{{"strategy": {{"strategy": "schedule", "delays_ms": [1, {too_long}]}}}}"#);
    assert!(
        matches!(refusal(&entry), PolicyError::DelayTooLong { field, .. } if field == "strategy.delays_ms[1]")
    );
}

#[test]
fn zeroes_that_would_spin_are_refused() {
    for (strategy, name) in [
        ("exponential", "multiplier_ms"),
        ("exponential", "max_ms"),
        ("exponential_jitter", "base_ms"),
        ("exponential_jitter", "max_ms"),
        ("full_jitter", "base_ms"),
        ("full_jitter", "max_ms"),
        ("equal_jitter", "base_ms"),
        ("equal_jitter", "max_ms"),
        ("decorrelated", "base_ms"),
        ("decorrelated", "cap_ms"),
    ] {
        let text = format!(r#"{{"strategy": {{"strategy": "{strategy}", "{name}": 0}}}}"#);
        assert_eq!(refusal(&text), PolicyError::ZeroDelay { field: format!("strategy.{name}") });
    }
}

#[test]
fn lower_bounds_above_upper_bounds_are_refused() {
    for (strategy, low, high) in [
        ("exponential", "min_ms", "max_ms"),
        ("full_jitter", "min_ms", "max_ms"),
        ("equal_jitter", "min_ms", "max_ms"),
        ("decorrelated", "base_ms", "cap_ms"),
    ] {
        let text = format!(r#"{{"strategy": {{"strategy": "{strategy}", "{low}": 8, "{high}": 7}}}}"#);
        let expected = PolicyError::MinAboveMax {
            low_field: format!("strategy.{low}"),
            low_ms: 8,
            high_field: format!("strategy.{high}"),
            high_ms: 7,
        };
        assert_eq!(refusal(&text), expected);
    }
}

#[test]
fn schedules_have_one_to_sixty_four_entries() {
    let of_length = |len| RetryPolicy {
        strategy: Strategy::Schedule { delays_ms: vec![5; len] },
        ..RetryPolicy::default()
    };
    let field = || "strategy.delays_ms".to_owned();
    assert_eq!(of_length(0).validate(), Err(PolicyError::EmptySchedule { field: field() }));
    assert_eq!(of_length(1).validate(), Ok(()));
    assert_eq!(of_length(64).validate(), Ok(()));
    let too_long = PolicyError::ScheduleTooLong { field: field(), len: 65, max_len: 64 };
    assert_eq!(of_length(65).validate(), Err(too_long));
}

#[test]
fn everything_that_is_wrong_is_found_and_can_be_told_in_other_words() {
    let text = r#"{"max_attempts": 0, "lease_ms": 1, "strategy": {"strategy": "full_jitter", "base_ms": 0, "max_ms": 50},
        "overrides": {"timeout": {"max_attempts": 101, "strategy": {"strategy": "fixed", "delay_ms": 9999999999}}}}"#;
    let policy: RetryPolicy = serde_json::from_str(text).unwrap();
    let problems = policy.problems();
    let fields: Vec<&str> = problems.iter().map(PolicyError::field).collect();
    let expected = [
        "strategy.base_ms",
        "strategy.min_ms",
        "max_attempts",
        "lease_ms",
        "overrides.timeout.strategy.delay_ms",
        "overrides.timeout.max_attempts",
    ];
    assert_eq!(fields, expected);
    assert_eq!(policy.validate(), Err(problems[0].clone()), "the first of them");
    assert_eq!(problems[1].fields(), ("strategy.min_ms", Some("strategy.max_ms")));
    let told = problems[1].clone().renamed(|field| field.replace("strategy.", "my ")).to_string();
    assert!(told.starts_with("my min_ms is 100 ms, at most 50 ms (my max_ms) are allowed"), "{told}");
}

#[test]
fn what_can_hardly_be_meant_is_allowed_and_found() {
    let cases = [
        (r#"{"strategy": {"strategy": "full_jitter", "max_ms": 500}}"#, Some("strategy.base_ms")),
        (
            r#"{"strategy": {"strategy": "exponential", "multiplier_ms": 400000}}"#,
            Some("strategy.multiplier_ms"),
        ),
        (r#"{"strategy": {"strategy": "full_jitter", "base_ms": 300000}}"#, None),
        (r#"{"lease_ms": 600001}"#, Some("lease_ms")),
        (r#"{"lease_ms": 600000}"#, None),
        // Short work under the lease that everybody has.
        (r#"{"timeout_ms": 1000}"#, None),
        (r#"{"overrides": {"timeout": {"max_attempts": 6}}}"#, Some("overrides.timeout.max_attempts")),
        (r#"{"overrides": {"timeout": {"max_attempts": 5}}}"#, None),
        // They count for themselves, and a class's default is not the queue's doing.
        (r#"{"overrides": {"lock_timeout": {"max_attempts": 50}}}"#, None),
        (r#"{"max_attempts": 1}"#, None),
    ];
    for (text, expected) in cases {
        let policy: RetryPolicy = serde_json::from_str(text).unwrap();
        assert_eq!(policy.validate(), Ok(()), "{text}");
        let found = policy.contradictions();
        assert_eq!(found.iter().map(PolicyError::field).next(), expected, "{text}");
        assert!(found.len() < 2, "{text}: {found:?}");
    }
}

#[test]
fn the_schema_requires_nothing_and_tags_strategies() {
    let schema = serde_json::to_value(RetryPolicy::schema()).unwrap();
    assert!(schema.get("required").is_none(), "{schema}");
    for name in ["risk", "max_attempts", "deadline_ms", "strategy", "overrides"] {
        assert!(schema["properties"].get(name).is_some(), "no {name} in {schema}");
    }
    let strategy = serde_json::to_string(&Strategy::schema()).unwrap();
    for name in ["full_jitter", "exponential_jitter", "schedule", r#""strategy""#] {
        assert!(strategy.contains(name), "no {name} in {strategy}");
    }
}

#[test]
fn chains_are_bounded_and_do_not_nest() {
    let chain = |length: usize| (0..length).map(|place| name(&format!("d{place}"))).collect::<Vec<_>>();
    let with = |fallbacks| RetryPolicy { fallbacks, ..RetryPolicy::default() };
    assert_eq!(with([(name("p"), chain(31))].into()).validate(), Ok(()));
    let too_long = with([(name("p"), chain(32))].into()).validate().unwrap_err();
    assert!(too_long.to_string().contains("fallbacks.p is 32, 1 to 31"), "{too_long}");
    let many = |count: usize| (0..count).map(|place| (name(&format!("p{place}")), chain(1))).collect();
    assert_eq!(with(many(256)).validate(), Ok(()));
    assert!(with(many(257)).validate().is_err());
    // Each other's stand-ins: no cycle, since a task follows only the chain of its own dependency.
    let mutual = with([(name("a"), vec![name("b")]), (name("b"), vec![name("a")])].into());
    assert_eq!(mutual.validate(), Ok(()));
    assert_eq!(mutual.dependency_at(Some(&name("a")), 9).map(Name::as_str), Some("b"));
}
