//! One transaction, as the verbs see it: rows, lanes, counters, and one reading of the clock.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rand::rngs::SmallRng;
use redrive_shared::cost::Cost;
use redrive_shared::id::{Name, TaskId};
use redrive_shared::lifecycle::{Record, Verdict};
use redrive_shared::limits::HISTORY_MAX_ENTRIES;
use redrive_shared::lock::Space;
use redrive_shared::retry::RetryPolicy;
use redrive_shared::task::{FailureRecord, Lane, TaskState};
use rusqlite::{Connection, OptionalExtension, Params, Row, params};

use super::lanes::LaneIndex;
use super::queues::QueueBook;
use super::rows::{Hot, class_counts, ending_name, failed_on_route, hot, micros, state_number, to_json};
use crate::store::format::rank;

/// How long a task that cannot be read is put off.
const SET_ASIDE_MS: i64 = 60_000;

/// What the writer keeps in memory between transactions. All of it can be built again from the tables, but arrivals, which
/// matter where there are several coordinators: with none known, nobody has come back elsewhere.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub lanes: LaneIndex,
    pub queues: QueueBook,
    /// Runs of agents that went silent: they get no work until they are heard from again.
    pub gone: HashSet<(Name, Name)>,
    /// When runs of agents last opened a presence connection, in µs.
    pub arrivals: HashMap<(Name, Name), i64>,
    /// Locks, and those that wait for them. The latter are lost where the tables are loaded anew.
    pub locks: Space,
    /// Whether `queues` changed since it was published.
    pub queues_changed: bool,
}

/// A transaction under way.
pub(super) struct Tx<'a> {
    pub connection: &'a Connection,
    pub memory: &'a mut Memory,
    pub rng: &'a mut SmallRng,
    /// The store's time, read once a transaction.
    pub now_us: i64,
    /// Before this moment nobody could reach this store: silence up to it proves nothing.
    pub opened_ms: i64,
    counts: HashMap<(i64, i64), i64>,
    lane_counts: HashMap<i64, i64>,
}

impl<'a> Tx<'a> {
    pub fn new(
        connection: &'a Connection,
        memory: &'a mut Memory,
        rng: &'a mut SmallRng,
        now_us: i64,
        opened_ms: i64,
    ) -> Self {
        let (counts, lane_counts) = (HashMap::new(), HashMap::new());
        Self { connection, memory, rng, now_us, opened_ms, counts, lane_counts }
    }

    pub fn now_ms(&self) -> i64 {
        self.now_us.div_euclid(1_000)
    }

    /// The hot row of a task.
    pub fn load(&self, id: &TaskId) -> rusqlite::Result<Option<Hot>> {
        let mut statement = self.connection.prepare_cached(include_str!("sql/load_task.sql"))?;
        statement.query_row([id.as_str()], hot).optional()
    }

    /// Writes a hot row back after a transition, and moves its lane and its counters along.
    pub fn save(&mut self, task: &mut Hot, before: &Before) -> rusqlite::Result<()> {
        let from = task.lane;
        let waits = task.record.state == TaskState::Scheduled;
        if waits {
            self.follow(task)?;
        }
        self.save_row(task, before.state)?;
        let stays = waits && task.lane == from && task.record.due_ms <= before.due_ms;
        if before.state == TaskState::Scheduled && !stays {
            self.refresh_lane(from)?;
        }
        if waits {
            self.memory.lanes.add_due(task.lane, task.record.due_ms);
        }
        Ok(())
    }

    /// Moves a task that is to wait into the lane of its route, and of retries where its ledger says so. The one that it was in
    /// may also be from before its policy changed, or from a release that did not tell retries apart: nothing but this moves
    /// those.
    fn follow(&mut self, task: &mut Hot) -> rusqlite::Result<()> {
        let before = self.lane(task.lane)?;
        let (mut lane, policy) = (before.clone(), self.policy(task.lane)?);
        let primary = task.primary.take().or(lane.dependency.take());
        lane.dependency = policy.dependency_at(primary.as_ref(), task.record.route).cloned();
        lane.follow(&task.record.ledger);
        let moves = lane != *before;
        if lane.dependency != primary {
            task.primary = primary;
        }
        if moves {
            let to = self.intern(&lane, self.queue(task.lane)?)?;
            self.count_lane(task.lane, -1);
            self.count_lane(to, 1);
            task.lane = to;
        }
        Ok(())
    }

