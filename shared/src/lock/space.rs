//! All locks of one namespace, and the rules by which they are given.

mod look;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::line::Line;
use super::{
    Acquired, Blocker, Granted, Hold, LOCK_WAITERS_MAX, LOCKS_MAX, Lost, Mode, Owner, PICK_UP_MS, Phase,
    PickedUp, Refused, Request, Resource, Token, WAITER_ALIVE_MS, Wait, WaitId,
};

/// All locks of one namespace. Every method takes the time first ends what is over by then.
#[derive(Debug, Clone, Default)]
pub struct Space {
    /// The highest number given so far, as a token or as a place in line.
    mark: i64,
    holds: BTreeMap<Token, Hold>,
    waits: BTreeMap<WaitId, Wait>,
    lines: HashMap<Resource, Line>,
    /// Numbers of holds and waits by [`Owner::key`].
    of_owner: HashMap<String, BTreeSet<i64>>,
    /// Grants by the place in line that they were given to.
    granted_to: HashMap<WaitId, Token>,
    hold_ends: BTreeSet<(i64, Token)>,
    wait_ends: BTreeSet<(i64, WaitId)>,
    /// Offers that nobody was told of yet.
    offered: Vec<WaitId>,
    /// Holds that changed, began or ended since somebody asked.
    changed: BTreeSet<Token>,
    /// Locks that were held until their time was over, since somebody asked.
    expired: u64,
}

impl Space {
    /// Locks that stood when this was last kept: `mark` is at least the highest token of any that ever was.
    pub fn restore(mark: i64, holds: impl IntoIterator<Item = Hold>) -> Self {
        let mut space = Self { mark, ..Self::default() };
        for hold in holds {
            space.mark = space.mark.max(hold.token.0);
            space.insert(hold);
        }
        space.changed.clear();
        space
    }

    /// Asks for a lock.
    ///
    /// # Errors
    /// [`Refused`]; then nothing has changed, but for what was over.
    pub fn acquire(&mut self, request: Request, now_us: i64) -> Result<Acquired, Refused> {
        self.advance(now_us);
        self.end_earlier_attempts(&request.owner, now_us)?;
        let own = self.holds_of(&request.owner);
        if let Some(token) = own.iter().copied().find(|token| self.holds[token].covers(request.wants())) {
            let hold = Hold { ttl_ms: request.ttl_ms, ..self.holds[&token].clone() };
            return Ok(Acquired::Held(self.hold_on(hold, now_us)));
        }
        if let Some(id) = self.wait_like(&request) {
            self.set_wait_ends(id, deadline_us(&request, now_us), now_us);
            return Ok(Acquired::Waits(id));
        }
        self.check_overlap(&request)?;
        // Whoever was late itself need not wait for itself.
        let lapsed = own.into_iter().filter(|token| {
            let hold = &self.holds[token];
            hold.phase == Phase::Lapsed
                && request.wants().iter().any(|(name, _)| hold.mode_of(name).is_some())
        });
        for token in lapsed.collect::<Vec<_>>() {
            let touched = self.remove(token);
            self.serve(touched, now_us);
        }
        let blocker = self.blocker(&request, None);
        match blocker {
            None if self.holds.len() >= LOCKS_MAX => Err(Refused::TooManyLocks),
            None => Ok(Acquired::Held(self.grant(request, None, now_us))),
            Some(blocker) if request.wait_ms == 0 => Ok(Acquired::Busy(blocker)),
            Some(_) if self.waits.len() >= LOCK_WAITERS_MAX => Err(Refused::TooManyWaiters),
            Some(_) => Ok(Acquired::Waits(self.stand_in_line(request, now_us))),
        }
    }

