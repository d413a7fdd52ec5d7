//! What a server is, and whether its settings keep what it was given.

use super::facts::{Facts, Role};
use crate::store::doctor::{Finding, Verdict};

/// Oldest releases with everything that scripts use: `ZADD LT` and `GT`.
const REDIS_MIN: (u32, u32) = (6, 2);
const VALKEY_MIN: (u32, u32) = (7, 2);

/// What to do when a server does not tell.
fn not_told(check: &'static str, said: &str, by_hand: &str) -> Finding {
    Finding::bad(check, Verdict::Skipped, format!("the server does not tell ({said})"), by_hand)
}

/// Name and version.
pub(super) fn server(facts: &Facts) -> Finding {
    const CHECK: &str = "server";
    let greeted = |name: &str| facts.greeting.get(name).map(String::as_str);
    let valkey = facts
        .info("valkey_version")
        .or_else(|| greeted("version").filter(|_| greeted("server") == Some("valkey")));
    let (name, version, least) = match valkey {
        Some(version) => ("Valkey", Some(version), VALKEY_MIN),
        None => ("Redis", facts.info("redis_version").or_else(|| greeted("version")), REDIS_MIN),
    };
    let Some((version, number)) = version.and_then(|text| Some((text, numbers(text)?))) else {
        return not_told(CHECK, "no version", "check that it is Redis 6.2 or later, or Valkey 7.2 or later");
    };
    if number < least {
        let (major, minor) = least;
        return Finding::bad(
            CHECK,
            Verdict::Refused,
            format!("{name} {version}"),
            format!(
                "upgrade it to {name} {major}.{minor} or later: scripts use commands that this one does not have"
            ),
        );
    }
    const OTHERS: [&str; 2] = ["dragonfly_version", "garnet_version"];
    if let Some(other) = OTHERS.into_iter().find(|field| facts.info(field).is_some()) {
        let remedy =
            "use Redis or Valkey: nothing is known of how this one runs scripts, persists and replicates";
        return Finding::bad(CHECK, Verdict::Warning, format!("not Redis ({other})"), remedy);
    }
    Finding::ok(CHECK, format!("{name} {version}"))
}

fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// What it does when its memory is full.
pub(super) fn eviction(facts: &Facts) -> Finding {
    const CHECK: &str = "eviction";
    match (facts.info("maxmemory_policy"), &facts.info) {
        (Some("noeviction"), _) => Finding::ok(CHECK, "maxmemory-policy noeviction"),
        (Some(policy), _) => Finding::bad(
            CHECK,
            Verdict::Refused,
            format!("maxmemory-policy {policy}: when memory is full, tasks vanish"),
            "CONFIG SET maxmemory-policy noeviction, and the same in redis.conf",
        ),
        (None, info) => not_told(
            CHECK,
            info.as_ref().err().map_or("no maxmemory_policy", String::as_str),
            "make sure that maxmemory-policy is noeviction: with any other, tasks vanish when memory is full",
        ),
    }
}

/// What is left after a crash.
pub(super) fn persistence(facts: &Facts) -> Finding {
    const CHECK: &str = "persistence";
    const BY_HAND: &str = "make sure that appendonly is yes and appendfsync always or everysec, or that CONFIG GET and INFO are allowed";
    if facts.info("aof_last_write_status") == Some("err") {
        let remedy = "see its log; most often the disk is full: until it can write, it refuses writes";
        return Finding::bad(CHECK, Verdict::Refused, "it cannot write its append-only file", remedy);
    }
    let refusal = facts.settings.as_ref().err().or(facts.info.as_ref().err());
    let appends = match (facts.setting("appendonly"), facts.info("aof_enabled")) {
        (Some(setting), _) => setting == "yes",
        (None, Some(enabled)) => enabled == "1",
        (None, None) => return not_told(CHECK, refusal.map_or("no appendonly", String::as_str), BY_HAND),
    };
    if appends {
        return appending(facts.setting("appendfsync"));
    }
    match facts.setting("save") {
        None => not_told(
            CHECK,
            &format!("appendonly no, and nothing about snapshots: {}", refusal.map_or("", String::as_str)),
            BY_HAND,
        ),
        Some("") => nothing_kept(facts.role),
        Some(save) => Finding::bad(
            CHECK,
            Verdict::Warning,
            format!("snapshots only (save {save}): a crash loses what was acknowledged since the last one"),
            "CONFIG SET appendonly yes, and the same in redis.conf",
        ),
    }
}

fn appending(fsync: Option<&str>) -> Finding {
    const CHECK: &str = "persistence";
    match fsync {
        Some("always") => {
            Finding::ok(CHECK, "appendonly yes, appendfsync always: a crash loses nothing acknowledged")
        }
        Some("everysec") => Finding::ok(
            CHECK,
            "appendonly yes, appendfsync everysec: losing the machine can lose the last second or two, a crash of Redis alone nothing unless the disk is slow",
        ),
        Some(fsync) => Finding::bad(
            CHECK,
            Verdict::Warning,
            format!("appendonly yes, appendfsync {fsync}: losing the machine can lose the last half minute"),
            "CONFIG SET appendfsync everysec (or always), and the same in redis.conf",
        ),
        None => not_told(
            CHECK,
            "appendonly yes, appendfsync unknown",
            "make sure that appendfsync is always or everysec",
        ),
    }
}

fn nothing_kept(role: Role) -> Finding {
    const CHECK: &str = "persistence";
    const REMEDY: &str = "CONFIG SET appendonly yes, and the same in redis.conf";
    match role {
        Role::Master => Finding::bad(
            CHECK,
            Verdict::Refused,
            "nothing is kept on disk: a restart loses every task, and then its replicas' copies too",
            REMEDY,
        ),
        Role::Replica => Finding::bad(
            CHECK,
            Verdict::Warning,
            "nothing is kept on disk: after a failover to it, its restart loses every task",
            REMEDY,
        ),
    }
}
