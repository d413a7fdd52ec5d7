//! `claim`: due tasks go to workers.

use std::collections::{BTreeSet, HashMap, HashSet};

use rand::seq::SliceRandom;
use redis::cmd;
use redrive_shared::id::{Name, TaskId};
use redrive_shared::lifecycle::Record;
use redrive_shared::limits::BODY_MAX_BYTES;

use super::Inner;
use super::aside::Aside;
use super::ask::{Wish, next_call};
use super::fetch::{Fetched, Leased, lease};
use super::given::Given;
use super::held::Handed;
use super::keys::run_name;
use super::reach::{Part, pass_over};
use super::reply::integer;
use super::transition::{Changed, Decided};
use super::value::{Lease, body_of};
use crate::store::gates::Allowance;
use crate::store::{Claim, Claimed, Restriction, Result, StoreError};

/// How often shards are asked for one claim: what they give may be past its deadline, and does not count.
pub(super) const ROUNDS_MAX: usize = 64;

/// When a claim looks again at a shard that could not be reached.
const MISSED_AGAIN_MS: i64 = 1_000;

/// A claim while shards are asked for it.
pub(super) struct Filling {
    pub claim: Claim,
    pub run: String,
    pub answer: Claimed,
    /// Bytes of payloads and checkpoints that still fit.
    pub room: usize,
    /// Shards not asked yet.
    pub shards: Vec<u16>,
    /// The earliest due time of those that had no more.
    pub next_due_ms: Option<i64>,
    /// What each shard held back when it was asked last: places of restrictions.
    pub held_back: HashMap<u16, BTreeSet<usize>>,
    /// Shards that gave it something in this call: asked again, they give more, and not the same once more.
    pub gave: HashSet<u16>,
    /// It may only get what the same request was given before: it was answered already, or its agent was silent for too
    /// long. What is due does not matter then.
    pub repeats: bool,
    /// It was silent for too long: nothing new for it.
    pub gone: bool,
    /// How often shards were asked.
    pub rounds: usize,
    /// A shard answered, or had answered a moment ago.
    pub heard: bool,
    /// A shard could not be reached.
    pub missed: bool,
}

impl Filling {
    pub fn wants(&self) -> usize {
        self.claim.max.saturating_sub(self.answer.leases.len())
    }
}

impl Inner {
    /// Leases what is due, claim by claim.
    pub async fn claim(&self, batch: Vec<Claim>, gates: &[Restriction]) -> Result<Vec<Claimed>> {
        let (mut filling, mut failure) = (Vec::with_capacity(batch.len()), None);
        for claim in batch {
            filling.push(self.begin(claim).await?);
        }
        let mut allowance = Allowance::new(gates);
        loop {
            let mut wishes: Vec<(u16, Vec<Wish>)> = self.wishes(&mut filling).into_iter().collect();
            if wishes.is_empty() {
                break;
            }
            while !wishes.is_empty() {
                // Of what is counted, each call is told what those before it have left.
                let counted = allowance.is_counted();
                let part = if counted { next_call(&mut wishes) } else { std::mem::take(&mut wishes) };
                let failed = self.serve(part, &mut filling, &mut allowance).await;
                if counted && failed.is_some() {
                    self.leave_out(&mut wishes, &mut filling).await;
                }
                failure = failure.or(failed);
            }
            let ran_out = |one: &Filling| one.repeats && !one.gone && !one.answer.replayed && !one.missed;
            for one in filling.iter_mut().filter(|one| ran_out(one)) {
                // What was kept for the request ran out in this moment: it is a new one.
                one.repeats = false;
                one.shards = (0..self.keys.shards()).collect();
            }
        }
        match failure {
            Some(error) if !filling.iter().any(|one| one.heard) => Err(error),
            _ => Ok(filling.into_iter().map(|one| one.finish(&allowance)).collect()),
        }
    }