    /// Like [`Tx::save`], and leaves it to the caller to refresh the lane: once, where many of its tasks move.
    pub fn save_row(&mut self, task: &Hot, before: TaskState) -> rusqlite::Result<()> {
        let record = &task.record;
        let mut statement = self.connection.prepare_cached(include_str!("sql/save_task.sql"))?;
        statement.execute(params![
            task.seq,
            state_number(record.state),
            record.epoch,
            record.nonce.0.cast_signed(),
            record.due_ms,
            record.lease_until_ms,
            record.started,
            record.leased_at_ms,
            record.runs,
            record.ledger.failed,
            record.ledger.lost,
            record.ledger.undelivered,
            record.ledger.deferred,
            record.ledger.released,
            class_counts(record),
            record.previous_delay_ms.map(u64::cast_signed),
            record.max_attempts,
            record.deadline_ms,
            record.expires_ms,
            task.entries,
            task.agent,
            task.boot_id,
            task.lane,
            record.route,
            failed_on_route(record),
            task.primary.as_deref(),
            micros(record.ledger.cost_usd),
            record.in_transaction,
        ])?;
        drop(statement);
        let queue = self.queue(task.lane)?;
        if before != record.state {
            self.count(queue, before, -1);
            self.count(queue, record.state, 1);
        }
        Ok(())
    }

    /// Looks up when the lane's next task is due.
    pub fn refresh_lane(&mut self, lane: i64) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare_cached(include_str!("sql/next_due.sql"))?;
        let next_due_ms = statement.query_row([lane], |row| row.get(0)).optional()?;
        self.memory.lanes.set_next_due(lane, next_due_ms);
        Ok(())
    }

    /// Adds a line to a task's history, and drops the oldest beyond the bound.
    pub fn write_history(&self, task: &mut Hot, line: &Line<'_>) -> rusqlite::Result<()> {
        let verdict = line.verdict;
        let mut statement = self.connection.prepare_cached(include_str!("sql/insert_attempt.sql"))?;
        statement.execute(params![
            task.seq,
            task.entries,
            task.record.runs,
            task.agent,
            line.route,
            line.started_ms,
            self.now_ms(),
            ending_name(verdict.end),
            line.failure.map(to_json).transpose()?,
            verdict.delay_ms.map(u64::cast_signed),
            line.note.unwrap_or(verdict.why),
            line.stand_in.as_deref(),
            micros(line.cost),
        ])?;
        task.entries += 1;
        let kept = i64::try_from(HISTORY_MAX_ENTRIES).unwrap_or(i64::MAX);
        if task.entries > kept {
            let mut statement =
                self.connection.prepare_cached("DELETE FROM attempts WHERE seq = ?1 AND entry < ?2")?;
            statement.execute(params![task.seq, task.entries - kept])?;
        }
        Ok(())
    }

    /// What a transition's line says beside its verdict: where the task was before it, and what it has cost since.
    pub fn line<'l>(
        &self,
        task: &Hot,
        verdict: &'l Verdict,
        before: &Before,
        started_ms: i64,
    ) -> rusqlite::Result<Line<'l>> {
        let stand_in = task.primary.as_ref().and(self.lane(task.lane)?.dependency.clone());
        let spent = task.record.ledger.cost_usd.micros().saturating_sub(before.cost.micros());
        let (failure, note, cost) = (None, None, Cost::from_micros(spent));
        let route = self.policy(task.lane)?.route_at(self.primary(task)?, before.route);
        Ok(Line { verdict, failure, started_ms, note, route, stand_in, cost })
    }

    /// The dependency that a task was enqueued with.
    pub fn primary<'t>(&'t self, task: &'t Hot) -> rusqlite::Result<Option<&'t Name>> {
        Ok(task.primary.as_ref().or(self.lane(task.lane)?.dependency.as_ref()))
    }

    /// The policy of a lane's queue.
    pub fn policy(&self, lane: i64) -> rusqlite::Result<Arc<RetryPolicy>> {
        let queue =
            self.memory.queues.by_number(self.queue(lane)?).ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        Ok(Arc::clone(&queue.policy))
    }

    /// The number of a lane's queue.
    pub fn queue(&self, lane: i64) -> rusqlite::Result<i64> {
        self.memory.lanes.queue(lane).ok_or(rusqlite::Error::QueryReturnedNoRows)
    }

    /// Every row that a query finds, whose first column is the sequence number. A task that cannot be read is put off, so
    /// that it does not hold up the others.
    pub fn read_all<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        let (mut found, mut unreadable) = (Vec::new(), Vec::new());
        while let Some(row) = rows.next()? {
            match read(row) {
                Ok(value) => found.push(value),
                Err(error) => unreadable.push((row.get(0)?, error)),
            }
        }
        drop(rows);
        for (seq, error) in unreadable {
            self.set_aside(seq, &error)?;
        }
        Ok(found)
    }

    /// Puts a task off whose row this release cannot read, so that it does not hold up its neighbours.
    pub fn set_aside(&self, seq: i64, error: &rusqlite::Error) -> rusqlite::Result<()> {
        tracing::error!(%error, seq, "a task cannot be read and is put off; was a newer release here?");
        let until_ms = self.now_ms().saturating_add(SET_ASIDE_MS);
        let mut statement = self.connection.prepare_cached(include_str!("sql/set_aside.sql"))?;
        statement.execute([seq, until_ms])?;
        Ok(())
    }

    /// The lane of a task.
    pub fn lane(&self, lane: i64) -> rusqlite::Result<&Lane> {
        self.memory.lanes.lane(lane).ok_or(rusqlite::Error::QueryReturnedNoRows)
    }

    /// The number of a lane, made if need be.
    pub fn intern(&mut self, lane: &Lane, queue: i64) -> rusqlite::Result<i64> {
        if let Some(id) = self.memory.lanes.find(lane) {
            return Ok(id);
        }
        self.connection
            .prepare_cached(
                "INSERT INTO lanes (queue, priority, dependency, grp, retry) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                queue,
                rank(lane.priority),
                lane.dependency.as_deref(),
                lane.group.as_deref(),
                lane.retry,
            ])?;
        let id = self.connection.last_insert_rowid();
        self.memory.lanes.insert(id, queue, lane.clone(), 0, None);
        Ok(id)
    }

    /// A task came into (1) or left (−1) a state of its queue.
    pub fn count(&mut self, queue: i64, state: TaskState, by: i64) {
        *self.counts.entry((queue, state_number(state))).or_default() += by;
    }

    /// A row refers to the lane (1), or no longer does (−1).
    pub fn count_lane(&mut self, lane: i64, by: i64) {
        *self.lane_counts.entry(lane).or_default() += by;
    }

    /// What was counted so far, to come back to.
    pub fn counted(&self) -> Counted {
        Counted { states: self.counts.clone(), lanes: self.lane_counts.clone() }
    }

    /// A verb was rolled back: forgets what it counted and what it changed in memory.
    pub fn undo(&mut self, kept: Counted, memory: Memory) {
        (self.counts, self.lane_counts) = (kept.states, kept.lanes);
        let queues_changed = self.memory.queues_changed;
        *self.memory = Memory { queues_changed, ..memory };
    }

    /// Writes what was counted: once a transaction, however many tasks moved.
    pub fn finish(self) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare_cached(include_str!("sql/count_tasks.sql"))?;
        for ((queue, state), by) in self.counts {
            if by != 0 {
                statement.execute(params![queue, state, by])?;
            }
        }
        for (lane, by) in self.lane_counts {
            if self.memory.lanes.count(lane, by) {
                self.memory.lanes.remove(lane);
                self.connection.prepare_cached("DELETE FROM lanes WHERE lane = ?1")?.execute([lane])?;
            } else {
                self.connection
                    .prepare_cached("UPDATE lanes SET tasks = tasks + ?2 WHERE lane = ?1")?
                    .execute(params![lane, by])?;
            }
        }
        Ok(())
    }
}

