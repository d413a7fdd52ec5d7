//! How a task lies in its one Redis key: a string of five parts.
//!
//! ```text
//!  header      50 bytes, fixed, big-endian: what scripts read and compare
//!  record      what only the lifecycle changes (protobuf)
//!  meta        what never changes: queue, type, dependency, … (protobuf)
//!  slot        the payload, byte for byte; of a succeeded task, its result
//!  history     its attempts, newest first, each behind its length (protobuf): `history`
//!
//!  header:  0 version  1 state  2 epoch(8)  10 nonce(8)  18 runs(4)  22 due(6)  28 deadline(6)
//!           34 record bytes(2)  36 meta bytes(2)  38 slot bytes(4)  42 ordinal(8)
//! ```
//!
//! Times are milliseconds. The ordinal says in which order tasks came to their shard, in µs; epochs of leases are above every
//! epoch that is written, so that a lease need not know its task's last. Protobuf may gain fields: a release that does
//! not know them leaves them out when it next writes the record, so a field that must survive that raises the version
//! instead.
//!
//! A lease is not in the value: leasing a task moves its id from its lane to the leases, and what it was before stays as it
//! is written here. A task is leased if and only if it is among the leases; [`Lease`] is what the store says of it then.

use std::collections::BTreeMap;

use prost::Message;
use redrive_shared::cost::Cost;
use redrive_shared::failure::FailureClass;
use redrive_shared::id::Name;
use redrive_shared::lifecycle::{Fence, Record};
use redrive_shared::limits::HISTORY_MAX_ENTRIES;
use redrive_shared::task::{Lane, Ledger, Nonce, TaskState};

pub(super) use super::bytes::{body_of, score, write_ordinal};
use super::bytes::{number, time_bytes};
use super::history::newest;
use super::keys::{agent_of, boot_of};
use crate::store::format::{
    called_from, class_counts, class_counts_from, priority_from, state_from, state_number, strategy_from,
};

/// The version that this release writes, and the only one that it reads.
pub(super) const VERSION: u8 = 1;
/// Bytes of a header.
pub(super) const HEADER_BYTES: usize = 50;

/// What is kept of a task, for those who weigh it: part, and what is in it.
pub const STORED: [(&str, &str); 6] = [
    ("header", "50 bytes: version, state, epoch, nonce, runs, due, deadline, lengths, ordinal"),
    (
        "record",
        "ledger, failures by class, whether it was called, last delay, most attempts, deadline or expiry, entries of history, lane of retries, route, cost, whether in a \
         transaction",
    ),
    (
        "meta",
        "hash of the contents, queue, rank, dependency, group, type and its version, route, trace context, labels, most cost, backoff",
    ),
    ("slot", "the payload; of a succeeded task its result"),
    (
        "history",
        "an entry an attempt: run, agent, route, start, end, ending, failure, delay, reason, stand-in, cost",
    ),
    (
        "beside it",
        "its key, a member of its lane (id and due time), an entry of the shard's log; if it saved checkpoints, these, in a key of their own",
    ),
];

