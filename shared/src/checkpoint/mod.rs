//! Checkpoints: how far a task's work came, so that its next attempt goes on from there.
//!
//! Work is done in *steps*, which its handler names. A checkpoint says that one of them is done, or how far it came, with
//! what the rest needs of it: its *state*. What was saved of all steps is the task's [`Progress`]; it comes with the next
//! lease.
//!
//! Who may save is for the store to say: it compares the lease in the step that writes. Here is what may be saved: numbers
//! that only rise, so that a request which was held up on its way undoes nothing, and so much and no more.

mod document;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

pub use self::document::ProgressDocument;
use crate::blob::{BlobId, BlobRef, Content};
use crate::id::Name;

/// Most steps of one task, and most that it may say are still to come.
pub const STEPS_MAX: usize = 256;
/// Most bytes of states that lie in the store for one task, all steps together: they come with every lease.
pub const STATES_MAX_BYTES: usize = 256 * 1024;

/// What was saved of one step.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Step {
    /// Its name.
    pub step: Name,
    /// The checkpoint that said so.
    pub seq: u64,
    /// Whether it is done; otherwise this is how far it came.
    pub completed: bool,
    /// When it was saved, in ms since the Unix epoch, by the store's clock.
    pub saved_at_ms: i64,
    /// What was saved, byte for byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub state: Option<Box<RawValue>>,
    /// Where it is, if it is a blob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_ref: Option<BlobRef>,
}

/// How far a task came: all that its attempts saved.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// The last checkpoint; 0: there was none.
    pub seq: u64,
    /// Its steps, in the order in which they were first saved.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// The steps to come, as the handler said.
    #[serde(default)]
    pub pending: Vec<Name>,
}

/// A checkpoint to save.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// Its number: higher than all before it. Gaps do no harm.
    pub seq: u64,
    /// The step.
    pub step: Name,
    /// Whether it is done.
    pub completed: bool,
    /// What the rest needs of it.
    pub state: Option<Content>,
    /// The steps to come; those before stand where nothing is said.
    pub pending: Option<Vec<Name>>,
}

/// What became of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saved {
    /// It is saved.
    Now,
    /// This very checkpoint was saved before.
    Before,
}

/// Why a checkpoint was not saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Its number is not above the last one's.
    #[error("the checkpoint's seq must be higher than the last one's, which is {last}")]
    Behind {
        /// The last one's number.
        last: u64,
    },
    /// As many steps as there may be.
    #[error("a task may have up to {STEPS_MAX} steps; save what belongs together as one")]
    TooManySteps,
    /// States too large for the store.
    #[error(
        "with this one, the states of its steps would have {bytes} bytes, and up to {STATES_MAX_BYTES} lie in the store: \
         upload it as a blob and refer to it by `state_ref`"
    )]
    TooLarge {
        /// So many it would be.
        bytes: usize,
    },
}

impl Progress {
    /// Whether nothing was saved.
    pub fn is_empty(&self) -> bool {
        self.seq == 0
    }

    /// What was saved of a step.
    pub fn step(&self, name: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.step.as_str() == name)
    }

    /// What was saved of a step that is done.
    pub fn completed(&self, name: &str) -> Option<&Step> {
        self.step(name).filter(|step| step.completed)
    }

    /// When the last checkpoint was saved, in ms since the Unix epoch.
    pub fn saved_at_ms(&self) -> Option<i64> {
        self.steps.iter().max_by_key(|step| step.seq).map(|step| step.saved_at_ms)
    }

    /// The blobs that it refers to.
    pub fn blobs(&self) -> impl Iterator<Item = BlobId> {
        self.steps.iter().filter_map(|step| Some(step.state_ref.as_ref()?.blob))
    }

    /// Saves a checkpoint. The same again changes nothing: an answer that was lost can be asked for once more.
    ///
    /// # Errors
    /// [`Refused`], and nothing is changed.
    pub fn save(&mut self, checkpoint: Checkpoint, now_ms: i64) -> Result<Saved, Refused> {
        let Checkpoint { seq, step, completed, state, pending } = &checkpoint;
        if *seq <= self.seq {
            let before = self.steps.iter().find(|saved| saved.seq == *seq);
            let same = before.is_some_and(|saved| {
                (&saved.step, &saved.completed) == (step, completed) && saved.has(state.as_ref())
            });
            return if same { Ok(Saved::Before) } else { Err(Refused::Behind { last: self.seq }) };
        }
        if self.step(step).is_none() && self.steps.len() >= STEPS_MAX
            || pending.as_ref().is_some_and(|pending| pending.len() > STEPS_MAX)
        {
            return Err(Refused::TooManySteps);
        }
        let bytes = self.inline_bytes_with(step, state.as_ref().map_or(0, Content::inline_bytes));
        if bytes > STATES_MAX_BYTES {
            return Err(Refused::TooLarge { bytes });
        }
        self.put(checkpoint, now_ms);
        Ok(Saved::Now)
    }

    /// Takes note of a checkpoint that whoever keeps the task's has accepted: nothing is checked, and no bound holds.
    pub fn put(&mut self, checkpoint: Checkpoint, now_ms: i64) {
        let Checkpoint { seq, step, completed, state, pending } = checkpoint;
        let (state, state_ref) = state.map_or((None, None), Content::split);
        let saved = Step { step, seq, completed, saved_at_ms: now_ms, state, state_ref };
        self.seq = seq;
        if let Some(pending) = pending {
            self.pending = pending;
        }
        if completed {
            self.pending.retain(|pending| *pending != saved.step);
        }
        match self.steps.iter_mut().find(|before| before.step == saved.step) {
            Some(before) => *before = saved,
            None => self.steps.push(saved),
        }
    }

    /// Bytes of states that lie in the store, all steps together, if that step's has so many.
    pub fn inline_bytes_with(&self, step: &Name, bytes: usize) -> usize {
        let others = self.steps.iter().filter(|other| other.step != *step);
        others.map(Step::inline_bytes).sum::<usize>() + bytes
    }
}

impl Step {
    /// Bytes of its state that lie in the store.
    pub fn inline_bytes(&self) -> usize {
        self.state.as_ref().map_or(0, |state| state.get().len())
    }

    /// Whether that is its state. Where a state goes is a setting, which may have changed between a request and its repeat:
    /// so what is here is compared with what went there, too.
    fn has(&self, state: Option<&Content>) -> bool {
        match (state, &self.state, &self.state_ref) {
            (None, None, None) => true,
            (Some(Content::Inline(given)), Some(kept), _) => given.get() == kept.get(),
            (Some(Content::Inline(given)), None, Some(kept)) => kept.is_of(given.get()),
            (Some(Content::Blob(given)), Some(kept), _) => given.is_of(kept.get()),
            (Some(Content::Blob(given)), None, Some(kept)) => given.same_contents(kept),
            (Some(_), None, None) | (None, Some(_), _) | (None, _, Some(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests;
