//! The names of all keys, and nowhere else: this file, and the prelude of the scripts, which a test compares.
//!
//! Everything of one shard shares a hash tag, so that one script reaches it on Redis Cluster:
//!
//! | key | type | holds |
//! |---|---|---|
//! | `rd:{7}:t:<id>` | string | a task ([`super::value`]) |
//! | `rd:{7}:c:<id>` | string | how far its work came ([`super::checkpoints`]), if it ever saved something |
//! | `rd:{7}:l:<lane>` | zset | the tasks that wait in a lane, by due time in µs |
//! | `rd:{7}:L:<rank>\|<queue>` | zset | its lanes, by the moment of their next turn: the next due time, or the last visit |
//! | `rd:{7}:v` | hash | when each queue was last claimed from, in µs: a clock that went back shows in it |
//! | `rd:{7}:D` | zset | lanes, by a lower bound of their tasks' deadlines |
//! | `rd:{7}:S` | hash | how far the look for late tasks has come in a large lane |
//! | `rd:{7}:r` | zset | the tasks that are leased, by the epoch of their lease |
//! | `rd:{7}:G` | hash | grants by epoch: what one claim was given of leases that end together, who claimed, and whether another run took one over |
//! | `rd:{7}:E` | zset | grants, by a lower bound of when one of their leases ends |
//! | `rd:{7}:u` | hash | when leases end that were extended, and the runs that took them over |
//! | `rd:{7}:gate:<coordinator>` | string | lets values in that belong to a script which found that all is well |
//! | `rd:{7}:x` | zset | finished tasks, by when they are forgotten |
//! | `rd:{7}:log` | stream | every task, in order of arrival: an entry names up to 100, its id is the first one's ordinal |
//! | `rd:{7}:logged` | string | the entry up to which the log was swept of forgotten tasks |
//! | `rd:{7}:n` | hash | tasks by `queue\|state` |
//! | `rd:{7}:o`, `rd:{7}:e` | string | the last ordinal, the last epoch |
//! | `rd:{7}:p` | set | paused queues, as claims see them: a copy of those below |
//! | `rd:{7}:shown` | string | the change of the queues that the copy shows |
//! | `rd:{7}:q:<agent\|boot>\|<request>` | string | what a claim with a request id was given, for ten minutes |
//! | `rd:{7}:check` | string | whether it can be written, for a second |
//! | `rd:{7}:doctor:…` | any | what `redrive doctor` tries commands on, within one script |
//!
//! And what there is once, all under the tag `{*}`:
//!
//! | key | type | holds |
//! |---|---|---|
//! | `rd:{*}:meta` | hash | layout, number of shards and name of the store, fixed at first use |
//! | `rd:{*}:queues` | hash | policies by queue |
//! | `rd:{*}:versions` | hash | the last version of each policy that was ever changed |
//! | `rd:{*}:h:<queue>` | hash | the versions that are kept, by number: JSON, the policy in it as text |
//! | `rd:{*}:paused` | set | paused queues |
//! | `rd:{*}:changes` | string | the last change of policies and pauses: its time in µs, or a little later |
//! | `rd:{*}:gates` | hash | gates by the key of their scope: version, space, value; under `''` the last change of any of them, and how many there are |
//! | `rd:{*}:agents` | hash | the last heartbeat of each run |
//! | `rd:{*}:commands` | hash | the commands that stand for each agent's breakers |
//! | `rd:{*}:lost` | hash | what each agent lost lately with its workers |
//! | `rd:{*}:arrived` | zset | runs, by when their presence connection was opened last, in µs |
//! | `rd:{*}:seen`, `rd:{*}:gone` | zset | runs that are heard from, and those that are not, by when they last were |
//!
//! And the locks, all under the tag `{locks}`, since several are granted in one step:
//!
//! | key | type | holds |
//! |---|---|---|
//! | `rd:{locks}:mark` | string | the highest token or place in line so far |
//! | `rd:{locks}:holds`, `rd:{locks}:waits` | hash | locks by token, those that wait by place in line, as [`crate::store::locks`] writes them |
//! | `rd:{locks}:hold_ends`, `rd:{locks}:wait_ends` | zset | the same numbers, by when that is over, in µs |
//! | `rd:{locks}:granted` | hash | tokens by the place in line that they were granted to |
//! | `rd:{locks}:h:<resource>`, `rd:{locks}:hx:<resource>` | zset | who has it, and who has it alone |
//! | `rd:{locks}:w:<resource>`, `rd:{locks}:wx:<resource>` | zset | who waits for it, and who waits to have it alone |
//! | `rd:{locks}:o:<task or name>` | set | tokens and places in line of an owner |
//!
//! Names hold no `|`, so it separates them.

