//! What the connections share: scripts' progress, outages, the log. Every decision is made here, under one lock, at the
//! moment when a request has arrived whole.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::bucket::Bucket;
use super::http::Refusal;
use super::log::{Entry, Keys, Log, Outcome, Overlap, Record};
use super::reply::{Reply, Step};
use super::request::Ask;
use super::{Options, ScheduledOutage};

/// How many requests there have been; it only rises, so that a test can wait for it instead of sleeping.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Requests that have arrived whole.
    pub arrived: u64,
    /// Those of them that have ended.
    pub ended: u64,
}

/// What was decided for a request.
#[derive(Debug)]
pub(super) enum Decision {
    Step(Step),
    Refuse(Refusal),
}

/// Shared by the server, its connections and its handles.
#[derive(Debug)]
pub(super) struct Shared {
    started: Instant,
    scheduled: Vec<ScheduledOutage>,
    inner: Mutex<Inner>,
    progress: watch::Sender<Progress>,
}

#[derive(Debug)]
struct Inner {
    log: Log,
    keys: Keys,
    /// The outage that a handle began.
    outage: Option<Reply>,
    /// The limit that is enforced.
    bucket: Option<(Bucket, Reply)>,
    /// When the first request arrived: scheduled outages count from here.
    first_request: Option<Duration>,
}

impl Shared {
    pub fn new(options: &Options) -> Self {
        let log = Log::new(options.log_entries_max);
        let bucket = options.rate_limit.map(|limit| (Bucket::new(limit), limit.reply));
        Shared {
            started: Instant::now(),
            scheduled: options.outages.clone(),
            inner: Mutex::new(Inner {
                log,
                keys: Keys::default(),
                outage: None,
                bucket,
                first_request: None,
            }),
            progress: watch::Sender::new(Progress::default()),
        }
    }

    /// Decides how a request is answered, and logs it.
    pub fn admit(self: &Arc<Self>, ask: &Ask) -> (Call, Decision) {
        let mut inner = self.lock();
        let now = self.started.elapsed();
        let first_request = *inner.first_request.get_or_insert(now);
        let outage = inner.outage.or_else(|| self.scheduled_at(now.saturating_sub(first_request)));
        let Inner { log, keys, bucket, .. } = &mut *inner;
        let refused = bucket
            .as_mut()
            .filter(|_| outage.is_none())
            .and_then(|(bucket, reply)| if bucket.take(now) { None } else { Some(*reply) });
        let (key, call, step, decision) = match keys.entry(&ask.key) {
            None => {
                let message = "this server has seen too many different keys; restart it";
                (Arc::from(ask.key.as_str()), 1, None, Decision::Refuse(Refusal::new(503, message)))
            }
            Some((key, state)) => {
                state.calls += 1;
                let call = state.calls;
                match (outage.or(refused), &ask.fault) {
                    (Some(reply), _) => (key, call, None, Decision::Step(reply.into())),
                    (None, Some(fault)) => (key, call, None, Decision::Refuse(fault.clone())),
                    (None, None) => {
                        let at = state.next_step;
                        state.next_step += 1;
                        let step = usize::try_from(at).ok().and_then(|at| ask.script.get(at));
                        let step = step.copied().unwrap_or(Reply::Ok.into());
                        (key, call, Some(at), Decision::Step(step))
                    }
                }
            }
        };
        let reply = match &decision {
            Decision::Step(step) => Some(step.reply),
            Decision::Refuse(_) => None,
        };
        let seq = log.push(Record {
            key: Arc::clone(&key),
            call,
            step,
            task: ask.task.clone(),
            attempt: ask.attempt,
            epoch: ask.epoch,
            started: now,
            ended: None,
            reply,
            status: None,
            in_outage: outage.is_some(),
            outcome: None,
        });
        drop(inner);
        self.progress.send_modify(|progress| progress.arrived += 1);
        (Call { shared: Arc::clone(self), seq, key, number: call, reply, ended: false }, decision)
    }

