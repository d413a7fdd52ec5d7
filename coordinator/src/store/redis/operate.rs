//! What operators and time do: cancel, retry, forget.

use std::collections::HashMap;

use redrive_shared::gate::Standing;
use redrive_shared::id::TaskId;
use redrive_shared::lifecycle::{Refused, Terms, Verdict};
use redrive_shared::retry::RetryPolicy;
use redrive_shared::task::{AttemptEnd, TaskState};

use super::Inner;
use super::aside::{Aside, readable};
use super::held::Handed;
use super::reach::{Part, pass_over};
use super::reply::{at, bytes, integer, items, task_id, text};
use super::scripts::{CHECK, EXPIRED, SWEEP_LOG};
use super::transition::{Change, Changed, Decided, Place, TRIES, read};
use super::value::Task;
use crate::store::views::acted_why;
use crate::store::{Acted, Result, StoreError};

/// Entries of the log looked at after a round of forgetting: as many as a round forgets tasks, so that it keeps up.
const LOG_ENTRIES_SWEPT: usize = 500;

/// What a person does to tasks.
#[derive(Clone, Copy)]
enum Action<'a> {
    Cancel,
    Retry(&'a Standing),
}

impl Action<'_> {
    /// Does it; returns whether the task went past an isolated dependency.
    fn apply(
        self,
        task: &mut Task,
        policy: &RetryPolicy,
        now_us: i64,
    ) -> Result<std::result::Result<bool, Refused>> {
        let standing = match self {
            Self::Cancel => return Ok(task.record.cancel(policy, now_us).map(|()| false)),
            Self::Retry(standing) => standing,
        };
        let primary = task.meta.primary();
        let primary = primary.map_err(|error| StoreError::Corrupt(format!("a task's lane: {error}")))?;
        let (primary, called) = (primary.as_ref(), task.stand_in.as_ref().or(primary.as_ref()));
        Ok(task.record.retry_now(Terms { policy, primary, called, standing }, now_us))
    }
}

impl Inner {
    /// Calls tasks off.
    pub async fn cancel(&self, ids: &[TaskId], reason: Option<&str>) -> Result<Vec<Acted>> {
        self.act(ids, AttemptEnd::Cancelled, reason.unwrap_or("called off"), Action::Cancel).await
    }

    /// Runs tasks again now.
    pub async fn retry(
        &self,
        ids: &[TaskId],
        reason: Option<&str>,
        standing: &Standing,
    ) -> Result<Vec<Acted>> {
        let action = Action::Retry(standing);
        self.act(ids, AttemptEnd::Redriven, reason.unwrap_or("sent round again"), action).await
    }

    async fn act(
        &self,
        ids: &[TaskId],
        end: AttemptEnd,
        why: &str,
        action: Action<'_>,
    ) -> Result<Vec<Acted>> {
        let mut answers: HashMap<&TaskId, Acted> = HashMap::new();
        let mut open: Vec<TaskId> = ids.to_vec();
        open.sort();
        open.dedup();
        for _ in 0..TRIES {
            // What needs no change is answered from here.
            let known = self.sure_heads(&open).await?;
            let (mut acted, mut changes) = (Vec::new(), Vec::new());
            for id in ids.iter().filter(|id| open.contains(id)) {
                if acted.iter().any(|(known, _)| *known == id) {
                    continue;
                }
                let handed = match known.get(id) {
                    Some(Ok(handed)) => handed,
                    Some(Err(_)) => {
                        answers.insert(id, Acted::Unreadable);
                        continue;
                    }
                    None => {
                        answers.insert(id, Acted::Unknown);
                        continue;
                    }
                };
                match readable(self.decide_action(id, handed, end, why, action).await)? {
                    Ok((answer, Some(change))) => {
                        changes.push(change);
                        acted.push((id, answer));
                    }
                    Ok((answer, None)) => drop(answers.insert(id, answer)),
                    Err(_) => drop(answers.insert(id, Acted::Unreadable)),
                }
            }
            open.clear();
            for ((id, answer), changed) in acted.into_iter().zip(self.apply(changes).await?) {
                match changed {
                    Changed::Applied => drop(answers.insert(id, answer)),
                    // Somebody else changed it in between: decided anew.
                    Changed::Otherwise(_) | Changed::Unknown => open.push(id.clone()),
                    Changed::Unreadable => drop(answers.insert(id, Acted::Unreadable)),
                }
            }
            if open.is_empty() {
                break;
            }
        }
        if let Some(id) = open.first() {
            return Err(StoreError::Unavailable(format!("task {id} changed {TRIES} times meanwhile")));
        }
        Ok(ids.iter().map(|id| answers.get(id).copied().unwrap_or(Acted::Unknown)).collect())
    }

