//! What is made of what servers say, and that nothing the store sends is left untried.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::facts::{Facts, Fields, Role};
use super::{cluster, health, judge, settings, transport};
use crate::store::doctor::{Finding, Verdict};
use crate::store::redis::RedisConfig;
use crate::store::redis::link::LinkOptions;

fn fields(pairs: &[(&str, &str)]) -> Fields {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn server(info: &[(&str, &str)], settings: &[(&str, &str)]) -> Facts {
    Facts { info: Ok(fields(info)), settings: Ok(fields(settings)), ..Facts::new("h:1", Role::Master) }
}

fn config(url: &str) -> RedisConfig {
    let address = url.parse().unwrap();
    let link = LinkOptions::default();
    RedisConfig { address, prefix: "rd".into(), shards: None, link, memory_limit_percent: 85 }
}

#[test]
fn old_releases_are_refused() {
    let verdict = |field: &str, version: &str| {
        let facts = server(&[("redis_version", "7.2.4"), (field, version)], &[]);
        settings::server(&facts).verdict
    };
    assert_eq!(verdict("redis_version", "6.0.16"), Verdict::Refused);
    assert_eq!(verdict("redis_version", "6.2.0"), Verdict::Ok);
    assert_eq!(verdict("redis_version", "10.1.0"), Verdict::Ok);
    assert_eq!(verdict("redis_version", "unstable"), Verdict::Skipped);
    assert_eq!(verdict("valkey_version", "7.2.5"), Verdict::Ok);
    assert_eq!(verdict("valkey_version", "7.0.0"), Verdict::Refused);
    assert_eq!(verdict("dragonfly_version", "df-1.2"), Verdict::Warning);
    let silent = Facts {
        greeting: fields(&[("server", "valkey"), ("version", "8.1.0")]),
        ..Facts::new("h", Role::Master)
    };
    assert_eq!(settings::server(&silent).found, "Valkey 8.1.0");
}

#[test]
fn memory_is_judged_by_its_limit() {
    let verdict = |used: &str, most: &str| {
        health::memory(&server(&[("used_memory", used), ("maxmemory", most)], &[])).verdict
    };
    assert_eq!(verdict("70", "100"), Verdict::Ok);
    assert_eq!(verdict("71", "100"), Verdict::Warning);
    assert_eq!(verdict("96", "100"), Verdict::Refused);
    assert_eq!(verdict("96", "0"), Verdict::Warning);
    assert_eq!(health::memory(&Facts::new("h", Role::Master)).verdict, Verdict::Skipped);
}

#[test]
fn clocks_are_compared_with_each_other_first() {
    let at = |ahead_ms: i64| Facts { ahead_ms: Some(ahead_ms), ..Facts::new("h", Role::Master) };
    let judged = |ahead: &[i64]| {
        let nodes: Vec<Facts> = ahead.iter().map(|ahead| at(*ahead)).collect();
        health::clock(&nodes.iter().collect::<Vec<_>>()).unwrap()
    };
    assert_eq!(judged(&[-10, 400]).verdict, Verdict::Ok);
    assert!(judged(&[-300, 400]).found.starts_with("servers' clocks differ by 700 ms"));
    assert!(judged(&[-900, -800]).found.starts_with("Redis is -900 ms ahead"));
}

#[test]
fn slow_answers_and_few_connections_left_are_warned_about() {
    let mut facts = server(&[("connected_clients", "81"), ("maxclients", "100")], &[]);
    assert_eq!(health::clients(&facts).verdict, Verdict::Warning);
    facts.pings = vec![Duration::from_micros(100); 49];
    facts.pings.push(Duration::from_millis(9));
    let slow = health::latency(&facts);
    assert_eq!(slow.verdict, Verdict::Warning);
    assert_eq!(slow.found, "PING p50 0.10 ms, p99 9.00 ms, max 9.00 ms");
}

#[test]
fn replicas_that_are_not_there_or_lag_are_found() {
    let online = "ip=10.0.0.2,port=6379,state=online,offset=7,lag=11";
    let one =
        server(&[("connected_slaves", "1"), ("slave0", online), ("slave_expires_tracked_keys", "0")], &[]);
    let judged = |facts: &Facts, url: &str, wait| cluster::replication(facts, &config(url), wait);
    assert!(judged(&one, "redis+cluster://h", 1).found.ends_with("one is 11 s behind"));
    assert_eq!(judged(&one, "redis://h", 2).verdict, Verdict::Refused);
    let none = server(&[("connected_slaves", "0")], &[]);
    assert_eq!(judged(&none, "redis://h", 0).verdict, Verdict::Ok);
    assert_eq!(judged(&none, "redis+cluster://h", 0).verdict, Verdict::Warning);
}

#[test]
fn a_server_that_is_lost_is_not_judged() {
    let lost = Facts { lost: Some("h:1: refuses connections".into()), ..Facts::new("h:1", Role::Replica) };
    let findings: Vec<Finding> = judge(&[lost], &config("redis://h:1"));
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].verdict, Verdict::Warning);
}

