//! What is done to whom.

/// The servers below the coordinators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum On {
    /// One Redis, appendfsync always, behind the fault proxy.
    One,
    /// Six nodes, wait_replicas = 1.
    Cluster,
    /// A master and a replica, wait_replicas = 1.
    Sentinel,
    /// One Redis, and nothing in a worker's or queue's settings that concerns leases.
    Defaults,
}

impl On {
    pub fn words(self) -> &'static str {
        match self {
            Self::One => "one Redis",
            Self::Cluster => "cluster",
            Self::Sentinel => "Sentinel",
            Self::Defaults => "one Redis, default lease",
        }
    }

    /// What is done there, in turn.
    pub fn kinds(self) -> &'static [Kind] {
        match self {
            Self::One => &[
                Kind::CoordinatorKilled,
                Kind::RedisKilled,
                Kind::WorkerKilled,
                Kind::ConnectionsReset,
                Kind::CoordinatorStopped,
                Kind::RequestCut,
                Kind::MemoryFull,
                Kind::KilledAfterEnqueue,
                Kind::ScriptsFlushed,
                Kind::RedisStopped,
                Kind::ResponseCut,
                Kind::KilledAfterSettle,
                Kind::WorkerStopped,
            ],
            Self::Cluster => &[
                Kind::MasterKilled,
                Kind::WorkerKilled,
                Kind::MasterKilled,
                Kind::CoordinatorKilled,
                Kind::MasterStopped,
                Kind::ScriptsFlushed,
                Kind::MasterKilled,
                Kind::CoordinatorStopped,
            ],
            Self::Sentinel => &[
                Kind::MasterKilled,
                Kind::CoordinatorKilled,
                Kind::MasterKilled,
                Kind::WorkerKilled,
                Kind::MasterStopped,
                Kind::ScriptsFlushed,
                Kind::MasterKilled,
                Kind::CoordinatorStopped,
            ],
            Self::Defaults => &[Kind::WorkerKilled],
        }
    }
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    CoordinatorKilled,
    KilledAfterEnqueue,
    KilledAfterSettle,
    CoordinatorStopped,
    WorkerKilled,
    WorkerStopped,
    RedisKilled,
    RedisStopped,
    MasterKilled,
    MasterStopped,
    ConnectionsReset,
    RequestCut,
    ResponseCut,
    ScriptsFlushed,
    MemoryFull,
}

impl Kind {
    pub fn words(self) -> &'static str {
        match self {
            Self::CoordinatorKilled => "coordinator: kill -9",
            Self::KilledAfterEnqueue => "coordinator: kill -9 after an enqueue was sent to it",
            Self::KilledAfterSettle => "coordinator: kill -9 after a settlement was sent to it",
            Self::CoordinatorStopped => "coordinator: SIGSTOP for longer than a lease",
            Self::WorkerKilled => "worker: kill -9",
            Self::WorkerStopped => "worker: SIGSTOP for longer than a lease",
            Self::RedisKilled => "Redis: kill -9, started again",
            Self::RedisStopped => "Redis: SIGSTOP",
            Self::MasterKilled => "master: kill -9, failover, started again",
            Self::MasterStopped => "master: SIGSTOP, failover, SIGCONT",
            Self::ConnectionsReset => "all connections to Redis reset",
            Self::RequestCut => "a connection to Redis reset within a request",
            Self::ResponseCut => "a connection to Redis reset within a response",
            Self::ScriptsFlushed => "SCRIPT FLUSH",
            Self::MemoryFull => "Redis filled to maxmemory, drained again",
        }
    }
}
