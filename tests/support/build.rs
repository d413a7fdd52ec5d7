//! Short ways to make what stores take.

use redrive_coordinator::store::{Claim, Ending, Enqueue, SaveCheckpoint, Settle};
use redrive_shared::blob::{BlobId, BlobRef, Sha256Sum};
use redrive_shared::checkpoint::Checkpoint;
use redrive_shared::failure::FailureClass;
use redrive_shared::gate::{Scope, Standing};
use redrive_shared::id::{Name, TaskId};
use redrive_shared::lifecycle::Fence;
use redrive_shared::retry::{RetryPolicy, Strategy};
use redrive_shared::task::{FailureRecord, Lease, Priority};
use redrive_shared::wire::{Heartbeat, LeaseRef, NewTask};
use serde_json::value::RawValue;

use super::Bed;

/// Where clocks start: an ordinary day.
pub const START_MS: i64 = 1_760_000_000_000;

pub fn name(text: &str) -> Name {
    Name::new(text).expect("a valid name")
}

/// The scope of a dependency.
pub fn of_dependency(text: &str) -> Scope {
    Scope::Dependency(name(text))
}

/// The scope of a queue.
pub fn of_queue(text: &str) -> Scope {
    Scope::Queue(name(text))
}

/// The scope of a group of a queue.
pub fn of_group(queue: &str, group: &str) -> Scope {
    Scope::Group { queue: name(queue), group: name(group) }
}

pub fn id(text: &str) -> TaskId {
    TaskId::new(text).expect("a valid id")
}

pub fn ids(texts: &[&str]) -> Vec<TaskId> {
    texts.iter().map(|text| id(text)).collect()
}

pub fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).expect("valid JSON")
}

/// A task on the queue `default`, due at once.
pub fn task(text: &str) -> Enqueue {
    Enqueue {
        id: id(text),
        queue: name("default"),
        task_type: name("default"),
        payload: raw("{}").into(),
        failure: None,
        spec: NewTask::default(),
        standing: Standing::default(),
        only_compared: false,
    }
}

/// What a task may be given besides its id.
pub trait EnqueueExt {
    fn on(self, queue: &str) -> Self;
    fn of_type(self, task_type: &str) -> Self;
    fn payload(self, json: &str) -> Self;
    fn group(self, group: &str) -> Self;
    fn needs(self, dependency: &str) -> Self;
    fn priority(self, priority: Priority) -> Self;
    fn delay(self, delay_ms: u64) -> Self;
    fn deadline(self, deadline_ms: u64) -> Self;
    fn max_attempts(self, max_attempts: u32) -> Self;
    fn failed(self, failure: FailureRecord) -> Self;
    fn attempts_made(self, attempts: u32) -> Self;
}

impl EnqueueExt for Enqueue {
    fn on(mut self, queue: &str) -> Self {
        self.queue = name(queue);
        self
    }

    fn of_type(mut self, task_type: &str) -> Self {
        self.task_type = name(task_type);
        self
    }

    fn payload(mut self, json: &str) -> Self {
        self.payload = raw(json).into();
        self
    }

    fn group(mut self, group: &str) -> Self {
        self.spec.group = Some(name(group));
        self
    }

    fn needs(mut self, dependency: &str) -> Self {
        self.spec.dependency = Some(name(dependency));
        self
    }

    fn priority(mut self, priority: Priority) -> Self {
        self.spec.priority = priority;
        self
    }

    fn delay(mut self, delay_ms: u64) -> Self {
        self.spec.delay_ms = Some(delay_ms);
        self
    }

    fn deadline(mut self, deadline_ms: u64) -> Self {
        self.spec.deadline_ms = Some(deadline_ms);
        self
    }

    fn max_attempts(mut self, max_attempts: u32) -> Self {
        self.spec.max_attempts = Some(max_attempts);
        self
    }

    fn failed(mut self, failure: FailureRecord) -> Self {
        self.failure = Some(failure);
        self
    }

    fn attempts_made(mut self, attempts: u32) -> Self {
        self.spec.attempts_made = Some(attempts);
        self
    }
}

/// A failure that a retry may mend; set `retryable` or `retry_after_ms` where it matters.
pub fn failure(class: FailureClass) -> FailureRecord {
    FailureRecord {
        class,
        retryable: true,
        retry_after_ms: None,
        message: format!("{class} happened"),
        fingerprint: format!("{class}-1"),
    }
}

/// A policy whose delays are known: `server_error` waits exactly that long.
pub fn fixed_policy(delay_ms: u64) -> RetryPolicy {
    RetryPolicy { strategy: Strategy::Fixed { delay_ms }, ..RetryPolicy::default() }
}

/// A claim of agent `a`, run `a-1`, on the queue `default`.
pub fn claim_of(max: usize) -> Claim {
    Claim {
        agent: name("a"),
        boot_id: Some(name("a-1")),
        request_id: None,
        queues: vec![name("default")],
        max,
        lease_ms: None,
        avoid: Vec::new(),
    }
}

pub fn fence(lease: &Lease) -> Fence {
    Fence { epoch: lease.epoch, nonce: lease.nonce }
}

pub fn settle_of(lease: &Lease, ending: Ending) -> Settle {
    Settle::new(lease.id.clone(), fence(lease), ending)
}

pub fn lease_ref(lease: &Lease) -> LeaseRef {
    LeaseRef { id: lease.id.clone(), epoch: lease.epoch, nonce: lease.nonce }
}

/// A checkpoint that says of a step that it is done, and no more.
pub fn checkpoint(seq: u64, step: &str) -> Checkpoint {
    Checkpoint { seq, step: name(step), completed: true, state: None, pending: None }
}

pub fn save_of(lease: &Lease, checkpoint: Checkpoint) -> SaveCheckpoint {
    SaveCheckpoint { id: lease.id.clone(), fence: fence(lease), checkpoint }
}

/// A reference to a blob that was uploaded now; each number's is another.
pub fn blob(bed: &Bed, number: u8) -> BlobRef {
    let blob = BlobId::new(bed.now_ms(), [number; 10]);
    BlobRef { blob, bytes: 1_000_000, sha256: Sha256Sum([number; 32]) }
}

/// A heartbeat without leases.
pub fn beat(agent: &str, boot_id: &str) -> Heartbeat {
    Heartbeat {
        agent: name(agent),
        boot_id: name(boot_id),
        queues: vec![name("default")],
        capacity: 4,
        in_flight: 0,
        breakers: std::collections::BTreeMap::new(),
        leases: Vec::new(),
        lease_ms: None,
        draining: false,
        pushed: false,
    }
}

/// A heartbeat that extends leases.
pub fn beat_with(agent: &str, boot_id: &str, leases: &[&Lease]) -> Heartbeat {
    Heartbeat { leases: leases.iter().map(|lease| lease_ref(lease)).collect(), ..beat(agent, boot_id) }
}
