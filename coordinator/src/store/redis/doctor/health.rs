//! How a server is: memory, connections, answers, clock.

use std::time::Duration;

use super::facts::Facts;
use crate::store::doctor::{Finding, Verdict};

/// Shares of maxmemory, in percent.
const MEMORY_WARNED: u64 = 70;
const MEMORY_REFUSED: u64 = 95;
/// Share of maxclients, in percent.
const CLIENTS_WARNED: u64 = 80;
/// Answers that take longer cost more than a disk's flush does.
const SLOW: Duration = Duration::from_millis(5);
/// Clocks that differ by more are not kept by NTP.
const SKEW_MAX_MS: i64 = 500;
const MIB: u64 = 1 << 20;

/// Memory used of what it may use.
pub(super) fn memory(facts: &Facts) -> Finding {
    const CHECK: &str = "memory";
    let (Some(used), Some(most)) = (facts.number("used_memory"), facts.number("maxmemory")) else {
        let said = facts.info.as_ref().err().map_or("no used_memory", String::as_str);
        return Finding::bad(
            CHECK,
            Verdict::Skipped,
            format!("the server does not tell ({said})"),
            "allow INFO: without it, enqueues are not refused in time when memory runs out; watch used_memory yourself",
        );
    };
    if most == 0 {
        return Finding::bad(
            CHECK,
            Verdict::Warning,
            "maxmemory is not set: Redis grows until the system ends it",
            "set maxmemory to what the machine can spare (forks and replication need some too)",
        );
    }
    let percent = used.saturating_mul(100) / most;
    let found = format!("{percent} % of maxmemory {} MiB", most / MIB);
    if percent <= MEMORY_WARNED {
        return Finding::ok(CHECK, found);
    }
    let (verdict, what) =
        if percent <= MEMORY_REFUSED { (Verdict::Warning, "soon") } else { (Verdict::Refused, "now") };
    let remedy = format!("raise maxmemory, run more workers, or shorten retention_ms: writes fail {what}");
    Finding::bad(CHECK, verdict, found, remedy)
}

/// Connections of those that it allows.
pub(super) fn clients(facts: &Facts) -> Finding {
    const CHECK: &str = "clients";
    let most = facts.number("maxclients").or_else(|| facts.setting("maxclients")?.parse().ok());
    let (Some(connected), Some(most)) = (facts.number("connected_clients"), most) else {
        let remedy =
            "make sure that maxclients leaves room: each coordinator holds up to about 10 connections";
        return Finding::bad(CHECK, Verdict::Skipped, "the server does not tell", remedy);
    };
    let found = format!("{connected} of {most} connections");
    if connected.saturating_mul(100) > most.saturating_mul(CLIENTS_WARNED) {
        return Finding::bad(
            CHECK,
            Verdict::Warning,
            found,
            "raise maxclients, or find who holds them: CLIENT LIST",
        );
    }
    // The number itself changes all the time: servers that are alike are told together.
    Finding::ok(CHECK, format!("below {CLIENTS_WARNED} % of {most} connections"))
}

/// How long a PING takes.
pub(super) fn latency(facts: &Facts) -> Finding {
    const CHECK: &str = "latency";
    let pings = &facts.pings;
    let (Some(max), false) = (pings.last(), pings.is_empty()) else {
        return Finding::bad(CHECK, Verdict::Skipped, "PING is refused", "let its user run PING");
    };
    let place = |percent: usize| pings[(pings.len() * percent / 100).min(pings.len() - 1)];
    let ms = |took: Duration| took.as_secs_f64() * 1_000.0;
    let found =
        format!("PING p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms", ms(place(50)), ms(place(99)), ms(*max));
    if place(99) > SLOW {
        let remedy =
            "put coordinators near Redis, and look for slow commands (SLOWLOG GET) or a busy machine";
        return Finding::bad(CHECK, Verdict::Warning, found, remedy);
    }
    Finding::ok(CHECK, found)
}

/// Whether clocks agree. The store's time is Redis's, so a coordinator's own clock moves nothing; a failover to a server
/// whose clock differs does.
pub(super) fn clock(nodes: &[&Facts]) -> Option<Finding> {
    const CHECK: &str = "clock";
    let ahead = || nodes.iter().filter_map(|node| node.ahead_ms);
    let (Some(least), Some(most)) = (ahead().min(), ahead().max()) else {
        let remedy = "let its user run TIME: the store cannot work without";
        return (!nodes.is_empty())
            .then(|| Finding::bad(CHECK, Verdict::Refused, "no server tells its time", remedy));
    };
    let between = most - least;
    if between > SKEW_MAX_MS {
        let found = format!(
            "servers' clocks differ by {between} ms: a failover shifts every due time and lease by it"
        );
        return Some(Finding::bad(CHECK, Verdict::Warning, found, "keep every server's clock by NTP"));
    }
    let from_here = if most.abs() > least.abs() { most } else { least };
    if from_here.abs() > SKEW_MAX_MS {
        let found = format!(
            "Redis is {from_here} ms ahead of this machine: due times follow Redis's clock, the log's times this one's"
        );
        return Some(Finding::bad(CHECK, Verdict::Warning, found, "keep every machine's clock by NTP"));
    }
    Some(Finding::ok(CHECK, format!("all within {SKEW_MAX_MS} ms")))
}
