//! The gate as others have it: what they wrote, and what becomes of ours.

use redrive_shared::gate::{Change, Gate};

use super::super::event::Event;
use super::super::event::apply;
use super::super::known::Known;
use super::{Entry, Sending};

impl Entry {
    /// Somebody else was faster: what is there now, and then ours on top of it. Where ours was written in spite of a failure, and
    /// lies below theirs, it is not counted once more: returns what it changed.
    pub fn overtaken(&mut self, now: Known, version: i64, now_ms: i64) -> Option<Vec<Change>> {
        let is_below = |sending: &mut Sending| {
            let (writer, number) = sending.by;
            sending.doubtful && now.gate.has_write(writer, number)
        };
        if let Some(sending) = self.sending.take_if(is_below) {
            return Some(self.landed(sending, now, version, now_ms));
        }
        self.put_back();
        (self.base, self.later, self.version) = (now.gate, now.later, version);
        self.again(now_ms);
        self.write_by(now_ms);
        None
    }

    /// It may or may not have been written: the same is sent again, and what is there then tells.
    pub fn failed(&mut self, again_ms: i64) {
        if let Some(sending) = &mut self.sending {
            sending.doubtful = true;
        }
        self.resend_at_ms = Some(again_ms);
        self.write_by(again_ms);
    }

    /// Whether it was written in spite of a failure, if this is what is there.
    pub fn has_written(&self, value: &str) -> bool {
        self.sending.as_ref().is_some_and(|sending| sending.doubtful && sending.draft.value == value)
    }

    /// There is no room for it in the store: a gate that only this coordinator has could neither be opened by others nor let
    /// anything through one by one. So there is none.
    pub fn refused(&mut self) {
        self.sending = None;
        self.pending.clear();
        (self.base, self.gate, self.stock) = (Gate::default(), Gate::default(), 0);
        self.let_through();
    }

    /// What is in the store is of a newer release. Nothing is held back here, and nothing is written over it.
    pub fn cannot_read(&mut self, version: i64) {
        let (lets_through, unreadable) = (true, true);
        *self = Self { version, unreadable, lets_through, ..Self::default() };
    }

    pub fn is_unreadable(&self) -> bool {
        self.unreadable
    }

    pub(super) fn put_back(&mut self) {
        if let Some(sending) = self.sending.take() {
            let newer = std::mem::replace(&mut self.pending, sending.events);
            newer.into_iter().for_each(|event| self.keep(event));
        }
    }

    /// Others wrote it.
    pub fn learn(&mut self, Known { gate, later }: Known, version: i64, now_ms: i64) {
        // What is under way finds that out by itself.
        if self.sending.is_some() || version == self.version {
            return;
        }
        (self.base, self.later, self.version, self.unreadable) = (gate, later, version, false);
        if self.again(now_ms) && !self.pending.is_empty() {
            // What was handed out until now says how much was too much: who begins the ramp must know it by then.
            self.write_by(now_ms);
        }
        self.look(now_ms);
    }

    /// The base, and what happened since. Returns whether that is another state.
    pub(super) fn again(&mut self, now_ms: i64) -> bool {
        let before = self.gate.state();
        self.gate = self.base.clone();
        self.gate.advance(now_ms);
        for event in &self.pending {
            apply(&mut self.gate, event, now_ms);
        }
        let changed = self.gate.state() != before;
        if changed {
            self.waste(now_ms);
        }
        changed
    }

    /// Writes what there is to be written now; what lies unused goes back with it.
    pub fn hurry(&mut self, now_ms: i64) {
        if self.stock > 0 {
            let unused = std::mem::take(&mut self.stock);
            self.add(Event::GiveBack(unused), now_ms);
        }

        if self.write_at_ms.is_some() {
            self.write_at_ms = Some(i64::MIN);
        }
        if self.resend_at_ms.is_some() {
            self.resend_at_ms = Some(i64::MIN);
        }
    }
}
