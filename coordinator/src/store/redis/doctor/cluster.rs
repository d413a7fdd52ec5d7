//! Copies, and who serves what.

use super::facts::{Facts, Role, is_replica};
use crate::store::doctor::{Finding, Verdict};
use crate::store::redis::RedisConfig;
use crate::store::redis::address::Kind;

/// Silence of a replica that is remarkable, in seconds: each reports once a second.
const LAG_MAX_S: u64 = 10;
const SLOTS: &str = "16384";
const CHECK: &str = "replication";

/// A master's replicas against those that are waited for, or a replica's master.
pub(super) fn replication(facts: &Facts, config: &RedisConfig, wait_replicas: u32) -> Finding {
    let finding = match facts.role {
        Role::Replica => following(facts),
        Role::Master => leading(facts, &config.address.kind, wait_replicas),
    };
    finding.at(&facts.address)
}

fn following(facts: &Facts) -> Finding {
    match facts.info("master_link_status") {
        Some("up") => Finding::ok(CHECK, "follows its master"),
        Some(_) => {
            let remedy = "see its log; until it follows, a failover to it loses what came since";
            Finding::bad(CHECK, Verdict::Warning, "has lost its master", remedy)
        }
        None => Finding::bad(
            CHECK,
            Verdict::Skipped,
            "the server does not tell",
            "see INFO replication of the replica",
        ),
    }
}

fn leading(facts: &Facts, kind: &Kind, wait_replicas: u32) -> Finding {
    let Some(online) = facts.replicas_online() else {
        let remedy =
            "allow INFO, or see INFO replication of the master: wait_replicas needs as many replicas";
        return Finding::bad(CHECK, Verdict::Skipped, "the server does not tell", remedy);
    };
    let count = u32::try_from(online).unwrap_or(u32::MAX);
    let least = facts.setting("min-replicas-to-write").and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
    if count < wait_replicas {
        return Finding::bad(
            CHECK,
            Verdict::Refused,
            format!(
                "{online} replicas in sync, and wait_replicas is {wait_replicas}: no write can be acknowledged"
            ),
            "start replicas, or lower wait_replicas",
        );
    }
    if count < least {
        return Finding::bad(
            CHECK,
            Verdict::Refused,
            format!("{online} replicas in sync, and min-replicas-to-write is {least}: it takes no writes"),
            "start replicas, or lower min-replicas-to-write",
        );
    }
    let found =
        format!("{online} replicas in sync, wait_replicas {wait_replicas}, min-replicas-to-write {least}");
    if let Some(lag) = worst_lag(facts).filter(|lag| *lag > LAG_MAX_S) {
        let remedy = "see the replica's log and the network between";
        return Finding::bad(CHECK, Verdict::Warning, format!("{found}; one is {lag} s behind"), remedy);
    }
    match (kind, online, wait_replicas) {
        (Kind::Single, 0, _) => Finding::ok(CHECK, found),
        (Kind::Sentinel { .. } | Kind::Cluster, 0, _) => Finding::bad(
            CHECK,
            Verdict::Warning,
            "no replica in sync: nothing takes over when this master fails",
            "give each master a replica",
        ),
        (Kind::Sentinel { .. } | Kind::Cluster, _, 0) => Finding::bad(
            CHECK,
            Verdict::Warning,
            format!("{found}: a failover can lose what was acknowledged last"),
            "set wait_replicas = 1: then writes are acknowledged when a replica has them, too",
        ),
        (Kind::Single, ..) | (Kind::Sentinel { .. } | Kind::Cluster, ..) => Finding::ok(CHECK, found),
    }
}

fn worst_lag(facts: &Facts) -> Option<u64> {
    let info = facts.info.as_ref().ok()?;
    let replicas = info.iter().filter(|(name, _)| is_replica(name));
    replicas
        .filter_map(|(_, value)| value.split(',').find_map(|part| part.strip_prefix("lag="))?.parse().ok())
        .max()
}

/// Whether every slot is served, as the node says that sees the worst.
pub(super) fn slots(nodes: &[&Facts]) -> Finding {
    const CHECK: &str = "cluster";
    const REMEDY: &str =
        "see CLUSTER NODES, start what is down, and redis-cli --cluster fix for slots that nobody has";
    let told: Vec<_> =
        nodes.iter().filter_map(|node| Some((node, node.cluster.as_ref()?.as_ref().ok()?))).collect();
    if told.is_empty() {
        let remedy = "allow CLUSTER INFO, or see there that cluster_state is ok";
        return Finding::bad(CHECK, Verdict::Skipped, "no node tells", remedy);
    }
    let field = |fields: &super::facts::Fields, name: &str| fields.get(name).cloned().unwrap_or_default();
    for (node, fields) in &told {
        let (state, assigned) = (field(fields, "cluster_state"), field(fields, "cluster_slots_assigned"));
        let failed = field(fields, "cluster_slots_fail");
        if state != "ok" || assigned != SLOTS {
            let found = format!(
                "cluster_state {state}, {assigned} of {SLOTS} slots have a master, {failed} of them a dead one"
            );
            return Finding::bad(CHECK, Verdict::Refused, found, REMEDY).at(&node.address);
        }
        if !matches!(failed.as_str(), "0" | "") {
            let found = format!("{failed} slots have a dead master");
            return Finding::bad(CHECK, Verdict::Refused, found, REMEDY).at(&node.address);
        }
    }
    let masters = nodes.iter().filter(|node| node.role == Role::Master).count();
    Finding::ok(CHECK, format!("cluster_state ok, every slot has a master, {masters} masters"))
}
