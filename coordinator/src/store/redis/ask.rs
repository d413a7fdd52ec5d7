//! What shards are asked for claims: each claim's wish is spread over those that may have something due, and goes into calls that
//! each give a bounded number of leases.

use std::collections::HashMap;

use rand::RngExt;
use redrive_shared::gate::Scope;
use redrive_shared::id::Name;
use redrive_shared::limits::{BATCH_MAX_ITEMS, BODY_MAX_BYTES};
use redrive_shared::task::Nonce;

use super::claim::{Filling, ROUNDS_MAX};
use super::enqueue::time_of;
use super::given::Given;
use super::reach::Part;
use super::reply::items;
use super::scripts::CLAIM;
use super::{Call, Inner};
use crate::store::Result;
use crate::store::gates::Allowance;

/// What one shard is asked for one claim.
pub(super) struct Wish {
    /// Which claim.
    pub place: usize,
    pub most: usize,
    /// Bytes of payloads and checkpoints that fit.
    pub room: usize,
    nonce: Nonce,
    /// The shard gave something to this call before.
    more: bool,
}

impl Inner {
    /// What to ask which shards next: each claim's wish is spread over those that may have something due.
    pub fn wishes(&self, filling: &mut [Filling]) -> HashMap<u16, Vec<Wish>> {
        let (now_ms, many, left_out) = (self.now_ms(), self.keys.shards() > 1, self.reach.left_out());
        let mut wishes: HashMap<u16, Vec<Wish>> = HashMap::new();
        for (place, one) in filling.iter_mut().enumerate() {
            if one.room == 0 || one.wants() == 0 || one.rounds == ROUNDS_MAX {
                continue;
            }
            one.rounds += 1;
            if one.repeats {
                // All that it was given, and nothing new.
                for shard in std::mem::take(&mut one.shards) {
                    let wish = Wish { place, most: 0, room: BODY_MAX_BYTES, nonce: Nonce(0), more: false };
                    wishes.entry(shard).or_default().push(wish);
                }
                continue;
            }
            let mut asked = Vec::new();
            for shard in std::mem::take(&mut one.shards) {
                if left_out.contains(&shard) {
                    one.misses(now_ms);
                    continue;
                }
                match self.due.next(shard, &one.claim.queues).filter(|_| many) {
                    Some(due_ms) if due_ms > now_ms => {
                        one.heard = true;
                        if due_ms != i64::MAX {
                            one.comes_due(due_ms);
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
                // Zero is the nonce of no lease.
                let nonce = Nonce(rand::rng().random_range(1..=u64::MAX));
                wishes.entry(shard).or_default().push(Wish {
                    place,
                    most,
                    room,
                    nonce,
                    more: one.gave.contains(&shard),
                });
            }
        }
        wishes
    }

    /// Asks one shard, in calls that each give a bounded number of leases.
    pub async fn ask(
        &self,
        shard: u16,
        mut wishes: Vec<Wish>,
        filling: &[Filling],
        allowance: &Allowance,
        answers: &mut Vec<(Wish, Given)>,
    ) -> Result<()> {
        while !wishes.is_empty() {
            let rest = wishes.split_off(in_one_call(&wishes));
            let part = std::mem::replace(&mut wishes, rest);
            let mut call = CLAIM.on(self.keys.shard(shard));
            call.arg(self.time.argument());
            write_restrictions(&mut call, allowance);
            call.arg(part.len());
            let mut asked = Vec::with_capacity(part.len());
            for wish in &part {
                // Before the queues are looked at: what changes from here on voids what the answer teaches.
                asked.push(self.due.ask(shard, &filling[wish.place].claim.queues));
                self.write_wish(&mut call, wish, &filling[wish.place]);
            }
            let reply = self.write(shard, call).await?;
            let now_ms = time_of(&reply).unwrap_or(0).div_euclid(1_000);
            let answered = items(&reply)?.get(1..).unwrap_or_default();
            for ((wish, asked), given) in part.into_iter().zip(asked).zip(answered) {
                let one = &filling[wish.place];
                let given = Given::read(given, wish.nonce, &one.claim.agent, now_ms)?;
                let for_all = one.claim.avoid.is_empty() && !one.repeats && !given.replayed;
                // What is held back may be let through at any time.
                let for_all = for_all && given.held_back.is_empty();
                if for_all && given.tasks.len() < wish.most {
                    self.due.learn(&asked, &one.claim.queues, given.next_due_ms);
                }
                answers.push((wish, given));
            }
        }
        Ok(())
    }

    fn write_wish(&self, call: &mut Call, wish: &Wish, one: &Filling) {
        let (claim, book) = (&one.claim, self.books.get());
        let open: Vec<(&Name, u64)> = claim
            .queues
            .iter()
            .filter_map(|name| Some((name, book.queues.get(name)?)))
            .filter(|(_, queue)| !queue.paused && !one.gone)
            .map(|(name, queue)| (name, claim.lease_ms.unwrap_or(queue.policy.lease_ms)))
            .collect();
        call.arg(&one.run)
            .arg(claim.request_id.as_deref().unwrap_or_default())
            .arg(u8::from(wish.more))
            .arg(wish.most)
            .arg(&wish.nonce.0.to_be_bytes()[..])
            .arg(open.len());
        for (queue, lease_ms) in open {
            call.arg(queue.as_str()).arg(lease_ms);
        }
        call.arg(claim.avoid.len());
        for dependency in &claim.avoid {
            call.arg(dependency.as_str());
        }
    }

    /// A shard could not be asked: those of the others that cannot either are found at once, not one time-out after the
    /// other.
    pub async fn leave_out(&self, wishes: &mut Vec<(u16, Vec<Wish>)>, filling: &mut [Filling]) {
        let shards: Vec<u16> = wishes.iter().map(|(shard, _)| *shard).collect();
        self.probe(&shards).await;
        wishes.retain(|(shard, wishes)| {
            let failing = self.reach.is_failing(Part::Shard(*shard));
            if failing {
                wishes.iter().for_each(|wish| filling[wish.place].misses(self.now_ms()));
            }
            !failing
        });
    }
}

/// How many of a shard's wishes go into one call, which gives a bounded number of leases.
fn in_one_call(wishes: &[Wish]) -> usize {
    let mut leases = 0;
    let fits = wishes.iter().take_while(|wish| {
        leases += wish.most;
        leases <= BATCH_MAX_ITEMS
    });
    fits.count().max(1)
}

/// Takes the wishes of one call to one shard.
pub(super) fn next_call(wishes: &mut Vec<(u16, Vec<Wish>)>) -> Vec<(u16, Vec<Wish>)> {
    let Some((shard, mut part)) = wishes.pop() else { return Vec::new() };
    let rest = part.split_off(in_one_call(&part));
    if !rest.is_empty() {
        wishes.push((shard, rest));
    }
    vec![(shard, part)]
}

/// What may be leased of restricted scopes, as the script takes it: queue and name, of a dependency no queue, of a queue no name.
fn write_restrictions(call: &mut Call, allowance: &Allowance) {
    let most = |most: Option<u32>| most.map_or_else(String::new, |most| most.to_string());
    call.arg(allowance.left().len());
    for gate in allowance.left() {
        let (queue, name) = match &gate.scope {
            Scope::Dependency(dependency) => ("", dependency.as_str()),
            Scope::Queue(queue) => (queue.as_str(), ""),
            Scope::Group { queue, group } => (queue.as_str(), group.as_str()),
        };
        call.arg(queue).arg(name).arg(most(gate.any)).arg(most(gate.retries));
    }
}