    /// Asks whether a place in line was granted, and shows that somebody still waits there. Can be repeated. A place that is
    /// somebody else's is gone: a store that lost its last seconds may have given the number twice.
    pub fn pick_up(&mut self, id: WaitId, owner: &Owner, now_us: i64) -> PickedUp {
        self.advance(now_us);
        if let Some(hold) = self.granted_at(id, owner).cloned() {
            return match hold.phase {
                Phase::Offered | Phase::Held => PickedUp::Held(self.hold_on(hold, now_us)),
                Phase::Lapsed => PickedUp::Gone,
            };
        }
        let wait = self.waits.get(&id).filter(|wait| wait.request.owner == *owner);
        let Some(wait) = wait else { return PickedUp::Gone };
        self.set_wait_ends(id, wait.deadline_us, now_us);
        PickedUp::Waits
    }

    /// Leaves the line. A grant that was not picked up goes to the next; one that was has to be released. A place that is
    /// somebody else's stays.
    pub fn call_off(&mut self, id: WaitId, owner: &Owner, now_us: i64) {
        self.advance(now_us);
        let offer = self.granted_at(id, owner).filter(|hold| hold.phase == Phase::Offered);
        let touched = match offer.map(|hold| hold.token) {
            Some(token) => self.remove(token),
            None if self.waits.get(&id).is_some_and(|wait| wait.request.owner == *owner) => {
                self.leave_line(id)
            }
            None => return,
        };
        self.serve(touched, now_us);
    }

    /// Gives back a lock that was just granted until `until_us`, since its owner cannot be told. Not where it was asked for
    /// again or renewed since: its owner knows of it then. Each of these makes it last longer, so its end tells.
    pub fn take_back(&mut self, token: Token, owner: &Owner, until_us: i64, now_us: i64) {
        self.advance(now_us);
        let is_untold = |hold: &Hold| hold.phase == Phase::Held && hold.until_us == until_us;
        if self.own(token, owner).is_ok_and(is_untold) {
            let touched = self.remove(token);
            self.serve(touched, now_us);
        }
    }

    /// Makes a lock last its time from now on. Returns until when (µs).
    ///
    /// # Errors
    /// [`Lost`]: never after its end, since somebody else may have had it meanwhile.
    pub fn renew(&mut self, token: Token, owner: &Owner, now_us: i64) -> Result<i64, Lost> {
        self.advance(now_us);
        let hold = self.own(token, owner)?;
        if hold.phase == Phase::Lapsed {
            return Err(Lost::Expired);
        }
        let hold = hold.clone();
        Ok(self.hold_on(hold, now_us).until_us)
    }

    /// Gives a lock back. After its end too, which spares others the pause; but then it says so.
    ///
    /// # Errors
    /// [`Lost`].
    pub fn release(&mut self, token: Token, owner: &Owner, now_us: i64) -> Result<(), Lost> {
        self.advance(now_us);
        let lapsed = self.own(token, owner)?.phase == Phase::Lapsed;
        let touched = self.remove(token);
        self.serve(touched, now_us);
        if lapsed { Err(Lost::Expired) } else { Ok(()) }
    }

    /// Ends somebody's lock, as if it had expired. Returns what it was.
    pub fn break_hold(&mut self, token: Token, now_us: i64) -> Option<Hold> {
        self.advance(now_us);
        let hold = self.holds.get(&token).filter(|hold| hold.phase != Phase::Lapsed)?.clone();
        let touched = self.lapse(token, now_us);
        self.serve(touched, now_us);
        Some(hold)
    }

    /// Ends what is over, and gives what that leaves to those who wait.
    pub fn advance(&mut self, now_us: i64) {
        let mut touched = BTreeSet::new();
        while let Some((until_us, token)) =
            self.hold_ends.first().copied().filter(|(at_us, _)| *at_us <= now_us)
        {
            touched.append(&mut match self.holds[&token].phase {
                Phase::Held => {
                    self.expired += 1;
                    self.lapse(token, until_us)
                }
                Phase::Offered | Phase::Lapsed => self.remove(token),
            });
        }
        while let Some((_, id)) = self.wait_ends.first().copied().filter(|(at_us, _)| *at_us <= now_us) {
            touched.append(&mut self.leave_line(id));
        }
        self.serve(touched, now_us);
    }

