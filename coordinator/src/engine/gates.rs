//! Gates: what operators see of them and do to them, and what the engine tells them.

use std::collections::HashMap;

use redrive_shared::cost::Cost;
use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::gate::{Command, Scope, Settings, SettingsError, Signal};
use redrive_shared::id::TaskId;
use redrive_shared::limits::GATE_SHUT_MAX_MS;
use redrive_shared::wire::{GateAction, GateRequest, GateView, GatesReply};

use super::{Engine, Result};
use crate::gates::{Order, Told, began_ms};
use crate::metrics::{record_gates, record_queue_gates};
use crate::store::{Acted, Ending, Reaped, Settled};

impl Engine {
    /// Every gate.
    pub fn gates(&self) -> GatesReply {
        let mut reply = GatesReply { gates: Vec::new(), queues: Vec::new(), groups: Vec::new() };
        for view in self.gates.views() {
            match (&view.queue, &view.group) {
                (None, _) => reply.gates.push(view),
                (Some(_), None) => reply.queues.push(view),
                (Some(_), Some(_)) => reply.groups.push(view),
            }
        }
        reply
    }

    /// Shows the gates as metrics.
    pub(crate) fn record_gates(&self) {
        let GatesReply { gates, queues, groups: _ } = self.gates();
        record_gates(&self.labels, &gates);
        record_queue_gates(&self.queue_labels, &queues);
    }

    /// Leases ended by time.
    pub(crate) fn tell_gates_of_reaped(&self, reaped: &[Reaped]) {
        let mut told = self.gates.told();
        for task in reaped {
            if let Some(dependency) = &task.dependency {
                told.add(dependency, Signal::NotMade, task.agent.as_ref(), began_ms(task.epoch));
            }
            told.end(&task.queue, task.dependency.as_ref(), began_ms(task.epoch));
        }
        self.gates.hear(told);
    }

    /// Leases ended since their tasks were called off. Of which queues and dependencies, these tasks say themselves: few are
    /// called off while they are leased.
    pub(super) async fn tell_gates_of_cancelled(&self, ids: &[TaskId], outcomes: &[Acted]) {
        let began: HashMap<&TaskId, i64> = ids
            .iter()
            .zip(outcomes)
            .filter_map(|(id, outcome)| match outcome {
                Acted::Now { ended: Some(epoch), .. } => Some((id, began_ms(*epoch))),
                _ => None,
            })
            .collect();
        if began.is_empty() {
            return;
        }
        match self.store.status(began.keys().copied().cloned().collect()).await {
            Ok(tasks) => {
                let mut told = self.gates.told();
                for task in tasks {
                    let Some(began_ms) = began.get(&task.id) else { continue };
                    if let Some(dependency) = &task.dependency {
                        told.add(dependency, Signal::NotMade, None, *began_ms);
                    }
                    told.end(&task.queue, task.dependency.as_ref(), *began_ms);
                }
                self.gates.hear(told);
            }
            Err(error) => {
                tracing::warn!(%error, "gates count tasks that were called off until their time is over")
            }
        }
    }

    /// What a task of a group cost, where its queue bounds that.
    pub(super) fn tell_gates_of_cost(&self, told: &mut Told, cost: Cost, settled: &Settled) {
        let Settled::Applied { queue, group: Some(group), .. } = settled else { return };
        if cost.is_zero() {
            return;
        }
        if let Some(most) = self.gates.max_group_cost(queue) {
            told.spend(queue, group, cost, most);
        }
    }

    /// Changes a gate; returns it as it is then.
    pub async fn change_gate(&self, request: GateRequest) -> Result<GateView> {
        let scope = scope(&request)?;
        if let Scope::Queue(_) = &scope {
            check_queue(&request)?;
        }
        let order = order(&request)?;
        // Never made by this: limits of a queue whose name is mistyped would hold for nothing.
        if let Some(queue) = scope.queue()
            && !self.is_queue(queue).await?
        {
            return Err(self.unknown_queue(queue));
        }
        self.gates.command(&scope, order).await?;
        Ok(self.gates.view(&scope))
    }
}

