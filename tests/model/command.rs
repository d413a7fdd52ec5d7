//! What a run is made of.

use proptest::collection::vec;
use proptest::option::{of, weighted};
use proptest::prelude::{Just, any, prop_oneof};
use proptest::sample::select;
use proptest::strategy::Strategy;
use redrive_shared::failure::FailureClass;
use redrive_shared::task::Priority;

/// Few names, so that commands meet.
pub const IDS: [&str; 6] = ["t0", "t1", "t2", "t3", "t4", "t5"];
pub const QUEUES: [&str; 2] = ["q0", "q1"];
pub const AGENTS: [&str; 2] = ["a", "b"];

/// A task to enqueue; numbers are indexes.
#[derive(Debug, Clone)]
pub struct NewTask {
    pub id: usize,
    pub queue: usize,
    pub payload: u8,
    pub priority: Priority,
    pub group: Option<u8>,
    pub dependency: Option<u8>,
    pub delay_ms: Option<u64>,
    pub deadline_ms: Option<u64>,
    pub max_attempts: Option<u32>,
    pub attempts_made: Option<u32>,
    pub failure: Option<Failure>,
}

#[derive(Debug, Clone, Copy)]
pub struct Failure {
    pub class: FailureClass,
    pub retryable: bool,
    pub hint_ms: Option<u64>,
}

#[derive(Debug, Clone)]
pub struct Claim {
    pub agent: usize,
    pub request: Option<u8>,
    pub queues: Vec<usize>,
    pub max: usize,
    pub lease_ms: Option<u64>,
    pub avoid: Option<u8>,
    pub gates: Vec<Gate>,
}

/// What a gate is before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    Dependency(u8),
    Queue(usize),
    Group(usize, u8),
}

/// How much of it may be given.
#[derive(Debug, Clone, Copy)]
pub struct Gate {
    pub of: Of,
    pub any: Option<u32>,
    pub retries: Option<u32>,
}

/// A lease given before, counted back from the last, and what is wrong with the fence that is shown for it.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    pub back: usize,
    pub forgery: Forgery,
}

#[derive(Debug, Clone, Copy)]
pub enum Forgery {
    None,
    OtherNonce,
    EpochAfter,
    /// The epoch that the task has now, with that nonce: as much as anyone can see.
    SeenEpoch(u64),
}

#[derive(Debug, Clone, Copy)]
pub enum Ending {
    Done(bool),
    Failed(Failure),
    FailedForGood(Failure),
    NeedsPerson(Failure),
    Snoozed(u64),
    Released,
    Undelivered,
    HandedOff,
}

impl Ending {
    pub fn is_call(self) -> bool {
        match self {
            Self::Done(_) => true,
            Self::Failed(seen) | Self::FailedForGood(seen) | Self::NeedsPerson(seen) => {
                seen.class != FailureClass::LockTimeout
            }
            Self::Snoozed(_) | Self::Released | Self::Undelivered | Self::HandedOff => false,
        }
    }
}

#[derive(Debug, Clone)]
pub enum Command {
    Enqueue(Vec<NewTask>),
    Claim(Claim),
    /// Perhaps by an agent that takes over what is still held.
    Extend(Vec<Shown>, Option<u64>, Option<usize>),
    Settle(Vec<(Shown, Ending)>),
    Reap(usize),
    Cancel(usize),
    Retry(usize),
    Forget(usize),
    Pause(usize, bool),
    Heartbeat(usize, Vec<usize>),
    ExpireLeases(usize),
    /// Forwards or backwards.
    Advance(i64),
    Reopen,
}

pub fn sequences(most: usize) -> impl Strategy<Value = Vec<Command>> {
    vec(commands(), 1..most)
}

fn commands() -> impl Strategy<Value = Command> {
    prop_oneof![
        10 => vec(new_tasks(), 1..5).prop_map(Command::Enqueue),
        12 => claims().prop_map(Command::Claim),
        5 => extensions(),
        12 => vec((shown(), endings()), 1..3).prop_map(Command::Settle),
        5 => (0..5_usize).prop_map(Command::Reap),
        2 => (0..IDS.len()).prop_map(Command::Cancel),
        3 => (0..IDS.len()).prop_map(Command::Retry),
        2 => (0..4_usize).prop_map(Command::Forget),
        2 => (0..QUEUES.len(), any::<bool>()).prop_map(|(queue, paused)| Command::Pause(queue, paused)),
        3 => (0..AGENTS.len(), vec(0..4_usize, 0..3)).prop_map(|(agent, back)| Command::Heartbeat(agent, back)),
        1 => (0..AGENTS.len()).prop_map(Command::ExpireLeases),
        10 => advances().prop_map(Command::Advance),
        2 => Just(Command::Reopen),
    ]
}