#[test]
fn plain_connections_over_a_network_are_warned_about() {
    let verdict = |url: &str| transport(&url.parse().unwrap()).verdict;
    assert_eq!(verdict("redis://127.0.0.1"), Verdict::Ok);
    assert_eq!(verdict("redis+cluster://localhost,[::1]:7000"), Verdict::Ok);
    assert_eq!(verdict("redis://10.0.0.1"), Verdict::Warning);
    assert_eq!(verdict("rediss://10.0.0.1"), Verdict::Ok);
}

/// The upper-case words that directly follow one of `marks`.
fn words(text: &str, marks: &[&str]) -> BTreeSet<String> {
    let after = |mark: &&str| text.split(*mark).skip(1).map(str::to_owned).collect::<Vec<_>>();
    let parts = marks.iter().flat_map(after);
    let word = |part: String| part.chars().take_while(char::is_ascii_uppercase).collect::<String>();
    parts.map(word).filter(|word| !word.is_empty()).collect()
}

fn read_all(directory: &Path, ending: &str) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() && name != "tests" {
            text.push_str(&read_all(&path, ending));
        } else if name.ends_with(ending) && name != "tests.rs" && name != "doctor.lua" {
            text.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
    text
}

#[test]
fn every_command_of_the_store_is_tried_and_documented() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let store = here.join("src/store/redis");
    let sent = words(&read_all(&store, ".rs"), &["cmd(\""]);
    let called = words(&read_all(&store, ".lua"), &["call('"]);
    let tried = words(&std::fs::read_to_string(store.join("lua/doctor.lua")).unwrap(), &["{ '"]);
    assert!(called.len() > 20 && sent.len() > 20 && tried.len() > 20, "{called:?} {sent:?} {tried:?}");
    // Not from within a script: what makes connections, and what the doctor asks, each with a check of its own; and
    // transactions, which the link tries before it relies on them.
    let outside = [
        "CLUSTER", "CONFIG", "EVAL", "EVALSHA", "EXEC", "HELLO", "INFO", "MULTI", "PING", "PUBLISH", "ROLE",
        "SENTINEL", "TIME", "WAIT",
    ];
    let outside: BTreeSet<String> = outside.map(str::to_owned).into();
    let needed: BTreeSet<String> = sent.union(&called).cloned().collect();
    let known: BTreeSet<String> = tried.union(&outside).cloned().collect();
    assert_eq!(needed, known, "the trials of doctor.lua are what the store needs, no more and no less");
    let page = std::fs::read_to_string(here.join("../docs/redis.md")).unwrap();
    let rule = page.lines().find(|line| line.starts_with("ACL SETUSER")).unwrap();
    let allowed: BTreeSet<String> = rule
        .split(" +")
        .skip(1)
        .map(|name| name.split('|').next().unwrap_or(name).trim().to_ascii_uppercase())
        .collect();
    // Every user may say HELLO; Sentinels have users of their own; the subscription is the client's.
    let mut expected: BTreeSet<String> =
        needed.into_iter().filter(|name| name != "HELLO" && name != "SENTINEL").collect();
    expected.insert("SUBSCRIBE".to_owned());
    assert_eq!(allowed, expected, "docs/redis.md");
}
