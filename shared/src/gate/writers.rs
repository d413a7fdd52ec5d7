//! Who wrote a gate lately: a write whose answer was lost is found again under what others have written on top of it, so that
//! what it counted is not counted twice.

use serde::{Deserialize, Serialize};

use super::Gate;

/// Most writers that are kept, those that wrote last: more coordinators than that are not waited for.
const KEPT: usize = 16;

/// Which writers wrote, and as which of their writes last. Whoever wrote last is at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Writers(Vec<(u64, u64)>);

impl Writers {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Gate {
    /// Notes who is about to write it, and as which of its writes: numbers of one writer rise.
    pub fn sign(&mut self, writer: u64, number: u64) {
        let Writers(writers) = &mut self.writers;
        writers.retain(|(other, _)| *other != writer);
        if writers.len() >= KEPT {
            writers.remove(0);
        }
        writers.push((writer, number));
    }

    /// Whether that write is in it. A writer that is not among the last ones is not known any more.
    pub fn has_write(&self, writer: u64, number: u64) -> bool {
        self.writers.0.iter().any(|(other, last)| *other == writer && *last >= number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_write_of_each_of_the_last_writers_is_known() {
        let mut gate = Gate::default();
        gate.sign(1, 5);
        for writer in 2..=KEPT as u64 {
            gate.sign(writer, 1);
        }
        assert!(gate.has_write(1, 5) && gate.has_write(1, 4) && !gate.has_write(1, 6));
        gate.sign(1, 6);
        gate.sign(99, 1);
        assert!(gate.has_write(1, 6) && gate.has_write(99, 1));
        assert!(!gate.has_write(2, 1), "it wrote longest ago");
        assert_eq!(gate.writers.0.len(), KEPT);
    }
}