fn extensions() -> impl Strategy<Value = Command> {
    let takers = weighted(0.5, 0..AGENTS.len());
    (vec(shown(), 1..3), of(1_000..90_000_u64), takers)
        .prop_map(|(shown, lease_ms, taker)| Command::Extend(shown, lease_ms, taker))
}

fn advances() -> impl Strategy<Value = i64> {
    prop_oneof![
        3 => 0..2_000_i64,
        5 => 5_000..40_000_i64,
        1 => 60_000..400_000_i64,
        1 => -60_000..0_i64,
    ]
}

fn new_tasks() -> impl Strategy<Value = NewTask> {
    let place = (0..IDS.len(), 0..QUEUES.len(), priorities(), weighted(0.5, 0..2_u8), weighted(0.5, 0..2_u8));
    let times = (weighted(0.3, 0..20_000_u64), weighted(0.2, 1_000..60_000_u64));
    let attempts = (weighted(0.2, 1..6_u32), weighted(0.2, 0..5_u32), weighted(0.3, failures()));
    // Mostly the same contents, so that an id is sometimes used again for others.
    let payload = prop_oneof![9 => Just(0_u8), 1 => Just(1_u8)];
    (place, times, attempts, payload).prop_map(|(place, times, attempts, payload)| {
        let (id, queue, priority, group, dependency) = place;
        let (delay_ms, deadline_ms) = times;
        let (max_attempts, attempts_made, failure) = attempts;
        NewTask {
            id,
            queue,
            payload,
            priority,
            group,
            dependency,
            delay_ms,
            deadline_ms,
            max_attempts,
            attempts_made,
            failure,
        }
    })
}

fn priorities() -> impl Strategy<Value = Priority> {
    prop_oneof![1 => Just(Priority::High), 3 => Just(Priority::Normal), 1 => Just(Priority::Low)]
}

fn failures() -> impl Strategy<Value = Failure> {
    let retryable = select(vec![
        FailureClass::ServerError,
        FailureClass::Timeout,
        FailureClass::Timeout,
        FailureClass::RateLimited,
        FailureClass::LockTimeout,
        FailureClass::WorkerLost,
    ]);
    let for_good = select(vec![FailureClass::InvalidRequest, FailureClass::Auth]);
    prop_oneof![
        8 => (retryable, weighted(0.3, 0..50_000_u64))
            .prop_map(|(class, hint_ms)| Failure { class, retryable: true, hint_ms }),
        1 => for_good.prop_map(|class| Failure { class, retryable: false, hint_ms: None }),
    ]
}

fn claims() -> impl Strategy<Value = Claim> {
    let queues = select(vec![vec![0], vec![1], vec![0, 1], vec![1, 0]]);
    let options = (weighted(0.35, 0..2_u8), weighted(0.3, 1_000..60_000_u64), weighted(0.2, 0..2_u8));
    let gates = prop_oneof![3 => Just(Vec::new()), 2 => vec(gates(), 1..5)];
    let who = (0..AGENTS.len(), queues, 1..6_usize);
    (who, options, gates).prop_map(|((agent, queues, max), (request, lease_ms, avoid), gates)| Claim {
        agent,
        request,
        queues,
        max,
        lease_ms,
        avoid,
        gates,
    })
}

fn gates() -> impl Strategy<Value = Gate> {
    let bound = || prop_oneof![2 => Just(None), 2 => Just(Some(0)), 3 => (1..4_u32).prop_map(Some)];
    let of_dependency = (0..2_u8, bound(), bound()).prop_map(|(dependency, any, retries)| Gate {
        of: Of::Dependency(dependency),
        any,
        retries,
    });
    let others = prop_oneof![
        (0..QUEUES.len()).prop_map(Of::Queue),
        (0..QUEUES.len(), 0..2_u8).prop_map(|(queue, group)| Of::Group(queue, group)),
    ];
    let of_others = (others, bound()).prop_map(|(of, any)| Gate { of, any, retries: None });
    prop_oneof![1 => of_dependency, 1 => of_others]
}

fn shown() -> impl Strategy<Value = Shown> {
    let forgery = prop_oneof![
        20 => Just(Forgery::None),
        1 => Just(Forgery::OtherNonce),
        1 => Just(Forgery::EpochAfter),
        2 => (0..2_u64).prop_map(Forgery::SeenEpoch),
    ];
    let back = prop_oneof![6 => 0..3_usize, 2 => 0..20_usize];
    (back, forgery).prop_map(|(back, forgery)| Shown { back, forgery })
}

fn endings() -> impl Strategy<Value = Ending> {
    prop_oneof![
        3 => any::<bool>().prop_map(Ending::Done),
        7 => failures().prop_map(Ending::Failed),
        1 => failures().prop_map(Ending::FailedForGood),
        1 => failures().prop_map(Ending::NeedsPerson),
        1 => (0..40_000_u64).prop_map(Ending::Snoozed),
        1 => Just(Ending::Released),
        1 => Just(Ending::Undelivered),
        3 => Just(Ending::HandedOff),
    ]
}