/// What is ordered, checked.
fn order(request: &GateRequest) -> Result<Order> {
    let invalid = |place: &str, detail: String| Problem::new(ErrorCode::InvalidValue, detail).at(place);
    let only_with = |place: &str, action: &str| {
        Err(invalid(place, format!("`{place}` goes with the action `{action}`; leave it out")))
    };
    if request.for_ms.is_some() && request.action != GateAction::Shut {
        return only_with("for_ms", "shut");
    }
    if request.settings.is_some() && request.action != GateAction::Set {
        return only_with("settings", "set");
    }
    Ok(match (request.action, request.for_ms, &request.settings) {
        (GateAction::Open, ..) => Order::Command(Command::Open),
        (GateAction::Isolate, ..) => Order::Command(Command::Isolate),
        (GateAction::Reset, ..) => Order::Command(Command::Reset),
        (GateAction::Shut, Some(for_ms), _) if (1..=GATE_SHUT_MAX_MS).contains(&for_ms) => {
            Order::Command(Command::Shut(for_ms))
        }
        (GateAction::Shut, for_ms, _) => {
            let found = for_ms.map_or("missing".to_owned(), |for_ms| format!("{for_ms} ms"));
            let detail = format!(
                "`for_ms` is {found}; it must be from 1 to {GATE_SHUT_MAX_MS} ms: isolate the dependency to keep it shut \
                 until you open it"
            );
            return Err(invalid("for_ms", detail));
        }
        (GateAction::Set, _, Some(settings)) => {
            let refused =
                |error: SettingsError| invalid(&format!("settings.{}", error.field), error.to_string());
            settings.validate().map_err(refused)?;
            Order::Set(settings.clone())
        }
        (GateAction::Set, _, None) => {
            return Err(invalid("settings", "`settings` is missing; send {} for no limits".to_owned()));
        }
    })
}

/// Whose gate.
fn scope(request: &GateRequest) -> Result<Scope> {
    let invalid = |place: &str, detail: &str| Err(Problem::new(ErrorCode::InvalidValue, detail).at(place));
    match (&request.dependency, &request.queue, &request.group) {
        (Some(dependency), None, None) => Ok(Scope::Dependency(dependency.clone())),
        (None, Some(queue), Some(group)) => match request.action {
            GateAction::Open | GateAction::Reset => {
                Ok(Scope::Group { queue: queue.clone(), group: group.clone() })
            }
            GateAction::Shut | GateAction::Isolate | GateAction::Set => invalid(
                "action",
                "the gate of a group bounds what it costs, as its queue's policy says: `open` lifts that until midnight \
                 (UTC), `reset` forgets what was spent today",
            ),
        },
        (None, Some(queue), None) => Ok(Scope::Queue(queue.clone())),
        (Some(_), ..) => invalid(
            "dependency",
            "a gate is of a `dependency` or of a `queue` or its `group`; leave one of them out",
        ),
        (None, None, None) => {
            invalid("dependency", "`dependency` is missing; name one, or a `queue` in its place")
        }
        (None, None, Some(_)) => invalid("queue", "`queue` is missing; a `group` is one of a queue"),
    }
}

/// A queue's gate has limits and nothing else: it hears of no outcomes, and a person stops it by pausing the queue.
fn check_queue(request: &GateRequest) -> Result<()> {
    let invalid = |place: &str, detail: &str| Err(Problem::new(ErrorCode::InvalidValue, detail).at(place));
    match (request.action, &request.settings) {
        (GateAction::Set, Some(Settings { budget: Some(_), .. })) => {
            let detail =
                "a queue has no retry budget, only limits; set it on the dependencies that its tasks need";
            invalid("settings.budget", detail)
        }
        (GateAction::Set, Some(_)) => Ok(()),
        (GateAction::Set, None) => Ok(()),
        (GateAction::Open | GateAction::Shut | GateAction::Isolate | GateAction::Reset, _) => {
            let detail = "the gate of a queue has limits only, so its action is `set`; pause and resume the queue to stop it";
            invalid("action", detail)
        }
    }
}

/// What an ending tells the gate of its task's dependency.
pub(super) fn signal(ending: &Ending) -> Option<Signal> {
    match ending {
        Ending::Done(_) => Some(Signal::Success),
        Ending::Failed(failure) | Ending::FailedForGood(failure) | Ending::NeedsPerson(failure) => {
            Some(Signal::of(failure.class, failure.retry_after_ms))
        }
        Ending::Snoozed { .. } | Ending::Released | Ending::Undelivered => Some(Signal::NotMade),
        // Nobody knows yet.
        Ending::HandedOff => None,
    }
}

/// Adds a settlement to what gates are told.
pub(super) fn tell(told: &mut Told, signal: Option<Signal>, epoch: i64, settled: &Settled) {
    let Settled::Applied { queue, dependency, agent, .. } = settled else { return };
    if let (Some(dependency), Some(signal)) = (dependency, signal) {
        told.add(dependency, signal, agent.as_ref(), began_ms(epoch));
    }
    // Where nobody is known, the lease was over before, by being handed off.
    if agent.is_some() {
        told.end(queue, dependency.as_ref(), began_ms(epoch));
    }
}