    async fn decide_action(
        &self,
        id: &TaskId,
        Handed { task, agent, .. }: &Handed,
        end: AttemptEnd,
        why: &str,
        action: Action<'_>,
    ) -> Result<(Acted, Option<Change>)> {
        let (mut after, now_us) = (task.clone(), self.time.now_us());
        let policy = self.books.get().policy(task.meta.queue());
        let moved = match action.apply(&mut after, &policy, now_us)? {
            Ok(moved) => moved,
            Err(Refused::WrongState(state) | Refused::Stale(state) | Refused::Repeated(state)) => {
                return Ok((Acted::WrongState(state), None));
            }
        };
        let why = acted_why(why, moved);
        let (state, due_ms) = (after.record.state, after.record.due_ms);
        let was_leased = task.record.state == TaskState::Leased && after.record.epoch != task.record.epoch;
        let ended = task.lease.as_ref().filter(|_| was_leased).map(|lease| lease.fence.epoch);
        let answer = Acted::Now { state, due_ms, ended };
        if after.record.epoch == task.record.epoch {
            return Ok((answer, None));
        }
        let decided = Decided {
            // A lease that was extended meanwhile is the same lease.
            guard: task.lease.is_none().then(|| task.whole_header()),
            before: task.record.clone(),
            verdict: Verdict { state, end, delay_ms: None, why: "" },
            failure: None,
            // Whoever held it last has no part in what happens to a task that waits.
            agent: agent.clone().filter(|_| task.record.state == TaskState::Leased),
            note: Some(&why),
            result: None,
            now_ms: now_us.div_euclid(1_000),
        };
        Ok((answer, Some(self.change(id, &mut after, None, decided).await?)))
    }

    /// Forgets finished tasks whose retention is over, and agents that were gone for long. A shard that cannot be reached
    /// does not stop the others: an error means that none could.
    pub async fn forget(&self, limit: usize) -> Result<usize> {
        let (mut forgotten, mut failed, mut first) = (0, 0, None);
        for shard in 0..self.keys.shards() {
            let left = limit - forgotten;
            if left == 0 {
                break;
            }
            match self.forget_in(shard, left).await {
                Ok(gone) => forgotten += gone,
                Err(error) => {
                    pass_over(shard, &error);
                    failed += 1;
                    first.get_or_insert(error);
                }
            }
        }
        if let Some(error) = first.filter(|_| failed == self.keys.shards()) {
            return Err(error);
        }
        self.forget_agents().await?;
        Ok(forgotten)
    }

    async fn forget_in(&self, shard: u16, limit: usize) -> Result<usize> {
        let mut call = EXPIRED.on(self.keys.shard(shard));
        call.arg(self.time.argument()).arg(limit);
        let reply = self.noted(Part::Shard(shard), self.link.write(call)).await?;
        let (mut changes, mut aside) = (Vec::new(), Aside::default());
        for found in items(&reply)?.chunks_exact(2) {
            let id = task_id(text(&found[0])?)?;
            let change = read(&id, bytes(&found[1])?, b"").and_then(|task| self.forgetting(&id, &task));
            changes.extend(aside.pass_over(&id, || Some(Place::Finished), change)?);
        }
        self.set_aside(shard, aside).await?;
        let changed = self.apply(changes).await?;
        let gone = changed.iter().filter(|changed| matches!(changed, Changed::Applied)).count();
        if gone > 0 {
            self.sweep_log(shard).await?;
        }
        Ok(gone)
    }

    /// Drops entries of the log that tell of nobody any more, in calls that are each short: between them, Redis answers
    /// others.
    async fn sweep_log(&self, shard: u16) -> Result<()> {
        let mut left = LOG_ENTRIES_SWEPT;
        while left > 0 {
            let mut call = SWEEP_LOG.on(self.keys.shard(shard));
            call.arg(self.time.argument()).arg(left);
            let reply = self.noted(Part::Shard(shard), self.link.write(call)).await?;
            let parts = items(&reply)?;
            let (looked, more) = (integer(at(parts, 0)?)?, integer(at(parts, 1)?)? == 1);
            if !more || looked == 0 {
                break;
            }
            left = left.saturating_sub(usize::try_from(looked).unwrap_or(left));
        }
        Ok(())
    }

    /// Whether every shard can be written, and replicas confirm it where they have to.
    pub async fn check(&self) -> Result<()> {
        let writes = (0..self.keys.shards()).map(|shard| async move {
            let mut call = CHECK.on(self.keys.shard(shard));
            call.arg(self.time.argument());
            self.noted(Part::Shard(shard), self.link.write(call)).await.map(|_| ())
        });
        futures_util::future::join_all(writes).await.into_iter().collect()
    }
}
