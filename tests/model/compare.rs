//! Commands on both sides, and the comparison.

use redrive_coordinator::store::{Acted, Enqueued, Extend, Extended, Run, Settle, Settled};
use redrive_shared::lifecycle::Fence;
use redrive_shared::retry::{RetryPolicy, Strategy};
use redrive_shared::task::{Nonce, StateCounts, TaskState, TaskView};

use super::command::{AGENTS, Command, Ending, Failure, Forgery, IDS, NewTask, QUEUES, Shown};
use super::judge::RULES;
use super::reference::{Agent, Lease, Model, Standing, Task};
use crate::support::{Bed, EnqueueExt, beat, failure, id, name, raw, task};

/// A store and its model.
pub struct Pair {
    pub bed: Bed,
    pub model: Model,
    /// Every lease ever given, to show again.
    pub given: Vec<(usize, Fence)>,
    /// Whether the clock was ever set back.
    pub set_back: bool,
}

impl Pair {
    pub async fn new(bed: Bed) -> Self {
        for (queue, rules) in QUEUES.iter().zip(RULES) {
            let policy = RetryPolicy {
                strategy: Strategy::Fixed { delay_ms: rules.delay_ms },
                max_attempts: rules.max_attempts,
                deadline_ms: rules.deadline_ms.cast_unsigned(),
                retention_ms: rules.retention_ms.cast_unsigned(),
                lease_ms: rules.lease_ms.cast_unsigned(),
                ..RetryPolicy::default()
            };
            bed.put_queue(&name(queue), policy).await.unwrap();
        }
        let model = Model { opened_ms: bed.now_ms(), ..Model::default() };
        Self { bed, model, given: Vec::new(), set_back: false }
    }

    pub async fn step(&mut self, command: &Command) {
        match command {
            Command::Enqueue(specs) => self.enqueue(specs).await,
            Command::Claim(claim) => self.claim(claim).await,
            Command::Extend(shown, lease_ms, taker) => self.extend(shown, *lease_ms, *taker).await,
            Command::Settle(settlements) => self.settle(settlements).await,
            Command::Reap(limit) => self.reap(*limit).await,
            Command::Cancel(task) => self.act(*task, true).await,
            Command::Retry(task) => self.act(*task, false).await,
            Command::Forget(limit) => self.forget(*limit).await,
            Command::Pause(queue, paused) => {
                assert!(self.bed.pause(&name(QUEUES[*queue]), *paused).await.unwrap());
                self.model.paused[*queue] = *paused;
            }
            Command::Heartbeat(agent, leases) => self.heartbeat(*agent, leases).await,
            Command::ExpireLeases(agent) => {
                let (agent_name, boot_id) = (name(AGENTS[*agent]), boot_of(*agent));
                let arrival = self.bed.arrive(&agent_name, &boot_id).await.unwrap();
                let ended = self.bed.expire_leases(&agent_name, &boot_id, arrival).await.unwrap();
                assert_eq!(ended, self.model.expire(*agent, self.bed.now_ms()));
            }
            Command::Advance(by_ms) => {
                self.set_back |= *by_ms < 0;
                self.bed.advance(*by_ms);
            }
            Command::Reopen => {
                self.bed.reopen().await;
                self.model.opened_ms = self.bed.now_ms();
            }
        }
        self.assert_the_same().await;
    }

    fn now_us(&self) -> i64 {
        self.bed.now_ms() * 1_000
    }

    async fn enqueue(&mut self, specs: &[NewTask]) {
        let answers = self.bed.enqueue(specs.iter().map(store_task).collect()).await.unwrap();
        for (spec, answer) in specs.iter().zip(answers) {
            if let Some(known) = self.model.tasks.get(&spec.id) {
                let same = (known.queue, known.payload) == (spec.queue, spec.payload);
                let duplicate = Enqueued::Duplicate { state: known.state, due_ms: known.due_ms };
                assert_eq!(answer, if same { duplicate } else { Enqueued::IdReused });
                continue;
            }
            let Enqueued::Created { state, due_ms } = answer else { panic!("{spec:?} is new: {answer:?}") };
            self.model.enqueued += 1;
            let (mut task, allowed) = Task::new(spec, self.model.enqueued, self.now_us());
            task.adopt(allowed, state, due_ms, self.bed.now_ms());
            self.model.tasks.insert(spec.id, task);
        }
    }

