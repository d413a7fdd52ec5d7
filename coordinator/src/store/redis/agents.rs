//! Agents: heartbeats, who is silent, who is there.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redis::{Value, cmd};
use redrive_shared::lifecycle::Fence;
use redrive_shared::limits::AGENT_REMEMBERED_MS;
use redrive_shared::wire::{AgentView, Heartbeat};

use super::Inner;
use super::commands::read;
use super::keys::run_name;
use super::reach::Part;
use super::reply::{at, integer, items, maybe_integer, pairs, text, texts};
use super::scripts::{ARRIVE, BEAT, SILENCE};
use crate::store::lost::Lost;
use crate::store::{Arrival, Beaten, Extend, Result, StoreError, views};

/// Runs marked as gone in one round.
const SILENT_MAX: usize = 1_000;

/// Runs of agents that went silent: they get no work until they are heard from again.
#[derive(Default)]
pub(super) struct Gone(Mutex<(HashSet<String>, u64)>);

impl Gone {
    pub fn contains(&self, run: &str) -> bool {
        self.lock().0.contains(run)
    }

    /// How often it was changed here.
    pub fn changes(&self) -> u64 {
        self.lock().1
    }

    /// A run is gone, or was heard from.
    pub fn set(&self, run: String, gone: bool) {
        let mut all = self.lock();
        all.1 += 1;
        if gone {
            all.0.insert(run);
        } else {
            all.0.remove(&run);
        }
    }

    /// What was read, unless it was changed here meanwhile: then it may be out of date, and is read again soon.
    fn replace(&self, runs: Vec<String>, changes: u64) {
        let mut all = self.lock();
        if all.1 == changes {
            all.0 = runs.into_iter().collect();
        }
    }

    fn lock(&self) -> MutexGuard<'_, (HashSet<String>, u64)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// An agent is alive, and extends its leases.
    pub async fn heartbeat(&self, beat: Heartbeat) -> Result<Beaten> {
        let extends = beat.leases.iter().map(|lease| Extend {
            id: lease.id.clone(),
            fence: Fence { epoch: lease.epoch, nonce: lease.nonce },
            lease_ms: beat.lease_ms,
            run: None,
        });
        let extends: Vec<Extend> = extends.collect();
        let farewell = beat.draining && beat.in_flight == 0;
        let run = run_name(&beat.agent, Some(&beat.boot_id));
        let agent = beat.agent.clone();
        let summary = Heartbeat { leases: Vec::new(), ..beat };
        let kept = serde_json::to_string(&summary)
            .map_err(|error| StoreError::Corrupt(format!("a heartbeat: {error}")))?;
        let mut call = BEAT.on(self.keys.once(""));
        call.arg(self.time.argument()).arg(&run).arg(kept).arg(u8::from(farewell)).arg(agent.as_str());
        // That it lives is noted first, so that nobody ends for its silence what it extends; and even where a shard of its
        // tasks cannot be reached.
        let heard = self.noted(Part::Once, self.link.write(call)).await;
        if heard.is_ok() {
            self.gone.set(run, farewell);
        }
        let leases = self.extend(extends).await?;
        let heard = heard?;
        let kept = items(&heard)?;
        let commands = read(text(at(kept, 0)?)?)?.pending(&summary.breakers);
        let lost = Lost::read(text(at(kept, 1)?)?).told(&summary.boot_id, self.now_ms());
        Ok(Beaten { leases, commands, lost })
    }

    /// A run opened a presence connection.
    pub async fn arrive(&self, run: &str) -> Result<Arrival> {
        let mut call = ARRIVE.on(self.keys.once(""));
        call.arg(self.time.argument()).arg(run);
        Ok(Arrival(integer(&self.link.write(call).await?)?))
    }

