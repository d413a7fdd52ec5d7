//! `claim`: due tasks go to workers.

use std::collections::HashMap;
use std::time::Instant;

use rand::RngExt;
use rand::seq::SliceRandom;
use redis::{Value, cmd};
use redrive_shared::id::{Name, TaskId};
use redrive_shared::limits::{BATCH_MAX_ITEMS, BODY_MAX_BYTES};
use redrive_shared::retry::RetryPolicy;
use redrive_shared::task::{Lease, Nonce};

use super::Inner;
use super::enqueue::time_of;
use super::held::Handed;
use super::keys::{RunId, run_name};
use super::lease::read;
use super::reply::{at, bytes, integer, items, maybe_integer, text};
use super::scripts::CLAIM;
use super::transition::{Changed, lane};
use super::value::{Task, lines};
use crate::store::{Claim, Claimed, Result, StoreError};

/// A claim while shards are asked for it.
struct Filling {
    claim: Claim,
    run: String,
    answer: Claimed,
    /// Payload bytes that still fit.
    room: usize,
    /// Shards to ask.
    shards: Vec<u16>,
    /// Those of them that gave as much as they were asked for: asking them for more repeats nothing.
    gave: Vec<u16>,
    /// The earliest due time of those that had no more.
    next_due_ms: Option<i64>,
    /// It was silent for too long: nothing new for it.
    gone: bool,
    /// It was given something before: the shards that gave it are asked, whether more is due there or not.
    repeats: bool,
}

/// What one shard is asked for one claim.
struct Wish {
    /// Which claim.
    place: usize,
    most: usize,
    /// Payload bytes that fit.
    room: usize,
    /// More, of a shard that this very claim has asked before. Not to be taken for its repetition.
    more: bool,
    nonce: [u8; 8],
}

/// What a shard gave for one claim.
struct Given {
    replayed: bool,
    next_due_ms: Option<i64>,
    leases: Vec<(TaskId, Vec<u8>)>,
    late: Vec<(TaskId, Vec<u8>)>,
}

impl Filling {
    fn wants(&self) -> usize {
        self.claim.max.saturating_sub(self.answer.leases.len())
    }
}

impl Inner {
    /// Leases what is due, claim by claim.
    pub async fn claim(&self, batch: Vec<Claim>) -> Result<Vec<Claimed>> {
        let mut filling = Vec::with_capacity(batch.len());
        for claim in batch {
            filling.push(self.begin(claim).await?);
        }
        loop {
            let wishes = self.wishes(&mut filling);
            if wishes.is_empty() {
                break;
            }
            let calls = wishes.into_iter().map(|(shard, wishes)| {
                let filling = &filling;
                async move { Ok::<_, StoreError>((shard, self.ask(shard, wishes, filling).await?)) }
            });
            let mut late = Vec::new();
            for (shard, given) in futures_util::future::try_join_all(calls).await? {
                for (wish, now_us, given) in given {
                    let found = self.take_in(shard, &wish, now_us, given, &mut filling[wish.place])?;
                    late.extend(found.into_iter().map(|(id, task)| (wish.place, id, task)));
                }
            }
            self.escalate_late(late, &mut filling).await?;
        }
        Ok(filling.into_iter().map(Filling::finish).collect())
    }

    async fn begin(&self, claim: Claim) -> Result<Filling> {
        let run = run_name(&claim.agent, claim.boot_id.as_ref());
        // Its long poll may have outlived it: what it got would wait for the end of a lease.
        let gone = self.gone.contains(&run);
        let mut shards: Vec<u16> = (0..self.keys.shards()).collect();
        shards.shuffle(&mut rand::rng());
        let mut given = Vec::new();
        if let Some(request) = claim.request_id.as_ref().filter(|_| gone || shards.len() > 1) {
            given = self.holding(&run, request, &shards).await?;
        }
        let repeats = !given.is_empty();
        if gone || repeats {
            shards = given;
        }
        let room = BODY_MAX_BYTES;
        let (answer, gave) = (Claimed::default(), Vec::new());
        Ok(Filling { claim, run, gone, answer, repeats, room, shards, gave, next_due_ms: None })
    }

    /// The shards that gave something to the same request before.
    async fn holding(&self, run: &str, request: &Name, shards: &[u16]) -> Result<Vec<u16>> {
        let asked = shards.iter().map(|shard| async move {
            let key = self.keys.of_shard(*shard, &format!("q:{run}|{request}"));
            Ok::<_, StoreError>((*shard, integer(&self.link.query(cmd("EXISTS").arg(key)).await?)? == 1))
        });
        let known = futures_util::future::try_join_all(asked).await?;
        Ok(known.into_iter().filter(|(_, known)| *known).map(|(shard, _)| shard).collect())
    }

