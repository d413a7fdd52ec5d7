//! Steps: what is done is saved, and not done again.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redrive_shared::blob::Content;
use redrive_shared::checkpoint::{Checkpoint, Progress, STATES_MAX_BYTES, Step};
use redrive_shared::clock::{Clock as _, SystemClock};
use redrive_shared::error::ErrorCode;
use redrive_shared::id::Name;
use redrive_shared::wire::CheckpointRequest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::{ContextError, TaskContext};
use crate::telemetry;

/// What is smaller is not worth a call of its own where the store may have room for it. With as many steps as a task may have,
/// that is 4 MiB that an attempt remembers beyond [`STATES_MAX_BYTES`].
const SMALL_STATE_BYTES: usize = 16 * 1024;

/// What this attempt knows of its task's steps.
#[derive(Debug)]
pub(super) struct Steps {
    /// The last checkpoint of earlier attempts.
    before: u64,
    known: Mutex<Known>,
    /// The number of the last checkpoint that was sent. Held while one is: they go out one after the other.
    last: tokio::sync::Mutex<u64>,
}

#[derive(Debug)]
struct Known {
    /// What is saved.
    saved: Progress,
    /// The steps to come, where they were said and have not been saved yet.
    plan: Option<Vec<Name>>,
    /// Steps of earlier attempts that were asked for.
    skipped: BTreeSet<Name>,
}

/// What a checkpoint says.
#[derive(Debug, Clone)]
pub(crate) struct NewCheckpoint {
    pub(crate) step: Name,
    pub(crate) completed: bool,
    pub(crate) state: Option<Box<RawValue>>,
    /// The steps to come; those of [`TaskContext::plan`], if it says nothing of them.
    pub(crate) pending: Option<Vec<Name>>,
}

impl Steps {
    pub(super) fn new(saved: Progress) -> Self {
        let (before, last) = (saved.seq, tokio::sync::Mutex::new(saved.seq));
        Self { before, known: Mutex::new(Known { saved, plan: None, skipped: BTreeSet::new() }), last }
    }

    /// A poisoned lock only says that some thread panicked; every change here is complete or not begun.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TaskContext {
    /// The state of a step that is done, by this attempt or an earlier one. `None`: it is not done.
    ///
    /// # Errors
    /// What was saved is no such `T`; or its blob cannot be had as long as the lease lasts.
    pub async fn completed<T: DeserializeOwned>(&self, step: &str) -> Result<Option<T>, ContextError> {
        self.read(step, true).await
    }

    /// Says that a step is done, and what the rest needs of it. It is durable on return, and comes with the next attempt.
    ///
    /// While the coordinator is away it waits, for as long as the lease lasts.
    ///
    /// # Errors
    /// The lease is over (and the handler is told to stop), or the coordinator refuses it: nothing was saved.
    pub async fn checkpoint(&self, step: &str, state: &impl Serialize) -> Result<(), ContextError> {
        self.write(step, true, state).await
    }

    /// Says how far a step came that is not done. As [`TaskContext::checkpoint`].
    ///
    /// # Errors
    /// As [`TaskContext::checkpoint`].
    pub async fn progress(&self, step: &str, state: &impl Serialize) -> Result<(), ContextError> {
        self.write(step, false, state).await
    }

    /// How far a step came, as [`TaskContext::progress`] or [`TaskContext::checkpoint`] said last. `None`: nothing was said.
    ///
    /// # Errors
    /// As [`TaskContext::completed`].
    pub async fn reached<T: DeserializeOwned>(&self, step: &str) -> Result<Option<T>, ContextError> {
        self.read(step, false).await
    }

    /// Says which steps are still to come, for people who look at the task. It goes with the next checkpoint.
    ///
    /// # Errors
    /// One of them is no name.
    pub fn plan(&self, steps: &[&str]) -> Result<(), ContextError> {
        let plan = steps.iter().map(|step| name(step)).collect::<Result<_, _>>()?;
        self.inner.steps.known().plan = Some(plan);
        Ok(())
    }

    /// Does a step unless it is done: gives back what it returned, now or in an earlier attempt. What it returns is durable
    /// before anything after it runs.
    ///
    /// It is done once more where a worker vanished between its effect and its checkpoint: give whoever has the effect
    /// [`TaskContext::side_effect_key`].
    ///
    /// # Errors
    /// The step's own, of which nothing is saved; those of [`TaskContext::completed`] and [`TaskContext::checkpoint`].
    pub async fn step<T, E, F>(&self, step: &str, work: impl FnOnce() -> F) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
        E: From<ContextError>,
        F: Future<Output = Result<T, E>>,
    {
        if let Some(done) = self.completed(step).await? {
            return Ok(done);
        }
        let state = work().await?;
        self.checkpoint(step, &state).await?;
        Ok(state)
    }

    /// The key under which a step's effect happens once, whatever the attempt: `TASK:STEP`.
    pub fn side_effect_key(&self, step: &str) -> String {
        format!("{}:{step}", self.inner.task)
    }