    /// The task and the fence that a caller shows; nothing was leased yet: some task, and a guess.
    fn show(&self, shown: Shown) -> (usize, Fence) {
        let index = self.given.len().checked_sub(1 + shown.back % self.given.len().max(1));
        let guess = (0, Fence { epoch: 1, nonce: Nonce(1) });
        let (task, mut fence) = index.map_or(guess, |index| self.given[index]);
        match shown.forgery {
            Forgery::None => {}
            Forgery::OtherNonce => fence.nonce.0 ^= 1,
            Forgery::EpochAfter => fence.epoch += 1,
            Forgery::SeenEpoch(nonce) => {
                fence = Fence {
                    epoch: self.model.tasks.get(&task).map_or(1, |task| task.epoch),
                    nonce: Nonce(nonce),
                };
            }
        }
        (task, fence)
    }

    async fn extend(&mut self, shown: &[Shown], lease_ms: Option<u64>, taker: Option<usize>) {
        let items: Vec<(usize, Fence)> = shown.iter().map(|shown| self.show(*shown)).collect();
        let run = taker.map(|agent| Run { agent: name(AGENTS[agent]), boot_id: boot_of(agent) });
        let extend =
            |(task, fence): &_| Extend { id: id(IDS[*task]), fence: *fence, lease_ms, run: run.clone() };
        let answers = self.bed.extend(items.iter().map(extend).collect()).await.unwrap();
        for ((task, fence), answer) in items.into_iter().zip(answers) {
            assert_eq!(answer, self.expect_extension(task, fence, lease_ms, taker));
        }
    }

    fn expect_extension(
        &mut self,
        task: usize,
        fence: Fence,
        lease_ms: Option<u64>,
        taker: Option<usize>,
    ) -> Extended {
        let now_ms = self.bed.now_ms();
        let Some(task) = self.model.tasks.get_mut(&task) else { return Extended::Unknown };
        let length_ms = lease_ms.map_or(task.rules().lease_ms, u64::cast_signed);
        match (task.standing(fence), &mut task.lease) {
            // What another has started is not its to take.
            (Standing::Holds, Some(lease))
                if lease.started && taker.is_some_and(|taker| taker != lease.agent) =>
            {
                Extended::Stale(task.state)
            }
            (Standing::Holds, Some(lease)) => {
                lease.started = true;
                lease.agent = taker.unwrap_or(lease.agent);
                lease.until_ms = lease.until_ms.max(now_ms + length_ms);
                Extended::Until(lease.until_ms)
            }
            _ => Extended::Stale(task.state),
        }
    }

    async fn settle(&mut self, settlements: &[(Shown, Ending)]) {
        let items: Vec<_> = settlements.iter().map(|(shown, ending)| (self.show(*shown), *ending)).collect();
        let settle = |task: usize, fence, ending| Settle::new(id(IDS[task]), fence, store_ending(ending));
        let batch = items.iter().map(|((task, fence), ending)| settle(*task, *fence, *ending));
        let answers = self.bed.settle(batch.collect()).await.unwrap();
        let now_ms = self.bed.now_ms();
        for (((task, fence), ending), answer) in items.into_iter().zip(answers) {
            let Some(task) = self.model.tasks.get_mut(&task) else {
                assert_eq!(answer, Settled::Unknown);
                continue;
            };
            match task.standing_to_settle(fence, ending) {
                Standing::Holds => {
                    let Settled::Applied { state, due_ms, queue, dependency, group, agent, retried } = answer
                    else {
                        panic!("it holds: {answer:?}")
                    };
                    assert_eq!((&*queue, retried), (QUEUES[task.queue], task.called));
                    assert_eq!(dependency, task.lane.2.map(dependency_name));
                    assert_eq!(group, task.lane.1.map(|number| name(&format!("g{number}"))));
                    assert_eq!(agent, task.lease.map(|lease| name(AGENTS[lease.agent])));
                    let allowed = task.settle(ending, now_ms);
                    task.adopt(allowed, state, due_ms, now_ms);
                }
                Standing::SettledIt => {
                    assert_eq!(answer, Settled::Repeated { state: task.state, due_ms: task.due_ms });
                }
                Standing::Stale => assert_eq!(answer, Settled::Stale(task.state)),
            }
        }
    }