    fn next_mark(&mut self, now_us: i64) -> i64 {
        self.mark = self.mark.saturating_add(1).max(now_us);
        self.mark
    }

    fn own(&self, token: Token, owner: &Owner) -> Result<&Hold, Lost> {
        let hold = self.holds.get(&token).ok_or(Lost::Unknown)?;
        if hold.owner == *owner { Ok(hold) } else { Err(Lost::NotYours) }
    }

    /// What was granted to a place in line of that owner's.
    fn granted_at(&self, id: WaitId, owner: &Owner) -> Option<&Hold> {
        self.holds.get(self.granted_to.get(&id)?).filter(|hold| hold.owner == *owner)
    }

    fn numbers_of(&self, owner: &Owner) -> Vec<i64> {
        self.of_owner.get(owner.key()).into_iter().flatten().copied().collect()
    }

    fn holds_of(&self, owner: &Owner) -> Vec<Token> {
        let tokens = self.numbers_of(owner).into_iter().map(Token);
        tokens.filter(|token| self.holds.get(token).is_some_and(|hold| hold.owner == *owner)).collect()
    }

    fn end_earlier_attempts(&mut self, owner: &Owner, now_us: i64) -> Result<(), Refused> {
        let numbers = self.numbers_of(owner);
        let others = numbers.iter().filter_map(|number| match self.holds.get(&Token(*number)) {
            Some(hold) => Some(&hold.owner),
            None => self.waits.get(&WaitId(*number)).map(|wait| &wait.request.owner),
        });
        if others.into_iter().any(|other| owner.is_before(other)) {
            return Err(Refused::Superseded);
        }
        let mut touched = BTreeSet::new();
        for number in numbers {
            let (token, id) = (Token(number), WaitId(number));
            match self.holds.get(&token) {
                Some(hold) if hold.owner.is_before(owner) && hold.phase == Phase::Held => {
                    touched.append(&mut self.lapse(token, now_us));
                }
                Some(hold) if hold.owner.is_before(owner) && hold.phase == Phase::Offered => {
                    touched.append(&mut self.remove(token));
                }
                Some(_) => {}
                None => {
                    if self.waits.get(&id).is_some_and(|wait| wait.request.owner.is_before(owner)) {
                        touched.append(&mut self.leave_line(id));
                    }
                }
            }
        }
        self.serve(touched, now_us);
        Ok(())
    }

    /// Nobody stands in its own way.
    fn check_overlap(&self, request: &Request) -> Result<(), Refused> {
        let numbers = self.numbers_of(&request.owner);
        let has = |name: &Resource| {
            numbers.iter().any(|number| match self.holds.get(&Token(*number)) {
                Some(hold) => {
                    hold.owner == request.owner && hold.phase != Phase::Lapsed && hold.mode_of(name).is_some()
                }
                None => self.waits.get(&WaitId(*number)).is_some_and(|wait| {
                    wait.request.owner == request.owner
                        && wait.request.wants().iter().any(|(wanted, _)| wanted == name)
                }),
            })
        };
        let twice = request.wants().iter().map(|(name, _)| name).find(|name| has(name));
        twice.map_or(Ok(()), |name| Err(Refused::Overlap(name.clone())))
    }

    fn wait_like(&self, request: &Request) -> Option<WaitId> {
        let numbers = self.numbers_of(&request.owner).into_iter();
        let mut waits = numbers.filter_map(|number| self.waits.get(&WaitId(number)));
        let same =
            |wait: &&Wait| wait.request.owner == request.owner && wait.request.wants() == request.wants();
        waits.find(same).map(|wait| wait.id)
    }