    /// What to ask which shards next: each claim's wish is spread over those that may have something due.
    fn wishes(&self, filling: &mut [Filling]) -> HashMap<u16, Vec<Wish>> {
        let (now_ms, many) = (self.now_ms(), self.keys.shards() > 1);
        let mut wishes: HashMap<u16, Vec<Wish>> = HashMap::new();
        for (place, one) in filling.iter_mut().enumerate() {
            if one.room == 0 || one.wants() == 0 {
                continue;
            }
            let mut asked = Vec::new();
            for shard in std::mem::take(&mut one.shards) {
                match self.due.next(shard, &one.claim.queues).filter(|_| many && !one.gone && !one.repeats) {
                    Some(due_ms) if due_ms > now_ms => {
                        if due_ms != i64::MAX {
                            one.next_due_ms = Some(one.next_due_ms.map_or(due_ms, |next| next.min(due_ms)));
                        }
                    }
                    _ => asked.push(shard),
                }
            }
            let wanted = one.wants();
            let share = wanted.div_ceil(asked.len().max(1));
            let room = one.room / asked.len().min(wanted).max(1);
            let mut left = wanted;
            for shard in asked {
                let most = share.min(left);
                if most == 0 {
                    one.shards.push(shard);
                    continue;
                }
                left -= most;
                let mut nonce: [u8; 8] = rand::rng().random();
                // Never zero, which no lease has, whatever is counted up in its last four bytes.
                nonce[0] |= 1;
                let more = one.gave.contains(&shard);
                wishes.entry(shard).or_default().push(Wish { place, most, room, more, nonce });
            }
        }
        wishes
    }

    /// Asks one shard, in calls that each give a bounded number of leases.
    async fn ask(
        &self,
        shard: u16,
        wishes: Vec<Wish>,
        filling: &[Filling],
    ) -> Result<Vec<(Wish, i64, Given)>> {
        let mut answers = Vec::new();
        let mut wishes = wishes.into_iter().peekable();
        while wishes.peek().is_some() {
            let (mut call, mut part, mut leases) = (CLAIM.on(self.keys.shard(shard)), Vec::new(), 0);
            while let Some(wish) = wishes.next_if(|wish| leases == 0 || leases + wish.most <= BATCH_MAX_ITEMS)
            {
                leases += wish.most;
                part.push(wish);
            }
            call.arg(self.time.argument()).arg(part.len());
            for wish in &part {
                self.write_wish(&mut call, wish, &filling[wish.place]);
                self.due.ask(shard, &filling[wish.place].claim.queues);
            }
            let asked = Instant::now();
            let reply = self.write(call).await?;
            let now_us = time_of(&reply).unwrap_or(0);
            for (wish, given) in part.into_iter().zip(items(&reply)?.get(1..).unwrap_or_default()) {
                let given = read_given(given)?;
                let claim = &filling[wish.place].claim;
                if claim.avoid.is_empty() && !given.replayed && given.leases.len() < wish.most {
                    self.due.learn(shard, &claim.queues, given.next_due_ms, asked);
                }
                answers.push((wish, now_us, given));
            }
        }
        Ok(answers)
    }

    fn write_wish(&self, call: &mut super::Call, wish: &Wish, one: &Filling) {
        let (claim, book) = (&one.claim, self.books.get());
        let open: Vec<(&Name, u64)> = claim
            .queues
            .iter()
            .filter_map(|name| Some((name, book.queues.get(name)?)))
            .filter(|(_, queue)| !queue.paused && !one.gone)
            .map(|(name, queue)| (name, claim.lease_ms.unwrap_or(queue.policy.lease_ms)))
            .collect();
        call.arg(&RunId::of(&one.run).0[..])
            .arg(&one.run)
            .arg(claim.request_id.as_deref().unwrap_or_default())
            .arg(u8::from(wish.more))
            .arg(wish.most)
            .arg(wish.room)
            .arg(&wish.nonce[..])
            .arg(open.len());
        for (queue, lease_ms) in open {
            call.arg(queue.as_str()).arg(lease_ms);
        }
        call.arg(claim.avoid.len());
        for dependency in &claim.avoid {
            call.arg(dependency.as_str());
        }
    }

    /// Adds what a shard gave to a claim; returns tasks that were found past their deadline.
    fn take_in(
        &self,
        shard: u16,
        wish: &Wish,
        now_us: i64,
        given: Given,
        one: &mut Filling,
    ) -> Result<Vec<(TaskId, Task)>> {
        one.answer.replayed |= given.replayed;
        if given.replayed {
            // That is all that this shard has for the request.
        } else if given.leases.len() >= wish.most {
            // It may have more: what the others cannot give is asked of it again.
            one.shards.push(shard);
            one.gave.push(shard);
        } else if let Some(due_ms) = given.next_due_ms {
            one.next_due_ms = Some(one.next_due_ms.map_or(due_ms, |next| next.min(due_ms)));
        }
        let book = self.books.get();
        let mut handed: Vec<(TaskId, Handed)> = Vec::with_capacity(given.leases.len());
        for (place, (id, value)) in given.leases.into_iter().enumerate() {
            let mut task = read(&id, &value)?;
            let policy = book.policy(task.meta.queue());
            let lease_ms = one.claim.lease_ms.unwrap_or(policy.lease_ms);
            if !given.replayed {
                let nonce = nonce_at(wish.nonce, place);
                // The script did the same to the value, and selected only what is waiting and due.
                if task.record.claim(lease_ms, nonce, &policy, now_us).is_err() {
                    return Err(StoreError::Corrupt(format!("task {id} was leased and is not due")));
                }
                task.run = RunId::of(&one.run);
            }
            one.room = one.room.saturating_sub(task.slot_bytes);
            one.answer.leases.push(lease(&id, &task, &value, &policy, lease_ms)?);
            handed.push((id, (task, Some(one.claim.agent.clone()))));
        }
        self.held.put(handed);
        given.late.into_iter().map(|(id, head)| Ok((id.clone(), read(&id, &head)?))).collect()
    }

