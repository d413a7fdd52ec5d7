//! What gates are told, and what happens to one.

use std::collections::HashSet;
use std::sync::Arc;

use redrive_shared::cost::Cost;
use redrive_shared::gate::{Change, Command, Gate, Handed, Heard, Scope, Settings, Signal};
use redrive_shared::id::Name;

/// How calls of a batch ended, gathered by dependency and agent, and which leases are over.
#[derive(Debug, Default)]
pub struct Told {
    pub(super) heard: Vec<(Name, Heard)>,
    /// When they began, and how many.
    pub(super) ended: Vec<(Scope, i64, u32)>,
    pub(super) spent: Vec<Spending>,
    /// The queues of which it is counted how many tasks are out: of others no end is noted.
    counted: Arc<HashSet<Name>>,
}

/// What tasks of a group cost, and what its queue lets it spend within a day.
#[derive(Debug)]
pub(super) struct Spending {
    pub scope: Scope,
    pub cost: Cost,
    pub most: Cost,
}

impl Told {
    /// What is told while these queues are counted.
    pub(super) fn counting(counted: Arc<HashSet<Name>>) -> Self {
        Self { counted, ..Self::default() }
    }

    /// One call to the dependency ended.
    pub fn add(&mut self, dependency: &Name, signal: Signal, agent: Option<&Name>, started_ms: i64) {
        self.add_many(dependency, signal, 1, agent, started_ms);
    }

    /// So many calls to the dependency ended alike.
    pub fn add_many(
        &mut self,
        dependency: &Name,
        signal: Signal,
        count: u32,
        agent: Option<&Name>,
        started_ms: i64,
    ) {
        if count == 0 {
            return;
        }
        if let Some((last, heard)) = self.heard.last_mut()
            && last == dependency
            && heard.agent.as_ref() == agent
            && heard.signal == signal
            && heard.started_ms == started_ms
        {
            heard.count = heard.count.saturating_add(count);
            return;
        }
        self.heard.push((dependency.clone(), Heard { signal, count, agent: agent.cloned(), started_ms }));
    }

    /// A lease on a task of the queue is over, and of the dependency if it needed one, whatever is known of its call.
    pub fn end(&mut self, queue: &Name, dependency: Option<&Name>, started_ms: i64) {
        if let Some(dependency) = dependency {
            let scope = || Scope::Dependency(dependency.clone());
            self.end_of(|known| known.dependency() == Some(dependency), scope, started_ms);
        }
        if self.counted.contains(queue) {
            let scope = || Scope::Queue(queue.clone());
            self.end_of(|known| matches!(known, Scope::Queue(known) if known == queue), scope, started_ms);
        }
    }

    fn end_of(&mut self, is_it: impl Fn(&Scope) -> bool, scope: impl Fn() -> Scope, started_ms: i64) {
        // The last ones: a task that ended before had perhaps both.
        let last = self.ended.iter_mut().rev().take(2);
        match last.into_iter().find(|(known, known_ms, _)| *known_ms == started_ms && is_it(known)) {
            Some((_, _, count)) => *count += 1,
            None => self.ended.push((scope(), started_ms, 1)),
        }
    }

    /// A task of a group cost so much, where its queue bounds that.
    pub fn spend(&mut self, queue: &Name, group: &Name, cost: Cost, most: Cost) {
        let scope = Scope::Group { queue: queue.clone(), group: group.clone() };
        match self.spent.last_mut() {
            Some(last) if last.scope == scope => last.cost = last.cost.plus(cost),
            _ => self.spent.push(Spending { scope, cost, most }),
        }
    }

    /// Whether nothing was.
    pub fn is_empty(&self) -> bool {
        self.heard.is_empty() && self.ended.is_empty() && self.spent.is_empty()
    }
}

/// What happened to a gate.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Heard {
        heard: Heard,
        at_ms: i64,
        jitter: f64,
    },
    Calls {
        firsts: u32,
        retries: u32,
        /// When the first of them was handed out.
        at_ms: i64,
    },
    /// First calls that agents made themselves.
    Reported {
        firsts: u32,
        at_ms: i64,
    },
    Command(Command, i64),
    Set(Settings),
    Take(u32),
    GiveBack(u32),
    /// Leases began.
    Begin {
        count: u32,
        started_ms: i64,
        until_ms: i64,
        at_ms: i64,
    },
    /// Leases are over.
    End {
        count: u32,
        started_ms: i64,
        at_ms: i64,
    },
    /// What was leased uses tokens.
    Hand(Handed, i64),
    /// Tasks of a group cost so much.
    Spent {
        cost: Cost,
        at_ms: i64,
    },
    /// What was taken is worth nothing.
    Waste(u32),
    /// Nothing that is out stops to count before then.
    Spare(i64),
}

impl Event {
    /// Whether more may pass after it, though the state is the same.
    pub const fn makes_room(&self) -> bool {
        matches!(
            self,
            Self::End { .. } | Self::GiveBack(_) | Self::Waste(_) | Self::Set(_) | Self::Command(..)
        )
    }

    /// Whether others must know it soon, where it is limited how many are out or what they use.
    pub const fn is_of_limit(&self) -> bool {
        matches!(
            self,
            Self::Begin { .. }
                | Self::End { .. }
                | Self::GiveBack(_)
                | Self::Hand(..)
                | Self::Waste(_)
                | Self::Spare(_)
        )
    }
}

/// What an event does to a gate, which is to be advanced to now before. What was heard before the clock was set back counts as
/// heard now.
pub(super) fn apply(gate: &mut Gate, event: &Event, now_ms: i64) -> Option<Change> {
    let at = |at_ms: &i64| now_ms.min(*at_ms);
    let change = match event {
        Event::Heard { heard, at_ms, jitter } => gate.hear(heard, at(at_ms), *jitter),
        Event::Calls { firsts, retries, at_ms } => {
            gate.count_calls(*firsts, *retries, at(at_ms));
            None
        }
        Event::Reported { firsts, at_ms } => {
            gate.count_reported(*firsts, at(at_ms));
            None
        }
        Event::Command(command, at_ms) => gate.command(*command, at(at_ms)),
        Event::Set(settings) => {
            gate.set(settings.clone());
            None
        }
        Event::GiveBack(unused) => {
            gate.give_back(*unused);
            None
        }
        Event::Begin { count, started_ms, until_ms, at_ms } => {
            gate.begin(*count, *started_ms, *until_ms, at(at_ms));
            None
        }
        Event::End { count, started_ms, at_ms } => {
            gate.end(*count, *started_ms, at(at_ms));
            None
        }
        Event::Hand(handed, at_ms) => {
            gate.hand(*handed, at(at_ms));
            None
        }
        Event::Spent { cost, at_ms } => {
            gate.spend(*cost, *at_ms);
            None
        }
        Event::Waste(unused) => {
            gate.waste(*unused);
            None
        }
        Event::Spare(until_ms) => {
            gate.spare(*until_ms);
            None
        }
        // Nothing is taken before that is written.
        Event::Take(_) => None,
    };
    change.or_else(|| gate.advance(now_ms))
}

/// When a lease began, by its epoch: that is a time in µs.
pub fn began_ms(epoch: i64) -> i64 {
    epoch.div_euclid(1_000)
}
