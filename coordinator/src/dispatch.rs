//! Long polls: claims that wait until something is due for them.
//!
//! Workers that want the same (queues and avoided dependencies) stand in one line. The dispatcher sleeps until the
//! earliest moment at which any line can get something, or until an earlier one is announced, and then claims for the
//! heads of those lines in one batch, a *wave*. A few waves may be under way at once, so that one is claimed while the tasks of
//! another are read. A task that becomes due wakes the heads of the lines that want it, not every worker.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use futures_util::future::Either;
use futures_util::stream::FuturesUnordered;
use redrive_shared::clock::Clock;
use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::gate::{Scope, Signal};
use redrive_shared::id::Name;
use redrive_shared::lifecycle::Fence;
use redrive_shared::limits::WAITING_CLAIMS_MAX;
use redrive_shared::task::Lease;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use crate::alarm::Alarm;
use crate::gates::{Keeper, began_ms};
use crate::metrics::record_resumed;
use crate::store::{Claim, Claimed, Ending, Settle, Settled, Store};
use crate::watch::Watchers;

/// Most claims in one batch: bounds how long one transaction may take.
const WAVE_MAX: usize = 64;
/// Most waves under way: one is claimed, one reads its tasks, one is answered.
const WAVES_MAX: usize = 3;
/// How long lines wait after the store failed before they try again, in milliseconds.
const RETRY_AFTER_FAILURE_MS: i64 = 500;

type Reply = Result<Vec<Lease>, Problem>;

/// What a line waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Interest {
    queues: Vec<Name>,
    avoid: Vec<Name>,
}

#[derive(Debug)]
struct Waiter {
    /// Who came first is served first, whatever line it stands in.
    ticket: u64,
    claim: Claim,
    /// Whether it waits when nothing is due.
    patient: bool,
    reply: oneshot::Sender<Reply>,
}

#[derive(Debug, Default)]
struct Line {
    waiters: VecDeque<Waiter>,
    /// From when on it is worth trying.
    try_at_ms: i64,
    /// Whose gates held something back from it, until they let more through.
    held_back: HashSet<Scope>,
    /// Waves under way that have waiters of it: until they are back it is kept, to remember what is announced meanwhile.
    under_way: usize,
}

#[derive(Debug, Default)]
struct Lines {
    lines: HashMap<Interest, Line>,
    waiting: usize,
    tickets: u64,
    closed: bool,
    /// Leases whose claims were given up.
    abandoned: Vec<Lease>,
}

impl Interest {
    fn of(claim: &Claim) -> Self {
        let (mut queues, mut avoid) = (claim.queues.clone(), claim.avoid.clone());
        queues.sort();
        avoid.sort();
        Self { queues, avoid }
    }
}

impl Lines {
    /// Drops those who have gone away.
    fn prune(&mut self) {
        let mut waiting = 0;
        for line in self.lines.values_mut() {
            line.waiters.retain(|waiter| !waiter.reply.is_closed());
            waiting += line.waiters.len();
        }
        self.waiting = waiting;
        self.drop_empty();
    }

    fn drop_empty(&mut self) {
        self.lines.retain(|_, line| !line.waiters.is_empty() || line.under_way > 0);
    }

    /// When a line may get something that has somebody in it.
    fn next_ms(&self) -> Option<i64> {
        self.lines.values().filter(|line| !line.waiters.is_empty()).map(|line| line.try_at_ms).min()
    }

    /// A wave that had waiters of these lines is back.
    fn come_back<'a>(&mut self, interests: impl Iterator<Item = &'a Interest>) {
        for interest in interests.collect::<HashSet<_>>() {
            if let Some(line) = self.lines.get_mut(interest) {
                line.under_way -= 1;
            }
        }
    }
}

/// What a claim waits for. Whoever gives a claim up in the moment in which it is answered has leases that nobody knows of:
/// they are handed back.
struct Answer<'a> {
    dispatcher: &'a Dispatcher,
    reply: oneshot::Receiver<Reply>,
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        self.reply.close();
        if let Ok(Ok(leases)) = self.reply.try_recv()
            && !leases.is_empty()
        {
            self.dispatcher.lock().abandoned.extend(leases);
            self.dispatcher.abandoning.notify_one();
        }
    }
}

