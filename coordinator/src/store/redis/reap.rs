//! `reap`: what time ends. Every coordinator looks; whoever is first writes, and the others find the task changed.

use std::time::Instant;

use redrive_shared::id::TaskId;
use redrive_shared::lifecycle::Refused;
use redrive_shared::limits::{AGENT_DEAD_AFTER_MS, RESTART_GRACE_MS};
use redrive_shared::task::TaskState;

use super::Inner;
use super::aside::Aside;
use super::enqueue::time_of;
use super::keys::{agent_of, lane_name};
use super::reach::{Part, pass_over};
use super::reply::{at, bytes, integer, items, maybe_integer, task_id, text};
use super::scripts::{EXPIRE_RUN, OVER};
use super::transition::{Change, Changed, Decided, Place, lane, read};
use super::value::{Lease, Task};
use crate::store::{Reap, Reaped, Result, StoreError};

/// Grants looked at in one call for those of a run.
const GRANTS_AT_ONCE: i64 = 2_000;
/// When to look again at what could not be looked at.
const AGAIN_MS: i64 = 1_000;

/// What one shard says is over.
#[derive(Default)]
struct Over {
    now_ms: i64,
    next_lease_ms: Option<i64>,
    next_deadline_ms: Option<i64>,
    leases: Vec<(TaskId, Task)>,
    /// With the lanes that they wait in.
    late: Vec<(TaskId, Task, String)>,
    /// Those that cannot be read.
    aside: Aside,
}

impl Inner {
    /// Ends what is over. A part of the store that cannot be reached does not stop the others: an error means that no
    /// shard could.
    pub async fn reap(&self, limit: usize) -> Result<Reap> {
        let mut reap = Reap::default();
        // Who cannot be reached was told when that was noticed.
        let silence = self.silence(&mut reap).await.err();
        let failing = |shard: &u16| self.reach.is_failing(Part::Shard(*shard));
        let (failed_before, open): (Vec<u16>, Vec<u16>) = (0..self.keys.shards()).partition(failing);
        let tried: Vec<u16> =
            failed_before.iter().copied().filter(|shard| self.reach.is_to_be_tried(*shard)).collect();
        let reaping = self.reap_shards(open.into_iter(), limit, &mut reap);
        let (mut failed, ()) = tokio::join!(reaping, self.probe(&tried));
        // Those that answer again: from here on their time counts.
        let (gone, back): (Vec<u16>, Vec<u16>) = failed_before.into_iter().partition(failing);
        failed.extend(self.reap_shards(back.into_iter(), limit, &mut reap).await);
        if silence.is_some() || !failed.is_empty() || !gone.is_empty() {
            reap.look_again(self.now_ms().saturating_add(AGAIN_MS));
        }
        if failed.len() + gone.len() == usize::from(self.keys.shards()) {
            let first = failed.into_iter().next().or(silence);
            return Err(first.unwrap_or_else(|| StoreError::Unavailable("no shard can be reached".into())));
        }
        Ok(reap)
    }

    /// Ends what is over in these shards; returns why some could not be looked at.
    async fn reap_shards(
        &self,
        shards: impl Iterator<Item = u16> + Clone,
        limit: usize,
        reap: &mut Reap,
    ) -> Vec<StoreError> {
        let (mut failed, mut shards) = (Vec::new(), shards);
        while let Some(shard) = shards.next() {
            let known = failed.first().cloned();
            if let Some(error) = known.filter(|_| self.reach.is_failing(Part::Shard(shard))) {
                failed.push(error);
                continue;
            }
            let Err(error) = self.reap_shard(shard, limit, reap).await else { continue };
            pass_over(shard, &error);
            if failed.is_empty() {
                // Its node may have had others: they are found all at once, not one time-out after the other.
                let rest: Vec<u16> = shards.clone().collect();
                self.probe(&rest).await;
            }
            failed.push(error);
        }
        failed
    }

    async fn reap_shard(&self, shard: u16, limit: usize, reap: &mut Reap) -> Result<()> {
        let mut over = self.over(shard, limit - reap.reaped.len(), limit - reap.too_late.len()).await?;
        for next_ms in [over.next_lease_ms, over.next_deadline_ms].into_iter().flatten() {
            reap.look_again(next_ms);
        }
        let late = self.lose(over.leases, over.now_ms, reap, &mut over.aside).await?;
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
        Ok(())
    }

    /// Notes which of the shards can be reached.
    pub async fn probe(&self, shards: &[u16]) {
        futures_util::future::join_all(shards.iter().map(|shard| self.over(*shard, 0, 0))).await;
    }

