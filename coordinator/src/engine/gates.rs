//! Gates: what operators see of them and do to them, and what the engine tells them.

use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::gate::{Command, Signal};
use redrive_shared::limits::GATE_SHUT_MAX_MS;
use redrive_shared::wire::{GateAction, GateRequest, GateView, GatesReply};

use super::{Engine, Result};
use crate::gates::{Order, Told};
use crate::metrics::record_gates;
use crate::store::{Ending, Settled};

impl Engine {
    /// Every gate.
    pub fn gates(&self) -> GatesReply {
        GatesReply { gates: self.gates.views() }
    }

    /// Shows the gates as metrics.
    pub(crate) fn record_gates(&self) {
        record_gates(&self.labels, &self.gates.views());
    }

    /// Changes a gate; returns it as it is then.
    pub async fn change_gate(&self, request: GateRequest) -> Result<GateView> {
        let order = match request.does {
            GateAction::Open {} => Order::Command(Command::Open),
            GateAction::Shut { for_ms } if !(1..=GATE_SHUT_MAX_MS).contains(&for_ms) => {
                let detail = format!(
                    "`for_ms` is {for_ms} ms; it must be from 1 to {GATE_SHUT_MAX_MS} ms: isolate the dependency to keep it \
                     shut until you open it"
                );
                return Err(Problem::new(ErrorCode::InvalidValue, detail).at("do.for_ms"));
            }
            GateAction::Shut { for_ms } => Order::Command(Command::Shut(for_ms)),
            GateAction::Isolate {} => Order::Command(Command::Isolate),
            GateAction::Reset {} => Order::Command(Command::Reset),
            GateAction::Set { settings } => {
                settings.validate().map_err(|error| {
                    let place = format!("do.settings.{}", error.field);
                    Problem::new(ErrorCode::InvalidValue, error.to_string()).at(place)
                })?;
                Order::Set(settings)
            }
        };
        self.gates.command(&request.dependency, order).await?;
        Ok(self.gates.view(&request.dependency))
    }
}

/// What an ending tells the gate of its task's dependency.
pub(super) fn signal(ending: &Ending) -> Option<Signal> {
    match ending {
        Ending::Done(_) => Some(Signal::Success),
        Ending::Failed(failure) | Ending::FailedForGood(failure) | Ending::NeedsPerson(failure) => {
            Some(Signal::of(failure.class, failure.retry_after_ms))
        }
        Ending::Snoozed { .. } | Ending::Released => Some(Signal::NotMade),
        // Nobody knows yet.
        Ending::HandedOff => None,
    }
}

/// Adds a settlement to what the gates are told. A lease's epoch is the time at which it was given, in µs.
pub(super) fn tell(told: &mut Told, signal: Option<Signal>, epoch: i64, settled: &Settled) {
    if let (Some(signal), Settled::Applied { dependency: Some(dependency), agent, .. }) = (signal, settled) {
        told.add(dependency, signal, agent.as_ref(), epoch.div_euclid(1_000));
    }
}
