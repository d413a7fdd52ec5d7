//! Locks: one script over a batch, on keys of their own.

use redis::{Value, cmd};
use redrive_shared::lock::{
    Acquired, Answer, Answers, Blocker, Granted, LOCK_WAITERS_MAX, LOCKS_MAX, Lost, PICK_UP_MS, PickedUp,
    Refused, Request, Resource, Token, Verb, WAITER_ALIVE_MS, WaitId,
};

use super::Inner;
use super::link::Call;
use super::reply::{at, integer, items, maybe_integer, text, texts};
use super::scripts::LOCKS;
use crate::store::locks::{
    LockCounts, Locks, read_hold, read_owner, read_wait, read_want, write_owner, write_want,
};
use crate::store::{Result, StoreError};

/// Most verbs in one run of the script: each may serve many, and everybody else waits meanwhile.
const VERBS_MAX: usize = 100;

impl Inner {
    /// Does what is asked of locks, in order.
    pub async fn lock(&self, verbs: Vec<Verb>) -> Result<Answers> {
        let mut all = Answers::default();
        for part in verbs.chunks(VERBS_MAX) {
            let mut call = LOCKS.on(self.keys.locks(""));
            call.arg(self.time.argument()).arg(self.keys.channel()).arg(&self.origin);
            call.arg(LOCKS_MAX).arg(LOCK_WAITERS_MAX).arg(PICK_UP_MS).arg(WAITER_ALIVE_MS);
            part.iter().for_each(|verb| write(&mut call, verb));
            let reply = self.link.write(call).await?;
            let answers = items(at(items(&reply)?, 0)?)?;
            for (verb, answer) in part.iter().zip(answers) {
                all.answers.push(read(verb, items(answer)?)?);
            }
            for id in items(at(items(&reply)?, 1)?)? {
                all.offered.push(WaitId(integer(id)?));
            }
            all.next_us = maybe_integer(at(items(&reply)?, 2)?)?;
            all.expired += u64::try_from(integer(at(items(&reply)?, 3)?)?).map_err(|_| damaged())?;
        }
        Ok(all)
    }

    /// Locks and those that wait, of all resources or of one, up to so many of each.
    pub async fn locks(&self, resource: Option<&Resource>, most: usize) -> Result<Locks> {
        let (holders, line) = match resource {
            Some(resource) => (format!("h:{resource}"), format!("w:{resource}")),
            None => ("hold_ends".to_owned(), "wait_ends".to_owned()),
        };
        let (holds, more_holds) = self.records(&holders, "holds", most).await?;
        let (waits, more_waits) = self.records(&line, "waits", most).await?;
        let mut holds: Vec<_> = holds.iter().filter_map(|(token, text)| read_hold(*token, text)).collect();
        let mut waits: Vec<_> = waits.iter().filter_map(|(id, text)| read_wait(*id, text)).collect();
        holds.sort_unstable_by_key(|hold| hold.token);
        waits.sort_unstable_by_key(|wait| wait.id);
        let counts =
            LockCounts { holds: self.count_of("hold_ends").await?, waits: self.count_of("wait_ends").await? };
        Ok(Locks { holds, waits, more: more_holds || more_waits, counts })
    }

    async fn count_of(&self, ends: &str) -> Result<u64> {
        let found = self.link.query(cmd("ZCARD").arg(self.keys.locks(ends))).await?;
        u64::try_from(integer(&found)?).map_err(|_| damaged())
    }

    /// Numbers and texts, and whether there are more.
    async fn records(&self, ends: &str, records: &str, most: usize) -> Result<(Vec<(i64, String)>, bool)> {
        let found = self.link.query(cmd("ZRANGE").arg(self.keys.locks(ends)).arg(0).arg(most)).await?;
        let mut numbers = texts(&found)?;
        let more = numbers.len() > most;
        numbers.truncate(most);
        if numbers.is_empty() {
            return Ok((Vec::new(), more));
        }
        let found = self.link.query(cmd("HMGET").arg(self.keys.locks(records)).arg(&numbers)).await?;
        let mut read = Vec::with_capacity(numbers.len());
        for (number, value) in numbers.iter().zip(items(&found)?) {
            // One that ended in between is not there.
            if *value != Value::Nil {
                read.push((number.parse().map_err(|_| damaged())?, text(value)?.to_owned()));
            }
        }
        Ok((read, more))
    }
}