    /// What stands in the way of a wish, from a place in line (none: from its end).
    fn blocker(&self, request: &Request, id: Option<WaitId>) -> Option<Blocker> {
        request.wants().iter().find_map(|(name, mode)| {
            let line = self.lines.get(name)?;
            let (owner, until_us) = match line.holders.first_against(*mode) {
                Some(token) => (&self.holds[&token].owner, Some(self.holds[&token].until_us)),
                None => {
                    let first = line.waiting.first_against(*mode);
                    let first = first.filter(|first| id.is_none_or(|id| *first < id))?;
                    (&self.waits[&first].request.owner, None)
                }
            };
            Some(Blocker { resource: name.clone(), owner: owner.clone(), until_us })
        })
    }

    fn stand_in_line(&mut self, request: Request, now_us: i64) -> WaitId {
        let id = WaitId(self.next_mark(now_us));
        for (name, mode) in request.wants() {
            self.lines.entry(name.clone()).or_default().waiting.join(id, *mode);
        }
        self.of_owner.entry(request.owner.key().to_owned()).or_default().insert(id.0);
        let deadline_us = deadline_us(&request, now_us);
        let alive_until_us = alive_until_us(now_us);
        let wait = Wait { id, request, since_us: now_us, deadline_us, alive_until_us };
        self.wait_ends.insert((wait.ends_us(), id));
        self.waits.insert(id, wait);
        id
    }

    fn set_wait_ends(&mut self, id: WaitId, deadline_us: i64, now_us: i64) {
        let Some(wait) = self.waits.get_mut(&id) else { return };
        self.wait_ends.remove(&(wait.ends_us(), id));
        (wait.deadline_us, wait.alive_until_us) = (deadline_us, alive_until_us(now_us));
        self.wait_ends.insert((wait.ends_us(), id));
    }

    /// Grants a wish that nothing stands in the way of.
    fn grant(&mut self, request: Request, wait: Option<WaitId>, now_us: i64) -> Granted {
        let token = Token(self.next_mark(now_us));
        let (phase, lasts_ms) = match wait {
            Some(id) => {
                self.granted_to.insert(id, token);
                self.offered.push(id);
                (Phase::Offered, PICK_UP_MS)
            }
            None => (Phase::Held, request.ttl_ms),
        };
        let Request { owner, wants: resources, ttl_ms, delay_ms, .. } = request;
        let until_us = after_us(now_us, lasts_ms);
        let hold =
            Hold { token, owner, resources, phase, ttl_ms, delay_ms, since_us: now_us, until_us, wait };
        let granted = Granted { is_news: true, ..Granted::from(&hold) };
        self.insert(hold);
        granted
    }

    fn insert(&mut self, hold: Hold) {
        let token = hold.token;
        for (name, mode) in &hold.resources {
            self.lines.entry(name.clone()).or_default().holders.join(token, *mode);
        }
        self.of_owner.entry(hold.owner.key().to_owned()).or_default().insert(token.0);
        if let Some(id) = hold.wait {
            self.granted_to.insert(id, token);
        }
        self.hold_ends.insert((hold.until_us, token));
        self.changed.insert(token);
        self.holds.insert(token, hold);
    }

    /// It is held, and ends no earlier than its time from now on; later than it did, in any case ([`Self::take_back`]).
    fn hold_on(&mut self, mut hold: Hold, now_us: i64) -> Granted {
        let is_news = hold.phase == Phase::Offered;
        let least_us = if hold.phase == Phase::Held { hold.until_us.saturating_add(1) } else { now_us };
        hold.phase = Phase::Held;
        let until_us = after_us(now_us, hold.ttl_ms);
        self.set_hold_end(&mut hold, least_us.max(until_us));
        let granted = Granted { is_news, ..Granted::from(&hold) };
        self.holds.insert(hold.token, hold);
        granted
    }

    fn set_hold_end(&mut self, hold: &mut Hold, until_us: i64) {
        self.hold_ends.remove(&(hold.until_us, hold.token));
        hold.until_us = until_us;
        self.hold_ends.insert((until_us, hold.token));
        self.changed.insert(hold.token);
    }

