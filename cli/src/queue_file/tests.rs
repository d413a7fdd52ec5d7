//! The file, its documentation, and what is said of mistakes in it.

use redrive_shared::classify::classify;
use redrive_shared::cost::Cost;
use redrive_shared::failure::{FailureClass, FailureSignal};
use redrive_shared::id::Name;
use redrive_shared::retry::{ClassPolicy, Ending, RetryPolicy, Risk, Strategy};
use redrive_shared::wire::QueueView;
use serde::de::DeserializeOwned;

use super::difference::default_rule;
use super::settings::{CLASS, QUEUE, STRATEGY};
use super::{Change, changes, parse, write};

const EXAMPLE: &str = include_str!("../../../docs/queues.toml");
const PAGE: &str = include_str!("../../../docs/policies.md");

const WHOLE: &str = r#"
[queues.default]
risk = "low"
max_attempts = 4
deadline = "2h"
retention = "7d"
timeout = "90s"
lease = "1m"
max_deferrals = 7
max_releases = 8
task_base_min = "1500ms"
task_cap_max = "1h"
max_group_cost_usd_per_day = 12.5
fallbacks = { "llm/a.1" = ["llm/b", "c"] }
strategy = "equal_jitter"
base = "2s"
min = "0s"
max = "10m"

[queues."mail/out"]
strategy = { strategy = "fixed", delay = "1m" }

[queues.reports.strategy]
strategy = "schedule"
delays = ["5s", "5m"]

[queues.reports.classes.timeout]
max_attempts = 2
retryable = false
when_unretryable = "escalate"
when_exhausted = "escalate"
strategy = "decorrelated"
base = "1s"
cap = "1m"

[queues.reports.classes.conflict.strategy]
strategy = "exponential_jitter"
jitter = "100ms"
"#;

fn policies(text: &str) -> Vec<(String, RetryPolicy)> {
    let entries = parse("queues.toml", text).unwrap();
    entries.into_iter().map(|entry| (entry.name.to_string(), entry.policy)).collect()
}

fn view(name: &str, policy: RetryPolicy) -> QueueView {
    let (counts, name) = (<_>::default(), Name::new(name).unwrap());
    let (amplification, unread) = (None, Vec::new());
    QueueView { name, paused: false, counts, next_due_at_ms: None, policy, amplification, version: 3, unread }
}

#[test]
fn every_setting_is_read() {
    let read = policies(WHOLE);
    let names: Vec<&str> = read.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["default", "mail/out", "reports"]);
    let name = |text: &str| Name::new(text).unwrap();
    let expected = RetryPolicy {
        risk: Some(Risk::Low),
        max_attempts: 4,
        deadline_ms: 7_200_000,
        retention_ms: 604_800_000,
        timeout_ms: 90_000,
        lease_ms: 60_000,
        strategy: Strategy::EqualJitter { base_ms: 2_000, min_ms: 0, max_ms: 600_000 },
        overrides: <_>::default(),
        fallbacks: [(name("llm/a.1"), vec![name("llm/b"), name("c")])].into(),
        max_deferrals: Some(7),
        max_releases: Some(8),
        task_base_min_ms: Some(1_500),
        task_cap_max_ms: Some(3_600_000),
        max_group_cost_usd_per_day: Some(Cost::from_micros(12_500_000)),
    };
    assert_eq!(read[0].1, expected);
    assert_eq!(read[1].1.strategy, Strategy::Fixed { delay_ms: 60_000 });
    assert_eq!(read[2].1.strategy, Strategy::Schedule { delays_ms: vec![5_000, 300_000] });
    let timeout = ClassPolicy {
        strategy: Some(Strategy::Decorrelated { base_ms: 1_000, cap_ms: 60_000 }),
        max_attempts: Some(2),
        retryable: Some(false),
        when_unretryable: Some(Ending::Escalate),
        when_exhausted: Some(Ending::Escalate),
        fallback_after: None,
    };
    assert_eq!(read[2].1.overrides[&FailureClass::Timeout], timeout);
    let conflict = Strategy::ExponentialJitter { base_ms: 1_000, jitter_ms: 100, max_ms: 300_000 };
    assert_eq!(read[2].1.overrides[&FailureClass::Conflict].strategy, Some(conflict));
}

#[test]
fn an_empty_table_is_the_default_policy() {
    assert_eq!(policies("[queues.a]\n"), [("a".to_owned(), RetryPolicy::default())]);
    let risky = policies("[queues.a]\nrisk = \"high\"\ndeadline = \"3d\"");
    assert_eq!((risky[0].1.max_attempts, risky[0].1.retention_ms), (3, 6 * 86_400_000), "they follow");
}

