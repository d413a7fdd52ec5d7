//! Whether a Redis can be trusted with tasks: what would lose them, what would stop them, what is worth knowing.
//!
//! `facts` asks each server once; what they mean is decided by pure functions (`settings`, `health`, `cluster`).
//! `access` tries what the store does, over the store's own link. Every question is bounded in time; one without an
//! answer is a finding, and the others go on.

mod access;
mod cluster;
mod facts;
mod health;
mod settings;
#[cfg(test)]
mod tests;

use self::facts::Facts;
use super::RedisConfig;
use super::address::{Address, Kind};
use super::link::Link;
use crate::store::doctor::{Finding, Report, Verdict};

/// Examines the store that the configuration names.
pub async fn examine(config: &RedisConfig) -> Report {
    match Link::open(&config.address, config.link).await {
        Ok(link) => examine_over(&link, config).await,
        Err(error) => {
            let remedy = "check the address, the password, TLS, and that Redis runs there and can be reached";
            let finding = Finding::bad("connection", Verdict::Refused, super::link::said(error), remedy);
            Report::new([transport(&config.address), finding.at(config.address.hosts())])
        }
    }
}

/// The same over a link that is there.
pub async fn examine_over(link: &Link, config: &RedisConfig) -> Report {
    let (nodes, tried) = tokio::join!(facts::gather(link, config), access::try_all(link, config));
    let mut findings = vec![transport(&config.address)];
    match nodes {
        Ok(nodes) => findings.extend(judge(&nodes, config)),
        Err(said) => {
            let remedy =
                "let its user run ROLE or CLUSTER NODES, or check each server by hand: docs/redis.md";
            findings.push(Finding::bad("nodes", Verdict::Skipped, said, remedy));
        }
    }
    findings.extend(tried);
    Report::new(findings)
}

/// What the servers said, judged; by check, so that what is alike stands together.
fn judge(nodes: &[Facts], config: &RedisConfig) -> Vec<Finding> {
    const OF_EACH: [fn(&Facts) -> Finding; 6] = [
        settings::server,
        settings::eviction,
        settings::persistence,
        health::memory,
        health::clients,
        health::latency,
    ];
    let there: Vec<&Facts> = nodes.iter().filter(|node| node.lost.is_none()).collect();
    let mut findings = vec![reachable(nodes)];
    for check in OF_EACH {
        findings.extend(there.iter().map(|node| check(node).at(&node.address)));
    }
    let asked = &config.link;
    findings.extend(there.iter().map(|node| cluster::replication(node, config, asked.wait_replicas)));
    findings.extend(health::clock(&there));
    if config.address.kind == Kind::Cluster {
        findings.push(cluster::slots(&there));
    }
    findings
}

fn reachable(nodes: &[Facts]) -> Finding {
    let lost: Vec<String> = nodes
        .iter()
        .filter_map(|node| Some(format!("{}: {}", node.role.word(), node.lost.as_ref()?)))
        .collect();
    if lost.is_empty() {
        let names: Vec<String> =
            nodes.iter().map(|node| format!("{} ({})", node.address, node.role.word())).collect();
        return Finding::ok("nodes", format!("all answer: {}", names.join(", ")));
    }
    let remedy = "start it, mend the network between, or remove it: until then nothing fails over to it";
    Finding::bad("nodes", Verdict::Warning, format!("no answer from {}", lost.join("; ")), remedy)
}

/// Passwords and tasks in plain sight.
fn transport(address: &Address) -> Finding {
    let local = |host: &str| {
        let ip = host.parse::<std::net::IpAddr>();
        host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
    };
    if address.tls.is_some() {
        return Finding::ok("tls", "connections are encrypted");
    }
    if address.nodes.iter().all(|(host, _)| local(host)) {
        return Finding::ok("tls", "not encrypted, on loopback");
    }
    let remedy = "use rediss:// (?ca=FILE for an authority of your own), or a network that nobody else reads";
    Finding::bad(
        "tls",
        Verdict::Warning,
        "not encrypted: the password and every task can be read on the way",
        remedy,
    )
}
