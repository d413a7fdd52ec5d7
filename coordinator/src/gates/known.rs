//! A gate as the store has it, which a newer release may have written.

use std::fmt::Display;

use redrive_shared::gate::Gate;
use redrive_shared::stored::{self, LeftOut};

/// The object of a gate that an operator sets as a whole.
const SETTINGS: &str = "settings";

/// A gate, and those fields of its value that this release does not know: they are written back as they were.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub gate: Gate,
    pub later: Vec<LeftOut>,
}

impl Known {
    /// None: this release cannot read it. It then holds nothing back here, and is left as it is.
    pub fn read(dependency: &impl Display, value: &str) -> Option<Self> {
        let unreadable = |why: &dyn Display| {
            tracing::warn!(%dependency, %why, "the gate in the store cannot be read: a newer release wrote it, or it is damaged");
        };
        match stored::read(value) {
            Ok((gate, later)) => match later.iter().find(|field| !field.is_unknown) {
                // A field that it knows, with something in it that it does not: nobody can tell what the gate is then.
                Some(field) => {
                    unreadable(&format!("`{}` is of another kind", field.place()));
                    None
                }
                None => Some(Self { gate, later }),
            },
            Err(error) => {
                unreadable(&error);
                None
            }
        }
    }
}

/// The value of a gate with the fields that only a newer release knows.
pub(super) fn write(gate: &Gate, later: &[LeftOut]) -> serde_json::Result<String> {
    if later.is_empty() {
        return serde_json::to_string(gate);
    }
    let mut value = serde_json::to_value(gate)?;
    stored::put_back(&mut value, later);
    serde_json::to_string(&value)
}

/// What is left of those fields once an operator has set what this release knows: settings are set all at once.
pub(super) fn forget_settings(later: &mut Vec<LeftOut>) {
    later.retain(|field| field.path.first().is_none_or(|first| first != SETTINGS));
}
