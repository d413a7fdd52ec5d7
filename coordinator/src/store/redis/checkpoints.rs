//! How far tasks came, and the blobs that they refer to.
//!
//! What a task's attempts saved lies in a key of its own, which few tasks have:
//!
//! ```text
//!  0 number of the last checkpoint(8)  8 ordinal of the task(8)  16 the progress, as JSON
//! ```
//!
//! Whoever saves one decides by what was read, and the script that writes compares those first 16 bytes with it, beside the
//! lease. The ordinal is the task's own: what a task of the same id left counts for nothing. (A release that knows of no
//! checkpoints forgets tasks without what they saved.)

use std::collections::{HashMap, VecDeque};
use std::fmt::Display;
use std::sync::atomic::{AtomicUsize, Ordering};

use redis::{Value, cmd};
use redrive_shared::blob::BlobId;
use redrive_shared::checkpoint::{Progress, Saved};
use redrive_shared::id::TaskId;
use redrive_shared::lifecycle::Refused;

use super::Inner;
use super::aside::readable;
use super::batcher::{Item, parts};
use super::bytes::number;
use super::fetch::{VALUE_BYTES, learn_value_bytes, values_at_once};
use super::reach::Part;
use super::reply::{bytes, into_bytes, into_items, items, text};
use super::scripts::{SAVE, SAVED};
use super::transition::{TRIES, lane, read};
use super::value::Task;
use crate::store::format::{content_from, content_text, progress_from, progress_text, state_from};
use crate::store::{CheckpointSaved, Result, SaveCheckpoint, StoreError};

/// Bytes before the JSON.
const FIXED_BYTES: usize = 16;

/// How many bytes a task's checkpoints are taken to have: how many to read at once.
pub(super) struct Sizes(AtomicUsize);

impl Default for Sizes {
    fn default() -> Self {
        Self(AtomicUsize::new(VALUE_BYTES))
    }
}

impl Sizes {
    fn at_once(&self) -> usize {
        values_at_once(self.0.load(Ordering::Relaxed))
    }

    fn learn(&self, read_bytes: usize, count: usize) {
        let known = self.0.load(Ordering::Relaxed);
        self.0.store(learn_value_bytes(known, read_bytes, count), Ordering::Relaxed);
    }
}

/// Most tasks whose checkpoints are read ahead in one claim: 16 MiB at worst, whatever those before had.
const AHEAD_MAX: usize = 64;

/// What the tasks of a claim saved, read in their order and a few ahead: for those behind the first that finds no room, nothing is
/// read. Each claim begins with few, since what others saved tells nothing of it.
pub(super) struct Ahead {
    /// Those that are not read yet.
    pub asked: VecDeque<TaskId>,
    read: VecDeque<Vec<u8>>,
    /// How many bytes one is taken to have.
    known_bytes: usize,
}

impl Default for Ahead {
    fn default() -> Self {
        Self { asked: VecDeque::new(), read: VecDeque::new(), known_bytes: VALUE_BYTES }
    }
}

/// A task with what it saved.
struct Seen {
    task: Task,
    /// The blob that lies in the place of its payload or its result.
    blob: Option<BlobId>,
    /// What lies before the JSON; empty where nothing is kept.
    fixed: Vec<u8>,
    progress: Progress,
}

/// What is to be written of a task.
struct Write {
    id: TaskId,
    /// What lay before the JSON when that was decided.
    fixed: Vec<u8>,
    /// Empty: it was saved before.
    kept: Vec<u8>,
}

impl Item for SaveCheckpoint {
    fn id(&self) -> &TaskId {
        &self.id
    }

    fn bytes(&self) -> usize {
        let checkpoint = &self.checkpoint;
        let state = checkpoint.state.as_ref().map_or(0, |state| content_text(state).len());
        let pending = checkpoint.pending.iter().flatten().map(|step| step.len()).sum::<usize>();
        self.id.len() + checkpoint.step.len() + state + pending
    }
}

impl Item for Write {
    fn id(&self) -> &TaskId {
        &self.id
    }

    fn bytes(&self) -> usize {
        self.id.len() + self.kept.len()
    }
}

impl Inner {
    /// Saves checkpoints, each under its lease.
    pub async fn save_checkpoints(&self, batch: Vec<SaveCheckpoint>) -> Result<Vec<CheckpointSaved>> {
        self.submit(batch, |shard| &shard.save).await
    }