/// A value that this release cannot read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("it has version {0}; this release reads version {VERSION}")]
    Version(u8),
    #[error("it ends too early")]
    Short,
    #[error("its {0} makes no sense")]
    Field(&'static str),
    #[error(transparent)]
    Protobuf(#[from] prost::DecodeError),
}

#[derive(Clone, PartialEq, Message)]
struct StoredRecord {
    #[prost(uint32, tag = "1")]
    failed: u32,
    #[prost(uint32, tag = "2")]
    lost: u32,
    #[prost(uint32, tag = "3")]
    undelivered: u32,
    #[prost(uint32, tag = "4")]
    deferred: u32,
    #[prost(uint32, tag = "5")]
    released: u32,
    #[prost(bytes = "vec", tag = "6")]
    class_failures: Vec<u8>,
    #[prost(uint64, optional, tag = "7")]
    previous_delay_ms: Option<u64>,
    #[prost(uint32, optional, tag = "8")]
    max_attempts: Option<u32>,
    #[prost(int64, optional, tag = "9")]
    expires_ms: Option<i64>,
    #[prost(uint32, tag = "10")]
    entries: u32,
    /// See [`Task::among_retries`]. A release that does not know it leaves it out of what it schedules, and puts that into a
    /// lane where it is not set.
    #[prost(bool, tag = "11")]
    among_retries: bool,
    /// See [`Task::stand_in`]. What follows is lost in the same way: the task is then on its own dependency's lane again, as
    /// its release puts it there, and what it cost up to then is not counted.
    #[prost(string, optional, tag = "12")]
    stand_in: Option<String>,
    /// Missing: the one that it began with.
    #[prost(uint32, optional, tag = "13")]
    route: Option<u32>,
    /// Missing: as many as failed.
    #[prost(uint32, optional, tag = "14")]
    failed_on_route: Option<u32>,
    #[prost(uint64, tag = "15")]
    cost_micros: u64,
    #[prost(bool, tag = "17")]
    in_transaction: bool,
}

/// What never changes of a task, but for its payload.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Meta {
    #[prost(bytes = "vec", tag = "1")]
    pub hash: Vec<u8>,
    #[prost(string, tag = "2")]
    queue: String,
    #[prost(uint32, tag = "3")]
    rank: u32,
    #[prost(string, optional, tag = "4")]
    dependency: Option<String>,
    #[prost(string, optional, tag = "5")]
    group: Option<String>,
    /// Empty where it is the queue's name.
    #[prost(string, tag = "6")]
    task_type: String,
    #[prost(uint32, optional, tag = "7")]
    pub type_version: Option<u32>,
    #[prost(uint32, tag = "8")]
    route: u32,
    #[prost(string, optional, tag = "9")]
    pub traceparent: Option<String>,
    #[prost(btree_map = "string, string", tag = "10")]
    pub labels: BTreeMap<String, String>,
    #[prost(uint64, optional, tag = "11")]
    max_cost_micros: Option<u64>,
    #[prost(uint32, optional, tag = "12")]
    pub tokens: Option<u32>,
    /// The task's own backoff, as JSON.
    #[prost(string, optional, tag = "13")]
    strategy: Option<String>,
}

/// A lease as the store keeps it beside its task.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    pub fence: Fence,
    pub leased_at_ms: i64,
    pub until_ms: i64,
    /// It was extended at least once: its work began.
    pub extended: bool,
    /// Who holds it.
    pub agent: Option<Name>,
    /// Which run of it, where the claim said so and the lease was read: what was just handed out does not need it.
    pub boot_id: Option<Name>,
    /// The run that it belongs to, where that took it over from the one that claimed it.
    pub taken_by: Option<Box<str>>,
}

/// What scripts say of an extension: there was none, there was one, another run took the lease over with it.
const EXTENDED: u8 = 1;
const TAKEN_OVER: u8 = 2;

impl Lease {
    /// Reads what scripts say of a lease. None: nobody holds the task.
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, Unreadable> {
        const FIXED_BYTES: usize = 29;
        if bytes.is_empty() {
            return Ok(None);
        }
        let (fixed, run) = bytes.split_at_checked(FIXED_BYTES).ok_or(Unreadable::Short)?;
        let run = std::str::from_utf8(run).map_err(|_| Unreadable::Field("run"))?;
        Ok(Some(Self {
            fence: Fence { epoch: number(fixed, 0, 8).cast_signed(), nonce: Nonce(number(fixed, 8, 8)) },
            leased_at_ms: number(fixed, 16, 6).cast_signed(),
            until_ms: number(fixed, 22, 6).cast_signed(),
            extended: matches!(fixed[28], EXTENDED | TAKEN_OVER),
            agent: agent_of(run),
            boot_id: boot_of(run),
            taken_by: (fixed[28] == TAKEN_OVER).then(|| run.into()),
        }))
    }

