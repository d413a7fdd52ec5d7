//! Every bound of the system, with its unit last in the name and the reason beside it.
//!
//! A request beyond a bound is refused with a stable code and changes nothing.

/// Highest number of a checkpoint: every JSON reader has it exactly, those that know only floating point too.
pub const CHECKPOINT_SEQ_MAX: u64 = (1 << 53) - 1;
/// Longest task id. Ids become keys and index entries: longer ones would cost every queue operation.
pub const TASK_ID_MAX_BYTES: usize = 128;
/// Longest queue, agent, task-type, group or dependency name: they become metric labels and lane keys.
pub const NAME_MAX_BYTES: usize = 128;
/// Largest inline payload. Larger ones belong into object storage, with a reference here (claim check).
pub const PAYLOAD_MAX_BYTES: usize = 256 * 1024;
/// Longest blob that a coordinator may be told to take, in bytes: what S3 takes in one upload of its smallest parts, many times
/// over, and more than a task's state should be.
pub const BLOB_MAX_BYTES: u64 = 5 * 1024 * 1024 * 1024;
/// Largest inline result.
pub const RESULT_MAX_BYTES: usize = 256 * 1024;
/// Most items in one batch: bounds how long one transaction may hold the store.
pub const BATCH_MAX_ITEMS: usize = 1_000;
/// Largest request body: what a full batch of ordinary payloads needs.
pub const BODY_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Deepest nesting of JSON in a payload or result; deeper documents only exist to hurt a parser.
pub const JSON_MAX_DEPTH: usize = 64;
/// Longest failure message kept in a task's history.
pub const MESSAGE_MAX_BYTES: usize = 2 * 1024;
/// Largest body or exception text looked at when a failure is classified.
pub const SIGNAL_TEXT_MAX_BYTES: usize = 64 * 1024;
/// Most attempts kept in a task's history; the oldest go first, counters keep the total.
pub const HISTORY_MAX_ENTRIES: usize = 50;
/// Most labels on one task.
pub const LABELS_MAX: usize = 16;
/// Longest label value.
pub const LABEL_VALUE_MAX_BYTES: usize = 256;
/// Longest long poll. Proxies and load balancers cut idle requests at 60 s.
pub const WAIT_MAX_MS: u64 = 55_000;
/// Most queues in one claim.
pub const CLAIM_QUEUES_MAX: usize = 64;
/// Most dependencies that one claim may avoid.
pub const CLAIM_AVOID_MAX: usize = 64;
/// Most claims waiting at one coordinator; beyond it callers are told to come back.
pub const WAITING_CLAIMS_MAX: usize = 10_000;
/// Most breakers that one heartbeat may report.
pub const HEARTBEAT_BREAKERS_MAX: usize = 64;
/// Most commands of persons that stand for one agent's breakers: all fit into one heartbeat, beside what else it reports.
pub const BREAKER_COMMANDS_MAX: usize = 32;
/// Most runs of agents whose breakers are shown as metrics.
pub const AGENT_LABELS_MAX: usize = 1_000;
/// Most headers of one failure.
pub const SIGNAL_HEADERS_MAX: usize = 64;
/// Largest page of a list.
pub const PAGE_MAX_ITEMS: usize = 500;
/// Page of a list when the caller does not say.
pub const PAGE_DEFAULT_ITEMS: usize = 50;
/// Most rows that one page looks at before it answers with a cursor: a selective filter must not hold a reader.
pub const PAGE_SCAN_MAX_ROWS: usize = 20_000;
/// Most queues in one namespace.
pub const QUEUES_MAX: usize = 10_000;
/// Most gates, one a dependency: every coordinator holds them all, and a change makes it read them all.
pub const GATES_MAX: usize = 10_000;
/// Largest value of one gate.
pub const GATE_MAX_BYTES: usize = 64 * 1024;
/// Versions of a queue's policy that are kept, the newest ones: enough to see how it came about.
pub const POLICY_VERSIONS_KEPT: usize = 50;
/// Longest reason for a change of a policy: a sentence, not a document.
pub const REASON_MAX_BYTES: usize = 512;
/// Most distinct dependencies that become metric labels; the rest share one.
pub const DEPENDENCY_LABELS_MAX: usize = 200;
/// Most queues that metrics of gates name, one label each: those that have limits.
pub const QUEUE_LABELS_MAX: usize = 200;
/// Longest wait before a task may run first, and longest snooze.
pub const DELAY_MAX_MS: u64 = 365 * 24 * 60 * 60 * 1_000;
/// Highest number of attempts that anyone may ask for.
pub const ATTEMPTS_MAX: u32 = 100;
/// Fewest and most milliseconds of a lease.
pub const LEASE_MIN_MS: u64 = 1_000;
/// See [`LEASE_MIN_MS`]. Long enough for consumers that hold no connection to us and cannot extend.
pub const LEASE_MAX_MS: u64 = 24 * 60 * 60 * 1_000;
/// Most dollars that one attempt may cost, and that a task's own bound may be: more is a typing error.
pub const COST_MAX_USD: u32 = 10_000;
/// Most tokens that one attempt may be said to use: more than the largest windows of models, with room for a handler that calls
/// several times.
pub const TASK_TOKENS_MAX: u32 = 10_000_000;
/// Times one task is put off (snoozed, or held at an isolated dependency) before a person is asked, where its policy says
/// nothing: a task that looks again every 10 s for a whole day stays below.
pub const DEFERRALS_DEFAULT: u32 = 10_000;
/// Times workers hand one task back untouched before a person is asked, where its policy says nothing. It is due again within
/// a second, and a worker whose breaker opens or that drains hands back what it holds: a hundred such workers, each ten
/// times, stay below. What the coordinator itself takes back is not among them.
pub const RELEASES_DEFAULT: u32 = 1_000;
/// Widest spread of a task that waits behind the gate of an isolated dependency: it is due as soon as that opens.
pub const GATE_SPREAD_MS: u64 = 1_000;
/// Highest fallback route.
pub const ROUTE_MAX: u32 = 31;