    /// Writes one batch of a shard.
    pub async fn write_checkpoints(
        &self,
        shard: u16,
        batch: Vec<SaveCheckpoint>,
    ) -> Result<Vec<CheckpointSaved>> {
        let mut answers = vec![CheckpointSaved::Unknown; batch.len()];
        let mut open: Vec<usize> = (0..batch.len()).collect();
        for _ in 0..TRIES {
            let mut anew = Vec::new();
            while !open.is_empty() {
                let rest = open.split_off(open.len().min(self.checkpoint_bytes.at_once()));
                anew.extend(self.try_to_save(shard, &batch, open, &mut answers).await?);
                open = rest;
            }
            if anew.is_empty() {
                return Ok(answers);
            }
            open = anew;
        }
        let id = open.first().map_or("", |place| batch[*place].id.as_str());
        Err(StoreError::Unavailable(format!("others saved checkpoints of task {id} {TRIES} times meanwhile")))
    }

    /// Saves what is open, by its place in the batch; returns what is to be decided anew.
    async fn try_to_save(
        &self,
        shard: u16,
        batch: &[SaveCheckpoint],
        open: Vec<usize>,
        answers: &mut [CheckpointSaved],
    ) -> Result<Vec<usize>> {
        let ids: Vec<&TaskId> = open.iter().map(|place| &batch[*place].id).collect();
        let (mut writes, mut anew) = (Vec::with_capacity(open.len()), Vec::new());
        for (place, seen) in open.into_iter().zip(self.seen(shard, &ids).await?) {
            let Some(seen) = seen else {
                answers[place] = CheckpointSaved::Unknown;
                continue;
            };
            let decided = seen.and_then(|seen| decide(seen, &batch[place], self.now_ms()));
            let (answer, write) = readable(decided)?.unwrap_or((CheckpointSaved::Unreadable, None));
            answers[place] = answer;
            writes.extend(write.map(|write| (place, write)));
        }
        for part in parts(writes) {
            let mut call = SAVE.on(self.keys.shard(shard));
            call.arg(self.time.argument());
            for (place, write) in &part {
                let fence = batch[*place].fence;
                call.arg(write.id.as_str()).arg(fence.epoch).arg(&fence.nonce.0.to_be_bytes()[..]);
                call.arg(&write.fixed).arg(&write.kept);
            }
            // What was saved before, too: it is told when the replicas that must have it do.
            let reply = self.noted(Part::Shard(shard), self.link.write(call)).await?;
            for ((place, _), said) in part.into_iter().zip(items(&reply)?) {
                match text(said)? {
                    "saved" => {}
                    "changed" => anew.push(place),
                    "unknown" => answers[place] = CheckpointSaved::Unknown,
                    other => answers[place] = stale(other)?,
                }
            }
        }
        Ok(anew)
    }

    /// How far a task came.
    pub async fn progress(&self, id: &TaskId) -> Result<Option<Progress>> {
        let seen = self.seen(self.keys.shard_of(id), &[id]).await?.pop().flatten();
        Ok(seen.transpose()?.map(|seen| seen.progress))
    }

    /// The blobs that each of the tasks refers to. None: it cannot be read.
    pub async fn blobs(&self, ids: &[TaskId]) -> Result<Vec<Option<Vec<BlobId>>>> {
        let mut shards: HashMap<u16, Vec<(usize, &TaskId)>> = HashMap::new();
        for (place, id) in ids.iter().enumerate() {
            shards.entry(self.keys.shard_of(id)).or_default().push((place, id));
        }
        let mut blobs = vec![Some(Vec::new()); ids.len()];
        for (shard, mut open) in shards {
            while !open.is_empty() {
                let rest = open.split_off(open.len().min(self.checkpoint_bytes.at_once()));
                let ids: Vec<&TaskId> = open.iter().map(|(_, id)| *id).collect();
                for ((place, _), seen) in open.into_iter().zip(self.seen(shard, &ids).await?) {
                    let Some(seen) = seen else { continue };
                    let named = |seen: Seen| seen.blob.into_iter().chain(seen.progress.blobs()).collect();
                    blobs[place] = readable(seen)?.ok().map(named);
                }
                open = rest;
            }
        }
        Ok(blobs)
    }

    /// Those of a shard's tasks that there are, with what they saved; or that one cannot be read.
    async fn seen(&self, shard: u16, ids: &[&TaskId]) -> Result<Vec<Option<Result<Seen>>>> {
        let mut call = SAVED.on(self.keys.shard(shard));
        call.arg(self.time.argument());
        for id in ids {
            call.arg(id.as_str());
        }
        let reply = self.noted(Part::Shard(shard), self.link.run(call)).await?;
        let (mut seen, mut read_bytes) = (Vec::with_capacity(ids.len()), 0);
        for (id, parts) in ids.iter().zip(items(&reply)?.chunks_exact(4)) {
            let (head, lease) = (bytes(&parts[0])?, bytes(&parts[1])?);
            let (reference, kept) = (bytes(&parts[2])?, bytes(&parts[3])?);
            read_bytes += kept.len();
            seen.push((!head.is_empty()).then(|| {
                let task = read(id, head, lease)?;
                let blob = blob_of(id, reference)?;
                let progress = progress_of(id, task.ordinal, kept)?.unwrap_or_default();
                Ok(Seen { task, blob, fixed: kept[..kept.len().min(FIXED_BYTES)].to_vec(), progress })
            }));
        }
        self.checkpoint_bytes.learn(read_bytes, ids.len());
        Ok(seen)
    }

