//! `extend` and `settle`: what the holder of a lease does with it.

use std::borrow::Cow;
use std::collections::HashMap;

use redrive_shared::id::TaskId;
use redrive_shared::lifecycle::{Refused, Terms};
use redrive_shared::task::TaskState;

use super::Inner;
use super::aside::readable;
use super::batcher::{Item, distinct, rounds};
use super::held::Handed;
use super::keys::run_name;
use super::reach::Part;
use super::reply::{bytes, integer, items, text};
use super::scripts::{EXTEND, HEADS};
use super::transition::{Changed, Decided, TRIES, read};
use super::value::{Task, body_of};
use crate::store::format::{content_text, state_from};
use crate::store::{Ending, Extend, Extended, Result, Settle, Settled, StoreError};

impl Item for Extend {
    fn id(&self) -> &TaskId {
        &self.id
    }

    fn bytes(&self) -> usize {
        self.id.len() + 32 + self.run.as_ref().map_or(0, |run| run.agent.len() + run.boot_id.len())
    }
}

impl Item for Settle {
    fn id(&self) -> &TaskId {
        &self.id
    }

    fn bytes(&self) -> usize {
        self.id.len()
    }
}

impl Inner {
    /// Starts leases or makes them longer.
    pub async fn extend(&self, mut batch: Vec<Extend>) -> Result<Vec<Extended>> {
        self.fill_lengths(&mut batch).await?;
        self.submit(batch, |shard| &shard.extend).await
    }

    /// Where the caller gives no length, the policy of the task's queue does.
    async fn fill_lengths(&self, batch: &mut [Extend]) -> Result<()> {
        let book = self.books.get();
        let mut unknown = Vec::new();
        for item in batch.iter_mut().filter(|item| item.lease_ms.is_none()) {
            match self.held.queue_of(&item.id, item.fence) {
                Some(queue) => item.lease_ms = Some(book.policy(&queue).lease_ms),
                None => unknown.push(item.id.clone()),
            }
        }
        let known = self.heads(&unknown).await?;
        for item in batch.iter_mut().filter(|item| item.lease_ms.is_none()) {
            if let Some(Ok(handed)) = known.get(&item.id) {
                item.lease_ms = Some(book.policy(handed.task.meta.queue()).lease_ms);
            }
        }
        Ok(())
    }

    /// Writes one batch of a shard.
    pub async fn write_extensions(&self, shard: u16, batch: Vec<Extend>) -> Result<Vec<Extended>> {
        let mut call = EXTEND.on(self.keys.shard(shard));
        call.arg(self.time.argument());
        for item in &batch {
            call.arg(item.id.as_str()).arg(item.fence.epoch).arg(&item.fence.nonce.0.to_be_bytes()[..]);
            call.arg(item.lease_ms.unwrap_or(0));
            call.arg(
                item.run.as_ref().map_or_else(String::new, |run| run_name(&run.agent, Some(&run.boot_id))),
            );
        }
        let reply = self.noted(Part::Shard(shard), self.link.write(call)).await?;
        let answers = items(&reply)?.iter().map(extended).collect::<Result<Vec<Extended>>>()?;
        for (item, answer) in batch.iter().zip(&answers) {
            if let (Some(run), Extended::Until(_)) = (&item.run, answer) {
                self.held.take_over(&item.id, item.fence, run);
            }
        }
        Ok(answers)
    }

