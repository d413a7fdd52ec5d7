//! What every store writes the same way. Numbers here are part of the stored format: none is ever given a second meaning.

use std::borrow::Cow;

use redrive_shared::blob::{BlobRef, Content};
use redrive_shared::checkpoint::Progress;
use redrive_shared::failure::FailureClass;
use redrive_shared::lifecycle::ClassCounts;
use redrive_shared::retry::Strategy;
use redrive_shared::stored;
use redrive_shared::task::{AttemptEnd, Priority, TaskState};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::Enqueue;

/// Bytes of the contents' hash that are kept: 16 make an accidental match as likely as none.
pub(super) const HASH_BYTES: usize = 16;

/// The number of a state.
pub(super) const fn state_number(state: TaskState) -> u8 {
    match state {
        TaskState::Scheduled => 0,
        TaskState::Leased => 1,
        TaskState::Succeeded => 2,
        TaskState::Dead => 3,
        TaskState::Escalated => 4,
        TaskState::Cancelled => 5,
        TaskState::HandedOff => 6,
    }
}

/// The state of a number.
pub(super) fn state_from(number: u8) -> Option<TaskState> {
    TaskState::ALL.into_iter().find(|state| state_number(*state) == number)
}

/// The number of a lane's priority: lower goes first.
pub(super) const fn rank(priority: Priority) -> u8 {
    match priority {
        Priority::High => 0,
        Priority::Normal => 1,
        Priority::Low => 2,
    }
}

/// The priority of a number.
pub(super) fn priority_from(number: u8) -> Option<Priority> {
    [Priority::High, Priority::Normal, Priority::Low].into_iter().find(|priority| rank(*priority) == number)
}

/// The number of a class.
pub(super) const fn class_number(class: FailureClass) -> u8 {
    match class {
        FailureClass::RateLimited => 0,
        FailureClass::Overloaded => 1,
        FailureClass::ServerError => 2,
        FailureClass::Timeout => 3,
        FailureClass::Network => 4,
        FailureClass::PartialResponse => 5,
        FailureClass::QuotaExhausted => 6,
        FailureClass::QuotaWindow => 7,
        FailureClass::Auth => 8,
        FailureClass::Permission => 9,
        FailureClass::ModelUnavailable => 10,
        FailureClass::ContextOverflow => 11,
        FailureClass::ContentPolicy => 12,
        FailureClass::Refusal => 13,
        FailureClass::BadOutput => 14,
        FailureClass::Conflict => 15,
        FailureClass::InvalidRequest => 16,
        FailureClass::ToolError => 17,
        FailureClass::BusinessRule => 18,
        FailureClass::WorkerLost => 19,
        FailureClass::LockTimeout => 20,
        FailureClass::Unknown => 21,
    }
}

/// The class of a number.
pub(super) fn class_from(number: u8) -> Option<FailureClass> {
    FailureClass::ALL.into_iter().find(|class| class_number(*class) == number)
}

/// Stands where the number of a class does, and says that a call was made for the task, with a count of 1. Releases that do
/// not know it pass over it, as over a class, and lose it when they next write the record.
const CALLED: u8 = 255;

/// What a record has by class, in pairs of bytes, (number of the class, count up to 255), and whether it was called; empty
/// when nothing was counted.
pub(super) fn class_counts(counts: &ClassCounts, called: bool) -> Vec<u8> {
    let count = |count: u32| u8::try_from(count).unwrap_or(u8::MAX);
    let mut bytes: Vec<u8> =
        counts.iter().flat_map(|(class, seen)| [class_number(class), count(seen)]).collect();
    if called {
        bytes.extend([CALLED, 1]);
    }
    bytes
}

/// Whether such pairs say that a call was made.
pub(super) fn called_from(bytes: &[u8]) -> bool {
    bytes.chunks_exact(2).any(|pair| pair[0] == CALLED)
}

/// The counts of such pairs. A class of a newer release is left out.
pub(super) fn class_counts_from(bytes: &[u8]) -> ClassCounts {
    let pairs = bytes.chunks_exact(2);
    pairs.filter_map(|pair| Some((class_from(pair[0])?, u32::from(pair[1])))).collect()
}

/// How endings are stored, by number. [`AttemptEnd`] travels by name.
pub(super) const ENDINGS: [AttemptEnd; 10] = [
    AttemptEnd::Succeeded,
    AttemptEnd::Failed,
    AttemptEnd::Snoozed,
    AttemptEnd::Released,
    AttemptEnd::Lost,
    AttemptEnd::Undelivered,
    AttemptEnd::Cancelled,
    AttemptEnd::Reported,
    AttemptEnd::Redriven,
    AttemptEnd::HandedOff,
];

/// A task's own backoff as it is kept. One that this release cannot read is none: the queue's holds.
pub(super) fn strategy_from(kept: &str) -> Option<Box<Strategy>> {
    stored::read(kept).ok().map(|(strategy, _)| Box::new(strategy))
}

/// What a reference to a blob begins with, where it lies in the place of JSON: no JSON begins so. A release that does not know it
/// cannot read the task, and leaves it alone.
const REFERENCE: char = '@';