    async fn over(&self, shard: u16, leases: usize, late: usize) -> Result<Over> {
        let part = Part::Shard(shard);
        let grace_ends = || self.reach.since_ms(part).saturating_add_unsigned(RESTART_GRACE_MS);
        // Leases from before the shard could be reached: their workers may have had nobody to report to.
        let spared_ms = match self.reach.is_failing(part) {
            // Only the answer tells since when it can be.
            true => i64::MAX,
            false if self.now_ms() < grace_ends() => self.reach.since_ms(part),
            false => 0,
        };
        let mut call = OVER.on(self.keys.shard(shard));
        call.arg(self.time.argument()).arg(leases).arg(late).arg(spared_ms);
        let reply = self.write(shard, call).await?;
        let parts = items(&reply)?;
        let now_ms = time_of(&reply).unwrap_or(0).div_euclid(1_000);
        let mut over = Over {
            now_ms,
            next_lease_ms: maybe_integer(at(parts, 1)?)?,
            next_deadline_ms: maybe_integer(at(parts, 2)?)?,
            ..Over::default()
        };
        if over.next_lease_ms.is_some_and(|ms| ms <= now_ms) && now_ms < grace_ends() {
            over.next_lease_ms = Some(grace_ends());
        }
        let leases = usize::try_from(integer(at(parts, 3)?)?).unwrap_or(0) * 3;
        let (leases, late) = parts.get(4..).unwrap_or_default().split_at_checked(leases).unwrap_or_default();
        for lease in leases.chunks_exact(3) {
            let id = task_id(text(&lease[0])?)?;
            let (head, lease) = (bytes(&lease[1])?, bytes(&lease[2])?);
            let place = || Some(Place::Lease(Lease::read(lease).ok()??.fence.epoch));
            let task = over.aside.pass_over(&id, place, read(&id, head, lease))?;
            over.leases.extend(task.map(|task| (id, task)));
        }
        for found in late.chunks_exact(3) {
            let (id, lane) = (task_id(text(&found[0])?)?, text(&found[2])?.to_owned());
            let task = read(&id, bytes(&found[1])?, b"");
            let task = over.aside.pass_over(&id, || Some(Place::Lane(lane.clone())), task)?;
            over.late.extend(task.map(|task| (id, task, lane)));
        }
        Ok(over)
    }

    /// Ends leases; returns tasks that wait again though their deadline has passed.
    async fn lose(
        &self,
        leases: Vec<(TaskId, Task)>,
        now_ms: i64,
        reap: &mut Reap,
        aside: &mut Aside,
    ) -> Result<Vec<(TaskId, Task, String)>> {
        let (mut lost, mut late, mut changes) = (Vec::new(), Vec::new(), Vec::new());
        for (id, task) in leases {
            let Some(lease) = &task.lease else { continue };
            // Who extends it in this moment keeps it.
            let (holder, boot_id) = (lease.agent.clone(), lease.boot_id.clone());
            let (guard, agent, before) = (Some(lease.extension()), lease.agent.clone(), task.record.clone());
            let epoch = before.epoch;
            let mut after = task;
            let policy = self.books.get().policy(after.meta.queue());
            let Ok(verdict) = after.record.lose(&policy, now_ms.saturating_mul(1_000), &mut rand::rng())
            else {
                continue;
            };
            let (state, started, due_ms) = (after.record.state, before.started, after.record.due_ms);
            let retried = before.was_called();
            // Where it waits again, its deadline counts again.
            let deadline_ms = after.record.deadline_ms.saturating_add(1);
            let decided =
                Decided { guard, before, verdict, failure: None, agent, note: None, result: None, now_ms };
            let change = self.change(&id, &mut after, None, decided).await;
            let Some(change) = aside.pass_over(&id, || Some(Place::Lease(epoch)), change)? else {
                continue;
            };
            if state == TaskState::Scheduled && deadline_ms <= now_ms {
                late.push(id.clone());
            } else if state == TaskState::Scheduled {
                reap.look_again(deadline_ms);
            }
            let (queue, dependency) = (change.queue.clone(), change.dependency.clone());
            lost.push(Reaped {
                id,
                queue,
                dependency,
                epoch,
                agent: holder,
                boot_id,
                started,
                retried,
                state,
                due_ms,
            });
            changes.push(change);
        }
        for (reaped, changed) in lost.into_iter().zip(self.apply(changes).await?) {
            if matches!(changed, Changed::Applied) {
                reap.reaped.push(reaped);
            } else {
                // Its holder was faster, and may have told a coordinator that is gone.
                reap.look_again(now_ms.saturating_add(AGAIN_MS));
            }
        }
        let late = self.heads(&late).await?.into_iter();
        // One that cannot be read any more waits in its lane, where the next look meets it.
        let late = late.filter_map(|(id, handed)| Some((id, handed.ok()?.task)));
        let late = late.filter(|(_, task)| task.record.state == TaskState::Scheduled);
        let named = late.filter_map(|(id, task)| {
            let lane = lane_name(&lane(&task).ok()?);
            Some((id, *task, lane))
        });
        Ok(named.collect())
    }