    /// Its owner may not know that it is over. Returns which resources others may have now.
    fn lapse(&mut self, token: Token, at_us: i64) -> BTreeSet<Resource> {
        let Some(mut hold) = self.holds.get(&token).cloned() else { return BTreeSet::new() };
        let (kept, free): (Vec<_>, Vec<_>) =
            hold.resources.iter().cloned().partition(|(_, mode)| *mode == Mode::Exclusive);
        if kept.is_empty() || hold.delay_ms == 0 {
            return self.remove(token);
        }
        for (name, _) in &free {
            self.leave_holders(name, token);
        }
        (hold.resources, hold.phase) = (kept, Phase::Lapsed);
        let until_us = after_us(at_us, hold.delay_ms);
        self.set_hold_end(&mut hold, until_us);
        self.holds.insert(token, hold);
        free.into_iter().map(|(name, _)| name).collect()
    }

    /// Ends a hold. Returns which resources others may have now.
    fn remove(&mut self, token: Token) -> BTreeSet<Resource> {
        let Some(hold) = self.holds.remove(&token) else { return BTreeSet::new() };
        self.hold_ends.remove(&(hold.until_us, token));
        self.changed.insert(token);
        if let Some(id) = hold.wait {
            self.granted_to.remove(&id);
        }
        self.forget_number(&hold.owner, token.0);
        for (name, _) in &hold.resources {
            self.leave_holders(name, token);
        }
        hold.resources.into_iter().map(|(name, _)| name).collect()
    }

    /// Ends a wait. Returns in which lines others may be next now.
    fn leave_line(&mut self, id: WaitId) -> BTreeSet<Resource> {
        let Some(wait) = self.waits.remove(&id) else { return BTreeSet::new() };
        self.wait_ends.remove(&(wait.ends_us(), id));
        self.forget_number(&wait.request.owner, id.0);
        for (name, _) in wait.request.wants() {
            if let Some(line) = self.lines.get_mut(name) {
                line.waiting.leave(id);
                if line.is_empty() {
                    self.lines.remove(name);
                }
            }
        }
        wait.request.wants().iter().map(|(name, _)| name.clone()).collect()
    }

    fn leave_holders(&mut self, name: &Resource, token: Token) {
        if let Some(line) = self.lines.get_mut(name) {
            line.holders.leave(token);
            if line.is_empty() {
                self.lines.remove(name);
            }
        }
    }

    fn forget_number(&mut self, owner: &Owner, number: i64) {
        if let Some(numbers) = self.of_owner.get_mut(owner.key()) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.of_owner.remove(owner.key());
            }
        }
    }

    /// Gives resources that something has left to those whose turn it is.
    fn serve(&mut self, touched: BTreeSet<Resource>, now_us: i64) {
        for name in touched {
            let mut last = None;
            // One after the other: a line is long, and mostly the first of it ends the search.
            while let Some((id, mode)) = self.lines.get(&name).and_then(|line| line.waiting.after(last)) {
                last = Some(id);
                let Some(wait) = self.waits.get(&id) else { continue };
                if self.blocker(&wait.request, Some(id)).is_none() {
                    let request = wait.request.clone();
                    self.leave_line(id);
                    self.grant(request, Some(id), now_us);
                }
                // Nobody passes one that has it alone, or wants to.
                let held_alone = |line: &Line| line.holders.first_against(Mode::Shared).is_some();
                if mode == Mode::Exclusive || self.lines.get(&name).is_some_and(held_alone) {
                    break;
                }
            }
        }
    }
}

fn deadline_us(request: &Request, now_us: i64) -> i64 {
    after_us(now_us, request.wait_ms)
}

fn alive_until_us(now_us: i64) -> i64 {
    after_us(now_us, WAITER_ALIVE_MS)
}

fn after_us(now_us: i64, ms: u64) -> i64 {
    now_us.saturating_add(i64::try_from(ms.saturating_mul(1_000)).unwrap_or(i64::MAX))
}
