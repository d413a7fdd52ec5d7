use super::*;
use redrive_shared::gate::Budget;
use redrive_shared::retry::Strategy;

const WHOLE: &str = r#"
title = "everything"
seed = 7
runs = 3
duration_ms = 60000

[clients]
count = 10
arrival = "poisson"
per_s = 2.5
tasks = 4
pause_ms = { mean = 100, sd = 20 }
agents = 5
slots = 3

[dependency]
network_ms = 10
service_ms = { mean = 200, sd = 50 }
capacity = 8
queue = 100
timeout_ms = 5000
failure_rate = 0.01
poison_rate = 0.001

[[dependency.outages]]
from_ms = 30000
to_ms = 40000

[[dependency.outages]]
from_ms = 10000
to_ms = 20000
failure_rate = 0.5

[dependency.rate_limit]
per_s = 50
burst = 10
retry_after_ms = 2000
counts_refused = true

[[dependency.rate_limit.changes]]
from_ms = 20000
per_s = 5

[workflow]
steps = 4
calls_at = 3
step_ms = 250

[gate]
holds = "retries"
requests_per_minute = 6000
budget = { ratio = 0.1, min_firsts = 50 }

[retry]
strategy = "full_jitter"
base_ms = 500
max_attempts = 7

[breaker]
min_outcomes = 4
slow_call_ms = 900

[cost]
per_call_usd = 0.01

[[variants]]

[[variants]]
name = "at once"
retry = { strategy = "none", max_attempts = "unlimited" }
breaker = false
gate = false
resume = false

[[variants]]
name = "its own gate"
gate = { budget = { floor_per_s = 3 } }
"#;

#[test]
fn every_key_is_read() {
    let scenario = Scenario::parse("whole.toml", WHOLE).unwrap();
    assert_eq!((scenario.seed, scenario.runs, scenario.duration_ms), (7, 3, 60_000));
    assert_eq!(scenario.clients.rates, [Stage { from_ms: 0, per_s: 2.5 }]);
    assert_eq!((scenario.clients.count, scenario.clients.tasks, scenario.clients.agents), (10, 4, 5));
    assert_eq!(scenario.clients.slots, Some(3));
    let step = Spread { mean_ms: 250.0, sd_ms: 0.0 };
    assert_eq!(scenario.workflow, Workflow { steps: 4, calls_at: 3, step });
    let [jittered, at_once, own] = &scenario.variants[..] else { panic!("{:?}", scenario.variants) };
    assert_eq!(jittered.name, "full_jitter");
    let full = Strategy::FullJitter { base_ms: 500, min_ms: 100, max_ms: 300_000 };
    assert_eq!((&jittered.retry.policy.strategy, jittered.retry.policy.max_attempts), (&full, 7));
    let breaker = jittered.breaker.as_ref().unwrap();
    assert_eq!((breaker.min_outcomes, breaker.slow_call_ms, breaker.open_ms), (4, Some(900), 30_000));
    let dependency = &jittered.dependency;
    assert_eq!(dependency.room, Room::Capacity { at_once: 8, queue: Some(100) });
    let outages: Vec<(u64, f64)> =
        dependency.outages.iter().map(|outage| (outage.from_ms, outage.failure_rate)).collect();
    assert_eq!(outages, [(10_000, 0.5), (30_000, 1.0)]);
    let changes = vec![Stage { from_ms: 20_000, per_s: 5.0 }];
    let limit =
        RateLimit { per_s: 50.0, changes, burst: 10, counts_refused: true, retry_after_ms: Some(2_000) };
    assert_eq!(dependency.rate_limit.as_ref(), Some(&limit));
    assert_eq!(at_once.retry.policy.strategy, Strategy::Fixed { delay_ms: 0 });
    assert!(at_once.retry.unlimited && at_once.breaker.is_none());
    let budget = Budget { ratio: 0.1, min_firsts: 50, ..Budget::default() };
    let settings = Settings { requests_per_minute: Some(6_000), budget: Some(budget), ..Settings::default() };
    assert_eq!(jittered.gate, Some(GateRules { holds: Holds::Retries, settings }));
    assert_eq!((&at_once.gate, at_once.resume, jittered.resume), (&None, false, true));
    let budget = Budget { floor_per_s: 3.0, ..Budget::default() };
    let settings = Settings { requests_per_minute: None, budget: Some(budget), ..Settings::default() };
    assert_eq!(own.gate, Some(GateRules { holds: Holds::Everything, settings }), "nothing is mixed in");
}

/// What is said when one line of the whole scenario reads otherwise; `{line}` stands for its number.
fn said(line: &str, instead: &str) -> String {
    let number = WHOLE.lines().position(|found| found == line).expect(line) + 1;
    let error = Scenario::parse("bad.toml", &WHOLE.replacen(line, instead, 1)).expect_err(instead);
    assert_eq!(error.line, Some(number), "{error}");
    error.to_string()
}

