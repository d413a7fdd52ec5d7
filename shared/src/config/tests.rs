use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Deserialize;

use super::*;

const DEFAULTS: &str = r#"
[coordinator]
# Where it listens.
listen = "127.0.0.1:7878"
# Whether to keep nothing.
in_memory = false
body_timeout_ms = 10_000
ratio = 0.5

[worker]
# Who; there is no default.
#agent = "researcher"
queues = ["default"]

# Any names.
[worker.policies]
"#;

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    coordinator: Coordinator,
    worker: Worker,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Coordinator {
    listen: SocketAddr,
    in_memory: bool,
    body_timeout_ms: u64,
    ratio: f64,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Worker {
    agent: Option<String>,
    queues: Vec<String>,
    policies: BTreeMap<String, Value>,
}

fn read(file: &str, environment: &[(&str, &str)], flags: &str) -> Result<Config, String> {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let path = Path::new("redrive.toml");
    load(DEFAULTS, Some((path, file)), environment, flags.parse().unwrap()).map_err(|error| error.to_string())
}

fn refused(file: &str, environment: &[(&str, &str)]) -> String {
    read(file, environment, "").unwrap_err()
}

#[test]
fn the_last_layer_that_speaks_wins_key_by_key() {
    let plain: Config = load(DEFAULTS, None, std::iter::empty(), Table::new()).unwrap();
    assert_eq!(plain.coordinator.body_timeout_ms, 10_000);
    assert_eq!(plain.worker.agent, None);

    let file = "[coordinator]\nbody_timeout_ms = 1\nratio = 1\n[worker]\nagent = \"file\"";
    let environment = [
        ("REDRIVE__COORDINATOR__BODY_TIMEOUT_MS", "2"),
        ("REDRIVE__COORDINATOR__IN_MEMORY", "true"),
        ("REDRIVE__WORKER__AGENT", "environment"),
        ("REDRIVE__WORKER__QUEUES", "a, b"),
        ("REDRIVE_URL", "not configuration"),
        ("HOME", "/root"),
    ];
    let config = read(file, &environment, "[coordinator]\nbody_timeout_ms = 3").unwrap();
    assert_eq!(config.coordinator.body_timeout_ms, 3);
    assert_eq!(config.coordinator.ratio, 1.0);
    assert!(config.coordinator.in_memory);
    assert_eq!(config.coordinator.listen, plain.coordinator.listen);
    assert_eq!(config.worker.agent.as_deref(), Some("environment"));
    assert_eq!(config.worker.queues, ["a", "b"]);
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_a_suggestion() {
    assert_eq!(
        refused("[coordinator]\nin_memory = true\nlissten = \"\"", &[]),
        "redrive.toml:3: unknown key `coordinator.lissten`; did you mean `coordinator.listen`?"
    );
    assert_eq!(
        refused("[coordinato]\nlisten = \"\"", &[]),
        "redrive.toml:1: unknown key `coordinato`; did you mean `coordinator`?"
    );
    assert_eq!(
        refused("listen = \"\"", &[]),
        "redrive.toml:1: unknown key `listen`; did you mean `coordinator.listen`?"
    );
    assert_eq!(
        refused("[worker]\nzzzzzzzz = 1", &[]),
        "redrive.toml:2: unknown key `worker.zzzzzzzz`; `redrive config` lists every key"
    );
}

#[test]
fn an_unknown_variable_is_refused_by_its_name() {
    assert_eq!(
        refused("", &[("REDRIVE__COORDINATR__LISTEN", "x")]),
        "environment variable REDRIVE__COORDINATR__LISTEN: unknown key `coordinatr.listen`; \
         did you mean REDRIVE__COORDINATOR__LISTEN?"
    );
    assert_eq!(
        refused("", &[("REDRIVE__COORDINATOR", "x")]),
        "environment variable REDRIVE__COORDINATOR: unknown key `coordinator`; \
         did you mean REDRIVE__COORDINATOR__BODY_TIMEOUT_MS?"
    );
    assert!(refused("", &[("REDRIVE__", "x")]).contains("unknown key"));
    assert!(refused("", &[("REDRIVE__COORDINATOR__LISTEN__PORT", "1")]).contains("unknown key"));
}

#[test]
fn a_wrong_type_says_key_expected_type_and_value() {
    assert_eq!(
        refused("[coordinator]\nbody_timeout_ms = \"5s\"", &[]),
        "redrive.toml:2: `coordinator.body_timeout_ms` must be a whole number of milliseconds, such as 5000; \
         it is \"5s\""
    );
    assert_eq!(
        refused("", &[("REDRIVE__COORDINATOR__IN_MEMORY", "yes")]),
        "environment variable REDRIVE__COORDINATOR__IN_MEMORY: `coordinator.in_memory` must be true or false; \
         it is \"yes\""
    );
    assert_eq!(refused("worker = 5", &[]), "redrive.toml:1: `worker` must be a table of keys; it is 5");
    assert!(
        read("", &[], "[worker]\nqueues = 5")
            .unwrap_err()
            .starts_with("a command-line flag: `worker.queues`")
    );
}

#[test]
fn a_value_of_the_right_type_that_is_refused_names_who_set_it() {
    let error = refused("[coordinator]\nlisten = \"nowhere\"", &[]);
    assert!(error.starts_with("redrive.toml:2: `coordinator.listen` cannot be \"nowhere\": "), "{error}");
    let error = refused("[coordinator]\nratio = 1", &[("REDRIVE__COORDINATOR__BODY_TIMEOUT_MS", "-5")]);
    assert!(
        error.starts_with(
            "environment variable REDRIVE__COORDINATOR__BODY_TIMEOUT_MS: `coordinator.body_timeout_ms` cannot be -5: "
        ),
        "{error}"
    );
}

#[test]
fn a_map_takes_any_keys_and_a_broken_file_says_where() {
    let file = "[worker.policies]\nfast = { attempts = 3 }\n[worker.policies.slow]\nattempts = 9";
    let config = read(file, &[("REDRIVE__WORKER__POLICIES__NOTE", "hello there")], "").unwrap();
    assert_eq!(config.worker.policies.keys().collect::<Vec<_>>(), ["fast", "note", "slow"]);
    let error = refused("[coordinator]\nlisten = ", &[]);
    assert!(error.starts_with("redrive.toml:2: not valid TOML: "), "{error}");
}

#[test]
fn broken_defaults_and_missing_keys_are_told_apart() {
    let nothing = || std::iter::empty();
    let error = load::<Config>("[", None, nothing(), Table::new()).unwrap_err();
    assert!(matches!(error, ConfigError::Defaults(_)), "{error}");
    let error = load::<Config>("[coordinator]", None, nothing(), Table::new()).unwrap_err();
    assert!(matches!(error, ConfigError::Incomplete(_)), "{error}");
}