    /// The change that escalates a waiting task whose deadline has passed.
    pub async fn miss_deadline(&self, id: &TaskId, task: Task) -> Result<Change> {
        let (guard, before) = (Some(task.whole_header()), task.record.clone());
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
        self.change(id, &mut after, None, decided).await
    }

    /// Lets the leases of one run end now.
    pub async fn expire_run(&self, run: &str) -> Result<usize> {
        self.expire_run_in(run, 0..self.keys.shards()).await
    }

    /// Asks all of these shards, and fails when one of them does.
    async fn expire_run_in(&self, run: &str, shards: impl Iterator<Item = u16>) -> Result<usize> {
        let asked = shards.map(|shard| self.noted(Part::Shard(shard), self.expire_run_of(shard, run)));
        let ended = futures_util::future::join_all(asked).await.into_iter().sum::<Result<i64>>()?;
        Ok(usize::try_from(ended).unwrap_or(0))
    }

    /// Where grants are many they are looked through in parts. What ends in between moves the others, so they are looked
    /// through again until there is nothing left to end.
    async fn expire_run_of(&self, shard: u16, run: &str) -> Result<i64> {
        let (mut ended, mut before, mut looked_at, mut calls) = (0, 0, 0, 0);
        loop {
            let mut call = EXPIRE_RUN.on(self.keys.shard(shard));
            call.arg(self.time.argument()).arg(run).arg(looked_at).arg(GRANTS_AT_ONCE);
            let reply = self.link.write(call).await?;
            let parts = items(&reply)?;
            ended += integer(at(parts, 0)?)?;
            looked_at += integer(at(parts, 1)?)?;
            calls += 1;
            if integer(at(parts, 2)?)? == 0 {
                if calls == 1 || ended == before {
                    return Ok(ended);
                }
                (before, looked_at, calls) = (ended, 0, 0);
            }
        }
    }

    /// Lets the leases of agents end that were silent for too long, and says when the next will have been. Silence from
    /// before they could be heard does not count: they may have had nobody to talk to.
    async fn silence(&self, reap: &mut Reap) -> Result<()> {
        let now_ms = self.now_ms();
        let silent_before_ms = now_ms.saturating_sub_unsigned(AGENT_DEAD_AFTER_MS);
        let mut silent = self.noted(Part::Once, self.silent_runs(silent_before_ms)).await?;
        // That may have been the first answer after a long while.
        if silent_before_ms <= self.reach.since_ms(Part::Once) {
            silent.clear();
        }
        let mut ended = Vec::new();
        for run in silent {
            if !self.is_silent(&run, silent_before_ms).await? {
                continue;
            }
            if self.end_leases(&run).await? {
                ended.push(run);
            } else {
                // Nothing new for it meanwhile.
                self.gone.set(run, true);
            }
        }
        // Marked after that: a coordinator that ends in between leaves the rest to another.
        let (gone, oldest_ms) = self.mark_gone(silent_before_ms, &ended).await?;
        for run in &gone {
            self.gone.set(run.clone(), true);
        }
        reap.gone = gone.iter().filter_map(|run| agent_of(run)).collect();
        if let Some(seen_ms) = oldest_ms {
            let since_ms = seen_ms.max(self.reach.since_ms(Part::Once));
            let next_ms = since_ms.saturating_add_unsigned(AGENT_DEAD_AFTER_MS) + 1;
            // In the past where a shard could not be reached: those runs wait for it.
            reap.look_again(next_ms.max(now_ms.saturating_add(if next_ms <= now_ms { AGAIN_MS } else { 0 })));
        }
        Ok(())
    }

    /// Lets a silent run's leases end wherever that can be done. False: a shard could not be reached, so its turn comes
    /// again.
    ///
    /// Who is silent is known in one slot, and the leases are in others: no script sees both. What is left is a moment, the
    /// way of this call: leases of a run that reports within it, after all that silence, are ended all the same, and its
    /// work is fenced off and runs again.
    async fn end_leases(&self, run: &str) -> Result<bool> {
        let open = (0..self.keys.shards()).filter(|shard| !self.reach.is_failing(Part::Shard(*shard)));
        let open: Vec<u16> = open.collect();
        match self.expire_run_in(run, open.iter().copied()).await {
            Ok(_) => Ok(open.len() == usize::from(self.keys.shards())),
            Err(StoreError::Unavailable(_)) => Ok(false),
            Err(error) => Err(error),
        }
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
