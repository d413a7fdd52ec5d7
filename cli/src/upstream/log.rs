//! The record of what was asked and answered. Nothing is deduplicated: repeats are what it is read for.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::limits;
use super::reply::Reply;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A whole response was sent.
    Answered,
    /// The client left before its answer, or while it was being sent.
    ClientGone,
    /// The server broke off on purpose: `reset`, `cut`, or a `hang` that outlasted its bound.
    BrokenOff,
    /// The server was stopped.
    Stopped,
}

/// One request, as logged. `GET /log` gives these as JSON lines, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// This request's number on this server, from 0; gaps never occur.
    pub seq: u64,
    /// Its key, or `connection:N` for a request without one.
    pub key: String,
    /// How often this key had called, this request included: 1 for the first, outages and refusals counted.
    pub call: u64,
    /// The position in its script that it used, from 0; none in an outage or when refused.
    pub step: Option<u64>,
    /// `x-redrive-task`.
    pub task: Option<String>,
    /// `x-redrive-attempt`, if a number.
    pub attempt: Option<u32>,
    /// `x-redrive-epoch`, if a number.
    pub epoch: Option<u64>,
    /// When it had arrived whole, in ms since the server's start.
    pub started_ms: u64,
    /// When its answer was ready to go, or the client was seen to be gone; none while it is being served.
    pub ended_ms: Option<u64>,
    /// What was chosen to answer it; none if it was refused as malformed.
    pub reply: Option<Reply>,
    /// The status that was sent, if any.
    pub status: Option<u16>,
    /// Whether it arrived within an outage.
    pub in_outage: bool,
    /// How it ended; none while it is being served.
    pub outcome: Option<Outcome>,
}

/// Two calls of one key that were being served at the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// The one that started first.
    pub first: Entry,
    /// The one that started while it was being served.
    pub second: Entry,
    /// How long both were being served. When a client gives up and asks again at once, the server may see the second
    /// request a moment before it sees that the first one's client has gone: ignore overlaps of a few milliseconds
    /// where that can happen.
    pub lasted: Duration,
}

/// A request as stored: exact instants, and the key shared with the table of keys.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub key: Arc<str>,
    pub call: u64,
    pub step: Option<u64>,
    pub task: Option<String>,
    pub attempt: Option<u32>,
    pub epoch: Option<u64>,
    pub started: Duration,
    pub ended: Option<Duration>,
    pub reply: Option<Reply>,
    pub status: Option<u16>,
    pub in_outage: bool,
    pub outcome: Option<Outcome>,
}

impl Record {
    fn entry(&self, seq: u64) -> Entry {
        Entry {
            seq,
            key: self.key.to_string(),
            call: self.call,
            step: self.step,
            task: self.task.clone(),
            attempt: self.attempt,
            epoch: self.epoch,
            started_ms: millis(self.started),
            ended_ms: self.ended.map(millis),
            reply: self.reply,
            status: self.status,
            in_outage: self.in_outage,
            outcome: self.outcome,
        }
    }
}

fn millis(offset: Duration) -> u64 {
    u64::try_from(offset.as_millis()).unwrap_or(u64::MAX)
}

/// The newest records, by number.
#[derive(Debug)]
pub(super) struct Log {
    records: VecDeque<Record>,
    /// The number of the oldest record kept: so many were dropped.
    first_seq: u64,
    entries_max: usize,
}

impl Log {
    pub fn new(entries_max: usize) -> Self {
        Log { records: VecDeque::new(), first_seq: 0, entries_max: entries_max.min(limits::LOG_ENTRIES_MAX) }
    }

    /// The number that the next record gets: how many there have been.
    pub fn next_seq(&self) -> u64 {
        self.first_seq + self.records.len() as u64
    }

    pub fn dropped(&self) -> u64 {
        self.first_seq
    }

    pub fn push(&mut self, record: Record) -> u64 {
        let seq = self.next_seq();
        self.records.push_back(record);
        if self.records.len() > self.entries_max {
            self.records.pop_front();
            self.first_seq += 1;
        }
        seq
    }

    /// The record with this number, unless it was dropped.
    pub fn get_mut(&mut self, seq: u64) -> Option<&mut Record> {
        let index = usize::try_from(seq.checked_sub(self.first_seq)?).ok()?;
        self.records.get_mut(index)
    }

    pub fn entries(&self) -> Vec<Entry> {
        (self.first_seq..).zip(&self.records).map(|(seq, record)| record.entry(seq)).collect()
    }

    /// Pairs of records of one key that were served at the same time, at most [`limits::OVERLAPS_MAX`]. A record that is
    /// still being served lasts until `now`.
    pub fn overlaps(&self, now: Duration) -> Vec<Overlap> {
        // Of each key, those that may still be running when the next one starts. Records are in order of start.
        let mut running: HashMap<&str, Vec<(u64, &Record)>> = HashMap::new();
        let mut found = Vec::new();
        for (seq, record) in (self.first_seq..).zip(&self.records) {
            let before = running.entry(&record.key).or_default();
            before.retain(|(_, earlier)| earlier.ended.unwrap_or(now) > record.started);
            for (earlier_seq, earlier) in before.iter() {
                let end = earlier.ended.unwrap_or(now).min(record.ended.unwrap_or(now));
                let lasted = end.saturating_sub(record.started);
                // An answer without delay takes no time at all; whatever it coincides with was running then.
                found.push(Overlap { first: earlier.entry(*earlier_seq), second: record.entry(seq), lasted });
                if found.len() == limits::OVERLAPS_MAX {
                    return found;
                }
            }
            before.push((seq, record));
        }
        found
    }
}

/// What is known of one key, however many requests the log has dropped.
#[derive(Debug, Default)]
pub(super) struct KeyState {
    pub calls: u64,
    /// The position in the script that its next call gets.
    pub next_step: u64,
    /// Times that `ok` work was completed.
    pub effects: u64,
}

/// All keys seen.
#[derive(Debug, Default)]
pub(super) struct Keys(HashMap<Arc<str>, KeyState>);

impl Keys {
    /// The shared name and the state of `key`; none if it is new and there is no room for it.
    pub fn entry(&mut self, key: &str) -> Option<(Arc<str>, &mut KeyState)> {
        let name = match self.0.get_key_value(key) {
            Some((name, _)) => Arc::clone(name),
            None if self.0.len() >= limits::KEYS_MAX => return None,
            None => Arc::from(key),
        };
        Some((Arc::clone(&name), self.0.entry(name).or_default()))
    }

    pub fn get(&self, key: &str) -> Option<&KeyState> {
        self.0.get(key)
    }

    /// How often `ok` work was completed, for each key with any.
    pub fn effects(&self) -> BTreeMap<String, u64> {
        let worked = self.0.iter().filter(|(_, state)| state.effects > 0);
        worked.map(|(key, state)| (key.to_string(), state.effects)).collect()
    }
}