/// What a transaction has counted and not yet written.
pub(super) struct Counted {
    states: HashMap<(i64, i64), i64>,
    lanes: HashMap<i64, i64>,
}

/// A line of history that is to be written.
pub(super) struct Line<'a> {
    pub verdict: &'a Verdict,
    pub failure: Option<&'a FailureRecord>,
    pub started_ms: i64,
    /// What is said in the place of the verdict's words.
    pub note: Option<&'a str>,
    /// Where the attempt was on its chain.
    pub route: u32,
    /// Whom it went to, where that is not whom the task was enqueued with.
    pub stand_in: Option<Name>,
    pub cost: Cost,
}

/// What a record was before its transition.
pub(super) struct Before {
    pub state: TaskState,
    due_ms: i64,
    leased_at_ms: i64,
    route: u32,
    cost: Cost,
    pub was_called: bool,
}

impl Before {
    pub fn of(record: &Record) -> Self {
        let Record { state, due_ms, leased_at_ms, route, ref ledger, .. } = *record;
        let (cost, was_called) = (ledger.cost_usd, record.was_called());
        Self { state, due_ms, leased_at_ms, route, cost, was_called }
    }

    /// When the attempt that ends now began: a lease's start, or now where nobody held one.
    pub fn started_ms(&self, now_ms: i64) -> i64 {
        if self.state == TaskState::Leased { self.leased_at_ms } else { now_ms }
    }
}