/// A payload or a result as it is kept.
pub(super) fn content_text(content: &Content) -> Cow<'_, str> {
    match content {
        Content::Inline(json) => json.get().into(),
        // As its JSON, of which nothing needs to be escaped: this cannot fail.
        Content::Blob(BlobRef { blob, bytes, sha256 }) => {
            format!(r#"{REFERENCE}{{"blob":"{blob}","bytes":{bytes},"sha256":"{sha256}"}}"#).into()
        }
    }
}

/// What is kept as that.
pub(super) fn content_from(kept: &str) -> serde_json::Result<Content> {
    match kept.strip_prefix(REFERENCE) {
        None => RawValue::from_string(kept.to_owned()).map(Content::Inline),
        Some(blob) => serde_json::from_str(blob).map(Content::Blob),
    }
}

/// How far a task came, as it is kept. Where that fails nothing must be saved: what was before is worth more.
pub(super) fn progress_text(progress: &Progress) -> serde_json::Result<String> {
    serde_json::to_string(progress)
}

/// What is kept as that. Fields that this release does not know are passed over, and lost when the next checkpoint is saved.
/// What does not fit is not: a step that is left out would be done again, so the task waits for a release that can read it.
pub(super) fn progress_from(kept: &str) -> serde_json::Result<Progress> {
    serde_json::from_str(kept)
}

/// What makes two tasks of one id the same: queue, type and payload, byte for byte.
pub(super) fn contents_hash(task: &Enqueue) -> [u8; HASH_BYTES] {
    let mut hasher = Sha256::new();
    let payload = match &task.payload {
        Content::Inline(json) => Cow::Borrowed(json.get()),
        // The same contents, uploaded twice, have two names.
        Content::Blob(blob) => format!("{REFERENCE}{} {}", blob.bytes, blob.sha256).into(),
    };
    for part in [task.queue.as_str(), task.task_type.as_str(), &payload] {
        hasher.update(part.len().to_le_bytes());
        hasher.update(part);
    }
    let mut hash = [0; HASH_BYTES];
    hash.copy_from_slice(&hasher.finalize()[..HASH_BYTES]);
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_back_as_what_it_was() {
        for state in TaskState::ALL {
            assert_eq!(state_from(state_number(state)), Some(state));
        }
        assert_eq!(state_from(99), None);
        for priority in [Priority::High, Priority::Normal, Priority::Low] {
            assert_eq!(priority_from(rank(priority)), Some(priority));
        }
        let counts: ClassCounts = FailureClass::ALL.into_iter().map(|class| (class, 3)).collect();
        for called in [false, true] {
            let stored = class_counts(&counts, called);
            assert_eq!((class_counts_from(&stored), called_from(&stored)), (counts.clone(), called));
        }
        assert!(class_counts(&ClassCounts::default(), false).is_empty());
        assert_eq!(class_counts(&ClassCounts::default(), true), [255, 1]);
        // Pinned: a store of an older release must read the same.
        let states: Vec<u8> = TaskState::ALL.into_iter().map(state_number).collect();
        assert_eq!(states, (0..7).collect::<Vec<u8>>());
        let numbers: Vec<u8> = FailureClass::ALL.into_iter().map(class_number).collect();
        assert_eq!(numbers, (0..22).collect::<Vec<u8>>());
    }

    #[test]
    fn a_reference_is_no_json_and_comes_back_as_it_was() {
        let pinned = concat!(
            r#"@{"blob":"00000000-0005-7101-8101-010101010101","bytes":9,"#,
            r#""sha256":"abababababababababababababababababababababababababababababababab"}"#
        );
        let Content::Blob(blob) = content_from(pinned).unwrap() else { panic!("it is a reference") };
        assert_eq!((blob.bytes, blob.blob.made_at_ms()), (9, 5));
        assert_eq!(
            content_text(&Content::Blob(blob)),
            pinned,
            "pinned: what is kept must be read by every release"
        );
        assert!(serde_json::from_str::<serde_json::Value>(pinned).is_err());
        assert!(content_from("@{}").is_err() && content_from("@").is_err() && content_from("").is_err());
    }

    #[test]
    fn progress_is_kept_byte_for_byte_and_nothing_of_it_is_left_out() {
        let pinned = concat!(
            r#"{"seq":3,"steps":[{"step":"a","seq":3,"completed":true,"saved_at_ms":7,"state":{ "n" : 1.00 }}],"#,
            r#""pending":["b"]}"#
        );
        assert_eq!(progress_text(&progress_from(pinned).unwrap()).unwrap(), pinned);
        let newer = pinned.replace(r#""seq":3,"#, r#""seq":3,"mood":[],"#);
        assert_eq!(
            progress_text(&progress_from(&newer).unwrap()).unwrap(),
            pinned,
            "fields that are not known are passed over"
        );
        for unknown in [pinned.replace(r#""a""#, "7"), pinned.replace("true", r#""half""#), "{}".to_owned()] {
            assert!(progress_from(&unknown).is_err(), "{unknown}");
        }
    }
}