    /// What is saved of all steps.
    pub(crate) fn saved(&self) -> Progress {
        self.inner.steps.known().saved.clone()
    }

    /// The state of a step that was found.
    pub(crate) async fn state_of(&self, found: Step) -> Result<Box<RawValue>, ContextError> {
        let Step { step, seq, completed, state, state_ref, .. } = found;
        if completed
            && seq <= self.inner.steps.before
            && self.inner.steps.known().skipped.insert(step.clone())
        {
            telemetry::step_skipped();
        }
        match (state, state_ref) {
            (Some(json), _) => Ok(json),
            (None, Some(blob)) => self.fetch(&format!("the state of {step:?}"), &blob).await,
            (None, None) => Ok(RawValue::NULL.to_owned()),
        }
    }

    /// What is saved of a step. `None`: it is not done, or (without `completed`) nothing was saved of it.
    pub(crate) fn find(&self, step: &str, completed: bool) -> Option<Step> {
        let known = self.inner.steps.known();
        known.saved.step(step).filter(|found| found.completed || !completed).cloned()
    }

    /// Saves a checkpoint, and answers with its number.
    pub(crate) async fn save(&self, new: NewCheckpoint) -> Result<u64, ContextError> {
        let mut last = self.inner.steps.last.lock().await;
        self.check_still_ours()?;
        // Counted before it is sent: one whose call was dropped may still arrive, and must not be taken for the next.
        *last += 1;
        let plan = self.inner.steps.known().plan.clone();
        let NewCheckpoint { step, completed, state, pending } = new;
        let pending = pending.or_else(|| plan.clone());
        let (state, state_ref) = match state {
            Some(json) if self.is_blob(&step, json.get().len()) => {
                (None, Some(self.keep(&format!("the state of {:?}", &*step), json).await?))
            }
            state => (state, None),
        };
        let (epoch, nonce) = (self.inner.epoch, self.inner.nonce);
        let mut request =
            CheckpointRequest { epoch, nonce, seq: *last, step, completed, state, state_ref, pending };
        self.send(&mut request).await?;
        telemetry::checkpoint_saved(completed);
        let mut known = self.inner.steps.known();
        if known.plan == plan {
            known.plan = None;
        }
        let CheckpointRequest { seq, step, state, state_ref, pending, .. } = request;
        let content = Content::of(state, state_ref);
        let saved = Checkpoint { seq, step, completed, state: content, pending };
        // Nothing here depends on when it was saved.
        known.saved.put(saved, SystemClock.now_ms());
        Ok(seq)
    }

    /// Whether a state is to be a blob: there is no room for it beside those of the other steps. There may be room for it in the
    /// store all the same, which makes blobs of some that are remembered here as they are; for a small one it is asked.
    fn is_blob(&self, step: &Name, bytes: usize) -> bool {
        bytes >= SMALL_STATE_BYTES
            && self.inner.steps.known().saved.inline_bytes_with(step, bytes) > STATES_MAX_BYTES
    }

    /// Sends it until it is answered. Where the store has no room for its state beside those of other steps, it becomes a blob.
    async fn send(&self, request: &mut CheckpointRequest) -> Result<(), ContextError> {
        let link = &self.inner.surroundings.link;
        let refused =
            match self.patiently("checkpoint", || link.save_checkpoint(&self.inner.task, request)).await {
                Ok(_) => return Ok(()),
                Err(ContextError::Refused(problem)) if problem.code == ErrorCode::PayloadTooLarge => problem,
                Err(error) => return Err(error),
            };
        let Some(state) = request.state.take() else { return Err(ContextError::Refused(refused)) };
        request.state_ref = Some(self.keep(&format!("the state of {:?}", &*request.step), state).await?);
        self.patiently("checkpoint", || link.save_checkpoint(&self.inner.task, request)).await.map(drop)
    }

    async fn read<T: DeserializeOwned>(
        &self,
        step: &str,
        completed: bool,
    ) -> Result<Option<T>, ContextError> {
        let Some(found) = self.find(step, completed) else { return Ok(None) };
        let json = self.state_of(found).await?;
        let unreadable = |error: serde_json::Error| ContextError::Unreadable {
            what: format!("the state of {step:?}"),
            why: error.to_string(),
        };
        serde_json::from_str(json.get()).map(Some).map_err(unreadable)
    }

    async fn write(&self, step: &str, completed: bool, state: &impl Serialize) -> Result<(), ContextError> {
        let step = name(step)?;
        let state = serde_json::value::to_raw_value(state);
        let invalid = |error| ContextError::Invalid(format!("the state of {:?} is no JSON: {error}", &*step));
        let state = Some(state.map_err(invalid)?);
        self.save(NewCheckpoint { step, completed, state, pending: None }).await.map(drop)
    }
}

fn name(step: &str) -> Result<Name, ContextError> {
    Name::new(step)
        .map_err(|error| ContextError::Invalid(format!("a step cannot be called {step:?}: it {error}")))
}
