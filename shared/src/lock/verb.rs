//! Everything that is asked of locks, as values: stores take them in batches.

use super::{Acquired, Hold, Lost, Owner, PickedUp, Refused, Request, Space, Token, WaitId};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// [`Space::acquire`].
    Acquire(Request),
    /// [`Space::pick_up`].
    PickUp(WaitId, Owner),
    /// [`Space::call_off`].
    CallOff(WaitId, Owner),
    /// [`Space::take_back`]: the last is until when it was granted (µs).
    TakeBack(Token, Owner, i64),
    /// [`Space::renew`].
    Renew(Token, Owner),
    /// [`Space::release`].
    Release(Token, Owner),
    /// [`Space::break_hold`].
    Break(Token),
    /// [`Space::advance`].
    Advance,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Verb::Acquire`].
    Acquired(Result<Acquired, Refused>),
    /// To [`Verb::PickUp`].
    PickedUp(PickedUp),
    /// To [`Verb::Renew`]: until when (µs).
    Renewed(Result<i64, Lost>),
    /// To [`Verb::Release`].
    Released(Result<(), Lost>),
    /// To [`Verb::Break`]: what it was; none: there is no such lock.
    Broken(Option<Hold>),
    /// To the others.
    Done,
}

/// What came of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers {
    /// In order.
    pub answers: Vec<Answer>,
    /// Places in line that were granted on the way: each is to be picked up.
    pub offered: Vec<WaitId>,
    /// Locks that were held until their time was over, on the way.
    pub expired: u64,
    /// When something is over that somebody waits for (µs): then [`Verb::Advance`] is due. None: nobody waits.
    pub next_us: Option<i64>,
}

impl Space {
    /// Does what is asked, in order.
    pub fn apply(&mut self, verbs: Vec<Verb>, now_us: i64) -> Answers {
        let answers = verbs.into_iter().map(|verb| self.apply_one(verb, now_us)).collect();
        let (offered, expired) = (self.take_offered(), self.take_expired());
        Answers { answers, offered, expired, next_us: self.next_us() }
    }

    fn apply_one(&mut self, verb: Verb, now_us: i64) -> Answer {
        match verb {
            Verb::Acquire(request) => Answer::Acquired(self.acquire(request, now_us)),
            Verb::PickUp(id, owner) => Answer::PickedUp(self.pick_up(id, &owner, now_us)),
            Verb::CallOff(id, owner) => {
                self.call_off(id, &owner, now_us);
                Answer::Done
            }
            Verb::TakeBack(token, owner, until_us) => {
                self.take_back(token, &owner, until_us, now_us);
                Answer::Done
            }
            Verb::Renew(token, owner) => Answer::Renewed(self.renew(token, &owner, now_us)),
            Verb::Release(token, owner) => Answer::Released(self.release(token, &owner, now_us)),
            Verb::Break(token) => Answer::Broken(self.break_hold(token, now_us)),
            Verb::Advance => {
                self.advance(now_us);
                Answer::Done
            }
        }
    }
}
