//! Numbers and places in a value, byte by byte: see `value`.

use super::value::{HEADER_BYTES, Unreadable};

/// Where the ordinal stands in the header.
const ORDINAL: std::ops::Range<usize> = 42..HEADER_BYTES;

/// A score in a lane: the due millisecond in µs, and below it the order of arrival: tasks that are due in the same
/// millisecond follow each other as they came if they came in one, and anyhow otherwise.
pub(super) fn score(due_ms: i64, ordinal: i64) -> i64 {
    due_ms.saturating_mul(1_000) + ordinal.rem_euclid(1_000)
}

/// Writes the ordinal into a value.
pub(super) fn write_ordinal(value: &mut [u8], ordinal: i64) {
    if let Some(place) = value.get_mut(ORDINAL) {
        place.copy_from_slice(&ordinal.to_be_bytes());
    }
}

/// Everything after the record of a whole value.
pub(super) fn body_of(value: &[u8]) -> Result<&[u8], Unreadable> {
    let length = value.get(34..36).ok_or(Unreadable::Short)?;
    let record_bytes = usize::from(length[0]) << 8 | usize::from(length[1]);
    value.get(HEADER_BYTES + record_bytes..).ok_or(Unreadable::Short)
}

pub(super) fn number(bytes: &[u8], from: usize, count: usize) -> u64 {
    bytes[from..from + count].iter().fold(0, |all, byte| all << 8 | u64::from(*byte))
}

pub(super) fn time_bytes(ms: i64) -> [u8; 6] {
    let all = ms.max(0).to_be_bytes();
    [all[2], all[3], all[4], all[5], all[6], all[7]]
}