    /// What the store keeps of its extension.
    pub fn extension(&self) -> Vec<u8> {
        let mut bytes = if self.extended { time_bytes(self.until_ms).to_vec() } else { Vec::new() };
        bytes.extend_from_slice(self.taken_by.as_deref().unwrap_or_default().as_bytes());
        bytes
    }
}

/// A task as its header, record and meta say.
#[derive(Debug, Clone)]
pub(super) struct Task {
    pub record: Record,
    /// Lines of history written so far.
    pub entries: u32,
    /// Whether it waits in a lane of retries. It is written with the task, since its ledger alone does not say so: what an
    /// older release scheduled waits elsewhere.
    pub among_retries: bool,
    /// The dependency in whose lane it waits, or waited last, where that is not its own. It is written with the task too: the
    /// policy that chose it may have changed since.
    pub stand_in: Option<Name>,
    /// What its value began with as it was read; zeros of a new task.
    header: [u8; HEADER_BYTES],
    /// Who holds it.
    pub lease: Option<Lease>,
    /// Its place in the order of arrival.
    pub ordinal: i64,
    pub meta: Meta,
    meta_bytes: usize,
    pub slot_bytes: usize,
}

impl Meta {
    /// What a task to enqueue says of itself.
    pub fn of(task: &crate::store::Enqueue, lane: &Lane, hash: &[u8]) -> Self {
        Self {
            hash: hash.to_vec(),
            queue: lane.queue.to_string(),
            rank: crate::store::format::rank(lane.priority).into(),
            dependency: task.spec.dependency.as_ref().map(ToString::to_string),
            group: lane.group.as_ref().map(ToString::to_string),
            task_type: if task.task_type == task.queue { String::new() } else { task.task_type.to_string() },
            type_version: task.spec.type_version,
            route: task.spec.route,
            traceparent: task.spec.traceparent.clone(),
            labels: task.spec.labels.clone(),
            max_cost_micros: task.spec.max_cost_usd.map(Cost::micros),
            tokens: task.spec.tokens,
            // Numbers and a name: they always serialise.
            strategy: task.spec.retry.as_ref().and_then(|retry| serde_json::to_string(retry).ok()),
        }
    }

    /// The lane of its own dependency, of retries or not.
    fn lane(&self, retry: bool) -> Result<Lane, Unreadable> {
        let rank = u8::try_from(self.rank).map_err(|_| Unreadable::Field("priority"))?;
        Ok(Lane {
            queue: name(&self.queue)?,
            priority: priority_from(rank).ok_or(Unreadable::Field("priority"))?,
            dependency: self.primary()?,
            group: self.group_name()?,
            retry,
        })
    }

    /// What it runs.
    pub fn task_type(&self) -> Result<Name, Unreadable> {
        let text = if self.task_type.is_empty() { &self.queue } else { &self.task_type };
        Name::new(text.as_str()).map_err(|_| Unreadable::Field("type"))
    }

    /// The upstream that it was enqueued with.
    pub fn primary(&self) -> Result<Option<Name>, Unreadable> {
        self.dependency.as_deref().map(name).transpose()
    }

    /// Its group.
    pub fn group_name(&self) -> Result<Option<Name>, Unreadable> {
        self.group.as_deref().map(name).transpose()
    }

    /// The name of its queue.
    pub fn queue(&self) -> &str {
        &self.queue
    }
}

fn name(text: &str) -> Result<Name, Unreadable> {
    Name::new(text).map_err(|_| Unreadable::Field("name"))
}

impl Task {
    /// A new task, whose ordinal the store will give.
    pub fn new(record: Record, meta: Meta, entries: u32, payload_bytes: usize) -> Self {
        let meta_bytes = meta.encoded_len();
        Self {
            record,
            header: [0; HEADER_BYTES],
            entries,
            among_retries: false,
            stand_in: None,
            lease: None,
            ordinal: 0,
            meta,
            meta_bytes,
            slot_bytes: payload_bytes,
        }
    }

