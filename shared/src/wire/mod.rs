//! What travels over HTTP: requests and replies of `/v1`.
//!
//! Durations end in `_ms`; moments end in `_at_ms` or `_until_ms` and are milliseconds since the Unix epoch. Every
//! request refuses fields that it does not know. Everything that can be many is a batch, answered item by item.

mod agents;
mod breakers;
mod checkpoints;
mod gates;
mod locks;
mod queues;
mod tasks;
mod work;

pub use agents::{AgentStatus, AgentView, AgentsReply, Heartbeat, HeartbeatReply, Report, ReportsRequest};
pub use breakers::{
    BreakerAction, BreakerCommand, BreakerCommandRequest, BreakerView, BreakersReply, OWN_BREAKER, WorkerLost,
};
pub use checkpoints::{CheckpointReply, CheckpointRequest};
pub use gates::{GateAction, GateRequest, GateView, GatesReply};
pub use locks::{
    LockBreak, LockGrant, LockRef, LockRefs, LockReply, LockRequest, LockResult, LockResults, LockView,
    LockWaitView, LocksReply,
};
pub use queues::{
    ACTOR_HEADER, PolicyVersion, QueueCreate, QueuePut, QueueVersionsReply, QueueView, QueuesPut,
    QueuesReply, UNREAD_ALL,
};
pub use tasks::{
    EnqueueReply, EnqueueRequest, EnqueueResult, EnqueueStatus, NewTask, Page, StatusReply, StatusRequest,
    TaskAction, TaskActionReply, TaskActionRequest, TaskActionResult,
};
pub use work::{
    ClaimReply, ClaimRequest, ExtendReply, ExtendRequest, LeaseRef, LeaseResult, Outcome, SettleReply,
    SettleRequest, SettleResult, Settlement,
};
