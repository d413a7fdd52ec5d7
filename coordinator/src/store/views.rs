//! What both stores tell of what they keep, each in its own form.

use redrive_shared::wire::{AgentStatus, AgentView, Heartbeat};

/// An agent by its last heartbeat.
pub(super) fn agent(beat: Heartbeat, gone: bool, seen_at_ms: i64) -> AgentView {
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
        breakers: beat.breakers,
        seen_at_ms,
    }
}
