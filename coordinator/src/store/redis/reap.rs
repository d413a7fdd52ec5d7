//! `reap`: what time ends. Every coordinator looks; whoever is first writes, and the others find the task changed.

use std::time::Instant;

use redrive_shared::id::{Name, TaskId};
use redrive_shared::lifecycle::Refused;
use redrive_shared::limits::{AGENT_DEAD_AFTER_MS, RESTART_GRACE_MS};
use redrive_shared::task::TaskState;

use super::Inner;
use super::aside::Aside;
use super::claim::task_id;
use super::enqueue::time_of;
use super::keys::{RunId, agent_of, lane_name};
use super::lease::read;
use super::reply::{at, bytes, integer, items, maybe_integer, text};
use super::scripts::{EXPIRE_RUN, OVER};
use super::transition::{Change, Changed, Decided, Place, lane};
use super::value::Task;
use crate::store::{Reap, Reaped, Result, StoreError};

/// What one shard says is over.
#[derive(Default)]
struct Over {
    now_ms: i64,
    next_lease_ms: Option<i64>,
    next_deadline_ms: Option<i64>,
    leases: Vec<(TaskId, Task, Option<Name>)>,
    /// With the lanes that they wait in.
    late: Vec<(TaskId, Task, String)>,
    /// Those that cannot be read.
    aside: Aside,
}

impl Inner {
    /// Ends what is over.
    pub async fn reap(&self, limit: usize) -> Result<Reap> {
        let (gone, next_silence_ms) = self.silence().await?;
        let mut reap = Reap { gone, next_ms: next_silence_ms, ..Reap::default() };
        for shard in 0..self.keys.shards() {
            let mut over = self.over(shard, limit - reap.reaped.len(), limit - reap.too_late.len()).await?;
            for next_ms in [over.next_lease_ms, over.next_deadline_ms].into_iter().flatten() {
                reap.look_again(next_ms);
            }
            let late = self.lose(over.leases, over.now_ms, &mut reap, &mut over.aside).await?;
            let (mut ids, mut changes, room) = (Vec::new(), Vec::new(), limit - reap.too_late.len());
            if over.late.len() + late.len() > room {
                reap.look_again(over.now_ms);
            }
            for (id, task, lane) in over.late.into_iter().chain(late).take(room) {
                let missed = self.miss_deadline(&id, task).await;
                if let Some(change) = over.aside.pass_over(&id, || Some(Place::Lane(lane)), missed)? {
                    changes.push(change);
                    ids.push(id);
                }
            }
            self.set_aside(shard, over.aside).await?;
            for (id, changed) in ids.into_iter().zip(self.apply(changes).await?) {
                if matches!(changed, Changed::Applied) {
                    reap.too_late.push(id);
                }
            }
        }
        Ok(reap)
    }

    async fn over(&self, shard: u16, leases: usize, late: usize) -> Result<Over> {
        let grace_ends_ms = self.opened_ms.saturating_add_unsigned(RESTART_GRACE_MS);
        // Leases from before this coordinator was there: their workers may have had nobody to report to.
        let spared_ms = if self.now_ms() < grace_ends_ms { self.opened_ms } else { 0 };
        let mut call = OVER.on(self.keys.shard(shard));
        call.arg(self.time.argument()).arg(leases).arg(late).arg(spared_ms);
        let reply = self.write(call).await?;
        let parts = items(&reply)?;
        let now_ms = time_of(&reply).unwrap_or(0).div_euclid(1_000);
        let mut over = Over {
            now_ms,
            next_lease_ms: maybe_integer(at(parts, 1)?)?,
            next_deadline_ms: maybe_integer(at(parts, 2)?)?,
            ..Over::default()
        };
        if over.next_lease_ms.is_some_and(|ms| ms <= now_ms) && now_ms < grace_ends_ms {
            over.next_lease_ms = Some(grace_ends_ms);
        }
        let leases = usize::try_from(integer(at(parts, 3)?)?).unwrap_or(0) * 3;
        let (leases, late) = parts.get(4..).unwrap_or_default().split_at_checked(leases).unwrap_or_default();
        for lease in leases.chunks_exact(3) {
            let id = task_id(text(&lease[0])?)?;
            let (task, run) = (read(&id, bytes(&lease[1])?), text(&lease[2])?);
            let task = over.aside.pass_over(&id, || Some(Place::Run(RunId::of(run))), task)?;
            over.leases.extend(task.map(|task| (id, task, agent_of(run))));
        }
        for found in late.chunks_exact(3) {
            let (id, lane) = (task_id(text(&found[0])?)?, text(&found[2])?.to_owned());
            let task = read(&id, bytes(&found[1])?);
            let task = over.aside.pass_over(&id, || Some(Place::Lane(lane.clone())), task)?;
            over.late.extend(task.map(|task| (id, task, lane)));
        }
        Ok(over)
    }