    /// Escalates what claims found past its deadline.
    async fn escalate_late(&self, late: Vec<(usize, TaskId, Task)>, filling: &mut [Filling]) -> Result<()> {
        if late.is_empty() {
            return Ok(());
        }
        let (mut places, mut changes) = (Vec::new(), Vec::new());
        for (place, id, task) in late {
            changes.push(self.miss_deadline(&id, task).await?);
            places.push((place, id));
        }
        for ((place, id), changed) in places.into_iter().zip(self.apply(changes).await?) {
            if matches!(changed, Changed::Applied) {
                filling[place].answer.too_late.push(id);
            }
        }
        Ok(())
    }
}

impl Filling {
    fn finish(self) -> Claimed {
        let mut answer = self.answer;
        if answer.leases.len() < self.claim.max && !answer.replayed {
            answer.next_due_ms = self.next_due_ms;
        }
        answer
    }
}

/// The nonce of a claim's lease by its place, as the script makes it.
fn nonce_at(nonce: [u8; 8], place: usize) -> Nonce {
    let [a, b, c, d, e, f, g, h] = nonce;
    let counter = u32::from_be_bytes([e, f, g, h]).wrapping_add(u32::try_from(place).unwrap_or(0));
    Nonce(u64::from(u32::from_be_bytes([a, b, c, d])) << 32 | u64::from(counter))
}

fn read_given(given: &Value) -> Result<Given> {
    let parts = items(given)?;
    let tasks = |value: &Value| -> Result<Vec<(TaskId, Vec<u8>)>> {
        let pairs = items(value)?.chunks_exact(2);
        pairs.map(|pair| Ok((task_id(text(&pair[0])?)?, bytes(&pair[1])?.to_vec()))).collect()
    };
    Ok(Given {
        replayed: text(at(parts, 0)?)? == "again",
        next_due_ms: maybe_integer(at(parts, 1)?)?,
        leases: tasks(at(parts, 2)?)?,
        late: tasks(at(parts, 3)?)?,
    })
}

/// An id that the store holds.
pub(super) fn task_id(text: &str) -> Result<TaskId> {
    TaskId::new(text).map_err(|error| StoreError::Corrupt(format!("a task's id {error}")))
}

fn lease(id: &TaskId, task: &Task, value: &[u8], policy: &RetryPolicy, lease_ms: u64) -> Result<Lease> {
    let corrupt = |what: &str| StoreError::Corrupt(format!("task {id}: its {what} cannot be read"));
    let (lane, record) = (lane(task)?, &task.record);
    let (payload, history) = task.rest(value).map_err(|_| corrupt("value"))?;
    let payload = std::str::from_utf8(payload).map_err(|_| corrupt("payload"))?;
    let last_failure = lines(history).filter_map(std::result::Result::ok).find_map(|line| line.failure);
    Ok(Lease {
        id: id.clone(),
        epoch: record.epoch,
        nonce: record.nonce,
        lease_until_ms: record.lease_until_ms,
        lease_ms,
        due_at_ms: record.due_ms,
        queue: lane.queue,
        task_type: task.meta.task_type().map_err(|_| corrupt("type"))?,
        type_version: task.meta.type_version,
        payload: serde_json::value::RawValue::from_string(payload.to_owned())
            .map_err(|_| corrupt("payload"))?,
        dependency: lane.dependency,
        group: lane.group,
        priority: lane.priority,
        route: task.meta.route,
        attempt: record.ledger.failed.saturating_add(1),
        run: record.runs,
        max_attempts: policy.attempts_allowed(record.max_attempts),
        timeout_ms: policy.timeout_ms,
        deadline_at_ms: record.deadline_ms,
        ledger: record.ledger,
        last_failure,
        traceparent: task.meta.traceparent.clone(),
        labels: task.meta.labels.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonces_count_up_and_wrap_in_their_last_four_bytes() {
        let nonce = [1, 2, 3, 4, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(nonce_at(nonce, 0), Nonce(0x0102_0304_ffff_ffff));
        assert_eq!(nonce_at(nonce, 1), Nonce(0x0102_0304_0000_0000));
    }
}