use redrive_shared::id::{Name, TaskId};
use redrive_shared::task::{Lane, TaskState};

use crate::store::format::{rank, state_number};

/// A run as it is named: `agent|boot`.
pub(super) fn run_name(agent: &str, boot_id: Option<&Name>) -> String {
    format!("{agent}|{}", boot_id.map_or("", |boot| boot))
}

/// The agent of a run's name.
pub(super) fn agent_of(run: &str) -> Option<Name> {
    Name::new(run.split('|').next()?).ok()
}

/// The boot id of a run's name, if it has one.
pub(super) fn boot_of(run: &str) -> Option<Name> {
    Name::new(run.split_once('|')?.1).ok()
}

/// A lane as it is named: `rank|queue|dependency|group`, and `|r` behind it where its tasks were tried before.
pub(super) fn lane_name(lane: &Lane) -> String {
    let rank = rank(lane.priority).to_string();
    let (dependency, group) = (lane.dependency.as_deref(), lane.group.as_deref());
    let parts = [&rank, lane.queue.as_str(), dependency.unwrap_or_default(), group.unwrap_or_default(), "r"];
    parts[..parts.len() - usize::from(!lane.retry)].join("|")
}

/// The counter of a queue's tasks in a state as it is named.
pub(super) fn counter_name(queue: &str, state: TaskState) -> String {
    [queue, &state_number(state).to_string()].join("|")
}

/// The keys of one shard's tasks: what they begin with is put together once for all of them.
pub(super) struct TaskKeys(String);

impl TaskKeys {
    /// The key of one.
    pub fn of(&self, id: &str) -> String {
        [self.0.as_str(), id].concat()
    }
}

/// The names of one namespace.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
    shards: u16,
}

impl Keys {
    pub fn new(prefix: &str, shards: u16) -> Self {
        Self { prefix: prefix.to_owned(), shards }
    }

    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// What every key of a shard begins with.
    pub fn shard(&self, shard: u16) -> String {
        format!("{}:{{{shard}}}:", self.prefix)
    }

    /// A key of a shard.
    pub fn of_shard(&self, shard: u16, name: &str) -> String {
        format!("{}:{{{shard}}}:{name}", self.prefix)
    }

    /// The keys of a shard's tasks.
    pub fn tasks(&self, shard: u16) -> TaskKeys {
        TaskKeys(self.of_shard(shard, "t:"))
    }

    /// The keys of what a shard's tasks saved.
    pub fn checkpoints(&self, shard: u16) -> TaskKeys {
        TaskKeys(self.of_shard(shard, "c:"))
    }

    /// A key that there is once.
    pub fn once(&self, name: &str) -> String {
        format!("{}:{{*}}:{name}", self.prefix)
    }

    /// A key of the locks.
    pub fn locks(&self, name: &str) -> String {
        format!("{}:{{locks}}:{name}", self.prefix)
    }

    /// The channel of hints.
    pub fn channel(&self) -> String {
        format!("{}:hints", self.prefix)
    }

    /// The shard of a task: FNV-1a of its id.
    pub fn shard_of(&self, id: &TaskId) -> u16 {
        let hash = id.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        u16::try_from(hash % u64::from(self.shards.max(1))).unwrap_or(0)
    }
}