#[test]
fn what_is_written_reads_the_same_again() {
    let mut queues = policies(WHOLE);
    queues.extend(policies(EXAMPLE).into_iter().map(|(name, policy)| (format!("{name}-2"), policy)));
    let views: Vec<QueueView> = queues.iter().map(|(name, policy)| view(name, policy.clone())).collect();
    let text = write(&views).unwrap();
    queues.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(policies(&text), queues, "{text}");
    assert!(text.contains("[queues.\"mail/out\"]  # version 3\n"), "{text}");
}

/// What is said of a file, without its name.
fn said(text: &str) -> Vec<String> {
    let mistakes = parse("q.toml", text).expect_err(text);
    mistakes.iter().map(|mistake| mistake.to_string().replacen("q.toml:", "", 1)).collect()
}

/// What stands in the table of a queue from the second line on, and what is said of it.
const MISTAKES: &[(&str, &str)] = &[
    ("risk = \"hihg\"", "2: `queues.a.risk` is \"hihg\", which is unknown; did you mean \"high\"?"),
    ("risk = 3", "2: `queues.a.risk` is 3; write \"low\" or \"high\""),
    ("max_attempts = -1", "2: `queues.a.max_attempts` is -1; write a whole number, from 1 to 100"),
    ("max_attempts = \"five\"", "is \"five\"; write a whole number, from 1 to 100"),
    ("max_attempts = 101", "2: `queues.a.max_attempts` is 101; write a whole number, from 1 to 100"),
    ("max_atempts = 3", "2: `queues.a.max_atempts` is unknown; did you mean `max_attempts`?"),
    ("deadline = \"-5s\"", "2: `queues.a.deadline` is \"-5s\": `-5s` is negative"),
    ("deadline = 30", "2: `queues.a.deadline` is 30: `30` has no unit; write 30s for seconds or 30ms"),
    ("deadline = -30", "2: `queues.a.deadline` is -30: `-30` is negative"),
    ("deadline = true", "is not a duration; write one such as"),
    ("deadline = \"soon\"", "`soon` is not a duration; write one such as"),
    (
        "deadline_ms = 90000",
        "2: `queues.a.deadline_ms` is unknown; durations have units here: write `deadline = \"1m30s\"`",
    ),
    ("base_ms = 500", "durations have units here: write `base = \"500ms\"`"),
    ("deadline = \"366d\"", "2: `queues.a.deadline` is 31622400000 ms, 1 to 31536000000 ms are allowed"),
    ("lease = \"10ms\"", "2: `queues.a.lease` is 10 ms, 1000 to 86400000 ms are allowed"),
    (
        "risk = \"high\"\nmax_attempts = 5",
        "3: `queues.a.max_attempts` is 5, with risk = \"high\" 1 to 3 are allowed",
    ),
    (
        "base = \"1s\"",
        "2: `queues.a.base` means nothing without a strategy; write strategy = \"full_jitter\"",
    ),
    (
        "strategy = \"fulljitter\"",
        "2: `queues.a.strategy` is \"fulljitter\", which is unknown; did you mean \"full_jitter\"?",
    ),
    ("strategy = 5", "2: `queues.a.strategy` is 5; write \"fixed\", \"exponential\""),
    (
        "strategy = \"full_jitter\"\ncap = \"1m\"",
        "3: `queues.a.cap` is no setting of \"full_jitter\", which has `base`, `min`, `max`",
    ),
    ("strategy = \"full_jitter\"\nbase = \"0s\"", "3: `queues.a.base` is 0 ms, at least 1 ms is needed"),
    (
        "strategy = \"full_jitter\"\nmax = \"50ms\"",
        "3: `queues.a.min` is 100 ms, at most 50 ms (`queues.a.max`) are allowed",
    ),
    ("strategy = \"fixed\"\ndelay = \"31d\"", "3: `queues.a.delay` is 2678400000 ms, at most 2592000000 ms"),
    ("strategy = \"schedule\"\ndelays = []", "3: `queues.a.delays` has 0 entries, at least 1 is needed"),
    (
        "strategy = \"schedule\"\ndelays = [\"5s\", 7]",
        "3: `queues.a.delays` has 7 as number 2: `7` has no unit",
    ),
    ("strategy = \"schedule\"\ndelays = [\"5s\", \"31d\"]", "3: `queues.a.delays[1]` is 2678400000 ms"),
    ("strategy = \"schedule\"\ndelays = \"5s\"", "write a list of durations, such as [\"5s\", \"5m\"]"),
    ("strategy = {base = \"1s\"}", "2: `queues.a.strategy.strategy` is missing; write the strategy's name"),
    (
        "base = \"1s\"\nstrategy = {strategy = \"fixed\"}",
        "2: `queues.a.base` belongs into the strategy's own table, [queues.a.strategy]",
    ),
    ("[queues.a.strategy]\nstrategy = \"full_jitter\"\nbase = \"0s\"", "4: `queues.a.strategy.base` is 0 ms"),
    (
        "[queues.a.classes.timeuot]",
        "2: `queues.a.classes.timeuot` is no failure class; did you mean `timeout`?",
    ),
    ("[queues.a.classes.zzzzzzzzzz]", "there are rate_limited, overloaded"),
    (
        "[queues.a.classes.timeout]\nmax_attempts = 0",
        "3: `queues.a.classes.timeout.max_attempts` is 0; write a whole number",
    ),
    (
        "[queues.a.classes.timeout]\nretryable = \"yes\"",
        "3: `queues.a.classes.timeout.retryable` is \"yes\"; write true or false",
    ),
    ("[queues.a.classes.timeout]\nwhen_exhausted = \"drop\"", "write \"dead\" or \"escalate\""),
    (
        "[queues.a.classes.timeout]\nstrategy = \"fixed\"\ndelay = \"31d\"",
        "4: `queues.a.classes.timeout.delay` is 2678400000 ms",
    ),
    (
        "[queues.a.classes.timeout.strategy]\nstrategy = \"fixed\"\ndelay = \"31d\"",
        "4: `queues.a.classes.timeout.strategy.delay` is",
    ),
    ("classes = 3", "2: `queues.a.classes` is 3; write a table, such as [queues.a.classes]"),
    ("paused = true", "pausing is no part of a policy: `redrive queues pause NAME` does it"),
    ("[queues.a.overrides.timeout]", "2: `queues.a.overrides` is unknown; write [queues.a.classes.CLASS]"),
    ("deadline = ", "2: not valid TOML"),
    ("[queues.\"a b\"]", "2: `queues.a b` is no name for a queue: it contains ' '"),
    ("[queue.b]", "2: `queue` is unknown; did you mean `queues`?"),
];

