//! The scripts: one a transition over a batch, each behind the same prelude.

use super::link::Script;

macro_rules! script {
    ($(#[$doc:meta])* $name:ident, $file:literal) => {
        $(#[$doc])*
        pub(super) static $name: Script = Script::new(
            $file,
            concat!(include_str!("lua/prelude.lua"), include_str!(concat!("lua/", $file, ".lua"))),
        );
    };
}

script!(
    /// New tasks come onto their lanes.
    ENQUEUE, "enqueue"
);
script!(
    /// What is due is leased.
    CLAIM, "claim"
);
script!(
    /// Leases that nobody has heard of are given back.
    UNCLAIM, "unclaim"
);
script!(
    /// Leases are started or made longer.
    EXTEND, "extend"
);
script!(
    /// What the coordinator decided is written.
    TRANSITION, "transition"
);
script!(
    /// Tasks without their bodies.
    HEADS, "heads"
);
script!(
    /// How far tasks came, and what they refer to.
    SAVED, "saved"
);
script!(
    /// Checkpoints are saved.
    SAVE, "save"
);
script!(
    /// A task with everything.
    WHOLE, "whole"
);
script!(
    /// What time has ended.
    OVER, "over"
);
script!(
    /// The leases of a run end now.
    EXPIRE_RUN, "expire_run"
);
script!(
    /// What cannot be read is put off.
    ASIDE, "aside"
);
script!(
    /// What may be forgotten.
    EXPIRED, "expired"
);
script!(
    /// Entries of the log that tell of nobody any more.
    SWEEP_LOG, "sweep_log"
);
script!(
    /// Tasks as lists show them.
    VIEWS, "views"
);
script!(
    /// When queues are due.
    NEXT_DUE, "next_due"
);
script!(
    /// Queues are made and paused.
    QUEUES, "queues"
);
script!(
    /// Gates are changed.
    SWAP_GATES, "swap_gates"
);
script!(
    /// Locks are taken, waited for, renewed and given back.
    LOCKS, "locks"
);
script!(
    /// Policies are put in force.
    PUT_QUEUES, "put_queues"
);
script!(
    /// Claims of a shard learn which queues are paused.
    SHOW_PAUSES, "show_pauses"
);
script!(
    /// Can it be written?
    CHECK, "check"
);
script!(
    /// An agent was heard from.
    BEAT, "beat"
);
script!(
    /// What is kept of an agent beside its heartbeats is another now.
    REPLACE, "replace"
);
script!(
    /// An agent's presence connection was opened.
    ARRIVE, "arrive"
);
script!(
    /// Agents fell silent, or are forgotten.
    SILENCE, "silence"
);
script!(
    /// What the store's user may do is tried.
    DOCTOR, "doctor"
);