    /// Ends attempts. What is asked twice about one task is done one after the other.
    pub async fn settle(&self, batch: Vec<Settle>) -> Result<Vec<Settled>> {
        if distinct(&batch) {
            return self.settle_distinct(batch).await;
        }
        let mut answers: Vec<Option<Settled>> = batch.iter().map(|_| None).collect();
        for round in rounds(batch) {
            let (places, items): (Vec<usize>, Vec<Settle>) = round.into_iter().unzip();
            for (place, outcome) in places.into_iter().zip(self.settle_distinct(items).await?) {
                answers[place] = Some(outcome);
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    async fn settle_distinct(&self, batch: Vec<Settle>) -> Result<Vec<Settled>> {
        let mut answers = vec![Settled::Unknown; batch.len()];
        let mut open: Vec<usize> = (0..batch.len()).collect();
        for _ in 0..TRIES {
            open = self.try_to_settle(&batch, open, &mut answers).await?;
            if open.is_empty() {
                return Ok(answers);
            }
        }
        let id = open.first().map_or("", |place| batch[*place].id.as_str());
        Err(StoreError::Unavailable(format!("task {id} changed {TRIES} times meanwhile")))
    }

    /// Settles what is open, by its place in the batch; returns what is to be decided anew.
    async fn try_to_settle(
        &self,
        batch: &[Settle],
        open: Vec<usize>,
        answers: &mut [Settled],
    ) -> Result<Vec<usize>> {
        let shown = open.iter().map(|place| &batch[*place]);
        let held = self.held.take(shown.clone().map(|item| (&item.id, item.fence)));
        let missing = shown.zip(&held).filter(|(_, handed)| handed.is_none());
        let missing: Vec<TaskId> = missing.map(|(item, _)| item.id.clone()).collect();
        // A repeat is answered from here.
        let mut found = self.sure_heads(&missing).await?;
        let now_ms = self.now_ms();
        let (mut changes, mut decided) = (Vec::with_capacity(open.len()), Vec::with_capacity(open.len()));
        let mut anew = Vec::new();
        for (place, handed) in open.into_iter().zip(held) {
            let item = &batch[place];
            let Some(handed) = handed.map(Ok).or_else(|| found.remove(&item.id)) else {
                answers[place] = Settled::Unknown;
                continue;
            };
            let made = match handed {
                Ok(handed) => self.decide(handed, item, now_ms).await,
                Err(error) => Err(error),
            };
            match readable(made)? {
                Ok(Ok((change, outcome))) => {
                    changes.push(change);
                    decided.push(place);
                    answers[place] = outcome;
                }
                Ok(Err(outcome)) => answers[place] = outcome,
                Err(_) => answers[place] = Settled::Unreadable,
            }
        }
        for (place, changed) in decided.into_iter().zip(self.apply(changes).await?) {
            match changed {
                Changed::Applied => {}
                Changed::Unknown => answers[place] = Settled::Unknown,
                Changed::Otherwise(task) => match refused(&task, &batch[place]) {
                    Some(outcome) => answers[place] = outcome,
                    None => anew.push(place),
                },
                Changed::Unreadable => answers[place] = Settled::Unreadable,
            }
        }
        Ok(anew)
    }

    /// The change that a settlement makes and what is said of it; or why it makes none.
    async fn decide(
        &self,
        Handed { mut task, agent, value }: Handed,
        item: &Settle,
        now_ms: i64,
    ) -> Result<std::result::Result<(super::Change, Settled), Settled>> {
        let mut ending = Cow::Borrowed(&item.ending);
        let primary = task.meta.primary();
        let primary = primary.map_err(|error| StoreError::Corrupt(format!("task {}: {error}", item.id)))?;
        let called = task.stand_in.clone().or_else(|| primary.clone());
        if let (Some(dependency), Some(_)) = (&called, ending.failure()) {
            ending.to_mut().at_dependency(dependency);
        }
        let before = task.record.clone();
        let policy = self.books.get().policy(task.meta.queue());
        let (primary, called) = (primary.as_ref(), called.as_ref());
        let terms = Terms { policy: &policy, primary, called, standing: &item.standing };
        let attempt = item.attempt(&ending);
        let settled = task.record.settle(item.fence, attempt, terms, now_ms, &mut rand::rng());
        let verdict = match settled {
            Ok(verdict) => verdict,
            Err(refused) => return Ok(Err(refusal(refused, before.due_ms))),
        };
        let (state, due_ms, retried) = (task.record.state, task.record.due_ms, before.was_called());
        let result = match &item.ending {
            Ending::Done(Some(result)) => Some(content_text(result)),
            _ => None,
        };
        let result = result.as_deref().map(str::as_bytes);
        let failure = ending.failure();
        // What was handed off is nobody's lease any more.
        let guard = (before.state != TaskState::Leased).then(|| task.whole_header());
        let holder = agent.clone();
        let group = task
            .meta
            .group_name()
            .map_err(|error| StoreError::Corrupt(format!("task {}: {error}", item.id)))?;
        let decided = Decided { guard, before, verdict, failure, agent, note: None, result, now_ms };
        let body = value.as_deref().and_then(|value| body_of(value).ok());
        let change = self.change(&item.id, &mut task, body, decided).await?;
        let (queue, dependency) = (change.queue.clone(), change.dependency.clone());
        let applied = Settled::Applied { state, due_ms, queue, dependency, group, agent: holder, retried };
        Ok(Ok((change, applied)))
    }

    /// Those of the tasks that there are, without bodies, and who holds them; or that one cannot be read.
    pub async fn heads(&self, ids: &[TaskId]) -> Result<HashMap<TaskId, Result<Handed>>> {
        self.read_heads(ids, false).await
    }

    /// The same, for answers that say that something was done: it is told when the replicas that must have it do.
    pub async fn sure_heads(&self, ids: &[TaskId]) -> Result<HashMap<TaskId, Result<Handed>>> {
        self.read_heads(ids, true).await
    }

    async fn read_heads(&self, ids: &[TaskId], sure: bool) -> Result<HashMap<TaskId, Result<Handed>>> {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let mut shards: HashMap<u16, Vec<&TaskId>> = HashMap::new();
        for id in ids {
            shards.entry(self.keys.shard_of(id)).or_default().push(id);
        }
        let calls = shards.into_iter().map(|(shard, ids)| async move {
            let mut call = HEADS.on(self.keys.shard(shard));
            call.arg(self.time.argument());
            for id in &ids {
                call.arg(id.as_str());
            }
            let reply = if sure { self.link.write(call).await? } else { self.link.run(call).await? };
            Ok::<_, StoreError>((ids, reply))
        });
        let mut found = HashMap::new();
        for (ids, reply) in futures_util::future::try_join_all(calls).await? {
            for (id, parts) in ids.into_iter().zip(items(&reply)?.chunks_exact(2)) {
                let head = bytes(&parts[0])?;
                if !head.is_empty() {
                    let task = read(id, head, bytes(&parts[1])?).map(|task| {
                        let agent = task.lease.as_ref().and_then(|lease| lease.agent.clone());
                        Handed { task: Box::new(task), agent, value: None }
                    });
                    found.insert(id.clone(), task);
                }
            }
        }
        Ok(found)
    }
}

fn refusal(refused: Refused, due_ms: i64) -> Settled {
    match refused {
        Refused::Repeated(state) => Settled::Repeated { state, due_ms },
        Refused::Stale(state) | Refused::WrongState(state) => Settled::Stale(state),
    }
}

/// What the task says that the settlement did not fit. None: it still may; another run took the lease over, or the lease
/// handed the task off.
fn refused(task: &Task, item: &Settle) -> Option<Settled> {
    let (state, due_ms) = (task.record.state, task.record.due_ms);
    if task.fence() != item.fence {
        return Some(Settled::Stale(state));
    }
    let handed_off = state == TaskState::HandedOff && !matches!(item.ending, Ending::HandedOff);
    let may_still = state == TaskState::Leased || handed_off;
    (!may_still).then_some(Settled::Repeated { state, due_ms })
}

fn extended(answer: &redis::Value) -> Result<Extended> {
    if let redis::Value::Int(until_ms) = answer {
        return Ok(Extended::Until(*until_ms));
    }
    match text(answer)? {
        "unknown" => Ok(Extended::Unknown),
        other => {
            let state =
                other.strip_prefix("stale:").and_then(|number| number.parse().ok()).and_then(state_from);
            match state {
                Some(state) => Ok(Extended::Stale(state)),
                // A damaged value: there is no lease to make longer, and its neighbours are none the worse.
                None if other.starts_with("stale:") => Ok(Extended::Unknown),
                None => integer(answer).map(Extended::Until),
            }
        }
    }
}