    async fn reap(&mut self, limit: usize) {
        let round = self.bed.reap(limit).await.unwrap();
        let now_ms = self.bed.now_ms();
        let gone: Vec<_> = self.model.silence(now_ms).into_iter().map(|agent| name(AGENTS[agent])).collect();
        assert_eq!(round.gone, gone);
        let until = |task: &Task| task.lease.map(|lease| lease.until_ms);
        let grace_ms = self.model.opened_ms + 10_000;
        let opened_ms = self.model.opened_ms;
        let spared = move |lease: &Lease| now_ms < grace_ms && lease.given_ms < opened_ms;
        let over = |task: &&Task| task.lease.is_some_and(|lease| lease.until_ms <= now_ms && !spared(&lease));
        assert_eq!(round.reaped.len(), self.model.tasks.values().filter(over).count().min(limit));
        for reaped in &round.reaped {
            let task = self.model.tasks.get_mut(&number_of(&reaped.id)).unwrap();
            let lease = task.lease.expect("a lease");
            assert!(lease.until_ms <= now_ms && !spared(&lease));
            assert_eq!((reaped.started, &*reaped.queue), (lease.started, QUEUES[task.queue]));
            assert_eq!(reaped.retried, task.called);
            let allowed = task.lose(now_ms * 1_000);
            task.adopt(allowed, reaped.state, reaped.due_ms, now_ms);
        }
        let waits = |task: &&Task| task.state == TaskState::Scheduled;
        let late = self.model.tasks.values().filter(waits).filter(|task| task.deadline_ms < now_ms).count();
        assert_eq!(round.too_late.len(), late.min(limit));
        for id in &round.too_late {
            let task = self.model.tasks.get_mut(&number_of(id)).unwrap();
            assert!(task.state == TaskState::Scheduled && task.deadline_ms < now_ms);
            task.too_late(now_ms * 1_000);
        }
        let heard = self.model.agents.values().filter(|agent| !agent.gone);
        let silent = heard.map(|agent| agent.seen_ms.max(self.model.opened_ms) + 15_001);
        let overdue = self.model.tasks.values().filter(waits).map(|task| task.deadline_ms + 1);
        // What is over and still there, spared or beyond the limit, comes up again: at once, or when the grace ends.
        let next = self.model.tasks.values().filter_map(until).min();
        let next = next.map(|ms| if ms <= now_ms && now_ms < grace_ms { grace_ms } else { ms });
        let expected = next.into_iter().chain(silent).chain(overdue).min();
        // It may be early, by what has left since, and never late; and never at once without a reason.
        let in_time = match (round.next_ms, expected) {
            (Some(next_ms), Some(expected_ms)) if expected_ms <= now_ms => next_ms <= now_ms,
            (Some(next_ms), Some(expected_ms)) => now_ms < next_ms && next_ms <= expected_ms,
            (next, None) => next.is_none_or(|next_ms| next_ms > now_ms),
            (None, Some(_)) => false,
        };
        assert!(in_time, "to look again at {:?}; at the latest {expected:?}, it is {now_ms}", round.next_ms);
    }

    async fn act(&mut self, task: usize, cancel: bool) {
        let now_us = self.now_us();
        let text = IDS[task];
        let answer = if cancel { self.bed.cancel_one(text).await } else { self.bed.retry_one(text).await };
        let Some(task) = self.model.tasks.get_mut(&task) else {
            assert_eq!(answer, Acted::Unknown);
            return;
        };
        let ended = task.lease.map(|lease| lease.fence.epoch).filter(|_| cancel);
        let done = if cancel { task.cancel(now_us) } else { task.retry(now_us) };
        let now = Acted::Now { state: task.state, due_ms: task.due_ms, ended };
        assert_eq!(answer, if done { now } else { Acted::WrongState(task.state) });
    }

    async fn forget(&mut self, limit: usize) {
        let forgotten = self.bed.forget(limit).await.unwrap();
        let now_ms = self.bed.now_ms();
        let mut over: Vec<(i64, usize)> = Vec::new();
        for (number, task) in &self.model.tasks {
            over.extend(task.expires_ms.filter(|expires_ms| *expires_ms <= now_ms).map(|ms| (ms, *number)));
        }
        assert_eq!(forgotten, over.len().min(limit));
        // Which of those that are over at the same moment go first is the store's business.
        let mut left = 0;
        for (_, number) in &over {
            match self.bed.get(&id(IDS[*number])).await.unwrap() {
                Some(_) => left += 1,
                None => drop(self.model.tasks.remove(number)),
            }
        }
        assert_eq!(left, over.len() - forgotten);
    }

    async fn heartbeat(&mut self, agent: usize, backs: &[usize]) {
        let shown = |back: &usize| self.show(Shown { back: *back, forgery: Forgery::None });
        let items: Vec<(usize, Fence)> = backs.iter().map(shown).collect();
        let mut sent = beat(AGENTS[agent], &boot_of(agent));
        sent.leases.extend(items.iter().map(|(task, fence)| redrive_shared::wire::LeaseRef {
            id: id(IDS[*task]),
            epoch: fence.epoch,
            nonce: fence.nonce,
        }));
        let beaten = self.bed.heartbeat(sent).await.unwrap();
        for ((task, fence), answer) in items.into_iter().zip(beaten.leases) {
            assert_eq!(answer, self.expect_extension(task, fence, None, None));
        }
        self.model.agents.insert(agent, Agent { seen_ms: self.bed.now_ms(), gone: false });
    }