    /// What is kept of the next of the tasks that were asked for, as [`progress_of`] reads it; empty where nothing was saved.
    pub async fn next_kept(&self, shard: u16, ahead: &mut Ahead) -> Result<Vec<u8>> {
        if ahead.read.is_empty() && !ahead.asked.is_empty() {
            let at_once = values_at_once(ahead.known_bytes).min(AHEAD_MAX).min(ahead.asked.len());
            let (mut query, keys) = (cmd("MGET"), self.keys.checkpoints(shard));
            for id in ahead.asked.drain(..at_once) {
                query.arg(keys.of(&id));
            }
            for value in into_items(self.link.query(&query).await?)? {
                ahead.read.push_back(if value == Value::Nil { Vec::new() } else { into_bytes(value)? });
            }
            if ahead.read.len() != at_once {
                return Err(StoreError::Corrupt("Redis did not answer for each of the checkpoints".into()));
            }
            let read_bytes = ahead.read.iter().map(Vec::len).sum();
            ahead.known_bytes = learn_value_bytes(ahead.known_bytes, read_bytes, at_once);
        }
        Ok(ahead.read.pop_front().unwrap_or_default())
    }
}

/// What a checkpoint comes to, and what is written for it. Lease and progress were read in one step, so what is refused was
/// refused then, whatever has come since: compared once more, it could lose against those who save for as long as they do.
fn decide(seen: Seen, item: &SaveCheckpoint, now_ms: i64) -> Result<(CheckpointSaved, Option<Write>)> {
    let Seen { task, fixed, mut progress, .. } = seen;
    match task.record.check(item.fence) {
        Ok(()) => {}
        Err(Refused::Stale(state) | Refused::Repeated(state) | Refused::WrongState(state)) => {
            return Ok((CheckpointSaved::Stale(state), None));
        }
    }
    let queue = lane(&task)?.queue;
    let (answer, kept) = match progress.save(item.checkpoint.clone(), now_ms) {
        Ok(Saved::Now) => (CheckpointSaved::Saved { queue }, to_keep(&item.id, &progress, task.ordinal)?),
        Ok(Saved::Before) => (CheckpointSaved::Repeated, Vec::new()),
        Err(refused) => return Ok((CheckpointSaved::Refused(refused), None)),
    };
    Ok((answer, Some(Write { id: item.id.clone(), fixed, kept })))
}

fn to_keep(id: &TaskId, progress: &Progress, ordinal: i64) -> Result<Vec<u8>> {
    let json = progress_text(progress).map_err(|error| corrupt(id, "checkpoints", &error))?;
    Ok([&progress.seq.to_be_bytes()[..], &ordinal.to_be_bytes(), json.as_bytes()].concat())
}

/// How far the task of that ordinal came, by what is kept under its id. None: it saved nothing.
pub(super) fn progress_of(id: &TaskId, ordinal: i64, kept: &[u8]) -> Result<Option<Progress>> {
    if kept.is_empty() {
        return Ok(None);
    }
    let (fixed, json) = kept
        .split_at_checked(FIXED_BYTES)
        .ok_or_else(|| corrupt(id, "checkpoints", &"they end too early"))?;
    if number(fixed, 8, 8).cast_signed() != ordinal {
        return Ok(None);
    }
    let json = std::str::from_utf8(json).map_err(|error| corrupt(id, "checkpoints", &error))?;
    progress_from(json).map(Some).map_err(|error| corrupt(id, "checkpoints", &error))
}

fn blob_of(id: &TaskId, reference: &[u8]) -> Result<Option<BlobId>> {
    if reference.is_empty() {
        return Ok(None);
    }
    let reference = std::str::from_utf8(reference).map_err(|error| corrupt(id, "blob", &error))?;
    let content = content_from(reference).map_err(|error| corrupt(id, "blob", &error))?;
    Ok(content.blob().map(|blob| blob.blob))
}

fn corrupt(id: &TaskId, what: &str, error: &dyn Display) -> StoreError {
    StoreError::Corrupt(format!("task {id}: its {what} cannot be read: {error}"))
}

/// What a script says of a lease that does not hold.
fn stale(said: &str) -> Result<CheckpointSaved> {
    let number = said.strip_prefix("stale:").and_then(|number| number.parse().ok());
    let number = number.ok_or_else(|| StoreError::Corrupt(format!("a script answered `{said}`")))?;
    // A damaged value, or a state of a newer release.
    Ok(state_from(number).map_or(CheckpointSaved::Unreadable, CheckpointSaved::Stale))
}