    /// Reads header, record and meta. What comes after them is [`Self::rest`].
    pub fn read(value: &[u8]) -> Result<Self, Unreadable> {
        let version = *value.first().ok_or(Unreadable::Short)?;
        if version != VERSION {
            return Err(Unreadable::Version(version));
        }
        let header: [u8; HEADER_BYTES] =
            value.get(..HEADER_BYTES).and_then(|bytes| bytes.try_into().ok()).ok_or(Unreadable::Short)?;
        let time = |from: usize| number(&header, from, 6).cast_signed();
        let length =
            |from: usize, bytes: usize| usize::try_from(number(&header, from, bytes)).unwrap_or(usize::MAX);
        let (record_bytes, meta_bytes) = (length(34, 2), length(36, 2));
        let meta_from = HEADER_BYTES + record_bytes;
        let stored = StoredRecord::decode(value.get(HEADER_BYTES..meta_from).ok_or(Unreadable::Short)?)?;
        let meta = value.get(meta_from..meta_from + meta_bytes).ok_or(Unreadable::Short)?;
        let meta = Meta::decode(meta)?;
        let class_failures = class_counts_from(&stored.class_failures);
        let record = Record {
            state: state_from(header[1]).ok_or(Unreadable::Field("state"))?,
            epoch: number(&header, 2, 8).cast_signed(),
            nonce: Nonce(number(&header, 10, 8)),
            started: false,
            lease_until_ms: 0,
            leased_at_ms: 0,
            runs: u32::try_from(number(&header, 18, 4)).unwrap_or(u32::MAX),
            due_ms: time(22),
            deadline_ms: time(28),
            ledger: Ledger {
                failed: stored.failed,
                lost: stored.lost,
                undelivered: stored.undelivered,
                deferred: stored.deferred,
                released: stored.released,
                lock_waits: class_failures.of(FailureClass::LockTimeout),
                cost_usd: Cost::from_micros(stored.cost_micros),
            },
            class_failures,
            called: called_from(&stored.class_failures),
            previous_delay_ms: stored.previous_delay_ms,
            max_attempts: stored.max_attempts,
            strategy: meta.strategy.as_deref().and_then(strategy_from),
            max_cost: meta.max_cost_micros.map(Cost::from_micros),
            route: stored.route.unwrap_or(meta.route),
            failed_on_route: stored.failed_on_route.unwrap_or(stored.failed),
            in_transaction: stored.in_transaction,
            expires_ms: stored.expires_ms,
        };
        Ok(Self {
            record,
            entries: stored.entries,
            among_retries: stored.among_retries,
            stand_in: stored.stand_in.as_deref().map(name).transpose()?,
            lease: None,
            ordinal: number(&header, 42, 8).cast_signed(),
            meta,
            meta_bytes,
            slot_bytes: length(38, 4),
            header,
        })
    }

    /// The task while somebody holds it.
    pub fn leased(mut self, lease: Option<Lease>) -> Self {
        if let Some(lease) = lease {
            self.record = Record {
                state: TaskState::Leased,
                epoch: lease.fence.epoch,
                nonce: lease.fence.nonce,
                started: lease.extended,
                lease_until_ms: lease.until_ms,
                leased_at_ms: lease.leased_at_ms,
                runs: self.record.runs.saturating_add(1),
                ..self.record
            };
            self.lease = Some(lease);
        }
        self
    }

    /// The lane that it waits in, or was in when it last waited.
    pub fn lane(&self) -> Result<Lane, Unreadable> {
        let lane = self.meta.lane(self.among_retries)?;
        Ok(Lane { dependency: self.stand_in.clone().or(lane.dependency), ..lane })
    }