#[test]
fn what_is_wrong_is_told_with_its_line_and_what_to_write() {
    let cases = [
        ("strategy = \"full_jitter\"", "strategy = \"fulljitter\"", "did you mean \"full_jitter\"?"),
        ("strategy = \"full_jitter\"", "strategy = \"zzz\"", "write \"none\", \"fixed\""),
        ("base_ms = 500", "base_ms = -500", "is -500; write a whole number of milliseconds, 0 or more"),
        ("base_ms = 500", "base_ms = 0", "is 0 ms, at least 1 ms is needed"),
        ("base_ms = 500", "cap_ms = 500", "`retry.cap_ms` is unknown; did you mean `max_ms`?"),
        ("max_attempts = 7", "max_attempts = \"seven\"", "from 1 to 100, or \"unlimited\""),
        ("max_attempts = 7", "max_attempts = 101", "is 101; write a whole number, from 1 to 100"),
        ("count = 10", "count = 100001", "is 100001; write a whole number, from 1 to 100000"),
        ("count = 10", "count = \"many\"", "is \"many\"; write a whole number"),
        ("count = 10", "cuont = 10", "`clients.count` is missing"),
        ("duration_ms = 60000", "duration_ms = 604800001", "from 1 to 604800000"),
        ("per_s = 2.5", "per_s = -1", "is -1; write a number"),
        ("failure_rate = 0.01", "failure_rate = 1.5", "is 1.5; write a number, from 0 to 1"),
        ("from_ms = 10000", "from_ms = 35000", "must be after from_ms"),
        ("to_ms = 40000", "to_ms = 30000", "it must be after from_ms (30000)"),
        ("queue = 100", "contention = \"optimistic\"", "cannot be combined with contention"),
        ("min_outcomes = 4", "min_outcomes = 9", "must be 0 (off) or at least min_outcomes"),
        ("min_outcomes = 4", "min_outcome = 4", "did you mean `min_outcomes`?"),
        ("name = \"at once\"", "name = \"full_jitter\"", "a second time"),
        ("holds = \"retries\"", "holds = \"retrys\"", "did you mean \"retries\"?"),
        ("requests_per_minute = 6000", "requests_per_minute = 0", "is 0, but must be 1 to 10000000"),
        (
            "budget = { ratio = 0.1, min_firsts = 50 }",
            "budget = { ratio = 11 }",
            "is 11, but must be 0 to 10",
        ),
        ("budget = { ratio = 0.1, min_firsts = 50 }", "budget = { rate = 1 }", "did you mean `ratio`?"),
        ("holds = \"retries\"", "hold = \"retries\"", "`gate.hold` is unknown; did you mean `holds`?"),
        ("gate = false", "gate = 7", "`variants[1].gate` is 7; write a table"),
        ("slots = 3", "slots = 0", "from 1 to 10000"),
        ("calls_at = 3", "calls_at = 5", "from 1 to 4"),
        ("step_ms = 250", "step_ms = \"slow\"", "is \"slow\"; write a number"),
        ("seed = 7", "seed =", "not valid TOML"),
    ];
    for (line, instead, expected) in cases {
        let error = Scenario::parse("bad.toml", &WHOLE.replacen(line, instead, 1)).expect_err(instead);
        assert!(error.to_string().starts_with("bad.toml:"), "{error}");
        assert!(error.to_string().contains(expected), "{instead}: {error}");
    }
    let error = said("base_ms = 500", "base_ms = \"fast\"");
    assert!(error.contains("`retry.base_ms` is \"fast\""), "{error}");
}

#[test]
fn outages_that_overlap_are_refused_where_the_later_line_is() {
    let error =
        said("from_ms = 10000", "from_ms = 35000\nto_ms = 45000\n[[dependency.outages]]\nfrom_ms = 1000");
    assert!(error.contains("overlaps the outage of line 25"), "{error}");
}

#[test]
fn what_is_missing_is_told_where_it_belongs() {
    let error = |text: &str| Scenario::parse("s.toml", text).unwrap_err().to_string();
    assert!(error("seed = 1").contains("`clients` is missing"));
    assert!(error("[clients]\ncount = 1").contains("`retry` is missing"));
    let poisson = "[retry]\nstrategy = \"none\"\n[clients]\ncount = 1\narrival = \"poisson\"";
    assert_eq!(error(poisson), "s.toml:3: `clients.per_s` is missing; write clients a second, such as 10");
    assert!(error(&"#".repeat(2_000_000)).contains("at most 1048576 bytes"));
}