    /// Asks shards at once; returns why one could not be asked.
    async fn serve(
        &self,
        wishes: Vec<(u16, Vec<Wish>)>,
        filling: &mut [Filling],
        allowance: &mut Allowance,
    ) -> Option<StoreError> {
        let calls = wishes.into_iter().map(|(shard, wishes)| {
            let (filling, allowance) = (&*filling, &*allowance);
            async move {
                let places: Vec<usize> = wishes.iter().map(|wish| wish.place).collect();
                let mut given = Vec::new();
                let asked = self.ask(shard, wishes, filling, allowance, &mut given).await;
                (shard, places, given, asked)
            }
        });
        let (answers, mut failure) = (futures_util::future::join_all(calls).await, None);
        // What one shard gave is not lost because another cannot be reached.
        for (shard, places, given, mut asked) in answers {
            for (wish, given) in given {
                let one = &mut filling[wish.place];
                let (before, replayed) = (one.answer.leases.len(), given.replayed);
                let taken = self.take_in(shard, &wish, given, one).await;
                if !replayed {
                    allowance.count(&one.answer.leases[before..]);
                }
                one.heard |= taken.is_ok();
                asked = asked.and(taken);
            }
            if let Err(error) = asked {
                pass_over(shard, &error);
                places.into_iter().for_each(|place| filling[place].misses(self.now_ms()));
                failure.get_or_insert(error);
            }
        }
        failure
    }

    async fn begin(&self, claim: Claim) -> Result<Filling> {
        let run = run_name(&claim.agent, claim.boot_id.as_ref());
        // Its long poll may have outlived it: what it got would wait for the end of a lease.
        let gone = self.gone.contains(&run);
        let mut shards: Vec<u16> = (0..self.keys.shards()).collect();
        shards.shuffle(&mut rand::rng());
        let (mut given, mut unknown) = (Vec::new(), Vec::new());
        if let Some(request) = claim.request_id.as_ref().filter(|_| gone || shards.len() > 1) {
            (given, unknown) = self.holding(&run, request, &shards).await?;
        }
        let (repeats, missed) = (gone || !given.is_empty(), !unknown.is_empty());
        if repeats {
            shards = given;
        }
        // They may have answered this request: asked for more, they would give too much.
        shards.retain(|shard| !unknown.contains(shard));
        Ok(Filling {
            claim,
            run,
            answer: Claimed::default(),
            room: BODY_MAX_BYTES,
            shards,
            next_due_ms: missed.then(|| self.now_ms().saturating_add(MISSED_AGAIN_MS)),
            held_back: HashMap::new(),
            gave: HashSet::new(),
            repeats,
            gone,
            rounds: 0,
            heard: false,
            missed,
        })
    }

    /// The shards that gave something to the same request before, and those that cannot be reached: an error means that
    /// none can.
    async fn holding(&self, run: &str, request: &Name, shards: &[u16]) -> Result<(Vec<u16>, Vec<u16>)> {
        let (left_out, asked): (Vec<u16>, Vec<u16>) = {
            let out = self.reach.left_out();
            shards.iter().partition(|shard| out.contains(shard))
        };
        let answers = asked.iter().map(|shard| async move {
            let key = self.keys.of_shard(*shard, &format!("q:{run}|{request}"));
            let exists = self.noted(Part::Shard(*shard), self.link.query(cmd("EXISTS").arg(key))).await;
            (*shard, exists.and_then(|exists| Ok(integer(&exists)? == 1)))
        });
        let (mut given, mut unknown, mut first) = (Vec::new(), left_out, None);
        for (shard, answer) in futures_util::future::join_all(answers).await {
            match answer {
                Ok(true) => given.push(shard),
                Ok(false) => {}
                Err(error) => {
                    unknown.push(shard);
                    first.get_or_insert(error);
                }
            }
        }
        match first {
            Some(error) if unknown.len() == shards.len() => Err(error),
            _ => Ok((given, unknown)),
        }
    }