    /// Lets the leases of a run end, unless it arrived again since.
    pub async fn expire_departed(&self, run: &str, arrival: Arrival) -> Result<usize> {
        let query = cmd("ZSCORE").arg(self.keys.once("arrived")).arg(run).to_owned();
        // Where none is known any more it is an hour old, and nobody came since.
        if maybe_integer(&self.link.query(&query).await?)?.is_some_and(|last| last != arrival.0) {
            return Ok(0);
        }
        // Arrivals and leases are in different slots: who arrives between the look and this is as late as who arrives a
        // moment after it, when the grace is over. Its next heartbeat makes leases longer that nobody has reaped yet;
        // for the rest it is told that they are stale, and their tasks run again.
        self.expire_run(run).await
    }

    /// Runs that were last heard from before that.
    pub async fn silent_runs(&self, before_ms: i64) -> Result<Vec<String>> {
        let mut query = cmd("ZRANGEBYSCORE");
        query.arg(self.keys.once("seen")).arg("-inf").arg(format!("({before_ms}"));
        let mut runs = texts(&self.link.query(query.arg("LIMIT").arg(0).arg(SILENT_MAX)).await?)?;
        runs.sort();
        Ok(runs)
    }

    /// Whether a run was still last heard from before that.
    pub async fn is_silent(&self, run: &str, before_ms: i64) -> Result<bool> {
        let query = cmd("ZSCORE").arg(self.keys.once("seen")).arg(run).to_owned();
        let seen_ms = match self.link.query(&query).await? {
            // As RESP3 tells scores.
            Value::Double(score) => Some(score),
            Value::Nil => None,
            score => text(&score)?.parse().ok(),
        };
        Ok(seen_ms.is_some_and(|seen_ms| seen_ms < before_ms as f64))
    }

    /// Marks those of the runs as gone that are still silent; returns them, and when the one was heard from that has been
    /// silent longest of all others.
    pub async fn mark_gone(&self, before_ms: i64, runs: &[String]) -> Result<(Vec<String>, Option<i64>)> {
        let mut call = SILENCE.on(self.keys.once(""));
        call.arg(self.time.argument()).arg(before_ms).arg("").arg(runs);
        let reply = self.link.write(call).await?;
        let parts = items(&reply)?;
        let oldest_ms = parts.first().map(maybe_integer).transpose()?.flatten();
        let gone = parts.iter().skip(1).map(|run| text(run).map(str::to_owned)).collect::<Result<_>>()?;
        Ok((gone, oldest_ms))
    }

    /// Forgets those that were gone for long.
    pub async fn forget_agents(&self) -> Result<()> {
        let before_ms = self.now_ms().saturating_sub_unsigned(AGENT_REMEMBERED_MS);
        let mut call = SILENCE.on(self.keys.once(""));
        call.arg(self.time.argument()).arg("").arg(before_ms);
        self.link.write(call).await?;
        self.learn_gone().await
    }

    /// Reads which runs are gone: other coordinators find some.
    pub async fn learn_gone(&self) -> Result<()> {
        let query = cmd("ZRANGE").arg(self.keys.once("gone")).arg(0).arg(-1).to_owned();
        let before = self.gone.changes();
        let runs = texts(&self.link.query(&query).await?)?;
        self.gone.replace(runs, before);
        Ok(())
    }

    /// Every agent known, by name.
    pub async fn agents(&self) -> Result<Vec<AgentView>> {
        let reply = self.link.query(cmd("HGETALL").arg(self.keys.once("agents"))).await?;
        let commands = self.breaker_commands().await?;
        let mut agents = Vec::new();
        for (_, known) in pairs(&reply)? {
            let known = text(known)?;
            let mut parts = known.splitn(3, ' ');
            let (Some(seen), Some(gone), Some(beat)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            let Some(beat) = views::beat(beat) else { continue };
            let commands = commands.get(beat.agent.as_str()).cloned().unwrap_or_default();
            agents.push(views::agent(beat, gone == "1", seen.parse().unwrap_or(0), commands));
        }
        agents.sort_by(|a, b| (&a.agent, -a.seen_at_ms).cmp(&(&b.agent, -b.seen_at_ms)));
        Ok(agents)
    }
}
