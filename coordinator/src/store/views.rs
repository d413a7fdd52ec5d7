//! What both stores tell of what they keep, each in its own form.

use std::borrow::Cow;
use std::collections::BTreeMap;

use redrive_shared::blob::Content;
use redrive_shared::checkpoint::Progress;
use redrive_shared::id::{Name, TaskId};
use redrive_shared::lifecycle::{Record, STANDS_IN};
use redrive_shared::retry::RetryPolicy;
use redrive_shared::stored;
use redrive_shared::task::{FailureRecord, Lane, Lease};
use redrive_shared::wire::{AgentStatus, AgentView, Heartbeat};
use serde_json::value::RawValue;

use super::commands::Commands;

/// What a worker gets of a task that its record and its lane do not say.
pub(super) struct Contents {
    pub task_type: Name,
    pub type_version: Option<u32>,
    pub payload: Content,
    pub checkpoint: Option<Progress>,
    /// As its chain has it now.
    pub route: u32,
    pub traceparent: Option<String>,
    pub tokens: Option<u32>,
    pub labels: BTreeMap<String, String>,
}

/// A leased task as its worker gets it.
pub(super) fn lease(
    id: TaskId,
    record: &Record,
    lane: Lane,
    contents: Contents,
    last_failure: Option<FailureRecord>,
    policy: &RetryPolicy,
    lease_ms: u64,
) -> Lease {
    let (payload, payload_ref) = contents.payload.split();
    Lease {
        id,
        epoch: record.epoch,
        nonce: record.nonce,
        lease_until_ms: record.lease_until_ms,
        lease_ms,
        due_at_ms: record.due_ms,
        queue: lane.queue,
        task_type: contents.task_type,
        type_version: contents.type_version,
        payload: payload.unwrap_or_else(|| RawValue::NULL.to_owned()),
        payload_ref,
        checkpoint: contents.checkpoint,
        dependency: lane.dependency,
        group: lane.group,
        priority: lane.priority,
        route: contents.route,
        attempt: record.ledger.failed.saturating_add(1),
        run: record.runs,
        max_attempts: policy.attempts_allowed(record.max_attempts),
        timeout_ms: policy.timeout_ms,
        deadline_at_ms: record.deadline_ms,
        ledger: record.ledger,
        last_failure,
        traceparent: contents.traceparent,
        tokens: contents.tokens,
        labels: contents.labels,
    }
}

/// What the history says of what a person did to a task, who may have moved it, too.
pub(super) fn acted_why(why: &str, moved: bool) -> Cow<'_, str> {
    if moved { format!("{why}; {STANDS_IN}").into() } else { why.into() }
}

/// A heartbeat as a store keeps it. None: this release cannot read it, and goes on without that agent's.
pub(super) fn beat(kept: &str) -> Option<Heartbeat> {
    let told = |error| tracing::warn!(%error, "an agent's last heartbeat cannot be read, and is not shown");
    stored::read(kept).map_err(told).ok().map(|(beat, _)| beat)
}

/// An agent by its last heartbeat.
pub(super) fn agent(beat: Heartbeat, gone: bool, seen_at_ms: i64, commands: Commands) -> AgentView {
    let status = match (gone, beat.draining) {
        (true, _) => AgentStatus::Gone,
        (false, true) => AgentStatus::Draining,
        (false, false) => AgentStatus::Alive,
    };
    AgentView {
        agent: beat.agent,
        boot_id: beat.boot_id,
        status,
        queues: beat.queues,
        capacity: beat.capacity,
        in_flight: beat.in_flight,
        pushed: beat.pushed,
        breakers: beat.breakers,
        breaker_commands: commands.into_all(),
        seen_at_ms,
    }
}