#[test]
fn every_mistake_is_told_with_its_line_and_what_to_write() {
    for (text, expected) in MISTAKES {
        let said = said(&format!("[queues.a]\n{text}"));
        assert_eq!(said.len(), 1, "{text}: {said:#?}");
        assert!(said[0].contains(expected), "{text}: {said:#?}");
    }
    assert_eq!(said(""), ["1: `queues` is missing; write a table for each queue, such as [queues.default]"]);
    assert_eq!(said("queues = 1"), ["1: `queues` is 1; write a table, such as [queues]"]);
    assert_eq!(said("[queues]\nb = 3"), ["2: `queues.b` is 3; write a table, such as [queues.b]"]);
    let large = parse("q.toml", &"#".repeat(5_000_000)).unwrap_err();
    assert!(large[0].to_string().starts_with("q.toml: has more than the 4194304 bytes"), "{large:?}");
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_their_lines() {
    let text = "[queues.b]\nrisk = \"high\"\nmax_attempts = 9\nlease = 30\n[queues.a]\ndeadlin = \"1h\"\n\
                strategy = \"full_jitter\"\nmin = \"1m\"\nmax = \"5s\"\n[queues.a.classes.auht]\n[que]\n";
    let lines: Vec<String> =
        said(text).iter().map(|mistake| mistake.split(':').next().unwrap().to_owned()).collect();
    assert_eq!(lines, ["3", "4", "6", "8", "10", "11"], "{:#?}", said(text));
    // What follows from something that is refused already is not told as well.
    let refused = said("[queues.a]\nstrategy = \"full_jitter\"\nmin = \"soon\"\nmax = \"50ms\"");
    assert_eq!(refused.len(), 1, "{refused:#?}");
}

#[test]
fn contradictions_are_kept_apart_from_mistakes() {
    let cases = [
        (
            "strategy = \"full_jitter\"\nmax = \"500ms\"",
            Some("3: `queues.a.base` is 1000 ms, at most 500 ms (`queues.a.max`)"),
        ),
        (
            "lease = \"1h\"",
            Some("2: `queues.a.lease` is 3600000 ms, at most 600000 ms (`queues.a.timeout`) are allowed"),
        ),
        ("timeout = \"5s\"", None),
        (
            "[queues.a.classes.timeout]\nmax_attempts = 6",
            Some("3: `queues.a.classes.timeout.max_attempts` is 6, and `queues.a.max_attempts` is 5"),
        ),
        ("[queues.a.classes.worker_lost]\nmax_attempts = 6", None),
        ("[queues.a.classes.timeout]\nmax_attempts = 5", None),
        (
            "[queues.a.classes.timeout.strategy]\nstrategy = \"exponential\"\nmultiplier = \"1h\"",
            Some("4: `queues.a.classes.timeout.strategy.multiplier`"),
        ),
    ];
    for (text, expected) in cases {
        let entries = parse("q.toml", &format!("[queues.a]\n{text}")).expect(text);
        let found: Vec<String> = entries[0].contradictions.iter().map(ToString::to_string).collect();
        match expected {
            Some(expected) => {
                assert_eq!(found.len(), 1, "{text}: {found:#?}");
                assert!(found[0].contains(expected), "{text}: {found:#?}");
            }
            None => assert!(found.is_empty(), "{text}: {found:#?}"),
        }
    }
}

/// The fields that serde lists when it refuses one.
fn fields<T: DeserializeOwned>(text: &str) -> Vec<String> {
    let error = serde_json::from_str::<T>(text).err().expect("refused").to_string();
    error.split('`').skip(3).step_by(2).map(str::to_owned).collect()
}

#[test]
fn no_setting_of_a_policy_is_forgotten() {
    let known = |settings: &[super::settings::Setting], more: &[&str]| {
        let mut all: Vec<String> = settings.iter().map(|setting| setting.field.to_owned()).collect();
        all.extend(more.iter().map(|&field| field.to_owned()));
        all.sort();
        all
    };
    let sorted = |mut fields: Vec<String>| {
        fields.sort();
        fields
    };
    let refused = r#"{"no_such_field": 1}"#;
    assert_eq!(sorted(fields::<RetryPolicy>(refused)), known(QUEUE, &["strategy", "overrides"]));
    assert_eq!(sorted(fields::<ClassPolicy>(refused)), known(CLASS, &["strategy"]));
    let mut all: Vec<String> = Strategy::NAMES
        .iter()
        .flat_map(|name| fields::<Strategy>(&format!(r#"{{"strategy": "{name}", "no_such_field": 1}}"#)))
        .collect();
    all.sort();
    all.dedup();
    assert_eq!(all, known(STRATEGY, &[]));
    assert_eq!(fields::<Strategy>(r#"{"strategy": "none"}"#), Strategy::NAMES);
    for setting in QUEUE {
        let row = format!("| `{}` | `{}` | ", setting.key, setting.field);
        assert!(PAGE.contains(&row), "docs/policies.md has no row `{row}`");
    }
    for setting in CLASS {
        assert!(
            PAGE.contains(&format!("`{}`", setting.key)),
            "docs/policies.md does not tell of {}",
            setting.key
        );
    }
}

#[test]
fn the_example_is_read_and_says_the_defaults_where_it_says_so() {
    let read = policies(EXAMPLE);
    let names: Vec<&str> = read.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["default", "payments", "reports"]);
    assert_eq!(read[0].1, RetryPolicy::default());
    assert!(parse("queues.toml", EXAMPLE).unwrap().iter().all(|entry| entry.contradictions.is_empty()));
    for setting in QUEUE {
        let stands = |line: &str| line.trim_start_matches('#').starts_with(&format!("{} = ", setting.key));
        assert!(EXAMPLE.lines().any(stands), "{} is not in docs/queues.toml", setting.key);
    }
}

#[test]
fn the_page_shows_what_classes_and_strategies_have_by_default() {
    let mut table = "| class | retried | attempts of this class | strategy | cannot be retried | used up | next route |\n\
                     |---|---|---|---|---|---|---|\n"
        .to_owned();
    for class in FailureClass::ALL {
        let [attempts, retryable, unretryable, exhausted, fallback, strategy] = default_rule(class).unwrap();
        let signal = FailureSignal { class: Some(class), ..FailureSignal::default() };
        let retried = match (retryable.as_str(), classify(&signal, None, 0).retryable) {
            ("true", _) => "always",
            ("as classified", true) => "yes",
            ("as classified", false) => "no",
            other => panic!("no word for {other:?}"),
        };
        table.push_str(&format!(
            "| `{class}` | {retried} | {attempts} | {strategy} | {unretryable} | {exhausted} | {fallback} |\n"
        ));
    }
    assert!(PAGE.contains(&table), "docs/policies.md needs this table:\n{table}");
    for name in Strategy::NAMES {
        let default: Strategy = serde_json::from_str(&format!(r#"{{"strategy": "{name}"}}"#)).unwrap();
        let values = serde_json::to_value(&default).unwrap();
        let its = STRATEGY.iter().filter_map(|setting| Some((setting, values.get(setting.field)?)));
        let its: Vec<String> =
            its.map(|(setting, value)| format!("`{}` {}", setting.key, setting.plain(value))).collect();
        let row = PAGE.lines().find(|line| line.starts_with(&format!("| `{name}` | "))).expect(name);
        assert!(row.contains(&its.join(", ")), "docs/policies.md: {row}: {its:?}");
    }
}

#[test]
fn an_amount_is_read_checked_written_and_told() {
    let (old, new) =
        ("[queues.a]\nmax_group_cost_usd_per_day = 3", "[queues.a]\nmax_group_cost_usd_per_day = 0.000001");
    let (old, new) = (policies(old).remove(0).1, policies(new).remove(0).1);
    assert_eq!(new.max_group_cost_usd_per_day, Some(Cost::from_micros(1)));
    let told = changes(&old, &new).unwrap().remove(0);
    assert_eq!((told.old.as_str(), told.new.as_str()), ("$3", "$0.000001"));
    for (wrong, said) in [("0", "more than 0"), ("10001", "10000"), ("\"5\"", "number")] {
        let error = parse("f", &format!("[queues.a]\nmax_group_cost_usd_per_day = {wrong}")).unwrap_err();
        let text = error.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(text.contains(said) && text.contains("f:2"), "{wrong}: {text}");
    }
}

#[test]
fn chains_are_read_checked_written_and_told() {
    let text = "[queues.a]\nmax_releases = 9\n[queues.a.fallbacks]\n\"llm/x-4.1\" = [\"llm/y\", \"z\"]\nb = [\"c\"]\n\
                [queues.a.classes.timeout]\nfallback_after = 1\n";
    let read = policies(text);
    let chain: Vec<&str> = read[0].1.fallbacks["llm/x-4.1"].iter().map(|name| name.as_str()).collect();
    assert_eq!((chain, read[0].1.max_releases), (vec!["llm/y", "z"], Some(9)));
    let told: Vec<(String, String)> = changes(&RetryPolicy::default(), &read[0].1)
        .unwrap()
        .into_iter()
        .map(|change| (change.setting, change.new))
        .collect();
    let told: Vec<(&str, &str)> =
        told.iter().map(|(setting, new)| (setting.as_str(), new.as_str())).collect();
    let expected = [
        ("max_releases", "9"),
        ("fallbacks", "b → c; llm/x-4.1 → llm/y, z"),
        ("classes.timeout.fallback_after", "1"),
    ];
    assert_eq!(told, expected);
    for (line, said) in [
        ("\"llm/x\" = [\"llm/x\"]", "a cycle"),
        ("\"x-4.1\" = [\"b\", \"c\", \"b\"]", "twice"),
        ("\"x\" = []", "1 to 31"),
        ("\"x\" = \"b\"", "the list of those"),
        ("\"x\" = [\"b c\"]", "the list of those"),
        ("\"x y\" = [\"b\"]", "the list of those"),
    ] {
        let found = parse("f", &format!("[queues.a.fallbacks]\n{line}\n")).unwrap_err();
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert!(
            found.len() == 1 && found[0].starts_with("f:2: ") && found[0].contains(said),
            "{line}: {found:?}"
        );
    }
}

#[test]
fn a_difference_names_what_changes_and_nothing_else() {
    let old = RetryPolicy::default();
    assert_eq!(changes(&old, &old).unwrap(), []);
    let new = policies(
        "[queues.a]\nrisk = \"high\"\nstrategy = \"fixed\"\n[queues.a.classes.timeout]\nmax_attempts = 3\n\
         [queues.a.classes.auth]\nretryable = true\nstrategy = \"schedule\"\n",
    );
    let change = |setting: &str, old: &str, new: &str| Change {
        setting: setting.to_owned(),
        old: old.to_owned(),
        new: new.to_owned(),
    };
    let expected = [
        change("risk", "not stated", "high"),
        change("max_attempts", "5", "3"),
        change("strategy", "full_jitter (base 1s, min 100ms, max 5m)", "fixed (delay 1s)"),
        // Said now, and no default any more.
        change("classes.timeout.max_attempts", "3 (default)", "3"),
        change("classes.auth.retryable", "as classified (default)", "true"),
        change("classes.auth.strategy", "the queue's (default)", "schedule (delays 5s, 5m, 30m)"),
    ];
    assert_eq!(changes(&old, &new[0].1).unwrap(), expected);
}