/// Hands out leases to those who wait for them.
pub struct Dispatcher {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    watchers: Arc<Watchers>,
    reaper: Arc<Alarm>,
    gates: Arc<Keeper>,
    alarm: Alarm,
    abandoning: Notify,
    lines: Mutex<Lines>,
}

impl Dispatcher {
    /// A dispatcher; [`Dispatcher::run`] makes it work.
    ///
    /// `watchers` hear of tasks that a claim finds past their deadline, `reaper` of when the leases given will end. `gates` say
    /// what may be claimed.
    pub fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        watchers: Arc<Watchers>,
        reaper: Arc<Alarm>,
        gates: Arc<Keeper>,
    ) -> Self {
        let (alarm, abandoning) = (Alarm::default(), Notify::new());
        Self { store, clock, watchers, reaper, gates, alarm, abandoning, lines: Mutex::default() }
    }

    /// Claims, and waits up to `wait_ms` when nothing is due. Empty when nothing became due in time.
    pub async fn claim(&self, claim: Claim, wait_ms: u64) -> Reply {
        let until_ms = self.clock.now_ms().saturating_add_unsigned(wait_ms);
        let mut answer = Answer { dispatcher: self, reply: self.line_up(claim, wait_ms > 0)? };
        let timed_out = async {
            while self.clock.now_ms() < until_ms {
                self.clock.sleep_until(until_ms).await;
            }
        };
        tokio::select! {
            biased;
            reply = &mut answer.reply => return reply.unwrap_or_else(|_| Ok(Vec::new())),
            () = timed_out, if wait_ms > 0 => {}
        }
        // What was sent in this very moment must not be dropped.
        answer.reply.close();
        answer.reply.try_recv().unwrap_or_else(|_| Ok(Vec::new()))
    }

    /// A task of this queue is due then: whoever waits for it may have to wake earlier.
    pub fn announce(&self, queue: &Name, due_ms: i64) {
        let mut lines = self.lock();
        let mut concerned = false;
        for (interest, line) in &mut lines.lines {
            if line.try_at_ms > due_ms && interest.queues.contains(queue) {
                line.try_at_ms = due_ms;
                concerned = true;
            }
        }
        drop(lines);
        if concerned {
            self.alarm.set_earlier(due_ms);
        }
    }

    /// Something changed that may matter to any line (a queue resumed, another coordinator's hint).
    pub fn wake_all(&self) {
        for line in self.lock().lines.values_mut() {
            line.try_at_ms = i64::MIN;
        }
        self.alarm.set_earlier(i64::MIN);
    }

    /// The gates of these let more through: lines from which they held something back try again.
    pub fn let_through(&self, scopes: &[Scope]) {
        let scopes: HashSet<&Scope> = scopes.iter().collect();
        let mut concerned = false;
        for line in self.lock().lines.values_mut() {
            if line.held_back.iter().any(|scope| scopes.contains(scope)) {
                line.held_back.clear();
                line.try_at_ms = i64::MIN;
                concerned = true;
            }
        }
        if concerned {
            self.alarm.set_earlier(i64::MIN);
        }
    }

    /// How many claims wait.
    pub fn waiting(&self) -> usize {
        self.lock().waiting
    }

    /// Works until shutdown; then everyone who waits is told that nothing was due.
    pub async fn run(&self, shutdown: CancellationToken) {
        let mut waves = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.alarm.wait(&*self.clock), if waves.len() < WAVES_MAX => {
                    self.alarm.clear();
                    let wave = self.take_wave();
                    if !wave.is_empty() {
                        waves.push(Either::Left(self.serve(wave)));
                    }
                }
                () = self.abandoning.notified() => waves.push(Either::Right(self.hand_back_abandoned())),
                Some(()) = waves.next() => {}
            }
            if let Some(next_ms) = self.lock().next_ms() {
                self.alarm.set_earlier(next_ms);
            }
        }
        // What they are given reaches its workers.
        while waves.next().await.is_some() {}
        self.hand_back_abandoned().await;
        let mut lines = self.lock();
        lines.closed = true;
        lines.lines.clear();
        lines.waiting = 0;
    }

    fn line_up(&self, claim: Claim, patient: bool) -> Result<oneshot::Receiver<Reply>, Problem> {
        const RETRY_AFTER_MS: u64 = 1_000;
        let interest = Interest::of(&claim);
        let (reply, answer) = oneshot::channel();
        let mut lines = self.lock();
        if lines.closed {
            return Err(Problem::new(
                ErrorCode::ShuttingDown,
                "the coordinator takes no more claims; ask another",
            )
            .retry_after_ms(RETRY_AFTER_MS));
        }
        if lines.waiting >= WAITING_CLAIMS_MAX {
            lines.prune();
        }
        if lines.waiting >= WAITING_CLAIMS_MAX {
            return Err(Problem::new(
                ErrorCode::Overloaded,
                format!("{WAITING_CLAIMS_MAX} claims wait already; come back later or add a coordinator"),
            )
            .retry_after_ms(RETRY_AFTER_MS));
        }
        lines.waiting += 1;
        lines.tickets += 1;
        let ticket = lines.tickets;
        let line = lines.lines.entry(interest).or_default();
        line.waiters.push_back(Waiter { ticket, claim, patient, reply });
        line.try_at_ms = i64::MIN;
        drop(lines);
        self.alarm.set_earlier(i64::MIN);
        Ok(answer)
    }

    /// Claims for a wave.
    async fn serve(&self, wave: Vec<(Interest, Waiter)>) {
        if let Err(error) = self.gates.ready().await {
            return self.fail(wave, &Problem::from(error));
        }
        let claims: Vec<Claim> = wave.iter().map(|(_, waiter)| waiter.claim.clone()).collect();
        let gates = self.gates.restrict(&claims);
        match self.store.claim(claims.clone(), &gates).await {
            Ok(results) => {
                self.learn_held_back(&wave, &results);
                self.gates.claimed(&gates, &claims, &results);
                self.deliver(wave, results).await;
            }
            // What may have been given counts as used: it comes back with time.
            Err(error) => {
                self.gates.lost(&gates, &claims);
                self.fail(wave, &Problem::from(error));
            }
        }
    }

    /// Lines remember it before the gates are asked for more: what they then let through finds who waits for it.
    fn learn_held_back(&self, wave: &[(Interest, Waiter)], results: &[Claimed]) {
        if results.iter().all(|claimed| claimed.held_back.is_empty()) {
            return;
        }
        let mut lines = self.lock();
        for ((interest, _), claimed) in wave.iter().zip(results) {
            if let Some(line) = lines.lines.get_mut(interest) {
                line.held_back.extend(claimed.held_back.iter().cloned());
            }
        }
    }

    fn take_wave(&self) -> Vec<(Interest, Waiter)> {
        let now_ms = self.clock.now_ms();
        let mut lines = self.lock();
        lines.prune();
        let ready = lines.lines.values().filter(|line| line.try_at_ms <= now_ms);
        let mut tickets: Vec<u64> =
            ready.flat_map(|line| line.waiters.iter().take(WAVE_MAX)).map(|waiter| waiter.ticket).collect();
        tickets.sort_unstable();
        let Some(last) = tickets.get(WAVE_MAX - 1).or(tickets.last()).copied() else { return Vec::new() };
        let mut wave = Vec::new();
        for (interest, line) in lines.lines.iter_mut().filter(|(_, line)| line.try_at_ms <= now_ms) {
            let heads = line.waiters.iter().take_while(|waiter| waiter.ticket <= last).count();
            if heads > 0 {
                wave.extend(line.waiters.drain(..heads).map(|waiter| (interest.clone(), waiter)));
                // What this wave gets says when to try again; what is announced meanwhile may say sooner.
                line.try_at_ms = i64::MAX;
                line.under_way += 1;
            }
        }
        wave.sort_unstable_by_key(|(_, waiter)| waiter.ticket);
        lines.waiting -= wave.len();
        wave
    }

    async fn deliver(&self, wave: Vec<(Interest, Waiter)>, results: Vec<Claimed>) {
        let mut undelivered = Vec::new();
        let mut back = Vec::new();
        for ((interest, waiter), claimed) in wave.into_iter().zip(results) {
            for id in &claimed.too_late {
                metrics::counter!("redrive_deadline_passed_total").increment(1);
                self.watchers.settled(id);
            }
            if let Some(ends_ms) = claimed.leases.iter().map(|lease| lease.lease_until_ms).min() {
                self.reaper.set_earlier(ends_ms);
            }
            if !claimed.replayed {
                record_resumed(&claimed.leases);
            }
            // A claim that was filled may have left something for the next in line.
            let filled = claimed.leases.len() >= waiter.claim.max;
            let next_ms = if filled { i64::MIN } else { claimed.next_due_ms.unwrap_or(i64::MAX) };
            if claimed.leases.is_empty() && waiter.patient && !claimed.replayed {
                back.push((interest, Some(waiter), next_ms));
            } else {
                back.push((interest, None, next_ms));
                if let Err(Ok(leases)) = waiter.reply.send(Ok(claimed.leases)) {
                    undelivered.extend(leases);
                }
            }
        }
        self.line_up_again(back);
        if !undelivered.is_empty() {
            self.hand_back(undelivered).await;
        }
    }

    /// Those who got nothing go back to their places in their line, and every line learns when to try again.
    fn line_up_again(&self, back: Vec<(Interest, Option<Waiter>, i64)>) {
        // Later than now: a store whose clock is behind ours must not be asked in a tight loop.
        let soon_ms = self.clock.now_ms() + 1;
        let mut lines = self.lock();
        if lines.closed {
            return;
        }
        lines.come_back(back.iter().map(|(interest, ..)| interest));
        for (interest, waiter, next_ms) in back {
            let Some(line) = lines.lines.get_mut(&interest) else { continue };
            let next_ms = if next_ms == i64::MIN { next_ms } else { next_ms.max(soon_ms) };
            line.try_at_ms = line.try_at_ms.min(next_ms);
            if let Some(waiter) = waiter {
                let place = line.waiters.partition_point(|other| other.ticket < waiter.ticket);
                line.waiters.insert(place, waiter);
                lines.waiting += 1;
            }
        }
        lines.drop_empty();
    }

    /// Those who asked are told; only their lines wait a little before they try again.
    fn fail(&self, wave: Vec<(Interest, Waiter)>, problem: &Problem) {
        let now_ms = self.clock.now_ms();
        // The store may have given leases all the same: its answer is what was lost.
        self.reaper.set_earlier(now_ms + RETRY_AFTER_FAILURE_MS);
        let mut lines = self.lock();
        lines.come_back(wave.iter().map(|(interest, _)| interest));
        for (interest, waiter) in wave {
            if let Some(line) = lines.lines.get_mut(&interest) {
                line.try_at_ms = line.try_at_ms.max(now_ms).min(now_ms + RETRY_AFTER_FAILURE_MS);
            }
            let _ = waiter.reply.send(Err(problem.clone()));
        }
        lines.drop_empty();
    }

    async fn hand_back_abandoned(&self) {
        let abandoned = std::mem::take(&mut self.lock().abandoned);
        if !abandoned.is_empty() {
            self.hand_back(abandoned).await;
        }
    }

    /// Leases whose worker went away before they reached it: handed back at once, instead of waiting for their end.
    async fn hand_back(&self, leases: Vec<Lease>) {
        let began: Vec<i64> = leases.iter().map(|lease| began_ms(lease.epoch)).collect();
        let standing = self.gates.standing();
        let batch = leases
            .into_iter()
            .map(|lease| {
                let fence = Fence { epoch: lease.epoch, nonce: lease.nonce };
                Settle { standing: standing.clone(), ..Settle::new(lease.id, fence, Ending::Undelivered) }
            })
            .collect();
        match self.store.settle(batch).await {
            Ok(settled) => {
                let mut told = self.gates.told();
                for (began_ms, outcome) in began.into_iter().zip(settled) {
                    if let Settled::Applied { due_ms, queue, dependency, agent, .. } = outcome {
                        if let Some(dependency) = &dependency {
                            told.add(dependency, Signal::NotMade, agent.as_ref(), began_ms);
                        }
                        told.end(&queue, dependency.as_ref(), began_ms);
                        self.announce(&queue, due_ms);
                    }
                }
                self.gates.hear(told);
            }
            Err(error) => tracing::warn!(%error, "leases that nobody took run until their end"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