    /// Slot and history of a whole value.
    pub fn rest<'a>(&self, value: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), Unreadable> {
        let rest = body_of(value)?.get(self.meta_bytes..).ok_or(Unreadable::Short)?;
        rest.split_at_checked(self.slot_bytes).ok_or(Unreadable::Short)
    }

    /// Bytes of meta and slot.
    pub fn body_bytes(&self) -> usize {
        self.meta_bytes + self.slot_bytes
    }

    /// Header and record, and room for so many bytes behind them.
    pub fn head(&self, room: usize) -> Vec<u8> {
        let stored = StoredRecord {
            failed: self.record.ledger.failed,
            lost: self.record.ledger.lost,
            undelivered: self.record.ledger.undelivered,
            deferred: self.record.ledger.deferred,
            released: self.record.ledger.released,
            class_failures: class_counts(&self.record.class_failures, self.record.called),
            previous_delay_ms: self.record.previous_delay_ms,
            max_attempts: self.record.max_attempts,
            expires_ms: self.record.expires_ms,
            entries: self.entries,
            among_retries: self.among_retries,
            stand_in: self.stand_in.as_ref().map(ToString::to_string),
            route: Some(self.record.route).filter(|route| *route != self.meta.route),
            failed_on_route: Some(self.record.failed_on_route)
                .filter(|failed| *failed != self.record.ledger.failed),
            cost_micros: self.record.ledger.cost_usd.micros(),
            in_transaction: self.record.in_transaction,
        };
        let record_bytes = stored.encoded_len();
        let mut bytes = Vec::with_capacity(HEADER_BYTES + record_bytes + room);
        self.header(&mut bytes, record_bytes);
        stored.encode_raw(&mut bytes);
        bytes
    }

    fn header(&self, bytes: &mut Vec<u8>, record_bytes: usize) {
        let record = &self.record;
        bytes.extend([VERSION, state_number(record.state)]);
        bytes.extend(record.epoch.to_be_bytes());
        bytes.extend(record.nonce.0.to_be_bytes());
        bytes.extend(record.runs.to_be_bytes());
        bytes.extend(time_bytes(record.due_ms));
        bytes.extend(time_bytes(record.deadline_ms));
        bytes.extend(u16::try_from(record_bytes).unwrap_or(u16::MAX).to_be_bytes());
        bytes.extend(u16::try_from(self.meta_bytes).unwrap_or(u16::MAX).to_be_bytes());
        bytes.extend(u32::try_from(self.slot_bytes).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend(self.ordinal.to_be_bytes());
    }

    /// The whole value, from its body before: with a line more of history, the oldest beyond the bound dropped, and another
    /// slot if one is given.
    pub fn rewritten(
        &mut self,
        body: &[u8],
        slot: Option<&[u8]>,
        line: &[u8],
    ) -> Result<Vec<u8>, Unreadable> {
        let (meta, rest) = body.split_at_checked(self.meta_bytes).ok_or(Unreadable::Short)?;
        let (before, history) = rest.split_at_checked(self.slot_bytes).ok_or(Unreadable::Short)?;
        let slot = slot.unwrap_or(before);
        self.slot_bytes = slot.len();
        let bound = u32::try_from(HISTORY_MAX_ENTRIES).unwrap_or(u32::MAX);
        let history = if self.entries > bound {
            self.entries = bound;
            newest(history, HISTORY_MAX_ENTRIES - 1)
        } else {
            history
        };
        let mut value = self.head(meta.len() + slot.len() + line.len() + history.len());
        for part in [meta, slot, line, history] {
            value.extend_from_slice(part);
        }
        Ok(value)
    }

    /// Writes what comes between record and slot.
    pub fn write_meta(&self, bytes: &mut Vec<u8>) {
        self.meta.encode_raw(bytes);
    }

    /// What its value begins with as long as nothing but a lease has happened to it.
    pub fn whole_header(&self) -> Vec<u8> {
        self.header.to_vec()
    }

    /// The fence of its last lease.
    pub fn fence(&self) -> Fence {
        Fence { epoch: self.record.epoch, nonce: self.record.nonce }
    }

    /// Its score in its lane.
    pub fn score(&self) -> i64 {
        score(self.record.due_ms, self.ordinal)
    }
}