/// Lease when neither queue nor claim says otherwise.
pub const LEASE_DEFAULT_MS: u64 = 30_000;
/// How often a worker reports.
pub const HEARTBEAT_INTERVAL_MS: u64 = 5_000;
/// Silence after which an agent counts as dead and its leases expire: three heartbeats.
pub const AGENT_DEAD_AFTER_MS: u64 = 15_000;
/// How long leases from before a coordinator's start are left alone after it: two heartbeats, so that workers which went on
/// while it was away can report before their tasks are taken from them.
pub const RESTART_GRACE_MS: u64 = 10_000;
/// How long a broken presence connection may stay away before its leases expire.
pub const PRESENCE_GRACE_MS: u64 = 2_000;
/// How long a silent agent is remembered, so that operators can see that it is gone.
pub const AGENT_REMEMBERED_MS: u64 = 60 * 60 * 1_000;
/// How long the answer to a claim's request id can be asked for again.
pub const CLAIM_REPLAY_MS: u64 = 10 * 60 * 1_000;
/// Delay after an undelivered lease, so that a dispatch path that loses messages is not hammered.
pub const UNDELIVERED_DELAY_MS: u64 = 1_000;
/// Widest spread of a released task's next due time: those that one worker hands back must not return as one.
pub const RELEASE_SPREAD_MS: u64 = 1_000;
/// Free bytes on the embedded store's disk below which it says that it is not ready: room for a full batch.
pub const STORE_FREE_MIN_BYTES: u64 = BODY_MAX_BYTES as u64;
/// Longest time for which an operator shuts a gate; what is to stay shut is isolated.
pub const GATE_SHUT_MAX_MS: u64 = 24 * 60 * 60 * 1_000;