    async fn assert_the_same(&self) {
        for (number, text) in IDS.iter().enumerate() {
            let view = self.bed.get(&id(text)).await.unwrap();
            match (view, self.model.tasks.get(&number)) {
                (Some(view), Some(task)) => assert_same_task(&view, task),
                (None, None) => {}
                (view, task) => panic!("{text}: the store has {view:?}, the model {task:?}"),
            }
        }
        for queue in self.bed.queues().await.unwrap() {
            let Some(number) = QUEUES.iter().position(|known| *known == &*queue.name) else { continue };
            let mut counts = StateCounts::default();
            let tasks: Vec<&Task> = self.model.tasks.values().filter(|task| task.queue == number).collect();
            tasks.iter().for_each(|task| *counts.of(task.state) += 1);
            let waiting = tasks.iter().filter(|task| task.state == TaskState::Scheduled);
            assert_eq!(queue.counts, counts, "{}", queue.name);
            assert_eq!(queue.next_due_at_ms, waiting.map(|task| task.due_ms).min(), "{}", queue.name);
            assert_eq!(queue.paused, self.model.paused[number]);
        }
    }
}

fn assert_same_task(view: &TaskView, task: &Task) {
    let seen = (view.state, view.epoch, view.due_at_ms, view.deadline_at_ms, view.expires_at_ms, view.runs);
    let expected = (task.state, task.epoch, task.due_ms, task.deadline_ms, task.expires_ms, task.runs);
    assert_eq!(seen, expected, "{}: state, epoch, due, deadline, expiry, runs", view.id);
    assert_eq!(view.ledger, task.ledger, "{}", view.id);
    assert_eq!(view.lease_until_ms, task.lease.map(|lease| lease.until_ms), "{}", view.id);
    assert_eq!(view.agent, task.lease.map(|lease| name(AGENTS[lease.agent])), "{}", view.id);
    assert_eq!(view.max_attempts, task.max_attempts, "{}", view.id);
    assert_eq!(view.result.is_some(), task.has_result, "{}", view.id);
    assert_eq!(view.history.len(), task.history.min(50), "{}: {:?}", view.id, view.history);
}

pub fn boot_of(agent: usize) -> redrive_shared::id::Name {
    name(&format!("{}-1", AGENTS[agent]))
}

pub fn group_name(number: u8) -> redrive_shared::id::Name {
    name(&format!("g{number}"))
}

pub fn dependency_name(number: u8) -> redrive_shared::id::Name {
    name(&format!("dep{number}"))
}

pub fn number_of(text: &str) -> usize {
    IDS.iter().position(|known| *known == text).expect("a known id")
}

fn store_failure(seen: Failure) -> redrive_shared::task::FailureRecord {
    let Failure { class, retryable, hint_ms } = seen;
    redrive_shared::task::FailureRecord { retryable, retry_after_ms: hint_ms, ..failure(class) }
}

fn store_ending(ending: Ending) -> redrive_coordinator::store::Ending {
    use redrive_coordinator::store::Ending as Stored;
    match ending {
        Ending::Done(result) => Stored::Done(result.then(|| raw("[1]").into())),
        Ending::Failed(seen) => Stored::Failed(store_failure(seen)),
        Ending::FailedForGood(seen) => Stored::FailedForGood(store_failure(seen)),
        Ending::NeedsPerson(seen) => Stored::NeedsPerson(store_failure(seen)),
        Ending::Snoozed(delay_ms) => Stored::Snoozed { delay_ms },
        Ending::Released => Stored::Released,
        Ending::Undelivered => Stored::Undelivered,
        Ending::HandedOff => Stored::HandedOff,
    }
}

fn store_task(spec: &NewTask) -> redrive_coordinator::store::Enqueue {
    // Every other task is so large that its values go past the scripts.
    let filling = "x".repeat(if spec.id.is_multiple_of(2) { 700 } else { 0 });
    let payload = format!("\"{}{filling}\"", spec.payload);
    let mut made = task(IDS[spec.id]).on(QUEUES[spec.queue]).payload(&payload);
    made.failure = spec.failure.map(store_failure);
    made.spec = redrive_shared::wire::NewTask {
        priority: spec.priority,
        group: spec.group.map(group_name),
        dependency: spec.dependency.map(dependency_name),
        delay_ms: spec.delay_ms,
        deadline_ms: spec.deadline_ms,
        max_attempts: spec.max_attempts,
        attempts_made: spec.attempts_made,
        ..redrive_shared::wire::NewTask::default()
    };
    made
}
