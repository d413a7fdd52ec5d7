//! `redrive doctor` on real servers, through the library and as a process, and what coordinators make of it.

mod access;
mod memory;
mod process;
mod servers;

use std::time::Duration;

use redrive_coordinator::store::doctor::{Finding, Report, Verdict};
use redrive_coordinator::store::redis::{RedisConfig, doctor};

use crate::support::redis::RedisServer;
use crate::support::redis_config;
use crate::support::wait::eventually;

/// A store at that address that has not waited long for anybody.
fn config(url: &str) -> RedisConfig {
    redis_config(url)
}

async fn examine(url: &str) -> Report {
    doctor::examine(&config(url)).await
}

/// The gravest finding of a check.
fn found<'a>(report: &'a Report, check: &str) -> &'a Finding {
    let findings = report.findings().iter().filter(|finding| finding.check == check);
    findings.max_by_key(|finding| finding.verdict).unwrap_or_else(|| panic!("no {check} in {report:#?}"))
}

fn assert_found(report: &Report, check: &str, verdict: Verdict, says: &str) {
    let finding = found(report, check);
    assert!(finding.verdict == verdict && finding.found.contains(says), "{report:#?}");
    let needs_remedy = finding.verdict != Verdict::Ok;
    assert_eq!(finding.remedy.is_some(), needs_remedy, "{finding:?}");
}

/// What is refused, by name.
fn refused(report: &Report) -> Vec<&str> {
    report.refused().map(|finding| finding.check).collect()
}

/// A server that follows another, once it does.
async fn replica_of(master: &RedisServer) -> RedisServer {
    let replica = RedisServer::start().await;
    replica.command(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]).await;
    eventually("it follows", Duration::from_secs(20), async || {
        let info = master.try_command(&["INFO", "replication"]).await.ok()?;
        info.contains("state=online").then_some(())
    })
    .await;
    replica
}
