//! What messages look like. Bodies are JSON, the same as on the HTTP API; the property `type` names the format and its
//! version. A change that older readers would misread gets a new version.

/// `content_type` of every message of ours.
pub const JSON: &str = "application/json";

/// A task leased to whoever consumes the message: a [`Lease`](redrive_shared::task::Lease).
pub const LEASE: &str = "redrive.lease.v1";
/// How an attempt ended: a [`Settlement`](redrive_shared::wire::Settlement), or up to 1,000 of them as a
/// [`SettleRequest`](redrive_shared::wire::SettleRequest).
pub const SETTLEMENT: &str = "redrive.settlement.v1";

/// Published by the doctor to see whether it arrives; nothing is done about it.
pub const PROBE: &str = "redrive.probe.v1";

/// W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// Why a message is among the rejected: a stable code, and a text.
pub const REASON_CODE: &str = "redrive-reason-code";
/// See [`REASON_CODE`].
pub const REASON: &str = "redrive-reason";
/// Where a rejected message was read.
pub const READ_FROM: &str = "redrive-read-from";

/// A task's id, where the property `message_id` is not its own.
pub const ID: &str = "redrive-id";
/// The Redrive queue that a message is for.
pub const QUEUE: &str = "redrive-queue";
/// What to run.
pub const TASK_TYPE: &str = "redrive-type";
/// The upstream that a task needs.
pub const DEPENDENCY: &str = "redrive-dependency";
/// Tenant or fairness key.
pub const GROUP: &str = "redrive-group";
/// Tokens that one attempt uses, as a number or as text.
pub const TOKENS: &str = "redrive-tokens";
/// What went wrong, in the words of the consumer that gave up on the message.
pub const ERROR: &str = "redrive-error";
/// Which attempt this is, from 1.
pub const ATTEMPT: &str = "redrive-attempt";
/// Epoch of the lease under which a message was republished.
pub const EPOCH: &str = "redrive-epoch";
/// Nonce of that lease.
pub const NONCE: &str = "redrive-nonce";

/// Property `priority` of a task: RabbitMQ's numbers rise with importance.
pub const fn priority(priority: redrive_shared::task::Priority) -> u8 {
    use redrive_shared::task::Priority;
    match priority {
        Priority::High => 2,
        Priority::Normal => 1,
        Priority::Low => 0,
    }
}