    fn scheduled_at(&self, offset: Duration) -> Option<Reply> {
        let on = self.scheduled.iter().find(|outage| (outage.from..outage.to).contains(&offset));
        on.map(|outage| outage.reply)
    }

    fn end(&self, call: &Call, outcome: Outcome, status: Option<u16>) {
        let mut inner = self.lock();
        let ended = self.started.elapsed();
        if let Some(record) = inner.log.get_mut(call.seq) {
            (record.ended, record.outcome, record.status) = (Some(ended), Some(outcome), status);
        }
        if outcome == Outcome::Answered
            && call.reply == Some(Reply::Ok)
            && let Some((_, state)) = inner.keys.entry(&call.key)
        {
            state.effects += 1;
        }
        drop(inner);
        self.progress.send_modify(|progress| progress.ended += 1);
    }

    fn undelivered(&self, seq: u64) {
        if let Some(record) = self.lock().log.get_mut(seq) {
            record.outcome = Some(Outcome::ClientGone);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while holding the lock; if something did, the log would still be worth reading.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request being served. It must be ended; one that is dropped (its connection aborted) was stopped by the server.
#[derive(Debug)]
pub(super) struct Call {
    shared: Arc<Shared>,
    pub seq: u64,
    pub key: Arc<str>,
    /// How often its key has called, this call included.
    pub number: u64,
    reply: Option<Reply>,
    ended: bool,
}

impl Call {
    /// Marks the end, *before* the last byte of the answer is sent: a client that waits for its answer and then asks
    /// again must never look as if it had asked twice at once.
    pub fn end(&mut self, outcome: Outcome, status: Option<u16>) {
        if !self.ended {
            self.ended = true;
            self.shared.end(self, outcome, status);
        }
    }

    /// Notes that the answer could not be sent after all. Work that `ok` completed stays completed: that is the case
    /// in which a retry does it twice.
    pub fn undelivered(&self) {
        self.shared.undelivered(self.seq);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(Outcome::Stopped, None);
    }
}

/// Reads an upstream's log and starts and stops its outages. Cheap to clone; outlives the server.
#[derive(Debug, Clone)]
pub struct UpstreamHandle {
    pub(super) shared: Arc<Shared>,
}

impl UpstreamHandle {
    /// From now on every request gets this reply and advances no script. Replaces an outage that is on.
    pub fn begin_outage(&self, reply: Reply) {
        self.shared.lock().outage = Some(reply);
    }

    /// Ends the outage that [`Self::begin_outage`] began; a scheduled one keeps its times.
    pub fn end_outage(&self) {
        self.shared.lock().outage = None;
    }

    /// The log, oldest first: at most the newest 200,000 requests.
    pub fn log(&self) -> Vec<Entry> {
        self.shared.lock().log.entries()
    }

    /// How many requests the log has dropped because it was full.
    pub fn log_dropped(&self) -> u64 {
        self.shared.lock().log.dropped()
    }

    /// How many requests have arrived, whatever became of them; also those that the log has dropped.
    pub fn calls(&self) -> u64 {
        self.shared.lock().log.next_seq()
    }

    /// How many requests with this key have arrived.
    pub fn calls_of(&self, key: &str) -> u64 {
        self.shared.lock().keys.get(key).map_or(0, |state| state.calls)
    }

    /// How often `ok` work was completed, for each key with any: more than 1 is work done twice. A request without a
    /// key counts for its connection (`connection:N`), where more than 1 means nothing.
    pub fn effects(&self) -> BTreeMap<String, u64> {
        self.shared.lock().keys.effects()
    }

    /// Pairs of calls of one key that were being served at the same time, of those in the log; at most 10,000.
    pub fn overlaps(&self) -> Vec<Overlap> {
        let inner = self.shared.lock();
        inner.log.overlaps(self.shared.started.elapsed())
    }

    /// How many requests have arrived and ended, to wait on: `progress().wait_for(|p| p.ended >= 3).await`.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.shared.progress.subscribe()
    }
}