    /// Ends leases; returns tasks that wait again though their deadline has passed.
    async fn lose(
        &self,
        leases: Vec<(TaskId, Task, Option<Name>)>,
        now_ms: i64,
        reap: &mut Reap,
        aside: &mut Aside,
    ) -> Result<Vec<(TaskId, Task, String)>> {
        let (mut lost, mut late, mut changes) = (Vec::new(), Vec::new(), Vec::new());
        for (id, task, agent) in leases {
            let (guard, before) = (task.whole_header(), task.record.clone());
            let mut after = task;
            let policy = self.books.get().policy(after.meta.queue());
            let Ok(verdict) = after.record.lose(&policy, now_ms.saturating_mul(1_000), &mut rand::rng())
            else {
                continue;
            };
            let run = after.run;
            let (state, started, due_ms) = (after.record.state, before.started, after.record.due_ms);
            // Where it waits again, its deadline counts again.
            let deadline_ms = after.record.deadline_ms.saturating_add(1);
            let decided =
                Decided { guard, before, verdict, failure: None, agent, note: None, result: None, now_ms };
            let queue = lane(&after).map(|lane| lane.queue);
            let change = self.change(&id, after, None, decided).await;
            let decided = queue.and_then(|queue| Ok((queue, change?)));
            let Some((queue, change)) = aside.pass_over(&id, || Some(Place::Run(run)), decided)? else {
                continue;
            };
            if state == TaskState::Scheduled && deadline_ms <= now_ms {
                late.push(id.clone());
            } else if state == TaskState::Scheduled {
                reap.look_again(deadline_ms);
            }
            lost.push(Reaped { id, queue, started, state, due_ms });
            changes.push(change);
        }
        for (reaped, changed) in lost.into_iter().zip(self.apply(changes).await?) {
            if matches!(changed, Changed::Applied) {
                reap.reaped.push(reaped);
            }
        }
        let late = self.heads(&late).await?.into_iter();
        // One that cannot be read any more waits in its lane, where the next look meets it.
        let late = late.filter_map(|(id, handed)| Some((id, handed.ok()?.task)));
        let late = late.filter(|(_, task)| task.record.state == TaskState::Scheduled);
        let named = late.filter_map(|(id, task)| {
            let lane = lane_name(&lane(&task).ok()?);
            Some((id, task, lane))
        });
        Ok(named.collect())
    }

    /// The change that escalates a waiting task whose deadline has passed.
    pub async fn miss_deadline(&self, id: &TaskId, task: Task) -> Result<Change> {
        let (guard, before) = (task.whole_header(), task.record.clone());
        let now_us = self.time.now_us();
        let mut after = task;
        let policy = self.books.get().policy(after.meta.queue());
        // The script saw by Redis's clock that it is late; ours may lag behind by a little.
        let now_us = now_us.max(after.record.deadline_ms.saturating_add(1).saturating_mul(1_000));
        let verdict = after.record.miss_deadline(&policy, now_us).map_err(|refused| match refused {
            Refused::Stale(state) | Refused::Repeated(state) | Refused::WrongState(state) => {
                StoreError::Corrupt(format!("task {id} waits, and is {state}"))
            }
        })?;
        let now_ms = now_us.div_euclid(1_000);
        let decided =
            Decided { guard, before, verdict, failure: None, agent: None, note: None, result: None, now_ms };
        self.change(id, after, None, decided).await
    }

    /// Lets the leases of one run end now.
    pub async fn expire_run(&self, run: &str) -> Result<usize> {
        let asked = (0..self.keys.shards()).map(|shard| async move {
            let mut call = EXPIRE_RUN.on(self.keys.shard(shard));
            call.arg(self.time.argument()).arg(&RunId::of(run).0[..]);
            integer(&self.link.write(call).await?)
        });
        let ended = futures_util::future::try_join_all(asked).await?;
        Ok(usize::try_from(ended.into_iter().sum::<i64>()).unwrap_or(0))
    }

    /// Lets the leases of agents end that were silent for too long, and says when the next will have been. Silence from
    /// before this coordinator was there does not count: they may have had nobody to talk to.
    async fn silence(&self) -> Result<(Vec<Name>, Option<i64>)> {
        let now_ms = self.now_ms();
        let silent_before_ms = now_ms.saturating_sub_unsigned(AGENT_DEAD_AFTER_MS);
        let silent = if silent_before_ms > self.opened_ms {
            self.silent_runs(silent_before_ms).await?
        } else {
            Vec::new()
        };
        for run in &silent {
            // Before it is marked: a coordinator that ends in between leaves the rest to another.
            self.expire_run(run).await?;
        }
        let (gone, oldest_ms) = self.mark_gone(silent_before_ms, &silent).await?;
        for run in &gone {
            self.gone.set(run.clone(), true);
        }
        let next_ms = oldest_ms
            .map(|seen_ms| seen_ms.max(self.opened_ms).saturating_add_unsigned(AGENT_DEAD_AFTER_MS) + 1);
        Ok((gone.iter().filter_map(|run| agent_of(run)).collect(), next_ms))
    }

    /// Asks Redis for its time, so that the estimate holds while nothing else is asked.
    pub async fn ask_time(&self) -> Result<()> {
        let sent = Instant::now();
        let reply = self.link.query(&redis::cmd("TIME")).await?;
        let parts = items(&reply)?;
        let (seconds, micros) = (integer(at(parts, 0)?)?, integer(at(parts, 1)?)?);
        self.time.observe(sent, seconds.saturating_mul(1_000_000).saturating_add(micros));
        Ok(())
    }
}