    /// Adds what a shard gave to a claim. Tasks past their deadline are escalated, and what finds no room is given back.
    async fn take_in(&self, shard: u16, wish: &Wish, mut given: Given, one: &mut Filling) -> Result<()> {
        one.answer.replayed |= given.replayed;
        let (now_ms, replayed, count) = (given.now_ms, given.replayed, given.tasks.len());
        let held_back = !given.held_back.is_empty();
        if held_back {
            one.held_back.insert(shard, std::mem::take(&mut given.held_back));
        } else {
            one.held_back.remove(&shard);
        }
        if given.replayed || one.repeats {
            // That is all that this shard has for the request.
        } else if count >= wish.most {
            // It may have more: what the others cannot give is asked of it again.
            one.shards.push(shard);
        } else if let Some(due_ms) = given.next_due_ms {
            one.comes_due(due_ms);
        }
        let mut sorted = self.fetch(shard, given, wish.room).await?;
        if held_back && count < wish.most && !sorted.late.is_empty() {
            // What was too late used up what others may have.
            one.shards.push(shard);
        }
        if !sorted.back.is_empty() {
            one.room = 0;
            one.comes_due(now_ms);
            self.unclaim(shard, sorted.back).await?;
        }
        let book = self.books.get();
        let mut handed: Vec<(TaskId, Handed)> = Vec::with_capacity(sorted.leased.len());
        one.answer.leases.reserve(sorted.leased.len());
        for Leased { id, task, value, checkpoint, bytes } in sorted.leased {
            let policy = book.policy(task.meta.queue());
            let lease_ms = one.claim.lease_ms.unwrap_or(policy.lease_ms);
            let lease = lease(&id, &task, &value, checkpoint, &policy, lease_ms);
            // It stays leased, until the reaper ends that.
            let Some(lease) = sorted.aside.pass_over(&id, || None, lease)? else { continue };
            one.room = one.room.saturating_sub(bytes);
            one.answer.leases.push(lease);
            let agent = Some(one.claim.agent.clone());
            handed.push((id, Handed { task, agent, value: Some(value) }));
        }
        if !handed.is_empty() {
            one.gave.insert(shard);
        } else if !sorted.late.is_empty() && !replayed && !one.gave.contains(&shard) {
            self.forget_request(shard, one).await?;
        }
        self.held.put(handed);
        self.escalate_late(sorted.late, now_ms, one, &mut sorted.aside).await?;
        // Those of which only what they saved cannot be read wait where they did, for a release that can.
        self.unclaim(shard, sorted.unread).await?;
        self.set_aside(shard, sorted.aside).await
    }

    /// A request that got nothing but late tasks was not answered.
    async fn forget_request(&self, shard: u16, one: &Filling) -> Result<()> {
        if let Some(request) = &one.claim.request_id {
            let key = self.keys.of_shard(shard, &format!("q:{}|{request}", one.run));
            self.link.query(cmd("DEL").arg(key)).await?;
        }
        Ok(())
    }

    /// Escalates what a claim found past its deadline: as if it had not been leased.
    async fn escalate_late(
        &self,
        late: Vec<Fetched>,
        now_ms: i64,
        one: &mut Filling,
        aside: &mut Aside,
    ) -> Result<()> {
        if late.is_empty() {
            return Ok(());
        }
        let (mut ids, mut changes) = (Vec::new(), Vec::new());
        for (id, mut task, value) in late {
            // Who begins with it in this moment keeps it.
            let guard = task.lease.as_ref().map(Lease::extension);
            let runs = task.record.runs.saturating_sub(1);
            let before = Record { leased_at_ms: now_ms, runs, ..task.record.clone() };
            let policy = self.books.get().policy(task.meta.queue());
            let missed = task.record.miss_deadline(&policy, now_ms.saturating_mul(1_000));
            let verdict =
                missed.map_err(|refused| StoreError::Corrupt(format!("task {id} is late: {refused}")))?;
            let decided = Decided {
                guard,
                before,
                verdict,
                failure: None,
                agent: None,
                note: None,
                result: None,
                now_ms,
            };
            let change = self.change(&id, &mut task, body_of(&value).ok(), decided).await;
            if let Some(change) = aside.pass_over(&id, || None, change)? {
                changes.push(change);
                ids.push(id);
            }
        }
        for (id, changed) in ids.into_iter().zip(self.apply(changes).await?) {
            if matches!(changed, Changed::Applied) {
                one.answer.too_late.push(id);
            }
        }
        Ok(())
    }
}

impl Filling {
    pub fn comes_due(&mut self, due_ms: i64) {
        self.next_due_ms = Some(self.next_due_ms.map_or(due_ms, |next_ms| next_ms.min(due_ms)));
    }

    /// A shard could not be reached, and may have something.
    pub fn misses(&mut self, now_ms: i64) {
        self.missed = true;
        self.comes_due(now_ms.saturating_add(MISSED_AGAIN_MS));
    }

    fn finish(self, allowance: &Allowance) -> Claimed {
        let mut answer = self.answer;
        if !answer.replayed && !self.held_back.is_empty() {
            answer.held_back = allowance.scopes(&self.held_back.into_values().flatten().collect());
        }
        if answer.leases.len() < self.claim.max && !answer.replayed {
            answer.next_due_ms = self.next_due_ms;
        }
        answer
    }
}
