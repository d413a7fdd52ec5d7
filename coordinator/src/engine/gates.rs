//! Gates: what operators see of them and do to them, and what the engine tells them.

use std::collections::HashMap;

use redrive_shared::cost::Cost;
use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::gate::{Command, Scope, SettingsError, Signal};
use redrive_shared::id::TaskId;
use redrive_shared::limits::GATE_SHUT_MAX_MS;
use redrive_shared::wire::{GateAction, GateRequest, GateView, GatesReply};

use super::{Engine, Result};
use crate::gates::{Order, Told, began_ms};
use crate::metrics::record_gates;
use crate::store::{Acted, Ending, Reaped, Settled};

impl Engine {
    /// Every gate.
    pub fn gates(&self) -> GatesReply {
        let (gates, groups) = self.gates.views().into_iter().partition(|view| view.group.is_none());
        GatesReply { gates, groups }
    }

    /// Shows the gates as metrics.
    pub(crate) fn record_gates(&self) {
        record_gates(&self.labels, &self.gates.views());
    }

    /// Leases ended by time.
    pub(crate) fn tell_gates_of_reaped(&self, reaped: &[Reaped]) {
        let mut told = Told::default();
        for task in reaped {
            if let Some(dependency) = &task.dependency {
                told.add(dependency, Signal::NotMade, task.agent.as_ref(), began_ms(task.epoch));
                told.end(dependency, began_ms(task.epoch));
            }
        }
        self.gates.hear(told);
    }

    /// Leases ended since their tasks were called off. Of which dependencies, these tasks say themselves: few are called off
    /// while they are leased.
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
                let mut told = Told::default();
                for task in tasks {
                    if let (Some(dependency), Some(began_ms)) = (&task.dependency, began.get(&task.id)) {
                        told.add(dependency, Signal::NotMade, None, *began_ms);
                        told.end(dependency, *began_ms);
                    }
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
        let (scope, order) = (scope(&request)?, order(&request)?);
        self.require_queues(scope.queue().into_iter()).await?;
        self.gates.command(&scope, order).await?;
        Ok(self.gates.view(&scope))
    }
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
        (Some(_), ..) => invalid(
            "dependency",
            "a gate is of a `dependency`, or of a `group` of a `queue`; leave one of them out",
        ),
        (None, ..) => invalid(
            "dependency",
            "`dependency` is missing; name one, or a `queue` and its `group` in its place",
        ),
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

/// Adds a settlement to what the gates are told.
pub(super) fn tell(told: &mut Told, signal: Option<Signal>, epoch: i64, settled: &Settled) {
    let Settled::Applied { dependency: Some(dependency), agent, .. } = settled else { return };
    if let Some(signal) = signal {
        told.add(dependency, signal, agent.as_ref(), began_ms(epoch));
    }
    // Where nobody is known, the lease was over before, by being handed off.
    if agent.is_some() {
        told.end(dependency, began_ms(epoch));
    }
}