fn write(call: &mut Call, verb: &Verb) {
    match verb {
        Verb::Acquire(request) => {
            call.arg("acquire").arg(write_owner(&request.owner));
            call.arg(request.ttl_ms).arg(request.delay_ms).arg(request.wait_ms).arg(request.wants().len());
            for want in request.wants() {
                call.arg(write_want(want));
            }
        }
        Verb::PickUp(id, owner) => {
            call.arg("pick_up").arg(id.0).arg(write_owner(owner));
        }
        Verb::CallOff(id, owner) => {
            call.arg("call_off").arg(id.0).arg(write_owner(owner));
        }
        Verb::TakeBack(token, owner, until_us) => {
            call.arg("take_back").arg(token.0).arg(write_owner(owner)).arg(*until_us);
        }
        Verb::Renew(token, owner) => {
            call.arg("renew").arg(token.0).arg(write_owner(owner));
        }
        Verb::Release(token, owner) => {
            call.arg("release").arg(token.0).arg(write_owner(owner));
        }
        Verb::Break(token) => {
            call.arg("break").arg(token.0);
        }
        Verb::Advance => {
            call.arg("advance");
        }
    }
}

fn read(verb: &Verb, answer: &[Value]) -> Result<Answer> {
    let word = text(at(answer, 0)?)?;
    Ok(match verb {
        Verb::Acquire(request) => Answer::Acquired(acquired(request, word, answer)?),
        Verb::PickUp(..) => Answer::PickedUp(match word {
            "held" | "granted" => PickedUp::Held(granted(answer)?),
            "waits" => PickedUp::Waits,
            _ => PickedUp::Gone,
        }),
        Verb::Renew(..) => Answer::Renewed(match word {
            "held" | "granted" => Ok(granted(answer)?.until_us),
            _ => Err(lost(answer)?),
        }),
        Verb::Release(..) => Answer::Released(if word == "done" { Ok(()) } else { Err(lost(answer)?) }),
        Verb::Break(token) => Answer::Broken(match word {
            "broken" => Some(read_hold(token.0, text(at(answer, 1)?)?).ok_or_else(damaged)?),
            _ => None,
        }),
        Verb::CallOff(..) | Verb::TakeBack(..) | Verb::Advance => Answer::Done,
    })
}

fn acquired(
    request: &Request,
    word: &str,
    answer: &[Value],
) -> Result<std::result::Result<Acquired, Refused>> {
    Ok(match word {
        "held" | "granted" => Ok(Acquired::Held(granted(answer)?)),
        "waits" => Ok(Acquired::Waits(WaitId(integer(at(answer, 1)?)?))),
        "busy" => Ok(Acquired::Busy(Blocker {
            resource: resource(text(at(answer, 1)?)?)?,
            owner: read_owner(text(at(answer, 2)?)?).ok_or_else(damaged)?,
            until_us: maybe_integer(at(answer, 3)?)?,
        })),
        _ => Err(match text(at(answer, 1)?)? {
            "superseded" => Refused::Superseded,
            "overlap" => Refused::Overlap(resource(text(at(answer, 2)?)?)?),
            "locks" => Refused::TooManyLocks,
            "waiters" => Refused::TooManyWaiters,
            other => {
                let owner = write_owner(&request.owner);
                return Err(StoreError::Corrupt(format!("a lock for {owner} was answered with {other:?}")));
            }
        }),
    })
}

fn granted(answer: &[Value]) -> Result<Granted> {
    let wants = answer.get(3..).unwrap_or_default().iter();
    let resources = wants.map(|want| read_want(text(want)?).ok_or_else(damaged)).collect::<Result<_>>()?;
    let is_news = text(at(answer, 0)?)? == "granted";
    Ok(Granted {
        token: Token(integer(at(answer, 1)?)?),
        until_us: integer(at(answer, 2)?)?,
        resources,
        is_news,
    })
}

fn lost(answer: &[Value]) -> Result<Lost> {
    Ok(match text(at(answer, 1)?)? {
        "expired" => Lost::Expired,
        "not_yours" => Lost::NotYours,
        _ => Lost::Unknown,
    })
}

fn resource(name: &str) -> Result<Resource> {
    Resource::new(name).map_err(|_| damaged())
}

fn damaged() -> StoreError {
    StoreError::Corrupt("a lock cannot be read; was a newer release here?".into())
}
