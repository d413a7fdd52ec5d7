//! What of all that a task goes through was a call to somebody's API.

use super::{Ended, Record, Start};
use crate::failure::FailureClass;

impl Ended<'_> {
    /// Whether it was a call: whatever a handler did to the end, well or badly. What was put off, handed back, never delivered
    /// or in want of a lock was none; of what was handed off, nobody knows yet.
    pub fn is_call(&self) -> bool {
        match self {
            Self::Done => true,
            Self::Failed(failure) | Self::FailedForGood(failure) | Self::NeedsPerson(failure) => {
                failure.class != FailureClass::LockTimeout
            }
            Self::Snoozed { .. } | Self::Released | Self::Undelivered | Self::HandedOff => false,
        }
    }
}

impl Start<'_> {
    /// How many of the attempts made were calls. A failure that is told was one, whatever their number says, unless it is that
    /// a lock was not had.
    pub fn calls_made(&self) -> u32 {
        match self.failure.map(|failure| failure.class) {
            Some(FailureClass::LockTimeout) => self.attempts_made.saturating_sub(1),
            Some(_) => self.attempts_made.max(1),
            None => self.attempts_made,
        }
    }
}

impl Record {
    /// Whether a call was made for it before. Records of older releases say so only where it was charged.
    pub const fn was_called(&self) -> bool {
        self.called || self.ledger.was_tried()
    }
}
